"""Settle, from the first rows of a file and the user's options, how its rows become responses.

No file is opened here; `responses` and `instructions` do that.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from preceptor.config.data import ReadOptions
from preceptor.data.layouts import (
    LAYOUTS,
    QUESTION_COLUMNS,
    TEACHER_COLUMNS,
    FirstRows,
    Layout,
)
from preceptor.data.matching import matching_of
from preceptor.data.references import recognised
from preceptor.data.roles import (
    REASONING_FIELDS,
    TOOL_COLUMNS,
    Row,
    is_conversation,
    look_up,
    turns_of,
)
from preceptor.data.schema import Reading, is_number
from preceptor.data.turns import (
    SYSTEM_COLUMN,
    Answer,
    Report,
    instruction_of,
    whole_instruction,
)
from preceptor.errors import DataError, nearest

# Of data without responses, in the order of preference.
_UNANSWERED = ("messages", "conversations", "conversation")
_ALONE = (*QUESTION_COLUMNS, "text")

_DEEPEST = 8
_REWARD = re.compile(r"(?i)reward|(?:^|_)(?:scores?|ratings?|rm|grades?)(?:_|$)")


class NotRecognised(DataError):
    """A file that can be read, in which no layout finds what is looked for."""


def settle(rows: Sequence[Row], options: ReadOptions, *, where: str, label: str) -> Reading:
    """Return how rows like these first ones of the file `where` become responses.

    Raises:
        DataError: the layout is not recognised or does not exist, or a named column is not there.
    """
    return _settled(FirstRows(rows, _column_names(rows), options), where=where, label=label)[1]


def _settled(first: FirstRows, *, where: str, label: str) -> tuple[Layout, Reading]:
    options = first.options
    named = (options.instruction_column, options.response_column, *options.teacher_columns)
    _require_columns(named, first.known, first.rows, where=where)
    name, layout = _chosen(first, where=where)
    known = list(dict.fromkeys([*first.known, *_column_names(layout.parts(first.rows))]))
    first = replace(first, known=known)
    named = (
        *(options.teacher_column, options.reference_column, options.id_column),
        *(options.by_column, _trace(options)),
    )
    _require_columns(named, known, first.rows, where=where)
    teacher: str | None = None
    if not layout.teachers:
        preferred = (*layout.teacher_columns, *TEACHER_COLUMNS)
        teacher = options.teacher_column or first.first_known(preferred) or None
    columns = layout.columns
    if SYSTEM_COLUMN in known and layout.reads_system and SYSTEM_COLUMN not in columns:
        columns = (SYSTEM_COLUMN, *columns)
    reasoning = () if layout.teachers else _reasoning(options, known, taken=columns)
    matching = matching_of(options.match, options.id_column, known, where=where)
    beside = [*reasoning, *TOOL_COLUMNS, matching.column]
    return layout, Reading(
        layout=name,
        columns=columns,
        known=tuple(known),
        answers=layout.answers,
        label=label,
        teacher_column=teacher,
        teachers=layout.teachers,
        number_columns=options.number_columns,
        references=recognised(first.rows, options, taken=(*columns, teacher or "")),
        rewards=()
        if layout.teachers
        else _rewards([*first.rows, *layout.parts(first.rows)], known),
        reasoning=reasoning,
        matching=matching,
        by_column=options.by_column,
        beside=tuple(name for name in beside if name in known and name not in columns),
    )


def _trace(options: ReadOptions) -> str | None:
    """Return the column that is named for the reasoning, None where none is."""
    return None if options.reasoning_column == "none" else options.reasoning_column


def _reasoning(
    options: ReadOptions, known: Sequence[str], *, taken: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns in which the trace before a response is looked for."""
    if options.reasoning_column is not None:
        return tuple(filter(None, [_trace(options)]))
    return tuple(name for name in REASONING_FIELDS if name not in taken)


