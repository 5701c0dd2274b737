"""Shards of remote stores, kept on this machine: what was read or written once is not downloaded again.

A shard never changes and its name holds its checksum, by which a file of the cache is proven before it is
used. What does not fit on the disk is not kept, and read from where it is.
"""

import os
import time
from contextlib import suppress
from typing import BinaryIO

from preceptor.store.cache import cache_folder
from preceptor.store.files import write_at_once
from preceptor.store.shard_file import checksum_of, is_proven

_MOST_BYTES = 20 * 2**30
_BETWEEN_LOOKS_BYTES = 2**30


class ShardCache:
    """The shards on this machine, of any store."""

    def __init__(self) -> None:
        self._proven: set[str] = set()
        self._put_bytes = _BETWEEN_LOOKS_BYTES  # so that the first put looks at what is there

    def open(self, name: str) -> BinaryIO | None:
        """Return a shard, open for reading; None where it is not here whole."""
        path = cache_folder() / "shards" / name
        with suppress(OSError):
            handle = path.open("rb")
            if name in self._proven or is_proven(name, handle):
                self._proven.add(name)
                handle.seek(0)
                os.utime(path)
                return handle
            handle.close()
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep a shard; one whose name has no checksum is not kept."""
        if checksum_of(name) is None:
            return
        self._put_bytes += len(data)
        if self._put_bytes > _BETWEEN_LOOKS_BYTES:
            self._put_bytes = 0
            _make_room()
        with suppress(OSError):
            write_at_once(cache_folder() / "shards" / name, data)

    def drop(self, *names: str) -> None:
        """Remove shards that are gone from their store."""
        for name in names:
            with suppress(OSError):
                (cache_folder() / "shards" / name).unlink(missing_ok=True)


def _make_room() -> None:
    """Remove what was used longest ago until the rest fits, and what a killed process left."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(cache_folder() / "shards"):
            with suppress(OSError):
                status = entry.stat()
                found.append((status.st_mtime, status.st_size, entry.path, entry.name))
    total = sum(size for _, size, _, _ in found)
    for used, size, path, name in sorted(found):
        left_over = checksum_of(name) is None and time.time() - used > 3600
        if total > _MOST_BYTES or left_over:
            total -= size
            with suppress(OSError):
                os.unlink(path)
