r"""Find the reference answers of a file: tables that say how they are checked, or plain answers.

A plain answer is a string or a number in a column such as `answer`. What follows `####` (GSM8K), else the
last `\boxed{...}` of a worked solution, else the whole value is the answer. How a column is checked is
decided once, from the first rows of the file; prose, such as the gold answers of chat data, is not checked.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import orjson

from preceptor.config.data import ReadOptions
from preceptor.data.roles import Row, look_up, shown
from preceptor.data.turns import Report
from preceptor.scorers.verifier.final_answers import balanced, parsed_number

REFERENCE_COLUMNS = ("reference", "answer", "ground_truth", "solution", "target")
"""The columns in which references are looked for; the first that can be checked counts."""

_DEEPEST = 100
_LONGEST, _MOST_WORDS = 60, 8
"""A bare answer of more characters or words is prose."""

_CHOICE = re.compile(r"\(?([A-E])[).]?")
_FORMULA = re.compile(r"\\[A-Za-z]+|[\^_{}=<>|+*/]|[0-9]\(|\([^()]*,[^()]*\)")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{4}")


@dataclass(frozen=True)
class References:
    """Where the references of a file stand. Plain ones are checked as `kind`, or not at all where it is None.

    `left_out` are columns that could have held references, but hold prose.
    """

    column: str | None = None
    kind: str | None = None
    left_out: tuple[str, ...] = ()
    asked_for: bool = False
    seen: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read for them."""
        return (self.column,) if self.column else ()

    def describe(self) -> str:
        """Return for people how references are read, empty where there is nothing to say."""
        if self.left_out:
            return f"'{self.left_out[0]}' is prose and not checked"
        if not self.column or not self.seen:
            return ""
        return f"reference '{self.column}'" + (f" checked as {self.kind}" if self.kind else "")

    def of(self, row: Row, report: Report) -> Mapping[str, object] | None:
        """Return the reference of a row; None where it has none or none that can be read."""
        value = look_up(row, self.column) if self.column else None
        table = _table(value)
        if table is not None or value is None or value != value or value == "":
            return table
        answer = None if self.kind is None else plain_answer(value)
        if answer is not None:
            return _reference(answer, self.kind or "")
        if self.asked_for or self.kind is not None:
            report(f"'{self.column}' is {shown(value)}, expected an answer: kept without it")
        return None


def recognised(rows: Sequence[Row], options: ReadOptions, *, taken: Iterable[str]) -> References:
    """Return how the references in rows like these first ones are read.

    `taken` are columns that hold something else, such as the teacher's own answer.
    """
    if options.reference_column is not None:
        exact = None if options.reference_kind == "none" else "exact"
        kind = _chosen_kind(rows, options.reference_column, options)
        return References(options.reference_column, kind or exact, asked_for=True)
    taken, left_out = set(taken), []
    for column in REFERENCE_COLUMNS:
        if column in taken:
            continue
        values = _values(rows, column)
        if column == "reference" and any(_table(value) is not None for value in values):
            return References(column, _chosen_kind(rows, column, options))
        if not any(plain_answer(value) is not None or isinstance(value, str) for value in values):
            continue
        if (kind := _chosen_kind(rows, column, options)) is not None:
            return References(column, kind)
        left_out.append(column)
    # A table may stand in a later row than the first ones.
    later = None if "reference" in taken else "reference"
    return References(later, None, tuple(left_out), seen=False)


def alike(found: Sequence[References]) -> list[References]:
    """Return the references of several files such that no answer is checked in two ways.

    Where one file's first answers are numbers and another's are formulas, all are formulas.
    """
    kinds = {one.kind for one in found}
    if not {"numeric", "math"} <= kinds:
        return list(found)
    return [replace(one, kind="math") if one.kind == "numeric" else one for one in found]


def plain_answer(value: object) -> str | None:
    r"""Return the answer that a plain value gives, without a marker and what is worked out before it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    text = str(value).strip()
    if "####" in text:
        text = text.rpartition("####")[2]
    elif (start := text.rfind("\\boxed")) >= 0:
        inside = balanced(text[start:]).partition("{")[2]
        text = inside.removesuffix("}")
    text = text.strip().strip("$").strip()
    return text or None


def _values(rows: Iterable[Row], column: str) -> list[object]:
    found = (look_up(row, column) for row in rows)
    return [value for value in found if value is not None and value == value and value != ""]


def _chosen_kind(rows: Sequence[Row], column: str, options: ReadOptions) -> str | None:
    """Return how the plain answers of a column are checked; None where they are none."""
    if options.reference_kind == "none":
        return None
    if options.reference_kind != "auto":
        return options.reference_kind
    values = [value for value in _values(rows, column) if _table(value) is None]
    answers = [plain_answer(value) for value in values]
    known = [_looks(value, answer) for value, answer in zip(values, answers, strict=True)]
    for kinds, chosen, share in _KINDS:
        if known and sum(kind in kinds for kind in known) >= share * len(known):
            return chosen
    return None


_KINDS = (
    ({"choice"}, "choice", 1.0),
    ({"numeric"}, "numeric", 1.0),
    ({"numeric", "math"}, "math", 0.9),
    ({"choice", "numeric", "math", "exact"}, "exact", 0.9),
)
"""What a column's answers must look like to be checked as a kind, and what share of them, in this order.

One answer in ten may be odd, but where one of many numbers is a formula, all are checked as formulas.
"""


def _looks(value: object, answer: str | None) -> str | None:
    """Return the narrowest kind that a plain answer fits; None for prose."""
    if answer is None:
        return None
    if parsed_number(answer):
        return "numeric"
    marked = isinstance(value, str) and "\\boxed" in value
    if marked or (_FORMULA.search(answer) and not _WORD.search(answer)):
        return "math"
    if _CHOICE.fullmatch(answer):
        return "choice"
    short = len(answer) <= _LONGEST and len(answer.split()) <= _MOST_WORDS and "\n" not in answer
    return "exact" if short and any(map(str.isalnum, answer)) and "://" not in answer else None


def _reference(answer: str, kind: str) -> Mapping[str, object]:
    """Return the table of one plain answer of a column that is checked as `kind`."""
    if kind == "numeric" and not parsed_number(answer):
        kind = "math"  # a formula among numbers, further down than the first rows
    return {"kind": kind, "answer": answer.strip("().") if kind == "choice" else answer}


def _is_deep(value: dict[object, object]) -> bool:
    """Tell whether a table is nested deeper than can be written and hashed everywhere."""
    level: list[dict[object, object] | list[object]] = [value]
    for _ in range(_DEEPEST):
        level = [
            part
            for one in level
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def _table(value: object) -> Mapping[str, object] | None:
    """Return a reference that says itself how it is checked, also one written as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    if not isinstance(value, dict) or _is_deep(value):
        return None
    # Arrow gives every row the keys of all rows and fills those it lacks with None.
    return {key: part for key, part in value.items() if part is not None}
