"""Run something in a process of its own, and stop it now and then to measure what the machine could do.

The speed of a shared machine changes by half within a minute, so that a limit measured before and after says
little of what was possible in between.
"""

import functools
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

SECONDS_BETWEEN = 10.0
SECONDS_OF_PRODUCTS = 3.0


class Pause(NamedTuple):
    """A time on the monotonic clock in which the process was stopped, and the product's speed in it."""

    begin: float
    end: float
    speed: float


def run(target: Callable[..., None], *given: Any) -> tuple[list[Any], list[Pause]]:
    """Call `target(connection, *given)` in a process of its own; return what it sends, and its pauses.

    A pause follows each message and every ten seconds without one.

    Raises:
        RuntimeError: the process failed; it has said why.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(there, *given))
    process.start()
    there.close()
    messages, pauses = [], []
    try:
        while True:
            if here.poll(SECONDS_BETWEEN):
                messages.append(here.recv())
            pauses.append(pause(process.pid or 0))
    except EOFError:
        process.join()
    finally:
        process.kill()
        here.close()
    if process.exitcode:
        raise RuntimeError(f"the measured process ended with status {process.exitcode}")
    return messages, pauses


def pause(process: int) -> Pause:
    """Stop the process for some products."""
    begin = time.monotonic()
    os.kill(process, signal.SIGSTOP)
    try:
        speed = product_speed()
    finally:
        os.kill(process, signal.SIGCONT)
    return Pause(begin, time.monotonic(), speed)


def product_speed(size: int = 4096) -> float:
    """Return the speed of a large float32 matrix product, in operations per second.

    It is the median over some seconds: the first product after a pause may run half as fast again, on a
    clock that no longer work keeps.
    """
    left, right, out = _matrices(size)
    begin, speeds = time.perf_counter(), []
    while time.perf_counter() - begin < SECONDS_OF_PRODUCTS:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        speeds.append(2.0 * size**3 / (time.perf_counter() - start))
    return statistics.median(speeds)


@functools.cache
def _matrices(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)


def paused(begin: float, end: float, pauses: list[Pause]) -> float:
    """Return how many of the seconds between two times were spent in pauses."""
    return sum(max(0.0, min(end, p.end) - max(begin, p.begin)) for p in pauses)


def speeds(begin: float, end: float, pauses: list[Pause]) -> list[float]:
    """Return the product's speeds between two times, or the one nearest to them."""
    middle = (begin + end) / 2
    nearest = min(pauses, key=lambda p: abs(p.begin - middle))
    return [p.speed for p in pauses if p.begin < end and p.end > begin] or [nearest.speed]
