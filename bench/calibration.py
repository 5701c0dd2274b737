"""How often the intervals hold the truth, P(first) is right, and equal teachers get a winner.

Declared before the method was changed. In each cell (rewards x n x teachers) many studies are drawn whose
truth is known, and ranked. A study whose ranking is capped ("leads so far") is counted apart: the criterion
is for the others, and the share of capped studies stands beside it. Met means:

* coverage: 95% intervals hold the truth in 93 to 97% of the studies: of every teacher's metric ("all"; since
  the method changed, but for teachers whose interval a warning calls rough), of the leader's ("leader"),
  and of the differences between the leader and each other teacher ("gaps");
* calibration: in each bin of the leader's P(first) (0.5-0.8, 0.8-0.95, 0.95-1; since the second round also
  below 0.5) that holds at least 200 studies, the mean of P(first) is within 0.05 of the share in which the
  leader is the best;
* null: where all teachers are equal a winner is named in at most 5% of the studies, at every n from 2 on.

Rewards are normal, lognormal (sd of the logarithm 1), t with 3 degrees of freedom (each with a common part
per instruction, correlation 0.3, standardised), binary (about 0.8 right, the same correlation), and with
`--data FOLDER` those of judged models (`zoo`), drawn with replacement from the instructions that all have,
truth being the whole pool. True means differ by 0.1, 0.25 or 0.5 standard deviations between teachers, each
in a third of the studies. `car-...` adds losses that differ between teachers and asks the same of CAR. Under
the null rewards are as above without differences; those of a pool change places at random within every
instruction.

`--method before` is the method until then: the percentile bootstrap of instructions, a winner named from
P(best) 0.95 on, no cap.

The second round (10,000 studies a cell) holds out kinds that no choice of the method has looked at, declared
before the first run on them: gamma with shape 0.5 (skewness 2.8), beta(0.5, 0.5) (two heaps with bounds),
outliers (5% of a normal have five times the deviation), ratings from 1 to 10 (most at 6 to 9),
`preferences` (26 models judged on the same prompts, none of them in `zoo`, many of mean 0.02 to 0.05) and
`math` (right or wrong answers of eight models to 300 problems). The same criterion holds for them.

A share's standard error at 0.95 is 0.002 with 10,000 studies; a bin's is printed as its last number. Studies
are ranked many at a time by what `rank` is made of; of every 250 studies one is ranked by `rank` too, and the
run ends where the two differ.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from drawn_studies import CAR, POOLED, Array, Draws, Sample, checked, judged, preferences
from preceptor.ranking.bootstrap import bootstrap_means, percentile_interval, rank_probabilities
from preceptor.ranking.inference import (
    MIN_EFFECTIVE,
    MIN_PROMPTS,
    effective_numbers,
    interval,
    scores_of,
    standing,
)
from preceptor.ranking.measurements import Common, Measurements
from preceptor.ranking.metrics import AverageReward, Metric
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.placing import better_of_two
from preceptor.ranking.quantities import Quantity, formed, measured
from preceptor.ranking.rank import rank
from preceptor.types import Estimate

REWARDS = ("normal", "lognormal", "t3", "binary", "zoo", "car-normal", "car-binary", "car-zoo")
HELD_OUT = ("gamma", "beta", "outliers", "ratings", "preferences", "math")
SIZES = (10, 20, 40, 200)
NULL_SIZES = (*range(2, 21), 30, 40, 100, 200)
TEACHERS = (2, 4, 10)
SPREADS = (0.1, 0.25, 0.5)
BINS = (0.0, 0.5, 0.8, 0.95, 1.0001)
COVERAGE = (0.93, 0.97)
CALIBRATION, ENOUGH, NULL = 0.05, 200, 0.05
BATCH, CHECKED = 25, 10
DRAWS, NULL_DRAWS = 1000, 20


@dataclass(frozen=True)
class Answer:
    """What a method says of a batch of studies, mostly (studies, teachers).

    `gap_low` and `gap_high` are the ends of the leader's lead.
    """

    leader: NDArray[np.intp]
    low: Array
    high: Array
    gap_low: Array
    gap_high: Array
    p_first: Array
    contenders: NDArray[np.bool_]
    named: NDArray[np.bool_]
    capped: NDArray[np.bool_]
    rough: NDArray[np.bool_]


def before(samples: Sequence[Sample], seed: int, *, draws: int = DRAWS) -> Answer:
    """Return what the percentile bootstrap said."""
    return _joined([_percentiles(one, seed + at, draws) for at, one in enumerate(samples)])


def _percentiles(sample: Sample, seed: int, draws: int) -> Answer:
    rng, names = np.random.default_rng(seed), list(sample.values)
    matrix = np.concatenate([sample.values[name] for name in names])
    drawn = bootstrap_means(matrix, draws=draws, rng=rng).reshape(draws, len(names), -1)
    means = [array.mean(axis=1) for array in sample.values.values()]
    made = CAR(*(drawn[:, place] for place in range(2))) if len(names) == 2 else drawn[:, 0]
    leader = int(np.argmax(CAR(*means) if len(names) == 2 else means[0]))
    ends, gaps = percentile_interval(made), percentile_interval(made[:, [leader]] - made)
    p_first = rank_probabilities(made)[:, 0]
    no = np.zeros_like(p_first, dtype=bool)
    parts = (*ends, *gaps, p_first[leader], p_first >= 0.05, p_first[leader] >= 0.95, False, no)
    return Answer(*(np.asarray(part)[None] for part in (leader, *parts)))


def after(samples: Sequence[Sample], seed: int, *, draws: int = DRAWS) -> Answer:
    """Return what a ranking says now, all studies at once; now and then the first is checked."""
    formed_ = [_quantity(one) for one in samples]
    found: list[Answer] = []
    places: list[int] = []
    # Studies whose rewards happen to take two values have an exact test, others have none.
    for exact in (True, False):
        some = [at for at, (_, right) in enumerate(formed_) if (right is not None) == exact]
        if some:
            right = np.stack([formed_[at][1] for at in some]) if exact else None
            found.append(_said([formed_[at][0] for at in some], right, seed=seed, draws=draws))
            places += some
    answer, back = _joined(found), np.argsort(places)
    answer = Answer(*(getattr(answer, one.name)[back] for one in fields(answer)))
    if seed % (CHECKED * BATCH) == 0:
        _check(answer, samples[0], RankingOptions(seed=seed, n_resamples=draws))
    return answer


def _metric(sample: Sample) -> Metric:
    return CAR if "loss" in sample.values else AverageReward()


def _quantity(sample: Sample) -> tuple[Quantity, NDArray[np.bool_] | None]:
    n = sample.values["reward"].shape[1]
    common, metric = Common(n, sample.values, {}, (), ()), _metric(sample)
    quantity = formed(metric, measured(common))
    return quantity, better_of_two(common, metric, quantity)


def _said(
    quantities: Sequence[Quantity], right: NDArray[np.bool_] | None, *, seed: int, draws: int
) -> Answer:
    names = [f.name for f in fields(Quantity) if f.name != "limits"]
    parts = (np.stack([getattr(one, name) for one in quantities]) for name in names)
    quantity, limits = Quantity(*parts), np.array([one.limits for one in quantities])
    scores = scores_of(
        quantity, [f"{row:02d}" for row in range(quantity.point.shape[1])], right=right
    )
    found, ends = standing(scores, draws=draws, seed=seed), interval(quantity)
    at = np.arange(len(quantities)), found.order[:, 0]
    ends.low[at] = np.minimum(ends.low[at], found.worst)
    ends = [np.clip(end, limits[:, :1], limits[:, 1:]) for end in ends]
    alone = found.contenders.sum(axis=1) == 1
    constant = ~quantity.influence.any(axis=-1) & (quantity.spread == 0)
    rough = ((effective_numbers(scores) < MIN_EFFECTIVE) | constant) & (scores.n >= MIN_PROMPTS)
    p_first, named = found.p_rank[(*at, 0)], alone & ~found.capped
    return Answer(at[1], *ends, *found.lead, p_first, found.contenders, named, found.capped, rough)


def _check(answer: Answer, sample: Sample, options: RankingOptions) -> None:
    """Raise where `rank` says something else of the first study."""
    labels = tuple(f"{row:02d}" for row in range(len(sample.truth)))
    measurements = Measurements(labels, sample.values["reward"].shape[1], sample.values)
    metric = _metric(sample)
    ranking = rank(measurements, student="bench", metrics=[metric], options=options)
    ends = np.empty((4, len(labels)))
    for result in ranking.teachers:
        own, lead = result.estimates[metric.kind], result.behind or Estimate(0.0, 0.0, 0.0, 0)
        ends[:, labels.index(result.teacher)] = own.low, own.high, lead.low, lead.high
    leader, evidence = labels.index(ranking.best.teacher), ranking.evidence
    ends[2:, leader] = answer.gap_low[0, leader], answer.gap_high[0, leader]
    rough = {
        name for one in ranking.warnings if one.code == "rough-interval" for name in one.teachers
    }
    told = (
        leader,
        *ends,
        ranking.best.p_best,
        [label in evidence.contenders for label in labels],
        evidence.named,
        evidence.cap is not None,
        [label in rough for label in labels],
    )
    for field, expected in zip(fields(Answer), told, strict=True):
        np.testing.assert_allclose(
            getattr(answer, field.name)[0], expected, rtol=1e-9, atol=1e-12, err_msg=field.name
        )


def _joined(answers: Sequence[Answer]) -> Answer:
    columns = ([getattr(one, f.name) for one in answers] for f in fields(Answer))
    return Answer(*(np.concatenate(column) for column in columns))


METHODS: dict[str, Callable[..., Answer]] = {"before": before, "after": after}


def cell(
    draw: Draws, answer: Callable[..., Answer], *, teachers: int, n: int, studies: int
) -> dict[str, object]:
    """Return how studies that are not capped meet the criterion, and what those that are would show."""
    said, truth = [], []
    for start in range(0, studies, BATCH):
        spreads = (SPREADS[at % len(SPREADS)] for at in range(start, min(start + BATCH, studies)))
        samples = [draw(teachers, n, spread=spread) for spread in spreads]
        said.append(answer(samples, start))
        truth += [one.truth for one in samples]
    seen, true = _joined(said), np.array(truth)
    found: dict[str, object] = {"capped": round(float(seen.capped.mean()), 3), "met": True}
    for capped in (True, False):
        at = seen.capped == capped
        if at.sum() >= ENOUGH:
            some = Answer(*(getattr(seen, f.name)[at] for f in fields(Answer)))
            shown, misses = summary(some, true[at])
            found |= (
                {"of_capped": shown} if capped else {**shown, "met": not misses, "misses": misses}
            )
    return found


def summary(seen: Answer, truth: Array) -> tuple[dict[str, object], list[str]]:
    """Return coverage, calibration and how often a winner is named, and wrongly; and what misses."""
    studies = np.arange(len(truth))
    lead = truth[studies, seen.leader][:, None] - truth
    other = np.arange(truth.shape[1]) != seen.leader[:, None]
    inside = (seen.low <= truth) & (truth <= seen.high)
    held = (seen.gap_low <= lead) & (lead <= seen.gap_high)
    coverage = {
        "all": inside[~seen.rough].mean(),
        "leader": inside[~other].mean(),
        "gaps": held[other].mean(),
    }
    first = truth[studies, seen.leader] == truth.max(axis=1)
    bins = list(calibration(seen.p_first, first))
    misses = [name for name, share in coverage.items() if not COVERAGE[0] <= share <= COVERAGE[1]]
    misses += [f"P {p:.2f}" for _, p, share, _ in bins if abs(p - share) > CALIBRATION]
    named = seen.named
    shown = {
        "coverage": {name: round(float(share), 4) for name, share in coverage.items()},
        "bins": bins,
        "best_among_contenders": round(seen.contenders[studies, truth.argmax(axis=1)].mean(), 3),
        "named": round(named.mean(), 3),
        "named_wrongly": round(1 - first[named].mean(), 3) if named.any() else None,
    }
    return shown, misses


def calibration(p: Array, right: NDArray[np.bool_]) -> Iterator[tuple[int, float, float, float]]:
    """Yield for each bin with enough studies their number, mean P, share right and its standard error."""
    for low, high in itertools.pairwise(BINS):
        inside = (p >= low) & (p < high)
        if (count := int(inside.sum())) >= ENOUGH:
            mean, share = p[inside].mean(), right[inside].mean()
            error = np.sqrt(max(share * (1 - share), 1 / count) / count)
            yield count, round(mean, 4), round(share, 4), round(error, 4)


def null(
    draw: Draws, answer: Callable[..., Answer], *, teachers: int, n: int, studies: int
) -> dict[str, object]:
    """Return how often a winner is named among equal teachers, and would be if nothing were capped."""
    said = []
    for start in range(0, studies, BATCH):
        samples = [draw(teachers, n, spread=0.0) for _ in range(min(BATCH, studies - start))]
        said.append(answer(samples, start))
    seen = _joined(said)
    share, alone = float(seen.named.mean()), seen.contenders.sum(axis=1) == 1
    # Three standard errors above 5% are chance of this simulation.
    slack = 3 * np.sqrt(NULL * (1 - NULL) / studies)
    return {
        "named": round(share, 4),
        "without_cap": round(float(alone.mean()), 4),
        "met": bool(share <= NULL + slack),
    }


def binary_cases() -> Iterator[dict[str, object]]:
    """Yield what is said of answers right or wrong beside exact tests: p and names, then intervals."""
    for wins, losses, n in ((5, 0, 200), (6, 0, 200), (12, 3, 40), (21, 9, 100), (40, 25, 400)):
        rows = np.zeros((2, n))
        rows[0, :wins] = rows[1, wins : wins + losses] = 1
        ranking = rank(
            Measurements(("a", "b"), n, {"reward": rows}),
            student="bench",
            metrics=[AverageReward()],
        )
        exact = scipy.stats.binomtest(wins, wins + losses).pvalue
        yield {
            "discordant": [wins, losses],
            "n": n,
            "p": round(ranking.teachers[1].p_value or 0.0, 5),
            "exact": round(exact, 5),
            "mid_p": round(exact - scipy.stats.binom.pmf(wins, wins + losses, 0.5), 5),
            "named": ranking.evidence.named,
        }
    for right, n in ((40, 40), (37, 40), (3, 200)):
        rows = (np.arange(n) < right).astype(np.float64)[None]
        test = scipy.stats.binomtest(right, n)
        ends = {"interval": interval(measured(Common(n, {"reward": rows}, {}, (), ()))["reward"])}
        ends |= {name: test.proportion_ci(method=name) for name in ("wilson", "exact")}
        yield {
            "right": right,
            "n": n,
            **{name: np.ravel(two).round(3).tolist() for name, two in ends.items()},
        }


def pools_of(folder: Path | None, wanted: Sequence[str]) -> dict[str, Array]:
    """Return the pools of real rewards that are wanted, none without a folder."""
    if folder is None:
        return {}
    zoo = folder / "zoo_judged"
    makers: dict[str, Callable[[], Array]] = {
        "zoo": partial(judged, zoo),
        "preferences": partial(preferences, folder / "alpaca_eval2" / "preferences.json", zoo),
        "math": partial(checked, folder / "math_zoo"),
    }
    return {
        name: makers[name]() for name in {one.removeprefix("car-") for one in wanted} & {*makers}
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, default=list(METHODS)[-1])
    parser.add_argument("--what", choices=("cells", "null", "binary"), default="cells")
    parser.add_argument("--data", type=Path, help="folder with zoo_judged, alpaca_eval2, math_zoo")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS + HELD_OUT, default=REWARDS)
    parser.add_argument("--n", nargs="+", type=int, help="instructions")
    parser.add_argument("--teachers", nargs="+", type=int, default=TEACHERS)
    parser.add_argument("--studies", type=int, default=10_000)
    given = parser.parse_args()
    if given.what == "binary":
        for row in binary_cases():
            print(json.dumps(row))
        return
    pools, began = pools_of(given.data, given.rewards), time.process_time()
    measure = cell if given.what == "cells" else null
    # Nothing is named by the draws any more.
    few = measure is null and given.method == "after"
    answer = partial(METHODS[given.method], draws=NULL_DRAWS if few else DRAWS)
    missed = total = 0
    sizes = given.n or (SIZES if measure is cell else NULL_SIZES)
    for rewards, teachers, n in itertools.product(given.rewards, given.teachers, sizes):
        kind = rewards.removeprefix("car-")
        if kind in POOLED and (kind not in pools or teachers > len(pools[kind])):
            continue
        draw = Draws(rewards, pools, np.random.default_rng([n, teachers]))
        found = measure(draw, answer, teachers=teachers, n=n, studies=given.studies)
        total, missed = total + 1, missed + (not found["met"])
        print(json.dumps({"rewards": rewards, "n": n, "teachers": teachers, **found}), flush=True)
    seconds = round(time.process_time() - began)
    print(json.dumps({"cells": total, "missed": missed, "processor_seconds": seconds}))


if __name__ == "__main__":
    main()
