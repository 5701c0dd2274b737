"""A sweep passes through the ranking, falls back on the reward at beta 0, and halves instructions as told."""

from collections.abc import Mapping

import numpy as np
import pytest

from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common, Measurements, common_instructions
from preceptor.ranking.metrics import CompatibilityAdjustedReward, RankSurprisalRatio
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import rank
from preceptor.ranking.sensitivity import beta_sweep, nested, winners
from preceptor.ranking.stability import BETAS

TEACHERS = ("far", "near", "middling")


def measured(n: int = 40, *, corpus: bool = False) -> Measurements:
    rng = np.random.default_rng(3)
    level = np.array([[1.3], [1.0], [1.1]])
    reward = rng.normal(level, 0.5, (3, n))
    tokens = rng.integers(3, 30, (3, n)).astype(float)
    loss = rng.lognormal(np.log([[2.0], [0.6], [1.2]]), 0.3, (3, n))
    if not corpus:
        return Measurements(TEACHERS, n, {"reward": reward, "loss": loss, "length": tokens})
    values = {"length": tokens, "reward": reward, "loss": loss * tokens}
    return Measurements(TEACHERS, n, values, {"loss": tokens})


def common_of(measurements: Measurements) -> Common:
    return common_instructions(measurements, ("reward", "loss"), min_coverage=0.5)


@pytest.mark.parametrize("corpus", [False, True])
@pytest.mark.parametrize("transform", ["raw", "minmax"])
@pytest.mark.parametrize("beta", [0.0, 0.7, 3.0])
def test_at_the_ranking_s_beta_the_sweep_is_the_ranking(corpus: bool, transform: str, beta: float):
    measurements = measured(corpus=corpus)
    options = RankingOptions(n_resamples=300, seed=5, transform=transform)
    car = CompatibilityAdjustedReward(beta=beta)
    ranking = rank(measurements, student="s", metrics=[car], options=options)
    sweep = beta_sweep(common_of(measurements), car, options)
    row = sweep.betas.index(beta)
    for result in ranking.teachers:
        at = row, TEACHERS.index(result.teacher)
        car_of = result.estimates["car"]
        seen = sweep.values[at], sweep.low[at], sweep.high[at], sweep.p_best[at]
        told = car_of.value, car_of.low, car_of.high, result.p_best
        assert seen == pytest.approx(told, abs=1e-12)
        assert sweep.ranks[at] == result.rank


def test_a_sweep_covers_0_to_10_with_every_beta_that_stability_tries():
    sweep = beta_sweep(
        common_of(measured()), CompatibilityAdjustedReward(beta=12.5), RankingOptions()
    )
    assert set(BETAS) <= set(sweep.betas)
    assert sweep.betas[0] == 0 and sweep.betas[-1] == 12.5
    assert list(sweep.betas) == sorted(set(sweep.betas))
    assert 20 <= len(sweep.betas) <= 30
    for array in (sweep.values, sweep.low, sweep.high, sweep.p_best, sweep.ranks):
        assert array.shape == (len(sweep.betas), 3)
    assert np.all((sweep.low <= sweep.values) & (sweep.values <= sweep.high))
    assert np.allclose(sweep.p_best.sum(axis=1), 1)


def test_at_beta_0_car_is_the_mean_reward_and_at_10_the_loss_has_turned_the_order():
    measurements = measured()
    sweep = beta_sweep(common_of(measurements), CompatibilityAdjustedReward(), RankingOptions())
    assert sweep.values[0] == pytest.approx(measurements.values["reward"].mean(axis=1), abs=1e-12)
    assert sweep.ranks[0].tolist() == [1, 3, 2]
    assert sweep.ranks[-1].tolist() == [3, 1, 2]


def test_halves_quarters_and_eighths_are_the_first_in_the_order_and_at_least_ten():
    common = common_of(measured(50))
    order = np.random.default_rng(0).permutation(50)
    found = list(nested(common, order))
    assert [one.n for one in found] == [25, 12]
    for one in found:
        assert np.array_equal(one.values["loss"], common.values["loss"][:, order[: one.n]])


def small(values: Mapping[str, Array]) -> Common:
    n = next(iter(values.values())).shape[1]
    return Common(n, values, {}, ({}, {}), ())


def test_winners_are_by_the_declared_direction_and_ties_are_all_named():
    rows = {"token_rank": np.array([[2.0, 4.0], [1.0, 1.0]]), "loss": np.array([[1.0, 1.0]] * 2)}
    ratio = RankSurprisalRatio()
    assert winners(small(rows), ratio, transform="raw", teachers=("a", "b")) == ("b",)
    tied = {**rows, "token_rank": np.array([[2.0, 4.0], [4.0, 2.0]])}
    assert winners(small(tied), ratio, transform="raw", teachers=("a", "b")) == ("a", "b")
    nothing = {**rows, "loss": np.zeros((2, 2))}
    assert winners(small(nothing), ratio, transform="raw", teachers=("a", "b")) == ()


def test_a_subset_takes_denominators_along():
    common = common_of(measured(corpus=True))
    taken = common.only(np.array([4, 1]))
    assert taken.n == 2
    assert np.array_equal(taken.denominators["loss"], common.denominators["loss"][:, [4, 1]])
