"""Inference: how sure a value, a difference and an order are, from one number per instruction.

Instructions are the units. Intervals are Student's, widened where the values are skewed by Hall's
correction of it; the probabilities of an order are draws from a posterior that shrinks the teachers
towards each other as far as their differences could be chance; and a winner is named by tests of the
leader against every other teacher. Which measurement chose what stands in
docs/explanation/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.ranking.bootstrap import (
    TIE,
    Interval,
    beat_probabilities,
    rank_probabilities,
    ranks,
)
from preceptor.ranking.metrics import Array
from preceptor.ranking.places import MOST_PROMPTS, Cap
from preceptor.ranking.quantities import Quantity
from preceptor.ranking.tails import sign_test, t_quantile, t_tail

TAIL = 0.025
"""Each side of a 95% interval, and of a test at the level at which a winner is named."""

PRIOR_PAIR = 2
"""Instructions that the prior of few values counts for in a difference (Agresti & Min 2005)."""

MIN_PROMPTS = 30
"""Below this many instructions no winner is named."""

MIN_EFFECTIVE = 3.0
"""Below this effective number no winner is named: intervals of so skewed values miss too often."""

OUTWARD, INWARD = 0.5, 0.3
"""How much of the way from Student's end to Hall's an end is moved, where Hall's lies further out or in."""

UNSEEN = 16
"""A sample of n shows 1 / (1 + UNSEEN / n) of the skewness, about; these three are by measured coverage."""

POWER = 0.8416
"""The normal quantile of 80%, the probability with which the prompts asked for settle the question."""

SPREADS = np.geomspace(0.01, 10, 120)
"""Spreads of the true values that a posterior weighs, in standard deviations of one instruction."""


class Moments(NamedTuple):
    """Standard error of a mean, and skewness of what it is the mean of; any shape."""

    error: Array
    skewness: Array


@dataclass(frozen=True)
class Scores:
    """What orders teachers, higher is better, and how it varies from sample to sample.

    Of teachers with these `labels`, `point` is (teachers,), `covariance` (teachers, teachers) that of the
    points, `n` the instructions behind them. `pairs` are the moments of row less column, `own` the skewness
    of each teacher's values. `same` (teachers, teachers) tells whose values are the same throughout.
    `right` (teachers, instructions) tells the better of two values where there are but two, else None.
    """

    labels: tuple[str, ...]
    point: Array
    covariance: Array
    n: int
    pairs: Moments
    own: Array
    same: NDArray[np.bool_]
    right: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Standing:
    """How sure an order is; rows are teachers as given, `order` names them best first, `places` are ranks.

    `gap` is by how much the leader is ahead of each, `p_rank` (teachers, ranks), `p_leader_beats`,
    `p_value` and `contenders` (teachers,), `lead` the interval of the leader's lead over each, `worst` the
    lower end of the leader's own value. Both allow for its having been chosen as the highest of several,
    which is too high on average. The rest is as in `Evidence`.
    """

    order: NDArray[np.intp]
    places: NDArray[np.intp]
    p_rank: Array
    p_leader_beats: Array
    p_value: Array
    gap: Array
    lead: Interval
    worst: float
    contenders: NDArray[np.bool_]
    cap: Cap | None
    effective_n: float
    regret: float
    more_prompts: int | None


def interval(quantity: Quantity) -> Interval:
    """Return the 95% interval of every teacher's value; NaN where there is one instruction alone."""
    count = quantity.influence.shape[1]
    if count < 2:
        nothing = np.full(len(quantity.point), np.nan)
        return Interval(nothing, nothing)
    few = quantity.spread > 0
    # Wilson's interval, as that many further instructions make it, for the part that takes few values.
    weight = np.where(few, t_quantile(TAIL, count - 1) ** 2, 0.0)
    total = count + weight
    squares, skewness = _sums(quantity.influence)
    variance = (squares - quantity.coarse) / (count * (count - 1))
    variance += (quantity.coarse + weight * quantity.spread) / np.where(few, total**2, 1.0)
    error = np.sqrt(np.maximum(variance, 0))
    middle = quantity.point + weight * quantity.shift / total
    low, high = _ends(middle, Moments(error, np.where(few, 0, skewness)), count)
    return Interval(np.minimum(low, quantity.point), np.maximum(high, quantity.point))


