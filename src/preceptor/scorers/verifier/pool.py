"""Check answers in parallel, in worker processes of their own, each check in bounded time and memory.

Patterns, schemas and formulas come from data sets and models, and a library can be busy with one for ever:
a signal handler or a thread stops no long call, only the end of a process does. Time is the processor time
of the check itself, so that a busy machine changes no reward; a check that runs out of it is tried once more
when all others are done, in a fresh process and with more time and memory. One that was held up by the
machine all the same gives no verdict, so that another run tries it again.
"""

import json
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from preceptor.errors import DataError

CHECK_SECONDS = 5.0
"""Processor time that a check may take at first; when it is tried again it may take twice that."""

START_SECONDS = 120.0
"""The time a new process may take to import what a check needs, on a busy machine."""

_PATIENCE = 6 if hasattr(signal, "setitimer") else 1
"""How many times its processor time a check may take by the clock."""

_CHUNK = 64
"""The most checks that are handed over at once: their results come together."""

_CHUNKS_EACH = 4

_LOOK_SECONDS = 0.02
"""Between two looks at whether all threads have left."""


class Limit(NamedTuple):
    """What a check may take: `seconds` of processor time and `memory` in bytes of address space."""

    seconds: float
    memory: int


class Verdict(NamedTuple):
    """What came of a check: a reward, what is wrong with its reference, or why it cannot be done.

    All three are None where the machine held the check up: it says nothing, and is to be tried again.
    """

    reward: float | None = None
    refused: str | None = None
    failed: str | None = None


Checked = tuple[Mapping[str, object], str]
"""A reference and the text that is checked against it."""

_Part = tuple[list[tuple[int, Verdict]], list[int]]
"""Verdicts with the places of their checks, and the places of checks that ran out of time or memory."""


class _Ended(Exception):
    """The process ended before its answer; `own` says that the check itself did it."""

    def __init__(self, own: bool) -> None:
        self.own = own


def _at_first() -> Limit:
    return Limit(CHECK_SECONDS, 1 << 30)


def _again() -> Limit:
    return Limit(2 * CHECK_SECONDS, 4 << 30)


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the processor cores that this process may use, within its container's `quota`."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        # "200000 100000": microseconds of processor time in each so many; "max 100000" is no limit.
        allowed, period = map(int, quota.read_text(encoding="ascii").split())
        count = min(count, math.ceil(allowed / period))
    return max(1, count)


