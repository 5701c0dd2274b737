"""Find the answers in one row of data: who is asked what, and the text that answers.

The one idea: every layout is one short function from row to `Answer`s, and one bad row (or one bad
answer in it) is `Unreadable` with its reason, never a crash. Which function fits is for `layouts`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from preceptor.types import Instruction, Message

Row = Mapping[str, object]
Report = Callable[[str], None]

SYSTEM_COLUMN = "system"
"""The column whose text, beside a prompt, is the system turn before it."""

HISTORY_COLUMN = "history"
"""Alpaca's column of the turns before the instruction."""

_ROLES = {"system": "system", "human": "user", "user": "user"} | dict.fromkeys(
    ("gpt", "assistant", "model"), "assistant"
)
_Turn = tuple[str, str | None]


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


def look_up(row: Row, name: str) -> object:
    """Return the value under a column name, dotted where nested; None where there is none."""
    if name in row:
        return row[name]
    if "." not in name:
        return None
    head, _, rest = name.partition(".")
    inner = row.get(head)
    return look_up(inner, rest) if isinstance(inner, dict) else None


def shown(value: object) -> str:
    """Return a value as messages show it: shortened, with its type; "missing" for None."""
    return "missing" if value is None else f"{value!r:.40} ({type(value).__name__})"


def pair_answers(row: Row, report: Report, *, instruction: str, text: str) -> tuple[Answer]:
    """Read a prompt and a completion; either may be a string or a list of messages."""
    completion = look_up(row, text)
    turns = _prompt_turns(row, instruction, texts=(text,))
    if isinstance(completion, str):  # nearly every row: spare it the questions below
        return (Answer(_instruction(turns, instruction), completion, row),)
    if _is_conversation(completion):
        more = _turns(completion, text)
        if more[-1][0] != "assistant":
            raise Unreadable(f"'{text}' ends with a turn of the {more[-1][0]}, not the assistant")
        return (Answer(_instruction([*turns, *more[:-1]], instruction), more[-1][1], row),)
    return (Answer(_instruction(turns, instruction), _content(completion, text), row),)


def alpaca_answers(row: Row, report: Report, *, instruction: str, text: str) -> tuple[Answer]:
    """Read an instruction with its input and the turns before it; see `whole_instruction`."""
    whole = whole_instruction(row, instruction)
    return pair_answers(whole, report, instruction=instruction, text=text)


