"""Buffer rows on their way into a partition: what costs little by the shard, what was paid for at once.

Scoring, generation and judging all store through here, so that each keeps what it has when it is interrupted
and none floods a store with a shard for every row.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from preceptor.errors import RowError, StoreError
from preceptor.types import Flush

_EVERY_S = 2.0
_LONGEST_HELD_S = 0.2
_MANY_SHARDS = 200

Row = TypeVar("Row")
_Given = TypeVar("_Given", contravariant=True)


class Partition(Protocol[_Given]):
    """What rows are appended to."""

    def append(self, rows: Sequence[_Given], *, durable: bool = True) -> str:
        """Store the rows as one shard, return its name; a loss of power may take what is not durable."""
        ...

    def drop(self, names: Sequence[str]) -> None:
        """Remove shards whose rows are in another one."""
        ...

    def compact(self) -> None:
        """Merge small shards."""
        ...


class StoreWriter(Generic[Row]):
    """Stores rows in a partition; a context manager that also stores what it holds when it is interrupted.

    With `timed`, rows of two seconds go together, with `each` those of 0.2 seconds. Those are on disk before,
    once `add` is told that the next are waited for, so that killing the process loses none.
    `stored` is called with rows once they are there.
    """

    def __init__(
        self,
        partition: Partition[Row],
        flush: Flush,
        stored: Callable[[Sequence[Row]], None] | None = None,
    ) -> None:
        self._partition, self._flush, self._stored = partition, flush, stored
        self._buffer: list[Row] = []
        self._written: list[Row] = []  # in small shards that are not durable yet
        self._small: list[str] = []
        self._shards = 0
        self._last = time.monotonic()
        self._next = self._last + _EVERY_S
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows, and store them when their time has come; no rows say that the next are waited for."""
        with self._lock:
            self._buffer += rows
            if self._flush == "each" and self._buffer and not rows:
                self._write()
        if self._flush == "timed":
            if time.monotonic() >= self._next:
                self.flush()
        elif self._later is None:
            self._later = threading.Timer(_LONGEST_HELD_S, self._flush_later)
            self._later.daemon = True
            self._later.start()

    def _write(self) -> None:
        """Put what is held on disk, where it survives this process."""
        try:
            self._small.append(self._partition.append(self._buffer, durable=False))
        except RowError:
            self._buffer = []  # all others are stored: asking the same of the disk again ends the same
            raise
        rows, self._buffer = self._buffer, []
        self._written += rows
        if self._stored is not None:
            self._stored(rows)

    def flush(self, after: float = 0.0) -> None:
        """Store what is held, durably, unless the last shard is younger than `after` seconds.

        Raises:
            RowError: a row cannot be stored; all others are.
            StoreError: the disk refuses; the rows are still held.
        """
        with self._lock:
            began = time.monotonic()
            rows = self._written + self._buffer
            if not rows or began - self._last < after:
                return
            try:
                self._partition.append(rows)
            except RowError:
                self._buffer = []
                raise
            self._partition.drop(self._small)
            fresh, self._buffer, self._written, self._small = self._buffer, [], [], []
            self._last = time.monotonic()
            if self._flush == "timed":
                self._next = self._last + _EVERY_S
            self._shards += 1
            if self._stored is not None and fresh:
                self._stored(fresh)
        if self._shards % _MANY_SHARDS == 0:
            self._partition.compact()

    def _flush_later(self) -> None:
        """Store from a thread of its own; what the disk refuses is left for the main one, which raises."""
        self._later = None
        with suppress(StoreError):
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._later is not None:
            self._later.cancel()
        self.flush()
        if kind is None and self._shards:
            self._partition.compact()
