"""Agreement: how well a predicted order of teachers matches the observed one.

Everything follows from `ahead`, who is ahead of whom with a half for a tie. Scores are higher-is-better on
both sides and finite; what has no value, such as the rho of a constant, is NaN and never 0. How sure an
agreement is stands in `agreement_draws`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import TIE

Array = NDArray[np.float64]


class Regret(NamedTuple):
    """What is lost by taking the metric's top pick: in points, and as a share of the best."""

    points: float
    share: float


def ahead(scores: Array) -> Array:
    """Return who is ahead of whom: at [i, j] 1 where j is ahead of i, 0.5 where they tie, else 0.

    Values that rounding could have parted tie (`stats.TIE`); the diagonal is 0.5.

    Args:
        scores: shape (..., teachers), higher is better.

    Returns:
        Shape (..., teachers, teachers).
    """
    one, other = scores[..., :, None], scores[..., None, :]
    apart = np.abs(other - one) > TIE * np.maximum(np.abs(one), np.abs(other))
    return np.where(apart, (other > one).astype(np.float64), 0.5)


def midranks(scores: Array) -> Array:
    """Return ranks along the last axis: 1 is the highest score, and a tie shares the mean rank.

    Raises:
        StudyError: if a score is NaN or infinite.
    """
    _require_finite(scores)
    ranks: Array = ahead(scores).sum(axis=-1) + 0.5
    return ranks


def spearman(predicted: Array, observed: Array) -> float:
    """Return Spearman's rho: the correlation of mid-ranks, which allows ties.

    NaN where all teachers tie on one side. Without ties it equals the paper's shortcut, eq. 2.

    Args:
        predicted: shape (teachers,), higher is better.
        observed: likewise, the same teachers in the same order.

    Raises:
        StudyError: if a value is NaN or infinite, the lengths differ, or there are under 2 teachers.
    """
    require_pairs(predicted, observed)
    return float(np.clip(standard_ranks(predicted) @ standard_ranks(observed), -1, 1))


def spearman_without_ties(predicted: Array, observed: Array) -> float:
    """Return `1 - 6 sum d^2 / (n (n^2 - 1))` over differences d of ranks (Xu et al. 2025, eq. 2).

    Raises:
        StudyError: if there is a tie, for which eq. 2 is not Spearman's rho; or as for `spearman`.
    """
    require_pairs(predicted, observed)
    one, other = midranks(predicted), midranks(observed)
    n = len(one)
    if len(set(one)) < n or len(set(other)) < n:
        raise StudyError(
            "Eq. 2's shortcut holds only without ties, and here teachers tie: use spearman, which "
            "takes mid-ranks."
        )
    return float(1 - 6 * np.sum((one - other) ** 2) / (n * (n**2 - 1)))


def kendall(predicted: Array, observed: Array) -> float:
    """Return Kendall's tau-b: pairs ordered alike less pairs ordered oppositely, scaled for ties.

    NaN where all teachers tie on one side. Arguments and errors are those of `spearman`.
    """
    require_pairs(predicted, observed)
    one, other = 2 * ahead(predicted) - 1, 2 * ahead(observed) - 1
    spread = float((one**2).sum() * (other**2).sum())
    return float((one * other).sum()) / math.sqrt(spread) if spread else math.nan


def standard_ranks(scores: Array) -> Array:
    """Return centred mid-ranks of length 1 along the last axis, higher for better; NaN for constants.

    The product of two such rows is Spearman's rho.
    """
    centred = (scores.shape[-1] + 1) / 2 - midranks(scores)
    length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    standard: Array = np.where(length > 0, centred / np.where(length > 0, length, 1.0), np.nan)
    return standard


def top_one_regret(predicted: Array, observed: Array) -> Regret:
    """Return how much of the observed measure is lost by taking the metric's top pick.

    The best observed value less the top pick's; of picks that tie, their mean. The share is of
    the best, NaN where the best is not positive. 0 is perfect. Arguments are those of `spearman`.
    """
    require_pairs(predicted, observed)
    pick = midranks(predicted) == midranks(predicted).min()
    best = float(observed.max())
    points = max(0.0, best - float(observed[pick].mean()))
    return Regret(points, points / best if best > 0 else math.nan)


def top_three_hit(predicted: Array, observed: Array) -> float:
    """Return the share of the metric's three picks that are among the observed three best.

    Teachers that tie for the last places share them equally, on either side. By chance it is 3 / n.

    Raises:
        StudyError: for fewer than 3 teachers; or as for `spearman`.
    """
    require_pairs(predicted, observed)
    if len(predicted) < 3:
        raise StudyError(f"Three picks need three teachers; saw {len(predicted)}. Add teachers.")
    return float(np.sum(_places(predicted) * _places(observed)) / 3)


def _places(scores: Array, places: int = 3) -> Array:
    """Return each teacher's share of the first places, which add up to `places`."""
    order = ahead(scores)
    before, level = (order == 1).sum(axis=1), (order == 0.5).sum(axis=1)
    shares: Array = np.clip((places - before) / level, 0, 1)
    return shares


def pairs_right(predicted: Array, observed: Array, pairs: NDArray[np.bool_]) -> float:
    """Return the share of the chosen pairs of teachers that the prediction puts in the observed order.

    A predicted tie counts half; pairs that tie in the observed order are no question and are left
    out. 0.5 is chance. NaN where no pair is left.

    Args:
        predicted: shape (teachers,), higher is better.
        observed: likewise.
        pairs: shape (teachers, teachers), True for pairs to judge; each counts once or twice alike.
    """
    require_pairs(predicted, observed)
    truth = ahead(observed)
    judged = pairs & (truth != 0.5)
    right = 1 - np.abs(ahead(predicted) - truth)
    return float(right[judged].mean()) if judged.any() else math.nan


def same_family(families: Sequence[str]) -> NDArray[np.bool_]:
    """Return (teachers, teachers), True where two different teachers are of one family."""
    names = np.asarray(families)
    related: NDArray[np.bool_] = (names[:, None] == names) & ~np.eye(len(names), dtype=bool)
    return related


def leave_one_out_prior(observed: Array) -> Array:
    """Return each student's `prior`: minus the teachers' mean rank over all the other students.

    The order it predicts never saw the student it is judged on. Higher is better.

    Args:
        observed: shape (students, teachers), higher is better, at least two students.

    Raises:
        StudyError: for a single student, or a value that is NaN or infinite.
    """
    if len(observed) < 2:
        raise StudyError("A prior needs observed orders of at least two students; saw one.")
    ranks = midranks(observed)
    prior: Array = -(ranks.sum(axis=0) - ranks) / (len(ranks) - 1)
    return prior


def require_pairs(predicted: Array, observed: Array) -> None:
    """Refuse sides that do not hold the same teachers, at least two, each with a finite score.

    Raises:
        StudyError: saying which it is.
    """
    if predicted.shape != observed.shape or predicted.shape[-1] < 2:
        raise StudyError(
            f"Predicted and observed have the shapes {predicted.shape} and {observed.shape}: expected "
            "the same teachers on both sides, at least two. Align them first."
        )
    _require_finite(predicted)
    _require_finite(observed)


def _require_finite(scores: Array) -> None:
    bad = int(scores.size - np.count_nonzero(np.isfinite(scores)))
    if bad:
        raise StudyError(
            f"{bad} of {scores.size} scores are NaN or infinite: a teacher without a score has no place "
            "in an order. Leave it out on both sides."
        )
