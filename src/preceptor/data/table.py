"""The response table: who answered which instruction with which text, as columns without the texts.

Two million responses so cost a few dozen bytes each; texts are read again, a part at a time, only where
something must be computed. What cannot be compared (no output, no reward) is counted per teacher and reason.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.reasoning import UNFINISHED
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import Array
from preceptor.store.lookup import Wanted
from preceptor.types import KEY_BYTES, NoteKind

if TYPE_CHECKING:
    from preceptor.data.formats import Problem

Keys = NDArray[np.void]
"""Responses' keys, each 16 bytes."""

NO_OUTPUT, EMPTY_OUTPUT = "no output", "empty output"
NULL_REWARD, NO_NUMBER, NO_REFERENCE = "null reward", "reward is no number", "no reference"
_FAILURES = (
    *(NO_OUTPUT, EMPTY_OUTPUT, UNFINISHED),
    *(NoteKind.REFUSED, NoteKind.FILTERED, NoteKind.ONLY_REASONING),
    *(NoteKind.REFUSAL, NoteKind.TOOL_CALL, NoteKind.EMPTY),
)
"""Why a request has no answer."""
LOST: tuple[str, ...] = (*map(str, _FAILURES), NULL_REWARD, NO_NUMBER, NO_REFERENCE)
"""Why a row cannot be compared. What has no row at all may never have been asked for."""

MOST_ROWS = 2**24
"""Rows whose columns are held at once, at about 200 bytes each, unless a single teacher has more."""

_MANY = 8


class Signs(NamedTuple):
    """What tells of which kind the data are, over all responses: traces, tools, characters."""

    responses: int = 0
    traces: int = 0
    tools: int = 0
    characters: int = 0


class TooFewInCommon(StudyError):
    """Too few instructions have an answer of every teacher; `common` is how many have."""

    def __init__(self, text: str, common: int) -> None:
        super().__init__(text)
        self.common = common


