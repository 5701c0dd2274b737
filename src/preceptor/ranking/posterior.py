"""The posterior of teachers' true values: drawn together as far as their differences could be chance.

True values are normal around a common middle; how far the observed ones are to be drawn together is itself
drawn from its posterior (empirical Bayes with the hyperparameter's uncertainty: Morris 1983). Every array may
have leading axes more, which are studies of their own.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.ranking.metrics import Array

SPREADS = np.geomspace(0.01, 10, 120)
"""Spreads of the true values that a posterior weighs, in standard deviations of one instruction."""


class Observed(NamedTuple):
    """What was seen of teachers.

    `point` is (teachers,), `covariance` (teachers, teachers) that of the points with `df` degrees of
    freedom, `halves` (teachers, teachers) half the variances of their differences. `first` tells for each
    the first whose values are the same throughout.
    """

    point: Array
    covariance: Array
    halves: Array
    first: NDArray[np.intp]
    df: int


def posterior(seen: Observed, *, draws: int, rng: np.random.Generator) -> Array:
    """Return draws (draws, teachers) of the true values.

    The noise is Student's, because the covariance is estimated. Teachers whose values are the same throughout
    count once, and are the same in every draw.
    """
    teachers = seen.point.shape[-1]
    # Scaled to correlations, so that one teacher's outlier does not drown the others in rounding.
    scale = np.sqrt(np.diagonal(seen.covariance, axis1=-2, axis2=-1))
    unit = np.where(scale > 0, scale, 1.0)
    correlation = seen.covariance / unit[..., None, :] / unit[..., :, None]
    root = np.linalg.cholesky(correlation + 1e-10 * np.eye(teachers))
    noise = rng.normal(size=(draws, teachers)) @ np.swapaxes(root, -1, -2)
    noise *= scale[..., None, :] * np.sqrt(seen.df / rng.chisquare(seen.df, size=(draws, 1)))
    kept, weight = _shrinkage(seen, rng.random(draws))
    point = seen.point[..., None, :]
    middle, shift = ((weight * one).sum(axis=-1, keepdims=True) for one in (point, noise))
    drawn = middle + shift + kept * (point - middle) + np.sqrt(kept) * (noise - shift)
    result: Array = np.take_along_axis(drawn, seen.first[..., None, :], axis=-1)
    return result


def _shrinkage(seen: Observed, uniform: Array) -> tuple[Array, Array]:
    """Return draws of how much of its distance from the middle each teacher keeps, and of its weight there.

    The prior of the true values' spread is half-Cauchy with the scale of one instruction's standard deviation
    (Gelman 2006); the likelihood is that of an F ratio, which allows for variances that are estimated. A
    teacher's own variance is the median of half those of its differences from others, because those are free
    of what an instruction does to all. Of teachers with the same values one has weight.

    Returns:
        Shares and weights, each (draws, teachers); weights of a draw sum to 1.
    """
    teachers = np.arange(seen.point.shape[-1])
    alike = (seen.first != teachers)[..., None, :]
    own = _middling(np.where(alike | (teachers == teachers[:, None]), np.inf, seen.halves))
    own = np.where(np.isfinite(own), own, 0.0)[..., None, :]
    scale = _middling(np.where((own > 0) & ~alike, own, np.inf))[..., None]
    between = SPREADS[:, None] ** 2 * np.where(np.isfinite(scale), scale * (seen.df + 1), 1.0)
    precision = np.where(alike, 0.0, 1 / (own + between))
    weight = precision / precision.sum(axis=-1, keepdims=True)
    point = seen.point[..., None, :]
    distance = point - (weight * point).sum(axis=-1, keepdims=True)
    others = np.maximum((~alike).sum(axis=-1) - 1, 1)
    ratio = (precision * distance**2).sum(axis=-1) / (seen.df * others)
    log = np.log(SPREADS / (1 + SPREADS**2)) - (seen.df + 1) * others / 2 * np.log1p(ratio)
    log += np.log(np.where(alike, 1.0, precision)).sum(axis=-1) / 2
    log -= np.log(precision.sum(axis=-1)) / 2
    likely = np.exp(log - log.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    below = (likely / likely[..., -1:])[..., None, :] < uniform[:, None]
    at = np.minimum(below.sum(axis=-1), len(SPREADS) - 1)[..., None]
    shares, weights = (
        np.take_along_axis(one, at, axis=-2) for one in (between * precision, weight)
    )
    return shares, weights


def _middling(values: Array) -> Array:
    """Return the lower median of the finite values along the last axis, infinite where there are none."""
    middle = np.maximum(np.isfinite(values).sum(axis=-1, keepdims=True) - 1, 0) // 2
    found: Array = np.take_along_axis(np.sort(values, axis=-1), middle, axis=-1)[..., 0]
    return found
