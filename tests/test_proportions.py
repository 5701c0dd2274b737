"""The interval of a difference of paired shares: against its definition, and by what it covers."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from preceptor.benchmarks.average_performance import student_results
from preceptor.benchmarks.checked import Checked
from preceptor.benchmarks.observed import ranking_of_results
from preceptor.benchmarks.registry import benchmark_named
from preceptor.ranking.proportions import paired_shares_interval

REACH = 1.959964


def score_statistic(b: int, c: int, n: int, at: float) -> float:
    """Return Tango's statistic with the nuisance share found by maximising the likelihood itself."""

    def loss(losing: float) -> float:
        shares = (losing + at, losing, 1 - 2 * losing - at)
        counts = (b, c, n - b - c)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

    bounds = (max(0.0, -at), (1 - at) / 2)
    losing = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * at) / math.sqrt(n * (2 * losing + at * (1 - at)))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(6, 0, 40), (12, 2, 50), (3, 3, 8), (0, 4, 12), (5, 9, 24)]
)
def test_the_ends_are_where_the_score_test_rejects(b: int, c: int, n: int):
    low, high = paired_shares_interval(b, c, n, reach=REACH)
    assert -1 <= low < (b - c) / n < high <= 1
    assert score_statistic(b, c, n, float(low)) == pytest.approx(REACH, abs=1e-3)
    assert score_statistic(b, c, n, float(high)) == pytest.approx(-REACH, abs=1e-3)
    turned = paired_shares_interval(c, b, n, reach=REACH)
    assert [-turned.high, -turned.low] == pytest.approx([float(low), float(high)])


def test_no_question_apart_is_not_without_error():
    low, high = paired_shares_interval([0, 8], [0, 0], 8, reach=REACH)
    assert low[0] < -0.2 and high[0] > 0.2
    assert 0.3 < low[1] < 1 and high[1] == pytest.approx(1)


@pytest.mark.parametrize("n", [8, 12, 24])
def test_few_questions_are_covered_as_often_as_said(n: int):
    """Every outcome, weighed by true shares drawn over the whole range: no sampling error of the outcomes."""
    outcomes = np.array([(b, c, n - b - c) for b in range(n + 1) for c in range(n + 1 - b)])
    ways = np.array([math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in o) for o in outcomes])
    rng = np.random.default_rng(0)
    true = np.vstack([rng.dirichlet([1, 1, 1], 300), rng.dirichlet([0.5, 0.5, 6], 300)])
    true = np.maximum(true, 1e-9)
    chance = np.exp(ways + np.log(true) @ outcomes.T)
    low, high = paired_shares_interval(outcomes[:, 0], outcomes[:, 1], n, reach=REACH)
    difference = (true[:, 0] - true[:, 1])[:, None]
    covered = (chance * ((low <= difference) & (difference <= high))).sum(axis=1)
    assert covered.min() > 0.92 and 0.95 < covered.mean() < 0.995


def checked(model: str, right: list[int]) -> Checked:
    keys = tuple(f"q{at:02}" for at in range(len(right)))
    won = {"ACC": np.array(right, dtype=np.float64)}
    return Checked(model, keys, won, {"ACC": np.ones(len(right))})


@pytest.mark.parametrize(("apart", "p"), [(5, 0.0625), (6, 0.03125)])
def test_fine_tuned_students_are_compared_by_the_exact_test_of_right_and_wrong(
    apart: int, p: float
):
    better = [1] * 30 + [0] * 10
    models = [
        checked("m1", better),
        checked("m2", [0] * apart + better[apart:]),
        checked("m3", [0] * 40),
    ]
    results = student_results(benchmark_named("accuracy").score(models).results)
    names = {"m1": "alpha", "m2": "beta", "m3": "gamma"}
    settings = {"seed": 0}
    found = ranking_of_results(results, student="s", settings=settings, names=names, checked=models)
    assert found.order == ("alpha", "beta", "gamma")
    beta = found["beta"]
    assert beta.p_value == pytest.approx(p) and beta.discordant == (apart, 0)
    assert found.evidence is not None
    assert ("beta" in found.evidence.contenders) is (p > 0.05)
    low, high = paired_shares_interval(apart, 0, 40, reach=REACH)
    assert beta.behind is not None
    assert (beta.behind.value, beta.behind.high) == pytest.approx((100 * apart / 40, 100 * high))
    assert beta.behind.low <= 100 * float(low) + 1e-9
    # Wilson's interval of no right answer of 40, with Student's quantile in place of 1.96: [0, 9.3].
    none = found["gamma"].estimates["ACC"]
    assert (none.value, none.low) == (0, 0) and 8.76 < none.high < 9.5


def test_partly_right_answers_and_several_runs_are_compared_by_their_means():
    models = [checked("m1", [1, 0.5] * 20), checked("m2", [0.5, 0] * 20)]  # type: ignore[list-item]
    results = student_results(benchmark_named("accuracy").score(models).results)
    found = ranking_of_results(results, student="s", settings={"seed": 0}, checked=models)
    assert found["m2"].discordant is None and found["m2"].p_value < 0.001
    runs = {"m1": "alpha", "m2": "alpha"}
    several = [*models, checked("m3", [0] * 40)]
    results = student_results(benchmark_named("accuracy").score(several).results)
    found = ranking_of_results(
        results, student="s", settings={"seed": 0}, names=runs, checked=several
    )
    assert "run_deviation" in found.settings and found["m3"].discordant is None
