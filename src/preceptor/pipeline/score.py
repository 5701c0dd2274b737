"""One step: put what one scorer still lacks into the store.

Work goes a part at a time: a few dozen instructions with all their responses, whose texts are read again
for it. Each part is claimed, so that several processes share the work without knowing of each other.
"""

import logging
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.runtime import Runtime
from preceptor.data.selection import Selection
from preceptor.data.table import Keys
from preceptor.engines.reasoning import answered
from preceptor.errors import ModelError
from preceptor.pipeline.work import (
    Amount,
    Executor,
    Part,
    Progress,
    Workers,
    here,
    in_process,
    recorded,
)
from preceptor.scorers.base import Resource, Scorer
from preceptor.store.identity import Identity
from preceptor.store.lookup import are_there
from preceptor.store.sharing import SharedRows
from preceptor.store.store import ScorePartition, Store
from preceptor.store.writer import StoreWriter
from preceptor.types import Flush, Response, Score

logger = logging.getLogger(__name__)

Stored = Mapping[str, NDArray[Any]]
"""A scorer's columns and the notes, one value for each row of a selection."""

TEXTS_IN_MEMORY = 256 * 1024 * 1024
"""Characters of response text held at once; more than that is read in several passes."""


@dataclass(frozen=True)
class ScoreTask:
    """A scorer and its partition: all that another process needs to score what it is given."""

    scorer: Scorer
    partition: ScorePartition

    @property
    def flush(self) -> Flush:
        """When scores are stored."""
        return self.scorer.flush

    @property
    def resource(self) -> Resource:
        """What scoring loads."""
        return self.scorer.resource

    def compute(self, part: Part, writer: StoreWriter[Score]) -> None:
        """Score a part."""
        for batch in self.scorer.score([response for group in part for response in group]):
            writer.add(batch)

    def key(self, response: Response) -> bytes:
        """Return the key that the scorer's number for a response, as it reads it, is stored under."""
        return response.checked_key if self.scorer.reads_reference else response.key

    def finished(self, seen: set[str] | None = None) -> Keys:
        """Return the stored keys for which nothing is left to compute; `seen` is that of `Shards.keys`."""
        scorer = self.scorer
        return self.partition.complete(scorer.required, listed=scorer.token_column, seen=seen)

    def require_same(self) -> None:
        """Check, in another process, that the scorer is still the one whose partition it is.

        Raises:
            ModelError: a model is not found, or is another one; or the store is not there.
        """
        if self.scorer.identity() != self.partition.identity:
            raise ModelError(
                f"{self.scorer.name}: {platform.node()} has another model, or other settings for it, than "
                "the machine that planned the work. Give all machines the same files."
            )
        self.partition.require_shared()


@dataclass(frozen=True)
class Step:
    """A scorer, its partition, and the data it is to score."""

    name: str
    scorer: Scorer
    partition: ScorePartition
    source: Iterable[Response]
    selection: Selection

    @property
    def identity(self) -> Identity:
        """What makes the numbers."""
        return self.partition.identity

    @property
    def resource(self) -> Resource:
        """What scoring loads."""
        return self.scorer.resource

    def preflight(self) -> None:
        """Check what scoring needs beyond the model; ModelError where it cannot be used."""
        self.scorer.preflight()

    def lacking(self) -> int:
        """Return how many distinct responses have no score yet."""
        return len(self._missing())

    def run(self, progress: Progress, workers: Workers = here) -> None:
        """Have everything that is missing scored and stored."""
        missing = self._missing()
        chunks = self.texts(missing)
        first = next(chunks, None)
        if first is None:
            return
        present = len(self.keyed.distinct) - len(missing)
        progress.begin(self.name, present, amount_of(first, missing=len(missing)))
        left_out = sum(_score(self, texts, progress, workers) for texts in chain([first], chunks))
        progress.end()
        if left_out:
            logger.warning(
                "%s: %d responses have no score, for want of an answer, of time or of memory: run again to "
                "try them once more",
                self.name,
                left_out,
            )

    def read(self, response: Response) -> Response:
        """Return a response of the data as the scorer reads it."""
        return answered(response) if self.scorer.reads_answer else response

    @cached_property
    def task(self) -> ScoreTask:
        """What scores."""
        return ScoreTask(self.scorer, self.partition)

    @cached_property
    def keyed(self) -> Selection:
        """The data under the keys that the scorer's numbers are stored under."""
        if self.scorer.reads_reference:
            return self.selection.by_reference()
        return self.selection.by_answer() if self.scorer.reads_answer else self.selection

    def stored(self) -> Stored:
        """Return the scorer's columns and the notes, one value for each row of the selection."""
        return self.partition.columns(self.keyed.wanted, self.scorer.columns)

    def _missing(self) -> Keys:
        return self.missing(self.stored())

    def missing(self, stored: Stored) -> Keys:
        """Return the keys without a note that lack a required column of what is stored."""
        if self.scorer.token_column is not None:
            return self.keyed.lacking(self.task.finished())
        lacking = np.zeros(len(stored["note"]), np.bool_)
        for name in self.scorer.required:
            lacking |= np.isnan(stored[name])
        return self.keyed.distinct_of(lacking & ~are_there(stored["note"]))

    def texts(self, keys: Keys) -> Iterator[list[Response]]:
        """Yield the responses with these keys, one for each, as the scorer reads them, by whole instructions.

        Every list holds `TEXTS_IN_MEMORY` characters or a single instruction, and costs a pass over the data.
        """
        waiting: set[bytes] = set(keys.tolist())
        while waiting:
            found = _Found()
            for response in self.source:
                if response.text is None:
                    continue
                read = self.read(response)
                if (key := self.task.key(read)) in waiting:
                    found.offer(key, read)
            responses = found.responses()
            if not responses:
                logger.warning("%d responses are no longer in the data", len(waiting))
                return
            waiting.difference_update(map(self.task.key, responses))
            yield responses


