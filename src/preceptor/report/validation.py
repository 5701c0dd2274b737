"""Validation in a terminal: what it would take, and what it found.

How the fine-tuned students answered stands beside the observed order: a win rate of answers that never end,
or are all short, means something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from preceptor.errors import counted
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import printable
from preceptor.report.agreement import print_agreement, print_notes
from preceptor.report.dimensions import print_dimensions
from preceptor.report.estimate import worded_time
from preceptor.types import Estimate
from preceptor.validation.result import AnswerFigures, ValidationResult, dimension_of, row_of

if TYPE_CHECKING:
    from preceptor.validation.estimate import FinetuneEstimate, ValidationEstimate


_GIB = 1024**3
_GAP = 3
"""Columns of the terminal between two of a table."""


def print_validation(console: Console, result: ValidationResult) -> None:
    """Print observed orders, agreement, and whether the prediction held."""
    for ranking in result.observed:
        figures = {name: result.answered(ranking, name) for name in ranking.order}
        _print_observed(console, ranking, figures, result.untuned.get(row_of(ranking)))
    for table in result.dimensions:
        print_dimensions(console, table)
    if result.agreement is not None:
        print_agreement(console, result.agreement, source=source_of_observed(result))
        comparison = result.agreement.comparison
        print_notes(console, comparison.left_out, result.agreement.warnings())
    for sentence in result.sentences():
        console.print(Text(printable(sentence), style="bold"))
    console.print()


def source_of_observed(result: ValidationResult) -> str:
    """Return in words what the observed orders rest on."""
    return "; ".join(dict.fromkeys(_source(ranking) for ranking in result.observed))


def _source(ranking: Ranking) -> str:
    named = ranking.settings
    against = f" against {named['baseline']}, judged" if named["baseline"] else ", checked"
    return f"{ranking.by} in {named['benchmark']}{against} by {named['judge']}"


def _print_observed(
    console: Console,
    ranking: Ranking,
    figures: Mapping[str, AnswerFigures],
    untuned: AnswerFigures | None,
) -> None:
    console.print()
    dimension = dimension_of(ranking)
    observed = f"Observed, {dimension}" if dimension else "Observed"
    console.print(Text(printable(f"{observed}: {ranking.verdict().text}"), style="bold"))
    console.print(Text(printable(_source(ranking)), style="dim"))
    console.print(_observed_table(console.width, ranking, figures, untuned))
    for warning in ranking.warnings:
        text = Text("Warning: ", style="yellow bold") + Text(
            printable(warning.text), style="yellow"
        )
        console.print(Padding(text, (0, 0, 0, 1)))


def _observed_table(
    width: int,
    ranking: Ranking,
    figures: Mapping[str, AnswerFigures],
    untuned: AnswerFigures | None,
) -> Table:
    """Return the order, with as many of the benchmark's further measures as there is room for."""
    columns: dict[str, list[str]] = {
        "": [str(one.rank) for one in ranking.teachers],
        "fine-tuned on": [printable(one.teacher) for one in ranking.teachers],
        f"{ranking.by} [95% interval]": [
            _interval(one.estimates[ranking.by]) for one in ranking.teachers
        ],
        "P(first)": [f"{one.p_best:.2f}" for one in ranking.teachers],
        "n": [str(one.n) for one in ranking.teachers],
    }
    answered = [_answered(figures[one.teacher]) for one in ranking.teachers]
    last = dict(
        zip(("ended", "tokens", "characters"), map(list, zip(*answered, strict=True)), strict=True)
    )
    room = width - sum(_least_width(name, cells) for name, cells in {**columns, **last}.items())
    fits = room >= 0
    for name in ranking.metrics:
        cells = [f"{one.estimates[name].value:.2f}" for one in ranking.teachers]
        room -= 0 if name == ranking.by else _least_width(name.replace("_", " "), cells)
        if name != ranking.by and room >= 0:
            columns[name.replace("_", " ")] = cells
    columns |= last
    if untuned is not None:
        known = {"fine-tuned on": "nothing", f"{ranking.by} [95% interval]": "baseline"}
        known |= dict(zip(last, _answered(untuned), strict=True))
        for name, cells in columns.items():
            cells.append(known.get(name, ""))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        side: Literal["left", "right"] = "left" if name == "fine-tuned on" else "right"
        least = _least_width(name, columns[name]) - _GAP if fits else None
        table.add_column(Text(name), justify=side, overflow="fold", width=least)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _least_width(heading: str, cells: Sequence[str]) -> int:
    """Return how wide a column is whose heading breaks between its words, with the space around it."""
    return _GAP + max((len(one) for one in (*heading.split(), *cells)), default=0)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _answered(figures: AnswerFigures) -> list[str]:
    ended = "-" if figures.ended is None else f"{figures.ended:.0%}"
    means = (
        "-" if mean is None else f"{mean:,.0f}" for mean in (figures.tokens, figures.characters)
    )
    return [ended, *means]


def print_validation_estimate(console: Console, estimate: ValidationEstimate) -> None:
    """Print what validation would take."""
    console.print()
    count = estimate.students * len(estimate.teachers) * estimate.runs
    lines = [
        f"Then validation: {counted(count, 'fine-tune job')}, "
        f"{counted(estimate.questions, 'question')} to each student."
    ]
    if estimate.finetune_jobs:
        _print_finetune_jobs(console, estimate.finetune_jobs)
        unknown = any(one.seconds is None and not one.done for one in estimate.finetune_jobs)
        lines += ["No training of this student is stored: its speed is unknown."] if unknown else []
    for base in estimate.untuned:
        took = f" ({worded_time(base.seconds)})" if base.missing else ""
        lines.append(
            f"{base.teacher}: {counted(base.stored, 'answer')} stored, {base.missing:,} to write{took}"
        )
    lines += [f"Verdicts by {name}: {cost}" for name, cost in estimate.verdicts]
    if estimate.disk is None:
        lines.append(
            "Rows, steps and disk are known when the responses are there: plan again then."
        )
    elif estimate.disk:
        place = f"models and checkpoints in {estimate.models}"
        lines.append(f"Disk: up to {estimate.disk / _GIB:,.1f} GiB for {place}.")
    for one in estimate.finetune_jobs:
        lines += [
            f"{counted(count, 'instruction')} left out: {why}."
            for why, count in one.left_out.items()
        ]
        lines += [one.warning] if one.warning else []
    for line in dict.fromkeys(lines):
        console.print(Text(printable(line)), soft_wrap=True)


def _print_finetune_jobs(console: Console, finetune_jobs: Sequence[FinetuneEstimate]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("student", overflow="fold")
    table.add_column("fine-tuned on", overflow="fold")
    for heading in ("rows", "tokens", "steps", "training", "answers", "to write", "time"):
        table.add_column(heading, justify="right")
    for one in finetune_jobs:
        table.add_row(
            Text(printable(one.student)),
            Text(printable(one.teacher + (f", run {one.run}" if one.run > 1 else ""))),
            f"{one.rows:,}",
            f"{one.tokens:,}",
            f"{one.steps:,}",
            "done" if one.done else worded_time(one.seconds),
            f"{one.asked.stored:,}",
            f"{one.asked.missing:,}",
            worded_time(one.asked.seconds) if one.asked.missing else "",
        )
    console.print(table)
