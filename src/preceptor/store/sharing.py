"""Share the rows that a store lacks among processes that know nothing of each other.

Rows are cut into parts by their content, so that all processes cut alike. Each takes the parts that nobody
holds in an order of its own, looks at the store once it has one, and at the end waits for what others hold.
So a row is asked for twice only where a process died, or stood still, before it stored the answer.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from preceptor.store.claims import Claims, Holder

logger = logging.getLogger(__name__)

AHEAD = 8
"""Groups claimed with one look at the store, where rows are handed out one by one."""

_DIGITS = 3  # of a group's id: up to 4,096 parts, so that one has few rows and many parts few files
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

Row = TypeVar("Row")
Group = list[Row]


class SharedRows(Generic[Row]):
    """Rows that are missing, in groups that stay together; a context manager that gives claims back.

    Args:
        claims: where parts are claimed.
        groups: the rows of each group by its 16-byte id, which follows from content alone.
        key: what a row is stored under.
        look: returns the keys that were stored since the last look.
        elsewhere: called with the rows that another process has stored, maybe from another thread.
    """

    def __init__(
        self,
        claims: Claims,
        groups: Mapping[bytes, Sequence[Row]],
        key: Callable[[Row], bytes],
        look: Callable[[], Iterable[bytes]],
        elsewhere: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self._claims, self._key = claims, key
        self._look, self._elsewhere = look, elsewhere
        self._left: dict[str, list[Group[Row]]] = {}
        for name, rows in groups.items():
            self._left.setdefault(name.hex()[:_DIGITS], []).append(list(rows))
        self._held: dict[bytes, str] = {}
        self._open: dict[str, int] = {}
        self._stored: set[bytes] = set()
        self._lock = threading.Lock()
        self._begun = False

    def __enter__(self) -> Self:
        self._claims.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._claims.__exit__()

    def more(self) -> bool:
        """Begin a round; False once nothing is left. What was handed out must be stored before.

        After the first round it waits for a part that others held and did not finish. Rows that were handed
        out and could not be stored are not handed out again.
        """
        self._claims.release()
        self._held.clear()
        if self._begun:
            self._wait()
        self._begun = True
        return bool(self._left)

    def parts(self, size: int) -> Iterator[list[Group[Row]]]:
        """Yield what is missing and held by nobody else, `size` groups at a time, once each."""
        names: list[str] = []
        count = 0
        order = np.random.default_rng([os.getpid(), time.time_ns()]).permutation(list(self._left))
        for name in map(str, order):
            if self._claims.take(name):
                names.append(name)
                count += len(self._left[name])
            if count >= size:
                yield from self._handed_out(names, size)
                names, count = [], 0
        yield from self._handed_out(names, size)

    def each(self) -> Iterator[Group[Row]]:
        """Yield group by group what is missing, claimed only a few ahead of what is asked for."""
        for groups in self.parts(AHEAD):
            yield from groups

    def stored(self, keys: Iterable[bytes]) -> None:
        """Give back the parts of which every row is stored now."""
        with self._lock:
            for key in keys:
                name = self._held.pop(key, None)
                if name is not None:
                    self._open[name] -= 1
                    if not self._open[name]:
                        self._claims.release(name)

    def _handed_out(self, names: Sequence[str], size: int) -> Iterator[list[Group[Row]]]:
        """Yield the groups of parts that were just claimed, as far as the store lacks them."""
        if not names:
            return
        self._drop_stored(names)
        groups: list[Group[Row]] = []
        with self._lock:
            for name in names:
                found = self._left.pop(name, [])
                keys = [self._key(row) for group in found for row in group]
                self._held.update(dict.fromkeys(keys, name))
                self._open[name] = len(set(keys))
                groups += found
                if not keys:
                    self._claims.release(name)
        for start in range(0, len(groups), size):
            yield groups[start : start + size]

    def _drop_stored(self, names: Iterable[str]) -> None:
        """Look at the store, and leave out of these parts what is in it."""
        self._stored.update(self._look())
        for name in list(names):
            groups = self._left[name]
            lacking = [[row for row in one if self._key(row) not in self._stored] for one in groups]
            dropped = [row for one in groups for row in one if self._key(row) in self._stored]
            self._left[name] = [group for group in lacking if group]
            if not self._left[name]:
                del self._left[name]
            if dropped:
                self._elsewhere(dropped)

    def _wait(self) -> None:
        """Return when a part is free whose rows are missing, or nothing is left."""
        pause, told = _FIRST_PAUSE_S, set[Holder]()
        while self._left:
            holders = {name: self._claims.holder(name) for name in self._left}
            self._drop_stored(self._left)
            if any(holders[name] is None for name in self._left):
                return
            others = {one for name in self._left if (one := holders[name])}
            if others - told:
                rows = sum(len(group) for groups in self._left.values() for group in groups)
                words = ", ".join(sorted(map(str, others)))
                logger.warning("waiting for %d rows that others have in work: %s", rows, words)
                told |= others
            if self._left:
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE_S, 1.5 * pause)
