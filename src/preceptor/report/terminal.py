"""A ranking as a table in a terminal, the verdict first, and the progress of long work.

Everything that comes from data or models is printed as plain text: control characters are made visible
and nothing is read as markup.
"""

import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import ProgressColumn as Column
from rich.table import Table
from rich.text import Text

from preceptor.config.reward_models import RewardPreset
from preceptor.pipeline.score import Amount
from preceptor.ranking.result import Ranking
from preceptor.types import Estimate

_MEASURES = ("reward", "loss", "length")
_GAP = 3
_ALWAYS = 5


def printable(text: str) -> str:
    """Return text with control characters shown as escapes, so that a label cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_ranking(console: Console, ranking: Ranking) -> None:
    """Print the verdict, the table, what was left out, stability, and warnings."""
    console.print()
    console.print(Text(printable(ranking.verdict()), style="bold"))
    if ranking.reward_source:
        console.print(Text(f"Rewards: {printable(ranking.reward_source)}.", style="dim"))
    console.print()
    console.print(_table(ranking, console.width))
    for line in _footnotes(ranking):
        console.print(Padding(Text(printable(line), style="dim"), (0, 0, 0, 1)))
    for warning in ranking.warnings:
        text = Text("Warning: ", style="yellow bold") + Text(
            printable(warning.text), style="yellow"
        )
        console.print(Padding(text, (0, 0, 0, 1)))
    console.print()


def _table(ranking: Ranking, width: int) -> Table:
    """Return the table, with as many of the further columns as fit beside the verdict's own."""
    heading = f"{ranking.by} [95% interval]"
    columns: dict[str, list[str]] = {
        "": [str(result.rank) for result in ranking.teachers],
        "teacher": [printable(result.teacher) for result in ranking.teachers],
        heading: [_interval(result.estimates[ranking.by]) for result in ranking.teachers],
        "P(best)": [f"{result.p_best:.2f}" for result in ranking.teachers],
        "n": [str(result.n) for result in ranking.teachers],
    }
    for name in _other_columns(ranking):
        columns[name] = [_number(result.estimates[name].value) for result in ranking.teachers]
    left = width
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown: list[list[str]] = []
    for name, cells in columns.items():
        left -= max(map(len, (name, *cells))) + _GAP
        if left >= 0 or len(shown) < _ALWAYS:
            shown.append(cells)
            left_aligned = name == "teacher"
            table.add_column(
                Text(name), justify="left" if left_aligned else "right", overflow="fold"
            )
    for place, row in enumerate(zip(*shown, strict=True)):
        table.add_row(*map(Text, row), style="bold" if place == 0 else "")
    return table


def _interval(estimate: Estimate) -> str:
    low, high = _number(estimate.low), _number(estimate.high)
    return f"{_number(estimate.value)} [{low}, {high}]"


def _other_columns(ranking: Ranking) -> list[str]:
    """Return the metrics formed and their measures, without what says the same twice."""
    present = ranking.teachers[0].estimates
    names = [*(name for name in _MEASURES if name in present), *ranking.metrics]
    return [name for name in dict.fromkeys(names) if name not in {"likelihood", ranking.by}]


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2e}"
    return f"{value:.1f}" if size >= 100 else f"{value:.3f}" if size < 10 else f"{value:.2f}"


def _footnotes(ranking: Ranking) -> list[str]:
    return [] if ranking.stability is None else [ranking.stability.describe()]


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


class LiveProgress:
    """Live bars, one for each step: responses done, tokens per second, time left."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rows]:,}/{task.fields[all]:,} responses"),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task: TaskID | None = None
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


class PlainProgress:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, console: Console, *, every: float = 10.0) -> None:
        self._console, self._every = console, every
        self._step, self._missing, self._pace = "", Amount(), _Pace()
        self._told = 0.0

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Say what is stored and what is missing."""
        self._step, self._missing, self._pace = printable(step), missing, _Pace()
        self._told = time.monotonic()
        self._say(f"{self._step}: {stored:,} stored, {missing.responses:,} to compute")

    def advance(self, done: Amount) -> None:
        """Say how far it is, at most once in a while."""
        self._pace.advance(done)
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        left = self._pace.seconds_left(self._missing.characters)
        parts = [
            f"{self._step}: {self._pace.done.responses:,}/{self._missing.responses:,}",
            self._pace.rate,
            "" if left is None else f"about {left:,.0f} s left",
        ]
        self._say(", ".join(part for part in parts if part))

    def end(self) -> None:
        """Say nothing more."""

    def _say(self, line: str) -> None:
        self._console.print(Text(line, style="dim"), soft_wrap=True)


def print_orders(console: Console, rankings: Sequence[Ranking]) -> None:
    """Print, for a student ranked under several sources of rewards, each teacher's place under each."""
    for student in dict.fromkeys(ranking.student for ranking in rankings):
        orders = [ranking for ranking in rankings if ranking.student == student]
        if len(orders) < 2:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(f"places for {printable(student)}")
        places = []
        for ranking in orders:
            table.add_column(printable(str(ranking.settings.get("reward"))), justify="right")
            places.append({result.teacher: str(result.rank) for result in ranking.teachers})
        for teacher in places[0]:
            table.add_row(printable(teacher), *(place.get(teacher, "") for place in places))
        console.print(table)
        console.print()


def print_reward_models(console: Console, presets: Mapping[str, RewardPreset]) -> None:
    """Print reward models with what must be known before loading one."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("name", "model", "size", "context", "score", "licence and notes"):
        right = heading in ("size", "context")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "model")
    for name, preset in presets.items():
        table.add_row(
            name,
            preset.model,
            f"{preset.billions:g}B",
            f"{preset.context:,}",
            preset.scale,
            f"{preset.licence}; {preset.note}" if preset.note else preset.licence,
        )
    console.print(table)
    console.print(
        Text(
            "A logit is unbounded, often negative, and only its differences mean something: see "
            "--reward-transform.",
            style="dim",
        )
    )


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print plain lines, dimmed."""
    for line in lines:
        console.print(Text(printable(line), style="dim"), soft_wrap=True)
