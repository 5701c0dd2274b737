"""Run the cases of a room in a child process that may hang, fill the memory or crash, and count what comes.

A room is a class with `case(chance, number)`: it makes one hostile thing and gives it to Preceptor.
`Wrong` is what nothing should do: lose a row, or read another value than stands there.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Protocol

from preceptor.errors import PreceptorError

_LOOK_S = 0.1
_START_S = 120.0
_SHOWN_FAULTS = 30


class Wrong(Exception):
    """Something was read that is not there, or lost."""


class Room(Protocol):
    """One kind of hostile thing; `count` is how many make the full size."""

    count: int

    def __init__(self, folder: Path) -> None: ...

    def case(self, chance: Random, number: int) -> str:
        """Try one; return what it was in a few words. Wrong, or anything but a PreceptorError, is a fault."""
        ...


@dataclass(frozen=True)
class Bounds:
    """What one case may take."""

    seconds: float = 60.0
    megabytes: float = 4096.0


@dataclass
class Counts:
    """What came of the cases of a room; `faults` are the first thirty, each with its number."""

    cases: int = 0
    passed: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, object]] = field(default_factory=list)
    slowest_s: float = 0.0
    most_megabytes: float = 0.0
    seconds: float = 0.0

    def add(self, number: int, came: str, said: str, seconds: float, megabytes: float) -> None:
        """Count one case."""
        self.cases += 1
        self.slowest_s, self.most_megabytes = (
            max(self.slowest_s, seconds),
            max(self.most_megabytes, megabytes),
        )
        if came == "passed":
            self.passed += 1
        elif came == "refused":
            self.refused += 1
        else:
            self.faults[came] += 1
            if len(self.first) < _SHOWN_FAULTS:
                self.first.append({"number": number, "came": came, "said": said})


def chance_of(room: str, seed: int, number: int) -> Random:
    """Return the chance of one case, which depends on nothing that was run before it."""
    return Random(f"{room} {seed} {number}")


def tried(room: Room, chance: Random, number: int) -> tuple[str, str]:
    """Return what came of one case, and what there is to say of a fault."""
    try:
        room.case(chance, number)
        return "passed", ""
    except PreceptorError as error:
        return ("refused", "") if str(error).strip() else ("traceback", "an error without words")
    except Wrong as error:
        return "wrong", str(error)
    except Exception:
        return "traceback", traceback.format_exc(limit=-6)[-3000:]


def campaign(name: str, kind: type[Room], numbers: range, *, seed: int, bounds: Bounds) -> Counts:
    """Run these cases, each at most once; after a hang or a crash a new process goes on with the next."""
    counts, began = Counts(), time.monotonic()
    while numbers:
        for number, came, said, seconds, megabytes in _watched(name, kind, numbers, seed, bounds):
            counts.add(number, came, said, seconds, megabytes)
            numbers = range(number + 1, numbers.stop)
    counts.seconds = round(time.monotonic() - began, 1)
    return counts


def _watched(
    name: str, kind: type[Room], numbers: range, seed: int, bounds: Bounds
) -> Iterator[tuple[int, str, str, float, float]]:
    """Yield what came of each case until one ends the process."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, name, kind, numbers, seed), daemon=True
    )
    child.start()
    theirs.close()
    number, began = numbers.start, time.monotonic() + _START_S
    try:
        while True:
            if ours.poll(_LOOK_S):
                match ours.recv():
                    case int(started):
                        number, began = started, time.monotonic()
                    case None:
                        return
                    case came, said, megabytes:
                        yield number, came, said, time.monotonic() - began, megabytes
                continue
            size, taken = _megabytes(child.pid or 0), time.monotonic() - began
            if size > bounds.megabytes or taken > bounds.seconds:
                came = "over memory" if size > bounds.megabytes else "hang"
                yield number, came, f"{size:.0f} MB, {taken:.0f} s", taken, size
                return
    except EOFError:
        child.join()
        yield number, "died", f"exit code {child.exitcode}", time.monotonic() - began, 0.0
    finally:
        child.kill()
        child.join()


def _serve(pipe: Connection, name: str, kind: type[Room], numbers: range, seed: int) -> None:
    """Run cases, saying before each which it is and after it what came."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgrp()
    quiet()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        room = kind(folder)
        for number in numbers:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            pipe.send(number)
            came = tried(room, chance_of(name, seed, number), number)
            pipe.send((*came, _megabytes(os.getpid(), "VmHWM:")))
        pipe.send(None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def quiet() -> None:
    """Say nothing of what is found wrong in thousands of files."""
    logging.getLogger("preceptor").setLevel(logging.CRITICAL)


def _megabytes(process: int, line: str = "VmRSS:") -> float:
    with suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition(line)[2].split()[0]) / 1024
    return 0.0


def summary(counts: Counts) -> dict[str, Any]:
    """Return the counts as JSON."""
    return {
        "cases": counts.cases,
        "passed": counts.passed,
        "refused": counts.refused,
        **{
            came: counts.faults[came]
            for came in ("traceback", "wrong", "hang", "over memory", "died")
        },
        "slowest_s": round(counts.slowest_s, 2),
        "most_megabytes": round(counts.most_megabytes),
        "seconds": counts.seconds,
        "faults": counts.first,
    }
