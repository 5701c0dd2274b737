"""Failures cost what the lowest reward is, and scores that are missing for one teacher are told."""

from dataclasses import replace

import numpy as np
import pytest

from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, rank
from preceptor.ranking.table import footnotes

QUICK = RankingOptions(n_resamples=200)


def failing(share: float, n: int = 40) -> Measurements:
    """Return A with 0.8 where it answers, which fails the first prompts; B has 0.7, and 2.7 on those."""
    reward = np.array([[1.0, 0.6] * (n // 2), [0.2, 1.2] * (n // 2)])
    failed = np.zeros((2, n))
    failed[0, : round(share * n)] = 1
    reward[1] += 2 * failed[0]
    reward[failed == 1] = np.nan
    loss = np.where(np.isnan(reward), np.nan, [[1.0], [2.0]])
    loss[1, 0] = 12.0
    return Measurements(("A", "B"), n, {"reward": reward, "loss": loss}, failed=failed)


def test_failures_cost_what_the_lowest_reward_is_and_rivals_keep_what_they_earn_there():
    found = rank(failing(0.25), student="S", by="reward", options=QUICK)
    (variant,) = (v for v in found.stability.variants if v.name == "failures at the lowest reward")
    # A: (30 x 0.8 + 10 x 0.2) / 40. B: (40 x 0.7 + 10 x 2) / 40, although 10 of them are compared for nobody.
    assert variant.values == {"A": pytest.approx(0.65), "B": pytest.approx(1.2)}
    assert (found.best.teacher, found.best.n, variant.winners) == ("A", 30, ("B",))
    assert "winner-changes" in [reason.code for reason in found.verdict().reasons]
    assert "reward on all prompts asked, failures at the lowest reward: B 1.200, A 0.650." in (
        footnotes(found)
    )


def test_a_loss_is_that_of_the_answers_there_are():
    by_car = rank(failing(0.25), student="S", by="car", options=QUICK).stability
    (variant,) = (v for v in by_car.variants if v.name == "failures at the lowest reward")
    # B's loss is 2 but once 12, on a prompt that A failed: 2.25 over 40 prompts. A's is 1 over 30.
    assert variant.values == {"A": pytest.approx(0.65 / 4), "B": pytest.approx(1.2 / 7.75)}


def test_one_failed_sample_of_two_costs_half_a_failure():
    one = failing(0.25)
    half = replace(one, failed=one.failed / 2, values={"reward": np.ones((2, 40)) * [[0.8], [0.2]]})
    found = rank(half, student="S", options=QUICK).stability
    (variant,) = (v for v in found.variants if v.name == "failures at the lowest reward")
    assert variant.values == {"A": pytest.approx(0.8 - 0.125 * 0.6), "B": pytest.approx(0.2)}


@pytest.mark.parametrize(("share", "warned"), [(0.02, False), (0.04, True)])
def test_more_than_two_failures_in_a_hundred_are_warned_of(share, warned):
    found = rank(failing(share, 50), student="S", by="reward", options=QUICK)
    assert ("failures" in [one.code for one in found.warnings]) == warned


@pytest.mark.parametrize(
    ("missing", "told"),
    [({}, []), ({"B": 1}, []), ({"B": 2}, ["missing-scores"]), ({"A": 2, "B": 2}, [])],
)
def test_rewards_that_one_teacher_lacks_on_more_than_2_in_100_prompts_cap_the_verdict(
    missing, told
):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 50)) + np.array([[3.0], [0.0]])
    for name, count in missing.items():
        rewards["AB".index(name), :count] = np.nan
    table = Measurements(("A", "B"), 50, {"reward": rewards, "length": np.ones((2, 50))})
    found = rank(table, student="S", by="reward", options=QUICK)
    assert [one.code for one in found.warnings if one.code == "missing-scores"] == told
    assert [reason.code for reason in found.verdict().reasons] == told
    # Where one of two samples alone lacks a reward, the other stands for both.
    half = replace(table, values={"reward": np.nan_to_num(rewards)}, unscored=np.full((2, 50), 0.5))
    assert "missing-scores" not in [one.code for one in rank(half, student="S").warnings]
    if told:
        assert "'B' 4.0%" in next(one.text for one in found.warnings if one.code in told)
