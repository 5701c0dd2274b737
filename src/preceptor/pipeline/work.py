"""Work as plain data: whose rows are missing from the store, how many, and the function that puts them there.

A step of generation or scoring is one. Who runs it, this process or others, is the executor's concern: rows
are idempotent under their keys, so any number of processes may run the same work at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from preceptor.config.runtime import Runtime
from preceptor.scorers.base import Resource
from preceptor.store.identity import Identity


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

    def run(self, progress: Progress) -> None:
        """Compute and store what is missing."""
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
        if work.lacking():
            work.preflight()


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
