"""The progress of long work: live bars in a terminal or a notebook, lines in a log, or nothing."""

import importlib.util
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.progress import ProgressColumn as Column
from rich.text import Text

from preceptor.errors import counted
from preceptor.pipeline.work import Amount, Progress, Silent
from preceptor.ranking.table import printable
from preceptor.store.activity import listening


@contextmanager
def showing(
    progress: Progress | bool | None = None, *, console: Console | None = None
) -> Iterator[Progress]:
    """Yield what shows the progress of the work within.

    Args:
        progress: None shows it where somebody looks: in a notebook, or where standard error is a terminal.
            True shows it anywhere, False nowhere; an object shows it as it likes.
        console: where to show it, by default standard error.
    """
    if progress is not None and not isinstance(progress, bool):
        yield progress
        return
    shown = console or Console(stderr=True)
    # In a notebook rich redraws bars through ipywidgets, and only warns where they are not installed.
    redraws = shown.is_terminal or (
        shown.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    )
    if progress is False or (progress is None and not shown.is_terminal and not shown.is_jupyter):
        yield Silent()
    elif redraws:
        with LiveProgress(shown) as live, listening(live.busy):
            yield live
    else:
        with PlainProgress(shown) as plain, listening(plain.busy):
            yield plain


class _Pace:
    """How far a step is, and how fast since its first batch, which also had to wait for a model to load."""

    def __init__(self) -> None:
        self.done = Amount()
        self._first: tuple[float, Amount] | None = None
        self._last = 0.0

    def advance(self, done: Amount) -> None:
        """Count a batch that is done now."""
        self.done += done
        self._last = time.monotonic()
        if self._first is None and done.responses:
            self._first = self._last, self.done

    @property
    def rate(self) -> str:
        """Tokens a second, or nothing where they are unknown or one batch is all there was."""
        seconds, since = self._since_first()
        return f"{since.tokens / seconds:,.0f} tokens/s" if since.tokens else ""

    def seconds_left(self, characters: int) -> float | None:
        """Return the seconds that the rest of so many characters takes, or None where nothing tells."""
        seconds, since = self._since_first()
        if not since.characters:
            return None
        return seconds * (characters - self.done.characters) / since.characters

    def _since_first(self) -> tuple[float, Amount]:
        if self._first is None or self._last <= self._first[0]:
            return 0.0, Amount()
        began, first = self._first
        return self._last - began, self.done - first


class _Rate(Column):
    """Tokens per second."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["rate"], style="cyan")


class _Count(Column):
    """Responses done, of all."""

    def render(self, task: Task) -> Text:
        rows, of = task.fields["rows"], task.fields["all"]
        return Text(f"{rows:,}/{counted(of, 'response')}" if of else "")


class LiveProgress:
    """One live display, a bar for each step: responses done, tokens per second, time left.

    Below them stands what goes on before a first response is done, such as loading a model.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(),
            _Count(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task: TaskID | None = None
        self._busy: TaskID | None = None
        self._pace = _Pace()

    def __enter__(self) -> "LiveProgress":
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Show a new bar, or one line where everything is stored."""
        if not missing.responses:
            line = f"{printable(step)}: all {stored:,} stored"
            self._bars.console.print(Text(line, style="dim"))
            return
        note = f" ({stored:,} stored)" if stored else ""
        self._pace = _Pace()
        # The bar counts characters, because rows differ in length by a factor of a thousand.
        self._task = self._bars.add_task(
            escape(printable(step)) + note,
            total=missing.characters,
            rows=0,
            all=missing.responses,
            rate="",
        )

    def advance(self, done: Amount) -> None:
        """Move the bar by a stored batch."""
        if self._task is None:
            return
        self._pace.advance(done)
        self._bars.update(
            self._task,
            completed=self._pace.done.characters,
            rows=self._pace.done.responses,
            rate=self._pace.rate,
        )

    def end(self) -> None:
        """Leave the bar as it is."""
        self._task = None

    def say(self, lines: Sequence[str]) -> None:
        """Show the lines in place of the bars of steps that have ended."""
        for task in self._bars.task_ids:
            if task != self._busy:
                self._bars.remove_task(task)
        for line in lines:
            self._bars.console.print(Text(line), soft_wrap=True)

    def busy(self, what: str | None) -> None:
        """Show what goes on, without an end that could be known; None takes it away."""
        if self._busy is not None:
            self._bars.remove_task(self._busy)
            self._busy = None
        if what is not None:
            words = escape(printable(what))
            self._busy = self._bars.add_task(words, total=None, rows=0, all=0, rate="")


class PlainProgress:
    """A line every few seconds, for logs and pipes, also where nothing is done yet."""

    def __init__(self, console: Console, *, every: float = 10.0) -> None:
        self._console, self._every = console, every
        self._step, self._missing, self._pace = "", Amount(), _Pace()
        self._busy: str | None = None
        self._told: set[str] = set()
        self._busy_since = self._shown_at = time.monotonic()
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._clock = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "PlainProgress":
        self._clock.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._clock.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._every / 10):
            self.tick()

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Say what is stored and what is missing."""
        self._step, self._missing, self._pace = printable(step), missing, _Pace()
        self._say(f"{self._step}: {stored:,} stored, {missing.responses:,} to compute")

    def advance(self, done: Amount) -> None:
        """Say how far it is, at most once in a while."""
        self._pace.advance(done)
        self.tick()

    def tick(self) -> None:
        """Say how far it is where nothing was said for a while."""
        with self._turn:
            now = time.monotonic()
            if now - self._shown_at < self._every:
                return
            if self._busy is not None:
                self._say(f"{self._busy}: {now - self._busy_since:,.0f} s")
            elif self._step:
                self._say_how_far()

    def _say_how_far(self) -> None:
        left = self._pace.seconds_left(self._missing.characters)
        parts = [
            f"{self._step}: {self._pace.done.responses:,}/{self._missing.responses:,}",
            self._pace.rate,
            "" if left is None else f"about {left:,.0f} s left",
        ]
        self._say(", ".join(part for part in parts if part))

    def end(self) -> None:
        """Say nothing more."""
        self._step = ""

    def busy(self, what: str | None) -> None:
        """Say what goes on; None ends it."""
        self._busy, self._busy_since = what and printable(what), time.monotonic()
        if self._busy is None:
            self._told.clear()
        elif self._busy not in self._told:  # else what it went on within goes on again
            self._told.add(self._busy)
            self._say(self._busy)

    def say(self, lines: Sequence[str]) -> None:
        """Say the lines."""
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        self._shown_at = time.monotonic()
        self._console.print(Text(line, style="dim"), soft_wrap=True)
