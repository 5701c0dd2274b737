"""Turn the rows of one file into responses, once it is settled what their columns mean.

A `Reading` is what a layout finds in a row plus the names of the columns around the text (teacher, numbers,
reference, sample); `settle` makes it, and then no row is guessed at.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from preceptor.data.matching import BY_TEXT, Matching
from preceptor.data.roles import (
    TOOL_COLUMNS,
    Row,
    Unreadable,
    look_up,
    marked,
    reasoning_in,
    shown,
    tools_of,
)
from preceptor.data.turns import Answer, Report
from preceptor.engines.endings import ending_of
from preceptor.store.files import number_in
from preceptor.types import Instruction, Response

if TYPE_CHECKING:
    from preceptor.data.references import References


CATEGORY_COLUMNS = ("category", "task_category")
"""Columns that say of what kind an instruction is; the first with a text counts. Magpie has the latter."""

ENDING_COLUMNS = ("finish_reason", "stop_reason", "finishReason", "stopReason", "done_reason")
"""Columns that say why a response ended; the first that is set counts."""

_LONGEST_CATEGORY = 60
_SAMPLES = 2**31

Answers = Callable[[Row, Report], Iterable[Answer]]
"""Finds the responses in one row."""

NumberSample = Callable[[str, Instruction, int | None], int]
"""Gives a sample its index from the teacher, the instruction and the index the row states."""


@dataclass(frozen=True)
class Reading:
    """How the rows of one file become responses, settled from its first rows.

    `columns` are those of the instruction and the text, `known` is every column seen (dotted where nested),
    `label` the teacher of rows that name none, `teachers` the columns that each are one's own, `rewards`
    the columns of numbers that look like rewards by their names, `reasoning` those that may hold the trace
    before an answer, `by_column` that of the kind of instruction where it is named, `beside` what else
    stands beside the text in the first rows.
    """

    layout: str
    columns: tuple[str, ...]
    known: tuple[str, ...]
    answers: Answers
    label: str
    teacher_column: str | None
    teachers: tuple[str, ...]
    number_columns: tuple[str, ...]
    references: References
    rewards: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    matching: Matching = BY_TEXT
    by_column: str | None = None
    beside: tuple[str, ...] = ()

    @cached_property
    def _tools(self) -> tuple[str, ...]:
        return tuple(name for name in TOOL_COLUMNS if name not in self.columns)

    @cached_property
    def _asides(self) -> frozenset[str]:
        """The columns that say something of a response beside its text."""
        kinds = CATEGORY_COLUMNS if self.by_column is None else (self.by_column.partition(".")[0],)
        names = {*ENDING_COLUMNS, "sample", "sample_index", *self.reasoning, *kinds}
        return frozenset(names if self.by_column is None else {*names, self.by_column})

    @property
    def top_columns(self) -> frozenset[str]:
        """The top-level columns this reading looks at: all that must be fetched."""
        names = {*self.columns, *self.number_columns, *self.references.columns}
        names |= {*ENDING_COLUMNS, "sample", "sample_index", *CATEGORY_COLUMNS}
        names |= {*TOOL_COLUMNS, *self.reasoning, self.matching.column, self.teacher_column or ""}
        names.add(self.by_column or "")
        return frozenset(names | {name.partition(".")[0] for name in names})

    def responses(self, row: object, number: NumberSample, *, report: Report) -> Iterator[Response]:
        """Yield the responses in `row`; what cannot be read goes to `report` as a sentence.

        A missing output is a response without text. What should be a number and is none is reported and
        NaN; a reference that cannot be read is reported and left out.
        """
        if not isinstance(row, dict):
            report(f"the row is {shown(row)}, expected an object with named columns")
            return
        try:
            for answer in self.answers(row, report):
                yield self._response(answer, number, report=report)
        except Unreadable as problem:
            report(str(problem))

    def instruction(self, answer: Answer) -> Instruction:
        """Return the instruction of an answer, with the tools of its row and what matches it."""
        found, extras = answer.instruction, answer.extras
        tools = tools_of(extras, self._tools)
        match = self.matching.of(found, extras)
        return replace(found, tools=tools, match=match) if tools or match is not None else found

    def _response(self, answer: Answer, number: NumberSample, *, report: Report) -> Response:
        extras = answer.extras
        teacher, instruction = answer.teacher or self._teacher(extras), self.instruction(answer)
        # Nearly every row has nothing beside its text: it is spared the questions about it.
        beside = not self._asides.isdisjoint(extras)
        reason = next(filter(None, map(extras.get, ENDING_COLUMNS)), None) if beside else None
        return Response(
            teacher=teacher,
            instruction=instruction,
            text=marked(answer.text, reasoning_in(extras, self.reasoning) if beside else ""),
            sample=number(teacher, instruction, _stated_sample(extras) if beside else None),
            finish_reason=ending_of(reason),
            columns=self._numbers(extras, report) if self.number_columns else {},
            reference=self.references.of(extras, report),
            category=category_of(extras, self.by_column) if beside else None,
            tool_calls=answer.tool_calls,
        )

    def _teacher(self, extras: Row) -> str:
        value = None if self.teacher_column is None else look_up(extras, self.teacher_column)
        if (
            isinstance(value, float) and abs(value) >= 2**63
        ):  # a whole number that the parser rounds
            raise Unreadable(f"'{self.teacher_column}' is {shown(value)}: write the name as a text")
        # As it is written: names that differ in spaces alone are warned of and never merged.
        return self.label if value is None or not str(value).strip() else str(value)

    def _numbers(self, extras: Row, report: Report) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        for name in self.number_columns:
            value = look_up(extras, name)
            try:
                numbers[name] = _number(value)
            except (TypeError, ValueError, OverflowError):
                numbers[name] = math.nan
                report(f"'{name}' is {shown(value)}, expected a number: kept without it")
        return numbers


def category_of(row: Row, column: str | None) -> str | None:
    """Return the kind of instruction a row states, on one line and cut at 60 characters; None for none.

    A column that is named may hold numbers too.
    """
    for name in CATEGORY_COLUMNS if column is None else (column,):
        value = look_up(row, name)
        if column is not None and isinstance(value, int | float) and math.isfinite(value):
            value = str(value).lower().removesuffix(".0")
        # One object for each name, however many rows repeat it.
        if isinstance(value, str) and (words := " ".join(value.split())):
            return sys.intern(words[:_LONGEST_CATEGORY])
    return None


def is_number(value: object) -> bool:
    """Tell whether a value is a number, also one in a string."""
    try:
        return _number(value) is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _number(value: object) -> float | None:
    """Return a number, also one in a string; None for null, blank and what is not finite."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = number_in(value)  # type: ignore[arg-type]  # the caller reports what is refused
    return number if math.isfinite(number) else None


def _stated_sample(extras: Row) -> int | None:
    """Return the row's sample index; anything but a whole number below 2**31 states none."""
    for value in (extras.get("sample"), extras.get("sample_index")):
        if value is None:
            continue
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
            return int(value)
        # A nullable integer column comes out of pandas as floats.
        if isinstance(value, int | float) and 0 <= value < _SAMPLES and value == int(value):
            return int(value)
    return None