@dataclass(frozen=True)
class ResponseTable:
    """Responses as columns of equal length, one row for each that can be compared.

    `teacher` and `instruction` index `teachers` and `instructions` (16-byte ids, (instructions,)); `keys`
    are the responses' 16-byte keys; `values` holds the measures that came with the data; `cut_off` says
    which responses their generator cut off. `dropped` counts per teacher and reason what could not be
    compared. `category` (instructions,) indexes `categories`, -1 for none; None where the data have none.
    `checked_keys` hash each key with its row's reference answer, and are the key where a row has none; None
    where no row has one. `answer_keys` are the keys of the responses as their judges read them, without their
    traces; None where no response has any. `odd_endings` counts per teacher the reasons of an end other than
    a stop or a limit. `lost` (rows left out, 3) has the teacher, the instruction and the place in `LOST` of
    each. `signs` are of the data as read, whatever was selected of them.
    """

    teachers: tuple[str, ...]
    instructions: NDArray[np.void]
    teacher: NDArray[np.int32]
    instruction: NDArray[np.int32]
    sample: NDArray[np.int32]
    keys: NDArray[np.void]
    values: Mapping[str, Array]
    cut_off: NDArray[np.bool_]
    dropped: Mapping[str, Mapping[str, int]]
    categories: tuple[str, ...] = ()
    category: NDArray[np.int32] | None = None
    checked_keys: NDArray[np.void] | None = None
    answer_keys: NDArray[np.void] | None = None
    odd_endings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lost: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    signs: Signs = field(default_factory=Signs)

    @property
    def has_references(self) -> bool:
        """Whether any response has a reference answer to be checked against."""
        return self.checked_keys is not None

    def with_references(self) -> "ResponseTable":
        """Return the rows that have a reference answer; the others are counted as dropped."""
        if self.checked_keys is None:
            kept = np.zeros(len(self.keys), np.bool_)
        else:
            kept = self.checked_keys != self.keys
        if kept.all():
            return self
        lost = np.bincount(self.teacher[~kept], minlength=len(self.teachers)).tolist()
        dropped = {
            teacher: {**self.dropped.get(teacher, {}), **({NO_REFERENCE: count} if count else {})}
            for teacher, count in zip(self.teachers, lost, strict=True)
        }
        return self.without(np.flatnonzero(~kept), NO_REFERENCE, dropped)

    def without(
        self, rows: NDArray[np.intp], reason: str, dropped: Mapping[str, Mapping[str, int]]
    ) -> "ResponseTable":
        """Return the table without these rows, which are lost for this reason, of those in `LOST`."""
        kept = np.ones(len(self.keys), np.bool_)
        kept[rows] = False
        why = np.full(len(rows), LOST.index(reason), np.int32)
        gone = np.stack([self.teacher[rows], self.instruction[rows], why], axis=1)
        return replace(self._rows(kept), dropped=dropped, lost=np.concatenate([self.lost, gone]))

    def with_teachers(self, teachers: Container[str]) -> "ResponseTable":
        """Return the rows of these teachers alone."""
        places = [at for at, name in enumerate(self.teachers) if name in teachers]
        number = np.full(len(self.teachers), -1, np.int32)
        number[places] = np.arange(len(places))
        part = self._rows(number[self.teacher] >= 0)
        names = tuple(self.teachers[at] for at in places)
        dropped = {name: self.dropped.get(name, {}) for name in names}
        lost = self.lost[number[self.lost[:, 0]] >= 0]
        lost[:, 0] = number[lost[:, 0]]
        return replace(
            part, teachers=names, teacher=number[part.teacher], dropped=dropped, lost=lost
        )

    def first(self, limit: int, *, seed: int) -> "ResponseTable":
        """Return the rows of the first instructions in the order the seed draws, whoever has them."""
        order = drawn(self.instructions.tolist(), seed)[:limit]
        if len(order) == len(self.instructions):
            return self
        places = np.sort(order)
        number = np.full(len(self.instructions), -1, np.int32)
        number[places] = np.arange(len(places))
        part = self._rows(number[self.instruction] >= 0)
        lost = self.lost[number[self.lost[:, 1]] >= 0]
        lost[:, 1] = number[lost[:, 1]]
        found = replace(
            part,
            instructions=self.instructions[places],
            instruction=number[part.instruction],
            category=None if self.category is None else self.category[places],
            lost=lost,
        )
        dropped: dict[str, Counter[str]] = {name: Counter() for name in self.teachers}
        for teacher, _, why in lost.tolist():
            dropped[self.teachers[teacher]][LOST[why]] += 1
        seen = found.counts() > 0
        seen[lost[:, 0], lost[:, 1]] = True
        for name, missing in zip(self.teachers, (~seen).sum(axis=1).tolist(), strict=True):
            dropped[name].update({"missing": missing} if missing else {})
        return replace(found, dropped={name: dict(reasons) for name, reasons in dropped.items()})

    def _rows(self, kept: NDArray[np.bool_]) -> "ResponseTable":
        checked, answers = self.checked_keys, self.answer_keys
        return replace(
            self,
            teacher=self.teacher[kept],
            instruction=self.instruction[kept],
            sample=self.sample[kept],
            keys=self.keys[kept],
            values={name: column[kept] for name, column in self.values.items()},
            cut_off=self.cut_off[kept],
            checked_keys=None if checked is None else checked[kept],
            answer_keys=None if answers is None else answers[kept],
        )

    def category_of(self, instructions: NDArray[np.intp]) -> list[str | None]:
        """Return the category of each of these instructions, by their places; None for none."""
        if self.category is None:
            return [None] * len(instructions)
        codes = self.category[instructions].tolist()
        return [self.categories[code] if code >= 0 else None for code in codes]

    @property
    def cut(self) -> dict[str, int]:
        """The responses that their generator cut off, per teacher."""
        counts = np.bincount(self.teacher[self.cut_off], minlength=len(self.teachers))
        return dict(zip(self.teachers, counts.tolist(), strict=True))

    def counts(self) -> NDArray[np.int32]:
        """Return the number of comparable responses, (teachers, instructions)."""
        shape = (len(self.teachers), len(self.instructions))
        place = self.teacher.astype(np.int64) * shape[1] + self.instruction
        counts = np.bincount(place, minlength=shape[0] * shape[1])
        return counts.reshape(shape).astype(np.int32)

    @property
    def common(self) -> int:
        """How many instructions every teacher answered."""
        return int((self.counts() > 0).all(axis=0).sum()) if self.teachers else 0

    def answered_by(self, teachers: Sequence[str], *, seed: int) -> list[int]:
        """Return the instructions that all these teachers answered, in the order the seed draws."""
        numbers = [self.teachers.index(teacher) for teacher in teachers]
        common = np.flatnonzero(self.counts()[numbers].min(axis=0))
        found: list[int] = common[drawn(self.instructions[common].tolist(), seed)].tolist()
        return found

    def lost_counts(self, *, failed: bool) -> NDArray[np.int32]:
        """Return the requests without an answer, or answers without a number, (teachers, instructions)."""
        some = self.lost[is_failure(self.lost) == failed]
        counts = np.zeros((len(self.teachers), len(self.instructions)), np.int32)
        np.add.at(counts, (some[:, 0], some[:, 1]), 1)
        return counts

    def select(self, limit: int | None, *, seed: int, min_coverage: float) -> "Selection":
        """Return the rows to compare: all samples of the instructions that every teacher was asked.

        A teacher's mean over its samples counts once for an instruction, however many there are. A limit
        takes instructions in an order drawn by `seed`, so that a larger limit only adds to a smaller one. Of
        an instruction that some teacher failed the others' rows are taken too, because what they earn there
        counts where failing costs; where an answer lacks its reward or reference, nobody's are.

        Raises:
            TooFewInCommon: the instructions in common are fewer than two or too small a share of all.
        """
        here = self.counts() > 0
        total, common = len(self.instructions), self.common
        if common < 2 or common < min_coverage * total:
            raise TooFewInCommon(self._refusal(common, min_coverage), common)
        answered = here | (self.lost_counts(failed=True) > 0)
        asked = answered | (self.lost_counts(failed=False) > 0)
        usable = np.flatnonzero(asked.all(axis=0) & answered.any(axis=0))
        taken = (
            usable
            if limit is None
            else usable[drawn(self.instructions[usable].tolist(), seed)][:limit]
        )
        allowed = np.zeros(total, np.bool_)
        allowed[taken] = answered[:, taken].all(axis=0)
        rows = np.flatnonzero(allowed[self.instruction])
        return Selection(self, rows, np.sort(taken), total if limit is None else min(limit, total))

    def order_within(self) -> NDArray[np.int64]:
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

    def with_teacher(
        self,
        name: str,
        rows: NDArray[np.intp],
        dropped: Mapping[str, int],
        failed: NDArray[np.int32],
    ) -> "ResponseTable":
        """Return a table in which these rows, one for each instruction at most, also are a teacher's.

        `dropped` counts by reason for which instructions it has no response; `failed` are rows of `lost`.
        """
        number = len(self.teachers)
        taken = np.full(len(rows), number, np.int32)
        return replace(
            self,
            teachers=(*self.teachers, name),
            teacher=np.concatenate([self.teacher, taken]),
            instruction=np.concatenate([self.instruction, self.instruction[rows]]),
            sample=np.concatenate([self.sample, self.sample[rows]]),
            keys=np.concatenate([self.keys, self.keys[rows]]),
            checked_keys=_longer(self.checked_keys, rows),
            answer_keys=_longer(self.answer_keys, rows),
            values={n: np.concatenate([v, v[rows]]) for n, v in self.values.items()},
            cut_off=np.concatenate([self.cut_off, self.cut_off[rows]]),
            dropped={**self.dropped, name: dict(dropped)},
            lost=np.concatenate([self.lost, failed * [0, 1, 1] + [number, 0, 0]]).astype(np.int32),
        )

    def _refusal(self, common: int, min_coverage: float) -> str:
        answered = (self.counts() > 0).sum(axis=1)
        shown = sorted(zip(answered.tolist(), self.teachers, strict=True))[:_MANY]
        lines = [
            f"  {teacher}: {number} of {len(self.instructions)} instructions"
            + "".join(f", {count} {why}" for why, count in self.dropped.get(teacher, {}).items())
            for number, teacher in shown
        ]
        return (
            f"Only {common} of {len(self.instructions)} instructions were answered by all "
            f"{len(self.teachers)} teachers; expected at least 2, and {min_coverage:.0%} of them. "
            "The teachers with the fewest:\n"
            + "\n".join(lines)
            + "\nLeave a teacher out, complete its responses, or lower --min-coverage."
        )


