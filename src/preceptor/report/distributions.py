"""What lies behind a teacher's means: how each measure is distributed, and the means within categories.

Everything is over the instructions that the ranking compares, and nothing needs a text.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import Metric
from preceptor.ranking.quantities import formed, measured
from preceptor.ranking.rank import estimates_of
from preceptor.ranking.sensitivity import subset
from preceptor.report.data import FEWEST, Category, Distribution
from preceptor.types import Estimate

BINS = 30
"""Bins of a distribution."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The percentiles of each teacher."""

FIRST = ("reward", "loss", "length")
"""The measures that come first, and that a category is labelled by."""

MOST_CATEGORIES = 12
"""Categories that are shown by name."""

OTHER = "other"
"""The name of what is in no category, or in one that is not shown by name."""


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


def by_category(
    common: Common,
    names: Sequence[str | None],
    *,
    teachers: Sequence[str],
    metric: Metric,
) -> tuple[Category, ...]:
    """Return the means within each category, the largest first; none where there is one category alone.

    What has no category, is alone in its own, or comes after the largest twelve is `OTHER`, which comes
    last. Means are of reward, loss, length and what the metric needs, and the metric of them where it is
    finite, with the interval of a ranking on these instructions. A category of fewer than 20 has no means.

    Args:
        common: measures, the rewards already transformed.
        names: of each instruction, None for none.
        teachers: labels of the rows.
        metric: what orders the ranking.
    """
    groups = _groups(names)
    if len(groups) < 2:
        return ()
    wanted = dict.fromkeys((*FIRST, *metric.needs))
    values = {name: common.values[name] for name in wanted if name in common.values}
    below = {name: array for name, array in common.denominators.items() if name in values}
    kept = replace(common, values=values, denominators=below)
    return tuple(
        Category(
            name,
            len(places),
            _means(subset(kept, places), teachers, metric) if len(places) >= FEWEST else {},
        )
        for name, places in groups.items()
    )


def _groups(names: Sequence[str | None]) -> dict[str, NDArray[np.intp]]:
    """Return the places of each category's instructions."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(OTHER if name is None else name, []).append(place)
    sizes = {name: len(places) for name, places in found.items() if name != OTHER}
    shown = sorted((name for name in sizes if sizes[name] > 1), key=lambda n: (-sizes[n], n))
    shown = shown[:MOST_CATEGORIES]
    rest = sorted(place for name, places in found.items() if name not in shown for place in places)
    groups = {name: found[name] for name in shown} | ({OTHER: rest} if rest else {})
    return {name: np.array(places, dtype=np.intp) for name, places in groups.items()}


def _means(
    common: Common, teachers: Sequence[str], metric: Metric
) -> Mapping[str, Mapping[str, Estimate]]:
    quantities = measured(common)
    # Few instructions may have no finite value where all of them together have one.
    with suppress(StudyError):
        quantities[metric.kind] = formed(metric, quantities)
    columns = {name: estimates_of(quantity) for name, quantity in quantities.items()}
    return {
        teacher: {name: column[place] for name, column in columns.items()}
        for place, teacher in enumerate(teachers)
    }
