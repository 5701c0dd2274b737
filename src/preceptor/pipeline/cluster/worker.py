"""The actor: one process of the cluster, which loads what a task needs once and computes portions of it.

Its rows go to the store from here; what returns to the driver are counts, and what was warned of.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from preceptor.pipeline.work import Part, Task, tokens_of
from preceptor.store.writer import StoreWriter
from preceptor.types import Score

Said = tuple[tuple[str, int, str], ...]
"""Warnings: the logger, the level, and the words of each."""


@dataclass(frozen=True)
class Done:
    """What came of a portion that is stored: its tokens, and the keys of responses that got no row."""

    tokens: int
    left_out: frozenset[bytes]
    said: Said


class _Heard(logging.Handler):
    """Keeps the package's warnings, for the driver to say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self._records.append((record.name, record.levelno, record.getMessage()))

    def taken(self) -> Said:
        """Return what was kept since the last time."""
        found, self._records = tuple(self._records), []
        return found


class Worker:
    """Computes one portion at a time; `folder` is what relative paths of models start from."""

    def __init__(self, folder: str) -> None:
        self._task: Task | None = None
        self._heard = _Heard()
        logging.getLogger("preceptor").addHandler(self._heard)
        with suppress(OSError):  # a machine without it has no relative paths either, and says so
            os.chdir(folder)

    def begin(self, task: Task) -> str:
        """Take up a task, free what only the one before needed, and return the node that this runs on.

        Raises:
            ModelError: this machine has another model than the driver.
            StoreError: this machine does not see the driver's store.
        """
        import ray

        if self._task is not None and self._task.resource is not task.resource:
            self._task.resource.release()
        self._task = task
        task.require_same()
        return str(ray.get_runtime_context().get_node_id())

    def compute(self, part: Part) -> Done:
        """Compute a portion; when this returns its rows are stored. What is interrupted is stored so far."""
        task = self._task
        assert task is not None
        keys: set[bytes] = set()
        tokens = 0

        def stored(rows: Sequence[Score]) -> None:
            nonlocal tokens
            keys.update(row.key for row in rows)
            tokens += tokens_of(rows)

        writer = StoreWriter(task.partition, task.flush, stored)
        try:
            task.compute(part, writer)
        finally:
            writer.flush()
        asked = {task.key(response) for group in part for response in group}
        return Done(tokens, frozenset(asked - keys), self._heard.taken())
