"""How often a race drops the best teacher, and what it costs against scoring everything.

Everything is replayed from numbers: rewards in columns, checked answers, and likelihoods in a store (only
what is stored is used; the student computes nothing). Each replay draws rows from a pool with replacement,
so that the truth is the pool's metric.

Declared before it was run: the true best is dropped in at most 5% of the replays of every line (the lower end
of Wilson's 95% interval is at most 5%); for equal teachers a winner is named in at most 5%. Beside it stands
the same with what people do, a bootstrap after every look until P(first) reaches 95%.

`bound_rows` is the least expected number of rows at 95% confidence for the hardest of the comparisons
(Garivier and Kaufmann 2016, for normal differences with the pool's variance):
kl(0.05, 0.95) * 2 * variance / gap**2.

    python bench/race.py --judged FOLDER --math FOLDER --store STORE --student MODEL --max-length 512
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.build import study_of
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.pipeline import Pipeline
from preceptor.ranking.bootstrap import bootstrap_means
from preceptor.ranking.measurements import Common, common_instructions
from preceptor.ranking.metrics import METRICS, Metric
from preceptor.ranking.quantities import formed, measured
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.race import Race
from preceptor.ranking.race.sequences import looks

Array = NDArray[np.float64]
CONFIDENCE, DRAWS = 0.95, 300


@dataclass(frozen=True)
class Pool:
    """Measures (teachers, rows) by name, what orders, and mean tokens a row, (teachers,)."""

    name: str
    metric: Metric
    values: dict[str, Array]
    lengths: Array
    equal: bool = False
    known: tuple[str, ...] = ()
    options: RaceOptions = field(default_factory=RaceOptions)

    @property
    def scores(self) -> Array:
        """The metric of every teacher over the whole pool, higher is better."""
        return self._quantity().point

    def _quantity(self) -> Any:
        common = Common(next(iter(self.values.values())).shape[1], self.values, {}, (), ())
        return formed(self.metric, measured(common)).upward(self.metric.higher_is_better)

    @property
    def gap(self) -> float:
        """By how much the first is better than the second, as a share of the first."""
        first, second = np.sort(self.scores)[::-1][:2]
        return float((first - second) / abs(first))

    def bound(self) -> float:
        """The least expected number of rows that settle the hardest comparison."""
        quantity = self._quantity()
        best = int(quantity.point.argmax())
        others = [k for k in range(len(quantity.point)) if k != best]
        difference = quantity.influence[best] - quantity.influence[others]
        gaps = quantity.point[best] - quantity.point[others]
        kl = (2 * CONFIDENCE - 1) * math.log(CONFIDENCE / (1 - CONFIDENCE))
        return float((kl * 2 * difference.var(axis=1) / gaps**2).max())


@dataclass(frozen=True)
class Replay:
    """How one race ended: whether the true best was dropped, a winner named; rows, and tokens read."""

    wrong: bool
    named: bool
    rows: int
    tokens: float


class Rows:
    """The rows of one replay, drawn as far as they are needed; equal teachers change places at random."""

    def __init__(self, pool: Pool, size: int, rng: np.random.Generator) -> None:
        self.pool = pool
        of = next(iter(pool.values.values())).shape[1]
        whole = pool.options.target == "pool"
        self.at = rng.permutation(of)[:size] if whole else rng.integers(of, size=size)
        self.turn = rng.random(size) < 0.5 if pool.equal else None

    def first(self, n: int, teachers: list[int]) -> dict[str, Array]:
        """Return the measures of these teachers on the first n rows."""
        found = {}
        for name, values in self.pool.values.items():
            taken = values[:, self.at[:n]]
            if self.turn is not None:
                taken = np.where(self.turn[:n], taken[::-1], taken)
            found[name] = taken[teachers]
        return found


def raced(pool: Pool, size: int, rng: np.random.Generator) -> Replay:
    """Return how a race ends."""
    rows = Rows(pool, size, rng)
    size, count = len(rows.at), len(pool.lengths)
    names = [str(k) for k in range(count)]
    whole = rows.first(size, list(range(count))) if pool.known else {}
    race = Race(pool.metric, names, size, pool.options, {k: whole[k] for k in pool.known})
    tokens, before = 0.0, 0
    for n in looks(race.options.start, size):
        at = [int(name) for name in race.running]
        tokens += float(pool.lengths[at].sum()) * (n - before)
        race.look(Common(n, rows.first(n, at), {}, (), ()), rows=n, fresh=n - before)
        before = n
        if race.ending:
            break
    scores = pool.scores
    wrong = str(int(scores.argmax())) not in race.running
    if race.ending == "equal":
        least = scores.max() - pool.options.tolerance * abs(scores.max())
        wrong |= bool((scores[[int(name) for name in race.running]] < least).any())
    return Replay(wrong, race.ending in ("best", "equal"), before, tokens)


def peeked(pool: Pool, size: int, rng: np.random.Generator) -> Replay:
    """Return how it ends to look at a bootstrap after every batch until P(first) is 95%."""
    rows = Rows(pool, size, rng)
    everyone = list(range(len(pool.lengths)))
    n = 0
    for n in looks(50, len(rows.at)):
        seen = rows.first(n, everyone)
        stacked = np.concatenate([seen[name] for name in pool.metric.needs])
        drawn = bootstrap_means(stacked, draws=DRAWS, rng=rng)
        parts = np.split(drawn, len(pool.metric.needs), axis=1)
        sign = 1 if pool.metric.higher_is_better else -1
        first = (sign * pool.metric(*parts)).argmax(axis=1)
        share = np.bincount(first, minlength=len(everyone)) / DRAWS
        if share.max() >= CONFIDENCE:
            wrong = int(share.argmax()) != int(pool.scores.argmax())
            return Replay(wrong, True, n, float(pool.lengths.sum()) * n)
    return Replay(False, False, n, float(pool.lengths.sum()) * n)


def wilson(hits: int, of: int) -> list[float]:
    """Return Wilson's 95% interval."""
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return [round((middle + side * half) / (1 + z * z / of), 4) for side in (-1, 1)]


