"""Placing: teachers from best to worst by one metric on one set of instructions, and how sure that is."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preceptor.ranking.inference import (
    Scores,
    Standing,
    cap_of,
    discordant,
    interval,
    more_prompts,
    scores_of,
    standing,
)
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import TRANSFORMS, Metric
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import Evidence, TeacherResult
from preceptor.ranking.quantities import Quantity, formed, measured, outcomes
from preceptor.types import Estimate

CROSS_FITTED = 1 + 1 / np.pi
"""Variance of a lead over a routed mixture, as a multiple of what single instructions show of it.

Halves that choose for each other are dependent: that is the factor between two equal teachers, and of more
teachers, or unequal ones, it is less.
"""


@dataclass(frozen=True)
class Placed:
    """Teachers best first, and how sure that is; `upward` is what orders, higher is better."""

    teachers: tuple[TeacherResult, ...]
    evidence: Evidence
    upward: Quantity
    scores: Scores


def placed(
    used: Common,
    by: Metric,
    *,
    metrics: Sequence[Metric],
    teachers: Sequence[str],
    options: RankingOptions,
    mixtures: Set[str] = frozenset(),
) -> Placed:
    """Return the teachers from best to worst on these instructions.

    Args:
        used: the compared numbers, rewards already transformed.
        by: what orders, one of the metrics.
        metrics: what is formed.
        teachers: labels of the rows.
        options: draws and seed.
        mixtures: those teachers that are made of several others.

    Raises:
        StudyError: a metric is not finite.
    """
    means = measured(used)
    estimates = {name: estimates_of(one) for name, one in means.items()}
    estimates |= {m.kind: estimates_of(formed(m, means)) for m in metrics}
    upward = formed(by, means).upward(by.higher_is_better)
    scores = scores_of(upward, teachers, right=better_of_two(used, by, upward))
    scores = _of_mixtures(scores, mixtures)
    results, evidence = place_teachers(
        scores,
        estimates,
        by=by.kind,
        higher_is_better=by.higher_is_better,
        options=options,
        limits=upward.limits,
    )
    return Placed(tuple(results), evidence, upward, scores)


def _of_mixtures(scores: Scores, mixtures: Set[str]) -> Scores:
    """Return the scores with the errors of leads of mixtures and over them as cross-fitting makes them."""
    mixed = np.array([label in mixtures for label in scores.labels])
    if not mixed.any():
        return scores
    factor = np.where(mixed[:, None] | mixed, np.sqrt(CROSS_FITTED), 1.0)
    pairs = scores.pairs._replace(error=scores.pairs.error * factor)
    return replace(scores, pairs=pairs, unit=None)


def transformed(common: Common, transform: str) -> Common:
    """Return the common instructions with their rewards transformed, the pool being just these."""
    if "reward" not in common.values:
        return common
    return common.changed("reward", TRANSFORMS[transform](common.values["reward"]))


def estimates_of(quantity: Quantity) -> list[Estimate]:
    """Return the value and 95% interval of every teacher; NaN for its ends where there is one instruction.

    No end lies where no value can.
    """
    low, high = (np.clip(ends, *quantity.limits) for ends in interval(quantity))
    columns = zip(quantity.point.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Estimate(*column, quantity.influence.shape[1]) for column in columns]


def better_of_two(common: Common, metric: Metric, upward: Quantity) -> NDArray[np.bool_] | None:
    """Tell the better values where the metric is made of one measure of two values, as right and wrong."""
    name = metric.needs[0] if len(metric.needs) == 1 else None
    if name is None or name in common.denominators:
        return None
    values = common.values[name]
    found = outcomes(name, values)
    if found is None or len(found) != 2:
        return None
    rises = (upward.influence * values).sum() >= 0
    better: NDArray[np.bool_] = values == (found.max() if rises else found.min())
    return better


def place_teachers(
    scores: Scores,
    estimates: Mapping[str, Sequence[Estimate]],
    *,
    by: str,
    higher_is_better: bool,
    options: RankingOptions,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[list[TeacherResult], Evidence]:
    """Return the teachers from best to worst, and how sure that is: the one place where an order is formed.

    Args:
        scores: what orders, higher is better.
        estimates: every measure and metric of each teacher, in the order of the scores' rows.
        by: the name among them of what orders.
        higher_is_better: its direction there.
        options: draws and seed.
        limits: what no score can lie outside of.
    """
    found = standing(scores, draws=options.n_resamples, seed=options.seed)
    leader = int(found.order[0])
    columns = {name: list(column) for name, column in estimates.items()}
    worst = float(np.clip(found.worst, *limits))
    columns[by][leader] = _as_chosen(columns[by][leader], worst, higher_is_better)
    results = [_result(scores, columns, found, row=int(row), by=by) for row in found.order]
    names = [scores.labels[row] for row in found.order if found.contenders[row]]
    return results, Evidence(
        named=len(names) == 1 < len(results) and not found.capped,
        cap=cap_of(scores, float(found.effective_n)),
        effective_n=float(found.effective_n),
        contenders=tuple(names),
        regret=float(found.regret) + 0.0,  # never -0.0
        more_prompts=more_prompts(scores, found),
    )


def _result(
    scores: Scores,
    columns: Mapping[str, Sequence[Estimate]],
    found: Standing,
    *,
    row: int,
    by: str,
) -> TeacherResult:
    leader = int(found.order[0])
    first, right = row == leader, scores.right
    gap, low, high = (float(column[row]) for column in (found.gap, *found.lead))
    return TeacherResult(
        teacher=scores.labels[row],
        rank=int(found.places[row]),
        n=columns[by][row].n,
        estimates={name: column[row] for name, column in columns.items()},
        p_rank=tuple(found.p_rank[row].tolist()),
        p_leader_beats=None if first else float(found.p_leader_beats[row]),
        dropped={},
        truncated=0,
        behind=None if first else Estimate(gap, low, high, scores.n),
        p_value=None if first else float(found.p_value[row]),
        discordant=None if first or right is None else discordant(right, leader, row),
    )


def _as_chosen(estimate: Estimate, worst: float, higher_is_better: bool) -> Estimate:
    if higher_is_better:
        return replace(estimate, low=min(estimate.low, worst))
    return replace(estimate, high=max(estimate.high, -worst))
