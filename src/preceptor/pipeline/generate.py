"""Get from a teacher the responses the store lacks, and store each as it arrives.

An endpoint's answers come one by one, in any order, and each is stored at once, because it was paid for. A
model run in this process answers batches, whose make-up follows from the instructions and not from what is
missing, so that a run that was killed gives the same texts as one that was not.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from preceptor.errors import StoreError
from preceptor.pipeline.score import Amount, Progress
from preceptor.store.store import ResponsePartition
from preceptor.teachers.base import GenerationRequest, TeacherBackend
from preceptor.teachers.sampler import Asking
from preceptor.types import Generation, Instruction, generation_key

logger = logging.getLogger(__name__)

_LONGEST_HELD_S = 0.2
_STORE_SHARE = 0.2
_MANY_SHARDS = 200


@dataclass(frozen=True)
class GenerationJob:
    """One teacher, its partition, and the instructions it is to answer."""

    backend: TeacherBackend
    partition: ResponsePartition
    instructions: Sequence[Instruction]

    @property
    def name(self) -> str:
        """The teacher's label."""
        return self.backend.options.name

    def wanted(self) -> list[GenerationRequest]:
        """Return every response to get, the shortest instructions first: batches then waste little.

        Samples of one instruction stand together, so that they can share a request.
        """
        samples = range(self.backend.options.sampling.samples)
        ordered = sorted(self.instructions, key=lambda one: (_length(one), one.id))
        return [GenerationRequest(one, sample) for one in ordered for sample in samples]

    def missing(self) -> list[GenerationRequest]:
        """Return what the store lacks."""
        present = set(self.partition.keys().tolist())
        if present.issuperset(self._keys):
            return []
        return [ask for ask in self.wanted() if ask.key not in present]

    def generations(self) -> Iterator[Generation]:
        """Yield what the store has of it."""
        return self.partition.each(self._keys)

    def notes(self) -> Mapping[str, int]:
        """Return how many responses will never come, by why."""
        noted, wanted = self.partition.notes(), self._keys
        return Counter(note for key, note in noted.items() if key in wanted)

    @cached_property
    def _keys(self) -> set[bytes]:
        samples = range(self.backend.options.sampling.samples)
        return {generation_key(one.id, sample) for one in self.instructions for sample in samples}


def _length(instruction: Instruction) -> int:
    return sum(len(message.content) for message in instruction.messages)


def respond(
    job: GenerationJob, progress: Progress, missing: Sequence[GenerationRequest] | None = None
) -> None:
    """Get and store everything the job lacks; `missing` is what it was found to lack just now.

    Raises:
        ModelError: the model cannot be asked at all, or its samples would all be copies; what was answered
            before that is stored.
    """
    missing = job.missing() if missing is None else missing
    present = len(job.instructions) * job.backend.options.sampling.samples - len(missing)
    progress.begin(f"{job.name} responds", present, Amount(len(missing), len(missing)))
    if missing:
        asking = Asking(job.backend)
        asking.check(len(missing))
        _Work(job, asking, progress).ask(missing)
        job.partition.compact()
        if asking.lost:
            logger.warning(
                "'%s' gave no answer in time to %d requests: run again to ask for them once more",
                job.name,
                asking.lost,
            )
    progress.end()


class _Work:
    """An inquiry under way: what is answered and not yet stored."""

    def __init__(self, job: GenerationJob, asking: Asking, progress: Progress) -> None:
        self._job, self._asking, self._progress = job, asking, progress
        self._batch = job.backend.batch
        self._buffer: list[Generation] = []
        self._store_again = 0.0
        self._shards = 0
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    def ask(self, missing: Sequence[GenerationRequest]) -> None:
        """Ask for what is missing, part by part; other processes' answers are looked at in between."""
        try:
            for part in self._parts(missing):
                present = set(self._job.partition.keys().tolist())
                todo = [ask for ask in part if ask.key not in present]
                done = len(part) - len(todo)
                self._progress.advance(Amount(done, done))
                if todo:
                    self._answer(todo)
        except BaseException:
            # Also when interrupted, what endpoints answered is kept; of a batch it is all or nothing.
            if self._batch is None:
                self._store()
            raise

    def _answer(self, part: Sequence[GenerationRequest]) -> None:
        with closing(self._asking.answers(part)) as answers:
            for rows in answers:
                with self._lock:
                    self._buffer += rows
                if self._batch is None:
                    self._store_soon()
        self._store()

    def _parts(self, missing: Sequence[GenerationRequest]) -> Iterator[Sequence[GenerationRequest]]:
        """Yield parts of what is missing, in an order that differs between processes."""
        if self._batch is None:
            parts = _whole_instructions(missing, self._job.backend.part)
        else:
            lacking = {ask.key for ask in missing}
            fixed = _cut(self._job.wanted(), self._batch)
            parts = [[ask for ask in part if ask.key in lacking] for part in fixed]
        order = np.random.default_rng([os.getpid(), time.time_ns()]).permutation(len(parts))
        yield from (parts[place] for place in order if parts[place])

    def _store_soon(self) -> None:
        """Store what was answered, or where storing takes much of the time let it wait for company.

        It waits for a moment at most, also where nothing more comes.
        """
        wait = self._store_again - time.monotonic()
        if wait <= 0:
            self._store()
        elif self._later is None:
            self._later = threading.Timer(wait, self._store_now)
            self._later.daemon = True
            self._later.start()

    def _store_now(self) -> None:
        """Store from a thread of its own; what the disk refuses is left for the other, which tells."""
        self._later = None
        with suppress(StoreError):
            self._store()

    def _store(self) -> None:
        """Put what was answered into the store."""
        with self._lock:
            if not self._buffer:
                return
            began = time.monotonic()
            self._job.partition.append(self._buffer)
            rows, self._buffer = self._buffer, []
            now = time.monotonic()
            self._store_again = now + min(_LONGEST_HELD_S, (now - began) / _STORE_SHARE)
            self._shards += 1
            tokens = sum(row.tokens or 0 for row in rows)
            self._progress.advance(Amount(len(rows), len(rows), tokens))
            if self._shards % _MANY_SHARDS == 0:
                self._job.partition.compact()


def _whole_instructions(
    asks: Sequence[GenerationRequest], size: int
) -> list[Sequence[GenerationRequest]]:
    """Cut into parts of about this size, all samples of an instruction in one."""
    parts: list[list[GenerationRequest]] = [[]]
    for _, group in groupby(asks, key=lambda ask: ask.instruction.id):
        if len(parts[-1]) >= size:
            parts.append([])
        parts[-1] += group
    return list(parts)


def _cut(asks: Sequence[GenerationRequest], size: int) -> list[Sequence[GenerationRequest]]:
    return [asks[start : start + size] for start in range(0, len(asks), size)]
