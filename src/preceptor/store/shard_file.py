"""One shard as a file: Parquet that says its format and what made its rows, named by its checksum.

`part-<time>-<unique>-<checksum>.parquet`: the time in nanoseconds at which the rows were first stored, 32
random hexadecimal digits (two writers of the same rows must not share a name: each deletes what it replaced),
and the BLAKE2b of the whole file. A flipped bit anywhere, a cut file and a file of another partition are
found before a row is read.
"""

import hashlib
import io
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preceptor.errors import StoreError

FORMAT = 1
"""What this version writes. A reader ignores columns that it does not know; a greater number is refused."""

_FORMAT_KEY, _SPEC_KEY = b"preceptor.format", b"preceptor.spec"
_PART, _ENDING = "part-", ".parquet"
_CHECKSUM_BYTES = 16
_READ_BYTES = 2**20


class UnfitShardError(Exception):
    """A file that must not be read as a shard; `label` is how its name begins once it is set aside."""

    def __init__(self, label: str, why: str) -> None:
        super().__init__(why)
        self.label = label


def is_shard(name: str) -> bool:
    """Tell whether a file of a partition holds rows; one that was set aside does not."""
    return name.startswith(_PART) and name.endswith(_ENDING)


def stamp_of(name: str) -> str:
    """Return the time at which the rows of a shard were first stored: nanoseconds in 20 digits."""
    return name.removesuffix(_ENDING).split("-")[1]


def checksum_of(name: str) -> str | None:
    """Return the checksum in a shard's name; None where it was written before names had one."""
    parts = name.removesuffix(_ENDING).split("-")
    return parts[3] if len(parts) == 4 and is_shard(name) else None


def is_proven(name: str, handle: Any) -> bool:
    """Tell whether the bytes are those of the shard with this name."""
    return _checksum(handle) == checksum_of(name)


def encoded(table: pa.Table, spec: str, *, stamp: str) -> tuple[str, bytes]:
    """Return a shard's name and bytes; `spec` is the canonical JSON of the identity that made the rows."""
    marks = {_FORMAT_KEY: str(FORMAT).encode(), _SPEC_KEY: spec.encode()}
    sink = io.BytesIO()
    how = {"compression": "zstd", "use_dictionary": ["note"], "write_page_checksum": True}
    pq.write_table(table.replace_schema_metadata(marks), sink, **how)
    data = sink.getvalue()
    checksum = hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).hexdigest()
    return f"{_PART}{stamp}-{uuid.uuid4().hex}-{checksum}{_ENDING}", data


def verify(name: str, handle: Any, spec: str) -> None:
    """Check every byte of a shard and that this spec made its rows.

    Raises:
        UnfitShardError: it is damaged, or it belongs to another partition.
        StoreError: a newer version of Preceptor wrote it.
    """
    proven = checksum_of(name)
    if proven and proven != _checksum(handle):
        raise UnfitShardError("damaged", "its bytes do not match the checksum in its name")
    try:
        handle.seek(0)
        file = pq.ParquetFile(handle, page_checksum_verification=True)
        if not proven:  # written before names had checksums: every page has one of its own
            file.read()
        marks = file.schema_arrow.metadata or {}
        if "key" not in file.schema_arrow.names:
            raise UnfitShardError("damaged", "it has no column 'key'")
    except (ValueError, OSError) as error:
        # Arrow reports damage as a plain OSError without number; a disk's error has one.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
            raise
        raise UnfitShardError("damaged", str(error)) from error
    _require_known_format(name, marks.get(_FORMAT_KEY, b"0"))
    if marks.get(_SPEC_KEY, spec.encode()) != spec.encode():
        raise UnfitShardError("foreign", "it was copied from the partition of another identity")


def spec_of(handle: Any) -> str | None:
    """Return the canonical JSON of what made a shard's rows; None where it cannot be read or does not say."""
    try:
        marks = pq.ParquetFile(handle).schema_arrow.metadata or {}
        return marks[_SPEC_KEY].decode() if _SPEC_KEY in marks else None
    except (ValueError, OSError):
        return None


def _checksum(handle: Any) -> str:
    state = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    while block := handle.read(_READ_BYTES):
        state.update(block)
    return state.hexdigest()


def _require_known_format(name: str, written: bytes) -> None:
    number = int(written) if written.isdigit() and len(written) < 9 else None
    if number is None or number > FORMAT:
        raise StoreError(
            f"The shard {name} has format {written[:20]!r}: this version of Preceptor reads up to {FORMAT}. "
            "Upgrade Preceptor, or use another --store."
        )