def _rewards(rows: Sequence[Row], known: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are called like a reward and hold nothing but numbers."""

    def values(name: str) -> list[object]:
        return [value for row in rows if (value := look_up(row, name)) is not None]

    named = (name for name in known if _REWARD.search(name.rpartition(".")[2]))
    return tuple(name for name in named if values(name) and all(map(is_number, values(name))))


def settle_instructions(
    rows: Sequence[Row], options: ReadOptions, *, where: str, label: str
) -> Reading:
    """Return how rows like these become instructions: `settle`, with the responses left alone.

    Each row then gives one answer without a text. Beside the layouts of responses these are read:
    conversations of which none (of these rows) ends with the assistant, up to their last user turn,
    and a text column alone, with or without an `input`.

    Raises:
        DataError: as `settle`; where no column is known, the error lists those looked for.
    """
    first = FirstRows(rows, _column_names(rows), options)
    try:
        layout, reading = _settled(first, where=where, label=label)
    except DataError:
        if options.layout != "auto" or options.response_column or options.teacher_columns:
            raise
        return _settle_unanswered(first, where=where, label=label)
    if not layout.is_answered(first):
        return _settle_unanswered(first, where=where, label=label)
    return replace(reading, answers=layout.question)


@dataclass(frozen=True)
class _Unanswered(Layout):
    """A conversation up to its last user turn, or else a text, with its input, in another column."""

    instruction_columns: ClassVar[tuple[str, ...]] = _ALONE
    response_columns: ClassVar[tuple[str, ...]] = ()

    conversation: str = ""

    def question(self, row: Row, report: Report) -> Iterable[Answer]:
        value = look_up(row, self.conversation)
        if self.instruction and not is_conversation(value):
            if self.instruction != "input":
                row = whole_instruction(row, self.instruction)
            return super().question(row, report)
        turns = turns_of(value, self.conversation)
        asking = (at for at, turn in enumerate(turns) if turn.role in ("user", "tool"))
        last = max(asking, default=-1)
        return (Answer(instruction_of(turns[: last + 1], self.conversation), None, row),)


def _settle_unanswered(first: FirstRows, *, where: str, label: str) -> Reading:
    """Return the reading of a text column alone and of conversations that nobody answered."""
    known, options = first.known, first.options
    named = (
        *(options.instruction_column, options.reference_column),
        *(options.id_column, options.by_column),
    )
    _require_columns(named, known, first.rows, where=where)
    question = options.instruction_column or first.first_known(_ALONE)
    turns = options.instruction_column or first.first_known(_UNANSWERED)
    if not question and not turns:
        raise NotRecognised(
            f"{where} has the columns {', '.join(known) or '(none)'}; none of them is known to hold "
            f"instructions: {', '.join((*_ALONE, *_UNANSWERED))}. Name it with instruction_column."
        )
    read = dict.fromkeys((SYSTEM_COLUMN, question, "input", turns))
    columns = tuple(name for name in read if name in known)
    return Reading(
        layout="instructions",
        columns=columns,
        known=tuple(known),
        answers=_Unanswered(question, "", turns or _UNANSWERED[0]).question,
        label=label,
        teacher_column=None,
        teachers=(),
        number_columns=(),
        references=recognised(first.rows, options, taken=columns),
        matching=matching_of(options.match, options.id_column, known, where=where),
        by_column=options.by_column,
    )


def _chosen(first: FirstRows, *, where: str) -> tuple[str, Layout]:
    """Return the name of the layout and the layout with its columns in this file."""
    wanted = _wanted_layout(first.options)
    names = [*LAYOUTS.built_in, *LAYOUTS.names()] if wanted == "auto" else [wanted]
    for name in dict.fromkeys(names):
        kind = LAYOUTS[name]
        instruction = first.options.instruction_column or first.first_known(
            kind.instruction_columns
        )
        response = first.options.response_column or first.first_known(kind.response_columns)
        if not instruction or bool(response) != bool(kind.response_columns):
            continue
        layout = kind.of(instruction, response, first)
        if wanted == name or layout.fits(first):
            return name, layout
    seen = f"{where} has the columns {', '.join(first.known) or '(none)'}"
    if wanted != "auto":
        tried = (LAYOUTS[wanted].instruction_columns, LAYOUTS[wanted].response_columns)
        needed = " and ".join(" or ".join(names) for names in tried if names)
        raise DataError(
            f"{seen}; the layout '{wanted}' reads {needed}. Choose another layout, or name the "
            "columns it should read instead."
        )
    raise NotRecognised(
        f"{seen}, which is no layout known here ({', '.join(LAYOUTS.names())}). Name the columns with "
        "instruction_column and response_column, or with teacher_columns, or set the layout."
    )


def _wanted_layout(options: ReadOptions) -> str:
    wanted = options.layout
    if wanted != "auto" and wanted not in LAYOUTS.names():
        known = LAYOUTS.names()
        raise DataError(
            f"No layout '{wanted}'. Known: auto, {', '.join(known)}.{nearest(wanted, known)}"
        )
    if options.teacher_columns and wanted not in ("auto", "teacher-columns"):
        raise DataError(
            f"The layout '{wanted}' has no teacher_columns. Use the layout 'teacher-columns', or "
            "leave teacher_columns out."
        )
    return "teacher-columns" if options.teacher_columns else wanted


def _require_columns(
    names: Iterable[str | None], known: Sequence[str], rows: Sequence[Row], *, where: str
) -> None:
    for name in names:
        if name is None or name in known or any(look_up(row, name) is not None for row in rows):
            continue
        raise DataError(
            f"{where} has no column '{name}'. Its columns: {', '.join(known)}."
            f"{_within_list(name, rows) or nearest(name, known)}"
        )


def _within_list(name: str, rows: Sequence[Row]) -> str:
    """Say how a path goes on that leads into a list and does not say to which of its parts."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        head, part = ".".join(parts[:end]), parts[end]
        if part.lstrip("-").isdecimal():
            continue
        lists = [value for row in rows if isinstance(value := look_up(row, head), list)]
        if lists:
            rest = ".".join(parts[end:])
            return f" '{head}' is a list: number its part, as in {head}.0.{rest} (-1 is the last)."
    return ""


def _column_names(rows: Iterable[Row], depth: int = 0) -> list[str]:
    """Return every column of the rows in order of appearance; nested ones are dotted, so deep as is used."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            names[name] = None
            if isinstance(value, dict) and depth < _DEEPEST:
                inside = _column_names([value], depth + 1)
                names |= dict.fromkeys(f"{name}.{inner}" for inner in inside)
    return list(names)
