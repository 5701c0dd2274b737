"""Recognise which columns of anybody's data hold the instruction, the response and the teacher.

The one idea: a layout is settled once per file, from its first rows and the user's `ReadOptions`,
and becomes a `Reading`. No file is opened here; `instructions` does that.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from preceptor.config.data import ReadOptions
from preceptor.data.references import recognised
from preceptor.data.rows import (
    HISTORY_COLUMN,
    SYSTEM_COLUMN,
    Answer,
    Answers,
    Row,
    alpaca_answers,
    completion_answers,
    conversation_answers,
    ends_with_answer,
    look_up,
    pair_answers,
    question_answers,
    teacher_answers,
    unanswered_answers,
)
from preceptor.data.schema import Reading
from preceptor.errors import DataError, nearest


class _Layout(NamedTuple):
    """The columns that tell a layout, tried in order; a conversation needs none for the text."""

    instruction: tuple[str, ...]
    text: tuple[str, ...]
    teacher: tuple[str, ...] = ()


_TEACHER_COLUMNS = ("generator", "model", "teacher", "output_generator")
_MAGPIE_TEACHER = "gen_response_configs.output_generator"
_CONVERSATIONS = ("magpie", "sharegpt", "messages", "conversation")
ALPACA_COLUMNS = ("input", HISTORY_COLUMN)
"""The columns that belong to the instruction in the alpaca layout."""

_QUESTIONS = ("prompt", "instruction", "question")

# In the order of recognition: the more a layout demands, the earlier it is tried.
_LAYOUTS: dict[str, _Layout] = {
    "ultrafeedback": _Layout(("instruction", "prompt"), ("completions",), ("model",)),
    "magpie": _Layout(("conversations",), (), (_MAGPIE_TEACHER,)),
    "sharegpt": _Layout(("conversations",), ()),
    "messages": _Layout(("messages",), ()),
    "alpaca-eval": _Layout(("instruction",), ("output",)),
    "alpaca": _Layout(("instruction",), ("output",)),
    "prompt-completion": _Layout(_QUESTIONS, ("completion", "response", "output")),
    "conversation": _Layout(("conversation",), ()),
    "teacher-columns": _Layout(_QUESTIONS, ()),
}
LAYOUTS = tuple(_LAYOUTS)
"""The layout names that `ReadOptions.layout` takes besides `auto`."""

# Of data without responses, in the order of preference.
_UNANSWERED = ("messages", "conversations", "conversation")
_ALONE = (*_QUESTIONS, "text")

# String columns that describe a row and so are never taken for a teacher's answers.
_METADATA = re.compile(
    r"""(?ix) category|cluster|created_at|dataset|date|difficulty|domain|finish_reason|gold|ground_truth
    |id|idx|index|intent|knowledge|label|lang|language|level|license|name|quality|reference|sample|sample_index
    |score|source|split|stop_reason|subject|subset|tags?|target|task|timestamp|topic|turn|type|url|uid|uuid
    |version|\w*_id|\w*_category"""
)
# A column that starts so says that the row is more than a list of teachers' answers.
_NOT_TEACHERS = re.compile(
    r"""(?ix) answer|chosen|completion|context|conversation|generation|input|message|output|rejected
    |response|solution|system"""
)


def settle(rows: Sequence[Row], options: ReadOptions, *, where: str, label: str) -> Reading:
    """Return how rows like these first ones of the file `where` become responses.

    Raises:
        DataError: the layout is not recognised or does not exist, or a named column is not there.
    """
    known = _column_names(rows)
    named = (options.instruction_column, options.response_column, *options.teacher_columns)
    _require_columns(named, known, where=where)
    layout, instruction, text = _choose(rows, options, known=known, where=where)
    if layout == "ultrafeedback":
        known = list(dict.fromkeys([*known, *_column_names(_objects_under(rows, text))]))
    _require_columns((options.teacher_column, options.reference_column), known, where=where)
    teacher: str | None = None
    if layout == "teacher-columns":
        teachers = options.teacher_columns or _infer_teachers(rows, instruction)
        columns: tuple[str, ...] = (instruction, *teachers)
        answers: Answers = partial(teacher_answers, instruction=instruction, teachers=teachers)
    else:
        columns, answers = _row_function(layout, known, instruction=instruction, text=text)
        preferred = (*_LAYOUTS[layout].teacher, *_TEACHER_COLUMNS)
        teacher = options.teacher_column or _first_known(preferred, known) or None
    if SYSTEM_COLUMN in known and layout not in _CONVERSATIONS and SYSTEM_COLUMN not in columns:
        columns = (SYSTEM_COLUMN, *columns)
    numbers = options.number_columns
    references = recognised(rows, options, taken=(*columns, teacher or ""))
    return Reading(layout, columns, tuple(known), answers, label, teacher, numbers, references)


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
    try:
        reading = settle(rows, options, where=where, label=label)
    except DataError:
        if options.layout != "auto" or options.response_column or options.teacher_columns:
            raise
        return _settle_unanswered(rows, options, where=where, label=label)
    if reading.layout == "teacher-columns" and not options.teacher_columns:
        return _settle_unanswered(rows, options, where=where, label=label)  # only guessed at
    if reading.layout in _CONVERSATIONS:
        turns = [look_up(row, reading.columns[0]) for row in rows]
        if any(map(ends_with_answer, turns)):
            return reading
        return _settle_unanswered(rows, options, where=where, label=label)
    column, *rest = (name for name in reading.columns if name != SYSTEM_COLUMN)
    has_input = reading.layout == "alpaca" and not set(rest).isdisjoint(ALPACA_COLUMNS)
    texts = tuple(name for name in rest if not (has_input and name in ALPACA_COLUMNS))
    answers = partial(question_answers, instruction=column, texts=texts, has_input=has_input)
    return replace(reading, answers=answers)


def _settle_unanswered(
    rows: Sequence[Row], options: ReadOptions, *, where: str, label: str
) -> Reading:
    """Return the reading of a text column alone and of conversations that nobody answered."""
    known = _column_names(rows)
    named = (options.instruction_column, options.reference_column)
    _require_columns(named, known, where=where)
    question = options.instruction_column or _first_known(_ALONE, known)
    turns = options.instruction_column or _first_known(_UNANSWERED, known)
    if not question and not turns:
        raise DataError(
            f"{where} has the columns {', '.join(known) or '(none)'}; none of them is known to hold "
            f"instructions: {', '.join((*_ALONE, *_UNANSWERED))}. Name it with instruction_column."
        )
    read = dict.fromkeys((SYSTEM_COLUMN, question, "input", turns))
    columns = tuple(name for name in read if name in known)
    answers = partial(unanswered_answers, column=turns or _UNANSWERED[0], question=question or None)
    return Reading(
        layout="instructions",
        columns=columns,
        known=tuple(known),
        answers=answers,
        label=label,
        teacher_column=None,
        number_columns=(),
        references=recognised(rows, options, taken=columns),
    )


def _choose(
    rows: Sequence[Row], options: ReadOptions, *, known: Sequence[str], where: str
) -> tuple[str, str, str]:
    """Return the layout and its instruction and text columns (text is empty in a conversation)."""
    wanted = _wanted_layout(options)
    for layout in LAYOUTS if wanted == "auto" else (wanted,):
        shape = _LAYOUTS[layout]
        instruction = options.instruction_column or _first_known(shape.instruction, known)
        text = options.response_column or _first_known(shape.text, known)
        if not instruction or bool(text) != bool(shape.text):
            continue
        if wanted == layout or _fits(layout, (instruction, text), rows=rows, known=known):
            return layout, instruction, text
    seen = f"{where} has the columns {', '.join(known) or '(none)'}"
    if wanted != "auto":
        needed = " and ".join(" or ".join(names) for names in _LAYOUTS[wanted][:2] if names)
        raise DataError(
            f"{seen}; the layout '{wanted}' reads {needed}. Choose another layout, or name the "
            "columns it should read instead."
        )
    raise DataError(
        f"{seen}, which is no layout known here ({', '.join(LAYOUTS)}). Name the columns with "
        "instruction_column and response_column, or with teacher_columns, or set the layout."
    )


def _wanted_layout(options: ReadOptions) -> str:
    wanted = options.layout
    if wanted != "auto" and wanted not in _LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise DataError(f"No layout '{wanted}'. Known: auto, {known}.{nearest(wanted, LAYOUTS)}")
    if options.teacher_columns and wanted not in ("auto", "teacher-columns"):
        raise DataError(
            f"The layout '{wanted}' has no teacher_columns. Use the layout 'teacher-columns', or "
            "leave teacher_columns out."
        )
    return "teacher-columns" if options.teacher_columns else wanted


def _first_known(names: Iterable[str], known: Sequence[str]) -> str:
    return next((name for name in names if name in known), "")


def _fits(
    layout: str, columns: tuple[str, str], *, rows: Sequence[Row], known: Sequence[str]
) -> bool:
    """Tell whether a layout whose columns exist is the right one of those that share them."""
    if layout in _CONVERSATIONS and not _objects_under(rows, columns[0]):
        return False
    if layout == "ultrafeedback":
        return bool(_objects_under(rows, columns[1]))
    if layout == "magpie":
        return _MAGPIE_TEACHER in known
    if layout == "alpaca-eval":
        return "input" not in known and bool(_first_known(_TEACHER_COLUMNS, known))
    return layout != "teacher-columns" or len(_infer_teachers(rows, columns[0])) > 1


def _infer_teachers(rows: Sequence[Row], instruction: str) -> tuple[str, ...]:
    """Return the columns that look like teachers' answers: none where the row says otherwise."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if any(name in _TEACHER_COLUMNS or _NOT_TEACHERS.match(name) for name in names):
        return ()
    return tuple(
        name
        for name in names
        if name != instruction
        and not _METADATA.fullmatch(name)
        and any(isinstance(row.get(name), str) for row in rows)
        and all(isinstance(row.get(name), str | None) for row in rows)
    )


