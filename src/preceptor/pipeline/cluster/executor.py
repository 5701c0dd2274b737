"""The driver: hands portions of scoring to actors, and to others what an actor that died has left.

Claims on what is missing are the driver's own, so other processes and clusters may share the store. A dead
actor loses at most its portion, a dead driver those of all its actors, but for what is stored by then.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from preceptor.config.runtime import Runtime
from preceptor.errors import ModelError, PreceptorError
from preceptor.pipeline.cluster.connection import Connection, Hand
from preceptor.pipeline.cluster.portions import MOST_DEATHS, Portion, portions_of
from preceptor.pipeline.cluster.worker import Said
from preceptor.pipeline.work import (
    Executor,
    Part,
    Progress,
    Stored,
    Task,
    Work,
    here,
    in_process,
)
from preceptor.types import NoteKind, Score

logger = logging.getLogger(__name__)


def executor_of(runtime: Runtime) -> Executor:
    """Return what runs the work of a pipeline."""
    return in_process if runtime.executor == "local" else Cluster(runtime)


class Cluster:
    """An executor on a Ray cluster; actors live as long as it does, with the model of their last task."""

    def __init__(self, runtime: Runtime) -> None:
        self._connection = Connection(runtime)
        self._told: set[tuple[str, int, str]] = set()

    def __call__(self, work: Work, progress: Progress) -> None:
        """Run work."""
        work.run(progress, self.compute)

    def compute(self, task: Task, parts: Iterable[Part], stored: Stored) -> None:
        """Have parts computed by actors; from here what is paid for by the row, or loads nothing.

        Raises:
            PreceptorError: an actor cannot do it, or actors die before they finish anything.
        """
        if task.flush == "each" or not task.resource.memory:
            here(task, parts, stored)
            return
        ray = self._connection.ray
        task.partition.write_card()  # by which actors know the store
        try:
            shipped = ray.put(task)
        except TypeError as error:
            logger.warning("This process computes what cannot be sent to another: %s", error)
            here(task, parts, stored)
            return
        portions = portions_of(parts, self._connection.size)
        run = _Run(self._connection, task, shipped, stored, self._say)
        try:
            run(portions)
        except BaseException:
            for hand in list(self._connection.hands):
                self._connection.dismiss(hand)
            raise
        task.partition.compact()

    def _say(self, said: Said) -> None:
        """Say what actors warn of, once."""
        for one in said:
            if one not in self._told:
                self._told.add(one)
                name, level, words = one
                logging.getLogger(name).log(level, "%s", words)


class _Run:
    """One task on its way through the actors."""

    def __init__(
        self, connection: Connection, task: Task, shipped: Any, stored: Stored, say: Any
    ) -> None:
        self._connection, self._task, self._shipped = connection, task, shipped
        self._stored, self._say = stored, say
        self._waiting: deque[Portion] = deque()
        self._busy: dict[Any, tuple[Hand, Portion | None]] = {}
        self._idle: list[Hand] = []
        self._keys: set[bytes] = set()
        self._known: set[bytes] = set()
        self._seen: set[str] = set()
        self._deaths = 0  # since anything was stored
        self._proved = False

    def __call__(self, portions: list[Portion]) -> None:
        """Have all portions computed."""
        self._waiting.extend(portions)
        self._keys = {self._task.key(row) for one in portions for row in one.responses}
        for hand in list(self._connection.hands):
            self._begin(hand)
        while needed := len(self._waiting) + sum(one is not None for _, one in self._busy.values()):
            while len(self._connection.hands) < min(self._connection.size, needed):
                self._begin(self._connection.hire())
            while self._idle and self._waiting:
                hand, portion = self._idle.pop(), self._waiting.popleft()
                self._busy[hand.actor.compute.remote(portion.part)] = hand, portion
            done, _ = self._connection.ray.wait(list(self._busy), num_returns=1)
            for reference in done:
                self._take(reference, *self._busy.pop(reference))

    def _begin(self, hand: Hand) -> None:
        self._busy[hand.actor.begin.remote(self._shipped)] = hand, None

    def _take(self, reference: Any, hand: Hand, portion: Portion | None) -> None:
        """Take what an actor returns, or take over what it has left."""
        errors = self._connection.ray.exceptions
        try:
            result = self._connection.ray.get(reference)
        except errors.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, PreceptorError):
                raise cause from None
            self._replace(hand, portion, error)
            return
        self._idle.append(hand)
        if portion is None:
            hand.node = result
            return
        self._proved, self._deaths = True, 0
        self._say(result.said)
        keys = [self._task.key(response) for response in portion.responses]
        self._stored([key for key in keys if key not in result.left_out], result.tokens)

    def _replace(self, hand: Hand, portion: Portion | None, error: Exception) -> None:
        """Have another actor in the place of one that died or can do nothing any more."""
        blamed = self._connection.is_alive(hand.node)
        self._connection.dismiss(hand)
        self._deaths += 1
        if portion is not None:
            self._take_over(portion, blamed=blamed)
        size = self._connection.size
        if self._deaths >= (MOST_DEATHS * (size + 2) if self._proved else max(MOST_DEATHS, size)):
            raise ModelError(
                f"{self._deaths} workers died one after another, and none has finished anything: {error}"
            ) from error
        self._begin(self._connection.hire())

    def _take_over(self, portion: Portion, *, blamed: bool) -> None:
        """Put what an actor that died has not stored back to what waits."""
        found = self._task.finished(self._seen).tolist()
        self._known.update(self._keys.intersection(found))
        key = self._task.key
        gone = [one for row in portion.responses if (one := key(row)) in self._known]
        if gone:
            self._proved, self._deaths = True, 0
        self._stored(gone, 0)
        for piece in portion.after_death(self._known, key, blamed=blamed):
            if piece.is_lost and self._proved:
                self._give_up(key(piece.responses[0]))
            else:
                self._waiting.append(piece)

    def _give_up(self, key: bytes) -> None:
        """Note that a response has no row and will have none."""
        note = NoteKind.KILLED.note("three times")
        self._task.partition.append([Score(key, {}, note)])
        self._deaths = 0
        self._stored([key], 0)
