"""The bootstrap agrees with theory and with scipy, pairs its draws, splits ties and refuses NaN."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preceptor.errors import StudyError
from preceptor.ranking import bootstrap as stats
from preceptor.ranking.bootstrap import (
    beat_probabilities,
    bootstrap_means,
    compare_orders,
    percentile_interval,
    rank_probabilities,
    ranks,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_interval_of_a_mean_agrees_with_the_t_interval_on_a_big_sample():
    values = generator(1).exponential(size=(1, 5000))
    low, high = percentile_interval(bootstrap_means(values, draws=4000, rng=generator()))
    error = values.std(ddof=1) / np.sqrt(5000)
    expected = scipy.stats.t.interval(0.95, df=4999, loc=values.mean(), scale=error)
    assert high[0] - low[0] == pytest.approx(expected[1] - expected[0], rel=0.05)
    assert (low[0], high[0]) == pytest.approx(expected, abs=0.15 * error)


def test_interval_of_a_mean_agrees_with_scipy_on_a_small_sample():
    values = generator(2).gamma(2.0, size=(1, 25))
    low, high = percentile_interval(bootstrap_means(values, draws=20_000, rng=generator()))
    expected = scipy.stats.bootstrap(
        (values[0],), np.mean, n_resamples=20_000, method="percentile", rng=generator(3)
    ).confidence_interval
    width = expected.high - expected.low
    assert low[0] == pytest.approx(expected.low, abs=0.03 * width)
    assert high[0] == pytest.approx(expected.high, abs=0.03 * width)


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    # The standard error of 200 intervals of true coverage 0.95 is 0.015 (binomial); fixed seed.
    samples = generator(4).normal(size=(200, 100))
    low, high = percentile_interval(bootstrap_means(samples, draws=1000, rng=generator()))
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_draws_scatter_like_the_standard_error():
    values = generator(5).normal(size=(3, 400))
    draws = bootstrap_means(values, draws=4000, rng=generator())
    assert draws.shape == (4000, 3)
    assert draws.std(axis=0) == pytest.approx(values.std(axis=1) / 20, rel=0.05)


def test_columns_share_their_draws_so_that_differences_are_paired():
    first = generator(6).normal(size=300)
    draws = bootstrap_means(np.stack([first, first + 0.5, -first]), draws=200, rng=generator())
    assert draws[:, 1] - draws[:, 0] == pytest.approx(np.full(200, 0.5))
    assert draws[:, 2] == pytest.approx(-draws[:, 0])


def test_one_seed_gives_the_same_bytes_and_another_does_not():
    values = generator(7).normal(size=(4, 50))
    one, again = (bootstrap_means(values, draws=100, rng=generator(8)) for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != bootstrap_means(values, draws=100, rng=generator(9)).tobytes()


def test_each_mean_is_the_correctly_rounded_mean_of_its_draw():
    # math.fsum adds without rounding, so it is the truth for the same picks of the same stream.
    values = generator(10).lognormal(sigma=3, size=(3, 200)) * np.array([[1e-9], [-1.0], [1e12]])
    draws = bootstrap_means(values, draws=50, rng=generator())
    picks = generator().integers(200, size=(50, 200))
    expected = [[math.fsum(column[pick]) / 200 for column in values] for pick in picks]
    assert draws.tolist() == expected


def test_chunks_and_the_place_of_a_column_do_not_change_a_byte(monkeypatch):
    values = generator(11).normal(size=(19, 997))
    whole = bootstrap_means(values, draws=101, rng=generator())
    backwards = bootstrap_means(values[::-1], draws=101, rng=generator())
    assert np.array_equal(backwards[:, ::-1], whole)
    monkeypatch.setattr(stats, "CHUNK", 997 * 7)
    assert np.array_equal(bootstrap_means(values, draws=101, rng=generator()), whole)


@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-150, 1e150])
def test_values_of_any_size_are_averaged(scale):
    draws = bootstrap_means(np.full((1, 30), scale), draws=10, rng=generator())
    assert draws == pytest.approx(np.full((10, 1), scale), rel=1e-12)


def test_constant_column_has_no_spread():
    draws = bootstrap_means(np.full((1, 30), 2.0), draws=100, rng=generator())
    assert np.array_equal(draws, np.full((100, 1), 2.0))


def test_nothing_to_resample_is_refused():
    with pytest.raises(StudyError, match="at least one instruction"):
        bootstrap_means(np.empty((2, 0)), rng=generator())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_everywhere(bad):
    array = np.array([[1.0, 2.0], [bad, 3.0]])
    for refuses in (
        lambda: bootstrap_means(array, rng=generator()),
        lambda: percentile_interval(array),
        lambda: rank_probabilities(array),
        lambda: beat_probabilities(array, 0),
        lambda: ranks(array[1]),
        lambda: compare_orders(array[0], array[1]),
    ):
        with pytest.raises(StudyError, match="NaN or infinite"):
            refuses()


def test_rank_probabilities_count_the_draws():
    draws = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0]])
    expected = [[0.75, 0.0, 0.25], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]]
    assert np.array_equal(rank_probabilities(draws), expected)


def test_a_tie_shares_its_ranks_equally():
    draws = np.array([[2.0, 2.0, 1.0], [1.0, 2.0, 2.0]])
    expected = [[0.25, 0.25, 0.5], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
    assert np.array_equal(rank_probabilities(draws), expected)


def test_a_difference_below_rounding_is_a_tie():
    draws = np.array([[0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]])
    assert np.array_equal(rank_probabilities(draws), np.full((2, 2), 0.5))
    assert beat_probabilities(draws[:1], 0)[1] == 0.5
    assert ranks(draws[0]).tolist() == [1, 1]


def test_tiny_scores_are_not_tied_merely_for_being_tiny():
    assert ranks(np.array([1e-20, 2e-20, 1e9])).tolist() == [3, 2, 1]


@given(arrays(np.float64, (7, 4), elements=st.sampled_from([-1.0, 0.0, 0.5, 1e9])))
def test_rank_probabilities_sum_to_one_over_ranks_and_over_teachers(draws):
    probabilities = rank_probabilities(draws)
    assert probabilities.sum(axis=0) == pytest.approx(np.ones(4))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4))


@given(arrays(np.float64, (6, 4), elements=st.integers(-3, 3).map(float)))
def test_rank_probabilities_agree_with_scipy_ranks(draws):
    # The mean position of a teacher is the mean of its average ranks (scipy.stats.rankdata).
    expected = scipy.stats.rankdata(-draws, method="average", axis=1).mean(axis=0)
    assert rank_probabilities(draws) @ np.arange(1, 5) == pytest.approx(expected)


@given(arrays(np.float64, 5, elements=st.integers(-3, 3).map(float)))
def test_ranks_agree_with_scipy_ranks(scores):
    assert ranks(scores).tolist() == scipy.stats.rankdata(-scores, method="min").tolist()


def test_one_teacher_is_best_for_sure():
    assert rank_probabilities(np.ones((3, 1))).tolist() == [[1.0]]


def test_beat_probabilities_count_wins_and_half_ties():
    draws = np.array([[2.0, 1.0, 2.0], [2.0, 3.0, 1.0]])
    assert beat_probabilities(draws, 0).tolist() == [0.5, 0.5, 0.75]


def test_orders_are_compared_by_winner_whole_order_and_swapped_pairs():
    scores = np.array([3.0, 2.0, 1.0])
    assert compare_orders(scores, 10 * scores) == (True, True, 0)
    assert compare_orders(scores, np.array([3.0, 1.0, 2.0])) == (True, False, 1)
    assert compare_orders(scores, -scores) == (False, False, 3)


def test_a_new_tie_changes_the_order_but_swaps_no_pair():
    assert compare_orders(np.array([3.0, 2.0]), np.array([2.0, 2.0])) == (False, False, 0)


@given(
    arrays(np.float64, 6, elements=st.floats(-10, 10), unique=True),
    arrays(np.float64, 6, elements=st.floats(-10, 10), unique=True),
)
def test_swapped_pairs_agree_with_kendalls_tau(one, other):
    if len({*ranks(one)}) < 6 or len({*ranks(other)}) < 6:
        return  # distinct floats nearer than rounding count as ties here, not in scipy
    tau = scipy.stats.kendalltau(one, other).statistic
    assert compare_orders(one, other).swapped_pairs == pytest.approx(15 * (1 - tau) / 2)
