"""Let a judge decide pairs that a trusted judge has decided, and hold the two against each other.

The one idea: the pairs stand in ready annotations, with both texts and the trusted judge's preference, so a
judge is measured on the very contests it is meant for, beside the floor that only looks at length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preceptor.benchmarks.alpaca_eval.score import win_of
from preceptor.benchmarks.answer_files import listed
from preceptor.benchmarks.cached_chat import Told
from preceptor.benchmarks.comparisons import Comparison, both_orders, first_place_share, held
from preceptor.benchmarks.judge_agreement import (
    JudgeAgreement,
    Verdict,
    judge_agreement,
    longer_wins,
)
from preceptor.benchmarks.judgement_rows import read_rows, text_of
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.errors import DataError
from preceptor.store.store import Store

Decided = tuple[Comparison, float]
"""A contest, and the model's share of the win in 0..1 by the trusted judge."""


class Rejudged(NamedTuple):
    """How a judge agrees with a trusted one, and how length alone does, on the same contests.

    `undecided` contests have no verdict by the judge and count in neither. `first_place` is how far it
    prefers whatever stands first (0.5 is no bias), None where order cannot matter.
    """

    judge: JudgeAgreement
    longer: JudgeAgreement
    undecided: int
    first_place: float | None


def read_decided(paths: Sequence[str | Path]) -> list[Decided]:
    """Return the contests in AlpacaEval annotations that have both answers and a preference.

    Raises:
        DataError: a file cannot be read, or none has such a row.
    """
    found: list[Decided] = []
    for path in map(Path, paths):
        for place, row in enumerate(listed(read_rows(path)), start=1):
            answer, baseline = row.get("output_2"), row.get("output_1")
            preference = row.get("preference")
            if not (isinstance(answer, str) and isinstance(baseline, str)):
                continue
            number = isinstance(preference, int | float) and not isinstance(preference, bool)
            win = win_of(float(preference)) if number and preference is not None else None
            if win is None:
                continue
            where = f"'{path}', row {place}"
            question = text_of(row, "instruction", where)
            model = text_of(row, "generator_2", where)
            found.append((Comparison(model, question, question, answer, baseline), win))
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
    told: Told | None = None,
) -> Rejudged:
    """Return how the judge agrees with the trusted one; each pair is asked in both orders.

    Args:
        decided: what the trusted judge decided.
        judge: who is measured.
        store: where its answers are kept.
        seed: of the resampling.
        told: called with the progress.

    Raises:
        StudyError: the judge decided none of the contests that the trusted one did.
        ModelError: the judge cannot be asked; what was answered is stored.
    """
    outcomes = held(
        [comparison for comparison, _ in decided], judge, store, orders=both_orders, told=told
    )
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
