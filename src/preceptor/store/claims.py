"""Claims on parts of a partition's rows, so that several processes do not pay for the same ones.

A claim is a file beside the shards whose name is the part's, made by a hard link: one process alone gets it,
also over NFS. All claims of a process are links to one file, which names the process and is touched while it
lives. A process of this machine that has died loses its claims at once, any other after `LIFE_S` without a
touch, by the clock of whoever waits. Where no links can be made, nobody claims and all work goes on.
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from preceptor.store.files import has_died, is_abandoned, make_folder, temporary_name

logger = logging.getLogger(__name__)

CLAIM = "claim-"
"""How the name of a claim begins."""

_LONGEST = 1000
_BEAT_S = 15.0
_LOOK_S = 0.5
LIFE_S = 120.0  # longer than a minute, for which NFS may show old times


class Holder(NamedTuple):
    """Who holds a claim: `owner` is the name of the process's temporary file."""

    owner: str
    host: str

    @property
    def process(self) -> str:
        """The number of the process on its host."""
        return (self.owner.split("-") + ["?"] * 3)[2]

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Claims:
    """The claims of this process in one folder; a context manager that gives them back.

    `folder` is None where none can be made: then every part is had.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._own: Path | None = None
        self._held: set[str] = set()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._lived: dict[str, float] = {}
        self._end = threading.Event()

    def __enter__(self) -> Self:
        if self._folder is None:
            return self
        try:
            make_folder(self._folder)
            own = self._folder / temporary_name()
            own.write_text(f"{own.name} {platform.node()}")
            self._own = own
        except OSError as error:  # what is stored there will say so, in words
            logger.debug("no claims in %s: %s", self._folder, error)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self.release()
        if self._own is not None and self._folder is not None:
            with suppress(OSError):
                self._own.unlink(missing_ok=True)
                self._folder.rmdir()  # only where nothing was stored

    def take(self, part: str) -> bool:
        """Claim a part; False where a living process holds it."""
        if self._own is None or part in self._held:
            return True
        path = self._path(part)
        try:
            try:
                os.link(self._own, path)
            except FileExistsError:
                if self.holder(part) is not None:
                    return False
                os.link(self._own, path)
        except FileExistsError:
            return path.is_dir()  # which is nobody's claim, and in the way of one
        except OSError as error:
            logger.debug("no claims in %s: %s", self._folder, error)
            return True
        self._held.add(part)
        return True

    def release(self, *parts: str) -> None:
        """Give back these parts, or all."""
        for part in parts or list(self._held):
            if part in self._held and self._own is not None:
                self._held.discard(part)
                with suppress(OSError):
                    if self._path(part).samefile(self._own):  # not if it stood still and lost it
                        self._path(part).unlink()

    def holder(self, part: str) -> Holder | None:
        """Return who holds a part; a claim that was abandoned is removed, and nobody holds it."""
        path = self._path(part)
        found = _read(path)
        if found is None:
            return None
        holder, status = found
        sign = (status.st_ino, status.st_mtime_ns)
        if self._seen.get(part, ((), 0.0))[0] != sign:
            self._seen[part] = (sign, time.monotonic())
        if self._has_died(holder.owner) or time.monotonic() - self._seen[part][1] > LIFE_S:
            _remove(path, status.st_ino)
            return None
        return holder

    def _has_died(self, owner: str) -> bool:
        """Look for a process, at most once in half a second: on a busy machine it takes milliseconds."""
        now = time.monotonic()
        if self._lived.get(owner, now - _LOOK_S) <= now - _LOOK_S:
            if has_died(owner):
                return True
            self._lived[owner] = now
        return False

    def _path(self, part: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{CLAIM}{part}"

    def _beat(self) -> None:
        while not self._end.wait(_BEAT_S):
            self._touch()

    def _touch(self) -> None:
        """Show that this process lives."""
        if self._own is not None:
            with suppress(OSError):
                os.utime(self._own)


def holders(folder: Path) -> set[Holder]:
    """Return the processes that hold claims in a folder, but for those known to be dead."""
    found = (_read(path) for path in _claims(folder))
    return {one[0] for one in found if one is not None and not has_died(one[0].owner)}


def sweep_claims(folder: Path) -> None:
    """Remove the claims of processes that live no longer."""
    found = [(path, *held) for path in _claims(folder) if (held := _read(path)) is not None]
    newest = max((status.st_mtime for _, _, status in found), default=0.0)
    for path, holder, status in found:
        if is_abandoned(holder.owner, age=newest - status.st_mtime):
            _remove(path, status.st_ino)


def _claims(folder: Path) -> Iterator[Path]:
    return folder.glob(f"{CLAIM}*") if folder.is_dir() else iter(())


def _read(path: Path) -> tuple[Holder, os.stat_result] | None:
    """Return who made a claim, and its file's state; None where it is gone or none."""
    try:
        status = path.stat()
        with path.open(errors="replace") as file:
            owner, _, host = file.read(_LONGEST).partition(" ")
    except OSError:
        return None
    return Holder(owner, host), status


def _remove(path: Path, inode: int) -> None:
    """Remove a claim, unless it is no longer the file with this number."""
    aside = path.with_name(temporary_name())
    with suppress(OSError):
        path.rename(aside)  # one process alone succeeds
        if aside.stat().st_ino != inode:  # another took the part over meanwhile: it is theirs
            os.link(aside, path)
        aside.unlink()
