"""Let a judge decide pairs that a trusted judge has decided, and compare the two.

The pairs stand in ready annotations, with both texts and the trusted judge's preference. So a judge is
measured on the very comparisons it is meant for, beside the floor that only looks at length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preceptor.benchmarks.cached_chat import OnProgress
from preceptor.benchmarks.comparisons import Decided, both_orders, compared, first_place_share
from preceptor.benchmarks.judge_agreement import (
    JudgeAgreement,
    Verdict,
    judge_agreement,
    longer_wins,
)
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.benchmarks.registry import benchmarks
from preceptor.benchmarks.rows import listed, read_rows
from preceptor.errors import DataError
from preceptor.store.store import Store


class Rejudged(NamedTuple):
    """How a judge agrees with a trusted one, and how length alone does, on the same comparisons.

    `undecided` comparisons have no verdict by the judge and count in neither. `first_place` is how far it
    prefers whatever stands first (0.5 is no bias), None where order cannot matter.
    """

    judge: JudgeAgreement
    longer: JudgeAgreement
    undecided: int
    first_place: float | None


def read_decided(paths: Sequence[str | Path]) -> list[Decided]:
    """Return the comparisons in verdict files that have both answers and a preference.

    Raises:
        DataError: a file cannot be read, or none has such a row.
    """
    known, found = benchmarks().values(), list[Decided]()
    for path in map(Path, paths):
        rows = listed(read_rows(path))
        for benchmark in known:
            found += benchmark.decided(rows, str(path))
    if not found:
        raise DataError(
            "No row has both answers and a preference: expected AlpacaEval annotations (instruction, "
            "output_1, output_2, generator_2, preference). Give ready annotations of a trusted judge."
        )
    return found


def rejudge(
    decided: Sequence[Decided],
    judge: PairJudge,
    store: Store,
    *,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Rejudged:
    """Return how the judge agrees with the trusted one; each pair is asked in both orders.

    Args:
        decided: what the trusted judge decided.
        judge: who is measured.
        store: where its answers are kept.
        seed: of the resampling.
        progress: called with the progress.

    Raises:
        StudyError: the judge decided none of the comparisons that the trusted one did.
        ModelError: the judge cannot be asked; what was answered is stored.
    """
    asked = [comparison for comparison, _ in decided]
    outcomes = compared(asked, judge, store, orders=both_orders, progress=progress)
    judged, floor = [], []
    for (comparison, trusted), outcome in zip(decided, outcomes, strict=True):
        if outcome.win is None:
            continue
        longer = longer_wins(comparison.answer, comparison.baseline)
        judged.append(Verdict(comparison.model, comparison.question, trusted, outcome.win))
        floor.append(Verdict(comparison.model, comparison.question, trusted, longer))
    return Rejudged(
        judge_agreement(judged, seed=seed),
        judge_agreement(floor, seed=seed),
        len(decided) - len(judged),
        first_place_share(outcomes),
    )
