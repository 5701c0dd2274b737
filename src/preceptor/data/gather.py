"""Gather the response table: one pass over the data, in several processes where the data are large.

Each process reads whole files and sends back columns without texts. Files of one teacher stay together, so
that its samples are numbered as in one pass; where that cannot be known beforehand and turns out to matter,
everything is read again in this process. So the number of processes changes nothing in the table.
"""

import logging
import math
import pickle
import subprocess
import sys
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from preceptor.data.formats import Problem
from preceptor.data.matching import Asked
from preceptor.data.responses import ResponseSource, SourceFile
from preceptor.data.table import (
    EMPTY_OUTPUT,
    LOST,
    NO_NUMBER,
    NO_OUTPUT,
    NULL_REWARD,
    ResponseTable,
    Signs,
)
from preceptor.engines.endings import LENGTH, is_odd
from preceptor.engines.reasoning import UNFINISHED, answered, has_reasoning, is_unfinished
from preceptor.errors import DataError, counted
from preceptor.scorers.verifier.pool import cores
from preceptor.types import KEY_BYTES, Instruction, Message, NoteKind, Response

logger = logging.getLogger(__name__)

LARGE_BYTES = 32 * 2**20
"""Files that are smaller together are read by this process alone."""

_MOST_PROCESSES = 8
_MOST_ENDINGS = 10
_WORK = "from preceptor.data.gather import work; work()"


class Source(Protocol):
    """Responses that can be gone through again and again, without being kept in memory."""

    @property
    def files(self) -> Sequence[SourceFile]:
        """The files they are read from."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """The first things that the latest pass could not read."""
        ...

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems the latest pass met in each file that has any."""
        ...

    def __iter__(self) -> Iterator[Response]:
        """Yield every response, in the same order each time."""
        ...


@dataclass(frozen=True)
class Gathered:
    """The response table, and what could not be read: how many rows of each file, and the first of them.

    `alike` counts the instructions that are there in several Unicode forms (composed and decomposed), which
    are not matched, because models read them as different tokens. `matched` counts the responses that are
    samples of an instruction with other turns, because it is matched by something else than its text.
    """

    table: ResponseTable
    skipped: Mapping[str, int]
    problems: Sequence[Problem]
    alike: int = 0
    matched: int = 0


@dataclass
class _Part:
    """What reading some of the files gave."""

    columns: "_Columns"
    skipped: Mapping[str, int]
    problems: Sequence[Problem]


def gather(source: Source, column: str | None = None, *, asked: Sequence[bytes] = ()) -> Gathered:
    """Return the response table of all responses, with the rewards that a column of the data holds.

    `asked` are ids of instructions that belong to the comparison even if nobody answered them.

    Raises:
        DataError: a file breaks off, none of its rows can be read, or there are no responses at all.
    """
    parts = _side_by_side(source, column)
    if parts is None or _overlap(parts):
        parts = [_read(source, column)]
    columns = parts[0].columns
    for part in parts[1:]:
        columns.extend(part.columns)
    if not columns.teachers:
        raise DataError(
            "The data hold no responses. Check the paths and the layout that was recognised."
        )
    if column is not None and not columns.rewards:
        raise _no_reward(column, columns, [p for part in parts for p in part.problems])
    columns.asked.require_one_each()
    if columns.mixed:
        raise _checked_in_two_ways(columns)
    for identity in asked:
        columns.instructions.setdefault(identity, len(columns.instructions))
    skipped = {path: count for part in parts for path, count in part.skipped.items()}
    problems = [p for part in parts for p in part.problems]
    return Gathered(columns.table(), skipped, problems, columns.alike(), columns.matched)


def _no_reward(column: str, columns: "_Columns", problems: Sequence[Problem]) -> DataError:
    """Return the error of a column in which no response has a reward."""
    seen = sum(columns.dropped.values(), Counter[str]())
    listed = ", ".join(f"{count:,} {reason}" for reason, count in seen.items())
    first = next((f" The first: {one}." for one in problems if f"'{column}'" in one.message), "")
    return DataError(
        f"The column '{column}' gives no response a reward ({listed}).{first} A reward is a number such as "
        "0.5 or -3: name another column, or another source of rewards."
    )


