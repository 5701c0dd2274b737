"""Logistic regression with an L1 penalty and soft labels: what length control fits.

With a handful of features the exact optimum is cheap. Newton's quadratic model of the
loss plus the penalty is minimised exactly, first by guessing which coefficients are zero, else one
coordinate at a time; a line search keeps every step downhill (proximal Newton, Lee, Sun & Saunders
2014). The objective is that of liblinear (Fan et al. 2008, L1-regularised logistic regression).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError

Array = NDArray[np.float64]

_STEPS = 200
_SWEEPS = 20_000
_HALVINGS = 50

_TOLERANCE = 1e-6
"""Steps shorter than this share of the coefficients are the last; Newton's error is then its square."""


def sigmoid(logits: Array) -> Array:
    """Return the probability of each logit, without overflow at either end."""
    small = np.exp(-np.abs(logits))
    result: Array = np.where(logits >= 0, 1, small) / (1 + small)
    return result


def log_losses(logits: Array, targets: Array) -> Array:
    """Return each row's cross-entropy in nats; lower is better, and a target is a share in 0..1."""
    small = np.exp(-np.abs(logits))
    losses: Array = np.maximum(logits, 0) + np.log1p(small) - targets * logits
    return losses


def fit_logistic(
    features: Array,
    targets: Array,
    *,
    weights: Array,
    strength: float,
    start: Array | None = None,
) -> Array:
    """Return the coefficients that minimise `sum |b| + strength * sum(weights * log loss)`.

    A soft target y is the same as two rows with labels 1 and 0 and weights y and 1 - y. There is no
    intercept: give a column of ones, which is then penalised like the others.

    Args:
        features: shape (rows, features), finite, few features.
        targets: shape (rows,), each in 0..1.
        weights: shape (rows,), at least 0.
        strength: liblinear's C; larger means less penalty.
        start: coefficients to begin from, which changes the time taken and not the result.

    Returns:
        Shape (features,); exact zeros where the penalty holds a coefficient there.

    Raises:
        StudyError: if a number is not finite, or no optimum is reached.
    """
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise StudyError(
            "The regression got features or targets that are NaN or infinite: expected finite "
            "numbers. Drop rows without data first."
        )
    problem = _Problem(features, targets, strength * weights)
    found = np.zeros(features.shape[1]) if start is None else start
    value = problem.objective(found)
    for _ in range(_STEPS):
        gradient, curvature = problem.slopes(found)
        aim = _penalised_minimum(curvature, gradient - curvature @ found, guess=found)
        if np.max(np.abs(aim - found)) <= _TOLERANCE * (1 + np.max(np.abs(found))):
            return aim
        found, value = problem.step(found, aim, gradient=gradient, value=value)
    raise StudyError(
        f"The regression over {len(targets)} rows did not settle in {_STEPS} steps. "
        "Check the lengths and preferences for extreme values."
    )


class _Problem(NamedTuple):
    """What is minimised: `sum |b| + sum(weights * log loss)`."""

    features: Array
    targets: Array
    weights: Array

    def objective(self, point: Array) -> float:
        losses = log_losses(self.features @ point, self.targets)
        return float(np.abs(point).sum() + self.weights @ losses)

    def slopes(self, point: Array) -> tuple[Array, Array]:
        """Return the gradient and the curvature of the loss, without the penalty."""
        chances = sigmoid(self.features @ point)
        gradient: Array = self.features.T @ (self.weights * (chances - self.targets))
        bends = self.weights * chances * (1 - chances)
        curvature: Array = (self.features * bends[:, None]).T @ self.features
        # Rows that are all but certain have no curvature left; the floor keeps the model bounded.
        curvature.flat[:: len(point) + 1] += 1e-12 * (1 + curvature.trace())
        return gradient, curvature

    def step(
        self, here: Array, there: Array, *, gradient: Array, value: float
    ) -> tuple[Array, float]:
        """Return the first point of ever shorter steps that lowers the objective, and its value."""
        move = there - here
        promised = float(gradient @ move + np.abs(there).sum() - np.abs(here).sum())
        share = 1.0
        for _ in range(_HALVINGS):
            point = here + share * move
            now = self.objective(point)
            # Close to the optimum the promise drowns in rounding, which must not stop the last step.
            if now <= value + 1e-4 * share * promised + 1e-13 * abs(value):
                break
            share /= 2
        return point, now


def _penalised_minimum(curvature: Array, linear: Array, *, guess: Array) -> Array:
    """Return the u that minimises `u'Hu / 2 + linear'u + sum |u|`.

    Where the signs of `guess` are those of the solution, one linear system gives it.
    """
    signs = np.sign(guess)
    active = signs != 0
    tried = np.zeros(len(guess))
    tried[active] = np.linalg.solve(curvature[active][:, active], -(linear + signs)[active])
    pull = np.abs(curvature @ tried + linear)
    if np.array_equal(np.sign(tried), signs) and np.all(pull[~active] <= 1):
        return tried
    return _by_coordinates(curvature.tolist(), linear.tolist(), guess.tolist())


def _by_coordinates(
    curvature: Sequence[Sequence[float]], linear: Sequence[float], values: list[float]
) -> Array:
    """Minimise the same one coordinate at a time until none moves (Friedman et al. 2010)."""
    for _ in range(_SWEEPS):
        moved = 0.0
        for place, row in enumerate(curvature):
            rest = linear[place] + sum(map(float.__mul__, row, values)) - row[place] * values[place]
            shrunk = max(abs(rest) - 1, 0.0) / row[place]
            new = -shrunk if rest > 0 else shrunk
            moved = max(moved, abs(new - values[place]))
            values[place] = new
        if moved <= 1e-14 * (1 + max(map(abs, values))):
            break
    return np.array(values)


def choose_strength(
    features: Array, targets: Array, *, weights: Array, strengths: Sequence[float], folds: int = 5
) -> float:
    """Return the strength with the least held-out log loss; of equals the smallest.

    Row i is held out in fold i modulo `folds`: the folds that scikit-learn's GroupKFold forms of
    rows that stand in two copies each. The loss of a fold is the mean of weight times log loss.

    Args:
        features: shape (rows, features).
        targets: shape (rows,), each in 0..1.
        weights: shape (rows,), at least 0; they weigh the fit and the held-out loss.
        strengths: those to try, in ascending order.
        folds: how many parts.

    Raises:
        StudyError: as `fit_logistic`.
    """
    fold = np.arange(len(targets)) % folds
    losses = np.zeros(len(strengths))
    for part in range(folds):
        kept, held = fold != part, fold == part
        found = None
        for place, strength in enumerate(strengths):
            found = fit_logistic(
                features[kept],
                targets[kept],
                weights=weights[kept],
                strength=strength,
                start=found,
            )
            held_losses = log_losses(features[held] @ found, targets[held])
            losses[place] += np.mean(weights[held] * held_losses)
    return float(strengths[int(np.argmin(losses))])
