"""Distributions count every instruction whatever its value."""

import numpy as np
import pytest

from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common
from preceptor.report.distributions import BINS, distributions


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
