"""Conversations to train on, read from JSON Lines in the `messages` layout of `preceptor export`.

A conversation is known by its content. What was read is put in the order of its digests, so that neither the
names nor the order of files bear on what is trained, and its digest names the data.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preceptor.data.formats import READERS, Journal
from preceptor.errors import DataError
from preceptor.types import Instruction, Message

_ROLES = ("system", "user", "assistant")
_NAMED_PROBLEMS = 5

Conversation = tuple[Message, ...]
"""Turns that end with the assistant's; every assistant turn is trained on."""


@dataclass(frozen=True)
class Conversations:
    """What was read: the conversations in the order of their digests, and what was left out.

    `left_out` counts by reason; `problems` are the first few in words, with file and line.
    """

    rows: tuple[Conversation, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The 32 hexadecimal characters that name the data, whatever order it was read in."""
        state = hashlib.blake2b(digest_size=16)
        for row in self.rows:
            state.update(_key(row))
        return state.hexdigest()


class _Unfit(Exception):
    """Why a row cannot be trained on; counted, never a crash."""


class _Reading:
    """What has been read so far."""

    def __init__(self) -> None:
        self.rows: list[Conversation] = []
        self.left_out: Counter[str] = Counter()
        self.problems: list[str] = []

    def take(self, turns: object, where: str) -> None:
        """Add the conversation of a row, or note why there is none."""
        try:
            self.rows.append(_conversation(turns))
        except _Unfit as reason:
            self.miss(str(reason), where)

    def miss(self, reason: str, where: str) -> None:
        """Count a row that is left out, and keep the first few places."""
        self.left_out[reason] += 1
        if self.left_out[reason] <= _NAMED_PROBLEMS:
            self.problems.append(f"{where}: {reason}")

    def done(self, source: str) -> Conversations:
        """Return what was read; DataError where nothing can be trained on."""
        if not self.rows:
            seen = "; ".join(self.problems[:_NAMED_PROBLEMS]) or "no rows"
            raise DataError(
                f"Nothing to train on in {source}: {seen}. Expected rows with `messages`, a list of "
                "turns with role and content that ends with the assistant's, as `preceptor export "
                "--layout messages` writes them."
            )
        ordered = tuple(sorted(self.rows, key=_key))
        left_out = {reason: count for reason, count in self.left_out.items() if count}
        return Conversations(ordered, left_out, tuple(self.problems[:_NAMED_PROBLEMS]))


def read_conversations(sources: Sequence[str | Path]) -> Conversations:
    """Return the conversations of files (.jsonl, .parquet, ...) or of folders that an export wrote.

    Rows that cannot be trained on are left out, with a warning by file and line. Turns after the last one of
    the assistant are cut off.

    Raises:
        DataError: a file cannot be read, or nothing is left.
    """
    reading = _Reading()
    for path in data_files(sources):
        journal = Journal(str(path))
        for row in READERS[_ending(path)](path, journal, frozenset({"messages"})):
            where = f"{path}, {journal.unit} {journal.line}"
            reading.take(row.get("messages") if isinstance(row, Mapping) else None, where)
        reading.left_out["no valid JSON"] += journal.count
        reading.problems += [str(problem) for problem in journal.problems]
    return reading.done(", ".join(map(str, sources)))


def data_files(sources: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the files that the sources name.

    Raises:
        DataError: there is none, or its ending is unknown.
    """
    for source in sources:
        yield from _files(Path(source))


def conversations_of(rows: Iterable[Sequence[Message | Mapping[str, str]]]) -> Conversations:
    """Return conversations given as lists of turns, each a `Message` or a mapping of role and content.

    Raises:
        DataError: nothing is left to train on.
    """
    reading = _Reading()
    for number, row in enumerate(rows, 1):
        reading.take(list(row), f"row {number}")
    return reading.done("the given rows")


def _key(row: Conversation) -> bytes:
    return Instruction(row).id


def _ending(path: Path) -> str:
    return next((ending for ending in READERS if path.name.lower().endswith(ending)), "")


def _files(source: Path) -> Iterator[Path]:
    """Yield the file, or those of a folder that `preceptor export` wrote."""
    if source.is_dir():
        held = [path for path in sorted(source.glob("train.*")) if _ending(path)]
        if not held:
            raise DataError(
                f"{source} holds no train.jsonl or train.parquet. Name a file, or export."
            )
        yield from held
        return
    if not source.is_file():
        raise DataError(f"No data at {source}: expected a file or a folder that was exported.")
    if not _ending(source):
        raise DataError(f"{source} has no ending that can be read. Known: {', '.join(READERS)}.")
    yield source


def _conversation(turns: object) -> Conversation:
    if not isinstance(turns, list | tuple):
        raise _Unfit("no `messages`")
    messages = tuple(_message(turn) for turn in turns)
    last = max((at for at, turn in enumerate(messages) if turn.role == "assistant"), default=None)
    if last is None:
        raise _Unfit("no assistant turn")
    if last == 0:
        raise _Unfit("nothing before the assistant's turn")
    if not all(turn.content.strip() for turn in messages[: last + 1] if turn.role == "assistant"):
        raise _Unfit("an empty assistant turn")
    return messages[: last + 1]


def _message(turn: object) -> Message:
    if isinstance(turn, Message):
        turn = turn._asdict()
    if not isinstance(turn, Mapping):
        raise _Unfit("a turn that is no object")
    role, content = turn.get("role"), turn.get("content")
    if turn.get("tool_calls"):
        raise _Unfit("calls of tools")
    if role not in _ROLES:
        raise _Unfit("a role other than system, user and assistant")
    if not isinstance(content, str):
        raise _Unfit("a turn whose content is no text")
    return Message(role, content)