class _Found:
    """Responses by instruction; where they grow too large, the instructions met last are given up."""

    def __init__(self) -> None:
        self._groups: dict[bytes, dict[bytes, Response]] = {}
        self._held = 0
        self._full = False

    def offer(self, key: bytes, response: Response) -> None:
        group = self._groups.get(response.instruction.given_id)
        if group is None:
            if self._full:
                return
            group = self._groups[response.instruction.given_id] = {}
        if key not in group:
            group[key] = response
            self._held += len(response.text or "")
        while self._held > TEXTS_IN_MEMORY and len(self._groups) > 1:
            self._full = True
            _, given_up = self._groups.popitem()
            self._held -= sum(len(one.text or "") for one in given_up.values())

    def responses(self) -> list[Response]:
        return [response for group in self._groups.values() for response in group.values()]


def carry_out(step: Step, progress: Progress, execute: Executor = in_process) -> Stored:
    """Have everything scored that the step lacks; return its columns as `Step.stored` does.

    What is stored already costs nothing.
    """
    columns = step.stored()
    if len(step.missing(columns)):
        execute(step, progress)
        return step.stored()
    progress.begin(step.name, step.keyed.texts, Amount())
    progress.end()
    return columns


def amount_of(texts: Sequence[Response], *, missing: int) -> Amount:
    """Return the size of the work, scaled up where only part of the texts is in memory."""
    characters = sum(len(response.text or "") for response in texts)
    return Amount(missing, int(characters * missing / max(1, len(texts))))


def _score(step: Step, texts: Sequence[Response], progress: Progress, workers: Workers) -> int:
    """Have scored what is missing of these, part by part; return how many responses got no score."""
    task = step.task
    left_out = 0
    seen: set[str] = set()
    groups: dict[bytes, list[Response]] = {}
    for response in texts:
        groups.setdefault(response.instruction.given_id, []).append(response)
    lengths = {task.key(response): len(response.text or "") for response in texts}

    def stored(keys: Sequence[bytes], tokens: int) -> None:
        nonlocal left_out
        left_out -= len(keys)
        progress.advance(Amount(len(keys), sum(lengths.get(key, 0) for key in keys), tokens))
        shared.stored(keys)

    def elsewhere(rows: Sequence[Response]) -> None:
        progress.advance(Amount(len(rows), sum(lengths[task.key(row)] for row in rows)))

    def handed_out() -> Iterator[Part]:
        nonlocal left_out
        for part in shared.parts(step.scorer.part):
            left_out += sum(map(len, part))
            yield part

    shared = SharedRows(
        step.partition.claims(), groups, task.key, lambda: task.finished(seen).tolist(), elsewhere
    )
    with shared:
        while shared.more():
            workers(task, handed_out(), stored)
    return left_out


def step_of(
    scorer: Scorer, runtime: Runtime, source: Iterable[Response], selection: Selection
) -> Step:
    """Return the step that puts a scorer's numbers on these responses."""
    partition = Store(runtime.store).scores(
        scorer.identity(), recorded=recorded(runtime, scorer.name)
    )
    return Step(scorer.name, scorer, partition, source, selection)