def _sums(influence: Array) -> tuple[Array, Array]:
    """Return each row's sum of squares and skewness; rows sum to 0."""
    count = influence.shape[-1]
    squares = np.einsum("...i,...i->...", influence, influence)
    cubes = np.einsum("...i,...i,...i->...", influence, influence, influence)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(squares > 0, (cubes / count) / (squares / count) ** 1.5, 0.0)
    return squares, skewness


def _ends(point: Array, moments: Moments, count: int) -> Interval:
    """Return Student's interval with its ends moved towards Hall's.

    Student's alone misses too often where values are skewed, Hall's where both tails are heavy.
    """
    reach = t_quantile(TAIL, count - 1)
    a = _asymmetry(moments.skewness, count)
    some = np.where(np.abs(a) < 1e-6, 1.0, a)
    ends = []
    for side in (1, -1):
        hall = side * 3 / some * (np.cbrt(1 + some * (side * reach - some / 6)) - 1)
        further = np.where(some == a, hall - reach, 0.0)
        ends.append(reach + np.where(further > 0, OUTWARD, INWARD) * further)
    return Interval(point - ends[0] * moments.error, point + ends[1] * moments.error)


def _asymmetry(skewness: Array, count: int) -> Array:
    """Return the skewness of a mean of so many."""
    mean: Array = skewness * (1 + UNSEEN / count) / np.sqrt(count)
    return mean


def _hall(t: Array, skewness: Array, count: int) -> Array:
    """Return Student's ratio with its skewness taken out by a monotone cubic (Hall 1992)."""
    a = _asymmetry(skewness, count)
    corrected: Array = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    return corrected


def scores_of(
    quantity: Quantity, labels: Sequence[str], *, right: NDArray[np.bool_] | None = None
) -> Scores:
    """Return what orders, from a quantity in which higher is better."""
    teachers, count = quantity.influence.shape
    influence, prior = quantity.influence, PRIOR_PAIR * quantity.spread
    error, skewness, covariance = np.zeros((3, teachers, teachers))
    same = np.zeros((teachers, teachers), dtype=bool)
    # One row at a time: all pairs at once would hold the measurements `teachers` times over. No matrix
    # product, whose sums depend on the number of threads and on the place of a row.
    for row in range(teachers):
        squares, skewness[row] = _sums(influence[row] - influence)
        same[row] = (squares == 0) & (quantity.point[row] == quantity.point)
        error[row] = squares + prior[row] + prior
        covariance[row] = np.einsum("i,ti->t", influence[row], influence)
    divisor = count * max(count - 1, 1)
    moments = Moments(np.sqrt(error / divisor), skewness)
    own = np.where(quantity.spread > 0, 0.0, _sums(influence)[1])
    covariance = (covariance + np.diag(prior)) / divisor
    return Scores(tuple(labels), quantity.point, covariance, count, moments, own, same, right)


def scores_of_draws(labels: Sequence[str], point: Array, draws: Array, *, n: int) -> Scores:
    """Return what orders, from draws (draws, teachers) of a bootstrap, in which higher is better."""
    covariance = np.atleast_2d(np.cov(draws, rowvar=False))
    own = np.diag(covariance)
    squares = own[:, None] + own - 2 * covariance
    nothing = np.zeros_like(covariance)
    moments = Moments(np.sqrt(np.maximum(squares, 0)), nothing)
    same = (draws[:, :, None] == draws[:, None, :]).all(axis=0)
    return Scores(tuple(labels), point, covariance, n, moments, nothing[0], same)


