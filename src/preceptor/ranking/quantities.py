"""Means and metrics with what each instruction did to them: the one form in which sampling error is kept.

To first order the error of a smooth function of means is the mean over instructions of its influence values
(the delta method; Hampel 1974, Efron & Tibshirani 1993, chapter 21). So an interval, a paired difference
and the probability of an order are each arithmetic on an array (teachers, instructions), for any metric,
without resampling.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from preceptor.errors import StudyError
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import METRICS, Array, Metric

STEP = 1e-3
"""The slope of a metric is taken over this share of the standard error of a mean."""

FEW = 3
"""A measure of at most so many different values (right or wrong; won, tied or lost) is one of few values."""

_SHARES = frozenset({"reward", "reward_share", "likelihood_share", "win"})
"""Measures of quality: shares of what could be had, where no value is outside 0..1."""

_OF_TEXTS = frozenset(
    (
        *("length", "tokens", "loss", "plain_loss", "loss_unconditional"),
        *("perplexity", "ifd", "token_rank", "information", "brier", "lark_rho", "lark_score"),
        *("rank_1", "rank_2_10", "rank_11_100", "rank_over_100", "loss_line", "loss_sentence"),
        *("scas_answer", "scas_question", "g_norm", "grace"),
    )
)
"""Measures of texts, which take few values by chance alone."""

_MONOTONE = frozenset({*METRICS, "win_rate"})
"""Metrics that only rise or only fall with each of their means."""


@dataclass(frozen=True)
class Quantity:
    """A measure's mean or a metric, for each teacher.

    `point` has shape (teachers,). `influence` (teachers, instructions) sums to 0 over instructions: the
    variance of the point is that of a row over n. No value can lie outside `limits`.

    Values between bounds vary with their mean: the variance is `share` of what values at the bounds alone
    would have (quasi-binomial, McCullagh & Nelder 1989, section 4.5: 1 for right or wrong). Intervals of
    proportions are made of this (Wilson 1927). One further instruction at either bound would move the point
    by `shift` on average and vary it by `spread`, both per instruction as the influence is; `squares` and
    `cubes` are what the bounded part adds to the row's sum of squares, and to that of cubes as far as its
    mean makes it skewed. All are (teachers,), and 0 where there are no bounds.
    """

    point: Array
    influence: Array
    share: Array
    shift: Array
    spread: Array
    squares: Array
    cubes: Array
    limits: tuple[float, float] = (-np.inf, np.inf)

    def upward(self, higher_is_better: bool) -> "Quantity":
        """Return the quantity so that higher is better."""
        if higher_is_better:
            return self
        down = {name: -getattr(self, name) for name in ("point", "influence", "shift", "cubes")}
        return replace(self, **down, limits=(-self.limits[1], -self.limits[0]))


def unbounded(
    point: Array, influence: Array, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Quantity:
    """Return a quantity of which nothing lies between bounds."""
    share, shift, spread, squares, cubes = np.zeros((5, len(point)))
    return Quantity(point, influence, share, shift, spread, squares, cubes, limits)


class _Means(Mapping[str, Quantity]):
    """The mean of every measure, formed whenever it is looked at: each is as large as what was measured."""

    def __init__(self, common: Common) -> None:
        self._common = common

    def __getitem__(self, name: str) -> Quantity:
        return _mean(self._common, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._common.values)

    def __len__(self) -> int:
        return len(self._common.values)


def measured(common: Common) -> Mapping[str, Quantity]:
    """Return the mean of every measure, formed anew at each look.

    To look raises StudyError where denominators do not sum to a positive number.
    """
    return _Means(common)


def _mean(common: Common, name: str) -> Quantity:
    values = common.values[name]
    mean = values.mean(axis=1)
    limits = _limits(name, values, common.denominators.get(name))
    if name not in common.denominators:
        influence = values - mean[:, None]
        made = unbounded(mean, influence, limits)
        bounds = _bounds(name, values, limits)
        return made if bounds is None else _between(made, *bounds)
    below = common.denominators[name]
    size = below.mean(axis=1)
    if not (size > 0).all():
        raise StudyError(
            f"The denominators of '{name}' do not sum to a positive number for every teacher: expected "
            "positive counts. Drop responses without tokens before ranking."
        )
    ratio = mean / size
    influence = (values - ratio[:, None] * below) / size[:, None]
    return unbounded(ratio, influence, limits)


def _limits(name: str, values: Array, below: Array | None) -> tuple[float, float]:
    """Return what a mean cannot lie outside of: 0 where nothing is negative, 1 where it is a share too."""
    if not values.size or values.min() < 0:
        return -np.inf, np.inf
    share = name in _SHARES and bool((values <= (1 if below is None else below)).all())
    return float(name.startswith("perplexity")), 1.0 if share else np.inf


def outcomes(name: str, values: Array) -> Array | None:
    """Return the values of a measure of outcomes that takes few of them, None of any other measure."""
    return None if name.removesuffix("_gpt2") in _OF_TEXTS else few_values(values)


def _bounds(name: str, values: Array, limits: tuple[float, float]) -> tuple[float, float] | None:
    """Return what values lie between: the outer ones of few, the limits of shares, None for all others."""
    found = outcomes(name, values)
    if found is not None:
        return float(found[0]), float(found[-1])
    return limits if np.isfinite(limits).all() else None


def _between(made: Quantity, low: float, high: float) -> Quantity:
    """Return the quantity of a measure that lies between bounds."""
    mean, squares = made.point, (made.influence**2).sum(axis=1)
    most = made.influence.shape[1] * ((mean - low) * (high - mean)).sum()
    # One share for all, because a teacher whose answers are all right does not show its own.
    share = np.full(len(mean), squares.sum() / most if most > 0 else 1.0)
    shift = (low + high) / 2 - mean
    return replace(
        made,
        share=share,
        shift=shift,
        spread=share * (high - low) ** 2 / 4,
        squares=squares,
        cubes=2 * share * shift * squares,
    )


def few_values(values: Array) -> Array | None:
    """Return the values of a measure that takes few of them, None of any other.

    All answers right, or all wrong, are taken for answers that can be either.
    """
    # A look at the start settles it for what takes many values, without sorting millions.
    if len(np.unique(values.ravel()[:1000])) > FEW:
        return None
    found = np.unique(values)
    if set(found.tolist()) <= {0.0, 1.0}:
        return np.array([0.0, 1.0])
    return found if 2 <= len(found) <= FEW and values.size >= 4 * len(found) else None


def formed(metric: Metric, means: Mapping[str, Quantity]) -> Quantity:
    """Return the metric of the means.

    Raises:
        StudyError: the metric is not finite, or not one number for each mean.
    """
    inputs = [means[name] for name in metric.needs]
    point = _called(metric, [one.point for one in inputs])
    made = unbounded(point, np.zeros_like(inputs[0].influence), _reach(metric, inputs))
    for place, one in enumerate(inputs):
        slope = _slope(metric, inputs, place)
        made.influence[...] += slope[:, None] * one.influence
        made.share[...] = np.maximum(made.share, one.share)
        made.shift[...] += slope * one.shift
        made.spread[...] += slope**2 * one.spread
        made.squares[...] += slope**2 * one.squares
        made.cubes[...] += slope**3 * one.cubes
    return made


def _reach(metric: Metric, inputs: list[Quantity]) -> tuple[float, float]:
    """Return what a metric cannot lie outside of, from its values where its means are at their limits."""
    if metric.kind not in _MONOTONE:
        return -np.inf, np.inf
    corners = np.array(list(product(*(one.limits for one in inputs)))).T
    with np.errstate(all="ignore"):
        values = np.asarray(metric(*corners), dtype=np.float64)
    if np.isnan(values).any():
        return -np.inf, np.inf
    return float(values.min()), float(values.max())


def _slope(metric: Metric, inputs: list[Quantity], place: int) -> Array:
    """Return the metric's change with one of its means, (teachers,), by a central difference."""
    moved = inputs[place]
    count = moved.influence.shape[1]
    error = np.sqrt(((moved.influence**2).sum(axis=1) + moved.spread) / count**2)
    # Without any error the slope matters to nothing; a step that is lost in rounding would be noise.
    step = np.where(error > 0, np.maximum(STEP * error, 1e-7 * np.abs(moved.point)), 0.0)
    ends = []
    for side in (1, -1):
        points = [one.point for one in inputs]
        points[place] = moved.point + side * step
        ends.append(_called(metric, points))
    slope: Array = np.where(step > 0, (ends[0] - ends[1]) / np.where(step > 0, 2 * step, 1.0), 0.0)
    return slope


def _called(metric: Metric, points: list[Array]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = np.asarray(metric(*points), dtype=np.float64)
    if value.shape != points[0].shape:
        raise StudyError(
            f"Metric '{metric.kind}' returned the shape {value.shape}: expected {points[0].shape}, one "
            "number for every mean. Compute it element by element."
        )
    if not np.isfinite(value).all():
        raise StudyError(
            f"Metric '{metric.kind}' is NaN or infinite for some teacher: expected finite numbers. "
            f"Look at the means of {', '.join(metric.needs)}, or leave the metric out."
        )
    return value
