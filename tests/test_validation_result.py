"""What may be concluded from few teachers, and how a validation's result is written."""

import math

import numpy as np
import pytest

from preceptor.benchmarks.observed import WinRate
from preceptor.ranking.metrics import AverageReward
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, Ranking, rank
from preceptor.validation.result import (
    AnswerFigures,
    FinetunedFigures,
    ValidationResult,
    agreement_of,
    conclusion,
)

NAMES = ("a", "b", "c", "d", "e", "f", "g")
OPTIONS = RankingOptions(n_resamples=200)


def ranking(values: list[float], *, measure: str = "reward", student: str = "s") -> Ranking:
    """Return a ranking of as many teachers by these means, over 40 instructions."""
    noise = np.random.default_rng(1).normal(scale=0.01, size=(len(values), 40))
    noise -= noise.mean(axis=1, keepdims=True)
    metric = AverageReward() if measure == "reward" else WinRate()
    return rank(
        Measurements(
            teachers=NAMES[: len(values)],
            instructions=40,
            values={measure: np.array(values)[:, None] + noise},
        ),
        student=student,
        metrics=[metric],
        options=OPTIONS,
    )


def result(predicted: list[float], observed: list[float]) -> ValidationResult:
    made, seen = ranking(predicted), ranking(observed, measure="win")
    figures = AnswerFigures(40, 1.0, 12.0, 50.0)
    return ValidationResult(
        (made,),
        (seen,),
        tuple(
            FinetunedFigures("s", name, 1, "0", 8, {}, 4, 2.0, 1.0, figures)
            for name in NAMES[: len(observed)]
        ),
        agreement=agreement_of([made], [seen], draws=200, seed=0),
    )


UP = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_seven_teachers_in_the_same_order_make_a_prediction_hold():
    (said,) = result(UP, UP).sentences()
    assert "s: reward put g first, and so it came (observed first: g, P(first) 1.00)." in said
    assert "rests on one run per teacher" in said and "standard deviation of 0.42." in said
    assert said.endswith("7 teachers: the prediction held.")


def test_seven_teachers_in_the_opposite_order_make_it_fail():
    (said,) = result(UP, UP[::-1]).sentences()
    assert "which came 7 of 7" in said
    assert said.endswith("the prediction failed, the order came out the other way round.")


def test_four_teachers_in_the_same_order_prove_nothing_and_it_says_so():
    (said,) = result(UP[:4], UP[:4]).sentences()
    # Two of the 24 orders of four agree or disagree wholly.
    assert f"p {2 / math.factorial(4):.3f}" in said
    assert "neither confirms nor refutes" in said
    assert "4 teachers never could" in said


def test_an_order_that_chance_explains_proves_nothing():
    (said,) = result(UP, [0.4, 0.1, 0.5, 0.2, 0.7, 0.3, 0.6]).sentences()
    assert said.endswith("this neither confirms nor refutes the prediction.")


def test_an_order_of_ties_has_no_agreement():
    (said,) = result(UP, [0.5] * 7).sentences()
    assert "all ties" in said


def test_two_teachers_have_no_agreement():
    found = result(UP[:2], UP[:2])
    assert found.agreement is None
    assert found.to_dict()["agreement"] is None


def test_seven_teachers_have_no_interval_and_relatives_among_them_prove_nothing():
    table = result(UP, [0.1, 0.3, 0.2, 0.4, 0.6, 0.5, 0.7]).agreement
    assert table is not None
    (cell,) = table.cells[0]
    # Two swapped neighbours: 1 - 6 * 4 / (7 * 48) (Spearman 1904).
    assert cell.rho == pytest.approx(1 - 6 * 4 / (7 * 48))
    assert math.isnan(cell.ends.low)
    said = conclusion(cell, 7, related=False)
    assert "(no interval below 8 teachers)" in said
    assert said.endswith("the prediction held.")
    assert "neither confirms nor refutes" in conclusion(cell, 7, related=True)


def test_records_hold_a_row_for_each_teacher_with_its_interval_and_how_it_answered():
    rows = result(UP, UP).observed_records()
    assert [row["teacher"] for row in rows] == list(reversed(NAMES))
    assert rows[0]["AP"] == pytest.approx(70.0)
    assert rows[0]["AP_low"] <= rows[0]["AP"] <= rows[0]["AP_high"]
    assert (rows[0]["measure"], rows[0]["ended"], rows[0]["n"]) == ("win_rate", 1.0, 40)
