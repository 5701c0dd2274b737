"""The layouts of rows: one class for each, which knows where instruction and response stand in a row.

`settle` tries the classes on the first rows of a file, in the order of `LAYOUTS`; an instance has the columns
of that file. Another package adds a layout by registering a subclass of `Layout` under the entry point group
`preceptor.layouts`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from preceptor.config.data import ReadOptions
from preceptor.config.plugins import Registry
from preceptor.data.roles import (
    Row,
    Unreadable,
    content_of,
    is_conversation,
    look_up,
    shown,
    turns_of,
)
from preceptor.data.turns import (
    HISTORY_COLUMN,
    Answer,
    Report,
    ends_with_answer,
    instruction_of,
    prompt_turns,
    whole_instruction,
)

QUESTION_COLUMNS = ("prompt", "instruction", "question")
TEACHER_COLUMNS = ("generator", "model", "teacher", "output_generator")
"""The columns that name the teacher of a row, in the order of preference."""

_MAGPIE_TEACHER = "gen_response_configs.output_generator"

# String columns that describe a row and so are never taken for a teacher's answers.
_METADATA = re.compile(
    r"""(?ix) category|cluster|created_at|dataset|date|difficulty|domain|finish_reason|gold|ground_truth
    |id|idx|index|intent|knowledge|label|lang|language|level|license|name|quality|reference|sample
    |sample_index|score|source|split|stop_reason|subject|subset|tags?|target|task|timestamp|topic|turn
    |type|url|uid|uuid|version|\w*_id|\w*_category"""
)
# A column that starts so says that the row is more than a list of teachers' answers.
_NOT_TEACHERS = re.compile(
    r"""(?ix) answer|chosen|completion|context|conversation|generation|input|message|output|rejected
    |response|solution|system"""
)


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a file, every column seen in them (dotted where nested), and the user's options."""

    rows: Sequence[Row]
    known: Sequence[str]
    options: ReadOptions

    def first_known(self, names: Iterable[str]) -> str:
        """Return the first of these columns that the rows have, empty where they have none."""
        return next((name for name in names if name in self.known), "")


@dataclass(frozen=True)
class Layout:
    """A prompt and a response, each in a column of its own; both may be a text or a list of messages.

    The class names the columns that are looked for, in the order of preference; a layout whose rows hold
    both in one column has no `response_columns`. An instance has those of one file.
    """

    instruction_columns: ClassVar[tuple[str, ...]] = QUESTION_COLUMNS
    response_columns: ClassVar[tuple[str, ...]] = ("completion", "response", "output")
    teacher_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that name the teacher of a row, tried before the usual ones."""
    reads_system: ClassVar[bool] = True
    """Whether a column `system` goes before the instruction."""

    instruction: str
    response: str

    @classmethod
    def of(cls, instruction: str, response: str, first: FirstRows) -> Self:
        """Return the layout with these columns of a file that begins so."""
        return cls(instruction, response)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold instruction and response, as they are shown to people."""
        return (self.instruction, self.response)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The columns that each hold one teacher's responses; none where a row is of one teacher."""
        return ()

    def fits(self, first: FirstRows) -> bool:
        """Tell whether rows that have the columns are of this layout and no other that shares them."""
        return True

    def is_answered(self, first: FirstRows) -> bool:
        """Tell whether the rows hold responses for sure, and are no instructions alone."""
        return True

    def parts(self, rows: Sequence[Row]) -> list[Row]:
        """Return the objects within rows that stand for one response each, where rows hold several."""
        return []

    def answers(self, row: Row, report: Report) -> Iterable[Answer]:
        """Return the responses in a row; a bad one among several goes to `report` as a sentence.

        Raises:
            Unreadable: the row gives no response, and why.
        """
        completion = look_up(row, self.response)
        turns = prompt_turns(row, self.instruction, texts=(self.response,))
        if isinstance(completion, str):  # nearly every row: spare it the questions below
            return (Answer(instruction_of(turns, self.instruction), completion, row),)
        if is_conversation(completion):
            *more, last = turns_of(completion, self.response)
            if last.role != "assistant":
                ends = f"'{self.response}' ends with a turn of the {last.role}"
                raise Unreadable(f"{ends}, not the assistant")
            asked = instruction_of([*turns, *more], self.instruction)
            return (Answer(asked, last.content, row, tool_calls=last.tool_calls),)
        text = content_of(completion, self.response)
        return (Answer(instruction_of(turns, self.instruction), text, row),)

    def question(self, row: Row, report: Report) -> Iterable[Answer]:
        """Return the instruction of a row alone.

        Of a completion that is a conversation, the turns before the last belong to the instruction.
        """
        texts = self.teachers or (self.response,)
        turns = prompt_turns(row, self.instruction, texts=texts)
        completion = look_up(row, self.response) if self.response else None
        if is_conversation(completion):
            turns = [*turns, *turns_of(completion, self.response)[:-1]]
        return (Answer(instruction_of(turns, self.instruction), None, row),)


class _AlpacaEval(Layout):
    """The files of AlpacaEval: `instruction`, `output`, and a column that names the model."""

    instruction_columns = ("instruction",)
    response_columns = ("output",)

    def fits(self, first: FirstRows) -> bool:
        return "input" not in first.known and bool(first.first_known(TEACHER_COLUMNS))


@dataclass(frozen=True)
class _Alpaca(Layout):
    """Alpaca's rows: `instruction`, `output`, and where they have them `input` and `history`."""

    instruction_columns = ("instruction",)
    response_columns = ("output",)

    more: tuple[str, ...] = ()

    @classmethod
    def of(cls, instruction: str, response: str, first: FirstRows) -> Self:
        more = tuple(name for name in ("input", HISTORY_COLUMN) if name in first.known)
        return cls(instruction, response, more)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.instruction, *self.more, self.response)

    def answers(self, row: Row, report: Report) -> Iterable[Answer]:
        return super().answers(self._whole(row), report)

    def question(self, row: Row, report: Report) -> Iterable[Answer]:
        return super().question(self._whole(row), report)

    def _whole(self, row: Row) -> Row:
        return whole_instruction(row, self.instruction) if self.more else row


