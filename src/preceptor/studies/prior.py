"""A teacher's record with other students, and the order that it and a metric give together.

Both sides are standardised over the teachers and weighted by the precision with which a standardised
predictor of that correlation knows the outcome, r^2 / (1 - r^2), times the sign of r. r is what each has
earned elsewhere. That is the posterior mean under normal errors that do not depend on each other, and
exploratory: `held_out` says what it is worth.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preceptor.agreement.bootstrap import (
    Ends,
    percentile_ends,
    resample_families,
    resampled_spearman,
)
from preceptor.agreement.compare import Comparison
from preceptor.agreement.correlation import (
    Array,
    leave_one_out_prior,
    spearman,
    top_one_regret,
)
from preceptor.agreement.orders import student_key
from preceptor.config.catalogue import SHIPPED
from preceptor.errors import StudyError
from preceptor.studies.study import OutcomeStudy
from preceptor.types import DataKind

_MOST = 0.99
"""A correlation beyond this is taken for it: no record is so sure."""


def known_teachers(
    teachers: Iterable[str], student: str, kind: DataKind, studies: Iterable[OutcomeStudy]
) -> dict[str, float]:
    """Return each known teacher's mean standard score over other students' outcomes on this kind of data.

    Higher is better; 0 is the mean of a study's teachers. Negative controls and the student itself are left
    out.
    """
    found: dict[str, list[float]] = {}
    for one in studies:
        if one.kind != kind or one.control:
            continue
        for other, row in one.outcomes.items():
            if student_key(other) != student_key(student) and len(set(row.values())) > 1:
                scores = dict(
                    zip(row, standard(np.array(list(row.values()))).tolist(), strict=True)
                )
                for teacher, score in scores.items():
                    found.setdefault(SHIPPED.label(teacher), []).append(score)
    names = ((name, SHIPPED.label(name)) for name in teachers)
    return {name: float(np.mean(found[label])) for name, label in names if label in found}


def standard(values: Array) -> Array:
    """Return the values with mean 0 and deviation 1; NaN is no data and becomes 0, as do equal values."""
    known = np.isfinite(values)
    if not known.any() or not (spread := float(np.std(values[known]))):
        return np.zeros_like(values)
    return np.where(known, (values - values[known].mean()) / spread, 0.0)


def weight(rho: float) -> float:
    """Return the weight of a standardised predictor that has earned this correlation."""
    earned = min(abs(rho), _MOST)
    return float(np.sign(rho)) * earned**2 / (1 - earned**2)


def combined(metric: Array, prior: Array, earned: tuple[float, float]) -> Array:
    """Return the score of both together, higher is better; NaN in either is no data.

    Args:
        metric: (teachers,), higher is better.
        prior: likewise.
        earned: the mean rho of each elsewhere.
    """
    return weight(earned[0]) * standard(metric) + weight(earned[1]) * standard(prior)


@dataclass(frozen=True)
class HeldOut:
    """Rho and regret in points, by metric, prior and both, for a student that weights never saw."""

    student: str
    rhos: tuple[float, float, float]
    regrets: tuple[float, float, float]


def held_out(comparison: Comparison, column: str) -> list[HeldOut]:
    """Return what metric, prior and both are worth for each student, with weights earned elsewhere.

    The weights of a family's teachers are of the other students without that family.

    Raises:
        StudyError: fewer than three students, so that no other student has a prior.
    """
    sides, observed = _held_out(comparison, column), comparison.observed
    return [
        HeldOut(
            student,
            rhos=_three(spearman(side[row], observed[row]) for side in sides),
            regrets=_three(top_one_regret(side[row], observed[row]).points for side in sides),
        )
        for row, student in enumerate(comparison.students)
    ]


@dataclass(frozen=True)
class Gain:
    """What both together gain in mean rho over one of them, with the 95% interval of draws of families."""

    over: str
    value: float
    ends: Ends


def gains(
    comparison: Comparison, column: str, *, draws: int = 2000, seed: int = 0
) -> tuple[Gain, Gain]:
    """Return what both together gain over metric and prior on held-out students, paired by draw."""
    rng = np.random.default_rng(seed)
    counts = resample_families(comparison.families, draws=draws, rng=rng)
    sides, observed = _held_out(comparison, column), comparison.observed
    drawn = [resampled_spearman(side, observed, counts).mean(axis=1) for side in sides]
    seen = [_mean_rho(side, observed) for side in sides]
    over_metric, over_prior = (
        Gain(name, seen[2] - seen[at], percentile_ends(drawn[2] - drawn[at]))
        for at, name in enumerate(("metric", "prior"))
    )
    return over_metric, over_prior


def _held_out(comparison: Comparison, column: str) -> tuple[Array, Array, Array]:
    """Return metric, prior and both, each (students, teachers) with higher for better."""
    if len(comparison.students) < 3:
        raise StudyError("A combined order is judged on three students or more: there are fewer.")
    metric, observed = comparison.column(column).predicted, comparison.observed
    prior = leave_one_out_prior(observed)
    rows = range(len(observed))
    both = [_combined_for(row, metric, prior[row], observed, comparison.families) for row in rows]
    return metric, prior, np.array(both)


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    one, two, three = values
    return one, two, three


def _combined_for(
    row: int, metric: Array, prior: Array, observed: Array, families: Sequence[str]
) -> Array:
    others = np.delete(observed, row, axis=0)
    priors, metrics = leave_one_out_prior(others), np.delete(metric, row, axis=0)
    names, both = np.asarray(families), np.zeros(len(families))
    for family in dict.fromkeys(families):
        rest = names != family
        earned = tuple(_mean_rho(side[:, rest], others[:, rest]) for side in (metrics, priors))
        score = combined(metric[row], prior, (earned[0], earned[1]))
        both[~rest] = score[~rest]
    return both


def _mean_rho(predicted: Array, observed: Array) -> float:
    return float(np.mean([spearman(*pair) for pair in zip(predicted, observed, strict=True)]))


def order_of(
    metric: Mapping[str, float], known: Mapping[str, float], earned: tuple[float, float]
) -> tuple[str, ...]:
    """Return the teachers by `combined`, best first; `metric` is higher for better."""
    names = list(metric)
    prior = np.array([known.get(name, np.nan) for name in names])
    scores = combined(np.array(list(metric.values())), prior, earned)
    return tuple(names[at] for at in np.argsort(-scores, kind="stable"))
