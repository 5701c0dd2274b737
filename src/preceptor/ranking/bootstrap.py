"""Resampling: how sure the means, the winner and each rank are.

Instructions are resampled, not responses, and one set of draws serves every teacher
and measure. So the difference of two teachers is a paired difference, and everything below is
arithmetic on an array of shape (draws, teachers) in which higher is better. A number that is not
finite is refused, never passed on: with a NaN, every comparison would quietly be false.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError

Array = NDArray[np.float64]

TIE = 1e-12
"""Neighbours closer than this share of their size are a tie: less than rounding can tell apart."""

CHUNK = 4_000_000
"""Counts formed at once (32 MB as float64); fixed, so that draws do not depend on the machine."""


class Interval(NamedTuple):
    """Lower and upper ends, one per column."""

    low: Array
    high: Array


class OrderComparison(NamedTuple):
    """How the order by one set of scores differs from the order by another."""

    same_winner: bool
    same_order: bool
    swapped_pairs: int


class _TieGroup(NamedTuple):
    """First and last position of the tie group that each position of a sorted row belongs to."""

    first: NDArray[np.intp]
    last: NDArray[np.intp]


def bootstrap_means(values: Array, *, draws: int = 2000, rng: np.random.Generator) -> Array:
    """Return the mean of every column in each bootstrap draw of the instructions.

    All columns see the same draws, so a difference of two columns is paired. One seed gives the
    same bytes again, whatever the number of threads and wherever a column stands. Memory beyond the
    result is three times that of `values` and near 100 MB more, however many draws are asked for.

    Args:
        values: shape (columns, instructions), finite, at least one instruction.
        draws: how many resamples to take.
        rng: advanced by `draws * instructions` integers.

    Returns:
        Shape (draws, columns).

    Raises:
        StudyError: if a value is NaN or infinite, or there is no instruction.
    """
    _require_finite(values, "values to resample")
    columns, instructions = values.shape
    if instructions == 0:
        raise StudyError(
            "There is nothing to resample: expected at least one instruction, saw 0. "
            "Give instructions that the teachers answered."
        )
    coarse, fine = _exact_parts(values)
    means = np.empty((draws, columns))
    rows = max(1, CHUNK // instructions)
    for start in range(0, draws, rows):
        chunk = means[start : start + rows]
        counts = _resample_counts(len(chunk), instructions, rng=rng)
        np.matmul(counts, coarse.T, out=chunk)
        chunk += counts @ fine.T
    means /= instructions
    return means


def _resample_counts(rows: int, instructions: int, *, rng: np.random.Generator) -> Array:
    """Return how often each draw picks each instruction, shape (rows, instructions)."""
    picks = rng.integers(instructions, size=(rows, instructions))
    picks += np.arange(rows)[:, None] * instructions
    counts = np.bincount(picks.ravel(), minlength=rows * instructions)
    return counts.reshape(rows, instructions).astype(np.float64)


def _exact_parts(values: Array) -> tuple[Array, Array]:
    """Split the values into two parts, each with so few bits that sums over a draw never round.

    A matrix product adds in an order that depends on the number of threads and on the place of a
    column. Without rounding the order cannot matter: one seed gives the same bytes everywhere, and
    teachers with the same scores tie. The parts add up to the values, less what lies some 2**70
    below the largest of the column.
    """
    bits = 52 - values.shape[1].bit_length()
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))[:, None]
    grid = np.ldexp(1.0, np.maximum(np.frexp(largest)[1], -800) - bits)
    coarse = np.rint(values / grid)
    coarse *= grid
    grid = np.ldexp(grid, -bits)
    fine = values - coarse
    np.rint(np.divide(fine, grid, out=fine), out=fine)
    fine *= grid
    return coarse, fine


def percentile_interval(draws: Array, *, level: float = 0.95) -> Interval:
    """Return the central percentile interval of each column (Efron & Tibshirani 1993, chapter 13).

    Args:
        draws: shape (draws, ...).
        level: the share of draws inside.

    Returns:
        Ends of shape (...).

    Raises:
        StudyError: if a draw is NaN or infinite.
    """
    _require_finite(draws, "draws")
    tail = (1 - level) / 2
    low, high = np.quantile(draws, (tail, 1 - tail), axis=0)
    return Interval(low, high)


def rank_probabilities(draws: Array) -> Array:
    """Return how often each teacher takes each rank; column 0 is P(first).

    Teachers that tie in a draw share the ranks they cover equally. Rows and columns sum to 1.

    Args:
        draws: shape (..., draws, teachers), higher is better.

    Returns:
        Shape (..., teachers, ranks).

    Raises:
        StudyError: if a draw is NaN or infinite.
    """
    _require_finite(draws, "draws")
    *studies, count, teachers = draws.shape
    order = np.argsort(-draws, axis=-1, kind="stable")
    first, last = _tie_groups(np.take_along_axis(draws, order, axis=-1))
    share = 1 / (last - first + 1)
    width = teachers + 1
    # Each share is added where its ranks begin and taken off where they end; the running sum fills
    # between.
    study = np.arange(math.prod(studies)).reshape(*studies, 1, 1)
    row, size = (study * teachers + order) * width, math.prod(studies) * teachers * width
    begins = np.bincount((row + first).ravel(), share.ravel(), size)
    ends = np.bincount((row + last + 1).ravel(), share.ravel(), size)
    held = np.cumsum((begins - ends).reshape(*studies, teachers, width)[..., :teachers], axis=-1)
    probabilities: Array = np.clip(held / count, 0, 1)
    return probabilities


def beat_probabilities(draws: Array, leader: NDArray[np.intp] | int) -> Array:
    """Return how often the teacher at column `leader` is better than each other; a tie counts half.

    Args:
        draws: shape (..., draws, teachers), higher is better.
        leader: a column, of shape (...).

    Returns:
        Shape (..., teachers); 0.5 for the leader against itself.

    Raises:
        StudyError: if a draw is NaN or infinite.
    """
    _require_finite(draws, "draws")
    ahead = np.take_along_axis(draws, np.asarray(leader)[..., None, None], axis=-1)
    tied = np.abs(ahead - draws) <= TIE * np.maximum(np.abs(ahead), np.abs(draws))
    wins: Array = np.where(tied, 0.5, ahead > draws).mean(axis=-2)
    return wins


def ranks(scores: Array) -> NDArray[np.intp]:
    """Return each teacher's rank by its score: 1 is best, and a tie shares the better rank.

    Args:
        scores: shape (..., teachers), higher is better.

    Raises:
        StudyError: if a score is NaN or infinite.
    """
    _require_finite(scores, "scores")
    order = np.argsort(-scores, axis=-1, kind="stable")
    result = np.empty(scores.shape, dtype=np.intp)
    first = _tie_groups(np.take_along_axis(scores, order, axis=-1)).first
    np.put_along_axis(result, order, first + 1, axis=-1)
    return result


def compare_orders(scores: Array, others: Array) -> OrderComparison:
    """Return whether two sets of scores agree on the winner and on the whole order.

    A tie in one that is none in the other changes the order but swaps no pair: a pair is swapped
    where the two sets put it in opposite orders (the discordant pairs of Kendall 1938).

    Args:
        scores: shape (teachers,), higher is better.
        others: likewise, the same teachers.

    Raises:
        StudyError: if a score is NaN or infinite.
    """
    one, other = ranks(scores), ranks(others)
    opposite = (one[:, None] < one) & (other[:, None] > other)
    return OrderComparison(
        same_winner=bool(np.array_equal(one == 1, other == 1)),
        same_order=bool(np.array_equal(one, other)),
        swapped_pairs=int(opposite.sum()),
    )


def _tie_groups(ordered: Array) -> _TieGroup:
    """Return the tie group of every position of rows (..., teachers) that fall left to right."""
    left, right = ordered[..., :-1], ordered[..., 1:]
    apart = left - right > TIE * np.maximum(np.abs(left), np.abs(right))
    edge = np.ones((*ordered.shape[:-1], 1), dtype=bool)
    position = np.arange(ordered.shape[-1])
    opens = np.where(np.concatenate([edge, apart], axis=-1), position, 0)
    closes = np.where(np.concatenate([apart, edge], axis=-1), position, ordered.shape[-1] - 1)
    last = np.minimum.accumulate(closes[..., ::-1], axis=-1)[..., ::-1]
    return _TieGroup(np.maximum.accumulate(opens, axis=-1), last)


def _require_finite(array: Array, what: str) -> None:
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise StudyError(
            f"{bad} of {array.size} {what} are NaN or infinite: expected finite numbers. "
            "Drop instructions without data before resampling."
        )