def standing(scores: Scores, *, draws: int, seed: int) -> Standing:
    """Return how sure the order by these scores is, the same whatever the order of the rows."""
    places = ranks(scores.point)
    order = np.array(sorted(range(len(places)), key=lambda row: (places[row], scores.labels[row])))
    leader = int(order[0])
    drawn = np.empty((draws, len(order)))
    drawn[:, order] = _posterior(scores, order, draws=draws, rng=np.random.default_rng(seed))
    ahead = drawn[:, [leader]] - drawn
    gaps = _gaps(scores)[leader]
    ends = _ends(gaps, Moments(*(part[leader] for part in scores.pairs)), scores.n)
    # The error of what was chosen as the highest lies on one side: there the whole 5% are allowed for.
    nearest, worst = (np.quantile(one, 2 * TAIL, axis=0) for one in (ahead, drawn[:, leader]))
    p_values = _p_values(scores)
    effective = _effective(scores, leader, p_values[leader])
    return Standing(
        order=order,
        places=places,
        p_rank=rank_probabilities(drawn),
        p_leader_beats=beat_probabilities(drawn, leader),
        p_value=p_values[leader],
        gap=gaps,
        lead=Interval(np.minimum(ends.low, nearest), ends.high),
        worst=float(worst),
        contenders=_contenders(scores, leader, p_values),
        cap=_cap(scores, effective),
        effective_n=effective,
        regret=float(-ahead.min(axis=1).mean()),
        more_prompts=_more_prompts(scores, leader, p_values[leader], effective),
    )


def _posterior(
    scores: Scores, order: NDArray[np.intp], *, draws: int, rng: np.random.Generator
) -> Array:
    """Return draws (draws, teachers in this order) of the true values.

    The teachers' true values are normal around their common mean; how far their observed ones are to be
    drawn together is itself drawn from its posterior (empirical Bayes with the hyperparameter's
    uncertainty: Morris 1983). The noise is Student's, because the covariance is estimated too.
    """
    unlike = _first_of_equals(scores, order)
    distinct, places = np.unique(unlike, return_inverse=True)
    rows = order[distinct]
    point, covariance = scores.point[rows], scores.covariance[np.ix_(rows, rows)]
    # Scaled to correlations, so that one teacher's outlier does not drown the others in rounding.
    scale = np.sqrt(covariance.diagonal())
    unit = np.where(scale > 0, scale, 1.0)
    root = np.linalg.cholesky(covariance / unit / unit[:, None] + 1e-10 * np.eye(len(rows)))
    noise = scale * (rng.normal(size=(draws, len(rows))) @ root.T)
    df = max(scores.n - 1, 1)
    noise *= np.sqrt(df / rng.chisquare(df, size=(draws, 1)))
    halves = scores.pairs.error[np.ix_(rows, rows)] ** 2 / 2
    kept, weight = _shrinkage(point, halves, df, rng.random(draws))
    middle, shift = ((weight * one).sum(axis=1, keepdims=True) for one in (point, noise))
    drawn = middle + shift + kept * (point - middle) + np.sqrt(kept) * (noise - shift)
    result: Array = drawn[:, places]
    return result


