"""Write answers with a model loaded in this process: many rows at once, each as if it were alone.

`model.generate` only ever runs greedily. Where an answer is to be sampled, a processor draws
the token from a stream of random numbers that belongs to that answer, and leaves no other token to choose.
So an answer depends on its request and never on its neighbours, its place or what ran before (up to
rounding, where the numbers of a batch are not those of a row alone).
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.engines.base import ChatRequest, Completion, Failure, Finished
from preceptor.engines.encoder import Encoder
from preceptor.engines.packed.attention import plain_attention
from preceptor.engines.packed.memory import is_out_of_memory, release_memory
from preceptor.errors import ModelError, StudyError
from preceptor.types import Instruction

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def prompt_of(encoder: Encoder, request: ChatRequest) -> tuple[int, ...] | Failure:
    """Return the tokens before the answer; a refusal where there are none or one of an answer has no room."""
    try:
        prompt = encoder.encode(request.messages, "", tools=request.tools).prompt
    except ModelError as error:
        return Failure("refused request", str(error)[:200])
    if min(request.max_tokens, encoder.max_length - len(prompt)) < 1:
        seen = (
            f"the prompt has {len(prompt)} tokens and the answer may have {request.max_tokens}, "
            f"expected room for at least one within {encoder.max_length}"
        )
        return Failure("refused request", seen)
    return prompt


@dataclass(eq=False)
class _Row:
    """One answer in the making: number `number` to the request at `index`, of at most `limit` tokens."""

    index: int
    number: int
    request: ChatRequest
    prompt: tuple[int, ...]
    limit: int
    written: list[int] = field(default_factory=list)
    ending: str | None = None
    failure: Failure | None = None
    stream: np.random.Generator | None = None

    def begin(self) -> None:
        """Start, or start again, with nothing written and the stream at its beginning."""
        self.written, self.ending, self.failure = [], None, None
        self.stream = _stream(self.request, self.number) if self.request.temperature > 0 else None

    @property
    def unfinished(self) -> bool:
        return self.ending is None and self.failure is None


class TransformersChat:
    """A loaded `AutoModelForCausalLM` that answers in `encoder`'s template, at most `batch` rows at once.

    Temperature 0 is greedy. Above it a token is drawn by temperature and then `top_p`, with streams seeded
    by (seed, digest of the messages, number of the answer); seed None is fresh each time. Nothing of the
    model's own generation config enters but the tokens that end an answer. `batch` never changes: where
    memory runs out, smaller batches are run. `alternatives` and `choices` of a request are not used.

    Raises:
        StudyError: `batch` is below 1.
    """

    def __init__(self, model: Any, encoder: Encoder, *, batch: int = 16) -> None:
        if batch < 1:
            raise StudyError(f"A batch of {batch} answers was asked for: expected at least 1.")
        self.model = model.eval()
        self.encoder = encoder
        self.tokenizer: Any = encoder.tokenizer
        self.batch = batch
        self.device = next(model.parameters()).device
        self.ends = ending_tokens(model.generation_config.eos_token_id, encoder)
        self._most_rows = batch
        model.set_attn_implementation(plain_attention(model))

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request, or why there is none."""
        return next(self.complete_all([request])).outcome

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every request's outcome once: refusals first, then batch by batch, longest prompts first.

        A prompt that leaves no room within the encoder's `max_length` is refused; one that leaves less than
        `max_tokens` gets what fits. An answer that does not fit in memory alone is a server error: where
        there is more memory, it can be asked for again.
        """
        rows: dict[int, list[_Row]] = {}
        for index, request in enumerate(requests):
            found = self._rows(index, request)
            if isinstance(found, Failure):
                yield Finished(index, found)
            else:
                rows[index] = found
        for batch in self._run([row for of_request in rows.values() for row in of_request]):
            for index in dict.fromkeys(row.index for row in batch):
                if not any(row.unfinished for row in rows[index]):
                    yield Finished(index, self._outcome(rows[index]))

    def _rows(self, index: int, request: ChatRequest) -> list[_Row] | Failure:
        """Return the rows that answer a request; all its greedy answers are one row."""
        prompt = prompt_of(self.encoder, request)
        if isinstance(prompt, Failure):
            return prompt
        limit = min(request.max_tokens, self.encoder.max_length - len(prompt))
        numbers = range(request.count if request.temperature > 0 else 1)
        return [_Row(index, number, request, prompt, limit) for number in numbers]

    def _run(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """Yield batches of finished rows, the longest prompts first: if memory lacks, it does so early."""
        waiting = sorted(rows, key=lambda row: (-len(row.prompt), row.index, row.number))
        while waiting:
            batch = self._next_batch(waiting)
            if not self._generate(batch) and not self._give_up(batch):
                continue
            del waiting[: len(batch)]
            yield batch

    def _next_batch(self, waiting: Sequence[_Row]) -> list[_Row]:
        """Return the first rows that can run together.

        A row that has ended runs on, unread, until all have: even so no position may lie beyond
        `max_length`, where a model with learned positions has none.
        """
        batch = [waiting[0]]
        for row in waiting[1 : self._most_rows]:
            if len(waiting[0].prompt) + row.limit > self.encoder.max_length:
                break
            batch.append(row)
        return batch

    def _give_up(self, batch: Sequence[_Row]) -> bool:
        """Halve the batch after a memory error; whether it was a single row, which then has failed."""
        if len(batch) > 1:
            self._most_rows = len(batch) // 2
            logger.warning("out of memory: going on with %d answers at once", self._most_rows)
            return False
        seen = f"{len(batch[0].prompt)} tokens and an answer of up to {batch[0].limit}"
        batch[0].failure = Failure("server error", f"a prompt of {seen} did not fit in memory")
        return True

    def _generate(self, rows: Sequence[_Row]) -> bool:
        """Run rows until all have ended; False where memory did not suffice."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        for row in rows:
            row.begin()
        try:
            with torch.inference_mode(), self._own_settings(max(row.limit for row in rows)):
                ids, mask = self._padded(rows)
                self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    logits_processor=LogitsProcessorList([_Draw(rows)]),
                    stopping_criteria=StoppingCriteriaList([_End(rows, self._take)]),
                )
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, after the error and the tensors that its traceback holds are gone.
        release_memory(self.device.type)
        return False

    @contextmanager
    def _own_settings(self, tokens: int) -> Iterator[None]:
        """Put settings of our own in the place of the model's, which `generate` would fill gaps from."""
        from transformers import GenerationConfig

        kept = self.model.generation_config
        self.model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=self.encoder.context,
        )
        try:
            yield
        finally:
            self.model.generation_config = kept

    def _padded(self, rows: Sequence[_Row]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the prompts padded on the left and their mask, both (rows, longest prompt)."""
        import torch

        longest = max(len(row.prompt) for row in rows)
        # What stands in the padding is masked; it only has to be some token.
        ids = torch.full((len(rows), longest), self.encoder.context)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, longest - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[place, longest - len(row.prompt) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def _take(self, row: _Row, token: int) -> None:
        """Add a token to a row, or end it."""
        if token in self.ends:
            row.ending = "stop"
            return
        row.written.append(token)
        if self._has_stopped(row):
            row.ending = "stop"
        elif len(row.written) >= row.limit:
            row.ending = "length"

    def _has_stopped(self, row: _Row) -> bool:
        stops = row.request.stop
        if not stops:
            return False
        # A token writes a byte at least; the first character of the tail can be a fragment of four.
        reach = max(len(stop.encode("utf-8", "replace")) for stop in stops) + 4
        if first_stop(self._text(row.written[-reach:]), stops) is None:
            return False
        return first_stop(self._text(row.written), stops) is not None

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _outcome(self, rows: Sequence[_Row]) -> Completion | Failure:
        for row in rows:
            if row.failure is not None:
                return row.failure
        request = rows[0].request
        answers = [self._answer(row) for row in rows]
        if len(answers) == 1:
            answers *= request.count
        return Completion(
            answers[0].text,
            answers[0].finish_reason,
            tokens=answers[0].tokens,
            prompt_tokens=answers[0].prompt_tokens,
            others=tuple(answers[1:]),
        )

    def _answer(self, row: _Row) -> Completion:
        text = self._text(row.written)
        stop = first_stop(text, row.request.stop)
        reason = row.ending if stop is None else "stop"
        return Completion(
            text[:stop], reason, tokens=len(row.written), prompt_tokens=len(row.prompt)
        )


class _Draw:
    """Leaves each sampled row of a batch one token to choose: the one drawn from its own stream."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self.rows = rows

    def __call__(self, _ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        for row, unusable in zip(self.rows, scores.isnan().any(-1).tolist(), strict=True):
            if unusable and row.unfinished:
                seen = "the model gave scores that are no numbers: run it in float32 or bfloat16"
                row.failure = Failure("unreadable answer", seen)
        places = [at for at, row in enumerate(self.rows) if row.stream and row.unfinished]
        if places:
            drawn = self._drawn(scores, places)
            scores[places] = -float("inf")
            scores[places, drawn] = 0.0
        return scores

    def _drawn(self, scores: "torch.Tensor", places: list[int]) -> "torch.Tensor":
        import torch

        rows = [self.rows[at] for at in places]
        settings = [
            (row.request.temperature, row.request.top_p, row.stream.random())
            for row in rows
            if row.stream is not None
        ]
        # Metal has no float64.
        device = torch.device("cpu") if scores.device.type == "mps" else scores.device
        temperature, top_p, uniform = torch.tensor(settings, dtype=torch.float64, device=device).T
        drawn = draw(
            scores[places].to(device), temperature=temperature, top_p=top_p, uniform=uniform
        )
        return drawn.to(scores.device)


class _End:
    """Hands each new token to its row and says which rows have ended."""

    def __init__(self, rows: Sequence[_Row], take: Callable[[_Row, int], None]) -> None:
        self.rows = rows
        self.take = take

    def __call__(self, ids: "torch.Tensor", _scores: object, **_options: object) -> "torch.Tensor":
        import torch

        for row, token in zip(self.rows, ids[:, -1].tolist(), strict=True):
            if row.unfinished:
                self.take(row, token)
        return torch.tensor([not row.unfinished for row in self.rows], device=ids.device)


def draw(
    scores: "torch.Tensor",
    *,
    temperature: "torch.Tensor",
    top_p: "torch.Tensor",
    uniform: "torch.Tensor",
) -> "torch.Tensor":
    """Return a token for each row of logits, drawn by inverse cumulative probability in float64.

    `scores` is (rows, vocabulary); `temperature` above 0, `top_p` and `uniform`, in [0, 1), are float64 of
    shape (rows,). `top_p` keeps the fewest likeliest tokens that hold at least that share (Holtzman et al.
    2020), at least one; of equally likely ones the first in the vocabulary. Probabilities add up in the
    order of the vocabulary, not by size: a rounding error then moves a border and never reorders tokens.
    """
    import torch

    chances = (scores.double() / temperature.unsqueeze(1)).softmax(-1)
    if bool((top_p < 1).any()):
        chances = chances * _nucleus(chances, top_p)
    reached = chances.cumsum(-1)
    whole = reached[:, -1:].contiguous()
    # The product can round up to the whole, which lies beyond the last token.
    below = torch.nextafter(whole, torch.zeros_like(whole))
    goal = torch.minimum(uniform.unsqueeze(1) * whole, below)
    return torch.searchsorted(reached, goal, right=True).squeeze(1)


def _nucleus(chances: "torch.Tensor", top_p: "torch.Tensor") -> "torch.Tensor":
    """Return which tokens hold the share `top_p`, (rows, vocabulary); all where it is 1."""
    ranked, order = chances.sort(dim=-1, descending=True, stable=True)
    share = top_p.masked_fill(top_p >= 1, float("inf")).unsqueeze(1)
    kept = ranked.cumsum(-1) - ranked < share
    kept[:, 0] = True
    nucleus: torch.Tensor = kept.new_zeros(kept.shape).scatter(1, order, kept)
    return nucleus


def _stream(request: ChatRequest, number: int) -> np.random.Generator:
    return np.random.default_rng(stream_seed(request, number))


def stream_seed(request: ChatRequest, number: int) -> tuple[int, int, int] | None:
    """Return what seeds the random numbers of one answer to a request; None where each time is fresh.

    The conversation belongs to it: under the same numbers, the answers of a study would vary together.
    """
    if request.seed is None:
        return None
    digest = int.from_bytes(Instruction(request.messages).given_id[:8], "little")
    return request.seed % 2**64, digest, number


def ending_tokens(own: object, encoder: Encoder) -> frozenset[int]:
    """Return every token that ends an answer: the model's own, the tokenizer's and the template's.

    `own` is an `eos_token_id` as configs have it: an id, a list of ids, or None.
    """
    ends = set(own if isinstance(own, list | tuple) else [own])
    tokenizer: Any = encoder.tokenizer
    ends.add(tokenizer.eos_token_id)
    turn = tokenizer(encoder.template.end_of_turn, add_special_tokens=False)["input_ids"]
    # Only a token of its own: where the turn's end is spelled with words, they can occur in an answer.
    if len(turn) == 1 and turn[0] in tokenizer.get_added_vocab().values():
        ends.add(turn[0])
    return frozenset(int(end) for end in ends if isinstance(end, int))


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of the stop texts begins, or None where there is none."""
    return min((text.find(stop) for stop in stops if stop and stop in text), default=None)