class _UltraFeedback(Layout):
    """Several models' completions of one instruction, as a list of objects."""

    instruction_columns = ("instruction", "prompt")
    response_columns = ("completions",)
    teacher_columns = ("model",)

    def fits(self, first: FirstRows) -> bool:
        return bool(self.parts(first.rows))

    def parts(self, rows: Sequence[Row]) -> list[Row]:
        return objects_under(rows, self.response)

    def answers(self, row: Row, report: Report) -> Iterator[Answer]:
        turns = prompt_turns(row, self.instruction, texts=(self.response,))
        prompt = instruction_of(turns, self.instruction)
        completions = look_up(row, self.response)
        if not isinstance(completions, list):
            raise Unreadable(
                f"'{self.response}' is {shown(completions)}, expected a list of completions"
            )
        shared = {name: value for name, value in row.items() if name != self.response}
        for completion in completions:
            try:
                if not isinstance(completion, dict):
                    raise Unreadable(
                        f"'{self.response}' holds {shown(completion)}, expected objects"
                    )
                text = content_of(completion.get("response"), f"{self.response}.response")
                yield Answer(prompt, text, {**shared, **completion})
            except Unreadable as problem:
                report(str(problem))


class _Conversation(Layout):
    """A conversation in one column: the last assistant turn answers everything before it."""

    instruction_columns = ("conversation",)
    response_columns = ()
    reads_system = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.instruction,)

    def fits(self, first: FirstRows) -> bool:
        return bool(objects_under(first.rows, self.instruction))

    def is_answered(self, first: FirstRows) -> bool:
        return any(ends_with_answer(look_up(row, self.instruction)) for row in first.rows)

    def answers(self, row: Row, report: Report) -> Iterable[Answer]:
        turns = turns_of(look_up(row, self.instruction), self.instruction)
        places = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
        if not places:
            return (Answer(instruction_of(turns, self.instruction), None, row),)
        asked = instruction_of(turns[: places[-1]], self.instruction)
        last = turns[places[-1]]
        return (Answer(asked, last.content, row, tool_calls=last.tool_calls),)

    def question(self, row: Row, report: Report) -> Iterable[Answer]:
        return self.answers(row, report)


class _ShareGPT(_Conversation):
    """ShareGPT's conversations, in turns of `from` and `value`."""

    instruction_columns = ("conversations",)


class _Magpie(_ShareGPT):
    """Magpie's conversations, whose generator stands in a nested column."""

    teacher_columns = (_MAGPIE_TEACHER,)

    def fits(self, first: FirstRows) -> bool:
        return _MAGPIE_TEACHER in first.known and super().fits(first)


class _Messages(_Conversation):
    """Conversations in turns of `role` and `content`."""

    instruction_columns = ("messages",)


@dataclass(frozen=True)
class _TeacherColumns(Layout):
    """One instruction and a column for each teacher's answer."""

    response_columns = ()

    answering: tuple[str, ...] = ()

    @classmethod
    def of(cls, instruction: str, response: str, first: FirstRows) -> Self:
        named = first.options.teacher_columns
        return cls(instruction, response, named or _answering(first.rows, instruction))

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.instruction, *self.answering)

    @property
    def teachers(self) -> tuple[str, ...]:
        return self.answering

    def fits(self, first: FirstRows) -> bool:
        return len(self.answering) > 1

    def is_answered(self, first: FirstRows) -> bool:
        return bool(first.options.teacher_columns)

    def answers(self, row: Row, report: Report) -> Iterator[Answer]:
        turns = prompt_turns(row, self.instruction, texts=self.answering)
        prompt = instruction_of(turns, self.instruction)
        for name in self.answering:
            try:
                yield Answer(prompt, content_of(look_up(row, name), name), row, name.strip())
            except Unreadable as problem:
                report(str(problem))


LAYOUTS: Registry[type[Layout]] = Registry(
    "layouts",
    "layout",
    {
        "ultrafeedback": _UltraFeedback,
        "magpie": _Magpie,
        "sharegpt": _ShareGPT,
        "messages": _Messages,
        "alpaca-eval": _AlpacaEval,
        "alpaca": _Alpaca,
        "prompt-completion": Layout,
        "conversation": _Conversation,
        "teacher-columns": _TeacherColumns,
    },
)
"""The layouts in the order of recognition: the more one demands, the earlier it is tried."""


def objects_under(rows: Iterable[Row], column: str) -> list[Row]:
    """Return the objects in the lists of this column; none where it holds something else."""
    lists = [value for row in rows if isinstance(value := look_up(row, column), list)]
    return [part for value in lists for part in value if isinstance(part, dict)]


def _answering(rows: Sequence[Row], instruction: str) -> tuple[str, ...]:
    """Return the columns that look like teachers' answers: none where the row says otherwise."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if any(name in TEACHER_COLUMNS or _NOT_TEACHERS.match(name) for name in names):
        return ()
    found = (name for name in names if name != instruction and not _METADATA.fullmatch(name))
    return tuple(name for name in found if _is_text([row.get(name) for row in rows]))


def _is_text(values: Sequence[object]) -> bool:
    """Tell whether most of what a column holds is text: a bad value is no reason to lose a teacher."""
    given = [value for value in values if value is not None]
    return 2 * sum(isinstance(value, str) for value in given) > len(given)
