"""How often the intervals hold the truth, P(best) is right, and equal teachers get a winner.

Declared before the method was changed. In each cell (rewards x n x teachers) many studies are drawn whose
truth is known, and ranked. A study whose ranking is capped ("leads so far") is counted apart: the criterion
is for the others, and the share of capped studies stands beside it. Met means:

* coverage: 95% intervals hold the truth in 93 to 97% of the studies: of every teacher's metric ("all"; since
  the method changed, but for teachers whose interval a warning calls rough), of the leader's ("leader"),
  and of the differences between the leader and each other teacher ("gaps");
* calibration: in each bin of the leader's P(best) (0.5-0.8, 0.8-0.95, 0.95-1) that holds at least 200
  studies, the mean of P(best) is within 0.05 of the share in which the leader is the best;
* null: where all teachers are equal a winner is named in at most 5% of the studies, at every n from 2 on.

Rewards are normal, lognormal (sd of the logarithm 1), t with 3 degrees of freedom (each with a common part
per instruction, correlation 0.3, standardised), binary (about 0.8 right, the same correlation), and with
`--zoo FOLDER` those of judged models, drawn with replacement from the instructions that all have, truth
being the whole pool. True means differ by 0.1, 0.25 or 0.5 standard deviations between teachers, each in a
third of the studies. `car-...` adds losses that differ between teachers and asks the same of CAR. Under the
null rewards are as above without differences; judged models change places at random within every
instruction.

`--method before` is the method until then: the percentile bootstrap of instructions, a winner named from
P(best) 0.95 on, no cap.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from preceptor.ranking.bootstrap import (
    bootstrap_means,
    percentile_interval,
    rank_probabilities,
)
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import AverageReward, CompatibilityAdjustedReward
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import rank
from preceptor.types import Estimate

Array = NDArray[np.float64]

REWARDS = ("normal", "lognormal", "t3", "binary", "zoo", "car-normal", "car-binary", "car-zoo")
SIZES = (10, 20, 40, 200)
NULL_SIZES = (*range(2, 21), 40, 100, 200)
TEACHERS = (2, 4, 10)
SPREADS = (0.1, 0.25, 0.5)
BINS = (0.5, 0.8, 0.95, 1.0001)
COVERAGE = (0.93, 0.97)
CALIBRATION, ENOUGH, NULL = 0.05, 200, 0.05
COMMON, DRAWS = 0.3, 1000
CAR = CompatibilityAdjustedReward()


@dataclass(frozen=True)
class Sample:
    """Measures (teachers, n) by name, and each teacher's true metric."""

    values: dict[str, Array]
    truth: Array


@dataclass(frozen=True)
class Answer:
    """What a method says: ends (teachers,), ends of the leader's lead (teachers,), and its verdict."""

    leader: int
    low: Array
    high: Array
    gap_low: Array
    gap_high: Array
    p_best: float
    contenders: NDArray[np.bool_]
    named: bool
    capped: bool
    rough: NDArray[np.bool_]


class Draws:
    """Studies with a known truth, from one generator."""

    def __init__(self, rewards: str, pool: Array | None, rng: np.random.Generator) -> None:
        self.car, self.kind = rewards.startswith("car-"), rewards.removeprefix("car-")
        self.pool, self.rng = pool, rng

    def __call__(self, teachers: int, n: int, *, spread: float) -> Sample:
        """Return one study; at a spread of 0 all teachers are equal."""
        if self.kind == "zoo":
            rewards, means = self._judged(teachers, n, spread=spread)
        else:
            effects = spread * self.rng.normal(size=(teachers, 1))
            rewards, means = self._made(teachers, n, effects)
        if not self.car:
            return Sample({"reward": rewards}, means)
        level = np.log(1.2) + spread * self.rng.normal(size=(teachers, 1))
        loss = np.exp(level + 0.3 * self._noise(teachers, n))
        true_loss = np.exp(level[:, 0] + 0.045)
        return Sample({"reward": rewards, "loss": loss}, CAR(means, true_loss))

    def _noise(self, teachers: int, n: int) -> Array:
        own = np.sqrt(1 - COMMON) * self.rng.normal(size=(teachers, n))
        return own + np.sqrt(COMMON) * self.rng.normal(size=n)

    def _made(self, teachers: int, n: int, effects: Array) -> tuple[Array, Array]:
        if self.kind == "binary":
            level = ndtri(0.8) + 1.4 * effects
            rewards = (self._noise(teachers, n) < level).astype(np.float64)
            return rewards, ndtr(level[:, 0])
        level = 2.0 if self.car else 0.0
        if self.kind == "t3":
            own, shared = (self.rng.standard_t(3, size) / np.sqrt(3) for size in ((teachers, n), n))
            noise = np.sqrt(1 - COMMON) * own + np.sqrt(COMMON) * shared
        elif self.kind == "lognormal":
            noise = np.exp(self._noise(teachers, n)) - np.exp(0.5)
            noise /= np.sqrt((np.e - 1) * np.e)
        else:
            noise = self._noise(teachers, n)
        return level + effects + noise, level + effects[:, 0]

    def _judged(self, teachers: int, n: int, *, spread: float) -> tuple[Array, Array]:
        assert self.pool is not None
        chosen = self.rng.choice(len(self.pool), teachers, replace=False)
        rewards = self.pool[chosen][:, self.rng.integers(self.pool.shape[1], size=n)]
        means = self.pool[chosen].mean(axis=1)
        if spread:
            return rewards, means
        return self.rng.permuted(rewards, axis=0), np.full(teachers, means.mean())


