"""Warnings: what could mislead a reader of a ranking. None stops a ranking, and none is silent.

Each has a code, for programs, and a sentence that names the teachers and the remedy, for people. Found here
are those in the compared numbers: CAR's sign, means that one response holds, failures, noise.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import METRICS, Array, CompatibilityAdjustedReward, Metric
from preceptor.types import Warning

OUTLIER_SHARE = 0.2
"""One response with more than this share of a teacher's sum is warned of."""

TIMES_OTHERS = 2.0
"""A teacher both longer and less likely than the others by this factor looks like noise (docs/log.md)."""

MANY_FAILURES = 0.02
"""Above this share of requests without an answer, or of answers without a score, there is a warning."""


def warnings_of(
    common: Common,
    metrics: Sequence[Metric],
    *,
    teachers: Sequence[str],
    by: Metric,
    failed: Mapping[str, float],
    unscored: Mapping[str, float],
) -> Iterator[Warning]:
    """Yield the warnings that apply, the gravest first.

    Args:
        common: the compared numbers, rewards already transformed.
        metrics: what was formed of them.
        teachers: labels, in the order of the rows of `common`.
        by: the metric that orders.
        failed: share of the requests that a teacher left without an answer.
        unscored: share of the prompts that a teacher answered, but for which it lacks a number.
    """
    rewarded = not {"reward", "reward_share"}.isdisjoint(by.needs)
    if any(isinstance(metric, CompatibilityAdjustedReward) for metric in metrics):
        yield from _sign(common, teachers, by=by.kind)
    if not rewarded and by.kind in METRICS:
        yield from _noise(common, teachers)
        yield Warning(
            "no-reward",
            f"The order by {by.kind} looks at no reward and is exploratory: no published metric without "
            "one ranks teachers reliably in open chat, and noise may lead.",
        )
    if many := {name: share for name, share in failed.items() if share > MANY_FAILURES}:
        shares = ", ".join(f"'{name}' {share:.1%}" for name, share in many.items())
        yield Warning(
            "failures",
            f"Requests without an answer (empty, or refused by the endpoint): {shares}. Such an instruction "
            "is compared for nobody, so failing costs a teacher nothing above.",
            tuple(many),
        )
    if any(share > MANY_FAILURES for share in unscored.values()):
        shares = ", ".join(f"'{name}' {share:.1%}" for name, share in unscored.items())
        # Whoever lacks them, they choose the prompts for all: so it is about the whole result.
        yield Warning(
            "missing-scores",
            f"Answers without a reward or another number that the metrics need: {shares}. Such a prompt is "
            "compared for nobody, so what is missing chooses the prompts.",
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


def negative_rewards(common: Common, teachers: Sequence[str]) -> dict[str, float]:
    """Return the mean rewards of the teachers for whom CAR means nothing, the lowest first.

    There a higher loss raises CAR. A mean of 0 where no reward is negative means that nothing was right.
    """
    rewards = common.values.get("reward")
    if rewards is None or rewards.min() >= 0:
        return {}
    pairs = sorted(zip(rewards.mean(axis=1).tolist(), teachers, strict=True))
    return {name: mean for mean, name in pairs if mean <= 0}


def _sign(common: Common, teachers: Sequence[str], *, by: str) -> Iterator[Warning]:
    negative = negative_rewards(common, teachers)
    if not negative:
        return
    means = ", ".join(f"'{name}' ({mean:.3g})" for name, mean in negative.items())
    done = "" if by == "car" else f" So the order is by {by}."
    yield Warning(
        "negative-reward",
        "CAR REWARDS INCOMPATIBILITY where the mean reward is not positive: there a higher loss raises it. "
        f"The mean reward is 0 or less for {means}.{done} Such rewards have no zero of their own, and CAR "
        "changes when a constant is added to them: give --reward-transform sigmoid, shift-min or minmax, or "
        "order by reward.",
        tuple(negative),
    )


def _noise(common: Common, teachers: Sequence[str]) -> Iterator[Warning]:
    """Warn of teachers that are both far longer and far less likely than the others."""
    if not {"length", "loss"} <= set(common.values) or len(teachers) < 2:
        return
    times = np.array([_times_others(common.mean(name)) for name in ("length", "loss")])
    for place, name in enumerate(teachers):
        if (times[:, place] > TIMES_OTHERS).all():
            longer, likelier = times[:, place]
            yield Warning(
                "looks-like-noise",
                f"'{name}' looks like noise: its responses are {longer:.1f} times as long as the other "
                f"teachers' median, and the base model loses {likelier:.1f} times as much on a token.",
                (name,),
            )


def _times_others(means: Array) -> Array:
    """Return each mean as a multiple of the median of the others."""
    others = [np.median(np.delete(means, place)) for place in range(len(means))]
    times: Array = means / np.maximum(others, 1e-12)
    return times


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
