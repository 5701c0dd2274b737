"""Each trap is told of when it is there, names the teachers, and is silent when it is not."""

from types import SimpleNamespace

import numpy as np
import pytest

from preceptor.config.metrics import metric_named
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import AverageReward, CompatibilityAdjustedReward
from preceptor.ranking.warnings import warnings_of

CAR = CompatibilityAdjustedReward()


def told(*, by=CAR, metrics=(CAR,), **values) -> list[str]:
    arrays = {name: np.array(value, dtype=float) for name, value in values.items()}
    teachers, n = next(iter(arrays.values())).shape
    common = Common(n=n, values=arrays, denominators={}, dropped=({}, {}), notes=())
    found = warnings_of(common, metrics, teachers="ABC"[:teachers], by=by, failed={}, unscored={})
    return [warning.text for warning in found]


def flat(first: float, second: float, n: int = 40) -> np.ndarray:
    return np.array([[first] * n, [second] * n])


def test_sound_measurements_have_no_caution():
    assert (
        told(reward=flat(0.2, 0.4), loss=flat(1, 2), perplexity=flat(3, 4), ifd=flat(0.9, 1.2))
        == []
    )


def test_mixed_mean_rewards_are_told_loudly_with_names_and_remedies():
    (caution,) = told(reward=flat(0.2, -0.4), loss=flat(1, 2))
    assert caution.startswith("CAR REWARDS INCOMPATIBILITY")
    assert "The mean reward is 0 or less for 'B' (-0.4)." in caution
    assert "constant is added" in caution
    assert "sigmoid, shift-min or minmax" in caution


def test_negative_mean_rewards_are_told_worst_first():
    (caution,) = told(reward=flat(-0.2, -0.4), loss=flat(1, 2))
    assert "0 or less for 'B' (-0.4), 'A' (-0.2)." in caution


def test_a_mean_of_0_where_nothing_is_negative_is_no_trap():
    assert told(reward=flat(0.0, 0.5), loss=flat(1, 2)) == []


def test_single_negative_rewards_under_a_positive_mean_are_no_trap():
    reward = flat(1.0, 2.0)
    reward[0, 0] = -5
    assert told(reward=reward, loss=flat(1, 2)) == []


def test_a_negative_reward_is_no_trap_where_car_is_not_formed():
    assert told(reward=flat(-1, -2), by=AverageReward(), metrics=(AverageReward(),)) == []


def test_an_order_without_rewards_is_called_exploratory():
    (caution,) = told(loss=flat(1, 2), by=metric_named("likelihood"), metrics=())
    assert "The order by likelihood looks at no reward and is exploratory" in caution


@pytest.mark.parametrize(
    ("length", "loss", "said"),
    [
        # Beside the median of the other two, 100 and 1: 3 times as long and 5 times as unlikely.
        (
            (100, 100, 300),
            (1, 1, 5),
            ["'C' looks like noise: its responses are 3.0 times", "5.0 times"],
        ),
        ((100, 100, 300), (1, 1, 1.9), []),
        ((100, 100, 190), (1, 1, 5), []),
    ],
)
def test_a_teacher_far_longer_and_far_less_likely_than_the_others_looks_like_noise(
    length, loss, said
):
    rows = {"length": np.outer(length, np.ones(40)), "loss": np.outer(loss, np.ones(40))}
    found = told(by=metric_named("information"), metrics=(), **rows)
    noise = [text for text in found if "noise:" in text]
    assert len(noise) == bool(said)
    assert all(part in noise[0] for part in said)


def test_an_unregistered_metric_without_rewards_is_not_called_exploratory():
    assert (
        told(win=flat(0.4, 0.6), by=SimpleNamespace(kind="win", needs=("win",)), metrics=()) == []
    )


def test_one_response_that_holds_the_mean_perplexity_is_told_with_its_share():
    # 39 responses of 1 and one of 13 sum to 52, of which 13 is a quarter.
    perplexity = flat(1, 1)
    perplexity[1, 7] = 13
    (caution,) = told(reward=flat(1, 1), loss=flat(1, 1), perplexity=perplexity)
    assert "more than 20% of the mean perplexity of 'B' (25%)" in caution


def test_a_share_under_a_fifth_is_no_outlier():
    ifd = flat(0.5, 0.5)
    ifd[1, 7] = 0.5 * 9  # 9 of 48 parts
    assert told(reward=flat(1, 1), loss=flat(1, 1), ifd=ifd) == []


def test_a_fair_share_of_a_few_responses_is_no_outlier():
    assert told(reward=flat(1, 1, 3), loss=flat(1, 1, 3), perplexity=flat(2, 2, 3)) == []


def test_every_ifd_above_one_points_at_the_template():
    (caution,) = told(reward=flat(1, 1), loss=flat(1, 1), ifd=flat(1.1, 1.3))
    assert "template looks foreign" in caution
