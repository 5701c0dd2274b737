"""Exact tests at every sample size of which of two bounded means, or ratios of means, is higher, by betting.

A gambler stakes on each row that one teacher is better. Where it is not, the gambler's wealth is a
nonnegative supermartingale: the chance that it ever grows past 1 / alpha is at most alpha (Ville 1939), at
every sample size and for every distribution within the bounds (Waudby-Smith and Ramdas 2024, JRSS-B).

A ratio numerator / denominator is at least c where the mean of numerator - c * denominator is at least 0
(Fieller 1954). At the ratio of the one teacher this mean is 0 for it, and for the other at most 0 unless the
other is higher. The gambler therefore plays at every c at once, and must have won at every c that the one
teacher's ratio can still have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.measurements import Flags
from preceptor.ranking.metrics import Array

CELLS = 60
"""How many intervals the range of a ratio is cut into."""

_ELEMENTS = 1_000_000
"""How many numbers are held at once."""


@dataclass(frozen=True)
class Ratio:
    """What is compared: numerators within 0..1 over denominators within `low`..`high`, row by row.

    Both are (teachers, rows). A plain mean has denominators of 1.
    """

    above: Array
    below: Array
    low: float
    high: float

    def __post_init__(self) -> None:
        inside = (self.above >= 0) & (self.above <= 1)
        inside &= (self.below >= self.low) & (self.below <= self.high)
        if not inside.all() or self.low <= 0:
            raise StudyError(
                f"Betting needs numbers within stated bounds: found rewards from {self.above.min():.4g} to "
                f"{self.above.max():.4g} (expected 0 to 1) over {self.below.min():.4g} to "
                f"{self.below.max():.4g} (expected {self.low:.4g} to {self.high:.4g}). Scale the rewards, "
                "state a larger max_loss, or race with method = 'asymptotic'."
            )


class Bets:
    """The wealth of all gamblers, carried from row to row.

    Args:
        teachers: how many there are.
        alpha: error allowed for every ordered pair.
        low, high: bounds of the denominators; equal for plain means.
        scale: asked is whether one teacher times this is higher than another; 1 for a plain comparison.
        pool: rows in all where the question is their mean, drawn without replacement; else None.
    """

    def __init__(
        self,
        teachers: int,
        alpha: float,
        *,
        low: float = 1.0,
        high: float = 1.0,
        scale: float = 1.0,
        pool: int | None = None,
    ) -> None:
        self.mean = low == high
        ends = np.linspace(0, 1 / low, 2 if self.mean else CELLS + 1)
        # Both ends of every cell play the same stakes: the logarithm of wealth is then concave in c, so that
        # within a cell it is nowhere less than at the worse end.
        self.ends = np.stack([ends[:-1], ends[1:]], axis=-1)
        cells = len(self.ends)
        self.scale, self.pool, self.rows = scale, pool, 0
        self.bound = scale * (1 + self.ends[:, 1] * (high - low))
        self.own_bound = np.maximum(1.0, self.ends[:, 1] * high)
        shape = (teachers, teachers, cells)
        # A plain mean needs no interval for its ratio: the comparison is the same at every c.
        share = 1.0 if self.mean else 0.5
        self.duel = _Wealth(shape, alpha * share, pool)
        self.own = _Wealth((2, teachers, cells), alpha / 2, pool)

    def extend(self, ratio: Ratio, playing: Sequence[int]) -> None:
        """Play the next rows, of the teachers at these places alone; the others keep what they have."""
        rows, at = ratio.above.shape[1], list(playing)
        size = max(1, _ELEMENTS // (2 * len(at) ** 2 * len(self.ends)))
        for start in range(0, rows, size):
            part = slice(start, start + size)
            above, below = ratio.above[:, part].T, ratio.below[:, part].T
            ends = self.ends * self.scale
            over = self.scale * above[:, :, None] - above[:, None, :]
            under = below[:, :, None] - below[:, None, :]
            gains = over[..., None, None] - under[..., None, None] * ends
            self.duel.play(gains, self.bound, np.ix_(at, at))
            if not self.mean:
                own = above[..., None, None] - below[..., None, None] * self.ends
                self.own.play(np.stack([own, -own], axis=1), self.own_bound, np.ix_([0, 1], at))

    @property
    def better(self) -> Flags:
        """Whether row (times the scale) is known to be higher than column, (teachers, teachers)."""
        possible: Flags = np.ones(self.duel.won.shape[1:], dtype=bool)
        if not self.mean:
            possible = ~np.any(self.own.won, axis=0)
        found: Flags = np.all(self.duel.won | ~possible[:, None, :], axis=-1)
        np.fill_diagonal(found, False)
        return found


class _Wealth:
    """The logarithm of what gamblers have, (..., cells, 2 ends), and whether they ever won, (..., cells)."""

    def __init__(self, shape: tuple[int, ...], alpha: float, pool: int | None) -> None:
        self.log, self.total, self.squares = (np.zeros((*shape, 2)) for _ in range(3))
        self.won = np.zeros(shape, dtype=bool)
        self.goal, self.pool, self.rows = -np.log(alpha), pool, 0

    def play(self, gains: Array, bound: Array, at: tuple[NDArray[np.intp], ...]) -> None:
        """Stake at these places on rows of gains (rows, ..., cells, 2), each within `bound` (cells,) of 0."""
        rows = np.arange(self.rows, self.rows + len(gains)).reshape(-1, *([1] * self.total.ndim))
        before = self.total[at] + np.cumsum(gains, axis=0) - gains
        squares = self.squares[at] + np.cumsum(gains**2, axis=0) - gains**2
        self.total[at], self.squares[at] = before[-1] + gains[-1], squares[-1] + gains[-1] ** 2
        self.rows += len(gains)
        limit = bound
        if self.pool is not None:
            # What is left of the pool makes up for what was seen: the mean that is still fair to bet against.
            fair = -before / (self.pool - rows)
            gains, limit = gains - fair, (bound + np.abs(fair).max(axis=-1))
        middle, square = before.mean(axis=-1), squares.mean(axis=-1)
        # One row of a quarter of the bound's square, so that the first stakes are small.
        mean = middle / (rows[..., 0] + 1)
        spread = (square + bound**2 / 4) / (rows[..., 0] + 1)
        stake = np.clip(mean / np.maximum(spread, 1e-300), 0, 0.5 / limit)
        log = self.log[at] + np.cumsum(np.log1p(stake[..., None] * gains), axis=0)
        self.log[at] = log[-1]
        self.won[at] |= (log.min(axis=-1) >= self.goal).any(axis=0)
