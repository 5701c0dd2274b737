"""The case study's page says what its orders give, and its p is that of the strongest among all orders."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from preceptor.agreement.compare import compare
from preceptor.agreement.table import AgreementTable
from preceptor.studies import average_performance
from preceptor.studies.study import study

ROOT = Path(__file__).parents[1]


def test_the_adjusted_p_of_the_page_is_that_of_the_strongest_metric_among_all_orders():
    predictions = study("xu2024").predictions
    comparison = compare(predictions, average_performance())
    table = AgreementTable(comparison, draws=2000, seed=0)
    observed = np.mean([rankdata(row) for row in comparison.observed], axis=0) - 5
    orders = np.array(list(permutations(range(9))), np.int8)
    strongest = np.zeros(len(orders))
    tested = [one for one in comparison.columns if not one.baseline]
    for column in tested:
        # The same order for every student here; rho of ranks 1 to 9 is their product over 60.
        order = rankdata(column.predicted[0]) - 5
        by_chance = sum(order[orders[:, place]] * observed[place] for place in range(9)) / 60
        strongest = np.maximum(strongest, np.abs(by_chance))
    found = {}
    for mean in table.means:
        if mean.column in {one.title for one in tested}:
            exact = float((strongest >= abs(mean.rho) - 1e-9).mean())
            assert mean.permutation.adjusted == pytest.approx(exact, abs=0.02)
            found[mean.column] = (round(mean.rho, 3), round(exact, 3))
    assert found["information (gemma-3-270m)"] == (0.803, 0.012)
    assert found["information (smollm2)"] == (0.823, 0.007)
    page = (ROOT / "docs" / "explanation" / "case-study.md").read_text("utf-8")
    assert "| **0.803** | [-0.13, 0.98] | 0.002 | **0.012** |" in page
    assert "| **0.823** | [0.04, 0.98] | 0.001 | **0.007** |" in page
