"""What a judge is worth: how often it decides as a trusted judge did on the same pairs.

Agreement beyond chance is what counts, so Cohen's kappa stands beside accuracy, and both beside what length
alone would have decided. Pairs of one question hang together, so intervals resample questions. Nothing here
asks a judge or reads a file.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.agreement.correlation import spearman
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import percentile_interval
from preceptor.types import Estimate

Array = NDArray[np.float64]

DRAWS = 1000
"""Resamples of the questions behind each interval."""

_STEPS = (
    (0.0, "poor"),
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.0, "almost perfect"),
)


class Verdict(NamedTuple):
    """Two judges' verdicts on one comparison: the model's share of the win in 0..1, by each."""

    model: str
    question: str
    trusted: float
    judged: float


class JudgeAgreement(NamedTuple):
    """How a judge agrees with a trusted one, with 95% bootstrap intervals over questions.

    `accuracy` is the share of comparisons decided alike (0..1; a judge's tie is half right; comparisons that
    the trusted judge tied are left out). `kappa` is Cohen's, 0 for chance and 1 for identity. `spearman` is
    of the models' mean wins, None below three models. `n` counts comparisons.
    """

    n: int
    questions: int
    models: int
    accuracy: Estimate
    kappa: Estimate
    spearman: Estimate | None

    @property
    def words(self) -> str:
        """The strength of kappa in words."""
        return in_words(self.kappa.value)


def in_words(kappa: float) -> str:
    """Return the customary word for a kappa; the steps are Landis & Koch's (1977, Biometrics 33)."""
    if math.isnan(kappa):
        return "undefined"
    if kappa < 0:
        return "poor"
    return next(word for top, word in _STEPS[1:] if kappa <= top + 1e-12)


def accuracy(trusted: Array, judged: Array, weights: Array | None = None) -> float:
    """Return the share of comparisons on the same side, a judge's tie half right; NaN without any.

    Args:
        trusted: shape (comparisons,), the model's share in 0..1; 0.5 is left out.
        judged: likewise, by the judge.
        weights: how often each counts; once each if None.
    """
    decided = trusted != 0.5
    counts = (np.ones(len(trusted)) if weights is None else weights)[decided]
    if not counts.sum():
        return math.nan
    right = 0.5 + 0.5 * np.sign(trusted[decided] - 0.5) * np.sign(judged[decided] - 0.5)
    return float(np.average(right, weights=counts))


def cohens_kappa(trusted: Array, judged: Array, weights: Array | None = None) -> float:
    """Return Cohen's kappa of who wins, the model or the other (Cohen 1960): `(p - e) / (1 - e)`.

    A judge's tie counts half for each side; NaN where chance alone would agree always, as where both
    judges name only one side.

    Args:
        trusted: as `accuracy`.
        judged: as `accuracy`.
        weights: as `accuracy`.
    """
    decided = trusted != 0.5
    counts = (np.ones(len(trusted)) if weights is None else weights)[decided]
    if not counts.sum():
        return math.nan
    observed = accuracy(trusted, judged, weights)
    one = float(np.average(trusted[decided] > 0.5, weights=counts))
    other = float(np.average(0.5 + 0.5 * np.sign(judged[decided] - 0.5), weights=counts))
    chance = one * other + (1 - one) * (1 - other)
    return (observed - chance) / (1 - chance) if chance < 1 - 1e-12 else math.nan


def judge_agreement(
    verdicts: Sequence[Verdict], *, draws: int = DRAWS, seed: int = 0
) -> JudgeAgreement:
    """Return how the judge agrees with the trusted one over these comparisons.

    Args:
        verdicts: comparisons that both judged.
        draws: resamples of the questions.
        seed: of the resampling.

    Raises:
        StudyError: there is no comparison that the trusted judge decided.
    """
    trusted = np.array([one.trusted for one in verdicts], dtype=np.float64)
    judged = np.array([one.judged for one in verdicts], dtype=np.float64)
    if not (trusted != 0.5).any():
        raise StudyError(
            "There is no comparison that the trusted judge decided: expected verdicts other than ties. "
            "Give annotations with preferences."
        )
    models, model = np.unique([one.model for one in verdicts], return_inverse=True)
    questions, question = np.unique([one.question for one in verdicts], return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(questions), np.full(len(questions), 1 / len(questions)), size=draws
    )

    def estimate(of: Callable[[Array], float]) -> Estimate:
        values = np.array([of(counts[question].astype(np.float64)) for counts in drawn])
        usable = values[np.isfinite(values)]
        low, high = percentile_interval(usable) if len(usable) else (math.nan, math.nan)
        return Estimate(of(np.ones(len(verdicts))), float(low), float(high), len(questions))

    def of_models(weights: Array) -> float:
        means = [_means(one, model, weights) for one in (trusted, judged)]
        known = np.isfinite(means[0])
        return spearman(means[1][known], means[0][known]) if known.sum() > 2 else math.nan

    return JudgeAgreement(
        n=int((trusted != 0.5).sum()),
        questions=len(questions),
        models=len(models),
        accuracy=estimate(lambda weights: accuracy(trusted, judged, weights)),
        kappa=estimate(lambda weights: cohens_kappa(trusted, judged, weights)),
        spearman=estimate(of_models) if len(models) > 2 else None,
    )


def _means(values: Array, group: NDArray[np.intp], weights: Array) -> Array:
    """Return the weighted mean of each group, NaN for one without weight."""
    sums = np.bincount(group, values * weights)
    counts = np.bincount(group, weights)
    with np.errstate(invalid="ignore"):
        means: Array = np.where(counts > 0, sums / counts, math.nan)
    return means


def longer_wins(answer: str, other: str) -> float:
    """Return the verdict of who only looks at length: the longer answer wins, equal lengths tie.

    The floor beside every judge, because trusted judges like length too.
    """
    return 0.5 + 0.5 * float(np.sign(len(answer) - len(other)))
