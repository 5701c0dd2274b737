"""The difference of two shares of the same questions, with an interval that is right for few of them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preceptor.ranking.bootstrap import Interval
from preceptor.ranking.metrics import Array

_STEPS = 60


def paired_shares_interval(wins: ArrayLike, losses: ArrayLike, n: int, *, reach: float) -> Interval:
    """Return the score interval of (wins - losses) / n, for right or wrong answers to the same questions.

    Tango (1998, Statistics in Medicine 17). Over every outcome of 8, 12 and 24 questions and 600 draws of the
    true shares, a nominal 95% covers at least 92%, and 97% or more on average (`bench/paired_shares.py`).

    Args:
        wins: questions that only the one is right on, of any shape.
        losses: questions that only the other is right on.
        n: all questions.
        reach: the standard normal's quantile, 1.96 for 95%.
    """
    b, c = np.broadcast_arrays(*(np.asarray(one, dtype=np.float64) for one in (wins, losses)))
    difference = (b - c) / n
    low = _bisected(
        np.full_like(difference, -1.0), difference, lambda at: _ratio(b, c, n, at) > reach
    )
    high = -_bisected(
        np.full_like(difference, -1.0), -difference, lambda at: _ratio(c, b, n, at) > reach
    )
    return Interval(low, high)


def _bisected(
    outside: Array, inside: Array, is_outside: Callable[[Array], NDArray[np.bool_]]
) -> Array:
    """Return where the interval ends between points that lie outside of it and within."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        beyond = is_outside(middle)
        outside, inside = np.where(beyond, middle, outside), np.where(beyond, inside, middle)
    return inside


def _ratio(b: Array, c: Array, n: int, at: Array) -> Array:
    """Return the score statistic of a true difference, its variance at the likeliest shares given that."""
    half = 2 * n
    linear = (half - b + c) * at - b - c
    root = np.sqrt(np.maximum(linear**2 + 4 * half * c * at * (1 - at), 0))
    losing = (root - linear) / (2 * half)
    variance = n * (2 * losing + at * (1 - at))
    gap = b - c - n * at
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.where(gap <= 0, 0.0, gap / np.sqrt(np.maximum(variance, 0)))
    return ratio
