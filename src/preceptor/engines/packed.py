"""Run pairs through a model's body: packed, shared prompts, no padding; whatever is then read off its states.

The fast path runs the body over packs (`packing`, `attention`). It rests on assumptions about the
architecture, so at load it must reproduce the model's own forward pass on a small probe; a model for which
it does not is run plainly, one pair at a time. On a CPU packs run side by side, one per core, which keeps
each core's work in its own cache.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from preceptor.engines import attention
from preceptor.engines.base import TokenizedPair
from preceptor.engines.memory import (
    gate_in_place,
    is_out_of_memory,
    keep_freed_memory,
    normalise_at_once,
    release_memory,
)
from preceptor.engines.packing import Group, Pack, plan
from preceptor.engines.workers import side_by_side

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TOKEN_BUDGET = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Tokens in one pack where the user does not say; halved whenever memory runs out."""

_MOST_CPU_WORKERS = 8


class _OutOfMemory(Exception):
    """Memory ran out while the pairs at `indices` were being run in a row of `tokens`."""

    def __init__(self, indices: list[int], tokens: int) -> None:
        super().__init__("out of memory")
        self.indices = indices
        self.tokens = tokens


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the engine runs; nothing here changes a number beyond rounding.

    `token_budget` None takes the device's default; `keep_tokens` also returns every token's statistics;
    `packed` False forces the plain path.
    """

    token_budget: int | None = None
    keep_tokens: bool = False
    packed: bool = True


class Indexed(Protocol):
    """What an engine finds out about the pair at `index`."""

    @property
    def index(self) -> int:
        """The pair's place in the sequence that was given."""
        ...


Found = TypeVar("Found", bound=Indexed)


