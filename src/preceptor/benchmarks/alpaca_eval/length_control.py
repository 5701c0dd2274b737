"""Length control: what the win rate would be if the answers were as long as the baseline's.

A logistic regression explains each verdict by the difference in length, by how hard the
instruction is for everybody (gamma) and by the model itself; then the length term is set to zero
(Dubois et al. 2024, arXiv 2404.04475). Verdicts on two gamed baselines, one asked to be verbose and one
to be concise, keep the coefficients of length and gamma where the length alone explains a verdict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.alpaca_eval.logistic import choose_strength, fit_logistic, sigmoid
from preceptor.errors import StudyError

Array = NDArray[np.float64]
Counts = NDArray[np.intp]

GAMED_WEIGHT = 0.1
"""Weight of a calibration row: 0.2, shared by two gamed baselines."""

STRENGTHS = tuple(float(strength) for strength in np.logspace(-4, 4, 10))
"""The strengths tried by cross-validation, as published."""


@dataclass(frozen=True)
class Calibration:
    """What length control needs besides a model's verdicts, the same for every model.

    `difficulty` is gamma by instruction, under its text and under its position in the benchmark's
    list. `terms` has shape (rows, 2): length term and gamma of each gamed row; `wins` has shape
    (rows,), each in 0..1.
    """

    difficulty: Mapping[str | int, float]
    terms: Array
    wins: Array


@dataclass(frozen=True)
class JudgedLengths:
    """One model's verdicts with what explains them, four arrays of shape (instructions,).

    `wins` are in 0..1 with 1 for the model, lengths are in characters, and `difficulty` is gamma,
    aligned by instruction.
    """

    wins: Array
    lengths: Array
    baseline_lengths: Array
    difficulty: Array


class LengthWeights(NamedTuple):
    """The regression's coefficients: of the length term, of gamma, and of the model itself."""

    length: float
    difficulty: float
    model: float


class LengthControl(NamedTuple):
    """A fitted length control: the rate in percent, its coefficients, and the strength chosen."""

    rate: float
    weights: LengthWeights
    strength: float


def length_terms(lengths: Array, baseline_lengths: Array, counts: Counts | None = None) -> Array:
    """Return `tanh(d / sd(d))` of the differences d = baseline less model, ddof 1.

    Positive where the baseline's answer is the longer; zero where all are of equal length.

    Args:
        lengths: of the model's answers in characters, shape (instructions,).
        baseline_lengths: likewise of the baseline's.
        counts: how often each row counts in the spread; once each if None.

    Raises:
        StudyError: if the differences are all the same and not zero, so that they have no spread.
    """
    differences = baseline_lengths - lengths
    if not differences.any():
        return np.zeros_like(differences)
    repeated = differences if counts is None else np.repeat(differences, counts)
    spread = float(np.std(repeated, ddof=1)) if len(repeated) > 1 else 0.0
    if spread == 0:
        raise StudyError(
            f"All {len(repeated)} answers differ from the baseline's by the same "
            f"{abs(repeated[0]):g} characters: expected lengths that vary. Check that the file holds "
            "whole answers."
        )
    terms: Array = np.tanh(differences / spread)
    return terms


def controlled_rate(
    weights: LengthWeights, difficulty: Array, counts: Counts | None = None
) -> float:
    """Return the length-controlled win rate in percent that these coefficients predict.

    It is the mean of `sigmoid(w_model + w_difficulty * gamma)`, the length term being zero.

    Args:
        weights: the coefficients.
        difficulty: gamma of the instructions, shape (instructions,).
        counts: how often each instruction counts; once each if None.
    """
    chances = sigmoid(weights.model + weights.difficulty * difficulty)
    return 100 * float(np.average(chances, weights=counts))


def fit_control(rows: JudgedLengths, calibration: Calibration) -> LengthControl:
    """Fit length control to one model's verdicts, as published.

    The strength of the L1 penalty is chosen by five-fold cross-validation on log loss, then all
    rows are fitted. The gamed rows come first and weigh 0.1 each.

    Raises:
        StudyError: if a number is not finite, lengths have no spread, or the fit has no optimum.
    """
    features, targets = _design(rows, calibration)
    weights = _row_weights(calibration, np.ones(len(rows.wins)))
    strength = choose_strength(features, targets, weights=weights, strengths=STRENGTHS)
    found = fit_logistic(features, targets, weights=weights, strength=strength)
    fitted = LengthWeights(*map(float, found))
    return LengthControl(controlled_rate(fitted, rows.difficulty), fitted, strength)


def bootstrap_control(
    rows: JudgedLengths,
    calibration: Calibration,
    control: LengthControl,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Return the length-controlled rate in each bootstrap draw of the instructions, in percent.

    Each draw standardises the lengths and fits anew, at the strength chosen on all rows. The gamed
    rows stay as they are: they belong to the procedure, not to the sample. The draws are those of
    `stats.bootstrap_means` under an equal generator, so they pair with it and between models.

    Returns:
        Shape (draws,).
    """
    size = len(rows.wins)
    start = np.array(control.weights)
    rates = np.empty(draws)
    for draw in range(draws):
        counts = np.bincount(rng.integers(size, size=size), minlength=size)
        features, targets = _design(rows, calibration, counts)
        weights = _row_weights(calibration, counts.astype(np.float64))
        found = fit_logistic(
            features, targets, weights=weights, strength=control.strength, start=start
        )
        rates[draw] = controlled_rate(LengthWeights(*found), rows.difficulty, counts)
    return rates


def _design(
    rows: JudgedLengths, calibration: Calibration, counts: Counts | None = None
) -> tuple[Array, Array]:
    """Return the features (rows, 3) and targets (rows,), the gamed rows first."""
    terms = length_terms(rows.lengths, rows.baseline_lengths, counts)
    own = np.column_stack([terms, rows.difficulty, np.ones(len(terms))])
    gamed = np.column_stack([calibration.terms, np.zeros(len(calibration.wins))])
    return np.vstack([gamed, own]), np.concatenate([calibration.wins, rows.wins])


def _row_weights(calibration: Calibration, own: Array) -> Array:
    return np.concatenate([np.full(len(calibration.wins), GAMED_WEIGHT), own])
