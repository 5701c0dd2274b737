"""Run independent jobs side by side, one per core.

Two threads on one small operation wait for each other; two jobs with a thread each do not, and each keeps its
data in the cache of its core. PyTorch releases the interpreter while it computes.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Batch = TypeVar("Batch")


def side_by_side(
    run: Callable[[Job], tuple[Batch, Sequence[Job]]], jobs: Iterable[Job], workers: int
) -> Iterator[Batch]:
    """Yield the batch that `run` makes of every job, `workers` jobs at a time.

    `run` also returns the jobs that its own made possible; they go before all that wait. The order is that
    in which batches finish. An error of a worker is raised here once it is met; closing the generator early
    stops the workers after the job they are at.
    """
    import torch

    if workers == 1:
        yield from _one_by_one(run, jobs)
        return
    finished: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=workers)
    agenda = _Agenda(jobs)
    threads = torch.get_num_threads()

    def work() -> None:
        torch.set_num_threads(max(1, threads // workers))
        try:
            while (job := agenda.take()) is not None:
                batch, following = run(job)
                agenda.done(following)
                finished.put(batch)
                del job, batch, following  # what a job holds goes with it, not with the next
            finished.put(None)
        except BaseException as error:
            finished.put(error)

    pool = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    try:
        for thread in pool:
            thread.start()
        yield from _drain(finished, running=workers)
    finally:
        agenda.stop()
        _join(pool, finished)
        torch.set_num_threads(threads)


def _one_by_one(
    run: Callable[[Job], tuple[Batch, Sequence[Job]]], jobs: Iterable[Job]
) -> Iterator[Batch]:
    for job in jobs:
        waiting = deque([job])
        while waiting:
            batch, following = run(waiting.popleft())
            waiting.extendleft(reversed(following))
            yield batch


class _Agenda(Generic[Job]):
    """The jobs that wait, shared by workers; it ends when none waits and none that runs can add any."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.waiting = deque(jobs)
        self.running = 0
        self.stopped = False
        self.changed = threading.Condition()

    def take(self) -> Job | None:
        """Return a job once there is one, or None where there will be none."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or not self.running or self.stopped)
            if self.stopped or not self.waiting:
                return None
            self.running += 1
            return self.waiting.popleft()

    def done(self, following: Sequence[Job]) -> None:
        """Note that a job has ended, and what it made possible."""
        with self.changed:
            self.running -= 1
            self.waiting.extendleft(reversed(following))
            self.changed.notify_all()

    def stop(self) -> None:
        """Let the workers end after the jobs they are at."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def _drain(
    finished: "queue.Queue[Batch | BaseException | None]", *, running: int
) -> Iterator[Batch]:
    """Yield batches until every worker has ended; raise the first worker's error."""
    while running:
        item = finished.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            running -= 1
        else:
            yield item


def _join(pool: list[threading.Thread], finished: "queue.Queue[Any]") -> None:
    """Wait for the workers, taking what they still want to say so that none blocks."""
    for thread in pool:
        while thread.is_alive():
            try:
                finished.get(timeout=0.05)
            except queue.Empty:
                continue