def before(sample: Sample, seed: int) -> Answer:
    """Return what the percentile bootstrap said."""
    names = list(sample.values)
    rng = np.random.default_rng(seed)
    matrix = np.concatenate([sample.values[name] for name in names])
    draws = bootstrap_means(matrix, draws=DRAWS, rng=rng).reshape(DRAWS, len(names), -1)
    means = [array.mean(axis=1) for array in sample.values.values()]
    made = CAR(*(draws[:, place] for place in range(2))) if len(names) == 2 else draws[:, 0]
    leader = int(np.argmax(CAR(*means) if len(names) == 2 else means[0]))
    ends, gaps = percentile_interval(made), percentile_interval(made[:, [leader]] - made)
    p_best = float(rank_probabilities(made)[leader, 0])
    likely = rank_probabilities(made)[:, 0] >= 0.05
    rough = np.zeros(len(likely), dtype=bool)
    return Answer(leader, *ends, *gaps, p_best, likely, p_best >= 0.95, False, rough)


def after(sample: Sample, seed: int) -> Answer:
    """Return what a ranking says now."""
    labels = tuple(f"{row:02d}" for row in range(len(sample.truth)))
    measurements = Measurements(labels, sample.values["reward"].shape[1], sample.values)
    metric = CAR if "loss" in sample.values else AverageReward()
    options = RankingOptions(seed=seed, n_resamples=DRAWS)
    ranking = rank(measurements, student="bench", metrics=[metric], options=options)
    ends = np.empty((4, len(labels)))
    for result in ranking.teachers:
        own, lead = result.estimates[metric.kind], result.behind or Estimate(0.0, 0.0, 0.0, 0)
        ends[:, labels.index(result.teacher)] = own.low, own.high, lead.low, lead.high
    evidence = ranking.evidence
    leader = labels.index(ranking.best.teacher)
    among = np.array([label in evidence.contenders for label in labels])
    capped = evidence.cap is not None
    marked = {
        name for one in ranking.warnings if one.code == "rough-interval" for name in one.teachers
    }
    rough = np.array([label in marked for label in labels])
    return Answer(leader, *ends, ranking.best.p_best, among, evidence.named, capped, rough)


METHODS: dict[str, Callable[[Sample, int], Answer]] = {"before": before, "after": after}


def judged_pool(folder: Path | None) -> Array | None:
    """Return rewards (models, instructions) of the models in a folder, on what all have."""
    if folder is None:
        return None
    models = []
    for file in sorted(folder.glob("*.json")):
        rows = json.loads(file.read_text())
        models.append({r["instruction"]: r["reward"] for r in rows if r["reward"] is not None})
    common = sorted(set.intersection(*(set(model) for model in models)))
    return np.array([[model[text] for text in common] for model in models])


