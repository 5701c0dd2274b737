"""One folder of a store behind an fsspec URL: objects that appear whole, a manifest, a cache on this machine.

Shards are appended beside `identity.json`. What a compaction merges lies below `kept/`, and
`manifest-<number>.json` names it. So a look at a partition is one listing of what no compaction took yet, and
one manifest, which is read only when there is a newer one, however many shards are kept. The next manifest
is made only where none of its number is, which the service has to see to (`If-None-Match` on S3): of two that
make it, one fails, reads the other's and makes the one after. Where a service does not, none is made.
"""

import io
import json
import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem

from preceptor.config.secrets import without_secrets
from preceptor.errors import PreceptorError, StoreError
from preceptor.store.claims import Claims, Holder
from preceptor.store.directory import Folder, Root
from preceptor.store.files import is_abandoned
from preceptor.store.remote_claims import RemoteClaims, sweep_claims, writers
from preceptor.store.shard_cache import ShardCache

_LOGGER = logging.getLogger(__name__)
_KEPT, _MANIFEST, _ENDING = "kept", "manifest-", ".json"
_NONE_YET = f"{_MANIFEST}{0:08d}{_ENDING}"
_AHEAD_BYTES, _AHEAD = 64 * 2**20, 64
_SMALL_BYTES = 8 * 2**20
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
"""How file systems call the time of an object."""


