"""Ask a teacher for the responses the store lacks, and store each as it arrives.

Two ways of asking: an endpoint's answers come one by one, in any order, and each is stored at once, because
it was paid for. A model run in this process answers batches, whose make-up follows from the instructions and
not by what is missing, so that a run that was killed gives the same texts as one that was not.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.sampling_check import check_sampling
from preceptor.engines.watch import Watch
from preceptor.errors import ModelError
from preceptor.responders import Responder, ServedTeacher, request_of
from preceptor.run.steps import Amount, Progress
from preceptor.store import ResponseShelf
from preceptor.types import Generation, Instruction, Message, generation_key

logger = logging.getLogger(__name__)

_PROBE = Instruction((Message("user", "How many legs has a cat?"),))
_LONGEST_HELD_S = 0.2
_STORE_SHARE = 0.2
_MANY_SHARDS = 200
_LEAST_PART, _MOST_PART = 64, 1024


class Ask(NamedTuple):
    """One response to get: an instruction and a sample index."""

    instruction: Instruction
    sample: int

    @property
    def key(self) -> bytes:
        """The key it is stored under."""
        return generation_key(self.instruction.id, self.sample)


@dataclass(frozen=True)
class Inquiry:
    """One teacher, its shelf, and the instructions it is to answer."""

    responder: Responder
    shelf: ResponseShelf
    instructions: Sequence[Instruction]

    @property
    def name(self) -> str:
        """The teacher's label."""
        return self.responder.options.name

    def wanted(self) -> list[Ask]:
        """Return every response to get, the shortest instructions first: batches then waste little."""
        samples = range(self.responder.options.sampling.samples)
        asks = [Ask(one, sample) for one in self.instructions for sample in samples]
        return sorted(asks, key=lambda ask: (_length(ask.instruction), ask.key))

    def missing(self) -> list[Ask]:
        """Return what the store lacks."""
        present = set(self.shelf.keys().tolist())
        return [ask for ask in self.wanted() if ask.key not in present]

    def generations(self) -> Iterator[Generation]:
        """Yield what the store has of it."""
        return self.shelf.each({ask.key for ask in self.wanted()})


def _length(instruction: Instruction) -> int:
    return sum(len(message.content) for message in instruction.messages)


def respond(inquiry: Inquiry, progress: Progress) -> None:
    """Get and store everything the inquiry lacks.

    Raises:
        ModelError: the model cannot be asked at all, or its samples would all be copies; what was answered
            before that is stored.
    """
    missing = inquiry.missing()
    present = len(inquiry.instructions) * inquiry.responder.options.sampling.samples - len(missing)
    progress.begin(f"{inquiry.name} responds", present, Amount(len(missing), len(missing)))
    if missing:
        alone = _check(inquiry, missing)
        work = _Work(inquiry, progress, alone=alone)
        try:
            work.ask(missing)
        finally:
            # Also when interrupted: what was answered is kept.
            work.store()
        inquiry.shelf.compact()
        work.tell()
    progress.end()


def _check(inquiry: Inquiry, missing: Sequence[Ask]) -> bool:
    """Find out whether a served model honours seeds, before many samples are paid for.

    Returns whether each sample needs a request of its own.
    """
    responder = inquiry.responder
    sampling = responder.options.sampling
    if not isinstance(responder, ServedTeacher) or sampling.temperature == 0:
        return sampling.samples_per_request == 1
    found = check_sampling(responder.chat, count=sampling.samples_per_request)
    told = [f"'{inquiry.name}': {sentence}" for sentence in found.told()]
    if found.seed == "no effect" and sampling.samples > 1:
        raise ModelError(
            f"{' '.join(told)} {sampling.samples} samples would be {sampling.samples} copies, and "
            f"{len(missing):,} are still to be paid for. Set samples = 1, or serve it with sampling."
        )
    for sentence in told:
        logger.warning("%s", sentence)
    return sampling.samples_per_request == 1 or found.count in ("ignored", "copies")


