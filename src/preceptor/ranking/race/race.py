"""A race: teachers leave as soon as they cannot be the best, and what is said holds whenever it stops.

All comparisons are paired, over the rows that all teachers still in the race have. Every ordered pair has a
confidence sequence of its own, each at the same share of the allowed error: the best teacher is dropped only
where one of the others is wrongly found to be better, so that a union over its challengers is enough
(successive elimination: Even-Dar, Mannor and Mansour 2006).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import TIE
from preceptor.ranking.inference import MIN_EFFECTIVE
from preceptor.ranking.measurements import Common, Flags
from preceptor.ranking.metrics import Array, CompatibilityAdjustedReward, Metric
from preceptor.ranking.quantities import Quantity, formed, measured
from preceptor.ranking.race.betting import Bets, Ratio
from preceptor.ranking.race.contrasts import contrasts
from preceptor.ranking.race.covariates import adjusted
from preceptor.ranking.race.look import Ending, Look
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.sequences import TIGHT, reach, width_with
from preceptor.types import Estimate


class Race:
    """A race under way: who is still in it, and what was seen at each look.

    Args:
        metric: what orders.
        teachers: all who start, in any order.
        rows: how many rows there are in all.
        options: when to stop, and which bounds decide.
        known: covariates, known of every row: name to (teachers, rows), rows in the order of the race.
            Betting does not use them, and where they make no bound narrower they are left out.

    Raises:
        StudyError: betting is asked for a metric other than reward and CAR, or for CAR without `max_loss`.
    """

    def __init__(
        self,
        metric: Metric,
        teachers: Sequence[str],
        rows: int,
        options: RaceOptions | None = None,
        known: Mapping[str, Array] | None = None,
    ) -> None:
        self.metric, self.teachers, self.rows = metric, tuple(teachers), rows
        self.options = options or RaceOptions()
        self.running, self.looks = self.teachers, list[Look]()
        self.bets = self._bets() if self.options.method == "betting" else None
        self.known = {} if self.bets or known is None else known

    @property
    def alpha(self) -> float:
        """The error that each ordered pair is allowed; two equal teachers share it between their sides."""
        return (1 - self.options.confidence) / max(2, len(self.teachers) - 1)

    @property
    def ending(self) -> Ending | None:
        """Why the race is decided; None while it goes on."""
        if len(self.running) == 1:
            return "best"
        if not self.looks:
            return None
        if set(self.looks[-1].equal) == set(self.running):
            return "equal"
        return "rows" if self.looks[-1].rows >= self.rows else None

    def look(
        self,
        common: Common,
        *,
        rows: int,
        fresh: int,
        places: NDArray[np.intp] | None = None,
    ) -> Look:
        """Look at the first rows, and drop the teachers that are beaten.

        Args:
            common: the numbers of the teachers still running, in their order, on the rows that all of them
                have, in the order of the race.
            rows: how many rows were asked for until now, also those that one of them lacks.
            fresh: how many of the last columns are new since the look before.
            places: the row of each column, where columns are left out.
        """
        common = self._bounded(common)
        share = common.n / rows
        upward, base = self._quantities(common, rows, places)
        gap, width = self._bounds(upward, base, np.ones(len(upward.point)), share)
        leader = int(np.argmax(upward.point))
        near = np.abs(gap) <= TIE * np.abs(upward.point)
        beats: Flags = (gap - width > 0) & ~near
        within = self._within(upward, base, share)
        if self.bets is not None:
            beats, within = self._betted(common, fresh)
        beaten: Flags = np.any(beats, axis=0)
        beaten[leader] = False
        fine: Flags = np.all(within | np.eye(len(gap), dtype=bool) | beaten, axis=1) & ~beaten
        look = Look(
            rows=rows,
            n=common.n,
            leader=self.running[leader],
            values=dict(zip(self.running, self._signed(upward.point).tolist(), strict=True)),
            behind={
                name: Estimate(
                    float(gap[leader, row]),
                    float(gap[leader, row] - width[leader, row]),
                    float(gap[leader, row] + width[leader, row]),
                    common.n,
                )
                for row, name in enumerate(self.running)
                if row != leader
            },
            dropped={
                self.running[row]: self.running[int(beats[:, row].argmax())]
                for row in np.flatnonzero(beaten).tolist()
            },
            equal=tuple(name for name, yes in zip(self.running, fine, strict=True) if yes),
        )
        self.looks.append(look)
        self.running = tuple(name for name in self.running if name not in look.dropped)
        return look

    def _signed(self, values: Array) -> Array:
        return values if self.metric.higher_is_better else -values

    def _quantities(
        self, common: Common, rows: int, places: NDArray[np.intp] | None
    ) -> tuple[Quantity, Quantity | None]:
        means = dict(measured(common))
        alone = self._upward(means)
        if not self.known:
            return alone, None
        seen = np.arange(common.n) if places is None else places
        order = np.concatenate([seen, np.arange(rows, self.rows)])
        known = {name: values[self._at][:, order] for name, values in self.known.items()}
        plain = {name: mean for name, mean in means.items() if name not in common.denominators}
        rest, explained = adjusted(plain, known)
        upward, base = self._upward({**means, **rest}), self._upward(explained)
        if not self.looks and not self._narrower(alone, upward, base):
            self.known = {}
            return alone, None
        return upward, base

    def _narrower(self, alone: Quantity, upward: Quantity, base: Quantity) -> bool:
        """Tell whether covariates narrow the leader's bounds: once, at the first look, by variances alone."""
        at, same = min(TIGHT, self.rows), np.ones(len(alone.point))
        leader = int(np.argmax(alone.point))
        before, after, fixed = (contrasts(one, same) for one in (alone, upward, base))
        scale = np.sqrt(before.n / at)
        wide, left = (scale * one.error[leader] for one in (before, after))
        if self.options.target == "pool":
            return bool(left.sum() < wide.sum())
        wide = reach(at, self.alpha) * wide
        return bool(width_with(fixed.error[leader], left, at, self.alpha).sum() < wide.sum())

    @property
    def _at(self) -> list[int]:
        return [self.teachers.index(name) for name in self.running]

    def _upward(self, means: Mapping[str, Quantity]) -> Quantity:
        return formed(self.metric, means).upward(self.metric.higher_is_better)

    def _bounds(
        self, upward: Quantity, base: Quantity | None, scale: Array, share: float
    ) -> tuple[Array, Array]:
        """Return row less scaled column, and by how much each may be too high at any look.

        `share` is that of the rows asked for which could be compared.
        """
        found = contrasts(upward, scale)
        if base is not None and self.options.target == "population":
            fixed = contrasts(base, scale).error
            width = width_with(fixed, found.error, found.n, self.alpha)
        else:
            whole = max(found.n, round(share * self.rows))
            pool = whole if self.options.target == "pool" else None
            width = reach(found.n, self.alpha, pool=pool) * found.error
        few = found.n < MIN_EFFECTIVE * found.skewness**2
        return found.gap, np.where(few & (width > 0), np.inf, width)

    def _within(self, upward: Quantity, base: Quantity | None, share: float) -> Flags:
        """Return whether row is known to be at most the tolerance worse than column."""
        if not self.options.tolerance:
            return np.zeros((len(upward.point),) * 2, dtype=bool)
        scale = 1 + self.options.tolerance * np.sign(upward.point)
        gap, width = self._bounds(upward, base, scale, share)
        known: Flags = (gap + width <= 0).T
        return known

    def _bets(self) -> tuple[Bets, Bets | None]:
        """Return the gamblers on who is better, and on who is within the tolerance."""
        low, high = 1.0, 1.0
        if isinstance(self.metric, CompatibilityAdjustedReward):
            if self.options.max_loss is None:
                raise StudyError(
                    "Betting on CAR needs a bound on the loss: give max_loss (--max-loss), in nats per "
                    "token; 10 is above what base models have. Or race with method = 'asymptotic'."
                )
            high += self.metric.beta * self.options.max_loss
        elif self.metric.kind != "reward":
            raise StudyError(
                f"Betting is for reward and car, not for {self.metric.kind}: race with method = "
                "'asymptotic', which takes any metric."
            )
        pool = self.rows if self.options.target == "pool" else None
        scales = (1.0, 1 + self.options.tolerance)
        duel, tolerant = (
            Bets(len(self.teachers), self.alpha, low=low, high=high, scale=scale, pool=pool)
            for scale in scales
        )
        return duel, tolerant if self.options.tolerance else None

    def _bounded(self, common: Common) -> Common:
        most = self.options.max_loss
        if self.bets is None or most is None or "loss" not in common.values:
            return common
        loss = np.minimum(common.values["loss"], most)
        return common.changed("loss", loss)

    def _betted(self, common: Common, fresh: int) -> tuple[Flags, Flags]:
        """Play the new rows; return who beats whom, and who is within the tolerance of whom."""
        assert self.bets is not None
        new = {name: values[:, common.n - fresh :] for name, values in common.values.items()}
        below = np.ones_like(new["reward"])
        high = 1.0
        if isinstance(self.metric, CompatibilityAdjustedReward):
            below = 1 + self.metric.beta * new["loss"]
            high = 1 + self.metric.beta * (self.options.max_loss or 0)
        ratio = Ratio(new["reward"], below, 1.0, high)
        at = np.ix_(self._at, self._at)
        found = []
        for bets in self.bets:
            if bets is not None:
                bets.extend(ratio, self._at)
            found.append(np.zeros_like(at[0] * at[1], bool) if bets is None else bets.better[at])
        return found[0], found[1]
