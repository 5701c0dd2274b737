"""Turn one row of anybody's data into responses, whatever columns it keeps them in.

The one idea: a layout is settled once per file, from its first rows (`settle`), and becomes a
`Reading`: one short function from row to answers. No file is opened here; `instructions` does that.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import orjson

from preceptor.errors import DataError, nearest
from preceptor.types import Instruction, Message, Response

Row = Mapping[str, object]
Report = Callable[[str], None]
NumberSample = Callable[[str, Instruction, int | None], int]
"""Gives a sample its index from the teacher, the instruction and the index the row states."""


class _Layout(NamedTuple):
    """The columns that tell a layout, tried in order; a conversation needs none for the text."""

    instruction: tuple[str, ...]
    text: tuple[str, ...]
    teacher: tuple[str, ...] = ()


_TEACHER_COLUMNS = ("generator", "model", "teacher", "output_generator")
_MAGPIE_TEACHER = "gen_response_configs.output_generator"
_CONVERSATIONS = ("magpie", "sharegpt", "messages")
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
    "teacher-columns": _Layout(_QUESTIONS, ()),
}
LAYOUTS = tuple(_LAYOUTS)
"""The layout names that `ReadOptions.layout` takes besides `auto`."""

_ROLES = {"system": "system", "human": "user", "user": "user"} | dict.fromkeys(
    ("gpt", "assistant", "model"), "assistant"
)

# String columns that describe a row and so are never taken for a teacher's answers.
_METADATA = re.compile(
    r"""(?ix) category|cluster|created_at|dataset|date|difficulty|domain|finish_reason|id|idx|index
    |intent|knowledge|label|lang|language|level|license|name|quality|reference|sample|sample_index
    |score|source|split|stop_reason|subject|subset|tags?|task|timestamp|topic|turn|type|url|uid|uuid
    |version|\w*_id|\w*_category"""
)
# A column that starts so says that the row is more than a list of teachers' answers.
_NOT_TEACHERS = re.compile(
    r"""(?ix) answer|chosen|completion|context|conversation|generation|input|message|output|rejected
    |response|solution|system"""
)


def _option(text: str, default: str | tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ReadOptions:
    """What a file's columns mean, where recognition needs overriding; every field is optional.

    Each field's metadata holds its text for `--help` under "help". Names of columns may be dotted
    to reach into nested objects (`scores.reward`).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    layout: str = _option(f"Layout of the rows: auto, {', '.join(LAYOUTS)}.", "auto")
    instruction_column: str | None = _option("Column with the instruction or the conversation.")
    response_column: str | None = _option("Column with the response.")
    teacher_column: str | None = _option("Column that names the teacher of each row.")
    teacher_columns: tuple[str, ...] = _option(
        "Columns that each hold one teacher's responses.", ()
    )
    reference_column: str | None = _option("Column with the checkable answer, for verifiers.")
    split: str = _option("Split to read from a Hub data set or a folder.", "train")
    number_columns: tuple[str, ...] = _option("Numeric columns to carry along, as a reward.", ())


class Unreadable(Exception):
    """Why a row, or one answer in it, gives no response; reported, never a crash."""


class Answer(NamedTuple):
    """One teacher's text as a layout finds it.

    `extras` is where the teacher, numbers and finish reason are looked up; `teacher` is set only
    where the column of the text is named after its teacher.
    """

    instruction: Instruction
    text: str | None
    extras: Row
    teacher: str | None = None


Answers = Callable[[Row, Report], Iterable[Answer]]


