"""Claims on parts of a remote partition's rows: objects that are put only where there are none.

Each names its process, which shows that it lives by an object of its own, written again and again. A process
of this machine that has died loses its claims at once, any other when that object has not changed for as long
as a local claim may stand still, by the clock of whoever waits. Where a service puts over what is there,
nobody claims and all work goes on.
"""

import logging
import platform
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from preceptor.errors import StoreError
from preceptor.store.claims import CLAIM, LIFE_S, Claims, Holder
from preceptor.store.files import TEMPORARY, has_died, temporary_name

if TYPE_CHECKING:
    from preceptor.store.remote import RemoteFolder

_LOGGER = logging.getLogger(__name__)
_LOOK_S = 2.0
_DAY_S = 86_400.0


class RemoteClaims(Claims):
    """The claims of this process in one remote folder; a context manager that gives them back."""

    def __init__(self, folder: "RemoteFolder") -> None:
        super().__init__(None)
        self._there = folder
        self._name = temporary_name()
        self._beats = 0
        self._claims = False
        self._changed: dict[str, tuple[bytes | None, float, float]] = {}

    def __enter__(self) -> Self:
        try:
            self._claims = self._there.excludes()
            if self._claims:
                self._touch()
        except StoreError as error:  # what is stored there will say so, in words
            self._claims = False
            _LOGGER.debug("no claims in %s: %s", self._there.path, error)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self.release()
        if self._claims:
            with suppress(StoreError):
                self._there.delete(self._name)

    def _touch(self) -> None:
        if self._claims:
            self._beats += 1
            with suppress(StoreError):
                self._there.put(self._name, f"{self._beats} {platform.node()}".encode())

    def take(self, part: str) -> bool:
        """Claim a part; False where a living process holds it."""
        if not self._claims or part in self._held:
            return True
        for _ in range(2):
            if self._there.create(CLAIM + part, f"{self._name} {platform.node()}".encode()):
                self._held.add(part)
                return True
            if self.holder(part) is not None:
                return False
        return False

    def release(self, *parts: str) -> None:
        """Give back these parts, or all."""
        held = [part for part in parts or list(self._held) if part in self._held]
        self._held.difference_update(held)
        with suppress(StoreError):
            self._there.delete(*(CLAIM + part for part in held))

    def holder(self, part: str) -> Holder | None:
        """Return who holds a part; a claim that was abandoned is removed, and nobody holds it."""
        text = _read(self._there, CLAIM + part)
        if text is None:
            return None
        owner, _, host = text.decode(errors="replace").partition(" ")
        if self._is_gone(owner):
            self._there.delete(CLAIM + part)
            return None
        return Holder(owner, host)

    def _is_gone(self, owner: str) -> bool:
        if has_died(owner):
            return True
        now = time.monotonic()
        beat, changed, looked = self._changed.get(owner, (b"", now, now - _LOOK_S))
        if now - looked >= _LOOK_S:
            found = _read(self._there, owner)
            changed = changed if found == beat else now
            beat = found
            self._changed[owner] = (beat, changed, now)
        return beat is None or now - changed > LIFE_S


def writers(folder: "RemoteFolder") -> set[Holder]:
    """Return who wrote its sign of life in the last minutes; the folder has just been listed."""
    found = set()
    for name in folder.names():
        if (
            name.startswith(TEMPORARY)
            and not has_died(name)
            and folder.age(name, time.time()) < LIFE_S
        ):
            _, _, host = (_read(folder, name) or b"").decode(errors="replace").partition(" ")
            found.add(Holder(name, host))
    return found


def sweep_claims(folder: "RemoteFolder", names: Sequence[str]) -> None:
    """Remove claims and signs of life of processes that live no longer; the folder has just been listed."""
    now = time.time()
    living = {name for name in names if name.startswith(TEMPORARY)}
    dead = {name for name in living if has_died(name) or folder.age(name, now) > _DAY_S}
    old = [name for name in names if name.startswith(CLAIM) and folder.age(name, now) > _DAY_S]
    owners = {name: (_read(folder, name) or b"").decode(errors="replace") for name in old}
    left = [name for name, text in owners.items() if text.split(" ")[0] not in living - dead]
    folder.delete(*dead, *left)


def _read(folder: "RemoteFolder", name: str) -> bytes | None:
    with folder.explained("read", name), suppress(FileNotFoundError), folder.open(name) as handle:
        data: bytes = handle.read(1000)
        return data
    return None
