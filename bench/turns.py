"""Let several processes take turns at the machine, with a matrix product between the turns.

The speed of a shared machine changes by half within a minute. Whoever works a minute later works on another
machine; in turns of some seconds all meet the same one, and so does the product that says what it can do.
"""

import functools
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

SECONDS_OF_TURN = 10.0
SECONDS_OF_PRODUCTS = 3.0


class Times(NamedTuple):
    """What one piece of work took, and the product's speeds meanwhile, in operations per second."""

    seconds: float
    processor: float
    products: list[float]


class Player:
    """A process that works only in its turns."""

    def __init__(self, play: Callable[..., None], *given: Any) -> None:
        """Start `play(connection, *given)`; it is stopped after its first message."""
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=play, args=(there, *given), daemon=True)
        self._process.start()
        there.close()
        self.first = self._hear()
        self._stop()

    def turn(self, seconds: float) -> Any:
        """Let the process work; return what it says, or None if the turn ends before it says anything."""
        self._signal(signal.SIGCONT)
        try:
            return self._hear() if self._here.poll(seconds) else None
        finally:
            self._stop()

    def ask(self) -> None:
        """Let the process do its work once more, in the turns to come."""
        self._here.send(None)

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()

    def _hear(self) -> Any:
        try:
            return self._here.recv()
        except EOFError:
            self._process.join()
            raise SystemExit(f"a measured process ended: {self._process.exitcode}") from None

    def _stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, what: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, what)


def serve(there: Connection, first: Any, work: Callable[[], Any]) -> None:
    """Tell `first`, then do the work as often as it is asked for, and tell how long it took the processor."""
    there.send(first)
    while True:
        there.recv()
        begin = time.process_time()
        result = work()
        there.send((result, time.process_time() - begin))


def play(players: dict[str, Player]) -> dict[str, tuple[Any, Times]]:
    """Let every player do its work once, in turns; return what each found and what it took."""
    seconds = dict.fromkeys(players, 0.0)
    products: dict[str, list[float]] = {name: [] for name in players}
    done: dict[str, tuple[Any, Times]] = {}
    for player in players.values():
        player.ask()
    while waiting := [name for name in players if name not in done]:
        speed = product_speed()
        for name in waiting:
            products[name].append(speed)
            begin = time.monotonic()
            said = players[name].turn(SECONDS_OF_TURN)
            seconds[name] += time.monotonic() - begin
            if said is not None:
                found, processor = said
                done[name] = found, Times(seconds[name], processor, products[name])
    return done


def end(players: Iterable[Player]) -> None:
    """End every process."""
    for player in players:
        player.end()


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
