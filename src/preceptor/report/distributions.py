"""What lies behind a teacher's means: how each measure is distributed.

Everything is over the instructions that the ranking compares, and nothing needs a text.
"""

import numpy as np

from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common
from preceptor.report.data import Distribution

BINS = 30
"""Bins of a distribution."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The percentiles of each teacher."""

FIRST = ("reward", "loss", "length")
"""The measures that come first."""


def distributions(common: Common) -> tuple[Distribution, ...]:
    """Return the distribution of every measure; reward, loss and length come first.

    A measure with denominators is divided by them, instruction by instruction.
    """
    names = [name for name in FIRST if name in common.values]
    names += [name for name in common.values if name not in names]
    return tuple(_distribution(name, each(common, name)) for name in names)


def each(common: Common, name: str) -> Array:
    """Return a measure of each teacher and instruction, (teachers, instructions)."""
    values: Array = common.values[name]
    return values / common.denominators[name] if name in common.denominators else values


def _distribution(name: str, values: Array) -> Distribution:
    edges = _edges(values)
    places = np.searchsorted(edges, values, side="right") - 1
    counts = [np.bincount(row, minlength=BINS) for row in np.clip(places, 0, BINS - 1)]
    quantiles = np.quantile(values, QUANTILES, axis=1).T
    return Distribution(
        name, edges, np.array(counts, dtype=np.float64), np.ascontiguousarray(quantiles)
    )


def _edges(values: Array) -> Array:
    """Return edges from the 1st to the 99th percentile of the pool, wider where that is a single value."""
    # Ends that are values of the pool: between a few values there is nothing to see.
    low = float(np.quantile(values, 0.01, method="lower"))
    high = float(np.quantile(values, 0.99, method="higher"))
    if not _apart(low, high):
        low, high = float(values.min()), float(values.max())
    if not _apart(low, high):
        margin = max(0.5, abs(low) * 1e-3)
        low, high = low - margin, high + margin
    return np.linspace(low, high, BINS + 1)


def _apart(low: float, high: float) -> bool:
    """Tell whether bins between two numbers are wider than rounding."""
    return high - low > 1e-9 * max(abs(low), abs(high))