def line(pool: Pool, size: int, replays: int, seed: int) -> dict[str, Any]:
    """Return the line of a pool resampled to so many rows."""
    began = time.perf_counter()
    found = {
        "race": _summed(raced, pool, size, replays, seed),
        "peeking": _summed(peeked, pool, size, max(100, replays // 5), seed),
    }
    bound = None if pool.equal else pool.bound()
    settled = bound if found["race"]["decided"] > 0.5 else None
    return {
        "pool": pool.name,
        "metric": pool.metric.kind,
        "teachers": len(pool.lengths),
        "rows": size,
        "gap": None if pool.equal else round(pool.gap, 4),
        "bound_rows": None if bound is None else round(bound),
        "rows_over_bound": round(found["race"]["median_rows"] / settled, 2) if settled else None,
        **found,
        "seconds": round(time.perf_counter() - began, 1),
    }


Method = Callable[[Pool, int, np.random.Generator], Replay]


def _summed(method: Method, pool: Pool, size: int, replays: int, seed: int) -> dict[str, Any]:
    ends = [method(pool, size, np.random.default_rng([seed, k])) for k in range(replays)]
    bad = sum(end.named if pool.equal else end.wrong for end in ends)
    if pool.options.target == "pool":
        size = min(size, next(iter(pool.values.values())).shape[1])
    share = np.array([end.tokens for end in ends]) / (float(pool.lengths.sum()) * size)
    rows = np.array([end.rows for end in ends])
    return {
        "replays": replays,
        "wrong": bad / replays,
        "wrong_interval": wilson(bad, replays),
        "decided": sum(end.named for end in ends) / replays,
        "median_rows": int(np.median(rows)),
        "p90_rows": int(np.quantile(rows, 0.9)),
        "median_share_of_tokens": round(float(np.median(share)), 5),
        "p90_share_of_tokens": round(float(np.quantile(share, 0.9)), 5),
    }


def made_up(seed: int) -> Iterator[Pool]:
    """Yield pools of made-up rewards: equal teachers, and ten whose best is ahead by 0.2 deviations."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, Callable[[Array], Array]] = {
        "normal": lambda g: g,
        "lognormal": lambda g: (np.exp(g) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e),
        "heavy (t, 3 degrees)": lambda g: g * np.sqrt(3 / rng.chisquare(3, g.shape)) / math.sqrt(3),
        "right or wrong": lambda g: (g < 0.84).astype(float),
        "rarely wrong": lambda g: (g < 2.05).astype(float),
    }
    for name, shape in shapes.items():
        common = rng.normal(size=20_000)
        for teachers, ahead, equal in ((2, 0.0, True), (10, 0.2, False)):
            own = rng.normal(size=(teachers, 20_000))
            values = shape(math.sqrt(0.7) * own + math.sqrt(0.3) * common)
            spread = values.std()
            values[0] += ahead * spread
            yield Pool(
                f"{name}, {'equal' if equal else 'best ahead by 0.2 sd'}",
                METRICS["reward"],
                {"reward": values},
                np.ones(teachers),
                equal=equal,
            )


def from_files(
    files: list[Path], metric: str, **given: Any
) -> tuple[dict[str, Array], Array, list[str]]:
    """Return the measures of responses on the rows that all have, mean tokens, and the teachers' names."""
    store = given.pop("store", None)
    study, runtime = study_of([str(f) for f in files], metrics=[metric, "length"], **given)
    if store:
        runtime = runtime.model_copy(update={"store": store})
    pipeline = Pipeline(study, runtime)
    (data,) = pipeline.load(spend=False)
    (student,) = pipeline.students
    planned, steps = pipeline.plan(data, student)
    formed_of = ColumnMeasures(data.selection, study, planned.kinds)
    stored = [
        step.stored() if step.scorer.of_student else pipeline.score([step])[0] for step in steps
    ]
    measurements = formed_of.measurements([step.scorer for step in steps], stored)
    needs = METRICS[metric].needs
    common = common_instructions(measurements, [*needs, "length"], min_coverage=0.0)
    values = {name: common.values[name] for name in needs}
    return values, common.values["length"].mean(axis=1), list(measurements.teachers)


def nested(name: str, metric: Metric, values: dict[str, Array], lengths: Array) -> Iterator[Pool]:
    """Yield the pool, and what is left of it without its first, its first two, ...: many different gaps."""
    whole = Pool(name, metric, values, lengths)
    order = np.argsort(-whole.scores)
    for skip in range(len(order) - 1):
        at = np.sort(order[skip:])
        part = {key: column[at] for key, column in values.items()}
        yield Pool(
            f"{name}{f', without its first {skip}' if skip else ''}", metric, part, lengths[at]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--judged", type=Path, help="folder of responses with a column `reward`")
    parser.add_argument("--math", type=Path, help="folder of responses with reference answers")
    parser.add_argument("--zoo", type=Path, help="folder of responses without rewards")
    parser.add_argument("--store", help="store with the student's likelihoods")
    parser.add_argument("--student", help="base model whose likelihoods the store holds")
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 100_000])
    parser.add_argument("--only", nargs="*", help="pools whose name contains one of these")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for pool, sizes in _pools(given):
        if given.only and not any(word in pool.name for word in given.only):
            continue
        for size in sizes:
            print(json.dumps(line(pool, size, given.replays, given.seed)), flush=True)


def _pools(given: argparse.Namespace) -> Iterator[tuple[Pool, list[int]]]:
    for pool in made_up(given.seed):
        yield pool, given.sizes[:1]
    student = {"students": [given.student], "max_length": given.max_length, "store": given.store}
    blind = {"no_student": True, "store": given.store}
    if given.math:
        values, lengths, _ = from_files(sorted(given.math.glob("*.jsonl")), "reward", **blind)
        for pool in nested("checked answers", METRICS["reward"], values, lengths):
            yield pool, given.sizes
        yield from _otherwise("checked answers", METRICS["reward"], values, lengths)
    if given.judged:
        files = sorted(given.judged.glob("*.json"))
        reward = {"reward_column": "reward"}
        values, lengths, _ = from_files(files, "reward", **blind, **reward)
        for pool in nested("judged rewards", METRICS["reward"], values, lengths):
            yield pool, given.sizes
        yield from _equal("judged rewards", METRICS["reward"], values, given.sizes)
        yield from _otherwise("judged rewards", METRICS["reward"], values, lengths)
        if given.student:
            values, lengths, _ = from_files(files, "car", **student, **reward)
            for pool in nested("judged, CAR", METRICS["car"], values, lengths):
                yield pool, given.sizes
            yield from _equal("judged, CAR", METRICS["car"], values, given.sizes)
            yield from _otherwise("judged, CAR", METRICS["car"], values, lengths)
            whole = Pool("judged, CAR, rewards known of every row", METRICS["car"], values, lengths)
            yield Pool(**{**whole.__dict__, "known": ("reward",)}), given.sizes[:1]
    if given.zoo and given.student:
        files = sorted(given.zoo.glob("*.jsonl"))
        for metric in ("information", "rsr"):
            values, lengths, _ = from_files(files, metric, **student)
            for pool in nested(f"zoo, {metric}", METRICS[metric], values, lengths):
                yield pool, given.sizes


def _otherwise(
    name: str, metric: Metric, values: dict[str, Array], lengths: Array
) -> Iterator[tuple[Pool, list[int]]]:
    """Yield the pool as other races see it: by betting, as the question itself, and with a tolerance."""
    most = float(values["loss"].max()) if "loss" in values else None
    ways = {
        "betting": RaceOptions(method="betting", max_loss=most),
        "of the pool itself": RaceOptions(target="pool"),
        "within 5%": RaceOptions(tolerance=0.05),
    }
    for way, options in ways.items():
        whole = Pool(f"{name}, {way}", metric, values, lengths, options=options)
        yield whole, [len(next(iter(values.values()))[0]) if way == "of the pool itself" else 2000]


def _equal(
    name: str, metric: Metric, values: dict[str, Array], sizes: list[int]
) -> Iterator[tuple[Pool, list[int]]]:
    """Yield two teachers, the first two, who change places at random in every row."""
    order = np.argsort(
        -Pool(name, metric, values, np.ones(len(next(iter(values.values()))))).scores
    )
    part = {key: column[order[:2]] for key, column in values.items()}
    yield Pool(f"{name}, two made equal", metric, part, np.ones(2), equal=True), sizes


if __name__ == "__main__":
    main()
