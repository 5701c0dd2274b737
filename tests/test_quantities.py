"""Intervals end where values can be, and are told to be rough where they have no width."""

import numpy as np
import pytest
import scipy.stats

from preceptor.ranking.metrics import Array, AverageLength
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, Ranking, rank
from preceptor.ranking.verdict import Claim

LABELS = ("A", "B")


def ranked(by: str = "reward", **values: Array) -> Ranking:
    n = next(iter(values.values())).shape[1]
    options = RankingOptions(n_resamples=400)
    return rank(Measurements(LABELS, n, values), student="S", by=by, options=options)


def shares(n: int) -> Array:
    """Return shares of constraints kept: A nearly always all, B nearly always none."""
    rng = np.random.default_rng(0)
    few = rng.choice([0.1, 0.2, 0.3, 0.4], size=n) * (rng.random(n) < 0.1)
    return np.stack([1 - few, few])


def test_the_interval_of_a_mean_share_ends_at_0_and_1():
    rewards = shares(6)
    rewards[:, 0] = (0.1, 0.9)
    found = ranked(reward=rewards, loss=np.ones((2, 6)) * [[0.5], [0.4]])
    error = rewards[0].std(ddof=1) / np.sqrt(6)
    # Student's own interval leaves 0..1 on either side.
    assert scipy.stats.t.interval(0.95, 5, rewards[0].mean(), error)[1] > 1
    for result in found:
        for name in ("reward", "car"):
            estimate = result.estimates[name]
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert found["A"].estimates["reward"].high > 0.95


def test_rewards_that_are_no_shares_have_no_such_ends():
    found = ranked(reward=np.random.default_rng(1).normal(0.5, 2, size=(2, 6)))
    assert min(one.estimates["reward"].low for one in found) < 0
    assert max(one.estimates["reward"].high for one in found) > 1


@pytest.mark.parametrize(("name", "least"), [("loss", 0), ("perplexity", 1)])
def test_a_loss_ends_at_0_and_a_perplexity_at_1(name, least):
    values = least + np.array([[0.01] * 5 + [3.0], [0.9] * 3 + [1.0] * 3])
    found = ranked(name, **{name: values})
    assert found["A"].estimates[name].low == least
    assert least < found["B"].estimates[name].high < np.inf


def test_a_length_of_two_values_is_no_proportion():
    # 2 tokens everywhere but three times: Wilson's interval of a proportion says nothing about lengths.
    found = ranked("length", length=np.array([[4.0] * 37 + [2.0] * 3, [2.0] * 40]))
    assert found["B"].estimates["length"].low == found["B"].estimates["length"].high == 2
    assert found["B"].discordant is None


@pytest.mark.parametrize("constant", [0, 1])
def test_an_interval_without_width_is_rough_and_names_nobody(constant):
    rewards = np.random.default_rng(2).normal(5, 0.5, size=(2, 60))
    rewards[constant] = (6.0, 3.0)[constant]
    rewards[1] -= 2 * (constant == 0)
    found = ranked(reward=rewards)
    (warning,) = (one for one in found.warnings if one.code == "rough-interval")
    assert (warning.teachers, "Every response gives the same reward" in warning.text) == (
        (LABELS[constant],),
        True,
    )
    assert found.verdict().claim is Claim.LEADS_SO_FAR


def test_right_throughout_is_no_interval_without_width():
    found = ranked(reward=np.stack([np.ones(60), np.zeros(60)]))
    assert found["A"].estimates["reward"].low == pytest.approx(0.94, abs=0.005)
    assert "rough-interval" not in [one.code for one in found.warnings]


def test_a_regret_of_nothing_has_no_sign():
    found = ranked(reward=np.stack([np.ones(60), np.zeros(60)]))
    assert str(found.evidence.regret) == "0.0"


def test_metrics_of_ones_own_are_left_as_they_are():
    class Squared:
        kind, needs, higher_is_better = "squared", ("reward",), True

        def __call__(self, reward: Array) -> Array:
            return (reward - 0.5) ** 2

    n = 40
    found = rank(
        Measurements(LABELS, n, {"reward": shares(n)}),
        student="S",
        metrics=[Squared()],
        options=RankingOptions(n_resamples=200),
    )
    for result in found:
        estimate = result.estimates["squared"]
        assert estimate.low < estimate.value < estimate.high


def test_directions_turn_the_ends_round():
    lengths = np.array([[1.0] * 30 + [400.0], [9.0] * 31])
    found = rank(
        Measurements(LABELS, 31, {"length": lengths}),
        student="S",
        metrics=[AverageLength()],
        options=RankingOptions(n_resamples=200),
    )
    assert all(one.estimates["length"].low >= 0 for one in found)
