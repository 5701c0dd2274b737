"""Metrics of later work than CAR's: each a class with its source and the direction declared beforehand.

All are formed only where they are asked for.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AverageBrier:
    """The mean Brier score of the student's predictions of the response's tokens (Brier 1950)."""

    needs: ClassVar[tuple[str, ...]] = ("brier",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["brier"] = "brier"

    def __call__(self, brier: Array) -> Array:
        """Return the mean score as it is."""
        return brier


@dataclass(frozen=True)
class RankOneShare:
    """Share of tokens that the student would have written itself; exploratory.

    It is shown with the shares of ranks 2 to 10, 11 to 100 and over 100, which explain RSR.
    """

    needs: ClassVar[tuple[str, ...]] = ("rank_1", "rank_2_10", "rank_11_100", "rank_over_100")
    higher_is_better: ClassVar[bool] = True
    kind: Literal["rank_1"] = "rank_1"

    def __call__(self, first: Array, tens: Array, hundreds: Array, beyond: Array) -> Array:
        """Return the share of rank 1."""
        return first


@dataclass(frozen=True)
class LearnabilityFactor:
    """LARK's rho: the mean over responses of Brier score over loss (arXiv 2605.30651).

    The Brier score is that among the 50 likeliest tokens, whose probabilities are scaled to sum to 1.
    """

    needs: ClassVar[tuple[str, ...]] = ("lark_rho",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["lark_rho"] = "lark_rho"

    def __call__(self, lark_rho: Array) -> Array:
        """Return the mean ratio as it is."""
        return lark_rho


@dataclass(frozen=True)
class LearnabilityScore:
    """LARK's score g, formed within each instruction over the teachers (`lark_score`; arXiv 2605.30651).

    It depends on which teachers are compared.
    """

    needs: ClassVar[tuple[str, ...]] = ("lark_score",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["lark"] = "lark"

    def __call__(self, lark_score: Array) -> Array:
        """Return the mean score as it is."""
        return lark_score


@dataclass(frozen=True)
class StudentCentricAnswer:
    """SCAS: squared surprise and how alike the student sees answer and question (arXiv 2605.26872).

    `weight` is that of the part between answer and question.

    Raises:
        StudyError: if `weight` is outside 0..1.
    """

    needs: ClassVar[tuple[str, ...]] = ("scas_answer", "scas_question")
    higher_is_better: ClassVar[bool] = False
    kind: Literal["scas"] = "scas"
    weight: float = 0.5

    def __post_init__(self) -> None:
        from preceptor.errors import StudyError  # a longer chain of imports for a refusal alone

        if not 0 <= self.weight <= 1:
            raise StudyError(f"weight = {self.weight!r}: expected 0 to 1. Leave it out for 0.5.")

    def __call__(self, scas_answer: Array, scas_question: Array) -> Array:
        """Return `(1 - weight) * scas_answer + weight * scas_question`."""
        return (1 - self.weight) * scas_answer + self.weight * scas_question


@dataclass(frozen=True)
class LogProbabilityWithoutFirst:
    """ASLEC-drop: mean log-probability without the first token of each step (arXiv 2604.06834).

    `steps` are sentences, as in the authors' code, or lines.
    """

    higher_is_better: ClassVar[bool] = True
    kind: Literal["aslec_drop"] = "aslec_drop"
    steps: Literal["sentence", "line"] = "sentence"

    @property
    def needs(self) -> tuple[str, ...]:
        """The mean loss without first tokens of these steps."""
        return (f"loss_{self.steps}",)

    def __call__(self, loss: Array) -> Array:
        """Return `-loss`."""
        return -loss


@dataclass(frozen=True)
class GradientNorm:
    """G-norm: mean squared length of the projected gradients of responses, low is good (arXiv 2511.02833)."""

    needs: ClassVar[tuple[str, ...]] = ("g_norm",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["g_norm"] = "g_norm"

    def __call__(self, g_norm: Array) -> Array:
        """Return the mean as it is."""
        return g_norm


@dataclass(frozen=True)
class GradientCrossValidation:
    """GRACE: how badly gradients of some prompts are covered by others' (`grace`; arXiv 2511.02833)."""

    needs: ClassVar[tuple[str, ...]] = ("grace",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["grace"] = "grace"

    def __call__(self, grace: Array) -> Array:
        """Return the mean as it is."""
        return grace


LATER_METRICS = (
    AverageBrier(),
    RankOneShare(),
    LearnabilityFactor(),
    LearnabilityScore(),
    StudentCentricAnswer(),
    LogProbabilityWithoutFirst(),
    GradientNorm(),
    GradientCrossValidation(),
)


def grace(gradients: Array, instructions: NDArray[np.int64], *, splits: int = 10) -> Array:
    """Return what each instruction adds to GRACE, (instructions,): its mean is the score of one teacher.

    `gradients` (responses, dimensions) are of the responses to `instructions` (responses,), numbered from 0.
    The instructions are split at random; for each part the score is the trace of (S + 0.001 / d)^-1 T, where
    T is the second moment of its gradients and S that of all others, scaled to length 1. The parts are
    disjoint, so that each instruction is tested once; one without a response is NaN.
    """
    count, d = int(instructions.max(initial=-1)) + 1, gradients.shape[1]
    parts = np.array_split(np.random.default_rng(0).permutation(count), min(splits, count))
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    unit = gradients / np.maximum(lengths, 1e-12)
    found = np.full(len(gradients), np.nan)
    for part in parts:
        tested = np.isin(instructions, part)
        if tested.all() or not tested.any():
            continue
        seen = unit[~tested]
        moment = seen.T @ seen / len(seen) + 1e-3 / d * np.eye(d)
        here = gradients[tested]
        found[tested] = (here * np.linalg.solve(moment, here.T).T).sum(axis=1)
    number = np.bincount(instructions, minlength=count)
    with np.errstate(invalid="ignore"):
        mean: Array = np.bincount(instructions, weights=found, minlength=count) / number
    return mean


def lark_score(loss: Array, brier: Array) -> Array:
    """Return LARK's g of each response among those to its instruction, (teachers, instructions).

    With L and B their losses and Brier scores, rho = B / L, g = L / sum L * (2 rho - sum rho L / sum L). A
    NaN makes its column NaN, and so do losses that are all 0.
    """
    total = loss.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (2 * brier - loss * brier.sum(axis=0) / total) / total
    return np.where(total > 0, score, np.nan)
