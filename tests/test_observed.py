"""Observed orders in benchmarks: AP where it is, its parts beside it, draws paired over prompts."""

from dataclasses import replace

import numpy as np
import pytest

from preceptor.benchmarks.average_performance import StudentResult, student_result, student_results
from preceptor.benchmarks.base import BenchmarkResult
from preceptor.benchmarks.observed import ranking_of_results
from preceptor.errors import StudyError
from preceptor.types import Estimate, Warning

DRAWS = 500
SHARED = np.random.default_rng(1).normal(size=DRAWS)
"""What the same resampled prompts do to every model alike."""


def alpaca(rate: float, model: str) -> BenchmarkResult:
    draws = rate + SHARED
    found = Estimate(rate, rate - 2, rate + 2, 805)
    won = Estimate(rate + 1, rate - 1, rate + 3, 805)
    measures, drawn = {"LC": found, "WR": won}, {"LC": draws, "WR": draws + 1}
    return BenchmarkResult("alpaca_eval", model, "judge", 805, 0.0, measures, drawn)


def arena(score: float, model: str) -> BenchmarkResult:
    found = Estimate(score, score - 2, score + 2, 500)
    measures, drawn = {"AH": found}, {"AH": score + SHARED[::-1]}
    return BenchmarkResult(
        "arena_hard", model, "judge", 500, 0.0, measures, drawn, warnings=("odd",)
    )


def both(**rates: tuple[float, float]) -> list[StudentResult]:
    return student_results(
        [
            of(rate, name)
            for name, own in rates.items()
            for of, rate in zip((alpaca, arena), own, strict=True)
        ]
    )


def test_both_benchmarks_order_by_the_mean_of_lc_and_ah():
    # LC, Arena-Hard and AP of table 2 (Xu et al. 2025), three of its rows.
    results = both(worst=(10.55, 6.7), best=(19.20, 13.1), middle=(16.09, 13.7))
    found = ranking_of_results(results, student="s", settings={"judge": "j"})
    assert (found.by, tuple(found.metrics)) == ("AP", ("AP", "LC", "AH", "WR"))
    assert [one.teacher for one in found.teachers] == ["best", "middle", "worst"]
    values = [one.estimates["AP"].value for one in found.teachers]
    assert values == pytest.approx([16.15, 14.895, 8.625])
    assert found.teachers[0].estimates["LC"].value == 19.20
    assert found.settings["judge"] == "j"
    assert found.warnings == (Warning("benchmark", "odd"),)


def test_models_are_compared_draw_by_draw():
    # Intervals overlap widely, yet on the same prompts one is always ahead.
    found = ranking_of_results(both(a=(16.1, 13.0), b=(16.0, 13.0)), student="s", settings={})
    assert found.teachers[0].p_best == 1.0
    assert found.teachers[1].p_leader_beats == 1.0
    assert found.verdict().text.startswith("a is")


def test_without_ap_of_all_the_first_measure_that_all_have_orders():
    one, other = both(a=(16.1, 13.0), b=(16.0, 14.0))
    won = one.results["alpaca_eval"]
    won = replace(won, measures={"WR": won.measures["WR"]})
    lacking = student_result(one.name, {**one.results, "alpaca_eval": won})
    found = ranking_of_results([lacking, other], student="s", settings={})
    assert (found.by, found.teachers[0].teacher) == ("AH", "b")
    alone = student_result("a", {"alpaca_eval": one.results["alpaca_eval"]})
    only = ranking_of_results([alone], student="s", settings={})
    assert only.by == "LC"


def test_results_of_different_benchmarks_have_no_order():
    one, other = both(a=(16.1, 13.0), b=(16.0, 14.0))
    apart = [
        student_result("b", {"alpaca_eval": one.results["alpaca_eval"]}),
        student_result("a", {"arena_hard": other.results["arena_hard"]}),
    ]
    with pytest.raises(StudyError, match="no benchmark that all of b, a"):
        ranking_of_results(apart, student="s", settings={})