@dataclass(frozen=True)
class Gathered:
    """The response table, and what could not be read: how many rows of each file, and the first of them.

    `alike` counts the instructions that are there in several Unicode forms (composed and decomposed), which
    are not matched, because models read them as different tokens. `matched` counts the responses that are
    samples of an instruction with other turns, because it is matched by something else than its text.
    """

    table: ResponseTable
    skipped: Mapping[str, int]
    problems: "Sequence[Problem]"
    alike: int = 0
    matched: int = 0


def _longer(keys: Keys | None, rows: NDArray[np.intp]) -> Keys | None:
    return None if keys is None else np.concatenate([keys, keys[rows]])


def is_failure(lost: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which rows of `ResponseTable.lost` are requests without an answer."""
    return np.asarray(lost[:, 2] < len(_FAILURES))


def drawn(ids: Sequence[bytes], seed: int) -> NDArray[np.intp]:
    """Return the places of instruction ids in the order the seed draws, whatever their own order."""
    salt = seed.to_bytes(8, "little", signed=True)
    order = sorted(range(len(ids)), key=lambda place: blake2b(ids[place], salt=salt).digest())
    return np.array(order, dtype=np.intp)


@dataclass(frozen=True)
class Selection:
    """The part of a response table that is compared.

    `rows` index the table, `taken` the instructions in ascending order; `asked` is how many instructions
    the comparison was meant to cover. An instruction that was taken may lack rows of some teachers.
    """

    table: ResponseTable
    rows: NDArray[np.intp]
    taken: NDArray[np.intp]
    asked: int

    @property
    def keys(self) -> Keys:
        """The responses' keys, one for each row."""
        every = np.arange(len(self.table.keys))
        return self.table.keys if np.array_equal(self.rows, every) else self.table.keys[self.rows]

    @property
    def complete(self) -> int:
        """How many of the instructions every teacher answered."""
        return int((self.table.counts()[:, self.taken] > 0).all(axis=0).sum())

    @property
    def categories(self) -> tuple[str | None, ...]:
        """The category of each instruction that was taken; empty where the data have none."""
        return tuple(self.table.category_of(self.taken)) if self.table.categories else ()

    def sample(self, most: int) -> "Selection":
        """Return the rows of at most so many instructions, which their hashes draw at random."""
        taken = self.taken[:most]
        rows = self.rows[np.isin(self.table.instruction[self.rows], taken)]
        return Selection(self.table, rows, taken, len(taken))

    def groups(self) -> "list[Selection]":
        """Return the rows of some teachers each, in their order, so many that their columns fit in memory.

        All are of the same instructions.
        """
        rows = np.bincount(self.table.teacher[self.rows], minlength=len(self.table.teachers))
        groups: list[list[str]] = [[]]
        held = 0
        for name, count in zip(self.table.teachers, rows.tolist(), strict=True):
            if held and held + count > MOST_ROWS:
                groups.append([])
                held = 0
            groups[-1].append(name)
            held += count
        return [self] if len(groups) == 1 else [self._of(set(names)) for names in groups]

    def _of(self, teachers: Container[str]) -> "Selection":
        numbers = [at for at, name in enumerate(self.table.teachers) if name in teachers]
        kept = np.flatnonzero(np.isin(self.table.teacher, numbers))
        rows = np.searchsorted(kept, self.rows[np.isin(self.table.teacher[self.rows], numbers)])
        return replace(self, table=self.table.with_teachers(teachers), rows=rows)

    def share(self, place: int, of: int) -> "Selection":
        """Return the rows of one in `of` instructions by their content, those numbered `place` from 0."""
        ids = self.table.instructions[self.taken]
        drawn = np.frombuffer(ids.tobytes(), "<u8").reshape(-1, KEY_BYTES // 8)[:, -1]
        taken = self.taken[drawn % np.uint64(of) == place]
        rows = self.rows[np.isin(self.table.instruction[self.rows], taken)]
        return Selection(self.table, rows, taken, len(taken))

    def by_reference(self) -> "Selection":
        """Return the same rows under the keys that scores of checks are stored under."""
        return self._under(self.table.checked_keys)

    def by_answer(self) -> "Selection":
        """Return the same rows under the keys of the answers, without the traces before them."""
        return self._under(self.table.answer_keys)

    def _under(self, keys: Keys | None) -> "Selection":
        return self if keys is None else replace(self, table=replace(self.table, keys=keys))

    @cached_property
    def distinct(self) -> Keys:
        """The keys without repeats: a text that two teachers gave is one."""
        return distinct(self.keys)

    @property
    def texts(self) -> int:
        """How many distinct keys there are."""
        return Wanted(self.keys).distinct()

    def distinct_of(self, rows: NDArray[np.bool_]) -> Keys:
        """Return the keys of these rows without repeats."""
        return distinct(self.keys[rows])

    def lacking(self, stored: Keys) -> Keys:
        """Return the distinct keys that are not among those stored."""
        import pyarrow.compute as pc

        found = pc.is_in(_arrow_keys(self.distinct), value_set=_arrow_keys(stored))
        missing: Keys = self.distinct[~np.asarray(found)]
        return missing

    def averaged(self, values: Array) -> Array:
        """Return values (rows,) averaged over samples, (teachers, instructions); NaN is no data."""
        shape = (len(self.table.teachers), len(self.taken))
        place, number = self._cells
        if number is None:
            found = np.full(shape, np.nan)
            found.ravel()[place] = values
            found += 0.0  # as a sum has it: never -0.0
            return found
        total = np.bincount(place, weights=values, minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((total / number).reshape(shape), dtype=np.float64)

    @cached_property
    def _cells(self) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Each row's place among teachers times instructions, and the rows there; None for one at most."""
        size = len(self.table.teachers) * len(self.taken)
        column = self.table.instruction[self.rows].astype(np.intp)
        if len(self.taken) < len(self.table.instructions):
            column = np.searchsorted(self.taken, column)
        place = self.table.teacher[self.rows].astype(np.intp)
        place *= len(self.taken)
        place += column
        number = np.bincount(place, minlength=size)
        return place, number if number.max(initial=0) > 1 else None

    def lost(self, *, failed: bool) -> Array:
        """Return the share of requests without an answer, or of answers without a number, of each pair."""
        of = [self.table.lost_counts(failed=one)[:, self.taken] for one in (failed, not failed)]
        asked = self.table.counts()[:, self.taken] + of[0] + of[1]
        return np.asarray(of[0] / np.maximum(asked, 1), dtype=np.float64)

    def reasons(self, notes: Mapping[int, str]) -> dict[str, dict[str, int]]:
        """Return how many rows each note cost, per teacher, beside what the data, or those taken, lack.

        `notes` holds, by place in `rows`, why a row has no score.
        """
        table = self.table
        if self.asked < len(table.instructions):
            found = {teacher: Counter[str]() for teacher in table.teachers}
            for teacher, _, why in table.lost[np.isin(table.lost[:, 1], self.taken)].tolist():
                found[table.teachers[teacher]][LOST[why]] += 1
        else:
            found = {teacher: Counter(reasons) for teacher, reasons in table.dropped.items()}
        for place, note in notes.items():
            found[self.table.teachers[self.table.teacher[self.rows[place]]]][note] += 1
        return {teacher: dict(counter) for teacher, counter in found.items()}


def _arrow_keys(keys: Keys) -> Any:
    import pyarrow as pa

    data = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, data])


def distinct(keys: Keys) -> Keys:
    """Return keys without repeats."""
    found = _arrow_keys(keys).unique()
    return np.frombuffer(found.buffers()[1] or b"", f"V{KEY_BYTES}", len(found))
