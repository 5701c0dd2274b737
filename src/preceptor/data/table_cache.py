"""Keep the response tables of large files in the cache folder, so that their rows are parsed once.

Nearly all of a ranking whose scores are stored is parsing and hashing texts; the columns that come of them
take 37 bytes a row. A table is kept under all that could change it: the content of the files, how their rows
are read, and the source of what reads them. No texts are kept. The columns are mapped, not read into memory,
so the system may drop what is not looked at.
"""

import json
import logging
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from hashlib import blake2b, file_digest
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preceptor.data.formats import Problem
from preceptor.data.table import Gathered, ResponseTable, Signs
from preceptor.errors import PreceptorError
from preceptor.store import identity
from preceptor.store.cache import cache_folder, is_own
from preceptor.store.files import abandoned, make_folder, temporary_name
from preceptor.types import KEY_BYTES

if TYPE_CHECKING:
    from preceptor.data.responses import SourceFile

logger = logging.getLogger(__name__)

_MOST_BYTES = 20 * 2**30
_ENDING = ".arrow"
_ABOUT = b"about"
_CHECKSUM_BYTES = 16
_READERS = ("numpy", "orjson", "pyarrow")
_ROWS = ("teacher", "instruction", "sample", "keys", "cut_off")
_MAYBE = ("category", "checked_keys", "answer_keys")
_REST = ("instructions", "lost")


def key_of(files: "Sequence[SourceFile]", column: str | None) -> str | None:
    """Return what the table of these files, with the rewards of a column, is kept under.

    None where something else than their content decides what is read, or where a file changes.
    """
    code, read = _code(), [file.recipe for file in files]
    if not code or not all(read):
        return None
    try:
        digests = [identity.file_digest(file.place) for file in files]
    except PreceptorError:
        return None
    every = {"code": code, "column": column, "read": read, "content": digests}
    return blake2b(json.dumps(every).encode(), digest_size=16).hexdigest()


def load(key: str) -> Gathered | None:
    """Return the table that is kept under a key; None where there is none, or a damaged one."""
    if not (is_own(cache_folder()) and is_own(_folder())):
        return None
    for path in _folder().glob(f"{key}-*{_ENDING}"):
        with suppress(OSError):
            if is_own(path) and _checksum(path) == path.stem.rpartition("-")[2]:
                os.utime(path)
                return _mapped(path)
            logger.warning("%s is damaged, or not this user's own: files are read again", path)
            path.unlink()
    return None


def save(key: str, gathered: Gathered) -> Gathered:
    """Keep a table, where the disk has room; return it mapped, so that it need not stay in memory."""
    temporary = _folder() / temporary_name()
    try:
        make_folder(_folder())
        _write(temporary, gathered)
        path = _folder() / f"{key}-{_checksum(temporary)}{_ENDING}"
        temporary.replace(path)
        _make_room(path)
        return _mapped(path)
    except OSError as error:
        logger.debug("The response table is not kept: %s", error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return gathered


def _folder() -> Path:
    return cache_folder() / "tables"


@cache
def _code() -> str:
    """Return a digest of this package's source and of what it reads with; empty where it has no source."""
    root, state = Path(__file__).parents[1], blake2b(digest_size=16)
    sources = sorted(root.rglob("*.py"))
    for path in sources:
        raw = path.read_bytes()
        state.update(f"{path.relative_to(root).as_posix()} {len(raw)} ".encode() + raw)
    state.update(" ".join([platform.python_version(), *map(version, _READERS)]).encode())
    return state.hexdigest() if sources else ""


def _checksum(path: Path) -> str:
    with path.open("rb") as handle:
        return file_digest(handle, lambda: blake2b(digest_size=_CHECKSUM_BYTES)).hexdigest()


def _write(path: Path, gathered: Gathered) -> None:
    """Write a table as one row of Arrow lists, which may be of different lengths."""
    import pyarrow as pa

    table = gathered.table
    arrays: dict[str, NDArray[Any]] = {name: getattr(table, name) for name in (*_ROWS, *_REST)}
    arrays |= {n: found for n in _MAYBE if (found := getattr(table, n)) is not None}
    arrays |= {f"value {name}": column for name, column in table.values.items()}
    about = {
        "teachers": table.teachers,
        "dropped": table.dropped,
        "categories": table.categories,
        "odd_endings": table.odd_endings,
        "signs": table.signs,
        "skipped": gathered.skipped,
        "problems": [asdict(problem) for problem in gathered.problems],
        "alike": gathered.alike,
        "matched": gathered.matched,
    }
    lists = {name: _listed(array) for name, array in arrays.items()}
    fields = [pa.field(name, one.type) for name, one in lists.items()]
    schema = pa.schema(fields, {_ABOUT: json.dumps(about).encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(lists.values()), schema=schema))


def _listed(array: NDArray[Any]) -> Any:
    """Return an array as one list, of the same memory."""
    import pyarrow as pa

    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "V":
        kind = pa.binary(KEY_BYTES)
        values = pa.FixedSizeBinaryArray.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])
    else:
        values = pa.array(flat.view(np.uint8) if flat.dtype == np.bool_ else flat)
    return pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), values)


def _mapped(path: Path) -> Gathered:
    """Return the table in a file, its columns mapped; they may not be written to."""
    import pyarrow as pa

    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    about = json.loads(batch.schema.metadata[_ABOUT])
    arrays = {name: _array(batch[name].values) for name in batch.schema.names}
    columns: dict[str, Any] = {name: arrays.get(name) for name in (*_ROWS, *_MAYBE, *_REST)}
    columns["cut_off"] = arrays["cut_off"].view(np.bool_)
    columns["lost"] = arrays["lost"].reshape(-1, 3)
    table = ResponseTable(
        teachers=tuple(about["teachers"]),
        values={n.partition(" ")[2]: one for n, one in arrays.items() if n.startswith("value ")},
        dropped=about["dropped"],
        categories=tuple(about["categories"]),
        odd_endings=about["odd_endings"],
        signs=Signs(*about["signs"]),
        **columns,
    )
    problems = [Problem(**one) for one in about["problems"]]
    return Gathered(table, about["skipped"], problems, about["alike"], about["matched"])


def _array(values: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_fixed_size_binary(values.type):
        raw = values.buffers()[1] or b""
        return np.frombuffer(raw, f"V{KEY_BYTES}", len(values), values.offset * KEY_BYTES)
    found: NDArray[Any] = values.to_numpy()
    return found


def _make_room(newest: Path) -> None:
    """Remove what was used longest ago until the rest fits, and what a killed process left."""
    for path in abandoned(newest.parent):
        path.unlink(missing_ok=True)
    found = {path: path.stat() for path in newest.parent.glob(f"*{_ENDING}")}
    total = sum(status.st_size for status in found.values())
    for path in sorted(found, key=lambda path: found[path].st_mtime):
        if total > _MOST_BYTES and path != newest:
            total -= found[path].st_size
            with suppress(OSError):  # Windows keeps what is mapped
                path.unlink(missing_ok=True)
