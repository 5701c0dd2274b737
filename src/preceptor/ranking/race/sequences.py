"""Confidence sequences: bounds on a mean that hold at every sample size at once.

However often one looks, and whatever makes one stop, the bound is wrong at any look with at most the stated
probability. The bounds are asymptotic: they hold for any distribution with a finite variance once the first
look is at enough rows (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Annals of Statistics).
docs/explanation/racing.md derives them.
"""

import math
from statistics import NormalDist

import numpy as np

from preceptor.ranking.metrics import Array

TIGHT = 200
"""The bound is nearly the tightest possible after about so many rows; any value is valid."""


def tuning(alpha: float, at: float = TIGHT) -> float:
    """Return the rows that the mixture starts with, for a bound that is tight after `at` rows."""
    log = -2 * math.log(2 * alpha)
    return at / (log + math.log1p(log))


def reach(n: int, alpha: float, *, pool: int | None = None) -> float:
    """Return how many standard errors a mean of n rows lies above its truth at most, at every n at once.

    The boundary is that of a sum mixed over normal effects of one sign (Robbins 1970; Howard et al. 2021).
    Where the rows are drawn without replacement from a pool and the truth is the pool's mean, the sum's
    error is that of a Brownian bridge; divided by the share of rows still to come it is a Brownian motion
    again, at the time n / (1 - n / pool), so that the same boundary holds for it (Doob 1949; Rosen 1964).

    Args:
        n: rows seen, at least 1.
        alpha: probability that the bound is ever exceeded, on this side; below 0.5.
        pool: rows in all where the question is their mean; None for the population they come from.
    """
    left = 1 - n / pool if pool is not None else 1.0
    if left <= 0:
        return 0.0
    time, prior = n / left, tuning(alpha)
    ratio = (time + prior) / prior
    boundary = math.sqrt(2 * (time + prior) * math.log1p(math.sqrt(ratio) / (2 * alpha)))
    return left * boundary / math.sqrt(n)


def width_with(fixed: Array, error: Array, n: int, alpha: float) -> Array:
    """Return by how much a mean that is partly known of all rows lies above its truth at most, at every n.

    Such a mean has an error that never changes, that of all rows, and one that falls with n. Both go into one
    mixture: over normal effects on the one with `share` times the inverse of its variance, and on the other
    as for `reach`. The worst division of a sum between the two gives a root of squares.

    Args:
        fixed: standard errors over all rows of what is known.
        error: standard errors of the rest over the rows seen; where it is 0, the ordinary normal bound holds.
        n: rows seen.
        alpha: as for `reach`.
    """
    prior = tuning(alpha)
    shares = np.geomspace(1 / 64, 16, 11)

    def square(share: Array, rows: float) -> Array:
        left = error**2 * n / rows * (rows + prior) / rows
        ratio = (1 + share) * (rows + prior) / prior
        found: Array = (
            (left + fixed**2 * (1 + 1 / share)) * 2 * np.log1p(np.sqrt(ratio) / 2 / alpha)
        )
        return found

    # Chosen for one number of rows and not for n: a mixture is the same at every look.
    tight = np.stack([square(np.full_like(error, share), TIGHT) for share in shares])
    wide = np.sqrt(square(shares[tight.argmin(axis=0)], n))
    return np.where(error > 0, wide, -NormalDist().inv_cdf(alpha) * fixed)


def looks(start: int, rows: int, *, growth: float = 0.1) -> list[int]:
    """Return after how many rows a race looks: from the start on, a tenth more each time, and at the end."""
    found = [min(start, rows)]
    while found[-1] < rows:
        found.append(min(rows, max(found[-1] + 1, math.ceil(found[-1] * (1 + growth)))))
    return found
