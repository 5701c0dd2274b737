"""Run independent jobs side by side, one per core.

Two threads on one small operation wait for each other; two jobs with a thread each do not, and each keeps its
data in the cache of its core. PyTorch releases the interpreter while it computes.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Job = TypeVar("Job")
Batch = TypeVar("Batch")


def side_by_side(
    run: Callable[[Job], Iterator[Batch]], jobs: Iterator[Job], workers: int
) -> Iterator[Batch]:
    """Yield the batches that `run` makes of every job, `workers` jobs at a time.

    The order is that in which batches finish. An error of a worker is raised here once it is met; closing
    the generator early stops the workers after the batch they are at.
    """
    import torch

    if workers == 1:
        for job in jobs:
            yield from run(job)
        return
    finished: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=workers)
    lock, stop = threading.Lock(), threading.Event()
    threads = torch.get_num_threads()

    def work() -> None:
        torch.set_num_threads(max(1, threads // workers))
        try:
            while not stop.is_set():
                with lock:
                    job = next(jobs, None)
                if job is None:
                    break
                for batch in run(job):
                    finished.put(batch)
                    if stop.is_set():
                        break
            finished.put(None)
        except BaseException as error:
            finished.put(error)

    pool = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in pool:
        thread.start()
    try:
        yield from _drain(finished, running=workers)
    finally:
        stop.set()
        _join(pool, finished)
        torch.set_num_threads(threads)


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
