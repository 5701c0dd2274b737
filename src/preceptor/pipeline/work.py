"""Work as plain data: whose rows are missing from the store, how many, and the function that puts them there.

A step of generation or scoring is one. Who runs it, this process or others, is the executor's concern: rows
are idempotent under their keys, so any number of processes may run the same work at once. What travels to
others is a task; the work hands its parts out, and is told what was stored.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from preceptor.config.runtime import Runtime
from preceptor.data.table import Keys
from preceptor.errors import PreceptorError
from preceptor.scorers.base import Resource
from preceptor.store.identity import Identity
from preceptor.store.store import ScorePartition
from preceptor.store.writer import StoreWriter
from preceptor.types import Flush, Response, Score

_LEAST_FLUSH_SECONDS = 0.25


@dataclass(frozen=True)
class Amount:
    """Work done or to do: `responses`, the `characters` of their texts, and `tokens` where known."""

    responses: int = 0
    characters: int = 0
    tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.responses + other.responses,
            self.characters + other.characters,
            self.tokens + other.tokens,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return self + Amount(-other.responses, -other.characters, -other.tokens)


class Progress(Protocol):
    """What shows every step."""

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """A step starts: `stored` responses need nothing, `missing` is to be computed."""
        ...

    def advance(self, done: Amount) -> None:
        """A batch was stored."""
        ...

    def end(self) -> None:
        """The step has ended."""
        ...

    def say(self, lines: Sequence[str]) -> None:
        """Something was found out between steps: these lines say it."""
        ...


class Silent:
    """A progress that shows nothing."""

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Show nothing."""

    def advance(self, done: Amount) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""

    def say(self, lines: Sequence[str]) -> None:
        """Show nothing."""


Part = Sequence[Sequence[Response]]
"""Whole instructions, each with all its responses, so that what is finished of them is paired."""

Stored = Callable[[Sequence[bytes], int], None]
"""Is told the keys of rows that are in the store now, and how many tokens they took."""


class Task(Protocol):
    """Scoring by one scorer, a part at a time. Its copy in another process loads what it needs there."""

    @property
    def partition(self) -> ScorePartition:
        """Where the rows go."""
        ...

    @property
    def flush(self) -> Flush:
        """When rows are stored; with `each` every one is paid for."""
        ...

    @property
    def resource(self) -> Resource:
        """What computing loads."""
        ...

    def compute(self, part: Part, writer: StoreWriter[Score]) -> None:
        """Compute the rows of a part, and give each finished batch to the writer."""
        ...

    def key(self, response: Response) -> bytes:
        """Return what the row of a response is stored under."""
        ...

    def finished(self, seen: set[str] | None = None) -> Keys:
        """Return the stored keys for which nothing is left to compute; `seen` is that of `Shards.keys`."""
        ...

    def require_same(self) -> None:
        """Check, in another process, that its rows would be those that are meant.

        Raises:
            ModelError: the model is not found there, or is another one.
            StoreError: the store is not there.
        """
        ...


Workers = Callable[[Task, Iterable[Part], Stored], None]
"""Computes all parts; when it returns, what could be computed is stored, and was told."""


def here(task: Task, parts: Iterable[Part], stored: Stored) -> None:
    """Compute the parts in this process, one after another."""

    def told(rows: Sequence[Score]) -> None:
        stored([row.key for row in rows], tokens_of(rows))

    with StoreWriter(task.partition, task.flush, told) as writer:
        for part in parts:
            task.compute(part, writer)
            # Others see at once what is done, but quick scores do not make a shard for every part.
            writer.flush(_LEAST_FLUSH_SECONDS)


def tokens_of(rows: Sequence[Score]) -> int:
    """Return the tokens that the rows say they took."""
    values: Iterable[Any] = (row.values.get("tokens") for row in rows)
    return sum(int(value) for value in values if isinstance(value, float))


class Work(Protocol):
    """Rows of one identity that the store is to hold."""

    @property
    def identity(self) -> Identity:
        """What makes the rows."""
        ...

    @property
    def resource(self) -> Resource:
        """What is loaded for it, and freed after its last use."""
        ...

    def lacking(self) -> int:
        """Return how many rows the store lacks."""
        ...

    def preflight(self) -> None:
        """Check what it needs before anything is spent: endpoint and key."""
        ...

    def run(self, progress: Progress, workers: Workers = here) -> None:
        """Have what is missing computed and stored; `workers` do what can be divided."""
        ...


Executor = Callable[[Work, Progress], None]
"""Runs work: when it returns, the store holds what was missing."""


def in_process(work: Work, progress: Progress) -> None:
    """Run work in this process."""
    work.run(progress)


def preflight(works: Iterable[Work]) -> None:
    """Check all that has something missing, before the first is run.

    Raises:
        ModelError: an address or a key cannot be used.
    """
    for work in {work.identity: work for work in works}.values():
        try:
            work.preflight()
        except PreceptorError:
            if (
                work.lacking()
            ):  # a look at all that is stored, which is spared where nothing is wrong
                raise


def free(work: Work, later: Sequence[Work]) -> None:
    """Free what the work has loaded, unless later work uses it too."""
    if not any(work.resource is one.resource for one in later):
        work.resource.release()


def run_all(works: Sequence[Work], execute: Executor, progress: Progress, *, frees: bool) -> None:
    """Run works one after another; what each has loaded is freed after its last use, where `frees`."""
    for place, work in enumerate(works):
        try:
            execute(work, progress)
        finally:
            if frees:
                free(work, works[place + 1 :])


def recorded(runtime: Runtime, name: str) -> dict[str, object]:
    """Return what is written beside an identity without being part of it; `name` says whose rows they are."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, object] = {"name": name, "device": runtime.resolved_device()}
    for package in ("preceptor", "torch", "transformers", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
