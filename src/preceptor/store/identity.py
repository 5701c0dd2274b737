"""What names things by content: the digest of a file, of a folder's files, of a spec.

Weights are hashed once. A file's digest is remembered under its resolved path, size, inode and
times of change in a small JSON file of the user's cache folder; the memory is a convenience, so
a lost, damaged or outdated entry, or one that another user could have written, only means that
the file is hashed again.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preceptor.errors import ModelError, StoreError
from preceptor.store.activity import activity
from preceptor.store.cache import cache_folder, is_own
from preceptor.store.files import explained, write_atomically

_LOGGER = logging.getLogger(__name__)
_SETTLED_NANOSECONDS = 2_000_000_000
_REMEMBERED_FILES = 1000
_LARGE = 2**30


@dataclass(frozen=True)
class Identity:
    """What made a row, known by its content: two are equal exactly when their canonical JSON is.

    Build it with `Identity.of`. `canonical` is JSON with sorted keys, no spaces; 3 and 3.0 differ.
    """

    canonical: str

    @classmethod
    def of(cls, spec: Mapping[str, object]) -> "Identity":
        """Return the identity of a nested mapping of strings, numbers, booleans, None and lists.

        Raises:
            StoreError: the spec holds NaN, an infinity, a key that is no string, or another type.
        """
        return cls(json.dumps(plain(spec, "spec"), sort_keys=True, separators=(",", ":")))

    @cached_property
    def digest(self) -> str:
        """The 32 hexadecimal characters that name its folder in a store."""
        return hashlib.blake2b(self.canonical.encode(), digest_size=16).hexdigest()

    @property
    def spec(self) -> dict[str, object]:
        """A fresh copy of the spec, as JSON gives it back (tuples have become lists)."""
        spec: dict[str, object] = json.loads(self.canonical)
        return spec


def plain(value: object, where: str) -> object:
    """Return the value in JSON's own types, refusing what JSON would bend or lose.

    `where` is the value's place, for the error: `spec` gives `spec.model.beta is nan`.

    Raises:
        StoreError: a key is no string, a number is not finite, or the type is not JSON's.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StoreError(f"{where} has the key {key!r}: expected a string. Name it.")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise StoreError(f"{where} is {value}: expected a finite number. Use None for no value.")
    if value is None or isinstance(value, str | int | float):
        return value
    raise StoreError(
        f"{where} is a {type(value).__name__}: expected a string, number, boolean, None, list or "
        "mapping. Convert it first."
    )


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file in 64 hexadecimal characters, remembered while it is unchanged.

    A file changed in the last two seconds is not remembered: a second change within the clock's
    step would go unseen.

    Raises:
        ModelError: the file cannot be read, or changed while it was.
    """
    try:
        resolved = Path(path).resolve(strict=True)
        with resolved.open("rb") as handle:
            before = _stamp(handle.fileno())
            known = _remembered().get(str(resolved))
            if known is not None and known[:-1] == before:
                return str(known[-1])
            large = os.fstat(handle.fileno()).st_size >= _LARGE
            with activity(f"hashing {Path(path).name}") if large else nullcontext():
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            after = _stamp(handle.fileno())
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise ModelError(f"Cannot read {path}: {error}. Check the path and its rights.") from error
    if after != before:
        raise ModelError(f"{path} changed while it was read. Run again when it is complete.")
    if time.time_ns() - before[1] > _SETTLED_NANOSECONDS:
        _remember(str(resolved), [*before, digest])
    return digest


def forget_digests() -> None:
    """Have every file hashed again that is asked for from now on.

    Raises:
        ModelError: the memory cannot be removed.
    """
    memory = cache_folder() / "digests.json"
    with explained("remove", memory, ModelError):
        memory.unlink(missing_ok=True)


def folder_stamps(folder: str | Path, patterns: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return what changes with any change of the files that match, also of one that is undone: no content.

    Raises:
        OSError: one is gone.
    """
    found = sorted({path for pattern in patterns for path in Path(folder).glob(pattern)})
    return [(path.name, _stamp(path)) for path in found if path.is_file()]


def folder_digest(folder: str | Path, patterns: Sequence[str]) -> str:
    """Return the SHA-256 over the sorted relative names and digests of the files that match.

    Patterns are those of `Path.glob`, relative to the folder; a file that matches two counts once.
    Where the folder lies does not enter.

    Raises:
        ModelError: no file matches, or one cannot be read.
    """
    root = Path(folder)
    matches = {match for pattern in patterns for match in root.glob(pattern) if match.is_file()}
    if not matches:
        raise ModelError(
            f"No file in {root} matches {' or '.join(patterns)}; it holds "
            f"{', '.join(_first_names(root)) or 'nothing that can be listed'}. Check the folder."
        )
    state = hashlib.sha256()
    for name, match in sorted((match.relative_to(root).as_posix(), match) for match in matches):
        raw = name.encode("utf-8", "surrogateescape")
        state.update(len(raw).to_bytes(8, "little") + raw + bytes.fromhex(file_digest(match)))
    return state.hexdigest()


def _first_names(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(entry.name for entry in folder.iterdir())[:10]
    return []


def _stamp(file: int | Path) -> list[int]:
    status = os.stat(file)
    # The time of status cannot be set: other content under the old time and size is seen by it.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remembered() -> dict[str, list[object]]:
    """Return path -> [size, mtime_ns, ctime_ns, inode, digest], without entries of another shape."""
    memory = cache_folder() / "digests.json"
    if not (is_own(cache_folder()) and is_own(memory)):
        return {}
    try:
        entries = json.loads(memory.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _LOGGER.debug("Ignoring the remembered digests: %s", error)
        return {}
    if not isinstance(entries, dict):
        return {}
    return {path: entry for path, entry in entries.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    match entry:
        case [int(), int(), int(), int(), str(digest)]:
            return len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return False


def _remember(path: str, entry: list[object]) -> None:
    """Add an entry to what is remembered; of two writers at once one may be forgotten."""
    entries = _remembered()
    entries.pop(path, None)
    entries[path] = entry
    kept = dict(list(entries.items())[-_REMEMBERED_FILES:])
    try:
        write_atomically(cache_folder() / "digests.json", json.dumps(kept).encode())
    except OSError as error:
        _LOGGER.debug("Cannot remember the digest of %s: %s", path, error)
