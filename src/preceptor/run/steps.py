"""One step: put what one scorer still lacks into the store.

Work goes a part at a time: a few dozen instructions with all their responses, whose texts are read again
for it. Before each part the store is asked once more what is missing, and every process goes through the
parts in an order of its own, so that several processes share the work without knowing of each other.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from preceptor.run.roster import Choice
from preceptor.scorers.base import StoredScorer
from preceptor.store import Shelf
from preceptor.types import Response, Score

logger = logging.getLogger(__name__)

PART_INSTRUCTIONS = 64
"""Instructions whose responses are scored between two looks at the store."""

TEXTS_IN_MEMORY = 256 * 1024 * 1024
"""Characters of response text held at once; more than that is read in several passes."""

_FLUSH_SECONDS = 2.0
_MANY_SHARDS = 200


@dataclass(frozen=True)
class Amount:
    """Work done or to do: `responses`, the `characters` of their texts, and `tokens` where known."""

    responses: int = 0
    characters: int = 0
    tokens: int = 0


class Progress(Protocol):
    """Told of every step, so that it can be shown."""

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """A step starts: `stored` responses need nothing, `missing` is to be computed."""
        ...

    def advance(self, done: Amount) -> None:
        """A batch was stored."""
        ...

    def end(self) -> None:
        """The step has ended."""
        ...


class Silent:
    """A progress that shows nothing."""

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Show nothing."""

    def advance(self, done: Amount) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Step:
    """A scorer, its shelf, and the data it is to score."""

    name: str
    scorer: StoredScorer
    shelf: Shelf
    source: Iterable[Response]
    choice: Choice
    having: str | None = None

    def missing(self) -> set[bytes]:
        """Return the keys that are wanted and not stored; a note counts as stored."""
        wanted = set(self.choice.keys.tolist())
        return wanted.difference(self.shelf.keys(having=self.having).tolist())

    def texts(self, keys: set[bytes]) -> Iterator[list[Response]]:
        """Yield the responses with these keys, one for each, by whole instructions.

        Every list holds about `TEXTS_IN_MEMORY` characters at most, and costs a pass over the data.
        """
        waiting = set(keys)
        while waiting:
            found, held, full = _Found(), 0, False
            for response in self.source:
                if response.text is None or response.key not in waiting:
                    continue
                if full and response.instruction.id not in found:
                    continue
                held += len(response.text)
                full = full or held > TEXTS_IN_MEMORY
                found.add(response)
            if not found.responses:
                logger.warning("%d responses are no longer in the data", len(waiting))
                return
            waiting.difference_update(found.responses)
            yield list(found.responses.values())


class _Found:
    """Responses by key, and the instructions they belong to."""

    def __init__(self) -> None:
        self.responses: dict[bytes, Response] = {}
        self._instructions: set[bytes] = set()

    def __contains__(self, instruction: bytes) -> bool:
        return instruction in self._instructions

    def add(self, response: Response) -> None:
        self.responses[response.key] = response
        self._instructions.add(response.instruction.id)


def carry_out(step: Step, progress: Progress) -> None:
    """Score and store everything the step lacks; what is stored already costs nothing."""
    missing = step.missing()
    stored = len(set(step.choice.keys.tolist())) - len(missing)
    if not missing:
        progress.begin(step.name, stored, Amount())
        progress.end()
        return
    began = False
    for texts in step.texts(missing):
        if not began:
            progress.begin(step.name, stored, amount_of(texts, missing=len(missing)))
            began = True
        for part in _parts(texts):
            _score_part(step, part, progress)
    if began:
        step.shelf.compact()
        progress.end()


def amount_of(texts: Sequence[Response], *, missing: int) -> Amount:
    """Return the size of the work, scaled up where only part of the texts is in memory."""
    characters = sum(len(response.text or "") for response in texts)
    return Amount(missing, int(characters * missing / max(1, len(texts))))


def _parts(texts: Sequence[Response]) -> Iterator[list[Response]]:
    """Yield responses by whole instructions, in an order that differs between processes."""
    groups: dict[bytes, list[Response]] = {}
    for response in texts:
        groups.setdefault(response.instruction.id, []).append(response)
    order = list(groups.values())
    # Which part comes first changes no score, only which process does it: so not the study's seed.
    np.random.default_rng([os.getpid(), time.time_ns()]).shuffle(order)
    for start in range(0, len(order), PART_INSTRUCTIONS):
        yield [r for group in order[start : start + PART_INSTRUCTIONS] for r in group]


def _score_part(step: Step, part: Sequence[Response], progress: Progress) -> None:
    present = set(step.shelf.keys(having=step.having).tolist())
    lengths = {response.key: len(response.text or "") for response in part}
    todo = [response for response in part if response.key not in present]
    progress.advance(_amount(lengths, [r.key for r in part if r.key in present]))
    buffer: list[Score] = []
    flushed = time.monotonic()
    shards = 0
    try:
        for batch in step.scorer.score(todo):
            buffer += batch
            if time.monotonic() - flushed >= _FLUSH_SECONDS:
                _store(step, buffer, lengths, progress)
                buffer, flushed, shards = [], time.monotonic(), shards + 1
    finally:
        # Also when interrupted: what is computed is kept.
        _store(step, buffer, lengths, progress)
    if shards > _MANY_SHARDS:
        step.shelf.compact()


def _store(
    step: Step, scores: Sequence[Score], lengths: dict[bytes, int], progress: Progress
) -> None:
    if not scores:
        return
    step.shelf.append(scores)
    tokens = sum(int(value) for s in scores if isinstance(value := s.values.get("tokens"), float))
    done = _amount(lengths, [score.key for score in scores])
    progress.advance(Amount(done.responses, done.characters, tokens))


def _amount(lengths: dict[bytes, int], keys: Sequence[bytes]) -> Amount:
    return Amount(len(keys), sum(lengths[key] for key in keys))
