"""AP is the paper's mean of two benchmarks, and is withheld where it would be a guess."""

from dataclasses import replace

import numpy as np
import pytest

from preceptor.benchmarks.average_performance import AP, judge_warnings, student_results
from preceptor.benchmarks.base import BenchmarkResult
from preceptor.errors import StudyError
from preceptor.types import Estimate

DRAWS = 4000


def alpaca(rate: float = 16.0, *, model: str = "a", spread: float = 1.0) -> BenchmarkResult:
    draws = rate + spread * np.random.default_rng(1).normal(size=DRAWS)
    found = Estimate(rate, rate - 2, rate + 2, 805)
    both = {"LC": found, "WR": found}
    return BenchmarkResult(
        "alpaca_eval", model, "judge", 805, 0.0, both, {"LC": draws, "WR": draws}
    )


def arena(score: float = 14.0, *, model: str = "a", spread: float = 1.0) -> BenchmarkResult:
    draws = score + spread * np.random.default_rng(2).normal(size=DRAWS)
    found = Estimate(score, score - 2, score + 2, 500)
    return BenchmarkResult("arena_hard", model, "judge", 500, 0.0, {"AH": found}, {"AH": draws})


def averaged(one: BenchmarkResult, other: BenchmarkResult) -> Estimate | None:
    found = AP.formed({one.benchmark: one, other.benchmark: other})
    return found and found[0]


@pytest.mark.parametrize(
    # LC, Arena-Hard and AP of table 2 (Xu et al. 2025), four of its rows.
    ("controlled", "score", "average"),
    [(16.09, 13.7, 14.90), (10.55, 6.7, 8.62), (19.20, 13.1, 16.15), (6.63, 4.8, 5.72)],
)
def test_ap_is_the_mean_that_the_paper_prints(controlled, score, average):
    found = averaged(alpaca(controlled), arena(score))
    assert found.value == pytest.approx(average, abs=0.0051)
    assert found.n == 1305


def test_the_interval_of_ap_is_that_of_the_mean_of_independent_draws():
    found = averaged(alpaca(spread=3.0), arena(spread=4.0))
    # The standard deviation of the mean is sqrt(9 + 16) / 2.
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.5, rel=0.05)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            replace(alpaca(), measures={"WR": alpaca().measures["WR"]}),
            arena(),
            "there is no length-controlled win rate",
        ),
        (replace(alpaca(), missing=0.02), arena(), "2.0% of AlpacaEval 2's verdicts"),
        (alpaca(), replace(arena(), missing=0.012), "1.2% of Arena-Hard v0.1's verdicts"),
    ],
)
def test_ap_is_withheld_with_its_reason(one, other, said):
    (result,) = student_results([one, other])
    assert "AP" not in result.estimates
    assert said in " ".join(result.warnings)


def test_one_missing_verdict_in_a_hundred_is_borne():
    assert averaged(replace(alpaca(), missing=0.01), arena()) is not None


def test_a_benchmark_that_was_not_run_is_no_data():
    (result,) = student_results([alpaca()])
    record = result.to_record()
    assert (record["AP"], record["AH"], record["arena_hard_n"]) == (None, None, None)
    assert (record["LC"], record["LC_low"], record["WR"]) == (16.0, 14.0, 16.0)
    assert result.warnings == ()


def test_two_names_of_one_student_meet_under_the_name_given():
    names = {"ae-run": "Gemma", "ah-run": "Gemma"}
    results = student_results([alpaca(model="ae-run"), arena(model="ah-run")], names)
    assert [(result.name, result.estimates["AP"].value) for result in results] == [("Gemma", 15.0)]


def test_the_best_come_first_and_those_without_ap_last():
    both = [of(rate, model=name) for of in (alpaca, arena) for rate, name in ((10, "a"), (30, "b"))]
    results = student_results([*both, alpaca(90, model="c")])
    assert [result.name for result in results] == ["b", "a", "c"]


def test_names_that_cannot_be_given_are_refused():
    with pytest.raises(StudyError, match="No judgement is of the model 'x'"):
        student_results([alpaca()], {"x": "y"})
    with pytest.raises(StudyError, match="'a' and 'b' of one benchmark would both be called 'a'"):
        student_results([alpaca(model="a"), alpaca(model="b")], {"b": "a"})


def test_results_of_different_judges_are_told_apart():
    other = replace(alpaca(model="b"), judge=None)
    (said,) = judge_warnings([alpaca(), other])
    assert said.startswith("AlpacaEval 2 has different judges: judge, not stated.")
    assert judge_warnings([alpaca(), arena()]) == []
