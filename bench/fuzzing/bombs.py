"""Files that are small on disk and large in memory, or just large."""

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.campaign import Wrong
from preceptor.data.responses import ResponseSource

_MB = 1 << 20
_GOOD = b"".join(
    json.dumps({"instruction": f"{n}?", "output": f"{n}!", "generator": "a"}).encode() + b"\n"
    for n in range(3)
)
_HEAD = b"instruction,output,generator\na,b,c\n"


def _blocks(block: bytes, megabytes: int) -> Iterator[bytes]:
    whole = block * (_MB // len(block))
    return itertools.repeat(whole, megabytes)


BOMBS: dict[str, tuple[bytes, bytes, int, bytes]] = {
    # name: (start, what is repeated, megabytes, end)
    "newlines.jsonl.gz": (_GOOD, b"\n", 100, b""),
    "newlines.jsonl.zst": (_GOOD, b"\n", 100, b""),
    "newlines.json.gz": (b"", b"\n", 100, b""),
    "brackets.json.gz": (b"", b"[", 100, b""),
    "lists.json.gz": (b"[", b"[],", 62, b"1]"),
    "lists.json": (b"[", b"[],", 62, b"1]"),
    "objects.json": (b"[", b"{},", 200, b"1]"),
    "texts.json": (b"[", b'"",', 200, b"1]"),
    "deep.json": (b"", b'{"a":', 100, b""),
    "line.jsonl": (_GOOD + b'{"instruction": "', b"la ", 100, b'"}\n' + _GOOD),
    "lists.jsonl": (_GOOD + b'{"instruction": [', b"[],", 60, b"1]}\n" + _GOOD),
    "digits.jsonl": (_GOOD + b'{"instruction": "a", "output": ', b"9", 20, b"}\n" + _GOOD),
    "open.csv": (_HEAD + b'"', b"la ", 100, b"\n"),
    "field.csv": (_HEAD, b"la ", 14, b",b,c\n"),
    "commas.csv": (b"instruction,output", b",", 40, b"\na,b\n"),
    "rows.csv": (_HEAD, b"a,b,c\n", 4, b""),
    "newlines.csv.gz": (_HEAD, b"\n", 300, b""),
    "field.csv.zst": (_HEAD, b"la ", 300, b",b,c\n"),
}


class Bombs:
    """Each bomb is written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Callable[[Path], None]] = {
            **{name: _writer(*parts) for name, parts in BOMBS.items()},
            "cell.parquet": _cell,
            "repeated.parquet": _repeated,
        }

    def case(self, chance: Random) -> str:
        """Read one."""
        name = chance.choice(list(self.made))
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(exist_ok=True)
            self.made[name](path)
        source = ResponseSource.open([path])
        count = sum(1 for _ in source)
        if BOMBS.get(name, (b"",))[0] == _GOOD and count not in (3, 6):
            raise Wrong(f"{name}: {count} rows")
        return name


_OPENED: dict[str, Callable[[Path], Any]] = {
    ".gz": partial(gzip.open, mode="wb", compresslevel=1),
    ".zst": lambda path: pa.CompressedOutputStream(str(path), "zstd"),
}


def _writer(start: bytes, block: bytes, megabytes: int, end: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        parts = itertools.chain([start], _blocks(block, megabytes), [end])
        with _OPENED.get(path.suffix, partial(open, mode="wb"))(path) as file:
            for part in parts:
                file.write(part)

    return write


def _cell(path: Path) -> None:
    """One text of 600 MB that takes next to nothing packed."""
    rows = {"instruction": ["a", "b"], "output": ["c", "d " * (300 * _MB)], "generator": ["t", "t"]}
    pq.write_table(
        pa.table(rows), path, compression="zstd", use_dictionary=False, write_statistics=False
    )


def _repeated(path: Path) -> None:
    """A text of 1 MB in 20,000 rows, stored once."""
    text = pa.array(["la " * (_MB // 3)])
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), text)
    rows = {"instruction": pa.array(list(map(str, range(3_000)))), "output": many}
    pq.write_table(pa.table(rows), path, compression="zstd")
