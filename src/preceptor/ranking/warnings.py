"""Warnings: what could mislead a reader of a ranking. None stops a ranking, and none is silent.

Each has a code, for programs, and a sentence that names the teachers and the remedy, for people. Found here
are those in the compared numbers: CAR's sign, means that one response holds, and too little data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import METRICS, Array, CompatibilityAdjustedReward, Metric

Code = Literal[
    # of the numbers compared
    "negative-reward",
    "no-reward",
    "outlier",
    "foreign-template",
    "few-instructions",
    "left-out",
    # of the responses
    "no-response",
    "cut-off",
    "copies",
    "truncated",
    "skipped-rows",
    "drawn-from-common",
    # of teachers made of another's samples
    "chosen-by-own-reward",
    "not-chosen-yet",
    # of judges' verdicts
    "another-judge",
    "position-bias",
    "benchmark",
]
"""What a warning is about."""


@dataclass(frozen=True)
class Warning:
    """What a reader of a result must know: a code for programs, a sentence for people."""

    code: Code
    text: str

    def __str__(self) -> str:
        return self.text


OUTLIER_SHARE = 0.2
"""One response with more than this share of a teacher's sum is warned of."""

FEW_INSTRUCTIONS = 30
"""Below this many instructions, percentile intervals are known to be too narrow."""


def warnings_of(
    common: Common, metrics: Sequence[Metric], *, teachers: Sequence[str], by: str
) -> Iterator[Warning]:
    """Yield the warnings that apply, the gravest first.

    Args:
        common: the compared numbers, rewards already transformed.
        metrics: what was formed of them.
        teachers: labels, in the order of the rows of `common`.
        by: kind of the metric that orders.
    """
    if any(isinstance(metric, CompatibilityAdjustedReward) for metric in metrics):
        yield from _sign(common.values["reward"].mean(axis=1), teachers)
    if "reward" not in common.values and by in METRICS:
        yield Warning(
            "no-reward",
            f"Without rewards the order by {by} is exploratory: no published metric without a "
            "reward ranks teachers reliably in open chat. Give --reward-model or --reward-column, "
            "or reference answers to check against.",
        )
    for name in ("perplexity", "ifd"):
        if name in common.values and name not in common.denominators:
            yield from _outliers(name, common.values[name], teachers)
    if "ifd" in common.values and common.values["ifd"].min() > 1:
        yield Warning(
            "foreign-template",
            "Every IFD is above 1, so the instruction never helps the student: the chat template "
            "looks foreign to this base model. Try --chat-template plain or its family's own.",
        )
    if common.n < FEW_INSTRUCTIONS:
        yield Warning(
            "few-instructions",
            f"Only {common.n} instructions are compared: below {FEW_INSTRUCTIONS} the intervals "
            "are rough and too narrow. Give more instructions.",
        )


def _sign(rewards: Array, teachers: Sequence[str]) -> Iterator[Warning]:
    pairs = sorted(zip(rewards.tolist(), teachers, strict=True))
    negative = ", ".join(f"'{name}' ({reward:.3g})" for reward, name in pairs if reward < 0)
    if not negative:
        return
    signs = "mixed in sign" if pairs[-1][0] > 0 else "all negative or zero"
    yield Warning(
        "negative-reward",
        "CAR REWARDS INCOMPATIBILITY where the mean reward is negative: there a higher loss raises "
        f"it. Mean rewards are {signs}; negative: {negative}. CAR also changes when a constant is "
        "added to every reward. Use the reward transform sigmoid, shift-min or minmax, or order "
        "by reward.",
    )


def _outliers(name: str, values: Array, teachers: Sequence[str]) -> Iterator[Warning]:
    # Perplexities and IFDs are positive; a sum of 0 would be a scorer's defect, not an outlier.
    shares = values.max(axis=1) / values.sum(axis=1).clip(min=1e-300)
    # With ten responses or fewer a fair share comes near the limit and says nothing.
    limit = max(OUTLIER_SHARE, 2 / values.shape[1])
    pairs = zip(teachers, shares.tolist(), strict=True)
    heavy = ", ".join(f"'{teacher}' ({share:.0%})" for teacher, share in pairs if share > limit)
    if heavy:
        yield Warning(
            "outlier",
            f"One response holds more than {OUTLIER_SHARE:.0%} of the mean {name} of {heavy}: "
            "that mean is an outlier's. Read loss beside it.",
        )
