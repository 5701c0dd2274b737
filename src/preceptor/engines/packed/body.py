"""Run pairs through a model's body: packed, shared prompts, no padding; whatever is then read off its states.

The fast path runs the body over packs (`packing`, `attention`). It rests on assumptions about the
architecture, so at load its layers are looked at and it must reproduce the model's own forward pass on a
probe (`check`); a model for which it does not is run plainly, one pair at a time, and so is a sequence whose
length changes how the model encodes positions. On a CPU packs run side by side, one per core, which keeps
each core's work in its own cache.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed import attention, check
from preceptor.engines.packed.cuda import varlen
from preceptor.engines.packed.memory import (
    gate_in_place,
    is_out_of_memory,
    keep_freed_memory,
    release_memory,
)
from preceptor.engines.packed.packing import Group, Pack, Plan, plan
from preceptor.engines.packed.pieces import take_pieces
from preceptor.engines.packed.workers import side_by_side

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TOKEN_BUDGET = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Tokens in one pack where the user does not say; halved whenever memory runs out."""

RUNTIME = Runtime()
"""The default place to run: the default pack size."""

_MOST_CPU_WORKERS = 8

_SMALLEST_PIECE = 256
"""A row that is longer than a pack is run in pieces of a pack's size (`pieces`), but never below this one."""

_PACKS_PER_WORKER = 8
_SMALL_PACK = 1024
"""Small work is cut into more packs than workers, so that these end together, but never below this size."""


class _OutOfMemory(Exception):
    """Memory ran out in a row of `tokens`, which the pairs at `indices` need; `whole`: it cannot be split."""

    def __init__(self, indices: list[int], tokens: int, *, whole: bool) -> None:
        super().__init__("out of memory")
        self.indices = indices
        self.tokens = tokens
        self.whole = whole


class Indexed(Protocol):
    """What an engine finds out about the pair at `index`."""

    @property
    def index(self) -> int:
        """The pair's place in the sequence that was given."""
        ...


Found = TypeVar("Found", bound=Indexed)

Numbers = Sequence[float]
"""What was found of a pair of the probe, token by token where it is known of tokens."""


