"""Open files of text as streams of UTF-8: unpacked within bounds, and out of UTF-16 or UTF-32."""

import codecs
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

_FREELY = 1 << 26
_MOST_TIMES = 200
"""A packed file may unpack to this many times its size, or to 64 MiB; texts of models stay below 20 times."""

_BUFFER = 1 << 16
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer marks first: that of UTF-32 begins like one of UTF-16."""


INVALID = "\uffff"
"""Stands for bytes that are no UTF-8 where they are marked: no text holds this code point."""

codecs.register_error("preceptor.mark", lambda error: (INVALID, error.end))  # type: ignore[attr-defined]


def open_bytes(path: Path, *, marked: bool = False) -> BinaryIO:
    """Return the file as a stream of UTF-8, whatever of the known ways it is packed and encoded in.

    Where they are `marked`, bytes that are not valid become `INVALID`.
    """
    unpack = next(
        (how for ending, how in PACKED.items() if path.name.lower().endswith(ending)), None
    )
    raw = path.open("rb", 0) if unpack is None else _Unpacked(unpack(path), path.stat().st_size)
    stream = io.BufferedReader(raw, _BUFFER)
    encoding = _encoding(stream.peek(4)[:4])
    if encoding is None and not marked:
        return cast("BinaryIO", stream)
    errors = "preceptor.mark" if marked else "replace"
    text = io.TextIOWrapper(stream, encoding or "utf-8", errors=errors, newline="")
    return cast("BinaryIO", io.BufferedReader(_Recoded(text), _BUFFER))


def _encoding(start: bytes) -> str | None:
    """Return the encoding by the first bytes, None for UTF-8: by a mark, or a zero in every other byte."""
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked or len(start) < 4:
        return marked
    zeros = "".join("0" if byte == 0 else "x" for byte in start)
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros)


def _unpack_zst(path: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(path.open("rb"), "zstd")


PACKED: dict[str, Callable[[Path], Any]] = {".gz": gzip.GzipFile, ".zst": _unpack_zst}
"""How files of these endings are unpacked; the ending before says the format."""


class _Unpacked(io.RawIOBase):
    """What a packed file holds, as long as it is no bomb."""

    def __init__(self, stream: Any, packed: int) -> None:
        self._stream, self._most, self._given = stream, max(_FREELY, _MOST_TIMES * packed), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        self._given += len(part)
        if self._given > self._most:
            raise ValueError(
                f"it unpacks to more than {_MOST_TIMES} times its size; if that is meant, unpack it first"
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Recoded(io.RawIOBase):
    """A text as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._left = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = self._text.read(len(buffer)).encode("utf-8", "replace")
        part = self._left[: len(buffer)]
        self._left = self._left[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._text.close()
        super().close()
