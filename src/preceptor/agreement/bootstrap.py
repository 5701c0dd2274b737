"""How sure an agreement is: draws of teachers or families, permutations, Bonett and Wright's interval.

A draw is how often each teacher occurs in it. Counts times `ahead` are mid-ranks, so a bootstrap draw, a
family left out and the plain value are one function with other counts, and cells that see the same draws
(metrics, students) are compared in pairs.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.agreement.correlation import Array, ahead, require_pairs, standard_ranks
from preceptor.ranking.bootstrap import percentile_interval

EXACT = 8
"""Up to this many teachers (40,320 orders) a permutation test counts every order."""

MOST = 1000
"""Beyond this many teachers `teachers_needed` gives up."""

FEWEST_FOR_INTERVAL = 8
"""Below this many teachers there is no interval: none that was tried holds the true rho often enough."""

_NORMAL_95 = 1.959963984540054

_ROUNDING = 1e-12


class Ends(NamedTuple):
    """The ends of an interval; both NaN where there is none."""

    low: float
    high: float


class PermutationTest(NamedTuple):
    """A two-sided p-value, where 95% of the orders that mean nothing lie, and p adjusted for many tests.

    `adjusted` is NaN where it was not asked for; see `adjusted_p_values`.
    """

    p_value: float
    low: float
    high: float
    adjusted: float = math.nan


def resample(
    teachers: int, *, draws: int, rng: np.random.Generator, size: int | None = None
) -> Array:
    """Return how often each bootstrap draw picks each teacher, shape (draws, teachers).

    `size` teachers are picked in each draw: as many as there are by default.
    """
    picks = rng.multinomial(size or teachers, np.full(teachers, 1 / teachers), size=draws)
    return picks.astype(np.float64)


def resample_families(families: Sequence[str], *, draws: int, rng: np.random.Generator) -> Array:
    """Return how often each draw picks each teacher when whole families are picked.

    Teachers of one family are alike, so this interval is the honest one where there are many families.

    Args:
        families: the family of each teacher.
        draws: how many resamples to take.
        rng: advanced by one multinomial for each draw.

    Returns:
        Shape (draws, teachers).
    """
    names, member = np.unique(np.asarray(families), return_inverse=True)
    return resample(len(names), draws=draws, rng=rng)[:, member]


def without_each_family(families: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """Return the families, sorted, and counts of shape (families, teachers) that leave each out."""
    names = tuple(sorted(set(families)))
    counts = [[float(family != left_out) for family in families] for left_out in names]
    return names, np.array(counts)


def resampled_spearman(predicted: Array, observed: Array, counts: Array) -> Array:
    """Return Spearman's rho of each cell when teacher t occurs `counts[draw, t]` times in a draw.

    Copies of a teacher tie with one another on both sides, as in any bootstrap of a correlation.

    Args:
        predicted: shape (cells, teachers), higher is better; a cell is one metric for one student.
        observed: likewise, the same teachers.
        counts: shape (draws, teachers), whole numbers from 0; see `resample`.

    Returns:
        Shape (draws, cells); NaN where a draw holds no two teachers that differ.

    Raises:
        StudyError: if a value is NaN or infinite, or the shapes differ.
    """
    require_pairs(predicted, observed)
    middle = counts.sum(axis=1, keepdims=True) / 2
    result = np.empty((len(counts), len(predicted)))
    # A cell at a time keeps memory small. All sums are of halves, so they are exact in any order.
    # Counts times `ahead` count who is behind, ties by half: mid-ranks from the worst up.
    for cell, (one, other) in enumerate(zip(ahead(predicted), ahead(observed), strict=True)):
        left, right = counts @ one - middle, counts @ other - middle
        together = (counts * left * right).sum(axis=1)
        spread = (counts * left**2).sum(axis=1) * (counts * right**2).sum(axis=1)
        result[:, cell] = _ratio(together, spread)
    return result


def _ratio(together: Array, spread: Array) -> Array:
    defined = spread > 0
    ratio: Array = np.where(defined, together / np.sqrt(np.where(defined, spread, 1.0)), np.nan)
    return np.clip(ratio, -1, 1)


def percentile_ends(draws: Array) -> Ends:
    """Return the central 95% of one statistic's draws, shape (draws,), leaving out the undefined.

    NaN where fewer than half of the draws are defined.
    """
    defined = draws[np.isfinite(draws)]
    if 2 * len(defined) < len(draws) or not len(defined):
        return Ends(math.nan, math.nan)
    low, high = percentile_interval(defined)
    return Ends(float(low), float(high))


def bonett_wright(rho: float, teachers: int, *, effect: float = 1.0) -> Ends:
    """Return the 95% interval of a Spearman's rho by Fisher's z, after Bonett and Wright (2000).

    The variance of z is (1 + rho^2 / 2) / (n - 3). rho is first shrunk by half a swap of neighbours,
    6 / (n (n^2 - 1)), so that teachers in the same order have an interval too.

    Args:
        rho: what was seen, -1 to 1.
        teachers: how many there are.
        effect: by how much the variance is not that of one student and independent teachers; see
            `design_effect`.

    Returns:
        NaN below `FEWEST_FOR_INTERVAL` teachers, and for a rho that is NaN.
    """
    if teachers < FEWEST_FOR_INTERVAL or not math.isfinite(rho):
        return Ends(math.nan, math.nan)
    shrunk = rho * (1 - 6 / (teachers * (teachers**2 - 1)))
    half = _NORMAL_95 * math.sqrt(effect * (1 + shrunk**2 / 2) / (teachers - 3))
    return Ends(math.tanh(math.atanh(shrunk) - half), math.tanh(math.atanh(shrunk) + half))


def rho_interval(rho: float, draws: Array, *, teachers: int, effect: float = 1.0) -> Ends:
    """Return the 95% interval of a Spearman's rho, or of its mean over students.

    The outer ends of two: the percentiles of the draws, which alone are too narrow for few teachers,
    and Bonett and Wright's, which alone is too narrow for heavy tails (`bench/agreement_coverage.py`).
    `draws` are the same rho by draws of teachers, of whole families where some are related; the rest is
    as for `bonett_wright`. NaN there, and where most draws are undefined.
    """
    formula, drawn = bonett_wright(rho, teachers, effect=effect), percentile_ends(draws)
    if not math.isfinite(formula.low + drawn.low):
        return Ends(math.nan, math.nan)
    return Ends(min(formula.low, drawn.low), max(formula.high, drawn.high))


def design_effect(alone: Array, drawn: Array, families: int) -> float:
    """Return the variance of a mean rho over that of one student's with independent teachers.

    Students share teachers, so their mean is surer than one of them, by less than if they did not;
    relatives are alike, so whole families vary more than as many teachers.

    Args:
        alone: rho by draws of teachers, shape (draws, students); see `resampled_spearman`.
        drawn: likewise by draws of whole families, where some teachers are related.
        families: how many there are, 0 where no teachers are related. Draws of few vary too little, by
            (families - 1) / families.
    """
    one = np.nanvar(alone, axis=0).mean()
    mean = np.nanvar(alone.mean(axis=1))
    shared = float(mean / one) if one > 0 else 1.0
    if families < 2:
        return shared
    whole = np.nanvar(drawn.mean(axis=1)) * families / (families - 1)
    return shared * max(1.0, float(whole / mean) if mean > 0 else 1.0)


def permuted_rhos(
    predicted: Array, observed: Array, *, draws: int, rng: np.random.Generator
) -> Array:
    """Return each cell's rho once its teachers are shuffled, shape (shuffles, cells).

    One shuffle of the teachers serves all cells, because metrics and students share them. Up to
    `EXACT` teachers every order counts once, else `draws` are sampled.

    Args:
        predicted: shape (cells, teachers), higher is better.
        observed: likewise.
        draws: shuffles, where orders are sampled.
        rng: unused where every order counts.

    Returns:
        NaN for a cell with a constant side.
    """
    require_pairs(predicted, observed)
    teachers = predicted.shape[-1]
    shuffles = np.tile(np.arange(teachers), (draws, 1))
    exact = teachers <= EXACT
    orders = _every_order(teachers) if exact else rng.permuted(shuffles, axis=1)
    pairs = zip(standard_ranks(predicted), standard_ranks(observed), strict=True)
    return np.stack([other[orders] @ one for one, other in pairs], axis=1)


def permutation_test(seen: float, chance: Array, *, teachers: int) -> PermutationTest:
    """Return how often shuffled teachers agree as strongly, either way, as these do.

    Where orders were sampled p = (k + 1) / (draws + 1), which is never 0 (Phipson and Smyth 2010).

    Args:
        seen: a rho, or a mean of several.
        chance: the same of shuffled teachers, shape (shuffles,); see `permuted_rhos`.
        teachers: how many there are.

    Returns:
        All NaN where a side is constant.
    """
    if not (math.isfinite(seen) and np.isfinite(chance).all()):
        return PermutationTest(math.nan, math.nan, math.nan)
    return PermutationTest(_p_value(seen, np.abs(chance), teachers), *percentile_ends(chance))


def adjusted_p_values(seen: Array, chance: Array, *, teachers: int) -> Array:
    """Return each rho's p among all that were looked at, in either direction: max-T.

    It is how often the strongest of them all is, by shuffled teachers, as strong as this one (Westfall
    and Young 1993, single step), so that one is below 0.05 by chance in at most 5% of all tables.

    Args:
        seen: shape (cells,).
        chance: the same of shuffled teachers, shape (shuffles, cells).
        teachers: how many there are.

    Returns:
        Shape (cells,); NaN where `seen` is NaN.
    """
    known = np.isfinite(seen)
    if not known.any():
        return np.full(len(seen), np.nan)
    strongest = np.abs(chance[:, known]).max(axis=1)
    return np.array([_p_value(one, strongest, teachers) for one in seen])


def _p_value(seen: float, chance: Array, teachers: int) -> float:
    if not math.isfinite(seen):
        return math.nan
    beyond = int(np.sum(chance >= abs(seen) - _ROUNDING))
    exact = teachers <= EXACT
    return beyond / len(chance) if exact else (beyond + 1) / (len(chance) + 1)


@cache
def _every_order(teachers: int) -> NDArray[np.intp]:
    return np.array(list(permutations(range(teachers))), dtype=np.intp)


def teachers_needed(
    one: Array, other: Array, observed: Array, *, rng: np.random.Generator
) -> int | None:
    """Return roughly how many teachers would let the seen difference of two metrics clear zero.

    Larger and larger samples are drawn from the teachers at hand, until the 95% interval of the
    difference in mean rho leaves zero out. Rough: it supposes that further teachers would be like
    these, and as independent. None where `MOST` teachers would not do.

    Args:
        one: the scores by one metric, shape (cells, teachers), higher is better.
        other: likewise by the other metric, for the same cells.
        observed: likewise.
        rng: advanced by at most 18 sets of 500 draws.
    """
    teachers: int = one.shape[1]
    size = math.sqrt(2) * teachers
    while size <= MOST:
        counts = resample(teachers, draws=500, rng=rng, size=math.ceil(size))
        gains = resampled_spearman(one, observed, counts) - resampled_spearman(
            other, observed, counts
        )
        low, high = percentile_ends(gains.mean(axis=1))
        if low > 0 or high < 0:
            return math.ceil(size)
        size *= math.sqrt(2)
    return None
