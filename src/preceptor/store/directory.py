"""One folder of a store on this machine, with errors that say what to do; `remote` has the other kind.

A file appears whole or not at all, and whatever the file system raises becomes a `StoreError`
with advice. Nothing here knows what the files hold, but for the card that names a partition.
"""

import errno
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from preceptor.errors import PreceptorError, StoreError
from preceptor.store.files import abandoned, write_at_once, write_atomically

if TYPE_CHECKING:
    from preceptor.store.claims import Claims, Holder

_LOGGER = logging.getLogger(__name__)


class Root:
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
    """One folder of a file system, with errors that say what to do."""

    local = True

    def __init__(self, files: Any, path: str, root: "Root | None" = None) -> None:
        self._files = files
        self.path = path.rstrip("/")
        self._root = root or Root(Path(self.path) if self.local else None)

    def child(self, *names: str) -> Self:
        """Return the folder below this one."""
        return type(self)(self._files, "/".join([self.path, *names]), self._root)

    def open(self, name: str) -> Any:
        """Return a file of the folder, open for reading bytes."""
        return self._files.open(f"{self.path}/{name}", "rb")

    @contextmanager
    def explained(self, action: str, name: str = "") -> Iterator[None]:
        """Turn what the file system raises into a StoreError."""
        try:
            yield
        except PreceptorError:
            raise
        except OSError as error:
            what = advice(error.errno)
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

    def ahead(self, names: Iterable[str]) -> Iterator[str]:
        """Yield names of files that are opened next."""
        return iter(names)

    def size(self, name: str) -> int:
        """Return the file's bytes; 0 where it is gone."""
        with self.explained("read", name), suppress(FileNotFoundError):
            return int(self._files.size(f"{self.path}/{name}"))
        return 0

    def put(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make the file appear whole or not at all, and `durable` against a loss of power."""
        self._root.require_same()
        with self.explained("write", name):
            (write_atomically if durable else write_at_once)(Path(self.path, name), data)

    def keep(self, name: str, data: bytes) -> None:
        """Put a file that stays for long, which a listing may find more cheaply."""
        self.put(name, data)

    def delete(self, *names: str) -> None:
        """Remove files; nothing happens where one is gone."""
        for name in names:
            with self.explained("delete", name), suppress(FileNotFoundError):
                self._files.rm_file(f"{self.path}/{name}")

    def rename(self, name: str, to: str) -> None:
        """Give the file another name; nothing happens where it is gone."""
        with self.explained("rename", name), suppress(FileNotFoundError):
            self._files.mv(f"{self.path}/{name}", f"{self.path}/{to}")

    def delete_folder(self) -> None:
        """Remove the folder where it is empty."""
        with suppress(OSError):
            Path(self.path).rmdir()

    def claims(self) -> "Claims":
        """Return the claims that this process can make on parts of what is missing here."""
        from preceptor.store.claims import Claims

        self._root.require_same()
        return Claims(Path(self.path))

    def holders(self) -> "set[Holder]":
        """Return the processes that hold claims here."""
        from preceptor.store.claims import holders

        self._root.require_same()
        return holders(Path(self.path))

    def sweep(self) -> None:
        """Remove what processes left that live no longer."""
        from preceptor.store.claims import sweep_claims

        with self.explained("list"):
            left = abandoned(Path(self.path))
        self.delete(*(path.name for path in left))
        self._root.require_same()
        sweep_claims(Path(self.path))


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
