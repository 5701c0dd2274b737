"""Find the stored numbers of given keys one shard at a time, in memory that grows with what is asked for.

A store's rows are never held together: each shard's keys are found among the wanted ones by their first
eight bytes, sorted, and compared whole. So looking up takes a dozen bytes a key beside its numbers, where
tables of all rows and two hash tables took hundreds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preceptor.store.mapped import large_numbers
from preceptor.types import KEY_BYTES

_HALF = KEY_BYTES // 2


class Wanted:
    """Keys that are looked for, (keys,) of 16 bytes, which may repeat."""

    def __init__(self, keys: NDArray[np.void]) -> None:
        self.keys = keys
        self._halves = _halves(keys)
        order = np.argsort(self._halves[:, 0])
        small = len(keys) <= np.iinfo(np.int32).max
        # Both are kept as long as anything is looked up; where they are large the system may drop them.
        self._order = large_numbers(len(keys), np.int32 if small else np.int64)
        self._order[:] = order
        self._first = large_numbers(len(keys), np.uint64)
        np.take(self._halves[:, 0], order, out=self._first)
        self._alike = np.flatnonzero(self._first[1:] == self._first[:-1])

    def __len__(self) -> int:
        return len(self._first)

    def places(self, keys: NDArray[np.void]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return which of these keys are wanted, and where: two arrays of places, as long as each other."""
        halves = _halves(keys)
        by, first = _sorted(halves[:, 0])
        low = np.searchsorted(self._first, first, "left")
        if len(self._alike):
            counts = np.searchsorted(self._first, first, "right") - low
            rows = np.repeat(by, counts)
            steps = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            targets = self._order[np.repeat(low, counts) + steps]
        else:
            there = low < len(self)
            there[there] = self._first[low[there]] == first[there]
            rows, targets = by[there], self._order[low[there]]
        same = self._halves[targets, 1] == halves[rows, 1]
        return rows[same].astype(np.intp), targets[same].astype(np.intp)

    def distinct(self) -> int:
        """Return how many different keys there are."""
        if not len(self._alike):
            return len(self)
        # Few, unless texts repeat: neighbours in the order of their first halves are compared whole.
        rows = np.union1d(self._alike, self._alike + 1)
        whole = self._halves[self._order[rows]]
        return len(self) - len(rows) + len(np.unique(whole, axis=0))


class Found:
    """The columns of wanted keys as shards give them, the earlier shard first.

    A row with lists beats one without, then the earlier one wins, and a column that the winner lacks is taken
    from the next; a row with values beats one with a note.
    """

    def __init__(self, wanted: Wanted, names: Sequence[str]) -> None:
        self._wanted = wanted
        self.values = {name: large_numbers(len(wanted)) for name in names}
        for column in self.values.values():
            column.fill(np.nan)
        self._notes: NDArray[np.object_] | None = None
        self._words: dict[str, str] = {}
        self._valued = np.zeros(len(wanted), np.bool_)
        self._listed: dict[str, NDArray[np.bool_]] = {}

    def add(self, table: pa.Table, keys: NDArray[np.void], listed: NDArray[np.bool_]) -> None:
        """Take what a shard has: its rows, their keys, and which of them have lists."""
        rows, targets = self._wanted.places(keys)
        if not len(rows):
            return
        # Worst row first: where a place is assigned twice, the last assignment stays.
        rows, targets = rows[::-1], targets[::-1]
        if listed.any():
            order = np.argsort(listed[rows], kind="stable")
            rows, targets = rows[order], targets[order]
        for name, found in self.values.items():
            if name in table.column_names:
                column = table[name].to_numpy()
                there = ~np.isnan(column[rows])
                at = there.copy()
                at[there] = self._better(
                    name, np.isnan(found[targets[there]]), targets[there], listed[rows[there]]
                )
                found[targets[at]] = column[rows[at]]
        noted = np.asarray(table["note"].is_valid())[rows]
        self._valued[targets[~noted]] = True
        if noted.any():
            rows, targets = rows[noted], targets[noted]
            if self._notes is None:
                self._notes = np.full(len(self._wanted), None)
            empty = ~are_there(self._notes[targets])
            at = self._better("note", empty, targets, listed[rows])
            words = table["note"].take(pa.array(rows[at])).to_pylist()
            self._notes[targets[at]] = [self._words.setdefault(word, word) for word in words]

    def _better(
        self,
        name: str,
        empty: NDArray[np.bool_],
        targets: NDArray[np.intp],
        listed: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Tell which rows give a column what it lacks, or has from a row without lists alone."""
        better = empty
        if listed.any():
            known = self._listed.setdefault(name, np.zeros(len(self._valued), np.bool_))
            better = better | (listed & ~known[targets])
            known[targets[listed]] = True
        return better

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the values by name, NaN for no data, and under `note` why there are none, else None."""
        if self._notes is None:  # one None for all, which takes no memory
            return {**self.values, "note": np.broadcast_to(np.array(None), len(self._wanted))}
        self._notes[self._valued] = None
        return {**self.values, "note": self._notes}


def are_there(notes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Tell which of a column of notes are no None."""
    if len(notes) and not any(notes.strides):
        return np.full(len(notes), notes[0] is not None)
    found: NDArray[np.bool_] = notes != None  # noqa: E711  (elementwise)
    return found


def _sorted(first: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Return the order of numbers, those that are equal in the order they have, and the numbers in it.

    Neighbours are looked up in places that lie beside each other.
    """
    by = np.argsort(first)
    found = first[by]
    if (found[1:] == found[:-1]).any():
        by = np.argsort(first, kind="stable")
        found = first[by]
    return by, found


def _halves(keys: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return keys as two numbers each, (keys, 2)."""
    raw = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)
    found: NDArray[np.uint64] = raw.view("<u8").reshape(-1, KEY_BYTES // _HALF)
    return found
