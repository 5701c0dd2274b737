"""Gather the response table: one pass over the data, in several processes where the data are large.

Each process reads whole files and sends back columns without texts. Files of one teacher stay together, so
that its samples are numbered as in one pass; where that cannot be known beforehand and turns out to matter,
everything is read again in this process. So the number of processes changes nothing in the table.
"""

import logging
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from preceptor.data import table_cache
from preceptor.data.first_texts import FirstTexts
from preceptor.data.formats import Problem
from preceptor.data.responses import ResponseSource, SourceFile
from preceptor.data.table import Gathered
from preceptor.data.table_builder import TableBuilder
from preceptor.errors import DataError, counted
from preceptor.scorers.verifier.pool import cores
from preceptor.types import Response

logger = logging.getLogger(__name__)

LARGE_BYTES = 32 * 2**20
"""Files that are smaller together are read by this process alone."""

_MOST_PROCESSES = 8
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


@dataclass
class _Part:
    """What reading some of the files gave."""

    columns: "TableBuilder"
    skipped: Mapping[str, int]
    problems: Sequence[Problem]
    first: FirstTexts


def gather(source: Source, column: str | None = None, *, asked: Sequence[bytes] = ()) -> Gathered:
    """Return the response table of all responses, with the rewards that a column of the data holds.

    `asked` are ids of instructions that belong to the comparison even if nobody answered them. The table of
    large files is kept on this machine, and found again as long as nothing changes that it depends on.

    Raises:
        DataError: a file breaks off, none of its rows can be read, or there are no responses at all.
    """
    large = isinstance(source, ResponseSource) and not asked and _bytes(source.files) >= LARGE_BYTES
    key = table_cache.key_of(source.files, column) if large else None
    if key is not None and (kept := table_cache.load(key)) is not None:
        _tell(kept.skipped, kept.problems)
        return kept
    found = _gathered(source, column, asked)
    if key is None or table_cache.key_of(source.files, column) != key:  # changed while it was read
        return found
    return replace(table_cache.save(key, found), first=found.first)


def _bytes(files: Sequence[SourceFile]) -> int:
    """Return how large files are together; 0 where one is no file on this machine."""
    sizes = [Path(file.path).stat().st_size for file in files if Path(file.path).is_file()]
    return sum(sizes) if len(sizes) == len(files) else 0


def _gathered(source: Source, column: str | None, asked: Sequence[bytes]) -> Gathered:
    """Return the table that reading the files gives."""
    parts = _side_by_side(source, column)
    if parts is None or _overlap(parts):
        parts = [_read(source, column)]
    skipped = {path: count for part in parts for path, count in part.skipped.items()}
    problems = [p for part in parts for p in part.problems]
    parts.reverse()
    part = parts.pop()
    columns, first = part.columns.unpacked(), part.first
    while parts:  # each goes once its rows are taken: all of both would be twice the memory
        part = parts.pop()
        columns.extend(part.columns)
        first.extend(part.first)
    if not columns.teachers:
        raise DataError(
            "The data hold no responses. Check the paths and the layout that was recognised."
        )
    if column is not None and not columns.rewards:
        raise _no_reward(column, columns, problems)
    columns.asked.require_one_each()
    if columns.mixed:
        raise _checked_in_two_ways(columns)
    for identity in asked:
        columns.instructions.setdefault(identity, len(columns.instructions))
    return Gathered(columns.table(), skipped, problems, columns.alike(), columns.matched, first)


def _no_reward(column: str, columns: "TableBuilder", problems: Sequence[Problem]) -> DataError:
    """Return the error of a column in which no response has a reward."""
    seen = sum(columns.dropped.values(), Counter[str]())
    listed = ", ".join(f"{count:,} {reason}" for reason, count in seen.items())
    first = next((f" The first: {one}." for one in problems if f"'{column}'" in one.message), "")
    return DataError(
        f"The column '{column}' gives no response a reward ({listed}).{first} A reward is a number such as "
        "0.5 or -3: name another column, or another source of rewards."
    )


def _checked_in_two_ways(columns: "TableBuilder") -> DataError:
    one, other = sorted(min(columns.mixed.values()))
    return DataError(
        f"{counted(len(columns.mixed), 'instruction', 'has')} answers that are checked as '{one}' "
        f"in one row and as "
        f"'{other}' in another, which would compare teachers by two measures. Say how all are checked: "
        "--reference-kind numeric, math, choice, exact, contains or none; or give the rows references of one "
        "kind."
    )


def _read(source: Source, column: str | None) -> _Part:
    columns, first = TableBuilder(column), FirstTexts()
    for response in source:
        columns.add(response)
        first.offer(response)
    return _Part(columns, dict(source.problem_counts), source.problems, first)


def _side_by_side(source: Source, column: str | None) -> list[_Part] | None:
    """Return the parts read by several processes; None where one should, or where one failed."""
    groups = _groups(source.files)
    processes = min(len(groups), cores(), _MOST_PROCESSES)
    if (
        not isinstance(source, ResponseSource)
        or processes < 2
        or _bytes(source.files) < LARGE_BYTES
    ):
        return None
    found: dict[int, _Part] = {}
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(processes))
        workers = []
        for at in range(processes):
            worker = _start(groups, range(at, len(groups), processes), column)
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        readers = [threads.submit(_sent, worker) for worker in workers]
        for worker, reader in zip(workers, readers, strict=True):
            sent = reader.result()
            # Whatever went wrong: reading here shows it, or goes well.
            if worker.wait() or sent is None:
                return None
            found |= sent
    parts = [found.pop(at) for at in range(len(groups))]
    for part in parts:
        _tell(part.skipped, part.problems)
    return parts


def _tell(skipped: Mapping[str, int], problems: Sequence[Problem]) -> None:
    """Log what could not be read of each file."""
    for path, count in skipped.items():
        first = next(problem for problem in problems if problem.path == path)
        logger.warning("%s. The first: %s", counted(count, "problem"), first)


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


def _sent(worker: "subprocess.Popen[bytes]") -> dict[int, _Part] | None:
    """Return the parts that a worker sends, None where it breaks off within one."""
    assert worker.stdout is not None
    found: dict[int, _Part] = {}
    while worker.stdout.peek(1):  # type: ignore[attr-defined]
        try:
            place, part = pickle.load(worker.stdout)
        except (EOFError, pickle.UnpicklingError):
            return None
        found[place] = part
    return found


def work() -> None:
    """Read the groups of files named on standard input; each part goes to standard output once it is read."""
    groups, column = pickle.load(sys.stdin.buffer)
    for place, files in groups.items():
        pickle.dump((place, _read(ResponseSource(files), column)), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _overlap(parts: Sequence[_Part]) -> bool:
    """Tell whether two parts hold samples of one teacher for one instruction."""
    shared = Counter(teacher for part in parts for teacher in part.columns.teachers)
    if max(shared.values(), default=0) < 2:
        return False
    seen: set[tuple[str, bytes]] = set()
    for part in parts:
        names, ids = list(part.columns.teachers), list(part.columns.identities())
        pairs = {
            (names[teacher], ids[instruction])
            for teacher, instruction in part.columns.pairs()
            if shared[names[teacher]] > 1
        }
        if not seen.isdisjoint(pairs):
            return True
        seen |= pairs
    return False
