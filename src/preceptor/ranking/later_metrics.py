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


LATER_METRICS = (
    AverageBrier(),
    RankOneShare(),
    LearnabilityFactor(),
    LearnabilityScore(),
    StudentCentricAnswer(),
    LogProbabilityWithoutFirst(),
)


def lark_score(loss: Array, brier: Array) -> Array:
    """Return LARK's g of each response among those to its instruction, (teachers, instructions).

    With L and B their losses and Brier scores, rho = B / L, g = L / sum L * (2 rho - sum rho L / sum L). A
    NaN makes its column NaN, and so do losses that are all 0.
    """
    total = loss.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (2 * brier - loss * brier.sum(axis=0) / total) / total
    return np.where(total > 0, score, np.nan)