@dataclass(frozen=True)
class Reading:
    """How the rows of one file become responses, settled from its first rows.

    `columns` are those of the instruction and the text, `known` is every column seen (dotted where
    nested), `label` the teacher of rows that name none.
    """

    layout: str
    columns: tuple[str, ...]
    known: tuple[str, ...]
    answers: Answers
    label: str
    teacher_column: str | None
    options: ReadOptions

    @property
    def top_columns(self) -> frozenset[str]:
        """The top-level columns this reading looks at: all that must be fetched."""
        options = self.options
        names = {*self.columns, *options.number_columns, self.teacher_column or ""}
        names |= {"finish_reason", "stop_reason", "sample", "sample_index"}
        names.add(options.reference_column or "reference")
        return frozenset(names | {name.partition(".")[0] for name in names})

    def responses(self, row: object, number: NumberSample, *, report: Report) -> Iterator[Response]:
        """Yield the responses in `row`; what cannot be read goes to `report` as a sentence.

        A missing output is a response without text. A number or reference that cannot be read is
        reported and left out of its response.
        """
        if not isinstance(row, dict):
            report(f"the row is {_shown(row)}, expected an object with named columns")
            return
        try:
            for answer in self.answers(row, report):
                yield self._response(answer, number, report=report)
        except Unreadable as problem:
            report(str(problem))

    def _response(self, answer: Answer, number: NumberSample, *, report: Report) -> Response:
        extras = answer.extras
        teacher = answer.teacher or self._teacher(extras)
        reason = extras.get("finish_reason") or extras.get("stop_reason")
        return Response(
            teacher=teacher,
            instruction=answer.instruction,
            text=answer.text,
            sample=number(teacher, answer.instruction, _stated_sample(extras)),
            finish_reason=reason if isinstance(reason, str) else None,
            columns=self._numbers(extras, report) if self.options.number_columns else {},
            reference=self._reference(extras, report),
        )

    def _teacher(self, extras: Row) -> str:
        value = None if self.teacher_column is None else look_up(extras, self.teacher_column)
        return self.label if value is None else str(value).strip() or self.label

    def _numbers(self, extras: Row, report: Report) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        for name in self.options.number_columns:
            value = look_up(extras, name)
            try:
                numbers[name] = _number(value)
            except (TypeError, ValueError, OverflowError):
                numbers[name] = None
                report(f"'{name}' is {_shown(value)}, expected a number: kept without it")
        return numbers

    def _reference(self, extras: Row, report: Report) -> Mapping[str, object] | None:
        named = self.options.reference_column
        value = look_up(extras, named or "reference")
        if value is None:
            return None
        if isinstance(value, str):
            value = _object_or_text(value)
        if isinstance(value, dict):
            # Arrow gives every row the keys of all rows and fills those it lacks with None.
            return {key: part for key, part in value.items() if part is not None}
        if named is None:
            return None  # prose, perhaps: only a column that was asked for is an exact answer
        if isinstance(value, str | int | float):
            return {"kind": "exact", "answer": str(value)}
        report(f"'{named}' is {_shown(value)}, expected an object or a string: kept without it")
        return None


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
        answers: Answers = partial(_teacher_answers, instruction=instruction, teachers=teachers)
    else:
        columns, answers = _row_function(layout, known, instruction=instruction, text=text)
        preferred = (*_LAYOUTS[layout].teacher, *_TEACHER_COLUMNS)
        teacher = options.teacher_column or _first_known(preferred, known) or None
    return Reading(layout, columns, tuple(known), answers, label, teacher, options)


def look_up(row: Row, name: str) -> object:
    """Return the value under a column name, dotted where nested; None where there is none."""
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head) if dot else None
    return look_up(inner, rest) if isinstance(inner, dict) else None


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
        return (instruction,), partial(_conversation_answers, column=instruction)
    columns: tuple[str, ...] = (instruction, text)
    read: Callable[..., Iterable[Answer]] = _pair_answers
    if layout == "ultrafeedback":
        read = _completion_answers
    elif layout == "alpaca" and "input" in known:
        read, columns = _alpaca_answers, (instruction, "input", text)
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


def _pair_answers(row: Row, report: Report, *, instruction: str, text: str) -> tuple[Answer]:
    """Read a prompt and a completion; either may be a string or a list of messages."""
    completion = look_up(row, text)
    turns = _prompt_turns(row, instruction)
    if _is_conversation(completion):
        more = _turns(completion, text)
        if more[-1][0] != "assistant":
            raise Unreadable(f"'{text}' ends with a turn of the {more[-1][0]}, not the assistant")
        return (Answer(_instruction([*turns, *more[:-1]], instruction), more[-1][1], row),)
    return (Answer(_instruction(turns, instruction), _content(completion, text), row),)


def _alpaca_answers(row: Row, report: Report, *, instruction: str, text: str) -> tuple[Answer]:
    """Read an instruction whose input, where not blank, follows it after a blank line."""
    extra = _content(row.get("input"), "input")
    task = look_up(row, instruction)
    if extra and extra.strip() and isinstance(task, str) and task.strip():
        row = {**row, instruction: f"{task}\n\n{extra}"}
    return _pair_answers(row, report, instruction=instruction, text=text)


