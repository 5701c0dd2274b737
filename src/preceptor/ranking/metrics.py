"""Metrics: formulas over a teacher's mean measures, and the transforms a reward may pass first.

A metric is a small frozen object that says which measures it needs and which
direction is better, and is called with the means of those measures in that order. Nothing here
resamples or sorts, so the same object works on any array of means.
Arrays have any shape that broadcasts; by custom the last axis is the teachers.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.later_metrics import LATER_METRICS

Array = NDArray[np.float64]


class Metric(Protocol):
    """The shape of a metric: any object with these four members works, built in or not."""

    @property
    def kind(self) -> str:
        """The metric's name in study files, records and reports."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The measures whose means `__call__` takes, in this order."""

    @property
    def higher_is_better(self) -> bool:
        """The declared direction; never chosen after seeing results."""

    # Any, because each metric names its own arguments; they are passed by position.
    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Return the metric of the means, element by element."""


@dataclass(frozen=True)
class CompatibilityAdjustedReward:
    """CAR: mean reward discounted by the student's mean loss (Xu et al. 2025, eq. 3).

    With a negative mean reward the discount turns round and a higher loss raises CAR; a ranking
    warns of it. `beta` = 0 is the mean reward alone.

    Raises:
        StudyError: if `beta` is negative or not finite.
    """

    needs: ClassVar[tuple[str, ...]] = ("reward", "loss")
    higher_is_better: ClassVar[bool] = True
    kind: Literal["car"] = "car"
    beta: float = 3.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise StudyError(
                f"beta = {self.beta!r} cannot discount a reward: expected a finite number of 0 or "
                "more. Leave it out for the paper's 3."
            )

    def __call__(self, reward: Array, loss: Array) -> Array:
        """Return `reward / (1 + beta * loss)`."""
        return reward / (1 + self.beta * loss)


@dataclass(frozen=True)
class AverageReward:
    """AR: the mean reward alone, blind to the student (Xu et al. 2025, section 4.2)."""

    needs: ClassVar[tuple[str, ...]] = ("reward",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["reward"] = "reward"

    def __call__(self, reward: Array) -> Array:
        """Return the mean reward as it is."""
        return reward


@dataclass(frozen=True)
class AverageLoss:
    """The student's mean loss in nats per token: the logarithm of PPL-Self."""

    needs: ClassVar[tuple[str, ...]] = ("loss",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["loss"] = "loss"

    def __call__(self, loss: Array) -> Array:
        """Return the mean loss as it is."""
        return loss


@dataclass(frozen=True)
class AveragePerplexity:
    """PPL-Self: the mean of per-response perplexities (Xu et al. 2025, section 4.2).

    The paper states no direction; lower is declared better. One outlier can hold most of the mean.
    """

    needs: ClassVar[tuple[str, ...]] = ("perplexity",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["perplexity"] = "perplexity"

    def __call__(self, perplexity: Array) -> Array:
        """Return the mean perplexity as it is."""
        return perplexity


@dataclass(frozen=True)
class InstructionFollowingDifficulty:
    """IFD-Self: the mean ratio of conditional to unconditional perplexity (Li et al. 2024)."""

    needs: ClassVar[tuple[str, ...]] = ("ifd",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["ifd"] = "ifd"

    def __call__(self, ifd: Array) -> Array:
        """Return the mean ratio as it is."""
        return ifd


@dataclass(frozen=True)
class AverageLength:
    """The mean length of the responses in tokens (Xu et al. 2025, section 4.2)."""

    needs: ClassVar[tuple[str, ...]] = ("length",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["length"] = "length"

    def __call__(self, length: Array) -> Array:
        """Return the mean length as it is."""
        return length


@dataclass(frozen=True)
class RankSurprisalRatio:
    """RSR: mean clipped token rank over mean loss, a ratio of means (arXiv 2601.14249)."""

    needs: ClassVar[tuple[str, ...]] = ("token_rank", "loss")
    higher_is_better: ClassVar[bool] = False
    kind: Literal["rsr"] = "rsr"

    def __call__(self, token_rank: Array, loss: Array) -> Array:
        """Return `token_rank / loss`; not finite where the mean loss is 0."""
        return token_rank / loss


@dataclass(frozen=True)
class AverageLikelihood:
    """GRAPE's score at teacher level: the mean log-likelihood per token (arXiv 2502.04194)."""

    needs: ClassVar[tuple[str, ...]] = ("loss",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["likelihood"] = "likelihood"

    def __call__(self, loss: Array) -> Array:
        """Return `-loss`."""
        return -loss


class _RankSurprisalRatioOfPlainLoss(RankSurprisalRatio):
    needs: ClassVar[tuple[str, ...]] = ("token_rank", "plain_loss")


class _AverageLikelihoodOfPlainLoss(AverageLikelihood):
    needs: ClassVar[tuple[str, ...]] = ("plain_loss",)


def of_plain_loss(metric: Metric) -> Metric:
    """Return the metric for a study that reads `loss` otherwise than as the conditional mean over tokens.

    RSR and GRAPE's score are defined by that mean, whatever reading of the paper's loss CAR takes: they then
    need it as `plain_loss`.
    """
    if isinstance(metric, RankSurprisalRatio):
        return _RankSurprisalRatioOfPlainLoss()
    return _AverageLikelihoodOfPlainLoss() if isinstance(metric, AverageLikelihood) else metric


@dataclass(frozen=True)
class Information:
    """Nats the student would have to learn from one response: the mean over responses of -log p(y|x).

    Higher is better, as declared after a pilot on the paper's own teachers in open chat; exploratory. A
    response cut at the maximum length counts only as far as it was read.
    """

    needs: ClassVar[tuple[str, ...]] = ("information",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["information"] = "information"

    def __call__(self, information: Array) -> Array:
        """Return `information`."""
        return information


@dataclass(frozen=True)
class ReferencePerplexity:
    """PPL-GPT2: the mean perplexity under a reference model that is not the student (paper 4.2).

    The paper states no direction; lower is declared better.
    """

    needs: ClassVar[tuple[str, ...]] = ("perplexity_gpt2",)
    higher_is_better: ClassVar[bool] = False
    kind: Literal["ppl_gpt2"] = "ppl_gpt2"

    def __call__(self, perplexity: Array) -> Array:
        """Return the mean perplexity as it is."""
        return perplexity


@dataclass(frozen=True)
class ReferenceDifficulty:
    """IFD-GPT2: IFD under a reference model that is not the student (paper 4.2)."""

    needs: ClassVar[tuple[str, ...]] = ("ifd_gpt2",)
    higher_is_better: ClassVar[bool] = True
    kind: Literal["ifd_gpt2"] = "ifd_gpt2"

    def __call__(self, ifd: Array) -> Array:
        """Return the mean ratio as it is."""
        return ifd


@dataclass(frozen=True)
class PersonalisedSynthesis:
    """PerSyn's additive score of quality and learnability (arXiv 2510.10925).

    Both are scaled to 0..1 within each instruction over the teachers (`within_instruction`), so the score
    depends on which teachers are compared, and not on a constant added to the rewards. `weight` is that of
    quality.

    Raises:
        StudyError: if `weight` is outside 0..1.
    """

    needs: ClassVar[tuple[str, ...]] = ("reward_share", "likelihood_share")
    higher_is_better: ClassVar[bool] = True
    kind: Literal["persyn"] = "persyn"
    weight: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise StudyError(f"weight = {self.weight!r}: expected 0 to 1. Leave it out for 0.6.")

    def __call__(self, reward_share: Array, likelihood_share: Array) -> Array:
        """Return `weight * reward_share + (1 - weight) * likelihood_share`."""
        return self.weight * reward_share + (1 - self.weight) * likelihood_share


_BUILT_IN: tuple[Metric, ...] = (
    CompatibilityAdjustedReward(),
    AverageReward(),
    AverageLoss(),
    AveragePerplexity(),
    InstructionFollowingDifficulty(),
    AverageLength(),
    RankSurprisalRatio(),
    AverageLikelihood(),
    Information(),
    ReferencePerplexity(),
    ReferenceDifficulty(),
    PersonalisedSynthesis(),
    *LATER_METRICS,
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.kind: metric for metric in _BUILT_IN})
"""Every metric of ours at its default parameters by its kind, in the order reports show them."""


def require_metric(given: object) -> Metric:
    """Return the object as the metric it is.

    Raises:
        StudyError: it lacks a member that a metric needs; the message says what a metric is made of.
    """
    lacking = [name for name in ("kind", "needs", "higher_is_better") if not hasattr(given, name)]
    if isinstance(given, type) or not callable(given) or lacking:
        raise StudyError(
            f"{given!r:.60} is no metric{f': it has no {lacking[0]}' if lacking else ''}. A metric is an "
            "object with `kind` (its name), `needs` (a tuple of measures), `higher_is_better` (a bool), "
            "and `__call__`, which takes the means of these measures and returns the metric."
        )
    return cast(Metric, given)


def metrics_for(measures: Iterable[str]) -> tuple[Metric, ...]:
    """Return every metric of ours, at its default parameters, whose measures are all present."""
    present = frozenset(measures)
    return tuple(metric for metric in METRICS.values() if present.issuperset(metric.needs))


def within_instruction(values: Array) -> Array:
    """Return (teachers, instructions) with each column mapped so that it spans 0..1.

    A column of one single value is 0.5 throughout: there no teacher is better. A NaN makes its column NaN,
    because a comparison with someone absent is none.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    span = high - low
    shares = (values - low) / np.where(span > 0, span, 1.0)
    return np.where(span == 0, 0.5, shares)


def raw(rewards: Array) -> Array:
    """Return the rewards as they are, which is the paper's reading."""
    return rewards


def sigmoid(rewards: Array) -> Array:
    """Return `1 / (1 + exp(-reward))` of each reward: 0..1, no overflow however large they are."""
    return 0.5 * (1 + np.tanh(0.5 * rewards))


def shift_min(rewards: Array) -> Array:
    """Return the rewards less the smallest of the whole pool, so that none is negative.

    The pool is every element of the array; NaN stays NaN and is no part of it.
    """
    return rewards - np.nanmin(rewards)


def minmax(rewards: Array) -> Array:
    """Return the rewards mapped so that the whole pool spans 0..1.

    A pool of one single value has no span and maps to 0, as `shift_min` maps it; NaN stays NaN.
    """
    shifted = shift_min(rewards)
    span = np.nanmax(shifted)
    return shifted / span if span > 0 else shifted


TRANSFORMS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {"raw": raw, "sigmoid": sigmoid, "shift-min": shift_min, "minmax": minmax}
)
"""The reward transforms by the names a study file uses; each takes the matrix of all rewards."""
