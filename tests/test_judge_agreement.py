"""What a judge is worth: accuracy, kappa and rho against a trusted judge, with intervals over questions."""

import math

import numpy as np
import pytest

from preceptor.benchmarks.judge_agreement import (
    Verdict,
    accuracy,
    cohens_kappa,
    in_words,
    judge_agreement,
    longer_wins,
)
from preceptor.errors import StudyError


def test_kappa_is_that_of_a_textbook_table():
    # Both yes 20, first only 5, second only 10, both no 15: p = 0.7, e = 0.5, kappa = 0.4
    # (the worked example of Cohen's kappa in Fleiss' layout, n = 50).
    trusted = np.array([1.0] * 25 + [0.0] * 25)
    judged = np.array([1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15)
    assert accuracy(trusted, judged) == pytest.approx(0.7)
    assert cohens_kappa(trusted, judged) == pytest.approx(0.4)


def test_kappa_equals_scikit_learns_on_random_verdicts():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    trusted, judged = rng.random((2, 300))
    expected = metrics.cohen_kappa_score(trusted > 0.5, judged > 0.5)
    assert cohens_kappa(trusted, judged) == pytest.approx(expected, abs=1e-12)
    weights = rng.integers(0, 4, size=300)
    expected = metrics.cohen_kappa_score(trusted > 0.5, judged > 0.5, sample_weight=weights)
    assert cohens_kappa(trusted, judged, weights.astype(float)) == pytest.approx(expected)


def test_a_judge_that_always_names_one_side_is_often_right_and_worth_nothing():
    trusted = np.array([0.0] * 9 + [1.0])
    assert accuracy(trusted, np.zeros(10)) == pytest.approx(0.9)
    assert cohens_kappa(trusted, np.zeros(10)) == pytest.approx(0.0)


def test_a_judges_tie_is_half_right_and_a_trusted_tie_is_left_out():
    assert accuracy(np.array([1.0, 0.5, 0.2]), np.array([0.5, 0.9, 0.1])) == pytest.approx(0.75)
    assert math.isnan(accuracy(np.array([0.5]), np.array([1.0])))


@pytest.mark.parametrize(
    ("kappa", "word"),
    [
        (-0.1, "poor"),
        (0.0, "slight"),
        (0.2, "slight"),
        (0.21, "fair"),
        (0.41, "moderate"),
        (0.61, "substantial"),
        (0.81, "almost perfect"),
        (1.0, "almost perfect"),
        (math.nan, "undefined"),
    ],
)
def test_words_are_landis_and_kochs(kappa, word):
    assert in_words(kappa) == word  # Landis & Koch 1977, Biometrics 33, p. 165


def random_verdicts(noise: float, *, models: int = 4, questions: int = 80) -> list[Verdict]:
    rng = np.random.default_rng(5)
    found = []
    for model in range(models):
        for question in range(questions):
            trusted = float(rng.random() < 0.2 + 0.15 * model)
            judged = trusted if rng.random() > noise else 1 - trusted
            found.append(Verdict(f"m{model}", f"q{question}", trusted, judged))
    return found


def test_a_noisy_judge_lies_within_its_interval_and_a_faithful_one_is_perfect():
    faithful = judge_agreement(random_verdicts(0.0), draws=200)
    assert (faithful.accuracy.value, faithful.kappa.value) == (1.0, 1.0)
    assert faithful.spearman is not None and faithful.spearman.value == pytest.approx(1.0)
    noisy = judge_agreement(random_verdicts(0.3), draws=200)
    assert noisy.accuracy.low < 0.7 < noisy.accuracy.high
    assert noisy.kappa.low < noisy.kappa.value < noisy.kappa.high < 1
    assert (noisy.n, noisy.questions, noisy.models) == (320, 80, 4)


def test_intervals_resample_questions_with_all_their_comparisons():
    # The same verdict of four models on each question: four times the rows, not four times the evidence.
    rng = np.random.default_rng(0)
    once = [Verdict("a", f"q{n}", float(rng.random() < 0.5), float(n % 2)) for n in range(60)]
    four = [one._replace(model=model) for model in "abcd" for one in once]
    one, many = judge_agreement(once, draws=300), judge_agreement(four, draws=300)
    assert many.accuracy.low == pytest.approx(one.accuracy.low)
    assert many.accuracy.high == pytest.approx(one.accuracy.high)


def test_without_a_decided_contest_there_is_nothing_to_agree_with():
    with pytest.raises(StudyError, match="decided"):
        judge_agreement([Verdict("m", "q", 0.5, 1.0)])


def test_below_three_models_there_is_no_rho():
    assert judge_agreement(random_verdicts(0.1, models=2), draws=20).spearman is None


def test_the_floor_looks_at_length_alone():
    assert [longer_wins("aaa", "b"), longer_wins("a", "bb"), longer_wins("a", "b")] == [
        1.0,
        0.0,
        0.5,
    ]