def _conversation_answers(row: Row, report: Report, *, column: str) -> tuple[Answer]:
    """Read a conversation: the last assistant turn answers everything before it."""
    turns = _turns(look_up(row, column), column)
    last = max((at for at, turn in enumerate(turns) if turn[0] == "assistant"), default=len(turns))
    text = turns[last][1] if last < len(turns) else None
    return (Answer(_instruction(turns[:last], column), text, row),)


def _completion_answers(
    row: Row, report: Report, *, instruction: str, text: str
) -> Iterator[Answer]:
    """Read several models' completions of one instruction; a bad one costs only itself."""
    prompt = _instruction(_prompt_turns(row, instruction), instruction)
    completions = look_up(row, text)
    if not isinstance(completions, list):
        raise Unreadable(f"'{text}' is {_shown(completions)}, expected a list of completions")
    shared = {name: value for name, value in row.items() if name != text}
    for completion in completions:
        try:
            if not isinstance(completion, dict):
                raise Unreadable(f"'{text}' holds {_shown(completion)}, expected objects")
            response = _content(completion.get("response"), f"{text}.response")
            yield Answer(prompt, response, {**shared, **completion})
        except Unreadable as problem:
            report(str(problem))


def _teacher_answers(
    row: Row, report: Report, *, instruction: str, teachers: tuple[str, ...]
) -> Iterator[Answer]:
    """Read one answer per teacher's column; a bad one costs only itself."""
    prompt = _instruction(_prompt_turns(row, instruction), instruction)
    for teacher in teachers:
        try:
            yield Answer(prompt, _content(look_up(row, teacher), teacher), row, teacher.strip())
        except Unreadable as problem:
            report(str(problem))


def _prompt_turns(row: Row, column: str) -> list[tuple[str, str | None]]:
    value = look_up(row, column)
    return _turns(value, column) if _is_conversation(value) else [("user", _content(value, column))]


def _instruction(turns: Sequence[tuple[str, str | None]], column: str) -> Instruction:
    """Return the instruction of these turns, normalising line ends and outer white space alone."""
    if not turns or turns[-1][0] != "user":
        raise Unreadable(f"'{column}' has no turn of the user before the response")
    messages = []
    for role, content in turns:
        if content is None:
            raise Unreadable(f"'{column}' has no text in a turn of the {role}")
        text = content.strip()
        messages.append(Message(role, text.replace("\r\n", "\n") if "\r" in text else text))
    if not messages[-1].content:
        raise Unreadable(f"'{column}' is empty: there is no instruction")
    return Instruction(tuple(messages))


def _turns(value: object, column: str) -> list[tuple[str, str | None]]:
    if not isinstance(value, list):
        raise Unreadable(f"'{column}' is {_shown(value)}, expected a list of turns")
    return [_turn(turn, column) for turn in value]


def _turn(turn: object, column: str) -> tuple[str, str | None]:
    """Read {from, value} and {role, content} alike."""
    if not isinstance(turn, dict):
        raise Unreadable(f"'{column}' holds {_shown(turn)}, expected turns of role and content")
    role = turn.get("role") or turn.get("from")
    if not isinstance(role, str) or role not in _ROLES:
        raise Unreadable(f"'{column}' has a turn of {role!r}; known roles: {', '.join(_ROLES)}")
    content = turn.get("content")
    return _ROLES[role], _content(turn.get("value") if content is None else content, column)


def _is_conversation(value: object) -> bool:
    """Tell a list of turns from a list of content parts."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def _content(value: object, column: str) -> str | None:
    """Return a text as it stands, the parts of an all-text list joined, or None for null."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise Unreadable(f"'{column}' is {_shown(value)}, expected a string")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or part.get("type") != "text":
            raise Unreadable(f"'{column}' is a list with parts that are not text")
        texts.append(text)
    return "".join(texts)


def _number(value: object) -> float | None:
    """Return a number, also one in a string; None for null, blank and what is not finite."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = float(value)  # type: ignore[arg-type]  # the caller reports what float refuses
    return number if math.isfinite(number) else None


def _stated_sample(extras: Row) -> int | None:
    """Return the row's sample index; a column of anything but whole numbers states none."""
    for name in ("sample", "sample_index"):
        value = extras.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        # A nullable integer column comes out of pandas as floats.
        if isinstance(value, int | float) and value >= 0 and float(value).is_integer():
            return int(value)
    return None


def _object_or_text(text: str) -> object:
    """Return the object that a JSON string spells, else the string itself."""
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(text)
        return value if isinstance(value, dict) else text
    return text


def _shown(value: object) -> str:
    return "missing" if value is None else f"{value!r:.40} ({type(value).__name__})"
