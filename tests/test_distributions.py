"""Distributions count every instruction whatever its value, and categories are rankings in small."""

import numpy as np
import pytest

from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import AverageReward, CompatibilityAdjustedReward, RankSurprisalRatio
from preceptor.report.distributions import BINS, MOST_CATEGORIES, OTHER, by_category, distributions


def common(**values: Array) -> Common:
    n = next(iter(values.values())).shape[1]
    return Common(n, values, {}, ({}, {}), ())


def test_a_spread_counts_every_instruction_and_outliers_stand_in_the_outer_bins():
    loss = np.random.default_rng(0).normal(size=(2, 500))
    loss[0, 0], loss[1, 1] = 1e6, -1e6
    (distribution,) = distributions(common(loss=loss))
    assert distribution.edges.shape == (BINS + 1,)
    assert distribution.counts.shape == (2, BINS)
    assert distribution.counts.sum(axis=1).tolist() == [500, 500]
    assert -5 < distribution.edges[0] < distribution.edges[-1] < 5
    assert distribution.counts[0, -1] >= 1 and distribution.counts[1, 0] >= 1
    # Inside, the bins are those of a plain histogram.
    inside = np.histogram(loss[0], distribution.edges)[0]
    assert distribution.counts[0, 1:-1].tolist() == inside[1:-1].tolist()
    assert distribution.quantiles[0] == pytest.approx(
        np.quantile(loss[0], [0.05, 0.25, 0.5, 0.75, 0.95])
    )


@pytest.mark.parametrize(
    "row", [[0.0, 1.0] * 50, [1.0] * 100, [0.0] * 99 + [1.0], [1e9] * 100, [1e-12] * 100]
)
def test_two_values_a_constant_and_a_single_exception_have_bins_too(row: list[float]):
    (distribution,) = distributions(common(reward=np.array([row, row])))
    assert np.all(np.diff(distribution.edges) > 0)
    assert distribution.counts.sum(axis=1).tolist() == [100, 100]
    assert distribution.edges[0] <= min(row) <= max(row) <= distribution.edges[-1]


def test_measures_come_in_one_order_and_sums_are_divided_by_their_denominators():
    ones = np.ones((2, 4))
    found = distributions(
        Common(4, {"entropy": ones, "loss": 6 * ones, "reward": ones}, {"loss": 3 * ones}, (), ())
    )
    assert [distribution.measure for distribution in found] == ["reward", "loss", "entropy"]
    assert found[1].quantiles.tolist() == [[2.0] * 5] * 2


def test_a_category_holds_the_means_of_its_instructions_and_the_metric_of_them():
    rng = np.random.default_rng(1)
    reward, loss = rng.normal(1, 0.2, (2, 90)), rng.uniform(1, 2, (2, 90))
    names = ["sums", "letters", "sums", None, "letters", "letters", "few", "letters", "sums"] * 10
    first, second, few, other = by_category(
        common(reward=reward, loss=loss, entropy=loss),
        names,
        teachers=("one", "two"),
        metric=CompatibilityAdjustedReward(beta=2),
    )
    assert [(one.name, one.n) for one in (first, second, few, other)] == [
        ("letters", 40),
        ("sums", 30),
        ("few", 10),
        (OTHER, 10),
    ]
    assert set(first.means) == {"one", "two"}
    assert not few.means and not other.means  # below 20 instructions
    places = [place for place, name in enumerate(names) if name == "sums"]
    mine = reward[1, places].mean(), loss[1, places].mean()
    found = second.means["two"]
    assert set(found) == {"reward", "loss", "car"}
    assert found["reward"].value == pytest.approx(mine[0], abs=1e-12)
    assert found["car"].value == pytest.approx(mine[0] / (1 + 2 * mine[1]), abs=1e-12)
    assert found["car"].low < found["car"].value < found["car"].high
    assert found["car"].n == 30


def test_of_many_categories_the_largest_have_names_and_the_rest_is_other():
    names = [f"kind {number:02d}" for number in range(20) for _ in range(20 - number // 2)]
    found = by_category(
        common(reward=np.random.default_rng(0).normal(size=(2, len(names)))),
        names,
        teachers=("one", "two"),
        metric=AverageReward(),
    )
    assert [one.name for one in found] == [f"kind {n:02d}" for n in range(MOST_CATEGORIES)] + [
        OTHER
    ]
    assert sum(one.n for one in found) == len(names)


@pytest.mark.parametrize("names", [[None] * 4, ["sums"] * 4, list("abcd")])
def test_one_category_alone_is_no_table(names: list[str | None]):
    given = common(reward=np.ones((2, 4)))
    assert not by_category(given, names, teachers=("one", "two"), metric=AverageReward())


def test_a_metric_that_is_not_finite_in_a_category_is_left_out_there():
    values = {"token_rank": np.ones((2, 40)), "loss": np.array([[0.0] * 20 + [1.0] * 20] * 2)}
    twice, other = by_category(
        common(**values),
        ["sums"] * 20 + [None] * 20,
        teachers=("one", "two"),
        metric=RankSurprisalRatio(),
    )
    assert set(twice.means["one"]) == {"token_rank", "loss"}
    estimate = other.means["one"]["rsr"]
    assert (estimate.value, estimate.n) == (1.0, 20)
