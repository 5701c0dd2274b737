"""Tails of Student's t and of the binomial, to rounding, with NumPy alone.

Both are the regularised incomplete beta function (Abramowitz & Stegun 1964, 26.5 and 26.7.1).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_STEPS = 300
"""Most steps of the continued fraction; it converges in some sqrt(max(a, b)) of them."""


def t_tail(t: ArrayLike, df: int) -> Array:
    """Return P(T > t) of Student's t with so many degrees of freedom, for any shape; t may be infinite."""
    t = np.asarray(t, dtype=np.float64)
    with np.errstate(over="ignore"):
        half = 0.5 * _beta_ratio(0.5 * df, 0.5, df / (df + t * t))
    tail: Array = np.where(t > 0, half, 1 - half)
    return tail


@lru_cache(maxsize=256)
def t_quantile(tail: float, df: int) -> float:
    """Return the t above which this share (below one half) lies."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > tail:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > tail else (low, middle)
    return (low + high) / 2


def sign_test(wins: ArrayLike, losses: ArrayLike) -> Array:
    """Return the exact two-sided p of so many wins and losses where both are as likely; 1 without any.

    Of answers that are right or wrong it is McNemar's exact test (Agresti 2013, section 11.1). Any shape.
    """
    most, least = np.maximum(wins, losses), np.minimum(wins, losses)
    tail = _beta_ratio(np.maximum(most, 1.0), least + 1.0, np.full(np.shape(most), 0.5))
    p: Array = np.where(most == least, 1.0, np.minimum(1.0, 2 * tail))
    return p


def _beta_ratio(a: ArrayLike, b: ArrayLike, x: Array) -> Array:
    """Return the regularised incomplete beta function I_x(a, b), x of any shape within 0..1."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    swap = x > (a + 1) / (a + b + 2)
    one, other, at = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    with np.errstate(divide="ignore"):
        size = one * np.log(at) + other * np.log1p(-at)
    size += _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)
    value = np.exp(size) / one * _continued_fraction(one, other, at)
    result: Array = np.where(swap, 1 - value, value)
    return result


_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])


def _continued_fraction(a: Array, b: Array, x: Array) -> Array:
    """Return the fraction of I_x(a, b) by Lentz's method (Abramowitz & Stegun 1964, 26.5.8)."""
    below = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    above, value = np.ones_like(x), below
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            below = 1 / _not_zero(1 + step * below)
            above = _not_zero(1 + step / above)
            value = value * below * above
        if np.all(np.abs(below * above - 1) < 1e-15):
            break
    return value


def _not_zero(value: Array) -> Array:
    return np.where(np.abs(value) < 1e-300, 1e-300, value)
