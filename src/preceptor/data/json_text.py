"""Parse JSON as it comes: what others write against the standard is read, what fills the memory refused."""

import json
import re
from typing import Any

import numpy as np
import orjson

MOST_VALUES = 5_000_000
"""Values of one line or document; each takes up to 100 bytes of memory, however short it is written."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_FEW_BYTES = 1 << 21
_BLOCK = 1 << 22
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parsed(raw: bytes) -> Any:
    """Return the value of a JSON text; ValueError where it is none or too large."""
    _require_few_values(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _parsed_leniently(raw)


def _parsed_leniently(raw: bytes) -> Any:
    """Parse what orjson refuses and others write: NaN (as null), lone surrogates, a BOM."""
    text = raw.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    try:
        return _without_surrogates(json.loads(text, parse_constant=lambda name: None))
    except RecursionError as reason:
        raise ValueError("nested too deeply") from reason


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(part) for k, part in value.items()}
    return value


def _require_few_values(raw: bytes) -> None:
    if len(raw) < _FEW_BYTES or sum(map(raw.count, (b",", b":", b"[", b"{"))) < MOST_VALUES:
        return
    # Most of these signs may stand inside of texts.
    bare = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    inside, found = 0, 0
    for start in range(0, len(bare), _BLOCK):
        block = np.frombuffer(bare, np.uint8, min(_BLOCK, len(bare) - start), start)
        within = (np.cumsum(block == ord('"'), dtype=np.uint8) + inside) & 1
        inside = int(within[-1])
        found += int(np.count_nonzero(np.isin(block[within == 0], list(b",:[{"))))
    if found > MOST_VALUES:
        raise ValueError(f"about {found:,} values in one; at most {MOST_VALUES:,} are read")
