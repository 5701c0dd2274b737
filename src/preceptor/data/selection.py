"""The part of a response table that is compared, and how numbers of its rows become those of teachers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.table import LOST, Keys, Places, ResponseTable, drawn, places_of
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import Array
from preceptor.store.lookup import Wanted
from preceptor.store.mapped import large_numbers, moved
from preceptor.types import KEY_BYTES

MOST_ROWS = 2**24
"""Rows of which measures are formed at once, at about 200 bytes each, unless a single teacher has more."""

_MANY = 8


class TooFewInCommon(StudyError):
    """Too few instructions have an answer of every teacher; `common` is how many have."""

    def __init__(self, text: str, common: int) -> None:
        super().__init__(text)
        self.common = common


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

    @cached_property
    def keys(self) -> Keys:
        """The responses' keys, one for each row."""
        keys = self.table.keys
        if len(self.rows) == len(keys) and np.array_equal(self.rows, np.arange(len(keys))):
            return keys
        # Any other mode than to clip would take a copy in memory before.
        return keys.take(self.rows, out=large_numbers(len(self.rows), keys.dtype), mode="clip")

    @cached_property
    def wanted(self) -> Wanted:
        """The keys as the store looks them up, whichever scorer's numbers."""
        return Wanted(self.keys)

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

    def groups(self) -> "Iterator[tuple[Places, Selection]]":
        """Yield the rows of some teachers each, in their order, so many that their columns fit in memory.

        With them go their places in `rows`. All are of the same instructions.
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
        if len(groups) == 1:
            yield slice(None), self
        else:
            yield from map(self._of, groups)

    def _of(self, teachers: Sequence[str]) -> "tuple[Places, Selection]":
        numbers = [self.table.teachers.index(name) for name in teachers]
        places = places_of(np.isin(self.table.teacher[self.rows], numbers))
        kept = np.flatnonzero(np.isin(self.table.teacher, numbers))
        rows = np.searchsorted(kept, self.rows[places])
        return places, replace(self, table=self.table.with_teachers(teachers), rows=rows)

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
        return self.wanted.distinct()

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


def select(table: ResponseTable, limit: int | None, *, seed: int, min_coverage: float) -> Selection:
    """Return the rows to compare: all samples of the instructions that every teacher was asked.

    A teacher's mean over its samples counts once for an instruction, however many there are. A limit
    takes instructions in an order drawn by `seed`, so that a larger limit only adds to a smaller one. Of
    an instruction that some teacher failed the others' rows are taken too, because what they earn there
    counts where failing costs; where an answer lacks its reward or reference, nobody's are.

    Raises:
        TooFewInCommon: the instructions in common are fewer than two or too small a share of all.
    """
    here = table.counts() > 0
    total, common = len(table.instructions), table.common
    if common < 2 or common < min_coverage * total:
        raise TooFewInCommon(_refusal(table, common, min_coverage), common)
    answered = here | (table.lost_counts(failed=True) > 0)
    asked = answered | (table.lost_counts(failed=False) > 0)
    usable = np.flatnonzero(asked.all(axis=0) & answered.any(axis=0))
    taken = (
        usable
        if limit is None
        else usable[drawn(table.instructions[usable].tolist(), seed)][:limit]
    )
    allowed = np.zeros(total, np.bool_)
    allowed[taken] = answered[:, taken].all(axis=0)
    rows = moved(np.flatnonzero(allowed[table.instruction]))
    return Selection(table, rows, np.sort(taken), total if limit is None else min(limit, total))


def _refusal(table: ResponseTable, common: int, min_coverage: float) -> str:
    answered = (table.counts() > 0).sum(axis=1)
    shown = sorted(zip(answered.tolist(), table.teachers, strict=True))[:_MANY]
    lines = [
        f"  {teacher}: {number} of {len(table.instructions)} instructions"
        + "".join(f", {count} {why}" for why, count in table.dropped.get(teacher, {}).items())
        for number, teacher in shown
    ]
    return (
        f"Only {common} of {len(table.instructions)} instructions were answered by all "
        f"{len(table.teachers)} teachers; expected at least 2, and {min_coverage:.0%} of them. "
        "The teachers with the fewest:\n"
        + "\n".join(lines)
        + "\nLeave a teacher out, complete its responses, or lower --min-coverage."
    )
