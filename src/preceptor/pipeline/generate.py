"""Get from a teacher the responses the store lacks, and store each as it arrives.

An endpoint's answers come one by one, in any order, and each is stored at once, because it was paid for. A
model run in this process answers batches, whose make-up follows from the instructions and not from what is
missing, so that a run that was killed gives the same texts as one that was not.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from preceptor.pipeline.work import Amount, Progress, Workers, here
from preceptor.scorers.base import Resource
from preceptor.store.identity import Identity
from preceptor.store.sharing import SharedRows
from preceptor.store.store import ResponsePartition
from preceptor.store.writer import StoreWriter
from preceptor.teachers.base import GenerationRequest, TeacherBackend
from preceptor.teachers.sampler import Sampler
from preceptor.types import Generation, Instruction, generation_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerationJob:
    """One teacher, its partition, and the instructions it is to answer."""

    backend: TeacherBackend
    partition: ResponsePartition
    instructions: Sequence[Instruction]
    advice: str | None = None
    """How it is sampled otherwise than its maker advises."""

    @property
    def name(self) -> str:
        """The teacher's label."""
        return self.backend.teacher.name

    def wanted(self) -> list[GenerationRequest]:
        """Return every response to get, the shortest instructions first: batches then waste little.

        Samples of one instruction stand together, so that they can share a request.
        """
        samples = range(self.backend.teacher.samples)
        ordered = sorted(self.instructions, key=lambda one: (characters_of(one), one.content_id))
        return [GenerationRequest(one, sample) for one in ordered for sample in samples]

    def missing(self) -> list[GenerationRequest]:
        """Return what the store lacks."""
        present = set(self.partition.keys().tolist())
        if present.issuperset(self._keys):
            return []
        return [request for request in self.wanted() if request.key not in present]

    @property
    def identity(self) -> Identity:
        """What makes the responses."""
        return self.partition.identity

    @property
    def resource(self) -> Resource:
        """What answering loads."""
        return self.backend

    def preflight(self) -> None:
        """Check what asking needs beyond the model; ModelError where it cannot be used."""
        self.backend.preflight()

    def lacking(self) -> int:
        """Return how many responses the store lacks."""
        return len(self.missing())

    def run(self, progress: Progress, _workers: Workers = here) -> None:
        """Get and store everything that is missing, from this process.

        Raises:
            ModelError: the model cannot be asked at all, or its samples would all be copies; what was
                answered before that is stored.
        """
        missing = self.missing()
        present = len(self.instructions) * self.backend.teacher.samples - len(missing)
        progress.begin(f"{self.name} responds", present, Amount(len(missing), len(missing)))
        if missing:
            self._ask(missing, progress)
        progress.end()

    def _ask(self, missing: Sequence[GenerationRequest], progress: Progress) -> None:
        if self.advice:
            logger.warning("%s", self.advice)
        sampler = Sampler(self.backend)
        sampler.check(len(missing))

        def stored(rows: Sequence[Generation]) -> None:
            tokens = sum(row.tokens or 0 for row in rows)
            progress.advance(Amount(len(rows), len(rows), tokens))
            shared.stored([row.key for row in rows])

        seen: set[str] = set()
        shared = SharedRows(
            self.partition.claims(),
            self._groups(missing),
            lambda request: request.key,
            lambda: self.partition.keys(seen).tolist(),
            lambda rows: progress.advance(Amount(len(rows), len(rows))),
        )
        with shared, StoreWriter(self.partition, "each", stored) as writer:
            while shared.more():
                size = self.backend.part
                for groups in [shared.each()] if size is None else shared.parts(size):
                    _answer(self, sampler, groups, writer)
        if sampler.lost:
            logger.warning(
                "'%s' gave no answer to %d requests (the last: %s): run again to ask for them once more",
                self.name,
                sampler.lost,
                sampler.why,
            )

    def _groups(
        self, missing: Sequence[GenerationRequest]
    ) -> dict[bytes, Sequence[GenerationRequest]]:
        """Return what is missing in groups: all samples of an instruction, or a batch."""
        size = self.backend.batch
        if size is None:
            together = groupby(missing, key=lambda request: request.instruction.given_id)
            return {name: list(rows) for name, rows in together}
        lacking = {request.key for request in missing}
        wanted = self.wanted()
        batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        found = {
            one[0].key: [request for request in one if request.key in lacking] for one in batches
        }
        return {name: rows for name, rows in found.items() if rows}

    def generations(self) -> Iterator[Generation]:
        """Yield what the store has of it."""
        return self.partition.each(self._keys)

    def unanswered(self) -> list[tuple[GenerationRequest, str]]:
        """Return the responses that will never come, and why."""
        noted = self.partition.notes()
        wanted = self.wanted() if noted else []
        return [(request, noted[request.key]) for request in wanted if request.key in noted]

    def notes(self) -> Mapping[str, int]:
        """Return how many responses will never come, by why."""
        return Counter(note for _, note in self.unanswered())

    @cached_property
    def _keys(self) -> set[bytes]:
        samples = range(self.backend.teacher.samples)
        return {
            generation_key(one.given_id, sample) for one in self.instructions for sample in samples
        }


def characters_of(instruction: Instruction) -> int:
    """Return how many characters its turns have."""
    return sum(len(message.content) for message in instruction.messages)


def _answer(
    job: GenerationJob,
    sampler: Sampler,
    groups: Iterable[Sequence[GenerationRequest]],
    writer: StoreWriter[Generation],
) -> None:
    """Get the answers of one part; a batch is stored whole or, when interrupted, not at all."""
    batch: list[Generation] = []
    with closing(sampler.answers(groups)) as answers:
        for rows in answers:
            if job.backend.batch is None:
                writer.add(rows)
            else:
                batch += rows
    writer.add(batch)
    writer.flush()
