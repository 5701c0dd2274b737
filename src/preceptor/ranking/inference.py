"""Inference: how sure a value, a difference and an order are, from one number per instruction.

Instructions are the units. Intervals are Student's, widened where the values are skewed by Hall's
correction of it; the probabilities of an order are draws from a posterior that shrinks the teachers
towards each other as far as their differences could be chance; and a winner is named by tests of the
leader against every other teacher. Which measurement chose what stands in
docs/explanation/statistics.md. Every array may have leading axes more, which are studies of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preceptor.ranking.bootstrap import (
    TIE,
    Interval,
    beat_probabilities,
    rank_probabilities,
    ranks,
)
from preceptor.ranking.metrics import Array
from preceptor.ranking.places import MIN_PROMPTS, MOST_PROMPTS, Cap
from preceptor.ranking.posterior import Observed, posterior
from preceptor.ranking.proportions import paired_shares_interval
from preceptor.ranking.quantities import Quantity
from preceptor.ranking.tails import sign_test, t_quantile, t_tail

TAIL = 0.025
"""Each side of a 95% interval, and of a test at the level at which a winner is named."""

PRIOR = 1
"""Instructions that Jeffreys' prior of a proportion counts for: one half at either bound."""

MIN_EFFECTIVE = 3.0
"""Below this effective number no winner is named: intervals of so skewed values miss too often."""

OUTWARD, INWARD = 0.5, 0.3
"""How much of the way from Student's end to Hall's an end is moved, where Hall's lies further out or in."""

UNSEEN = 16
"""A sample of n shows 1 / (1 + UNSEEN / n) of the skewness, about; these three are by measured coverage."""

NORMAL = 1.959964
"""How many standard deviations a normal 95% interval reaches."""

POWER = 0.8416
"""The normal quantile of 80%, the probability with which the prompts asked for settle the question."""


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
    `right` (teachers, instructions) tells the better of two values where there are but two, else None, and
    `unit` by how much a score rises with the share of these; None where that is not the same for all.
    """

    labels: tuple[str, ...]
    point: Array
    covariance: Array
    n: int
    pairs: Moments
    own: Array
    same: NDArray[np.bool_]
    right: NDArray[np.bool_] | None = None
    unit: float | None = None


@dataclass(frozen=True)
class Standing:
    """How sure an order is; rows are teachers as given, `order` names them best first, `places` are ranks.

    `gap` is by how much the leader is ahead of each, `p_rank` (teachers, ranks), `p_leader_beats`,
    `p_value` and `contenders` (teachers,), `lead` the interval of the leader's lead over each, `worst` the
    lower end of the leader's own value. Both allow for its having been chosen as the highest of several,
    which is too high on average. `capped` tells whether nobody may be named. The rest is as in `Evidence`.
    """

    order: NDArray[np.intp]
    places: NDArray[np.intp]
    p_rank: Array
    p_leader_beats: Array
    p_value: Array
    gap: Array
    lead: Interval
    worst: Array
    contenders: NDArray[np.bool_]
    capped: NDArray[np.bool_]
    effective_n: Array
    regret: Array


def interval(quantity: Quantity) -> Interval:
    """Return the 95% interval of every teacher's value; NaN where there is one instruction alone."""
    count = quantity.influence.shape[-1]
    if count < 2:
        nothing = np.full_like(quantity.point, np.nan)
        return Interval(nothing, nothing)
    # Wilson's interval, as that many further instructions at the bounds make it, for the part between bounds.
    share, weight = quantity.share, _weight(quantity)
    total = count + weight
    variance = (_squares(quantity.influence) - quantity.squares) / (count * (count - 1))
    variance += (quantity.squares + weight * quantity.spread) / (total * (total - 1 + share))
    error = np.sqrt(np.maximum(variance, 0))
    middle = quantity.point + weight * quantity.shift / total
    low, high = _ends(middle, Moments(error, _own_skewness(quantity)), count)
    return Interval(np.minimum(low, quantity.point), np.maximum(high, quantity.point))


def _weight(quantity: Quantity) -> Array:
    """Return how many instructions at the bounds Wilson's interval adds."""
    weight: Array = t_quantile(TAIL, max(quantity.influence.shape[-1] - 1, 1)) ** 2 * quantity.share
    return weight


def prior_squares(quantity: Quantity) -> Array:
    """Return what a prior adds to a teacher's sum of squares: further values, as Wilson's middle has them.

    All answers right would else be without error.
    """
    count = quantity.influence.shape[-1]
    off = quantity.shift * count / (count + _weight(quantity))
    prior: Array = PRIOR * np.maximum(quantity.spread - quantity.share * off**2, 0)
    return prior


def _own_skewness(quantity: Quantity) -> Array:
    """Return the skewness of each teacher's values beyond what bounds make of their mean."""
    return _skewness(quantity.influence, less=quantity.cubes)


