"""The measuring part of `preceptor evaluate`: what a judge is worth against a trusted one.

A judge's agreement stands beside that of the rule that the longer answer wins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preceptor.cli.judge import Given, judge_given, shown_as, worded
from preceptor.cli.output import console, put_json

if TYPE_CHECKING:
    from preceptor.benchmarks.judge_agreement import JudgeAgreement
    from preceptor.types import Estimate


def measure_judge(files: Sequence[Path], given: Given, json_path: str | None) -> None:
    """Print, or write as JSON, how the named judge agrees with the one behind the annotations."""
    from preceptor.benchmarks.comparisons import both_orders, pairs_of
    from preceptor.benchmarks.questions import Answers, QuestionSet
    from preceptor.benchmarks.rejudging import read_decided, rejudge
    from preceptor.store.store import Store

    decided = read_decided(files)
    texts = {comparison.question: comparison.question for comparison, _ in decided}
    drawn = QuestionSet.of(texts, Answers("", "", {})).drawn(given["limit"]).instructions
    decided = [one for one in decided if one[0].question in drawn]
    judge, store = judge_given(given), Store(given["store"])
    asked = [comparison for comparison, _ in decided]
    cost = judge.cost(pairs_of(asked, judge, both_orders), store)
    click.echo(worded("judge agreement", judge.name, cost), err=True)
    if given["estimate"]:
        return
    with shown_as("judge agreement") as advance:
        found = rejudge(decided, judge, store, seed=given["seed"], progress=advance)
    record = {
        "judge": judge.name,
        "identity": judge.identity().digest,
        "undecided": found.undecided,
        "first_place": found.first_place,
        "agreement": _record(found.judge),
        "longer_wins": _record(found.longer),
    }
    if json_path:
        put_json(json_path, record)
    if json_path != "-":
        _print(judge.name, found.judge, found.longer, found.first_place)


def _record(found: "JudgeAgreement") -> dict[str, object]:
    return {
        "comparisons": found.n,
        "questions": found.questions,
        "models": found.models,
        "words": found.words,
        "accuracy": _ends(found.accuracy),
        "kappa": _ends(found.kappa),
        "spearman": _ends(found.spearman),
    }


def _ends(estimate: "Estimate | None") -> list[float | None] | None:
    if estimate is None:
        return None
    ends = (estimate.value, estimate.low, estimate.high)
    return [None if end != end else end for end in ends]


def _print(
    name: str, judge: "JudgeAgreement", longer: "JudgeAgreement", first: float | None
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from preceptor.ranking.table import printable

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("who decides", "comparisons", "accuracy", "kappa", "in words", "rho of models"):
        table.add_column(heading, overflow="fold")
    for label, found in ((printable(name), judge), ("the longer answer wins", longer)):
        cells = map(_cell, (found.accuracy, found.kappa))
        row = (label, str(found.n), *cells, found.words, _cell(found.spearman))
        table.add_row(*map(Text, row))
    screen = console()
    screen.print(table)
    if first is not None:
        screen.print(
            f"Whatever stands first is preferred with a share of {first:.1%} (50% is no bias)."
        )
    screen.print(
        "Intervals resample questions. Words for kappa: Landis & Koch 1977. A judge that is not clearly "
        "above the length is of no use."
    )


def _cell(estimate: "Estimate | None") -> str:
    if estimate is None or estimate.value != estimate.value:
        return "-"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
