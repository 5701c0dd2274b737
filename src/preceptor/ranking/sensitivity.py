"""How CAR's answer moves: with beta, and with fewer instructions.

CAR is formed at every beta as the ranking forms it, from the same seed, so that the curve passes
exactly through the ranking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preceptor.ranking.bootstrap import Interval
from preceptor.ranking.inference import Standing, interval, scores_of, standing
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import CompatibilityAdjustedReward, Metric
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.placing import transformed
from preceptor.ranking.quantities import Quantity, formed, measured
from preceptor.ranking.stability import BETAS, upward, winners_by

GRID = (
    *(step / 4 for step in range(13)),
    3.5,
    4.0,
    4.5,
    *(float(beta) for beta in range(5, 11)),
)
"""The betas of a sweep, dense where the order usually turns; the study's own and `BETAS` are added."""

SHARES = (2, 4, 8)
"""The first half, quarter and eighth of the instructions are tried."""

FEWEST = 10
"""With fewer instructions than this a winner says nothing, so they are not tried."""


@dataclass(frozen=True)
class BetaSweep:
    """CAR's answer as beta grows: from the same seed at every beta.

    `values`, `low`, `high` (95% interval), `p_best` and `ranks` (1 is best) have shape (betas, teachers).
    """

    betas: tuple[float, ...]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p_best: NDArray[np.float64]
    ranks: NDArray[np.float64]


def beta_sweep(
    common: Common, metric: CompatibilityAdjustedReward, options: RankingOptions
) -> BetaSweep:
    """Return CAR at every beta of the grid, from the same draws as the ranking.

    Args:
        common: rewards before any transform and losses (teachers, instructions), as they were ranked.
        metric: CAR at the study's beta.
        options: the ranking's.

    Raises:
        StudyError: CAR is not finite at some beta.
    """
    needed = {name: common.values[name] for name in metric.needs}
    below = {name: array for name, array in common.denominators.items() if name in needed}
    used = transformed(replace(common, values=needed, denominators=below), options.transform)
    means = dict(measured(used))
    betas = tuple(sorted({*GRID, *BETAS, metric.beta}))
    found = [formed(replace(metric, beta=beta), means) for beta in betas]
    placed = [_placed(one, options) for one in found]
    return BetaSweep(
        betas=betas,
        values=np.array([one.point for one in found]),
        low=np.array([ends.low for ends, _ in placed]),
        high=np.array([ends.high for ends, _ in placed]),
        p_best=np.array([standing.p_rank[:, 0] for _, standing in placed]),
        ranks=np.array([standing.places for _, standing in placed], dtype=np.float64),
    )


def _placed(car: Quantity, options: RankingOptions) -> tuple[Interval, Standing]:
    """Return the intervals as a ranking has them, and its places."""
    labels = [f"{row:05d}" for row in range(len(car.point))]
    found = standing(scores_of(car, labels), draws=options.n_resamples, seed=options.seed)
    ends = interval(car)
    leader = found.order[0]
    ends.low[leader] = min(ends.low[leader], found.worst)
    return ends, found


def winners(
    common: Common, metric: Metric, *, transform: str, teachers: Sequence[str]
) -> tuple[str, ...]:
    """Return the best teachers by a metric of the means; several where they tie, none where it is not finite.

    `common` holds rewards before the transform, whose pool is these instructions alone.
    """
    needed = {name: common.values[name] for name in metric.needs}
    used = transformed(replace(common, values=needed), transform)
    scores = upward(metric, {name: used.mean(name) for name in metric.needs})
    return winners_by(scores, teachers) if np.isfinite(scores).all() else ()


def nested(common: Common, order: NDArray[np.intp]) -> Iterator[Common]:
    """Yield the first half, quarter and eighth of the instructions in this order, while `FEWEST` are left."""
    for share in SHARES:
        n = common.n // share
        if n >= FEWEST:
            yield common.only(order[:n])