def _squares(influence: Array) -> Array:
    """Return each row's sum of squares."""
    squares: Array = np.einsum("...i,...i->...", influence, influence)
    return squares


def _skewness(influence: Array, *, less: ArrayLike = 0.0) -> Array:
    """Return each row's skewness, with so much taken off its sum of cubes; rows sum to 0."""
    count, squares = influence.shape[-1], _squares(influence)
    cubes = np.einsum("...i,...i,...i->...", influence, influence, influence) - less
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > 0, (cubes / count) / (squares / count) ** 1.5, 0.0)


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
    *studies, teachers, count = quantity.influence.shape
    influence, prior = quantity.influence, prior_squares(quantity)
    error, skewness, covariance = np.zeros((3, *studies, teachers, teachers))
    same = np.zeros(error.shape, dtype=bool)
    # One row at a time: all pairs at once would hold the measurements `teachers` times over. No matrix
    # product, whose sums depend on the number of threads and on the place of a row.
    for row in range(teachers):
        one = np.s_[..., [row], :]
        apart = influence[one] - influence
        squares, skewness[..., row, :] = _squares(apart), _skewness(apart)
        point, own = (array[..., [row]] for array in (quantity.point, prior))
        same[..., row, :] = (squares == 0) & (point == quantity.point)
        error[..., row, :] = squares + own + prior
        covariance[..., row, :] = (influence[one] * influence).sum(axis=-1)
    divisor = count * max(count - 1, 1)
    moments = Moments(np.sqrt(error / divisor), skewness)
    own = _own_skewness(quantity)
    covariance = (covariance + prior[..., None] * np.eye(teachers)) / divisor
    unit = None if right is None else _unit(quantity)
    return Scores(tuple(labels), quantity.point, covariance, count, moments, own, same, right, unit)


def _unit(quantity: Quantity) -> float | None:
    """Return what lies between the metric of all right and of all wrong; None where it is not linear."""
    # The spread of right or wrong is that of one value at either bound: a quarter of the squared distance.
    found = 2 * np.sqrt(quantity.spread)
    unit = float(found.flat[0])
    return unit if unit > 0 and np.allclose(found, unit, rtol=1e-6) else None


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
    alphabetic = np.argsort(np.argsort(scores.labels))
    order = np.lexsort((np.broadcast_to(alphabetic, places.shape), places))
    leader = order[..., 0]
    drawn = posterior(_observed(scores, order), draws=draws, rng=np.random.default_rng(seed))
    drawn = np.take_along_axis(drawn, np.argsort(order)[..., None, :], axis=-1)
    best = _column(drawn, leader)
    ahead = best[..., None] - drawn
    gaps, p_values = _gaps(scores), _p_values(scores)
    gap, p_value = _row(gaps, leader), _row(p_values, leader)
    ends = _lead(scores, gap, leader)
    # The error of what was chosen as the highest lies on one side: there the whole 5% are allowed for.
    nearest = np.quantile(ahead, 2 * TAIL, axis=-2)
    effective = _effective(scores, leader, p_value)
    return Standing(
        order=order,
        places=places,
        p_rank=rank_probabilities(drawn),
        p_leader_beats=beat_probabilities(drawn, leader),
        p_value=p_value,
        gap=gap,
        lead=Interval(np.minimum(ends.low, nearest), ends.high),
        worst=_worst(scores, leader, np.quantile(best, 2 * TAIL, axis=-1)),
        contenders=_contenders(p_values, gaps, leader),
        capped=(effective < MIN_EFFECTIVE) | (scores.n < MIN_PROMPTS),
        effective_n=effective,
        regret=-ahead.min(axis=-1).mean(axis=-1),
    )


def _lead(scores: Scores, gap: Array, leader: NDArray[np.intp]) -> Interval:
    """Return the interval of the leader's lead over each: of right or wrong, that of paired shares."""
    if scores.right is None or scores.unit is None:
        return _ends(gap, Moments(*(_row(part, leader) for part in scores.pairs)), scores.n)
    own = np.take_along_axis(scores.right, leader[..., None, None], axis=-2)
    wins, losses = (own & ~scores.right).sum(axis=-1), (~own & scores.right).sum(axis=-1)
    low, high = paired_shares_interval(wins, losses, scores.n, reach=NORMAL)
    return Interval(scores.unit * low, scores.unit * high)


def _worst(scores: Scores, leader: NDArray[np.intp], lowest: Array) -> Array:
    """Return the lower end of the leader's value, moved as that of skewed values is from Student's."""
    if scores.n < 2:
        return lowest
    point, skewness = (
        _column(one[..., None, :], leader)[..., 0] for one in (scores.point, scores.own)
    )
    nothing = np.zeros_like(point)
    moved = -_ends(nothing, Moments(nothing + 1, skewness), scores.n).low / t_quantile(
        TAIL, scores.n - 1
    )
    worst: Array = point - moved * (point - lowest)
    return worst


