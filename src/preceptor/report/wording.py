"""Numbers, names and untrusted text as a page shows them.

Every text that reaches a page passes `visible`, which leaves nothing in it that HTML cannot hold, and every
number passes one of the functions here, so that a number reads alike wherever it stands.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from preceptor.agreement.table import AgreementTable
from preceptor.ranking.record import plain

ABSENT = "–"  # noqa: RUF001  (an en dash, which a cell without data shows)
"""What is shown where there is no data."""

_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE_IN_SCRIPT = re.compile("[<\u2028\u2029\ud800-\udfff]")


class Piece(NamedTuple):
    """A part of a sentence; `name` says that it is a teacher's or a student's name."""

    text: str
    name: bool


def visible(text: str) -> str:
    """Return text that HTML can hold and UTF-8 can write.

    Control characters but tab and newline become their Unicode pictures, lone surrogates the replacement
    character; all else stays as it is.
    """
    return _UNSHOWABLE.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def named(text: str, names: Iterable[str]) -> tuple[Piece, ...]:
    """Return the sentence in pieces, the names in it apart, the longest name first.

    A page isolates a name, so that one written from right to left turns no sentence round.
    """
    known = sorted({name for name in names if name}, key=len, reverse=True)
    if not known:
        return (Piece(text, False),)
    pattern = "|".join(map(re.escape, known))
    parts = re.split(f"({pattern})", text)
    return tuple(Piece(part, place % 2 == 1) for place, part in enumerate(parts) if part)


def number(value: float | None) -> str:
    """Return a number to about four digits, a dash for no data."""
    if value is None or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    return f"{value:.3f}" if size < 10 else f"{value:.2f}"


def alike(form: Callable[[float], str]) -> Callable[[float | None], str]:
    """Return the form of a table's column, which writes a dash for no data."""
    return lambda value: ABSENT if value is None or not math.isfinite(value) else form(value)


def chance(probability: float | None) -> str:
    """Return a probability in whole percent; a finite number of draws never shows 0% or 100%."""
    if probability is None or math.isnan(probability):
        return ABSENT
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{probability:.0%}"


def ordinal(place: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10)
    return f"{place}{ending or 'th'}"


def island(value: object) -> str:
    """Return the value as JSON that is safe within a script element and is read back as it was.

    No `<` stays, so that nothing in it can end the element or open a comment; lone surrogates become
    escapes, which UTF-8 can write.
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE_IN_SCRIPT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def row_labels(table: AgreementTable) -> dict[str, str]:
    """Return by row of an agreement what tells it from the others: of one student alone the dimension."""
    rows = table.comparison.students
    alone = not table.comparison.averaged and len({row.rpartition(", ")[0] for row in rows}) == 1
    return {row: row.rpartition(", ")[2] if alone else row for row in rows}