def _first_of_equals(scores: Scores, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each place of the order the first place whose teacher has the same values throughout."""
    first: NDArray[np.intp] = scores.same[np.ix_(order, order)].argmax(axis=1)
    return first


def _shrinkage(point: Array, halves: Array, df: int, uniform: Array) -> tuple[Array, Array]:
    """Return draws of how much of its distance from the middle each teacher keeps, and of its weight there.

    True values are normal around a common middle. The prior of their spread is half-Cauchy with the scale
    of one instruction's standard deviation (Gelman 2006); the likelihood is that of an F ratio, which allows
    for variances that are estimated. A teacher's own variance is the median of half those of its differences
    from others, `halves`, because those are free of what an instruction does to all.

    Returns:
        Shares and weights, each (draws, teachers); weights of a draw sum to 1.
    """
    others = len(point) - 1
    if others == 0:
        return np.ones((len(uniform), 1)), np.ones((len(uniform), 1))
    apart = halves[~np.eye(others + 1, dtype=bool)].reshape(others + 1, others)
    own = np.quantile(apart, 0.5, axis=1, method="lower")
    scale = float(np.median(own[own > 0])) * (df + 1) if own.any() else 1.0
    between = (SPREADS**2 * scale)[:, None]
    precision = 1 / (own + between)
    weight = precision / precision.sum(axis=1, keepdims=True)
    distance = point - (weight * point).sum(axis=1, keepdims=True)
    ratio = (precision * distance**2).sum(axis=1) / (df * others)
    log = np.log(SPREADS / (1 + SPREADS**2)) - (df + 1) * others / 2 * np.log1p(ratio)
    log += (np.log(precision).sum(axis=1) - np.log(precision.sum(axis=1))) / 2
    likely = np.exp(log - log.max()).cumsum()
    at = np.minimum(np.searchsorted(likely / likely[-1], uniform), len(SPREADS) - 1)
    return (between * precision)[at], weight[at]


def _gaps(scores: Scores) -> Array:
    """Return row less column, (teachers, teachers), 0 where rounding alone could make the difference."""
    one, other = scores.point[:, None], scores.point
    near = np.abs(one - other) <= TIE * np.maximum(np.abs(one), np.abs(other))
    return np.where(near, 0.0, one - other)


def _p_values(scores: Scores) -> Array:
    """Return two-sided p values (teachers, teachers) of each pair's being equal; 1 where it is the same."""
    gaps = _gaps(scores)
    error, skewness = scores.pairs
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(gaps == 0, 0.0, gaps / error)
    plain = np.abs(ratio)
    # Far out the cubic may overflow; there Student's ratio alone is as sure.
    bounded = np.clip(ratio, -1e3, 1e3)
    mended = _hall(bounded, skewness, scores.n) * np.sign(ratio)
    p: Array = 2 * t_tail(np.minimum(plain, np.maximum(mended, 0)), max(scores.n - 1, 1))
    if scores.right is not None:
        for row, column in zip(*np.triu_indices(len(gaps), 1), strict=True):
            p[row, column] = p[column, row] = sign_test(
                *discordant(scores.right, int(row), int(column))
            )
    return np.minimum(p, 1)


def discordant(right: NDArray[np.bool_], one: int, other: int) -> tuple[int, int]:
    """Return on how many instructions only the one, and only the other, has the better value."""
    return int((right[one] & ~right[other]).sum()), int((right[other] & ~right[one]).sum())


def _contenders(scores: Scores, leader: int, p_values: Array) -> NDArray[np.bool_]:
    """Return among whom the best is, with 95% confidence.

    The leader alone where its test against each other is significant: the error of that is the one
    comparison's, however many teachers there are (Gutmann & Maymin 1987). Otherwise all whom no other
    beats at a level that is shared among the others (Bonferroni; Hsu 1996, multiple comparisons with the
    best).
    """
    teachers = len(scores.point)
    found = np.zeros(teachers, dtype=bool)
    found[leader] = True
    if not (np.delete(p_values[leader], leader) > 2 * TAIL).any():
        return found
    beaten = p_values <= 4 * TAIL / max(2, teachers - 1)
    beaten &= _gaps(scores) > 0
    return found | ~beaten.any(axis=0)


def effective_numbers(scores: Scores) -> Array:
    """Return of each teacher how many instructions its value rests on, where skewness is paid for."""
    numbers: Array = scores.n / np.maximum(1.0, scores.own**2)
    return numbers


def _effective(scores: Scores, leader: int, p_values: Array) -> float:
    """Return how many instructions count, where skewness is paid for (Cochran 1977, section 2.15).

    The leader's own values and its differences from its nearest rival count.
    """
    rivals = p_values.copy()
    rivals[leader] = -1
    rival = int(rivals.argmax())
    skewness = max(abs(scores.own[leader]), abs(scores.pairs.skewness[leader, rival]))
    return float(scores.n / max(1.0, skewness**2))


def _cap(scores: Scores, effective: float) -> Cap | None:
    if scores.n < MIN_PROMPTS:
        return "few-prompts"
    if effective < MIN_EFFECTIVE:
        return "few-values" if scores.right is not None else "skewed"
    return None


def _more_prompts(scores: Scores, leader: int, p_values: Array, effective: float) -> int | None:
    """Return how many further instructions would settle the order's first place, with 80% probability.

    The leader's present lead over each rival and its variance are taken for the true ones.
    """
    if len(p_values) == 1:
        return 0
    open_ = p_values > 2 * TAIL
    open_[leader] = False
    gaps = _gaps(scores)[leader][open_]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(
            gaps > 0, (1.96 + POWER) * scores.pairs.error[leader][open_] / gaps, np.inf
        )
    wanted = scores.n * max(1.0, MIN_EFFECTIVE / max(effective, 1e-9), *(ratios**2).tolist())
    more = max(MIN_PROMPTS, wanted) - scores.n
    return None if more > MOST_PROMPTS else int(np.ceil(more))