def _row(pairs: Array, leader: NDArray[np.intp]) -> Array:
    """Return the leader's row of (..., teachers, teachers)."""
    row: Array = np.take_along_axis(pairs, leader[..., None, None], axis=-2)[..., 0, :]
    return row


def _column(values: Array, leader: NDArray[np.intp]) -> Array:
    """Return the leader's column of (..., draws, teachers)."""
    column: Array = np.take_along_axis(values, leader[..., None, None], axis=-1)[..., 0]
    return column


def _observed(scores: Scores, order: NDArray[np.intp]) -> Observed:
    """Return what was seen of the teachers in this order."""
    rows, columns = order[..., :, None], order[..., None, :]

    def ordered(pairs: NDArray[Any]) -> Any:
        return np.take_along_axis(np.take_along_axis(pairs, rows, axis=-2), columns, axis=-1)

    return Observed(
        point=np.take_along_axis(scores.point, order, axis=-1),
        covariance=ordered(scores.covariance),
        halves=ordered(scores.pairs.error) ** 2 / 2,
        first=ordered(scores.same).argmax(axis=-1),
        df=max(scores.n - 1, 1),
    )


def _gaps(scores: Scores) -> Array:
    """Return row less column, (teachers, teachers), 0 where rounding alone could make the difference."""
    one, other = scores.point[..., :, None], scores.point[..., None, :]
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
        right = scores.right.astype(np.float64)
        wins = right @ np.swapaxes(1 - right, -1, -2)
        p = sign_test(wins, np.swapaxes(wins, -1, -2))
    return np.minimum(p, 1)


def discordant(right: NDArray[np.bool_], one: int, other: int) -> tuple[int, int]:
    """Return on how many instructions only the one, and only the other, has the better value."""
    return int((right[one] & ~right[other]).sum()), int((right[other] & ~right[one]).sum())


def _contenders(p_values: Array, gaps: Array, leader: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return among whom the best is, with 95% confidence.

    The leader alone where its test against each other is significant: the error of that is the one
    comparison's, however many teachers there are (Gutmann & Maymin 1987). Otherwise all whom no other
    beats at a level that is shared among the others (Bonferroni; Hsu 1996, multiple comparisons with the
    best).
    """
    teachers = gaps.shape[-1]
    first = np.arange(teachers) == leader[..., None]
    settled = ((_row(p_values, leader) <= 2 * TAIL) | first).all(axis=-1, keepdims=True)
    beaten = (p_values <= 4 * TAIL / max(2, teachers - 1)) & (gaps > 0)
    found: NDArray[np.bool_] = first | ~(settled | beaten.any(axis=-2))
    return found


def effective_numbers(scores: Scores) -> Array:
    """Return of each teacher how many instructions its value rests on, where skewness is paid for."""
    numbers: Array = scores.n / np.maximum(1.0, scores.own**2)
    return numbers


def _effective(scores: Scores, leader: NDArray[np.intp], p_value: Array) -> Array:
    """Return how many instructions count, where skewness is paid for (Cochran 1977, section 2.15).

    The leader's own values and its differences from its nearest rival count.
    """
    first = np.arange(p_value.shape[-1]) == leader[..., None]
    rival = np.where(first, -1.0, p_value).argmax(axis=-1)
    of_lead = _column(_row(scores.pairs.skewness, leader)[..., None, :], rival)
    skewness = np.maximum(np.abs(_column(scores.own[..., None, :], leader)), np.abs(of_lead))
    effective: Array = scores.n / np.maximum(1.0, skewness[..., 0] ** 2)
    return effective


def cap_of(scores: Scores, effective: float) -> Cap | None:
    """Return why nobody may be named with so many effective instructions, None where somebody may."""
    if scores.n < MIN_PROMPTS:
        return "few-prompts"
    if effective < MIN_EFFECTIVE:
        return "few-values" if scores.right is not None else "skewed"
    return None


def more_prompts(scores: Scores, found: Standing) -> int | None:
    """Return how many further instructions would settle the order's first place, with 80% probability.

    The leader's present lead over each rival and its variance are taken for the true ones.
    """
    if len(found.order) == 1:
        return 0
    leader = int(found.order[0])
    open_ = found.p_value > 2 * TAIL
    open_[leader] = False
    gaps = found.gap[open_]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(
            gaps > 0, (1.96 + POWER) * scores.pairs.error[leader][open_] / gaps, np.inf
        )
    effective = max(float(found.effective_n), 1e-9)
    wanted = scores.n * max(1.0, MIN_EFFECTIVE / effective, *(ratios**2).tolist())
    more = max(MIN_PROMPTS, wanted) - scores.n
    return None if more > MOST_PROMPTS else int(np.ceil(more))