class PackedEngine(Generic[Found]):
    """A loaded model on the device it lies on; a subclass says what is read off its hidden states."""

    def __init__(self, model: Any, runtime: Runtime = RUNTIME, *, packed: bool = True) -> None:
        self.model = model.eval()
        self.runtime = runtime
        self.device = next(model.parameters()).device
        self.budget = runtime.max_batch_tokens or TOKEN_BUDGET.get(self.device.type, 4096)
        if self.device.type == "cpu":
            keep_freed_memory()
            gate_in_place(model)
        attention.register()
        self.longest = check.length_that_changes_positions(model.config)
        self.at_once = varlen.usable(self.device, next(model.parameters()).dtype)
        self.in_pieces = packed and take_pieces(model)
        self.refusal = self._refusal() if packed else None
        self.packed = packed and self.refusal is None
        self._use_attention(attention.NAME if self.packed else attention.plain_attention(model))
        if self.refusal:
            logger.warning(
                "%s cannot be packed: %s. Its responses are scored one by one, which is slower",
                type(model).__name__,
                self.refusal,
            )

    def _read_off(
        self, context: attention.PackContext, hidden: "torch.Tensor", pairs: Sequence[TokenizedPair]
    ) -> list[Found]:
        """Return what a pack's hidden states (tokens, width) say of each of its pairs."""
        raise NotImplementedError

    def _of_prompt(
        self, context: attention.PackContext, group: Group, hidden: "torch.Tensor"
    ) -> Any:
        """Return what else is to be known of a prompt; nothing here."""
        return None

    def _plainly(self, index: int, pair: TokenizedPair) -> Found:
        """Return the same of one pair by the model's own forward pass."""
        raise NotImplementedError

    def _sequence(self, pair: TokenizedPair) -> tuple[int, ...]:
        """Return the tokens that the model is meant to see: their number may change its positions."""
        raise NotImplementedError

    def _numbers(self, found: Found) -> Numbers:
        """Return what was found of a pair of the probe, token by token where it is known of tokens."""
        raise NotImplementedError

    def measure(self, pairs: Sequence[TokenizedPair]) -> Iterator[list[Found]]:
        """Yield what is found of every pair once, a batch at a time, in any order.

        Memory errors halve the token budget and cost only the batch they met. A pair that does not fit in
        memory alone is left out and warned of: where there is more memory, it can be measured.
        """
        waiting = dict.fromkeys(range(len(pairs)))
        alone: list[int] = []
        while waiting:
            workers = 1 if alone else self._workers()
            try:
                for batch in self._run(pairs, alone or list(waiting), workers):
                    for found in batch:
                        del waiting[found.index]
                    yield batch
            except _OutOfMemory as error:
                if error.whole and workers > 1:
                    alone = error.indices  # other packs had their share of the memory
                else:
                    self._shrink(error, waiting)
            alone = [index for index in alone if index in waiting]

    def _shrink(self, error: _OutOfMemory, waiting: dict[int, None]) -> None:
        release_memory(self.device.type)
        if not error.whole and self.budget > 1:
            self.budget = max(1, min(self.budget, error.tokens or self.budget) // 2)
            logger.warning("out of memory: going on with %d tokens per batch", self.budget)
            return
        for index in error.indices:
            del waiting[index]
        logger.warning(
            "%d tokens in one row do not fit in memory and %s left out: run again where there is more, or "
            "with a smaller --max-length",
            error.tokens,
            "a response is" if len(error.indices) == 1 else f"{len(error.indices)} responses are",
        )

    def _run(
        self, pairs: Sequence[TokenizedPair], indices: list[int], workers: int
    ) -> Iterator[list[Found]]:
        alone = [index for index in indices if not self.packed or self._stretches(pairs[index])]
        for index in alone:
            with _naming_rows([index], len(pairs[index].prompt + pairs[index].response)):
                found = self._alone(index, pairs[index])
            yield [found]
        if len(alone) == len(indices):
            return
        if alone:
            logger.warning(
                "%d of %d responses are scored one by one, which is slower: with their prompts they exceed "
                "%d tokens, where the length of a sequence changes how %s encodes positions",
                len(alone),
                len(indices),
                self.longest,
                type(self.model).__name__,
            )
            apart = set(alone)
            indices = [index for index in indices if index not in apart]
        budget = self.budget
        if workers > 1:
            # Cut finer where there is little work, or one worker would still be at it while the others wait.
            tokens = sum(len(pairs[index].response) for index in indices)
            budget = min(budget, max(_SMALL_PACK, tokens // (workers * _PACKS_PER_WORKER)))
        piece = max(self.budget, _SMALLEST_PIECE)
        yield from self._run_plans(pairs, plan(pairs, indices, budget=budget), workers, piece)

    def _stretches(self, pair: TokenizedPair) -> bool:
        """Whether the pair is so long that its length changes how positions are encoded."""
        return self.longest is not None and len(self._sequence(pair)) > self.longest

    def _alone(self, index: int, pair: TokenizedPair) -> Found:
        """Return what is found of a pair as if nothing else had been run."""
        if not self._stretches(pair):
            return self._plainly(index, pair)
        try:
            self._use_attention(attention.plain_attention(self.model))
            return self._plainly(index, pair)
        finally:
            check.forget_lengths(self.model)
            if self.packed:
                self._use_attention(attention.NAME)

    def _run_plans(
        self, pairs: Sequence[TokenizedPair], plans: Iterable[Plan], workers: int, piece: int
    ) -> Iterator[list[Found]]:
        if workers > 1:
            # The longest first, so that the workers end at about the same time.
            plans = sorted(plans, key=lambda one: one.tokens, reverse=True)
            # One long row has all threads to itself.
            workers = min(workers, sum(max(1, len(one.resuming)) for one in plans))
        jobs = (_Job(one.pack, following=one.resuming) for one in plans)
        batches = side_by_side(lambda job: self._run_job(job, pairs, piece), jobs, workers)
        yield from (batch for batch in batches if batch)

    def _workers(self) -> int:
        import torch

        return min(torch.get_num_threads(), _MOST_CPU_WORKERS) if self.device.type == "cpu" else 1

    def _run_job(
        self, job: "_Job", pairs: Sequence[TokenizedPair], piece: int
    ) -> tuple[list[Found], list["_Job"]]:
        """Run a pack; return what is found of its pairs, and the packs that resume its prompt."""
        import torch

        kept = attention.PromptMemory() if job.following else None
        device = self.device if self.at_once else None
        long = self.in_pieces and len(job.pack.ids) > piece
        row = attention.LongRow(piece) if long else None
        context = attention.PackContext(job.pack, job.resumed, kept, device, row)
        # Inside the job: a generator must not hold inference mode while it is suspended.
        whole = len(job.pack.indices) <= 1
        with _naming_rows(job.indices, len(job.pack.ids), whole=whole), torch.inference_mode():
            hidden = self._hidden(context)
            if kept is not None:
                # The prompt's last state predicts the first token of every response that resumes it.
                kept.last_hidden = hidden[-1:].clone()
                kept.question = self._of_prompt(context, context.pack.groups[0], hidden)
                following = sorted(job.following, key=lambda pack: len(pack.ids), reverse=True)
                return [], [_Job(pack, resumed=kept) for pack in following]
            return self._read_off(context, hidden, pairs), []

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
        layers = getattr(self.model.config.get_text_config(), "num_hidden_layers", 0)
        if len(context.attended) < layers:
            raise check.NotPackable(
                f"{layers - len(context.attended)} of its {layers} layers do not attend through the "
                "interface of transformers"
            )
        if context.row is not None:
            context.row.states = ()
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def _last_prompt_state(
        self, context: attention.PackContext, group: Group, hidden: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the state that predicts the first token of each response of the group, (1, width)."""
        if group.resumed:
            assert context.resumed is not None and context.resumed.last_hidden is not None
            return context.resumed.last_hidden
        return hidden[group.stop - 1 : group.stop]

    def _use_attention(self, name: str) -> None:
        self.model.set_attn_implementation(name)

    def _refusal(self) -> str | None:
        """Return why the model cannot be packed, the rest of a sentence; None where it can."""
        pairs = check.probe_pairs(self.model.get_input_embeddings().weight.shape[0])
        try:
            if reason := check.refused_by_structure(self.model):
                return reason
            with check.narrow_windows(self.model):
                plain = self._plain_numbers(pairs, attention.plain_attention(self.model))
                with check.rounding_otherwise(self.model):
                    noisy = self._plain_numbers(pairs, "eager")
                return self._settled(pairs, plain, noisy)
        except Exception as error:  # what an unknown architecture does not know
            logger.debug("the model could not be tried", exc_info=error)
            return f"it could not be tried ({type(error).__name__}: {error})"

    def _settled(
        self, pairs: Sequence[TokenizedPair], plain: list[Numbers], noisy: list[Numbers]
    ) -> str | None:
        """Give up what the model does not bear, heads of a width that one call does not take, say."""
        once, pieces = self.at_once, self.in_pieces
        ways = ((once, pieces), (False, pieces), (once, False), (False, False))
        reason = None
        for self.at_once, self.in_pieces in dict.fromkeys(ways):
            reason = self._differs(pairs, plain, noisy)
            if reason is None:
                break
        return reason

    def _differs(
        self, pairs: Sequence[TokenizedPair], plain: list[Numbers], noisy: list[Numbers]
    ) -> str | None:
        """Return how the packed numbers of the probe differ from the plain ones; None: by noise alone."""
        try:
            packed = self._packed_numbers(pairs)
        except check.NotPackable as error:
            return str(error)
        except Exception as error:  # any failure of an unknown architecture means: run it plainly
            logger.debug("the packed path failed its probe", exc_info=error)
            return f"its packed pass fails ({type(error).__name__}: {error})"
        return check.difference(packed, plain, noisy, str(next(self.model.parameters()).dtype))

    def _plain_numbers(self, pairs: Sequence[TokenizedPair], name: str) -> list[Numbers]:
        self._use_attention(name)

        def run(index: int) -> tuple[Found, tuple[()]]:
            return self._plainly(index, pairs[index]), ()

        return self._in_order(side_by_side(run, range(len(pairs)), self._workers()))

    def _packed_numbers(self, pairs: Sequence[TokenizedPair]) -> list[Numbers]:
        self._use_attention(attention.NAME)
        plans = plan(pairs, range(len(pairs)), budget=check.PROBE_BUDGET)
        batches = self._run_plans(pairs, plans, self._workers(), check.PROBE_PIECE)
        return self._in_order(one for batch in batches for one in batch)

    def _in_order(self, found: Iterable[Found]) -> list[Numbers]:
        return [self._numbers(one) for one in sorted(found, key=lambda one: one.index)]


@dataclass(frozen=True)
class _Job:
    """A pack to run; the prompt it resumes, or the packs that will resume its own."""

    pack: Pack
    resumed: attention.PromptMemory | None = None
    following: tuple[Pack, ...] = ()

    @property
    def indices(self) -> list[int]:
        """The pairs that need this pack."""
        return [index for pack in (self.pack, *self.following) for index in pack.indices]


@contextmanager
def _naming_rows(indices: list[int], tokens: int, *, whole: bool = True) -> Iterator[None]:
    """Turn a memory error into one that says which pairs met it, and whether fewer would do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _OutOfMemory(indices, tokens, whole=whole) from error
