"""The roster: who answered which instruction with which text, as columns without the texts.

It is filled in one pass over the data, so two million responses cost a few dozen bytes each. What cannot
be compared (no output, no reward) is counted here, per teacher and reason; texts are read again, a part at
a time, only where something must be computed.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import DataError, StudyError
from preceptor.scorers.base import Array, Scorer
from preceptor.types import KEY_BYTES, Response

_CHUNK = 2048
_MANY = 8


@dataclass(frozen=True)
class Roster:
    """Responses as columns of equal length, one row for each that can be compared.

    `teacher` and `instruction` index `teachers` and `instructions` (16-byte ids, (instructions,)); `keys`
    are the responses' 16-byte keys; `values` holds the measures that came with the data. `dropped` counts
    per teacher and reason what could not be compared, `cut` the responses their generator cut off.
    """

    teachers: tuple[str, ...]
    instructions: NDArray[np.void]
    teacher: NDArray[np.int32]
    instruction: NDArray[np.int32]
    sample: NDArray[np.int32]
    keys: NDArray[np.void]
    values: Mapping[str, Array]
    dropped: Mapping[str, Mapping[str, int]]
    cut: Mapping[str, int]

    def counts(self) -> NDArray[np.int32]:
        """Return the number of comparable responses, (teachers, instructions)."""
        shape = (len(self.teachers), len(self.instructions))
        place = self.teacher.astype(np.int64) * shape[1] + self.instruction
        counts = np.bincount(place, minlength=shape[0] * shape[1])
        return counts.reshape(shape).astype(np.int32)

    def chosen(self, limit: int | None, *, seed: int, minimum_coverage: float) -> "Choice":
        """Return the rows to compare: instructions every teacher answered, equally often.

        Of several samples the first are taken, as many as the teacher with the fewest has. A limit takes
        instructions in an order drawn by `seed`, so that a larger limit only adds to a smaller one.

        Raises:
            StudyError: the instructions in common are fewer than two or too small a share of all.
        """
        fewest = self.counts().min(axis=0) if self.teachers else np.zeros(0, np.int32)
        common = np.flatnonzero(fewest)
        total = len(self.instructions)
        if len(common) < 2 or len(common) < minimum_coverage * total:
            raise StudyError(self._refusal(len(common), minimum_coverage))
        taken = common if limit is None else common[self._drawn(common, seed)][:limit]
        allowed = np.zeros(total, np.int32)
        allowed[taken] = fewest[taken]
        rows = np.flatnonzero(self._order_within() < allowed[self.instruction])
        return Choice(self, rows, np.sort(taken), total if limit is None else len(taken))

    def _order_within(self) -> NDArray[np.int64]:
        """Return each row's place among the samples of its teacher and instruction."""
        order = np.lexsort((self.sample, self.teacher, self.instruction))
        same = (np.diff(self.teacher[order], prepend=-1) == 0) & (
            np.diff(self.instruction[order], prepend=-1) == 0
        )
        starts = np.flatnonzero(~same)
        lengths = np.diff(starts, append=len(order))
        within = np.empty(len(order), np.int64)
        within[order] = np.arange(len(order)) - np.repeat(starts, lengths)
        return within

    def _drawn(self, places: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
        salt = seed.to_bytes(8, "little", signed=True)
        ids = self.instructions[places].tolist()
        return np.array(
            sorted(range(len(ids)), key=lambda place: blake2b(ids[place], salt=salt).digest()),
            dtype=np.intp,
        )

    def _refusal(self, common: int, minimum_coverage: float) -> str:
        answered = (self.counts() > 0).sum(axis=1)
        shown = sorted(zip(answered.tolist(), self.teachers, strict=True))[:_MANY]
        lines = [
            f"  {teacher}: {number} of {len(self.instructions)} instructions"
            + "".join(f", {count} {why}" for why, count in self.dropped.get(teacher, {}).items())
            for number, teacher in shown
        ]
        return (
            f"Only {common} of {len(self.instructions)} instructions were answered by all "
            f"{len(self.teachers)} teachers; expected at least 2, and {minimum_coverage:.0%} of them. "
            "Instructions are matched by their text. The teachers with the fewest:\n"
            + "\n".join(lines)
            + "\nLeave a teacher out, complete its responses, or lower --minimum-coverage."
        )


@dataclass(frozen=True)
class Choice:
    """The part of a roster that is compared.

    `rows` index the roster, `taken` the instructions in ascending order; `asked` is how many instructions
    the comparison was meant to cover.
    """

    roster: Roster
    rows: NDArray[np.intp]
    taken: NDArray[np.intp]
    asked: int

    @property
    def keys(self) -> NDArray[np.void]:
        """The responses' keys, one for each row."""
        return self.roster.keys[self.rows]

    def averaged(self, values: Array) -> Array:
        """Return values (rows,) averaged over samples, (teachers, instructions); NaN is no data."""
        shape = (len(self.roster.teachers), len(self.taken))
        column = np.searchsorted(self.taken, self.roster.instruction[self.rows])
        place = self.roster.teacher[self.rows].astype(np.int64) * shape[1] + column
        number = np.bincount(place, minlength=shape[0] * shape[1])
        total = np.bincount(place, weights=values, minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((total / number).reshape(shape), dtype=np.float64)

    def reasons(self, notes: Sequence[str | None]) -> dict[str, dict[str, int]]:
        """Return how many rows each note cost, per teacher, beside what the data had dropped."""
        found = {teacher: Counter(reasons) for teacher, reasons in self.roster.dropped.items()}
        for row, note in zip(self.rows, notes, strict=True):
            if note is not None:
                found[self.roster.teachers[self.roster.teacher[row]]][note] += 1
        return {teacher: dict(counter) for teacher, counter in found.items()}


class _Columns:
    """The roster under construction."""

    def __init__(self, measures: Sequence[str]) -> None:
        self.teachers: dict[str, int] = {}
        self.instructions: dict[bytes, int] = {}
        self.teacher, self.instruction, self.sample = array("i"), array("i"), array("i")
        self.keys = bytearray()
        self.values = {measure: array("d") for measure in measures}
        self.dropped: dict[str, Counter[str]] = {}
        self.seen: dict[int, set[int]] = {}
        self.cut: Counter[str] = Counter()

    def add(self, response: Response, values: Mapping[str, float], note: str | None) -> None:
        teacher = self.teachers.setdefault(response.teacher, len(self.teachers))
        identity = response.instruction.id
        instruction = self.instructions.setdefault(identity, len(self.instructions))
        reason = _absent(response) or note
        if reason is not None:
            self.dropped.setdefault(response.teacher, Counter())[reason] += 1
            self.seen.setdefault(teacher, set()).add(instruction)
            return
        self.teacher.append(teacher)
        self.instruction.append(instruction)
        self.sample.append(response.sample)
        self.keys += response.key
        for measure, column in self.values.items():
            column.append(values[measure])
        if response.finish_reason == "length":
            self.cut[response.teacher] += 1

    def _missing(self) -> None:
        """Count the instructions for which a teacher has no row at all."""
        taught = np.frombuffer(self.teacher, dtype=np.int32)
        instructions = np.frombuffer(self.instruction, dtype=np.int32)
        for name, teacher in self.teachers.items():
            answered = set(np.unique(instructions[taught == teacher]).tolist())
            missing = len(self.instructions) - len(answered | self.seen.get(teacher, set()))
            if missing:
                self.dropped.setdefault(name, Counter())["missing"] += missing

    def roster(self) -> Roster:
        self._missing()
        kind = np.dtype((np.void, KEY_BYTES))
        return Roster(
            teachers=tuple(self.teachers),
            instructions=np.frombuffer(b"".join(self.instructions), dtype=kind),
            teacher=np.frombuffer(self.teacher, dtype=np.int32),
            instruction=np.frombuffer(self.instruction, dtype=np.int32),
            sample=np.frombuffer(self.sample, dtype=np.int32),
            keys=np.frombuffer(self.keys, dtype=kind),
            values={name: np.frombuffer(column) for name, column in self.values.items()},
            dropped={name: dict(self.dropped.get(name, {})) for name in self.teachers},
            cut={name: self.cut[name] for name in self.teachers},
        )


def _absent(response: Response) -> str | None:
    if response.text is None:
        return "no output"
    return None if response.text.strip() else "empty output"


def read_roster(responses: Iterable[Response], scorers: Sequence[Scorer]) -> Roster:
    """Return the roster of the responses, with the measures of scorers that cost nothing.

    DataError where there are no responses at all.
    """
    columns = _Columns([measure for scorer in scorers for measure in scorer.measures])
    for chunk in _chunks(responses):
        given: list[dict[str, float]] = [{} for _ in chunk]
        notes: list[str | None] = [None] * len(chunk)
        for scorer in scorers:
            scores = (score for batch in scorer.score(chunk) for score in batch)
            for place, score in enumerate(scores):
                given[place].update(score.values)  # type: ignore[arg-type]
                notes[place] = notes[place] or score.note
        for response, values, note in zip(chunk, given, notes, strict=True):
            columns.add(response, values, note)
    if not columns.teachers:
        raise DataError(
            "The data hold no responses. Check the paths and the layout that was recognised."
        )
    return columns.roster()


def _chunks(responses: Iterable[Response]) -> Iterator[list[Response]]:
    iterator = iter(responses)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
