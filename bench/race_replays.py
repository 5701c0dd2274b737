"""Many races of one pool at once, from the moments of what was drawn.

Rows are drawn from a pool that is given, so that what a race has seen is how often it has seen each of the
pool's rows. Everything that an asymptotic race decides by follows from first and second moments under these
counts, and from a third where somebody is about to leave. A thousand races take one matrix product a look.

The decisions are those of `Race`, which `bench/race.py` runs on the same rows for some of the replays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from preceptor.ranking.bootstrap import TIE
from preceptor.ranking.inference import MIN_EFFECTIVE, PRIOR, TAIL
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import Metric
from preceptor.ranking.quantities import STEP, Quantity, formed, measured
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.sequences import looks, reach
from preceptor.ranking.tails import t_quantile

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
DRAWS, ENOUGH = 300, 500
"""Draws of a bootstrap; beyond so many rows they come from the normal with their mean and covariance."""

_AT_ONCE = 250
_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Pool:
    """Measures (teachers, rows) by name, what orders, and mean tokens a row, (teachers,).

    With `equal` the first two teachers change places in every other copy of a row: they are equal.
    """

    name: str
    metric: Metric
    values: dict[str, Array]
    lengths: Array
    equal: bool = False
    known: tuple[str, ...] = ()
    options: RaceOptions = field(default_factory=RaceOptions)

    @property
    def rows(self) -> int:
        """How many different rows there are."""
        return int(next(iter(self.values.values())).shape[1])

    @cached_property
    def quantity(self) -> Quantity:
        """The metric over the whole pool, higher is better."""
        means = measured(Common(self.rows, self.values, {}, (), ()))
        return formed(self.metric, means).upward(self.metric.higher_is_better)

    @property
    def scores(self) -> Array:
        """The metric of every teacher over the whole pool, higher is better."""
        return self.quantity.point

    @cached_property
    def between(self) -> dict[str, bool]:
        """Which measures lie between 0 and 1."""
        means = measured(Common(self.rows, self.values, {}, (), ()))
        return {name: bool(mean.spread.any()) for name, mean in means.items()}


@dataclass(frozen=True)
class Ends:
    """How races ended, each (replays,): who was left (replays, teachers), by what, rows, and tokens read."""

    left: Flags
    equal: Flags
    rows: NDArray[np.int64]
    tokens: Array

    def copy(self) -> "Ends":
        """Return how things stand now."""
        return Ends(*(getattr(self, one.name).copy() for one in fields(self)))

    @property
    def named(self) -> Flags:
        """Whether a winner was named, or equal ones."""
        found: Flags = (self.left.sum(axis=1) == 1) | self.equal
        return found


class Drawn:
    """The rows of many replays, as counts (replays, rows of the pool) that grow from look to look."""

    def __init__(
        self, pool: Pool, size: int, replays: int, rng: np.random.Generator, kept: int = 0
    ) -> None:
        self.pool, self.rng = pool, rng
        self.counts = np.zeros((replays, pool.rows))
        self.orders = None
        if pool.options.target == "pool":
            self.orders = rng.permuted(np.tile(np.arange(size), (replays, 1)), axis=1)
        self.picked: list[list[int]] = [[] for _ in range(kept)]
        self.n = 0

    def until(self, n: int, active: NDArray[np.intp]) -> Array:
        """Return the counts after n rows of the replays that go on."""
        if self.orders is None:
            at = self.rng.integers(self.pool.rows, size=(len(active), n - self.n))
        else:
            at = self.orders[active, self.n : n]
        for place, replay in enumerate(active[active < len(self.picked)].tolist()):
            self.picked[replay] += at[place].tolist()
        flat = at + np.arange(len(active))[:, None] * self.pool.rows
        new = np.bincount(flat.ravel(), minlength=len(active) * self.pool.rows)
        self.counts[active] += new.reshape(len(active), -1)
        self.n = n
        return self.counts[active]


class Moments:
    """Means, slopes and covariances of the metric under counts, for many replays at once."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.metric = pool, pool.metric
        self.names, self.teachers = list(pool.metric.needs), len(pool.lengths)
        stacked = np.concatenate([pool.values[name] for name in self.names])
        self.centre = stacked.mean(axis=1)
        self.values = stacked - self.centre[:, None]
        self.upper = np.triu_indices(len(stacked))
        self.products = self.values[self.upper[0]] * self.values[self.upper[1]]

    def of(self, counts: Array, n: int) -> tuple[Array, Array]:
        """Return the means (replays, measures * teachers), and their rows' covariances."""
        off = counts @ self.values.T / n
        found = np.zeros((len(counts), *[len(self.values)] * 2))
        found[:, self.upper[0], self.upper[1]] = counts @ self.products.T / n
        found[:, self.upper[1], self.upper[0]] = found[:, self.upper[0], self.upper[1]]
        return off + self.centre, found - off[:, :, None] * off[:, None, :]

    def metric_of(self, means: Array) -> Array:
        """Return the metric, higher is better, of means (..., measures * teachers)."""
        parts = np.split(means, len(self.names), axis=-1)
        found: Array = (1 if self.metric.higher_is_better else -1) * self.metric(*parts)
        return found


