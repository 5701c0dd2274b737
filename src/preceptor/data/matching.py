"""What makes two teachers' rows answers to one instruction: its content, its user's turns, or an id.

In a conversation of several turns each teacher wrote its own earlier answers, so that by content no two
instructions are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from preceptor.data.roles import Row, Unreadable, canonical, look_up, shown
from preceptor.errors import DataError

if TYPE_CHECKING:
    from preceptor.config.data import Match
    from preceptor.types import Instruction

ID_COLUMNS = (
    *("id", "question_id", "prompt_id", "instruction_id", "conversation_id", "custom_id"),
    *("uuid", "uid", "idx", "index", "task_id", "problem_id"),
)
"""Columns that number instructions, in the order of preference."""

_ASKED = ("user", "system", "developer")


@dataclass(frozen=True)
class Matching:
    """By what instructions are matched; `column` holds the id where that is it."""

    by: Match = "text"
    column: str = ""

    def of(self, instruction: Instruction, row: Row) -> str | None:
        """Return what matches an instruction in place of its content; None where that does.

        Raises:
            Unreadable: the row has no id.
        """
        if self.by == "text":
            return None
        if self.by == "user-turns":
            return user_turns(instruction)
        value = look_up(row, self.column)
        if isinstance(value, bool | float) or not isinstance(value, str | int) or value == "":
            raise Unreadable(f"'{self.column}' is {shown(value)}, expected the id to match by")
        return str(value)


BY_TEXT = Matching()


def user_turns(instruction: Instruction) -> str:
    """Return the digest of what the user and the system said, without white space around it."""
    turns = [(one.role, one.content.strip()) for one in instruction.messages if one.role in _ASKED]
    raw = canonical(turns).encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=16).hexdigest()


class Asked:
    """What the user says in each instruction that is matched by an id; two texts under one are a mistake."""

    def __init__(self) -> None:
        self._said: dict[str, bytes] = {}
        self._clashing: dict[str, str] = {}

    def see(self, instruction: Instruction) -> None:
        """Take in an instruction."""
        if instruction.match is None:
            return
        words = [one.content.split() for one in instruction.messages if one.role == "user"]
        said = blake2b(canonical(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if self._said.setdefault(instruction.match, said) != said:
            self._clashing.setdefault(instruction.match, instruction.text)

    def add(self, other: Asked) -> None:
        """Take in what another has seen."""
        self._clashing |= other._clashing
        for match, said in other._said.items():
            if self._said.setdefault(match, said) != said:
                self._clashing.setdefault(match, "")

    def require_one_each(self) -> None:
        """Refuse ids that stand for several questions.

        Raises:
            DataError: there are some.
        """
        if not self._clashing:
            return
        match, text = next(iter(self._clashing.items()))
        shown_text = f" (in one place {text!r:.60})" if text else ""
        raise DataError(
            f"{len(self._clashing):,} of {len(self._said):,} ids stand for different questions, such as "
            f"{match!r:.40}{shown_text}: matched by them, teachers would be compared on what they were not "
            "both asked. Name the column that numbers the questions with --id-column, or match by user-turns."
        )


def matching_of(by: Match, id_column: str | None, known: Sequence[str], *, where: str) -> Matching:
    """Return how the rows of a file with these columns are matched.

    Raises:
        DataError: they are to be matched by an id and have no column that is known to hold one.
    """
    if by != "id":
        return Matching(by)
    column = id_column or next((name for name in ID_COLUMNS if name in known), None)
    if column is None:
        raise DataError(
            f"{where} has no column that is known to hold an id: {', '.join(ID_COLUMNS)}. Its columns: "
            f"{', '.join(known)}. Name it with --id-column, or match by user-turns."
        )
    return Matching(by, column)
