"""What fuzzing changes: bytes of a file, and values of a row."""

import json
import math
from random import Random
from typing import Any

Raw = type("Raw", (str,), {})
"""A text that stands in JSON as it is, without quotes: numbers that Python would spell otherwise."""

_PIECES = (b'"', b"\0", b"\xff", b"[" * 99, b"\n", b"\r\n", b"1e999", b"\xed\xa0\x80", b",", b"\\")

TEXTS = (
    "", " ", "\n\t ", "a\0b", "\r", "x\r\ny", "\u2028\u2029\x85", "\ud800", "\udc00\ud83d", "\U0001f600",
    "\u202egnp.exe", "a\u200bb", "e\u0301", "=1+1", "@SUM(A1)", "'quoted", '"', '""', '","', "\\", "\\u0000",
    "NaN", "Infinity", "-inf", "1e999", "9" * 400, "1_000", "\u0664\u0662", "0x1F", "1,5", "null", "None",
    "<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "\x7f", "../../etc/passwd", "{{ 7 * 7 }}", "%s%n",
    "<|im_end|>", "<start_of_turn>model\n", "constructor", "__proto__", "[bold]x[/bold]", "x" * 200_000,
    "2026-13-45T99:99:99+99:99", "0000-00-00", "\ufeffmark", "\uffff", "####", "\\boxed{{{", "{", '{"kind": ',
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, -(10**400), 0.0, -0.0, 5e-324,
    1.7976931348623157e308, math.nan, math.inf, -math.inf, True, False, Raw("1e999"), Raw("-1e-999"),
    Raw("1" + "0" * 5000), Raw("0.1" + "0" * 5000 + "1"),
)  # fmt: skip


def value(chance: Random, depth: int = 0) -> Any:
    """Return a hostile JSON value."""
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            return chance.choice(TEXTS)
        case 4 | 5:
            return chance.choice(NUMBERS)
        case 6:
            return None
        case 7 if depth < 3:
            return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
        case 8 if depth < 3:
            return {
                chance.choice(TEXTS[:40]): value(chance, depth + 1)
                for _ in range(chance.randrange(4))
            }
    return nested(chance.choice((5, 90, 200, 900, 1100, 5000)), chance.choice(("[]", "{}")))


def nested(levels: int, kind: str = "[]") -> Raw:
    """Return lists in lists, or objects in objects, as JSON: Python cannot always make them itself."""
    opening = "[" if kind == "[]" else '{"a":'
    return Raw(opening * levels + "1" + kind[1] * levels)


def dumped(row: Any, **options: Any) -> str:
    """Return JSON in which raw texts stand as they are."""
    raws: list[str] = []

    def placed(part: Any) -> Any:
        if isinstance(part, Raw):
            raws.append(str(part))
            return f"@@{len(raws) - 1}@@"
        if isinstance(part, dict):
            return {name: placed(inner) for name, inner in part.items()}
        return [placed(inner) for inner in part] if isinstance(part, list) else part

    text = json.dumps(placed(row), **options)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@@{number}@@"', raw)
    return text


def damaged(data: bytes, chance: Random, *, most: int = 5) -> bytes:
    """Return the bytes with one to `most` changes: other bytes, some fewer, some repeated, some put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, most)):
        place = chance.randrange(len(found) or 1)
        match chance.randrange(5):
            case 0:
                found[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del found[place : place + chance.randrange(1, 40)]
            case 2:
                found[place:place] = found[: chance.randrange(60)]
            case 3:
                found[place : place + 1] = (
                    bytes([found[place] ^ (1 << chance.randrange(8))]) if found else b""
                )
            case _:
                found[place:place] = chance.choice(_PIECES)
    return bytes(found)


def broken(data: bytes, how: str, chance: Random) -> bytes:
    """Return the bytes of a file that a disk, a copy or a crash has damaged; `how` is one of `BREAKS`."""
    place = chance.randrange(1, len(data) - 1)
    flipped = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    return {
        "emptied": b"",
        "cut": data[:place],
        "without its start": data[place:],
        "with a flipped bit": flipped,
        "with zeros": data[:place] + bytes(min(512, len(data) - place)) + data[place + 512 :],
        "longer": data + data[place:],
    }[how]


BREAKS = ("emptied", "cut", "without its start", "with a flipped bit", "with zeros", "longer")
