"""Metrics compute their published formulas, declare themselves, and are read by name or as a table."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preceptor.config.metrics import metric_named, metric_of
from preceptor.errors import StudyError
from preceptor.ranking.metrics import (
    METRICS,
    TRANSFORMS,
    AverageLoss,
    AverageReward,
    CompatibilityAdjustedReward,
    Metric,
    PersonalisedSynthesis,
    RankSurprisalRatio,
    metrics_for,
    minmax,
    shift_min,
    sigmoid,
    within_instruction,
)


def test_car_is_reward_over_one_plus_beta_loss():
    # By hand from eq. 3 of Xu et al. 2025 with beta = 3: 0.8 / (1 + 3 * 1) and 0.9 / (1 + 3 * 2).
    car = CompatibilityAdjustedReward()
    assert car(np.array([0.8, 0.9]), np.array([1.0, 2.0])) == pytest.approx([0.2, 0.9 / 7])


def test_car_with_beta_zero_is_the_reward():
    reward = np.array([0.3, -2.0])
    assert np.array_equal(CompatibilityAdjustedReward(beta=0)(reward, np.ones(2)), reward)


@given(reward=st.floats(-100, -0.01), loss=st.floats(0, 50), step=st.floats(0.1, 5))
def test_car_rises_with_loss_where_the_reward_is_negative_and_falls_where_it_is_positive(
    reward, loss, step
):
    # d CAR / d L = -beta r / (1 + beta L)^2 has the sign of -r.
    car = CompatibilityAdjustedReward()
    near, far = np.array(loss), np.array(loss + step)
    assert car(np.array(reward), far) > car(np.array(reward), near)
    assert car(np.array(-reward), far) < car(np.array(-reward), near)


def test_car_follows_its_derivative():
    car, step = CompatibilityAdjustedReward(), 1e-6
    for reward in (0.7, -0.7):
        slope = (
            car(np.array(reward), np.array(1 + step)) - car(np.array(reward), np.array(1.0))
        ) / step
        assert slope == pytest.approx(-3 * reward / (1 + 3 * 1.0) ** 2, rel=1e-4)


def test_car_is_not_invariant_under_a_shift_of_the_rewards():
    car = CompatibilityAdjustedReward()
    reward, loss = np.array([1.0, 1.5]), np.array([1.0, 2.0])
    assert np.diff(car(reward, loss)) < 0
    assert np.diff(car(reward - 2, loss)) > 0


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_car_refuses_a_beta_that_cannot_discount(beta):
    with pytest.raises(StudyError, match="0 or more"):
        CompatibilityAdjustedReward(beta=beta)


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("reward", (0.5,), 0.5),
        ("loss", (1.5,), 1.5),
        ("perplexity", (4.0,), 4.0),
        ("ifd", (0.9,), 0.9),
        ("length", (120.0,), 120.0),
        ("rsr", (12.0, 1.5), 8.0),
        ("likelihood", (1.5,), -1.5),
    ],
)
def test_each_metric_computes_its_formula(kind, inputs, expected):
    assert METRICS[kind](*(np.array(number) for number in inputs)) == expected


def test_directions_are_the_declared_ones():
    lower = {kind for kind, metric in METRICS.items() if not metric.higher_is_better}
    assert lower == {"loss", "perplexity", "rsr", "ppl_gpt2", "brier", "scas", "g_norm", "grace"}


def test_metrics_broadcast_over_draws():
    draws = np.ones((5, 3))
    assert RankSurprisalRatio()(draws, np.full(3, 2.0)).shape == (5, 3)


def test_metrics_are_listed_by_their_kind():
    assert list(METRICS) == [
        "car", "reward", "loss", "perplexity", "ifd", "length", "rsr", "likelihood",
        "information", "ppl_gpt2", "ifd_gpt2", "persyn",
        "brier", "rank_1", "lark_rho", "lark", "scas", "aslec_drop", "g_norm", "grace",
    ]  # fmt: skip
    assert all(metric.kind == kind for kind, metric in METRICS.items())


def test_a_metric_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CompatibilityAdjustedReward().beta = 1.0


def test_a_metric_is_found_by_name_with_its_parameters():
    assert metric_named("car", beta=1.0) == CompatibilityAdjustedReward(beta=1.0)


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(StudyError, match="Did you mean 'reward'"):
        metric_named("rewards")


def test_an_unknown_parameter_names_the_nearest():
    with pytest.raises(StudyError, match="Did you mean 'beta'"):
        metric_named("car", betta=1.0)


def test_metrics_are_chosen_by_the_measures_present():
    assert metrics_for(["reward", "loss"]) == (
        CompatibilityAdjustedReward(),
        AverageReward(),
        AverageLoss(),
        METRICS["likelihood"],
    )


def test_every_metric_is_read_from_its_name_and_from_a_table():
    for kind, metric in METRICS.items():
        assert metric_of({"kind": kind}) == metric_of(kind) == metric
    assert metric_of({"kind": "car", "beta": 5}) == metric_named("car", beta=5.0)


def test_a_wrong_parameter_is_refused():
    with pytest.raises(StudyError, match="btea"):
        metric_of({"kind": "car", "btea": 5})
    with pytest.raises(StudyError, match=r"Metric 'car', beta: .*number"):
        metric_of({"kind": "car", "beta": "much"})


def test_a_registered_metric_has_the_protocol_shape():
    metric: Metric = CompatibilityAdjustedReward()
    assert (metric.kind, metric.needs, metric.higher_is_better) == ("car", ("reward", "loss"), True)


def test_transforms_map_the_pool_as_computed_by_hand():
    rewards = np.array([[-1.0, 0.0], [1.0, 3.0]])
    assert np.array_equal(TRANSFORMS["raw"](rewards), rewards)
    assert np.array_equal(shift_min(rewards), [[0.0, 1.0], [2.0, 4.0]])
    assert np.array_equal(minmax(rewards), [[0.0, 0.25], [0.5, 1.0]])
    # 1 / (1 + e^-1) = 0.7310585786, 1 / (1 + e^-3) = 0.9525741268.
    assert sigmoid(rewards) == pytest.approx(
        np.array([[1 - 0.7310585786, 0.5], [0.7310585786, 0.9525741268]]), abs=1e-9
    )


def test_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e6, 1e6])) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_leaves_gaps_where_they_are(name):
    result = TRANSFORMS[name](np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert np.array_equal(np.isnan(result), [[False, True], [False, False]])


def test_a_pool_of_one_value_maps_to_zero():
    assert np.array_equal(minmax(np.full((2, 2), 7.0)), np.zeros((2, 2)))


@given(arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)))
def test_minmax_stays_within_zero_and_one_and_shift_min_is_never_negative(rewards):
    assert shift_min(rewards).min() == 0
    mapped = minmax(rewards)
    assert 0 <= mapped.min() <= mapped.max() <= 1


def test_values_are_scaled_within_each_instruction():
    values = np.array([[1.0, 5.0, 2.0, np.nan], [3.0, 5.0, -2.0, 1.0], [2.0, 5.0, 0.0, 2.0]])
    shares = within_instruction(values)
    np.testing.assert_allclose(shares[:, 0], [0, 1, 0.5])
    np.testing.assert_allclose(shares[:, 1], 0.5)
    np.testing.assert_allclose(shares[:, 2], [1, 0, 0.5])
    assert np.isnan(shares[:, 3]).all()
    np.testing.assert_allclose(within_instruction(7 + 3 * values)[:, :3], shares[:, :3])


def test_persyn_weighs_quality_and_learnability():
    # arXiv 2510.10925: 0.6 quality + 0.4 learnability.
    assert PersonalisedSynthesis()(np.array(0.5), np.array(1.0)) == pytest.approx(0.7)
    with pytest.raises(StudyError, match="0 to 1"):
        PersonalisedSynthesis(weight=1.5)