def cell(
    draw: Draws, answer: Callable[[Sample, int], Answer], *, teachers: int, n: int, studies: int
) -> dict[str, object]:
    """Return how studies that are not capped meet the criterion, and what those that are would show."""
    seen: dict[bool, list[tuple[Answer, Sample]]] = {True: [], False: []}
    for study in range(studies):
        sample = draw(teachers, n, spread=SPREADS[study % len(SPREADS)])
        said = answer(sample, study)
        seen[said.capped].append((said, sample))
    found: dict[str, object] = {"capped": round(len(seen[True]) / studies, 3), "met": True}
    if len(seen[True]) >= ENOUGH:
        found |= {"of_capped": summary(seen[True])}
    if len(seen[False]) >= ENOUGH:
        open_ = summary(seen[False])
        met = all(COVERAGE[0] <= share <= COVERAGE[1] for share in open_["coverage"].values())
        met &= all(abs(p - share) <= CALIBRATION for _, p, share in open_["bins"])
        found |= {**open_, "met": met}
    return found


def summary(seen: list[tuple[Answer, Sample]]) -> dict[str, Any]:
    """Return coverage, calibration and how often a winner is named, and wrongly."""
    hits: dict[str, list[float]] = {"all": [], "leader": [], "gaps": [], "contenders": []}
    firsts, named = [], []
    for said, sample in seen:
        truth, at = sample.truth, said.leader
        inside = (said.low <= truth) & (truth <= said.high)
        lead = truth[at] - truth
        held = (said.gap_low <= lead) & (lead <= said.gap_high)
        hits["all"] += inside[~said.rough].astype(float).tolist()
        hits["leader"].append(float(inside[at]))
        hits["gaps"].append(float(np.delete(held, at).mean()))
        hits["contenders"].append(float(said.contenders[truth.argmax()]))
        firsts.append((said.p_best, bool(truth[at] == truth.max())))
        if said.named:
            named.append(firsts[-1][1])
    among = round(float(np.mean(hits.pop("contenders"))), 3)
    return {
        "coverage": {name: round(float(np.mean(shares)), 3) for name, shares in hits.items()},
        "bins": list(calibration(firsts)),
        "best_among_contenders": among,
        "named": round(len(named) / len(seen), 3),
        "named_wrongly": round(1 - float(np.mean(named)), 3) if named else None,
    }


def calibration(seen: list[tuple[float, bool]]) -> Iterator[tuple[int, float, float]]:
    """Yield for each bin with enough studies their number, the mean P(best) and the share right."""
    p, right = (np.array(column) for column in zip(*seen, strict=True))
    for low, high in itertools.pairwise(BINS):
        inside = (p >= low) & (p < high)
        if inside.sum() >= ENOUGH:
            yield int(inside.sum()), round(p[inside].mean(), 3), round(right[inside].mean(), 3)


def null(
    draw: Draws, answer: Callable[[Sample, int], Answer], *, teachers: int, n: int, studies: int
) -> dict[str, object]:
    """Return how often a winner is named among equal teachers."""
    named = [answer(draw(teachers, n, spread=0.0), study).named for study in range(studies)]
    share = float(np.mean(named))
    # Three standard errors above 5% are chance of this simulation.
    slack = 3 * np.sqrt(NULL * (1 - NULL) / studies)
    return {"named": round(share, 4), "met": bool(share <= NULL + slack)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, default=list(METHODS)[-1])
    parser.add_argument("--what", choices=("cells", "null"), default="cells")
    parser.add_argument("--zoo", type=Path, help="folder of judged models, JSON with `reward`")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=REWARDS)
    parser.add_argument("--n", nargs="+", type=int, help="instructions")
    parser.add_argument("--teachers", nargs="+", type=int, default=TEACHERS)
    parser.add_argument("--studies", type=int, default=2000)
    given = parser.parse_args()
    pool, began = judged_pool(given.zoo), time.perf_counter()
    measure = cell if given.what == "cells" else null
    missed = total = 0
    for rewards in given.rewards:
        if rewards.endswith("zoo") and pool is None:
            continue
        for teachers in given.teachers:
            for n in given.n or (SIZES if measure is cell else NULL_SIZES):
                draw = Draws(rewards, pool, np.random.default_rng([n, teachers]))
                answer = METHODS[given.method]
                found = measure(draw, answer, teachers=teachers, n=n, studies=given.studies)
                total, missed = total + 1, missed + (not found["met"])
                row = {"rewards": rewards, "n": n, "teachers": teachers, **found}
                print(json.dumps(row), flush=True)
    seconds = round(time.perf_counter() - began)
    print(json.dumps({"cells": total, "missed": missed, "seconds": seconds}))


if __name__ == "__main__":
    main()