def _checked_in_two_ways(columns: "_Columns") -> DataError:
    one, other = sorted(min(columns.mixed.values()))
    return DataError(
        f"{counted(len(columns.mixed), 'instruction', 'has')} answers that are checked as '{one}' "
        f"in one row and as "
        f"'{other}' in another, which would compare teachers by two measures. Say how all are checked: "
        "--reference-kind numeric, math, choice, exact, contains or none; or give the rows references of one "
        "kind."
    )


def _read(source: Source, column: str | None) -> _Part:
    columns = _Columns(column)
    for response in source:
        columns.add(response)
    return _Part(columns, dict(source.problem_counts), source.problems)


def _side_by_side(source: Source, column: str | None) -> list[_Part] | None:
    """Return the parts read by several processes; None where one should, or where one failed."""
    sizes = [Path(file.path).stat().st_size for file in source.files if Path(file.path).is_file()]
    groups = _groups(source.files)
    processes = min(len(groups), cores(), _MOST_PROCESSES)
    if (
        not isinstance(source, ResponseSource)
        or processes < 2
        or len(sizes) < len(source.files)
        or sum(sizes) < LARGE_BYTES
    ):
        return None
    found: dict[int, _Part] = {}
    with ExitStack() as stack:
        workers = []
        for at in range(processes):
            worker = _start(groups, range(at, len(groups), processes), column)
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        for worker in workers:
            answer, _ = worker.communicate()
            # Whatever went wrong: reading here shows it, or goes well.
            if worker.returncode:
                return None
            found |= pickle.loads(answer)
    parts = [found[at] for at in range(len(groups))]
    for part in parts:
        for path, count in part.skipped.items():
            first = next(problem for problem in part.problems if problem.path == path)
            logger.warning("%d problems. The first: %s", count, first)
    return parts


