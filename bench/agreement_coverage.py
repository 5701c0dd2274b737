"""How often the intervals of an agreement hold the true rho, by method.

The bounds below were written down before these runs, but after scratch runs that had compared the same
methods: they say what is met, and are no blind choice. Teachers are drawn from a population whose rank
correlation between what is predicted and what is observed is known: a bivariate normal with
rho = 6 / pi asin(r / 2), and one with heavy tails (a t copula with 3 degrees of freedom, rho from 300,000
teachers). With relatives, teachers come in families of four, and half of the variance of either side is the
family's. Three students share
teachers, and half of what their outcomes hold beside the prediction. Met means, for 8 teachers and more:

* the 95% interval holds the truth in at least 93% of the samples of every cell without relatives;
* with relatives, in at least 92%;
* of the methods that meet both, the one with the shortest mean width is taken.

A cell has `--samples` samples, so its share has a standard error of 0.01 at 500. Methods: percentiles of
draws of teachers (the one until then) and of whole families, Bonett and Wright's formula, the same with the
design effect of families and students, and the outer ends of that and the percentiles. Below 8 teachers
`old` shows what the percentiles do. The output is JSON.
"""

import argparse
import itertools
import json
import math
from typing import Any

import numpy as np

from preceptor.agreement.bootstrap import (
    Ends,
    bonett_wright,
    design_effect,
    percentile_ends,
    resample,
    resample_families,
    resampled_spearman,
    rho_interval,
)
from preceptor.agreement.correlation import Array, standard_ranks

RHOS = (0.0, 0.6, 0.9, 0.95)
FAMILY = 4
DRAWS = 400
CELLS = (
    *((n, "normal", 1, False) for n in (8, 9, 13, 20, 40)),
    *((n, "heavy", 1, False) for n in (9, 20, 40)),
    *((n, "normal", 3, False) for n in (9, 20)),
    *((n, "normal", 1, True) for n in (12, 20, 40)),
    (20, "normal", 3, True),
)
"""Teachers, population, students, and whether teachers have relatives."""


def draw(
    rho: float, n: int, rng: np.random.Generator, *, tails: str, students: int, related: bool
) -> tuple[Array, Array]:
    """Return predicted and observed values, each of shape (students, n)."""
    one, other = _normal(rho, n, rng, students)
    if related:
        wide = np.arange(n) // FAMILY
        family = _normal(rho, n // FAMILY, rng, students)
        one, other = one + family[0][:, wide], other + family[1][:, wide]
    if tails == "heavy":
        scale = np.sqrt(rng.chisquare(3, size=n) / 3)
        one, other = one / scale, other / scale
    return one, other


def _normal(rho: float, n: int, rng: np.random.Generator, students: int) -> tuple[Array, Array]:
    r = 2 * math.sin(math.pi * rho / 6)
    shared = rng.normal(size=(2, n))
    own = rng.normal(size=(students, n))
    rest = shared[1] if students == 1 else math.sqrt(0.5) * (shared[1] + own)
    return np.tile(shared[0], (students, 1)), r * shared[0] + math.sqrt(
        1 - r * r
    ) * rest * np.ones_like(own)


def intervals(
    one: Array, other: Array, *, related: bool, rng: np.random.Generator
) -> dict[str, Ends]:
    """Return each method's interval of the mean rho over students."""
    n = one.shape[1]
    rho = float((standard_ranks(one) * standard_ranks(other)).sum(axis=1).mean())
    alone = resampled_spearman(one, other, resample(n, draws=DRAWS, rng=rng))
    families = [str(teacher // FAMILY) for teacher in range(n)]
    counts = resample_families(families, draws=DRAWS, rng=rng)
    drawn = resampled_spearman(one, other, counts) if related else alone
    effect = design_effect(alone, drawn, len(set(families)) if related else 0)
    mean = drawn.mean(axis=1)
    return {
        "percentiles of teachers": percentile_ends(alone.mean(axis=1)),
        "percentiles of families": percentile_ends(mean),
        "formula": bonett_wright(rho, n),
        "formula, design effect": bonett_wright(rho, n, effect=effect),
        "outer ends": rho_interval(rho, mean, teachers=n, effect=effect),
    }


def measure(
    cell: tuple[int, str, int, bool], rho: float, *, samples: int, seed: int
) -> dict[str, Any]:
    """Return the coverage and mean width of every method in one cell."""
    n, tails, students, related = cell
    kind: dict[str, Any] = {"tails": tails, "students": students}
    rng = np.random.default_rng([seed, n, students, int(related), int(100 * rho)])
    truth = rho
    if tails == "heavy":
        whole = draw(rho, 300_000, rng, tails=tails, students=1, related=False)
        ranks = [side[0].argsort().argsort() for side in whole]
        truth = float(np.corrcoef(*ranks)[0, 1])
    found: dict[str, list[tuple[bool, float]]] = {}
    for _ in range(samples):
        sample = draw(rho, n, rng, related=related, **kind)
        for name, ends in intervals(*sample, related=related, rng=rng).items():
            inside = ends.low - 1e-12 <= truth <= ends.high + 1e-12
            found.setdefault(name, []).append((inside, ends.high - ends.low))
    shares = {
        name: dict(zip(("coverage", "width"), np.mean(rows, axis=0).round(3).tolist(), strict=True))
        for name, rows in found.items()
    }
    return {"teachers": n, **kind, "related": related, "rho": round(truth, 3), "methods": shares}


def main() -> None:
    """Measure every cell and print it with the verdict on each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = {"samples": given.samples, "seed": given.seed}
    cells = [measure(cell, rho, **options) for cell, rho in itertools.product(CELLS, RHOS)]
    old = [measure((n, "normal", 1, False), 0.9, **options) for n in (4, 5)]
    print(
        json.dumps({"settings": options, "verdicts": verdicts(cells), "cells": cells, "old": old})
    )


def verdicts(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each method's lowest coverage without and with relatives, its mean width, and if it is met."""
    found: dict[str, Any] = {}
    for name in cells[0]["methods"]:
        lowest = [
            min(cell["methods"][name]["coverage"] for cell in cells if cell["related"] == related)
            for related in (False, True)
        ]
        width = float(np.mean([cell["methods"][name]["width"] for cell in cells]))
        found[name] = {
            "alone": lowest[0],
            "related": lowest[1],
            "width": round(width, 3),
            "met": lowest[0] >= 0.93 and lowest[1] >= 0.92,
        }
    return found


if __name__ == "__main__":
    main()