def _row_function(
    layout: str, known: Sequence[str], *, instruction: str, text: str
) -> tuple[tuple[str, ...], Answers]:
    """Return the columns that the layout reads and its function from row to answers."""
    if layout in _CONVERSATIONS:
        return (instruction,), partial(conversation_answers, column=instruction)
    columns: tuple[str, ...] = (instruction, text)
    read: Callable[..., Iterable[Answer]] = pair_answers
    if layout == "ultrafeedback":
        read = completion_answers
    elif layout == "alpaca" and (more := [name for name in ALPACA_COLUMNS if name in known]):
        read, columns = alpaca_answers, (instruction, *more, text)
    return columns, partial(read, instruction=instruction, text=text)


def _require_columns(names: Iterable[str | None], known: Sequence[str], *, where: str) -> None:
    for name in names:
        if name is not None and name not in known:
            columns = ", ".join(known)
            raise DataError(
                f"{where} has no column '{name}'. Its columns: {columns}.{nearest(name, known)}"
            )


def _column_names(rows: Iterable[Row]) -> list[str]:
    """Return every column of the rows in order of appearance; nested ones are dotted."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            names[name] = None
            if isinstance(value, dict):
                names |= dict.fromkeys(f"{name}.{inner}" for inner in _column_names([value]))
    return list(names)


def _objects_under(rows: Iterable[Row], column: str) -> list[Row]:
    """Return the objects in the lists of this column; none where it holds something else."""
    lists = [value for row in rows if isinstance(value := look_up(row, column), list)]
    return [part for value in lists for part in value if isinstance(part, dict)]