def _groups(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    """Return the files in groups that can be read apart, each in order.

    Where rows name the teacher, a file stands alone.
    """
    groups: dict[str, list[SourceFile]] = {}
    for file in files:
        named = file.teacher.startswith("teacher '")
        groups.setdefault(file.teacher if named else file.path, []).append(file)
    return list(groups.values())


def _start(
    groups: Sequence[list[SourceFile]], places: Sequence[int], column: str | None
) -> "subprocess.Popen[bytes]":
    # Not multiprocessing: it runs the user's script again, or copies a process full of threads.
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", _WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert worker.stdin is not None
    # A worker that died at once is noticed when its answer is waited for.
    with suppress(BrokenPipeError), worker.stdin as pipe:
        pickle.dump(({place: groups[place] for place in places}, column), pipe)
    worker.stdin = None
    return worker


def work() -> None:
    """Read the groups of files named on standard input; the parts go to standard output."""
    groups, column = pickle.load(sys.stdin.buffer)
    parts = {place: _read(ResponseSource(files), column) for place, files in groups.items()}
    pickle.dump(parts, sys.stdout.buffer)


def _overlap(parts: Sequence[_Part]) -> bool:
    """Tell whether two parts hold samples of one teacher for one instruction."""
    shared = Counter(teacher for part in parts for teacher in part.columns.teachers)
    if max(shared.values(), default=0) < 2:
        return False
    seen: set[tuple[str, bytes]] = set()
    for part in parts:
        names, ids = list(part.columns.teachers), list(part.columns.instructions)
        pairs = {
            (names[teacher], ids[instruction])
            for teacher, instruction in part.columns.pairs()
            if shared[names[teacher]] > 1
        }
        if not seen.isdisjoint(pairs):
            return True
        seen |= pairs
    return False


class _Columns:
    """The response table under construction."""

    def __init__(self, reward: str | None) -> None:
        self._reward = reward
        self.teachers: dict[str, int] = {}
        self.instructions: dict[bytes, int] = {}
        self.teacher, self.instruction, self.sample = array("i"), array("i"), array("i")
        self.keys, self.checked_keys, self.answer_keys = bytearray(), bytearray(), bytearray()
        self.has_references = False
        self.asked = Asked()
        self.kinds: dict[int, str] = {}
        self.mixed: dict[int, tuple[str, str]] = {}
        self.odd: dict[str, Counter[str]] = {}
        self.rewards = array("d")
        self.dropped: dict[str, Counter[str]] = {}
        self.lost: list[tuple[int, int, int]] = []
        self.cut_off = array("b")
        self.signs = [0] * len(Signs())
        self.categories: dict[int, str] = {}
        self.composed: dict[bytes, bytes] = {}
        self.first_contents: dict[tuple[int, int], bytes] = {}
        self.matched = 0

    def add(self, response: Response) -> None:
        """Add a row; one without output or reward is counted alone."""
        teacher = self.teachers.setdefault(response.teacher, len(self.teachers))
        identity = response.instruction.id
        known = len(self.instructions)
        instruction = self.instructions.setdefault(identity, known)
        self.asked.see(response.instruction)
        if instruction == known and not all(map(_is_composed, response.instruction.messages)):
            self.composed[identity] = _composed(response.instruction).id
        if response.category is not None:
            self._categorise(instruction, response.category)
        read = answered(response)
        reason = _absent(response, read)
        reward = response.columns.get(self._reward) if self._reward is not None else None
        if response.reference is not None:
            self._check_by(instruction, str(response.reference.get("kind")))
        if reason is None and self._reward is not None and (reward is None or math.isnan(reward)):
            reason = NULL_REWARD if reward is None else NO_NUMBER
        if reason is not None:
            self.dropped.setdefault(response.teacher, Counter())[reason] += 1
            self.lost.append((teacher, instruction, LOST.index(reason)))
            return
        self._note_signs(response)
        if response.instruction.match is not None:
            content = response.instruction.content_id
            first = self.first_contents.setdefault((teacher, instruction), content)
            self.matched += first != content
        self.teacher.append(teacher)
        self.instruction.append(instruction)
        self.sample.append(response.sample)
        self.keys += response.key
        self.checked_keys += response.checked_key
        self.answer_keys += read.key
        self.has_references |= response.reference is not None
        self.cut_off.append(response.finish_reason == LENGTH)
        if is_odd(response.finish_reason):
            counted = self.odd.setdefault(response.teacher, Counter())
            known = response.finish_reason in counted or len(counted) < _MOST_ENDINGS
            counted[str(response.finish_reason) if known else "others"] += 1
        if reward is not None:
            self.rewards.append(reward)

    def _note_signs(self, response: Response) -> None:
        text = response.text or ""
        tools = bool(response.tool_calls) or response.instruction.calls
        for place, count in enumerate(Signs(1, has_reasoning(text), tools, len(text))):
            self.signs[place] += count

    def _categorise(self, instruction: int, category: str) -> None:
        """Note an instruction's category; of several the first by alphabet, in whatever order they come."""
        known = self.categories.setdefault(instruction, category)
        if category < known:
            self.categories[instruction] = category

    def _check_by(self, instruction: int, kind: str) -> None:
        """Note the kind by which an instruction's answers are checked; a second one is remembered."""
        known = self.kinds.setdefault(instruction, sys.intern(kind))
        if known != kind:
            self.mixed.setdefault(instruction, (known, kind))

    def extend(self, other: "_Columns") -> None:
        """Add the rows of another part behind these."""
        teachers = [self.teachers.setdefault(t, len(self.teachers)) for t in other.teachers]
        ids = self.instructions
        instructions = [ids.setdefault(identity, len(ids)) for identity in other.instructions]
        self.teacher.frombytes(_renumbered(other.teacher, teachers))
        self.instruction.frombytes(_renumbered(other.instruction, instructions))
        self.sample += other.sample
        self.keys += other.keys
        self.checked_keys += other.checked_keys
        self.answer_keys += other.answer_keys
        self.asked.add(other.asked)
        self.matched += other.matched
        self.has_references |= other.has_references
        self.rewards += other.rewards
        for place, kind in other.kinds.items():
            self._check_by(instructions[place], kind)
        for place, pair in other.mixed.items():
            self.mixed.setdefault(instructions[place], pair)
        for name, endings in other.odd.items():
            self.odd.setdefault(name, Counter()).update(endings)
        for name, reasons in other.dropped.items():
            self.dropped.setdefault(name, Counter()).update(reasons)
        self.lost += [(teachers[one], instructions[two], why) for one, two, why in other.lost]
        self.cut_off += other.cut_off
        self.signs = [sum(pair) for pair in zip(self.signs, other.signs, strict=True)]
        self.composed |= other.composed
        for place, category in other.categories.items():
            self._categorise(instructions[place], category)

    def alike(self) -> int:
        """Return how many instructions are there in more than one Unicode form."""
        forms = Counter(self.composed.values())
        return sum(count + (one in self.instructions) > 1 for one, count in forms.items())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield teacher and instruction of every row, also of those that cannot be compared."""
        yield from zip(self.teacher, self.instruction, strict=True)
        yield from ((teacher, instruction) for teacher, instruction, _ in self.lost)

    def _missing(self) -> None:
        """Count the instructions for which a teacher has no row at all."""
        seen = np.zeros((len(self.teachers), len(self.instructions)), np.bool_)
        seen[np.frombuffer(self.teacher, np.int32), np.frombuffer(self.instruction, np.int32)] = (
            True
        )
        for teacher, instruction, _ in self.lost:
            seen[teacher, instruction] = True
        for name, missing in zip(self.teachers, (~seen).sum(axis=1).tolist(), strict=True):
            if missing:
                self.dropped.setdefault(name, Counter())["missing"] += missing

    def _lost(self, place: NDArray[np.int32]) -> NDArray[np.int32]:
        lost = np.array(self.lost, np.int32).reshape(-1, 3)
        lost[:, 1] = place[lost[:, 1]]
        return lost

    def table(self) -> ResponseTable:
        """Return the response table; instructions go by their ids, so that the order of files is nothing."""
        self._missing()
        kind = np.dtype((np.void, KEY_BYTES))
        ids = sorted(self.instructions)
        place = np.empty(len(ids), np.int32)
        place[[self.instructions[identity] for identity in ids]] = np.arange(len(ids))
        names = sorted(set(self.categories.values()))
        code = {name: number for number, name in enumerate(names)}
        category = np.full(len(ids), -1, np.int32)
        for instruction, name in self.categories.items():
            category[place[instruction]] = code[name]
        return ResponseTable(
            teachers=tuple(self.teachers),
            instructions=np.frombuffer(b"".join(ids), dtype=kind),
            teacher=np.frombuffer(self.teacher, dtype=np.int32),
            instruction=place[np.frombuffer(self.instruction, dtype=np.int32)],
            sample=np.frombuffer(self.sample, dtype=np.int32),
            keys=np.frombuffer(self.keys, dtype=kind),
            checked_keys=np.frombuffer(self.checked_keys, kind) if self.has_references else None,
            answer_keys=np.frombuffer(self.answer_keys, kind)
            if self.answer_keys != self.keys
            else None,
            values={"reward": np.frombuffer(self.rewards)} if self._reward is not None else {},
            cut_off=np.frombuffer(self.cut_off, dtype=np.bool_),
            dropped={name: dict(self.dropped.get(name, {})) for name in self.teachers},
            categories=tuple(names),
            category=category,
            odd_endings={name: dict(endings) for name, endings in self.odd.items()},
            lost=self._lost(place),
            signs=Signs(*self.signs),
        )


def _renumbered(places: "array[int]", numbers: Sequence[int]) -> bytes:
    return np.array(numbers, np.int32)[np.frombuffer(places, np.int32)].tobytes()


def _is_composed(message: Message) -> bool:
    return unicodedata.is_normalized("NFC", message.content)


def _composed(instruction: Instruction) -> Instruction:
    """Return the instruction in Unicode's composed form."""
    turns = (
        one._replace(content=unicodedata.normalize("NFC", one.content))
        for one in instruction.messages
    )
    return replace(instruction, messages=tuple(turns))


def _absent(response: Response, read: Response) -> str | None:
    """Return why a response has no answer, None where it has; `read` is what remains without its trace."""
    if response.text is None:
        return response.missing if response.missing in LOST else NO_OUTPUT
    if (read.text or "").strip():
        return None
    if not response.text.strip():
        return EMPTY_OUTPUT
    return UNFINISHED if is_unfinished(response.text) else NoteKind.ONLY_REASONING
