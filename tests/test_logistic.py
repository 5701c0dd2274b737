"""The penalised regression reaches the optimum that other solvers reach."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from preceptor.benchmarks.alpaca_eval.logistic import (
    choose_strength,
    fit_logistic,
    log_losses,
    sigmoid,
)
from preceptor.errors import StudyError


def regression(rows: int = 120, *, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.normal(size=(rows, 2)), np.ones(rows)])
    targets = rng.random(rows) ** 2
    return features, targets, rng.choice([0.1, 1.0], size=rows)


@pytest.mark.parametrize("strength", [1e-4, 0.05, 1.0, 100.0, 1e4])
def test_the_fit_reaches_the_optimum_that_scipy_reaches(strength):
    features, targets, weights = regression()

    def objective(halves):
        logits = features @ (halves[:3] - halves[3:])
        return halves.sum() + strength * weights @ log_losses(logits, targets)

    # The absolute value is smooth in its positive and negative halves.
    bounds = [(0, None)] * 6
    options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-10}
    best = minimize(objective, np.full(6, 0.1), bounds=bounds, options=options)
    found = fit_logistic(features, targets, weights=weights, strength=strength)
    reached = objective(np.concatenate([np.maximum(found, 0), np.maximum(-found, 0)]))
    assert reached <= best.fun * (1 + 1e-9)
    assert found == pytest.approx(best.x[:3] - best.x[3:], abs=2e-4)


def test_the_fit_is_that_of_scikit_learns_liblinear():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, targets, weights = regression(400)
    # A soft label is two rows with the shares as weights.
    model = linear_model.LogisticRegression(
        l1_ratio=1, C=0.7, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=10_000
    )
    model.fit(
        np.vstack([features, features]),
        np.repeat([1, 0], len(targets)),
        sample_weight=np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    found = fit_logistic(features, targets, weights=weights, strength=0.7)
    assert found == pytest.approx(model.coef_[0], abs=1e-5)


def test_a_strong_penalty_gives_exact_zeros():
    features, targets, weights = regression()
    assert not fit_logistic(features, targets, weights=weights, strength=1e-6).any()


def test_where_it_starts_changes_nothing():
    features, targets, weights = regression()
    one = fit_logistic(features, targets, weights=weights, strength=2.0)
    far = np.array([30.0, -30.0, 30.0])
    other = fit_logistic(features, targets, weights=weights, strength=2.0, start=far)
    assert other == pytest.approx(one, abs=1e-8)


def test_labels_that_separate_perfectly_still_have_an_optimum():
    features = np.column_stack([np.linspace(-1, 1, 20), np.ones(20)])
    targets = (features[:, 0] > 0).astype(float)
    found = fit_logistic(features, targets, weights=np.ones(20), strength=1e4)
    assert np.isfinite(found).all()
    assert np.all((sigmoid(features @ found) > 0.5) == (targets == 1))


def test_a_number_that_is_not_finite_is_refused():
    features, targets, weights = regression()
    features[3, 1] = np.nan
    with pytest.raises(StudyError, match="NaN or infinite"):
        fit_logistic(features, targets, weights=weights, strength=1.0)


def test_the_strength_chosen_has_the_least_held_out_loss():
    features, targets, weights = regression(200)
    strengths = (0.001, 0.1, 10.0)
    losses = []
    for strength in strengths:
        total = 0.0
        for fold in range(5):
            held = np.arange(200) % 5 == fold
            found = fit_logistic(
                features[~held], targets[~held], weights=weights[~held], strength=strength
            )
            total += np.mean(weights[held] * log_losses(features[held] @ found, targets[held]))
        losses.append(total)
    chosen = choose_strength(features, targets, weights=weights, strengths=strengths)
    assert chosen == strengths[int(np.argmin(losses))]


@given(st.floats(-1e4, 1e4))
def test_the_sigmoid_neither_overflows_nor_leaves_its_range(logit):
    low, high = sigmoid(np.array([logit, -logit]))
    assert 0 <= low <= 1
    assert low + high == pytest.approx(1)
