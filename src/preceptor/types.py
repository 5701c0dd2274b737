"""The nouns every part of Preceptor shares: messages, instructions, responses, scores, estimates, warnings.

Things are known by their content. An instruction's id is the hash of its conversation and a response's key is
the hash of the conversation and its text, so the same text is never scored or paid for twice, whatever file,
row or teacher label it came from.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar, overload

KEY_BYTES = 16
"""Length of an instruction id and of a response key."""

_Value = TypeVar("_Value")


class Message(NamedTuple):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


class _ComputedOnce(Generic[_Value]):
    """A property computed at first use and kept in the instance's dictionary.

    In Python 3.11 functools.cached_property does the same under a lock that costs as much as a hash.
    """

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...
    def __get__(self, instance: object, owner: type) -> Self | _Value:
        if instance is None:
            return self
        value: _Value = self.compute(instance)
        instance.__dict__[self.name] = value
        return value


def _digest(head: bytes, text: str) -> bytes:
    """Hash a head whose length never varies and a text, which so cannot run into one another."""
    raw = head + text.encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=KEY_BYTES).digest()


def _conversation_digest(turns: Iterable[tuple[str, str]]) -> bytes:
    # Each part follows its length, so that no two conversations join to the same text.
    return _digest(b"", "".join(f"{len(role)}:{role}{len(text)}:{text}" for role, text in turns))


@dataclass(frozen=True)
class Instruction:
    """A conversation that ends with the user's turn."""

    messages: tuple[Message, ...]

    @classmethod
    def from_text(cls, text: str) -> "Instruction":
        """Return the single-turn instruction with this user text."""
        return cls((Message("user", text),))

    @_ComputedOnce
    def id(self) -> bytes:
        """The 16-byte hash that matches it across files: of the turns without white space around them."""
        stripped = [(role, content.strip()) for role, content in self.messages]
        return self.given_id if stripped == list(self.messages) else _conversation_digest(stripped)

    @_ComputedOnce
    def given_id(self) -> bytes:
        """The 16-byte hash of the conversation as it is given to models: what they answer is stored by it."""
        return _conversation_digest(self.messages)

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Response:
    """One teacher's text for one instruction and sample index.

    `text` is None where the data has a row but no output; `missing` says why, where that is known. `columns`
    holds numbers the data already carries (for example a reward); None marks a null, NaN what is no number.
    `reference` is the checkable answer, for verifiers. `category` is what the data call the instruction's
    kind.
    """

    teacher: str
    instruction: Instruction
    text: str | None
    sample: int = 0
    finish_reason: str | None = None
    columns: Mapping[str, float | None] = field(default_factory=dict)
    reference: Mapping[str, object] | None = None
    category: str | None = None
    missing: str | None = None

    @_ComputedOnce
    def key(self) -> bytes:
        """The 16-byte hash of the instruction as given and the text: what scores are stored under."""
        return response_key(self.instruction.given_id, self.text or "")

    @_ComputedOnce
    def checked_key(self) -> bytes:
        """The 16-byte hash of the key and the reference: what the score of a check is stored under."""
        if self.reference is None:
            return self.key
        return _digest(self.key, json.dumps(self.reference, sort_keys=True, default=str))


def response_key(instruction_id: bytes, text: str) -> bytes:
    """Return the 16-byte key of a response text to the instruction with this id (`given_id`)."""
    return _digest(instruction_id, text)


@dataclass(frozen=True)
class Generation:
    """What a teacher gave for one instruction and sample index, as it is stored.

    `instruction` is its `given_id`. `text` is None exactly when `note` says why there is none. `tokens`
    counts the answer's tokens and `prompt_tokens` those it was asked with, by the teacher's tokenizer;
    `seconds` is its share of the wall time.
    """

    instruction: bytes
    sample: int
    text: str | None
    finish_reason: str | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    seconds: float | None = None
    note: str | None = None

    @property
    def key(self) -> bytes:
        """The 16-byte key it is stored under."""
        return generation_key(self.instruction, self.sample)


def generation_key(instruction_id: bytes, sample: int) -> bytes:
    """Return the 16-byte key of a teacher's answer to the instruction with this `given_id`, by sample."""
    return _digest(instruction_id, f"sample {sample}")


@dataclass(frozen=True)
class Score:
    """What one scorer puts on one response: its numbers, or none and why.

    `values` is empty exactly when `note` says why there is no score. A list value is a token-level column.
    """

    key: bytes
    values: Mapping[str, float | Sequence[float]]
    note: str | None = None


Flush = Literal["each", "timed"]
"""When a stored row is written: `each` as it comes, because it was paid for, or `timed`, some together."""


class NoteKind(StrEnum):
    """Why a row has no result, for programs: what its note, which is stored for people, begins with."""

    NO_ROOM = "no room"
    NON_FINITE = "non-finite"
    NO_SCORE = "no score"
    NOT_SCORED = "not scored yet"
    REFUSED = "refused request"
    FILTERED = "content filter"
    ONLY_REASONING = "only reasoning"
    REFUSAL = "refusal"
    TOOL_CALL = "tool call"
    EMPTY = "empty answer"
    OTHER = "other"

    def note(self, detail: str) -> str:
        """Return the note of this kind with more words."""
        return f"{self} {detail}"

    @classmethod
    def of(cls, note: str) -> "NoteKind":
        """Return the kind of a stored note."""
        return next((kind for kind in cls if note.startswith(kind)), cls.OTHER)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval and the number of instructions behind it."""

    value: float
    low: float
    high: float
    n: int


Code = Literal[
    # of the numbers compared
    "negative-reward",
    "no-reward",
    "cheapest-reward",
    "looks-like-noise",
    "made-up",
    "failures",
    "missing-scores",
    "winner-changes",
    "few-prompts",
    "skewed",
    "few-values",
    "nothing-to-compare",
    "outlier",
    "rough-interval",
    "foreign-template",
    "left-out",
    # of the responses
    "no-response",
    "sampling",
    "cut-off",
    "copies",
    "truncated",
    "skipped-rows",
    "drawn-from-common",
    "names-alike",
    "prompts-alike",
    "odd-ending",
    "broken-off",
    # of teachers made of another's samples
    "chosen-by-own-reward",
    "not-chosen-yet",
    # of judges' verdicts
    "another-judge",
    "position-bias",
    "benchmark",
]
"""What a warning is about."""


@dataclass(frozen=True)
class Warning:
    """What a reader of a result must know: a code for programs, a sentence for people.

    `teachers` are those it is about, none where it is about the whole result.
    """

    code: Code
    text: str
    teachers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text
