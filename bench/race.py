"""How often a race drops the best teacher, and what it costs against scoring everything.

Everything is replayed from numbers: rewards in columns, checked answers, and likelihoods in a store (only
what is stored is used; the student computes nothing). Each replay draws rows from a pool with replacement,
so that the truth is the pool's metric.

Declared before it was run: the true best is dropped in at most 5% of the replays of every line (the lower end
of Wilson's 95% interval is at most 5%); for equal teachers a winner is named in at most 5%. Beside it stands
the same with what people do, a bootstrap after every look until P(first) reaches 95%.

`bound_rows` is the least expected number of rows at 95% confidence for the hardest of the comparisons
(Garivier and Kaufmann 2016, for normal differences with the pool's variance):
kl(0.05, 0.95) * 2 * variance / gap**2. `bound_share_of_tokens` is what it takes to ask every teacher as
long as its own comparison with the best needs, and the best as long as the hardest.

Asymptotic races run all at once (`race_replays.py`); `as_race` is how many of the first of them end as `Race`
itself does on the same rows. Betting, and races with covariates, are `Race` itself.

    python bench/race.py --judged FOLDER --zoo FOLDER --math FOLDER --store STORE --student MODEL
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.build import study_of
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.pipeline import Pipeline
from preceptor.ranking.measurements import Common, common_instructions
from preceptor.ranking.metrics import METRICS, Metric
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.race import Race
from race_replays import Array, Ends, Pool, joined, peeked, raced, times

CONFIDENCE, CHECKED = 0.95, 10


def bounds(pool: Pool) -> tuple[float, float]:
    """Return the least expected rows for the hardest comparison, and the tokens for each teacher's own."""
    quantity = pool.quantity
    best = int(quantity.point.argmax())
    others = [k for k in range(len(quantity.point)) if k != best]
    difference = quantity.influence[best] - quantity.influence[others]
    gaps = quantity.point[best] - quantity.point[others]
    kl = (2 * CONFIDENCE - 1) * math.log(CONFIDENCE / (1 - CONFIDENCE))
    rows = kl * 2 * difference.var(axis=1) / gaps**2
    tokens = (rows * pool.lengths[others]).sum() + rows.max() * pool.lengths[best]
    return float(rows.max()), float(tokens / pool.lengths.sum())


def by_race(pool: Pool, at: NDArray[np.intp], sizes: Sequence[int]) -> Ends:
    """Return how the race over these rows of the pool ends, by `Race` itself."""
    teachers = len(pool.lengths)
    known = {name: pool.values[name][:, at] for name in pool.known}
    race = Race(pool.metric, [str(k) for k in range(teachers)], max(sizes), pool.options, known)
    tokens, before = 0.0, 0
    for n in times(pool, sizes):
        running = np.array([int(name) for name in race.running])
        tokens += float(pool.lengths[running].sum()) * (n - before)
        seen = {name: values[np.ix_(running, at[:n])] for name, values in pool.values.items()}
        race.look(Common(n, seen, {}, (), ()), rows=n, fresh=n - before)
        before = n
        if race.ending:
            break
    left = np.isin(np.arange(teachers), [int(name) for name in race.running])
    equal = np.array([race.ending == "equal"])
    return Ends(left[None], equal, np.array([before]), np.array([tokens]))


def one_by_one(pool: Pool, size: int, replays: int, rng: np.random.Generator) -> Ends:
    """Return how races end by `Race` itself, each over rows of its own."""
    whole = pool.options.target == "pool"
    ends = [
        by_race(
            pool, rng.permutation(size) if whole else rng.integers(pool.rows, size=size), [size]
        )
        for _ in range(replays)
    ]
    return joined(ends)


def as_race(pool: Pool, sizes: Sequence[int], ends: Ends, picked: list[list[int]]) -> str:
    """Return how many of the replays whose rows were kept end as `Race` itself does on them."""
    same = 0
    for place, rows in enumerate(picked):
        own = by_race(pool, np.array(rows), sizes)
        same += bool(
            (own.left[0] == ends.left[place]).all()
            and own.equal[0] == ends.equal[place]
            and own.rows[0] == ends.rows[place]
        )
    return f"{same} of {len(picked)}"