def whole_instruction(row: Row, instruction: str) -> Row:
    """Return an alpaca row with all of its instruction under that column.

    An input that is not blank follows the task after a blank line. `history`, pairs of what the user said
    and what was answered (LLaMA-Factory's column), goes before it.
    """
    task = look_up(row, instruction)
    extra = _content(row.get("input"), "input")
    if extra and extra.strip() and isinstance(task, str) and task.strip():
        task = f"{task}\n\n{extra}"
        row = {**row, instruction: task}
    history = row.get(HISTORY_COLUMN)
    if not history or not isinstance(task, str):
        return row
    if not isinstance(history, list) or not all(_is_exchange(pair) for pair in history):
        raise Unreadable(f"'{HISTORY_COLUMN}' is {shown(history)}, expected pairs of two strings")
    turns = [
        {"role": role, "content": text}
        for pair in history
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return {**row, instruction: [*turns, {"role": "user", "content": task}]}


def _is_exchange(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)


def conversation_answers(row: Row, report: Report, *, column: str) -> tuple[Answer]:
    """Read a conversation: the last assistant turn answers everything before it."""
    turns = _turns(look_up(row, column), column)
    last = max((at for at, turn in enumerate(turns) if turn[0] == "assistant"), default=len(turns))
    text = turns[last][1] if last < len(turns) else None
    return (Answer(_instruction(turns[:last], column), text, row),)


def completion_answers(
    row: Row, report: Report, *, instruction: str, text: str
) -> Iterator[Answer]:
    """Read several models' completions of one instruction; a bad one costs only itself."""
    prompt = _instruction(_prompt_turns(row, instruction, texts=(text,)), instruction)
    completions = look_up(row, text)
    if not isinstance(completions, list):
        raise Unreadable(f"'{text}' is {shown(completions)}, expected a list of completions")
    shared = {name: value for name, value in row.items() if name != text}
    for completion in completions:
        try:
            if not isinstance(completion, dict):
                raise Unreadable(f"'{text}' holds {shown(completion)}, expected objects")
            response = _content(completion.get("response"), f"{text}.response")
            yield Answer(prompt, response, {**shared, **completion})
        except Unreadable as problem:
            report(str(problem))


def teacher_answers(
    row: Row, report: Report, *, instruction: str, teachers: tuple[str, ...]
) -> Iterator[Answer]:
    """Read one answer per teacher's column; a bad one costs only itself."""
    prompt = _instruction(_prompt_turns(row, instruction, texts=teachers), instruction)
    for teacher in teachers:
        try:
            yield Answer(prompt, _content(look_up(row, teacher), teacher), row, teacher.strip())
        except Unreadable as problem:
            report(str(problem))


def question_answers(
    row: Row, report: Report, *, instruction: str, texts: Sequence[str], has_input: bool
) -> tuple[Answer]:
    """Read an instruction alone, leaving alone what answers it under `texts`.

    Only the earlier turns of a completion that is a conversation belong to the instruction.
    """
    if has_input:
        row = whole_instruction(row, instruction)
    turns = _prompt_turns(row, instruction, texts=texts)
    completion = look_up(row, texts[0]) if len(texts) == 1 else None
    if _is_conversation(completion):
        turns = [*turns, *_turns(completion, texts[0])[:-1]]
    return (Answer(_instruction(turns, instruction), None, row),)


def unanswered_answers(
    row: Row, report: Report, *, column: str, question: str | None
) -> tuple[Answer]:
    """Read a conversation up to its last user turn, else the text (and input) of `question`."""
    value = look_up(row, column)
    if question and not _is_conversation(value):
        has_input = question != "input"
        return question_answers(row, report, instruction=question, texts=(), has_input=has_input)
    turns = _turns(value, column)
    last = max((at for at, turn in enumerate(turns) if turn[0] == "user"), default=-1)
    return (Answer(_instruction(turns[: last + 1], column), None, row),)


def ends_with_answer(value: object) -> bool:
    """Tell whether a conversation can be read and its last turn is the assistant's."""
    try:
        return _turns(value, "")[-1][0] == "assistant"
    except (Unreadable, IndexError):
        return False


def _prompt_turns(row: Row, column: str, *, texts: Sequence[str]) -> list[_Turn]:
    """Return the turns under a column, after those of the system column where it is no other's."""
    value = look_up(row, column)
    turns: list[_Turn] = [("user", value)] if isinstance(value, str) else _listed(value, column)
    system = row.get(SYSTEM_COLUMN)
    if not isinstance(system, str) or not system.strip() or SYSTEM_COLUMN in (column, *texts):
        return turns
    return turns if turns[0][0] == "system" else [("system", system), *turns]


def _listed(value: object, column: str) -> list[_Turn]:
    return _turns(value, column) if _is_conversation(value) else [("user", _content(value, column))]


def _instruction(turns: Sequence[_Turn], column: str) -> Instruction:
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


def _turns(value: object, column: str) -> list[_Turn]:
    if not isinstance(value, list):
        raise Unreadable(f"'{column}' is {shown(value)}, expected a list of turns")
    return [_turn(turn, column) for turn in value]


def _turn(turn: object, column: str) -> _Turn:
    """Read {from, value} and {role, content} alike."""
    if not isinstance(turn, dict):
        raise Unreadable(f"'{column}' holds {shown(turn)}, expected turns of role and content")
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
        raise Unreadable(f"'{column}' is {shown(value)}, expected a string")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or part.get("type") != "text":
            raise Unreadable(f"'{column}' is a list with parts that are not text")
        texts.append(text)
    return "".join(texts)
