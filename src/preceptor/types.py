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

DataKind = Literal["chat", "reasoning", "agent"]
"""What teachers' responses are: answers, answers reached by a long trace, or actions with tools."""

_Value = TypeVar("_Value")


class Message(NamedTuple):
    """One turn of a conversation; `role` is system, developer, user, assistant or tool.

    `tool_calls` is what an assistant calls, canonical JSON of a list of `{"arguments", "name"}`; `name` is
    the tool that a tool's turn comes from. Both are "" where there is none. A reasoning trace stands in
    `content`, in marks.
    """

    role: str
    content: str
    tool_calls: str = ""
    name: str = ""

    @property
    def plain(self) -> bool:
        """Whether role and content are all of it."""
        return not (self.tool_calls or self.name)

    @property
    def parts(self) -> tuple[str, ...]:
        """Role and content, and the others where there are any: what identities are made of."""
        return tuple(self)[: 2 if self.plain else None]

    @property
    def text(self) -> str:
        """What it says, and under it what it calls, as people and judges are shown it."""
        return "\n\n".join(filter(None, (self.content, self.tool_calls)))

    def as_dict(self) -> dict[str, object]:
        """Return it as chat templates and data sets have it, without fields that are empty."""
        row: dict[str, object] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            row["tool_calls"] = [
                {"type": "function", "function": call} for call in json.loads(self.tool_calls)
            ]
        return row | ({"name": self.name} if self.name else {})


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


def _conversation_digest(turns: Iterable[Message], tools: str) -> bytes:
    # Each part follows its length, so that no two conversations join to the same text. A letter says what
    # a part is that most turns do not have.
    parts = [
        f"{len(turn.role)}:{turn.role}{len(turn.content)}:{turn.content}"
        if turn.plain
        else f"{len(turn.role)}:{turn.role}{len(turn.content)}:{turn.content}"
        f"c{len(turn.tool_calls)}:{turn.tool_calls}n{len(turn.name)}:{turn.name}"
        for turn in turns
    ]
    return _digest(b"", "".join([*parts, f"t{len(tools)}:{tools}" if tools else ""]))


@dataclass(frozen=True)
class Instruction:
    """A conversation up to the answer that is scored; it ends with a turn of the user or of a tool.

    `tools` is canonical JSON of the schemas of the tools that may be called, "" for none. `match` is what
    matches it across files in place of its content.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    match: str | None = None

    @classmethod
    def from_text(cls, text: str) -> "Instruction":
        """Return the single-turn instruction with this user text."""
        return cls((Message("user", text),))

    @_ComputedOnce
    def id(self) -> bytes:
        """The 16-byte hash that matches it across files: of `match`, where there is none of its content."""
        if self.match is not None:
            return _digest(b"", f"m{len(self.match)}:{self.match}")
        return self.content_id

    @_ComputedOnce
    def content_id(self) -> bytes:
        """The 16-byte hash of the turns without white space around them."""
        for turn in self.messages:
            if turn.content != turn.content.strip():
                break
        else:
            return self.given_id
        stripped = [turn._replace(content=turn.content.strip()) for turn in self.messages]
        return _conversation_digest(stripped, self.tools)

    @_ComputedOnce
    def given_id(self) -> bytes:
        """The 16-byte hash of the conversation as it is given to models: what they answer is stored by it."""
        return _conversation_digest(self.messages, self.tools)

    @property
    def calls(self) -> bool:
        """Whether tools may be called in it, or were."""
        return bool(self.tools) or any(
            turn.role == "tool" or not turn.plain for turn in self.messages
        )

    @property
    def text(self) -> str:
        """The last turn: the user's, or what a tool gave."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Response:
    """One teacher's text for one instruction and sample index.

    `text` is None where the data has a row but no output; `missing` says why, where that is known. `columns`
    holds numbers the data already carries (for example a reward); None marks a null, NaN what is no number.
    `reference` is the checkable answer, for verifiers. `category` is what the data call the instruction's
    kind. `tool_calls` is what the answer calls, as in a `Message`.
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
    tool_calls: str = ""

    @_ComputedOnce
    def key(self) -> bytes:
        """The 16-byte hash of the instruction as given and the answer: what scores are stored under."""
        key = response_key(self.instruction.given_id, self.text or "")
        return _digest(key, self.tool_calls) if self.tool_calls else key

    @property
    def message(self) -> Message:
        """The turn that it is."""
        return Message("assistant", self.text or "", self.tool_calls)

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
    KILLED = "killed its worker"
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
    "metrics-disagree",
    "one-study",
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
    "near-duplicates",
    "truncated",
    "left-out-turns",
    "opened-thought",
    "skipped-rows",
    "drawn-from-common",
    "names-alike",
    "prompts-alike",
    "matched-samples",
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