def wilson(hits: int, of: int) -> list[float]:
    """Return Wilson's 95% interval."""
    z, p = 1.959964, hits / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return [round((middle + side * half) / (1 + z * z / of), 4) for side in (-1, 1)]


def lines(pool: Pool, sizes: Sequence[int], replays: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of a pool resampled to so many rows; larger sizes go on where smaller ones end."""
    began = time.perf_counter()
    rngs = np.random.default_rng(seed).spawn(2)
    checked: dict[str, str] = {}
    if pool.known or pool.options.method == "betting":
        races = [one_by_one(pool, size, replays, rngs[0]) for size in sizes]
    else:
        races, picked = raced(pool, sizes, replays, rngs[0], CHECKED)
        checked = {"as_race": as_race(pool, sizes, races[-1], picked)}
    usual = not pool.known and pool.options == RaceOptions()
    others = peeked(pool, sizes, replays, rngs[1]) if usual else [None] * len(sizes)
    for size, ends, other in zip(sizes, races, others, strict=True):
        found = described(pool, size, ends)
        if other is not None:
            found["peeking"] = summed(pool, size, other)
        yield found | checked | {"seconds": round(time.perf_counter() - began, 1)}


def described(pool: Pool, size: int, ends: Ends) -> dict[str, Any]:
    """Return what a pool's races came to, beside its gap and the least rows that any method needs."""
    least, tokens = (None, None) if pool.equal else bounds(pool)
    found = summed(pool, size, ends)
    settled = least if found["decided"] > 0.5 else None
    first, second = np.sort(pool.scores)[::-1][:2]
    return {
        "pool": pool.name,
        "metric": pool.metric.kind,
        "teachers": len(pool.lengths),
        "rows": size,
        "gap": None if pool.equal else round(float((first - second) / abs(first)), 4),
        "bound_rows": None if least is None else round(least),
        "bound_share_of_tokens": None if tokens is None else round(tokens / size, 5),
        "rows_over_bound": round(found["median_rows"] / settled, 2) if settled else None,
        "race": found,
    }


def summed(pool: Pool, size: int, ends: Ends) -> dict[str, Any]:
    """Return how often the end was wrong, with Wilson's interval, and what it took."""
    scores, replays = pool.scores, len(ends.rows)
    least = scores.max() - pool.options.tolerance * abs(scores.max())
    wrong = ~ends.left[:, int(scores.argmax())]
    wrong |= ends.equal & (ends.left & (scores < least)).any(axis=1)
    bad = int((ends.named & ~ends.equal if pool.equal else wrong).sum())
    share = ends.tokens / (float(pool.lengths.sum()) * size)
    return {
        "replays": replays,
        "wrong": bad / replays,
        "wrong_interval": wilson(bad, replays),
        "decided": float(ends.named.mean()),
        "median_rows": int(np.median(ends.rows)),
        "p90_rows": int(np.quantile(ends.rows, 0.9)),
        "median_share_of_rows": round(float(np.median(ends.rows)) / size, 5),
        "p90_share_of_rows": round(float(np.quantile(ends.rows, 0.9)) / size, 5),
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
            pool = Pool(
                f"{name}, best ahead by 0.2 sd",
                METRICS["reward"],
                {"reward": values},
                np.ones(teachers),
            )
            yield made_equal(pool, f"{name}, equal") if equal else pool


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
        step.stored() if step.scorer.of_student else next(pipeline.score([step])) for step in steps
    ]
    measurements = formed_of.measurements([step.scorer for step in steps], stored)
    needs = METRICS[metric].needs
    common = common_instructions(measurements, [*needs, "length"], min_coverage=0.0)
    assert common.denominators.keys().isdisjoint(needs)
    values = {name: common.values[name] for name in (*needs, "length")}
    return values, common.values["length"].mean(axis=1), list(measurements.teachers)


def made_equal(pool: Pool, name: str) -> Pool:
    """Return the first two teachers, who change places in a second copy of every row."""
    first = np.argsort(-pool.scores)[:2]
    values = {
        key: np.concatenate([column[first], column[first[::-1]]], axis=1)
        for key, column in pool.values.items()
    }
    return Pool(name, pool.metric, values, np.ones(2), equal=True)


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
    parser.add_argument("--without", nargs="*", default=[], help="the same, to leave out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for pool, sizes in pools(given):
        if given.only and not any(word in pool.name for word in given.only):
            continue
        if any(word in pool.name for word in given.without):
            continue
        for found in lines(pool, sizes, given.replays, given.seed):
            print(json.dumps(found), flush=True)


def pools(given: argparse.Namespace) -> Iterator[tuple[Pool, list[int]]]:
    """Yield every pool with the numbers of rows it is resampled to."""
    for pool in made_up(given.seed):
        yield pool, given.sizes[:1]
    student = {"students": [given.student], "max_length": given.max_length, "store": given.store}
    blind = {"no_student": True, "store": given.store}
    if given.math:
        values, lengths, _ = from_files(sorted(given.math.glob("*.jsonl")), "reward", **blind)
        yield from ways("checked answers", METRICS["reward"], values, lengths, given.sizes)
    if given.judged:
        files = sorted(given.judged.glob("*.json"))
        reward = {"reward_column": "reward"}
        values, lengths, _ = from_files(files, "reward", **blind, **reward)
        yield from ways("judged rewards", METRICS["reward"], values, lengths, given.sizes)
        if given.student:
            values, lengths, _ = from_files(files, "car", **student, **reward)
            yield from ways("judged, CAR", METRICS["car"], values, lengths, given.sizes)
    if given.zoo and given.student:
        files = sorted(given.zoo.glob("*.jsonl"))
        for metric in ("information", "rsr"):
            values, lengths, _ = from_files(files, metric, **student)
            yield from ways(f"zoo, {metric}", METRICS[metric], values, lengths, given.sizes)


def ways(
    name: str, metric: Metric, values: dict[str, Array], lengths: Array, sizes: list[int]
) -> Iterator[tuple[Pool, list[int]]]:
    """Yield the pool and what is left of it without its first; two made equal; and as other races see it."""
    measures = {key: values[key] for key in metric.needs}
    nested = list(subpools(Pool(name, metric, measures, lengths)))
    for pool in nested:
        yield pool, sizes
    twins = made_equal(nested[0], f"{name}, two made equal")
    yield twins, sizes
    yield (
        replace(twins, name=f"{twins.name}, within 5%", options=RaceOptions(tolerance=0.05)),
        sizes,
    )
    most = float(values["loss"].max()) if "loss" in metric.needs else None
    other = {
        "of the pool itself": RaceOptions(target="pool"),
        "within 5%": RaceOptions(tolerance=0.05),
    }
    if metric.kind in ("reward", "car"):
        other["betting"] = RaceOptions(method="betting", max_loss=most)
    for pool in nested[:4]:
        for way, options in other.items():
            rows = {"of the pool itself": [pool.rows], "within 5%": sizes}.get(way, sizes[:1])
            yield replace(pool, name=f"{pool.name}, {way}", options=options), rows
    told = {**measures, "length": values["length"]}
    for pool in [one for one in nested if 100 < bounds(one)[0] < 1000][:2]:
        for known in (
            ["length"],
            *([key, "length"] for key in metric.needs if len(metric.needs) > 1),
        ):
            named = f"{pool.name}, {' and '.join(known)} known of every row"
            at = np.isin(lengths, pool.lengths)
            part = {key: column[at] for key, column in told.items()}
            yield replace(pool, name=named, values=part, known=tuple(known)), [2000]


def subpools(whole: Pool) -> Iterator[Pool]:
    """Yield the pool, and what is left of it without its first, its first two, ...: many different gaps."""
    order = np.argsort(-whole.scores)
    for skip in range(len(order) - 1):
        at = np.sort(order[skip:])
        part = {key: column[at] for key, column in whole.values.items()}
        name = f"{whole.name}{f', without its first {skip}' if skip else ''}"
        yield Pool(name, whole.metric, part, whole.lengths[at])


if __name__ == "__main__":
    main()