@dataclass
class Seen:
    """One look at many replays: the metric (replays, teachers), its rows' covariances, its prior squares."""

    moments: Moments
    counts: Array
    running: Flags
    n: int

    def __post_init__(self) -> None:
        self.means, covariance = self.moments.of(self.counts, self.n)
        self.point = self.moments.metric_of(self.means)
        variance = np.maximum(np.einsum("rqq->rq", covariance), 0)
        share, shift, spread = self._between(variance)
        self.slope = self._slopes(variance, spread)
        scaled = covariance * self.slope[:, :, None] * self.slope[:, None, :]
        parts, k = len(self.moments.names), self.moments.teachers
        self.covariance = scaled.reshape(-1, parts, k, parts, k).sum(axis=(1, 3))
        self.prior = self._prior(share, shift, spread)

    def _between(self, variance: Array) -> Array:
        """Return share, shift and spread of each mean, as `quantities` forms them between 0 and 1."""
        found = np.zeros((3, *self.means.shape))
        for place, name in enumerate(self.moments.names):
            if not self.moments.pool.between[name]:
                continue
            at = np.s_[:, place * self.moments.teachers : (place + 1) * self.moments.teachers]
            mean = self.means[at]
            most = (mean * (1 - mean) * self.running).sum(axis=1, keepdims=True)
            own = (variance[at] * self.running).sum(axis=1, keepdims=True)
            found[0][at] = np.where(most > 0, own / np.where(most > 0, most, 1), 1.0)
            found[1][at] = 0.5 - mean
            found[2][at] = found[0][at] / 4
        return found

    def _slopes(self, variance: Array, spread: Array) -> Array:
        error = np.sqrt((variance * self.n + spread) / self.n**2)
        step = np.where(error > 0, np.maximum(STEP * error, 1e-7 * np.abs(self.means)), 0.0)
        found = np.zeros_like(self.means)
        for place in range(len(self.moments.names)):
            at = np.s_[:, place * self.moments.teachers : (place + 1) * self.moments.teachers]
            moved = np.zeros_like(step)
            moved[at] = step[at]
            rise = self.moments.metric_of(self.means + moved)
            rise = rise - self.moments.metric_of(self.means - moved)
            found[at] = rise / np.where(step[at] > 0, 2 * step[at], 1.0)
        return found

    def _prior(self, share: Array, shift: Array, spread: Array) -> Array:
        parts = len(self.moments.names)

        def by_measure(values: Array) -> Array:
            return values.reshape(len(values), parts, -1)

        share = by_measure(share).max(axis=1)
        shift = by_measure(self.slope * shift).sum(axis=1)
        spread = by_measure(self.slope**2 * spread).sum(axis=1)
        off = shift * self.n / (self.n + t_quantile(TAIL, self.n - 1) ** 2 * share)
        found: Array = PRIOR * np.maximum(spread - share * off**2, 0)
        return found

    def surely(self, scale: Array, sign: int, alpha: float, pool: int | None) -> Flags:
        """Tell whose metric (rows) is surely above (sign 1) or below that of others (columns) times scale."""
        own = np.einsum("rkk->rk", self.covariance)
        squares = own[:, :, None] + (scale**2 * own)[:, None, :]
        squares -= 2 * scale[:, None, :] * self.covariance
        squares = np.maximum(squares * self.n, 0)
        more = self.prior[:, :, None] + (scale**2 * self.prior)[:, None, :]
        width = reach(self.n, alpha, pool=pool) * np.sqrt(
            (squares + more) / (self.n * (self.n - 1))
        )
        gap = self.point[:, :, None] - (scale * self.point)[:, None, :]
        near = np.abs(gap) <= TIE * np.abs(self.point)[:, None, :]
        higher, lower = (gap - width > 0) & ~near, gap + width <= 0
        sure: Flags = np.asarray(higher if sign > 0 else lower)
        sure &= self.running[:, :, None] & self.running[:, None, :]
        sure[:, np.arange(len(own[0])), np.arange(len(own[0]))] = False
        places = np.argwhere(sure & (width > 0))
        together = max(1, _ELEMENTS // self.counts.shape[1])
        for start in range(0, len(places), together):
            part = places[start : start + together]
            sure[tuple(part.T)] = ~self._few(part, scale, squares[tuple(part.T)])
        return sure

    def _few(self, places: NDArray[np.intp], scale: Array, squares: Array) -> Flags:
        """Tell at which (replay, row, column) too few rows carry the difference."""
        replay, row, column = places.T
        difference = np.zeros((len(places), self.counts.shape[1]))
        off = self.means - self.moments.centre
        for part in range(len(self.moments.names)):
            for teacher, by in ((row, 1.0), (column, -scale[replay, column])):
                at = part * self.moments.teachers + teacher
                weight = by * self.slope[replay, at]
                difference += weight[:, None] * self.moments.values[at]
                difference -= (weight * off[replay, at])[:, None]
        cubes = np.einsum("ci,ci->c", self.counts[replay], difference**3)
        with np.errstate(divide="ignore", invalid="ignore"):
            skewness = cubes / self.n / (squares / self.n) ** 1.5
        few: Flags = self.n < MIN_EFFECTIVE * np.where(squares > 0, skewness, 0.0) ** 2
        return few


def times(pool: Pool, sizes: Sequence[int]) -> list[int]:
    """Return after how many rows is looked, which is also at the end of each of the sizes."""
    return sorted({*looks(pool.options.start, max(sizes)), *sizes})


def raced(
    pool: Pool, sizes: Sequence[int], replays: int, rng: np.random.Generator, kept: int = 0
) -> tuple[list[Ends], list[list[int]]]:
    """Return how races over so many rows end by asymptotic bounds, and the rows that the first `kept` saw."""
    found, picked = [], list[list[int]]()
    for start in range(0, replays, _AT_ONCE):
        drawn = Drawn(pool, max(sizes), min(_AT_ONCE, replays - start), rng, max(0, kept - start))
        found.append(list(_raced(pool, sizes, drawn)))
        picked += drawn.picked
    return [joined(ends) for ends in zip(*found, strict=True)], picked


def _raced(pool: Pool, sizes: Sequence[int], drawn: Drawn) -> Iterator[Ends]:
    moments, options, teachers = Moments(pool), pool.options, len(pool.lengths)
    alpha = (1 - options.confidence) / max(2, teachers - 1)
    whole = max(sizes) if options.target == "pool" else None
    ends = _begun(len(drawn.counts), teachers)
    before = 0
    for n in times(pool, sizes):
        active = np.flatnonzero(~ends.named)
        if len(active):
            running = ends.left[active]
            seen = Seen(moments, drawn.until(n, active), running, n)
            ends.tokens[active] += (running * pool.lengths).sum(axis=1) * (n - before)
            ends.rows[active], before = n, n
            _decide(ends, active, seen, options, alpha, whole)
        if n in sizes:
            yield ends.copy()


def _decide(
    ends: Ends,
    active: NDArray[np.intp],
    seen: Seen,
    options: RaceOptions,
    alpha: float,
    whole: int | None,
) -> None:
    """Drop who is beaten, and say where those left are equal."""
    running, replays, teachers = seen.running, *seen.running.shape
    beaten: Flags = np.any(seen.surely(np.ones_like(seen.point), 1, alpha, whole), axis=1)
    leader = np.where(running, seen.point, -np.inf).argmax(axis=1)
    beaten[np.arange(replays), leader] = False
    ends.left[active] = running & ~beaten
    if options.tolerance:
        scale = 1 + options.tolerance * np.sign(seen.point)
        within = seen.surely(scale, -1, alpha, whole).transpose(0, 2, 1)
        gone = beaten | ~running
        fine = (within | np.eye(teachers, dtype=bool) | gone[:, None, :]).all(axis=2)
        ends.equal[active] = (fine | gone).all(axis=1) & ((running & ~beaten).sum(axis=1) > 1)


def peeked(pool: Pool, sizes: Sequence[int], replays: int, rng: np.random.Generator) -> list[Ends]:
    """Return how it ends to look at a bootstrap after every batch until P(first) is what was asked."""
    blocks = range(0, replays, _AT_ONCE)
    drawn = (Drawn(pool, max(sizes), min(_AT_ONCE, replays - start), rng) for start in blocks)
    found = [list(_peeked(pool, sizes, one)) for one in drawn]
    return [joined(ends) for ends in zip(*found, strict=True)]


def _peeked(pool: Pool, sizes: Sequence[int], drawn: Drawn) -> Iterator[Ends]:
    moments, teachers = Moments(pool), len(pool.lengths)
    ends = _begun(len(drawn.counts), teachers)
    for n in times(pool, sizes):
        active = np.flatnonzero(~ends.named)
        if len(active):
            ends.rows[active], ends.tokens[active] = n, pool.lengths.sum() * n
            draws = _resampled(moments, drawn.until(n, active), n, drawn.rng)
            first = np.stack([one.argmax(axis=-1) for one in draws])
            shares = np.stack([(first == k).mean(axis=1) for k in range(teachers)], axis=1)
            sure = shares.max(axis=1) >= pool.options.confidence
            ends.left[active[sure]] = np.eye(teachers, dtype=bool)[shares[sure].argmax(axis=1)]
        if n in sizes:
            yield ends.copy()


def _resampled(
    moments: Moments, counts: Array, n: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Yield the metric under each replay's bootstrap, (draws, teachers)."""
    if n > ENOUGH:
        means, covariance = moments.of(counts, n)
        values, vectors = np.linalg.eigh(covariance / n)
        root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        for mean, one in zip(means, root, strict=True):
            yield moments.metric_of(mean + rng.standard_normal((DRAWS, len(mean))) @ one.T)
        return
    for row in counts:
        rows = np.flatnonzero(row)
        of = np.repeat(np.arange(len(rows)), row[rows].astype(int))
        picks = of[rng.integers(n, size=(DRAWS, n))] + np.arange(DRAWS)[:, None] * len(rows)
        drawn = np.bincount(picks.ravel(), minlength=DRAWS * len(rows)).reshape(DRAWS, -1)
        yield moments.metric_of(drawn @ moments.values[:, rows].T / n + moments.centre)


def _begun(replays: int, teachers: int) -> Ends:
    left, equal = np.ones((replays, teachers), dtype=bool), np.zeros(replays, dtype=bool)
    return Ends(left, equal, np.zeros(replays, dtype=np.int64), np.zeros(replays))


def joined(found: Sequence[Ends]) -> Ends:
    """Return these ends as one."""
    names = [one.name for one in fields(Ends)]
    return Ends(*(np.concatenate([getattr(one, name) for one in found]) for name in names))
