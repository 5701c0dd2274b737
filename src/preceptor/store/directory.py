"""One folder of a store, on this machine or behind any fsspec URL, with errors that say what to do.

A file appears whole or not at all, and whatever the file system raises becomes a `StoreError`
with advice. Nothing here knows what the files hold, but for the card that names a partition.
"""

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from preceptor.errors import StoreError
from preceptor.store.files import abandoned, write_at_once, write_atomically

_LOGGER = logging.getLogger(__name__)


class _Root:
    """The folder of a whole store, known by its inode from the first time that it is seen.

    A store that is moved away under a running process would look empty: everything in it would be paid for
    again, at a place where nobody looks.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def require_same(self) -> None:
        """Refuse to go on where the folder has gone or is another one.

        Raises:
            StoreError: it was moved, deleted or replaced since it was first seen.
        """
        if self._path is None:
            return
        with suppress(OSError):
            status = self._path.stat()
            found = (status.st_dev, status.st_ino)
            self._seen = self._seen or found
            if found == self._seen:
                return
        if self._seen is not None:
            raise StoreError(
                f"The store '{self._path}' was moved, deleted or replaced while it was in use. Put it back, "
                "or run again with --store at its new place; rows stored before are safe there."
            )


class Folder:
    """One folder of a local or remote file system, with errors that say what to do."""

    def __init__(self, files: Any, path: str, root: "_Root | None" = None) -> None:
        self.local = isinstance(files, LocalFileSystem)
        self._files = files
        self.path = path.rstrip("/")
        self._root = root or _Root(Path(self.path) if self.local else None)

    def child(self, *names: str) -> "Folder":
        """Return the folder below this one."""
        return Folder(self._files, "/".join([self.path, *names]), self._root)

    def place(self) -> Path | None:
        """Return where a local folder is; None for a remote one."""
        self._root.require_same()
        return Path(self.path) if self.local else None

    def open(self, name: str) -> Any:
        """Return a file of the folder, open for reading bytes."""
        return self._files.open(f"{self.path}/{name}", "rb")

    @contextmanager
    def explained(self, action: str, name: str = "") -> Iterator[None]:
        """Turn what the file system raises into a StoreError."""
        try:
            yield
        except Exception as error:
            # Remote back ends raise errors of their own packages, such as missing credentials.
            if self.local and not isinstance(error, OSError):
                raise
            what = advice(getattr(error, "errno", None))
            raise StoreError(f"Cannot {action} {self.path}/{name}: {error}. {what}") from error

    def names(self) -> list[str]:
        """Return the names in the folder, sorted; none where it does not exist."""
        self._root.require_same()
        with self.explained("list"):
            self._files.invalidate_cache(self.path)
            try:
                paths = self._files.ls(self.path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def size(self, name: str) -> int:
        """Return the file's bytes; 0 where it is gone."""
        with self.explained("read", name), suppress(FileNotFoundError):
            return int(self._files.size(f"{self.path}/{name}"))
        return 0

    def put(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make the file appear whole or not at all, and `durable` against a loss of power."""
        self._root.require_same()
        with self.explained("write", name):
            if self.local:
                (write_atomically if durable else write_at_once)(Path(self.path, name), data)
            else:
                self._files.pipe_file(f"{self.path}/{name}", data)

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens where it is gone."""
        with self.explained("delete", name), suppress(FileNotFoundError):
            self._files.rm_file(f"{self.path}/{name}")

    def rename(self, name: str, to: str) -> None:
        """Give the file another name; nothing happens where it is gone."""
        with self.explained("rename", name), suppress(FileNotFoundError):
            self._files.mv(f"{self.path}/{name}", f"{self.path}/{to}")

    def delete_folder(self) -> None:
        """Remove the folder where it is empty; a remote one has no existence of its own."""
        if self.local:
            with suppress(OSError):
                Path(self.path).rmdir()

    def sweep(self) -> None:
        """Remove temporary files that belong to no living writer; only local ones exist."""
        if not self.local:
            return
        with self.explained("list"):
            left = abandoned(Path(self.path))
        for path in left:
            self.delete(path.name)


def advice(number: int | None) -> str:
    """Say what to do about an error of the operating system."""
    match number:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free space or choose another place with --store; rows stored before are safe."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "Change its permissions or choose a place you may write to with --store."
        case errno.ENOTDIR | errno.EEXIST:
            return "Expected a folder: move the file away or choose another place with --store."
    return "Check the disk or the connection and run again; rows stored before are safe."


def read_card(folder: Folder) -> dict[str, Any] | None:
    """Return the folder's `identity.json`; None where absent or (warned of) damaged."""
    with folder.explained("read", "identity.json"):
        try:
            with folder.open("identity.json") as handle:
                card: dict[str, Any] = json.loads(handle.read())
            if isinstance(card["spec"], dict):
                return card
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (
            ValueError,
            TypeError,
            KeyError,
            RecursionError,
        ):  # damaged, or JSON of another shape
            pass
    _LOGGER.warning("%s/identity.json is damaged; the next append writes it again", folder.path)
    return None