class CheckPool:
    """Worker processes that check texts against references; they start when first needed.

    Not multiprocessing: it runs the user's script again, or copies a process full of threads.
    """

    def __init__(self, processes: int | None = None) -> None:
        """Use this many processes, or one for each core."""
        self._workers = [_Worker() for _ in range(processes or cores())]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._finalizer = weakref.finalize(self, _close, self._workers, os.getpid())

    def check(self, checks: Sequence[Checked]) -> Iterator[list[tuple[int, Verdict]]]:
        """Yield the verdicts with the places of their checks, some at a time, in any order.

        Raises:
            DataError: The processes cannot start.
        """
        unfinished: list[int] = []
        for verdicts, ended in self._together(checks, range(len(checks)), again=False):
            unfinished += ended
            yield verdicts
        for verdicts, _ in self._together(checks, unfinished, again=True):
            yield verdicts

    def _together(
        self, checks: Sequence[Checked], places: Sequence[int], *, again: bool
    ) -> Iterator[_Part]:
        """Yield verdicts on these checks, and the places of those that ran out, from all workers at once."""
        if not places:
            return
        stop = threading.Event()
        # Libraries keep what they have seen, and may have filled a process: a second try has one to itself.
        most = 1 if again else _CHUNK
        size = max(1, min(most, len(places) // (_CHUNKS_EACH * len(self._workers))))
        futures: list[Future[_Part]] = []
        with ThreadPoolExecutor(len(self._workers)) as threads:
            try:
                for start in range(0, len(places), size):
                    part = places[start : start + size]
                    futures.append(threads.submit(self._chunk, checks, part, again, stop))
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                # An interrupt, or a caller who has left: nothing goes on behind them.
                stop.set()
                threads.shutdown(wait=False, cancel_futures=True)
                # More than once: a thread may just have been starting the next process.
                while not all(future.done() for future in futures):
                    self.close()
                    time.sleep(_LOOK_SECONDS)
                self.close()
                raise

    def close(self) -> None:
        """End the processes; they start again where they are needed again."""
        _close(self._workers, os.getpid())

    def _chunk(
        self, checks: Sequence[Checked], places: Sequence[int], again: bool, stop: threading.Event
    ) -> _Part:
        """Return the verdicts on these checks, and the places of those to be tried again."""
        verdicts: list[tuple[int, Verdict]] = []
        unfinished: list[int] = []
        waiting = list(places)
        worker = self._idle.get()
        limit = _again() if again else _at_first()
        if again:
            worker.stop()
        try:
            while waiting and not stop.is_set():
                try:
                    for verdict in worker.verdicts([checks[at] for at in waiting], limit):
                        verdicts.append((waiting.pop(0), verdict))
                except _Ended as ended:
                    place = waiting.pop(0)
                    if again:
                        verdicts.append((place, _given_up(limit) if ended.own else Verdict()))
                    else:
                        unfinished.append(place)
        finally:
            self._idle.put(worker)
        return verdicts, unfinished


def _given_up(limit: Limit) -> Verdict:
    bounds = f"{limit.seconds:g} s or {limit.memory >> 30} GiB of memory"
    return Verdict(failed=f"it takes more than {bounds}")


def _close(workers: Sequence["_Worker"], pid: int) -> None:
    # A fork that ends must leave the processes of its parent alone.
    if os.getpid() == pid:
        for worker in workers:
            worker.stop()


class _Worker:
    """One process that answers a job at a time, started at first use and after every end."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None

    def verdicts(self, checks: Sequence[Checked], limit: Limit) -> Iterator[Verdict]:
        """Yield the verdict on each check; `_Ended` at the first that has no end."""
        fresh = self._running is None or self._running.poll() is not None
        if fresh:
            self.stop()
        running = self._running = self._running or _start()
        try:
            _send(running, (limit, list(checks)))
            ready = _line_within(running, START_SECONDS)
            if not ready and not fresh:
                raise _Ended(own=False)
            if not ready:
                raise _not_started()
            for _ in checks:
                line = _line_within(running, _PATIENCE * limit.seconds)
                if not line:
                    raise _Ended(_by_itself(running))
                if not (answer := json.loads(line)):
                    raise _Ended(own=True)
                yield Verdict(**answer)
        except OSError:
            self.stop()
            raise _Ended(own=False) from None
        except BaseException:
            # Also when interrupted: an answer that is still to come would pass for that of the next check.
            self.stop()
            raise

    def stop(self) -> None:
        """End the process, if one runs."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()
            running.communicate()


def _by_itself(running: "subprocess.Popen[bytes]") -> bool:
    """Tell whether a process ended because of its check, and not because somebody ended it."""
    kill = -getattr(signal, "SIGKILL", 9)
    return running.wait() != kill or not hasattr(signal, "setitimer")


def _start() -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        # -P: modules that lie in the current folder must not be imported in place of installed ones.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "preceptor.scorers.verifier.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as error:
        raise _not_started(f" ({error.strerror})") from error


def _not_started(why: str = "") -> DataError:
    return DataError(
        f"The process that checks answers did not start{why}. Look for what keeps Python from running in "
        f"'{sys.executable}', or for a lack of memory or of processes."
    )


def _send(running: "subprocess.Popen[bytes]", job: object) -> None:
    assert running.stdin is not None
    pickle.dump(job, running.stdin)
    running.stdin.flush()


def _line_within(running: "subprocess.Popen[bytes]", seconds: float) -> bytes:
    """Return the next line, or nothing where the process ended or was killed for being late."""
    assert running.stdout is not None
    late = threading.Event()

    def cut_off() -> None:
        late.set()
        running.kill()

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        line = running.stdout.readline()
    finally:
        timer.cancel()
        timer.join()
    # A line that came just before the kill is not believed: the process is gone all the same.
    return b"" if late.is_set() else line