class RemoteFolder(Folder):
    """A folder of an object store, or of anything else that fsspec reaches."""

    local = False

    def __init__(self, files: Any, path: str, root: Root | None = None) -> None:
        super().__init__(files, path, root)
        self._cache = ShardCache()
        self._listing: dict[str, Mapping[str, Any]] = {}
        self._manifest, self._kept = "", dict[str, int]()
        self._excludes: bool | None = None

    @contextmanager
    def explained(self, action: str, name: str = "") -> Iterator[None]:
        """Turn what the file system raises, maybe an error of its own package, into a StoreError."""
        try:
            yield
        except PreceptorError:
            raise
        except Exception as error:
            said = without_secrets(str(error) or type(error).__name__)
            raise StoreError(
                f"Cannot {action} {self.path}/{name}: {said}. Check the address, the connection, and the "
                "credentials, which come from the environment or the provider's own files, and run again; "
                "rows stored before are safe."
            ) from error

    def names(self) -> list[str]:
        """Return the names in the folder, sorted: what is listed, and what the newest manifest keeps."""
        with self.explained("list"):
            while True:
                self._listing = self._listed(self.path)
                with suppress(FileNotFoundError):  # two newer ones were made since it was listed
                    self._read_manifest(max(filter(_is_manifest, self._listing), default=""))
                    break
        beside = {name for name in self._listing if name != _KEPT and not _is_manifest(name)}
        return sorted(beside | self._kept.keys())

    def _listed(self, path: str) -> dict[str, Mapping[str, Any]]:
        self._files.invalidate_cache(path)
        try:
            entries = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}

    def _read_manifest(self, name: str) -> None:
        if name == self._manifest:
            return
        if not name:
            self._manifest, self._kept = "", {}
            return
        try:
            content = json.loads(self._got(name))["shards"]
            self._kept = {str(shard): int(size) for shard, size in content.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            _LOGGER.warning("%s/%s is damaged: every kept shard is read", self.path, name)
            found = self._listed(f"{self.path}/{_KEPT}")
            self._kept = {shard: int(entry["size"] or 0) for shard, entry in found.items()}
        self._manifest = name

    def ahead(self, names: Iterable[str]) -> Iterator[str]:
        """Yield names of files that are opened next, after several were downloaded at once."""
        window: list[str] = []
        total = 0
        for name in names:
            window.append(name)
            total += self.size(name)
            if total > _AHEAD_BYTES or len(window) == _AHEAD:
                self._fetch(window)
                yield from window
                window, total = [], 0
        self._fetch(window)
        yield from window

    def _fetch(self, names: list[str]) -> None:
        """Download what is not on this machine; what fails is tried again, and told of, when it is opened."""
        lacking = []
        for name in names:
            handle = self._cache.open(name)
            if handle is None:
                lacking.append(name)
            else:
                handle.close()
        if len(lacking) > 1:
            paths = [self._place_of(name) for name in lacking]
            with self.explained("read"):
                found = self._files.cat(paths, on_error="return", start=0)
            for name, path in zip(lacking, paths, strict=True):
                if isinstance(data := found.get(path), bytes):
                    self._cache.put(name, data)

    def open(self, name: str) -> Any:
        """Return a file, open for reading bytes; a shard from this machine where it is here."""
        handle = self._cache.open(name)
        if handle is not None:
            return handle
        data = self._got(name)
        self._cache.put(name, data)
        return io.BytesIO(data)

    def _got(self, name: str) -> bytes:
        """Download a file; where it is known to be small, without asking for its size first."""
        known = {"start": 0} if 0 < self.size(name) < _SMALL_BYTES else {}
        data: bytes = self._files.cat_file(self._place_of(name), **known)
        return data

    def _place_of(self, name: str) -> str:
        return "/".join([self.path, *([_KEPT] if name in self._kept else []), name])

    def size(self, name: str) -> int:
        """Return the file's bytes as last listed; 0 where it was gone."""
        listed = self._listing.get(name)
        return self._kept.get(name, 0) if listed is None else int(listed["size"] or 0)

    def put(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make the file appear whole or not at all; it is always durable."""
        with self.explained("write", name):
            self._files.pipe_file(f"{self.path}/{name}", data)
        self._cache.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Put a file where there is none; False where another stands there.

        A request that was sent again may find its own file: so what is there is read.
        """
        path = f"{self.path}/{name}"
        with self.explained("write", name):
            try:
                self._files.pipe_file(path, data, mode="create")
            except OSError as error:
                try:
                    return bool(self._files.cat_file(path) == data)
                except FileNotFoundError:
                    raise error from None
        return True

    def excludes(self) -> bool:
        """Tell whether the service refuses to put a file where one is; it is tried once."""
        if self._excludes is None:
            self.names()
            self._excludes = _number(self._manifest) > 0 or self._tried()
        return self._excludes

    def _tried(self) -> bool:
        kind = type(self._files)
        # fsspec's own way looks first and puts then, between which another may put.
        if not hasattr(kind, "_pipe_file") and kind.pipe_file is AbstractFileSystem.pipe_file:
            return False
        path, nothing = f"{self.path}/{_NONE_YET}", b'{"shards": {}}'
        with self.explained("write", _NONE_YET):
            with suppress(FileExistsError):
                self._files.pipe_file(path, nothing, mode="create")
            try:
                self._files.pipe_file(path, nothing, mode="create")
            except OSError:
                return bool(self._files.cat_file(path) == nothing)
        self._files.rm_file(path)
        return False

    def keep(self, name: str, data: bytes) -> None:
        """Put what a compaction merged, and name it in the manifest."""
        if not self.excludes():
            return self.put(name, data)
        with self.explained("write", name):
            self._files.pipe_file(f"{self.path}/{_KEPT}/{name}", data)
        self._cache.put(name, data)
        self._change({name: len(data)}, ())

    def _change(self, added: Mapping[str, int], dropped: Collection[str]) -> None:
        """Make the next manifest of the newest one, whoever else makes one meanwhile."""
        while True:
            self.names()
            kept = {name: size for name, size in self._kept.items() if name not in dropped}
            kept |= added
            number = _number(self._manifest) + 1
            name = f"{_MANIFEST}{number:08d}{_ENDING}"
            content = {"shards": kept, "made": uuid.uuid4().hex}
            if self.create(name, json.dumps(content).encode()):
                break
        # The one before stays for readers that have just listed it.
        self._remove(
            f"{self.path}/{old}"
            for old in self._listing
            if _is_manifest(old) and _number(old) < number - 1
        )
        self._manifest, self._kept = name, kept

    def delete(self, *names: str) -> None:
        """Remove files; nothing happens where one is gone."""
        kept = self._kept.keys() & set(names)
        paths = [self._place_of(name) for name in names]
        if kept:
            self._change({}, kept)
        self._remove(paths)
        self._cache.drop(*names)

    def _remove(self, paths: Iterable[str]) -> None:
        gone = list(paths)
        with self.explained("delete", f"{len(gone)} objects"):
            try:
                if gone:
                    self._files.rm(gone)  # one request for a thousand, where the service has it
            except FileNotFoundError:
                for path in gone:
                    with suppress(FileNotFoundError):
                        self._files.rm_file(path)

    def rename(self, name: str, to: str) -> None:
        """Give the file another name; nothing happens where it is gone."""
        with self.explained("rename", name), suppress(FileNotFoundError):
            self._files.copy(self._place_of(name), f"{self.path}/{to}")
            self.delete(name)

    def delete_folder(self) -> None:
        """Remove all that is left, such as manifests."""
        with self.explained("delete"), suppress(FileNotFoundError):
            self._files.rm(self.path, recursive=True)

    def claims(self) -> Claims:
        """Return the claims that this process can make on parts of what is missing here."""
        return RemoteClaims(self)

    def holders(self) -> set[Holder]:
        """Return the processes that show that they are adding to the folder."""
        self.names()
        return writers(self)

    def age(self, name: str, now: float) -> float:
        """Return how many seconds before `now` a listed object was written; 0 where that is not said."""
        return _age(self._listing.get(name, {}), now)

    def sweep(self) -> None:
        """Remove what dead processes left: claims, and merged shards that no manifest names."""
        names = self.names()
        sweep_claims(self, names)
        if _KEPT not in self._listing:
            return
        with self.explained("list"):
            found = self._listed(f"{self.path}/{_KEPT}")
        newest = max((_time(entry) for entry in found.values()), default=0.0)
        self.names()
        self._remove(
            f"{self.path}/{_KEPT}/{name}"
            for name, entry in found.items()
            if name not in self._kept and is_abandoned(name, age=_age(entry, newest))
        )


def _is_manifest(name: str) -> bool:
    return name.startswith(_MANIFEST) and name.endswith(_ENDING)


def _number(name: str) -> int:
    return int(name.removeprefix(_MANIFEST).removesuffix(_ENDING) or -1)


def _time(entry: Mapping[str, Any]) -> float:
    """Return when an object was written, in seconds since 1970; 0 where the file system does not say."""
    found = next((entry[name] for name in _TIMES if entry.get(name) is not None), 0.0)
    return found.timestamp() if isinstance(found, datetime) else 0.0


def _age(entry: Mapping[str, Any], now: float) -> float:
    written = _time(entry)
    return now - written if written else 0.0
