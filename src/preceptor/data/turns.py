"""The parts of a row that every layout reads alike: texts, turns, and the instruction they make.

A bad row, or one bad answer in it, is `Unreadable` with its reason, never a crash.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from preceptor.data.roles import (
    Row,
    Turn,
    Unreadable,
    content_of,
    is_conversation,
    look_up,
    shown,
    turns_of,
)
from preceptor.types import Instruction, Message

Report = Callable[[str], None]

SYSTEM_COLUMN = "system"
"""The column whose text, beside a prompt, is the system turn before it."""

HISTORY_COLUMN = "history"
"""Alpaca's column of the turns before the instruction."""

_SYSTEM = ("system", "developer")
_ASKING = ("user", "tool")


class Answer(NamedTuple):
    """One teacher's text as a layout finds it.

    `extras` is where the teacher, numbers and finish reason are looked up; `teacher` is set only
    where the column of the text is named after its teacher.
    """

    instruction: Instruction
    text: str | None
    extras: Row
    teacher: str | None = None
    tool_calls: str = ""


def ends_with_answer(value: object) -> bool:
    """Tell whether a conversation can be read and its last turn is the assistant's."""
    try:
        return turns_of(value, "")[-1].role == "assistant"
    except (Unreadable, IndexError):
        return False


def prompt_turns(row: Row, column: str, *, texts: Sequence[str]) -> list[Turn]:
    """Return the turns under a column, after those of the system column where it is no other's."""
    value = look_up(row, column)
    turns = [Turn("user", value)] if isinstance(value, str) else _listed(value, column)
    system = row.get(SYSTEM_COLUMN)
    if not isinstance(system, str) or not system.strip() or SYSTEM_COLUMN in (column, *texts):
        return turns
    return turns if turns[0].role in _SYSTEM else [Turn("system", system), *turns]


def _listed(value: object, column: str) -> list[Turn]:
    return (
        turns_of(value, column)
        if is_conversation(value)
        else [Turn("user", content_of(value, column))]
    )


def instruction_of(turns: Sequence[Turn], column: str) -> Instruction:
    """Return the instruction of these turns as given, but for line ends."""
    roles = [turn.role for turn in turns]
    if "user" not in roles or roles[-1] not in _ASKING:
        raise Unreadable(f"'{column}' has no turn of the user before the response")
    messages = []
    for role, content, calls, name in turns:
        if content is None:
            raise Unreadable(f"'{column}' has no text in a turn of the {role}")
        messages.append(Message(role, content.replace("\r\n", "\n"), calls, name))
    if messages[-1].role == "user" and not messages[-1].content.strip():
        raise Unreadable(f"'{column}' is empty: there is no instruction")
    return Instruction(tuple(messages))


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