class PackedEngine(Generic[Found]):
    """A loaded model on the device it lies on; a subclass says what is read off its hidden states."""

    def __init__(self, model: Any, options: EngineOptions | None = None) -> None:
        self.model = model.eval()
        self.options = options or EngineOptions()
        self.device = next(model.parameters()).device
        self.budget = self.options.token_budget or TOKEN_BUDGET.get(self.device.type, 4096)
        if self.device.type == "cpu":
            keep_freed_memory()
            gate_in_place(model)
            normalise_at_once(model)
        attention.register()
        self.packed = self.options.packed and self._reproduces_itself()
        self._use_attention(attention.NAME if self.packed else attention.plain_attention(model))
        if self.options.packed and not self.packed:
            logger.warning(
                "%s cannot be packed: its responses are scored one by one, which is slower",
                type(model).__name__,
            )

    def _read_off(
        self, context: attention.PackContext, hidden: "torch.Tensor", pairs: Sequence[TokenizedPair]
    ) -> list[Found]:
        """Return what a pack's hidden states (tokens, width) tell of each of its pairs."""
        raise NotImplementedError

    def _plainly(self, index: int, pair: TokenizedPair) -> Found:
        """Return the same of one pair by the model's own forward pass."""
        raise NotImplementedError

    def _alike(self, packed: Sequence[Found], plain: Sequence[Found]) -> bool:
        """Whether the probe's packed results are those of the plain path, in the same order."""
        raise NotImplementedError

    def measure(self, pairs: Sequence[TokenizedPair]) -> Iterator[list[Found]]:
        """Yield what is found of every pair once, a batch at a time, in any order.

        Memory errors halve the token budget and cost only the batch they met. A pair that does not fit in
        memory alone is left out and warned of: where there is more memory, it can be measured.
        """
        waiting = dict.fromkeys(range(len(pairs)))
        while waiting:
            try:
                for batch in self._run(pairs, list(waiting)):
                    for found in batch:
                        del waiting[found.index]
                    yield batch
            except _OutOfMemory as error:
                self._shrink(error, waiting)

    def _shrink(self, error: _OutOfMemory, waiting: dict[int, None]) -> None:
        release_memory(self.device.type)
        if len(error.indices) > 1 and self.budget > 1:
            self.budget = max(1, min(self.budget, error.tokens) // 2)
            logger.warning("out of memory: going on with %d tokens per batch", self.budget)
            return
        for index in error.indices:
            del waiting[index]
        logger.warning(
            "a response of %d tokens (with its prompt) does not fit in memory and is left out: run again "
            "where there is more, or with a smaller --max-length",
            error.tokens,
        )

    def _run(self, pairs: Sequence[TokenizedPair], indices: list[int]) -> Iterator[list[Found]]:
        if not self.packed:
            for index in indices:
                with _naming_rows([index], len(pairs[index].prompt + pairs[index].response)):
                    found = self._plainly(index, pairs[index])
                yield [found]
            return
        chains = _chains(plan(pairs, indices, budget=self.budget))
        workers = self._workers()
        if workers > 1:
            # The longest first, so that the workers end at about the same time.
            chains = iter(sorted(chains, key=_tokens_of, reverse=True))
        yield from side_by_side(lambda chain: self._run_chain(chain, pairs), chains, workers)

    def _workers(self) -> int:
        import torch

        return min(torch.get_num_threads(), _MOST_CPU_WORKERS) if self.device.type == "cpu" else 1

    def _run_chain(
        self, chain: list[Pack], pairs: Sequence[TokenizedPair]
    ) -> Iterator[list[Found]]:
        """Run packs of which each resumes the prompt that the one before kept."""
        import torch

        memory: attention.PromptMemory | None = None
        for pack in chain:
            kept = attention.PromptMemory() if pack.kept else None
            context = attention.PackContext(pack, memory, kept)
            indices = [branch.index for group in pack.groups for branch in group.branches]
            # Inside the loop: a generator must not hold inference mode while it is suspended.
            with _naming_rows(indices, len(pack.ids)), torch.inference_mode():
                batch = self._read_off(context, self._hidden(context), pairs)
            memory = _carried(memory, kept, pack)
            yield batch

    def _hidden(self, context: attention.PackContext) -> "torch.Tensor":
        """Return the body's last hidden states of the pack's tokens, (tokens, width)."""
        import torch

        pack = context.pack
        if not pack.ids:
            assert context.resumed is not None and context.resumed.last_hidden is not None
            return context.resumed.last_hidden[:0]
        ids = torch.tensor([pack.ids], device=self.device)
        positions = torch.tensor([pack.positions], device=self.device)
        with attention.running(context):
            output = self.model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def _last_prompt_state(
        self, context: attention.PackContext, group: Group, hidden: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the state that predicts the first token of each response of the group, (1, width)."""
        if group.resumed:
            assert context.resumed is not None and context.resumed.last_hidden is not None
            return context.resumed.last_hidden
        last = hidden[group.stop - 1 : group.stop]
        if context.kept is not None and group is context.pack.groups[-1]:
            context.kept.last_hidden = last.clone()
        return last

    def _use_attention(self, name: str) -> None:
        self.model.set_attn_implementation(name)

    def _reproduces_itself(self) -> bool:
        """Whether the packed path gives the model's own results on a small probe.

        The probe holds two prompts with two responses each, one prompt resumed across packs.
        """
        if getattr(self.model.config, "attention_chunk_size", None):
            return False
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        ids = [(7919 * step + 11) % vocabulary for step in range(64)]
        prompts = (tuple(ids[:9]), tuple(ids[9:14]))
        pairs = [
            TokenizedPair(prompt, tuple(ids[start : start + 12]))
            for start, prompt in zip((14, 26, 38, 50), prompts * 2, strict=True)
        ]
        try:
            self._use_attention("eager")
            plain = [self._plainly(index, pair) for index, pair in enumerate(pairs)]
            self._use_attention(attention.NAME)
            chains = list(_chains(plan(pairs, range(len(pairs)), budget=24)))
            found = [
                one for chain in chains for batch in self._run_chain(chain, pairs) for one in batch
            ]
            return self._alike(sorted(found, key=lambda one: one.index), plain)
        except Exception as error:  # any failure of an unknown architecture means: run it plainly
            logger.debug("the packed path failed its probe", exc_info=error)
            return False


def _carried(
    memory: attention.PromptMemory | None, kept: attention.PromptMemory | None, pack: Pack
) -> attention.PromptMemory | None:
    """Return the prompt memory for the next pack: still the same prompt, a new one, or none."""
    if kept is None:
        return None
    return memory if pack.groups[-1].resumed else kept


def _chains(packs: Iterator[Pack]) -> Iterator[list[Pack]]:
    """Yield runs of packs in which each resumes the prompt that the one before kept."""
    chain: list[Pack] = []
    for pack in packs:
        chain.append(pack)
        if not pack.kept:
            yield chain
            chain = []


def _tokens_of(chain: Sequence[Pack]) -> int:
    return sum(len(pack.ids) for pack in chain)


@contextmanager
def _naming_rows(indices: list[int], tokens: int) -> Iterator[None]:
    """Turn a memory error into one that says which pairs met it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _OutOfMemory(indices, tokens) from error
