"""Several fine-tuning runs per teacher: outcomes are their means, and they differ beyond the questions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from preceptor.benchmarks.base import Wins
from preceptor.benchmarks.observed import observed_ranking, ranking_of_results
from preceptor.benchmarks.runs import RUN_DEVIATION, TeacherMeans, further_questions, over_runs
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import Places, TeacherResult
from preceptor.studies.tables import TABLE_8
from preceptor.types import Estimate
from test_observed import both

OPTIONS = RankingOptions(n_resamples=4000)


def test_the_outcome_is_the_mean_over_runs_and_one_run_each_changes_nothing():
    draws = np.random.default_rng(0).normal(size=(50, 3))
    alone = over_runs("abc", np.arange(3.0), draws, seed=0)
    assert alone.teachers == ("a", "b", "c") and alone.deviation is None
    np.testing.assert_array_equal(alone.draws, draws)
    found = over_runs("aab", np.array([1.0, 2.0, 5.0]), draws, seed=0)
    np.testing.assert_allclose(found.point, [1.5, 5.0])


def test_the_variance_between_runs_is_pooled_and_reaches_as_far_as_students_t():
    # Questions that say nothing: all that moves the draws is the runs. Six runs of three teachers, 1 apart.
    point = np.array([1.0, 2.0, 4.0, 5.0, 7.0, 8.0])
    found = over_runs("aabbcc", point, np.tile(point, (20_000, 1)), seed=0)
    pooled = (6 * 0.5**2) / 3
    assert found.deviation == pytest.approx(pooled**0.5)
    low, high = np.percentile(found.draws, [2.5, 97.5], axis=0)
    reach = t.ppf(0.975, 3) * (pooled / 2) ** 0.5
    np.testing.assert_allclose(high - found.point, reach, rtol=0.05)
    np.testing.assert_allclose(found.point - low, reach, rtol=0.05)


def test_what_the_questions_explain_is_no_difference_between_runs():
    rng = np.random.default_rng(3)
    wins = rng.normal(size=(8, 400))  # runs that are alike but for the questions
    counts = rng.multinomial(400, np.full(400, 1 / 400), size=3000) / 400
    found = over_runs("aabbccdd", wins.mean(axis=1), counts @ wins.T, seed=0)
    assert found.deviation is not None and found.deviation < 1 / 400**0.5


@pytest.mark.parametrize(
    ("between", "questions"),
    # A lead of 1 whose variance is 0.5 from 100 questions: 2.8016^2 x 0.5 x 100 in all. Where the runs add
    # 0.1, 1 / 2.8016^2 - 0.1 is left for the questions' 0.4.
    [(0.0, 293), (0.05, 1360), (0.2, None)],
)
def test_more_questions_narrow_what_questions_vary_and_not_what_runs_do(between, questions):
    draws = np.random.default_rng(0).normal(size=(1000, 2))
    draws = (draws - draws.mean(axis=0)) / (draws[:, 0] - draws[:, 1]).std() * 0.5**0.5
    means = TeacherMeans(("a", "b"), np.array([1.0, 0.0]), draws, 1.0, np.full(2, between))
    one = TeacherResult("a", 1, 100, {}, (0.9, 0.1), None, {}, 0)
    other = replace(one, teacher="b", behind=Estimate(1, 0, 2, 100), p_value=0.2)
    expected = questions and pytest.approx(questions, abs=3)
    assert further_questions([one, other], means, n=100) == expected


def judged(rates: dict[str, Sequence[float]], *, apart: int = 0) -> Places:
    """Return the ranking of runs that win this share of 200 questions each."""
    wins, names = [], {}
    rng = np.random.default_rng(7)
    for teacher, runs in rates.items():
        for run, rate in enumerate(runs, 1):
            model = f"{teacher}-{run}"
            names[model] = teacher
            points = rng.permutation((np.arange(200) < rate * 200).astype(np.float64))
            keys = tuple(range(apart * run, 200 + apart * run))
            wins.append(Wins(model, "base", "judge", keys, points))
    return observed_ranking(wins, student="s", names=names, options=OPTIONS)


def test_a_win_rate_is_the_mean_over_runs_with_wider_intervals_and_less_certainty():
    found = judged({"a": (0.9, 0.5), "b": (0.6, 0.5), "c": (0.2, 0.5)})
    assert found.order == ("a", "b", "c")
    assert [one.estimates["win_rate"].value for one in found] == pytest.approx([70, 55, 35])
    # Deviations of 0.2, 0.05 and 0.15 from the mean; the questions' own part is some 3 points squared.
    pooled = 2 * (20**2 + 5**2 + 15**2) / 3
    assert found.settings["run_deviation"] == pytest.approx(pooled**0.5, rel=0.05)
    single = judged({"a": (0.7,), "b": (0.55,), "c": (0.35,)})
    assert "run_deviation" not in single.settings
    for one in found:
        own, alone = one.estimates["win_rate"], single[one.teacher].estimates["win_rate"]
        assert own.high - own.low > 4 * (alone.high - alone.low)
    assert found.best.p_best < 0.9 < single.best.p_best


def test_only_questions_that_every_run_answered_count():
    found = judged({"a": (1.0, 1.0), "b": (0.0, 0.0)}, apart=10)
    assert found.best.n == 190
    assert found.best.estimates["win_rate"].value == 100


def test_ap_and_its_parts_are_means_over_runs_too():
    results = both(one=(16.0, 13.0), two=(18.0, 14.0), other=(10.0, 7.0), more=(11.0, 8.0))
    names = {"one": "a", "two": "a", "other": "b", "more": "b"}
    found = ranking_of_results(results, student="s", settings={}, names=names)
    assert (found.order, found.by) == (("a", "b"), "AP")
    assert [one.estimates["AP"].value for one in found] == pytest.approx([15.25, 9.0])
    assert found["a"].estimates["LC"].value == 17.0
    # The questions move all alike, so the runs explain the whole difference: 1.5 and 1 apart.
    pooled = (2 * 0.75**2 + 2 * 0.5**2) / 2
    assert found.settings["run_deviation"] == pytest.approx(pooled**0.5)


def test_the_papers_deviation_between_runs_is_that_of_ap():
    ap = [float(row.alpaca_lc + row.arena_hard) / 2 for row in TABLE_8]
    assert round(float(np.std(ap, ddof=1)), 2) == RUN_DEVIATION
