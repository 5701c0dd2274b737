"""When a chat client's requests may go out: an even pace, and the pauses that a server asks for."""

import asyncio
import threading
import time

import numpy as np

from preceptor.engines.base import Failure


class Gate:
    """Lets a client's requests out at an even pace, and none during a pause that the server asked for.

    One client may be used by several threads, each with a loop of its own: what they share is this.
    """

    def __init__(self, per_minute: float | None, *, spread: float) -> None:
        """Space requests for so many `per_minute`; after a pause they go within `spread` seconds."""
        self._spread = spread
        self._spacing = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._opens = 0.0
        self._why = Failure("rate limited", "")
        self._lock = threading.Lock()

    def close(self, seconds: float, why: Failure) -> None:
        """Let nothing out for so long, because of this failure."""
        with self._lock:
            opens = time.monotonic() + seconds
            if opens > self._opens:
                self._opens, self._why = opens, why

    async def passage(self, end: float, line: asyncio.Lock) -> float | Failure:
        """Wait until a request may go out; return how long it stood in line for the pace.

        The failure that closed the gate where it stays closed beyond `end`.
        """
        stood = 0.0
        while True:
            closed = self._opens - time.monotonic()
            if closed > 0:
                if self._opens >= end + stood:
                    return self._why
                await asyncio.sleep(closed + jitter(self._spread))
                continue
            if not self._spacing:
                return stood
            came = time.monotonic()
            # Only the first in line has a time to go: whoever ends early leaves no gap behind.
            async with line:
                await asyncio.sleep(self._until_next())
            stood += time.monotonic() - came
            if time.monotonic() >= self._opens:
                return stood

    def _until_next(self) -> float:
        """Take the next time to go, and return the seconds until then; none while it is closed."""
        with self._lock:
            now = time.monotonic()
            if now < self._opens:
                return 0.0
            goes = max(now, self._next)
            self._next = goes + self._spacing
            return goes - now


def jitter(longest: float) -> float:
    """Return seconds below `longest`, by chance without a seed: processes must not knock in step."""
    return float(np.random.default_rng().uniform(0.0, longest))
