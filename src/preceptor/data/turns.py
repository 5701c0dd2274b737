"""The parts of a row that every layout reads alike: texts, turns, and the instruction they make.

A bad row, or one bad answer in it, is `Unreadable` with its reason, never a crash.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from preceptor.types import Instruction, Message

Row = Mapping[str, object]
Report = Callable[[str], None]
Turn = tuple[str, str | None]
"""The role and the text of a turn."""

SYSTEM_COLUMN = "system"
"""The column whose text, beside a prompt, is the system turn before it."""

HISTORY_COLUMN = "history"
"""Alpaca's column of the turns before the instruction."""

_ROLES = {"system": "system", "human": "user", "user": "user"} | dict.fromkeys(
    ("gpt", "assistant", "model"), "assistant"
)


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


def ends_with_answer(value: object) -> bool:
    """Tell whether a conversation can be read and its last turn is the assistant's."""
    try:
        return turns_of(value, "")[-1][0] == "assistant"
    except (Unreadable, IndexError):
        return False


def prompt_turns(row: Row, column: str, *, texts: Sequence[str]) -> list[Turn]:
    """Return the turns under a column, after those of the system column where it is no other's."""
    value = look_up(row, column)
    turns: list[Turn] = [("user", value)] if isinstance(value, str) else _listed(value, column)
    system = row.get(SYSTEM_COLUMN)
    if not isinstance(system, str) or not system.strip() or SYSTEM_COLUMN in (column, *texts):
        return turns
    return turns if turns[0][0] == "system" else [("system", system), *turns]


def _listed(value: object, column: str) -> list[Turn]:
    return (
        turns_of(value, column) if is_conversation(value) else [("user", content_of(value, column))]
    )


def instruction_of(turns: Sequence[Turn], column: str) -> Instruction:
    """Return the instruction of these turns as given, but for line ends."""
    if not turns or turns[-1][0] != "user":
        raise Unreadable(f"'{column}' has no turn of the user before the response")
    messages = []
    for role, content in turns:
        if content is None:
            raise Unreadable(f"'{column}' has no text in a turn of the {role}")
        messages.append(Message(role, content.replace("\r\n", "\n")))
    if not messages[-1].content.strip():
        raise Unreadable(f"'{column}' is empty: there is no instruction")
    return Instruction(tuple(messages))


def turns_of(value: object, column: str) -> list[Turn]:
    """Return the turns of a conversation; Unreadable where the value is none."""
    if not isinstance(value, list):
        raise Unreadable(f"'{column}' is {shown(value)}, expected a list of turns")
    return [_turn(turn, column) for turn in value]


def _turn(turn: object, column: str) -> Turn:
    """Read {from, value} and {role, content} alike."""
    if not isinstance(turn, dict):
        raise Unreadable(f"'{column}' holds {shown(turn)}, expected turns of role and content")
    role = turn.get("role") or turn.get("from")
    if not isinstance(role, str) or role not in _ROLES:
        raise Unreadable(f"'{column}' has a turn of {role!r}; known roles: {', '.join(_ROLES)}")
    content = turn.get("content")
    return _ROLES[role], content_of(turn.get("value") if content is None else content, column)


def is_conversation(value: object) -> bool:
    """Tell a list of turns from a list of content parts."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def content_of(value: object, column: str) -> str | None:
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


def whole_instruction(row: Row, instruction: str) -> Row:
    """Return an alpaca row with all of its instruction under that column.

    An input that is not blank follows the task after a blank line. `history`, pairs of what the user said
    and what was answered (LLaMA-Factory's column), goes before it.
    """
    task = look_up(row, instruction)
    extra = content_of(row.get("input"), "input")
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
