"""How sure an agreement is: bootstrap over teachers or families, permutations, Fisher's z.

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

NORMAL_95 = 1.959963984540054
"""The normal quantile of a two-sided 95% interval."""

_ROUNDING = 1e-12


class Ends(NamedTuple):
    """The ends of an interval; both NaN where there is none."""

    low: float
    high: float


class PermutationTest(NamedTuple):
    """A two-sided p-value, and where 95% of the orders that mean nothing lie."""

    p_value: float
    low: float
    high: float


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


def resampled_kendall(predicted: Array, observed: Array, counts: Array) -> Array:
    """Return Kendall's tau-b in each draw; arguments, shapes and NaN as for `resampled_spearman`."""
    require_pairs(predicted, observed)
    result = np.empty((len(counts), len(predicted)))
    signs = 2 * ahead(predicted) - 1, 2 * ahead(observed) - 1
    for cell, (one, other) in enumerate(zip(*signs, strict=True)):
        together = (counts @ (one * other) * counts).sum(axis=1)
        spread = (counts @ one**2 * counts).sum(axis=1) * (counts @ other**2 * counts).sum(axis=1)
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


def fisher_interval(rho: float, teachers: int) -> Ends:
    """Return the 95% interval of a Spearman's rho by Fisher's z.

    The variance of z is (1 + rho^2 / 2) / (n - 3), after Bonett and Wright (2000): the older
    1.06 / (n - 3) of Fieller et al. (1957) is too narrow above about 0.8, where metrics worth using
    lie. It supposes independent teachers without ties; teachers of one family are not independent,
    so read it as the narrow end. NaN for fewer than 4 teachers, and for a rho of 1 or -1.
    """
    if teachers < 4 or not abs(rho) < 1:
        return Ends(math.nan, math.nan)
    half = NORMAL_95 * math.sqrt((1 + rho**2 / 2) / (teachers - 3))
    return Ends(math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))


def permutation_test(
    predicted: Array, observed: Array, *, draws: int, rng: np.random.Generator
) -> PermutationTest:
    """Return how often shuffled teachers would agree as strongly, either way, as these do.

    The statistic is the mean rho over cells; one shuffle of the teachers serves all cells, because
    students share their teachers. Up to `EXACT` teachers every order counts; else `draws` are
    sampled and p = (k + 1) / (draws + 1), which is never 0 (Phipson and Smyth 2010).

    Args:
        predicted: shape (cells, teachers), higher is better.
        observed: likewise.
        draws: shuffles, where orders are sampled.
        rng: unused where every order counts.

    Returns:
        All NaN where a side of some cell is constant.
    """
    require_pairs(predicted, observed)
    one, other = standard_ranks(predicted), standard_ranks(observed)
    table = one.T @ other / len(one)
    teachers = predicted.shape[-1]
    if not np.isfinite(table).all():
        return PermutationTest(math.nan, math.nan, math.nan)
    exact = teachers <= EXACT
    shuffles = np.tile(np.arange(teachers), (draws, 1))
    orders = _every_order(teachers) if exact else rng.permuted(shuffles, axis=1)
    chance = table[np.arange(teachers), orders].sum(axis=1)
    beyond = int(np.sum(np.abs(chance) >= abs(np.trace(table)) - _ROUNDING))
    p_value = beyond / len(orders) if exact else (beyond + 1) / (len(orders) + 1)
    return PermutationTest(p_value, *percentile_ends(chance))


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