class _Work:
    """An inquiry under way: what is answered and not yet stored, and what went wrong."""

    def __init__(self, inquiry: Inquiry, progress: Progress, *, alone: bool) -> None:
        self._inquiry, self._progress = inquiry, progress
        self._responder = inquiry.responder
        self._watch = Watch(
            f"The teacher '{inquiry.name}'",
            self._responder.where,
            lambda: self._responder.chat.complete(request_of(self._responder.options, _PROBE, 0)),
        )
        self._buffer: list[Generation] = []
        self._clock = time.monotonic()
        self._store_again = 0.0
        self._shards = self._lost = 0
        self._alone = alone

    def ask(self, missing: Sequence[Ask]) -> None:
        """Ask for what is missing, part by part; other processes' answers are looked at in between."""
        for part in self._parts(missing):
            present = set(self._inquiry.shelf.keys().tolist())
            todo = [ask for ask in part if ask.key not in present]
            self._progress.advance(Amount(len(part) - len(todo), len(part) - len(todo)))
            self._clock = time.monotonic()
            while todo:
                todo = self._round(todo)
            if self._responder.batch is not None:
                self.store()

    def _parts(self, missing: Sequence[Ask]) -> Iterator[Sequence[Ask]]:
        """Yield parts of what is missing, in an order that differs between processes."""
        batch = self._responder.batch
        if batch is None:
            parts = _cut(missing, max(_LEAST_PART, min(_MOST_PART, len(missing) // 16)))
        else:
            lacking = {ask.key for ask in missing}
            fixed = _cut(self._inquiry.wanted(), batch)
            parts = [[ask for ask in part if ask.key in lacking] for part in fixed]
        np.random.default_rng([os.getpid(), time.time_ns()]).shuffle(parts)
        yield from (part for part in parts if part)

    def _round(self, todo: Sequence[Ask]) -> list[Ask]:
        """Ask once for everything; return what a request for several samples did not give."""
        requests, groups = self._requests(todo)
        short: list[Ask] = []
        with closing(self._responder.chat.complete_all(requests)) as outcomes:
            for finished in outcomes:
                short += self._take(groups[finished.index], finished.outcome)
        if short and not self._alone:
            self._alone = True
            logger.warning(
                "'%s' gave fewer answers than were asked for at once (n): the rest is asked for singly",
                self._inquiry.name,
            )
        return short

    def _requests(self, todo: Sequence[Ask]) -> tuple[list[ChatRequest], list[list[Ask]]]:
        """Return the requests, and which samples each is to give."""
        options = self._responder.options
        groups = [[ask] for ask in todo] if self._alone else self._shared(todo)
        requests = []
        for group in groups:
            request = request_of(options, group[0].instruction, group[0].sample)
            requests.append(replace(request, count=len(group)))
        return requests, groups

    def _shared(self, todo: Sequence[Ask]) -> list[list[Ask]]:
        """Group samples of one instruction that are asked for at once."""
        size = self._responder.options.sampling.samples_per_request
        groups: dict[tuple[bytes, int], list[Ask]] = {}
        for ask in todo:
            groups.setdefault((ask.instruction.id, ask.sample // size), []).append(ask)
        return [sorted(group, key=lambda ask: ask.sample) for group in groups.values()]

    def _take(self, group: Sequence[Ask], outcome: Completion | Failure) -> list[Ask]:
        """Keep what came; return the samples that are still to be asked for."""
        if isinstance(outcome, Failure):
            note = self._watch.note(outcome)
            self._lost += len(group) if note is None else 0
            if note is not None:
                self._keep([_noted(ask, note) for ask in group])
            return []
        self._watch.answered()
        now = time.monotonic()
        answers = (outcome, *outcome.others)[: len(group)]
        share = (now - self._clock) / len(answers)
        self._clock = now
        self._keep([_generation(ask, one, share) for ask, one in zip(group, answers, strict=False)])
        return list(islice(group, len(answers), None))

    def _keep(self, rows: Sequence[Generation]) -> None:
        self._buffer += rows
        if self._responder.batch is None and time.monotonic() >= self._store_again:
            self.store()

    def store(self) -> None:
        """Put what was answered into the store.

        Answers that come while storing takes much of the time wait for company, for a moment at most.
        """
        rows, self._buffer = self._buffer, []
        if not rows:
            return
        began = time.monotonic()
        self._inquiry.shelf.append(rows)
        now = time.monotonic()
        self._store_again = now + min(_LONGEST_HELD_S, (now - began) / _STORE_SHARE)
        self._shards += 1
        tokens = sum(row.tokens or 0 for row in rows)
        self._progress.advance(Amount(len(rows), len(rows), tokens))
        if self._shards % _MANY_SHARDS == 0:
            self._inquiry.shelf.compact()

    def tell(self) -> None:
        """Say what was not answered."""
        if self._lost:
            logger.warning(
                "'%s' gave no answer in time to %d requests: run again to ask for them once more",
                self._inquiry.name,
                self._lost,
            )


def _cut(asks: Sequence[Ask], size: int) -> list[Sequence[Ask]]:
    return [asks[start : start + size] for start in range(0, len(asks), size)]


def _generation(ask: Ask, answer: Completion, seconds: float) -> Generation:
    return Generation(
        instruction=ask.instruction.id,
        sample=ask.sample,
        text=answer.text,
        finish_reason=answer.finish_reason,
        tokens=answer.tokens,
        prompt_tokens=answer.prompt_tokens,
        seconds=seconds,
    )


def _noted(ask: Ask, note: str) -> Generation:
    return Generation(ask.instruction.id, ask.sample, None, note=note)


def notes_of(inquiry: Inquiry) -> Mapping[str, int]:
    """Return how many responses will never come, by why."""
    wanted = {ask.key for ask in inquiry.wanted()}
    counts: dict[str, int] = {}
    for key, note in inquiry.shelf.notes().items():
        if key in wanted:
            counts[note] = counts.get(note, 0) + 1
    return counts
