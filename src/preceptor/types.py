"""The nouns every part of Preceptor shares: messages, instructions, responses, scores, estimates.

The one idea: things are known by their content. An instruction's id is the hash of its conversation and
a response's key is the hash of that id and its text, so the same text is never scored or paid for twice,
whatever file, row or teacher label it came from.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

KEY_BYTES = 16
"""Length of an instruction id and of a response key."""


class Message(NamedTuple):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


def _digest(*parts: str | bytes) -> bytes:
    """Hash the parts, each preceded by its length so that no two part lists collide by joining."""
    state = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little"))
        state.update(raw)
    return state.digest()


@dataclass(frozen=True)
class Instruction:
    """A conversation that ends with the user's turn."""

    messages: tuple[Message, ...]

    @classmethod
    def from_text(cls, text: str) -> "Instruction":
        """Return the single-turn instruction with this user text."""
        return cls((Message("user", text),))

    @cached_property
    def id(self) -> bytes:
        """The 16-byte hash of the conversation."""
        return _digest(*(part for message in self.messages for part in message))

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Response:
    """One teacher's text for one instruction and sample index.

    `text` is None where the data has a row but no output. `columns` holds numbers the data already carries
    (for example a reward); None marks a null. `reference` is the checkable answer, for verifiers.
    """

    teacher: str
    instruction: Instruction
    text: str | None
    sample: int = 0
    finish_reason: str | None = None
    columns: Mapping[str, float | None] = field(default_factory=dict)
    reference: Mapping[str, object] | None = None

    @cached_property
    def key(self) -> bytes:
        """The 16-byte hash of the instruction and the text: what scores are stored under."""
        return response_key(self.instruction.id, self.text or "")


def response_key(instruction_id: bytes, text: str) -> bytes:
    """Return the 16-byte key of a response text to the instruction with this id."""
    return _digest(instruction_id, text)


@dataclass(frozen=True)
class Score:
    """What one scorer puts on one response: its numbers, or none and why.

    `values` is empty exactly when `note` says why there is no score. A list value is a token-level column.
    """

    key: bytes
    values: Mapping[str, float | Sequence[float]]
    note: str | None = None


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval and the number of instructions behind it."""

    value: float
    low: float
    high: float
    n: int
