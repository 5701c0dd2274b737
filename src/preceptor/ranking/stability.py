"""Whether an order survives other ways to read the same numbers, one at a time.

What is tried is what one could as well have chosen: CAR's beta, the transform of rewards that have no
zero of their own, the mean over tokens instead of responses, rewards at equal lengths, and failures that
cost something. The sum over tokens (`sequence-sum`) is not tried: it makes CAR reward over length, which
the paper's table 4 contradicts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from preceptor.ranking.bootstrap import Array, compare_orders, ranks
from preceptor.ranking.measurements import Common, Measurements
from preceptor.ranking.metrics import TRANSFORMS, CompatibilityAdjustedReward, Metric
from preceptor.ranking.places import MIN_PROMPTS, OrderVariant, Stability

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
"""The range over which the stability of CAR's order is reported; 0 is the reward alone."""

FAILURES = "failures at the lowest reward"
"""The name of the variant in which a teacher's failures cost it."""

Means = Mapping[str, Array]


def stability_of(
    common: Common,
    metric: Metric,
    *,
    transform: str,
    teachers: Sequence[str],
    failures: Means | None,
    conditional: bool = True,
) -> Stability | None:
    """Return how the order by a metric fares otherwise; None where there is no other way to read its numbers.

    Args:
        common: the compared numbers, rewards not transformed.
        metric: what orders.
        transform: the chosen transform of the rewards.
        teachers: labels of the rows.
        failures: the means of `with_failures`, None where nobody failed.
        conditional: whether the loss is read after the instruction.
    """
    means = {name: common.mean(name) for name in common.values}
    if "reward" in means:
        means["reward"] = TRANSFORMS[transform](common.values["reward"]).mean(axis=1)
    basis = upward(metric, means)
    scores = {
        name: upward(form, {**means, **changed})
        for name, form, changed in _variants(
            common, metric, means, transform=transform, failures=failures, conditional=conditional
        )
    }
    variants = tuple(
        OrderVariant(
            name,
            winners_by(score, teachers),
            *compare_orders(basis, score),
            dict(
                zip(
                    teachers, (score * (1 if metric.higher_is_better else -1)).tolist(), strict=True
                )
            ),
        )
        for name, score in scores.items()
        if np.isfinite(score).all()
    )
    if not variants:
        return None
    pairs = len(teachers) * (len(teachers) - 1) // 2
    return Stability(metric.kind, winners_by(basis, teachers), variants, pairs)


def _variants(
    common: Common,
    metric: Metric,
    means: Means,
    *,
    transform: str,
    failures: Means | None,
    conditional: bool,
) -> Iterator[tuple[str, Metric, Means]]:
    """Yield each variant's name, metric, and means in place of those chosen."""
    if isinstance(metric, CompatibilityAdjustedReward):
        for beta in BETAS:
            yield f"beta = {beta:g}", replace(metric, beta=beta), {}
    if "reward" in metric.needs:
        for name, rewards in _rewards(common, transform):
            yield name, metric, {"reward": rewards}
    if failures is not None:
        yield FAILURES, metric, failures
    # What the paper calls L can be read otherwise in CAR; other metrics have one reading
    # (docs/reference/metrics.md).
    if isinstance(metric, CompatibilityAdjustedReward) and conditional:
        yield from ((name, metric, {"loss": loss}) for name, loss in _readings(means))


def _readings(means: Means) -> Iterator[tuple[str, Array]]:
    """Yield other readings of CAR's conditional loss, by name, of those that were measured."""
    if "loss_unconditional" in means:
        yield "conditioning = unconditional", means["loss_unconditional"]
    if {"information", "tokens"} <= set(means):
        yield "reduction = corpus-token-mean", means["information"] / means["tokens"]


def with_failures(
    measurements: Measurements, metric: Metric, *, transform: str
) -> dict[str, Array] | None:
    """Return the means of what a metric needs over every prompt asked, a failure earning the lowest reward.

    Nobody's failure takes a prompt from the others: each teacher's rewards are over all prompts on which
    everybody has them or failed, its other measures over those of them that it answered. None where
    nobody failed, or the metric looks at no reward.
    """
    failed = measurements.failed
    if failed is None or not failed.any() or "reward" not in metric.needs:
        return None
    values, below = measurements.values, measurements.denominators
    lost = failed == 1
    needed = [values[name] for name in metric.needs]
    needed += [below[name] for name in metric.needs if name in below]
    known = ~np.logical_or.reduce([np.isnan(array) for array in needed])
    asked = (known | lost).all(axis=0)
    lost, share, rewards = lost[:, asked], failed[:, asked], values["reward"][:, asked]
    lowest = np.nanmin(np.where(lost, np.nan, rewards))
    earned = np.where(lost, lowest, (1 - share) * rewards + share * lowest)
    means = {"reward": TRANSFORMS[transform](earned).mean(axis=1)}
    for name in set(metric.needs) - {"reward"}:
        sums, sizes = (
            np.where(lost, 0.0, array[:, asked]).sum(axis=1)
            for array in (values[name], below.get(name, np.ones_like(failed)))
        )
        means[name] = sums / sizes
    return means


def _rewards(common: Common, transform: str) -> Iterator[tuple[str, Array]]:
    """Yield other mean rewards of the teachers, by name."""
    raw = common.values["reward"]
    chosen = TRANSFORMS[transform](raw)
    # Rewards within 0..1 have a zero of their own: to transform them is no other reading.
    if transform != "raw" or raw.min() < 0 or raw.max() > 1:
        for name, change in TRANSFORMS.items():
            yield f"transform = {name}", change(raw).mean(axis=1)
    if "length" in common.values and common.n >= MIN_PROMPTS:
        level = at_equal_length(chosen, common.values["length"])
        if level is not None:
            yield "rewards at equal length", level


def at_equal_length(rewards: Array, length: Array) -> Array | None:
    """Return each teacher's mean reward had all answers to an instruction been equally long, (teachers,).

    The slope of reward on log length is that within teachers and instructions (two-way fixed effects), so
    neither a better teacher's habit of writing more nor an instruction that calls for more counts as length;
    AlpacaEval's length control divides alike (Dubois et al. 2024). None where the slope cannot be told from
    0, being less than two of its standard errors, clustered by instruction.

    Args:
        rewards: (teachers, instructions).
        length: tokens, likewise.
    """
    x = np.log1p(length)
    longer = x.mean(axis=1) - x.mean()
    x, y = _within(x, out=x), _within(rewards)
    spread = float((x * x).sum())
    if spread <= 1e-12 * x.size:
        return None
    slope = float((x * y).sum()) / spread
    rest = slope * x
    np.subtract(y, rest, out=rest)
    rest *= x
    error = float(np.sqrt((rest.sum(axis=0) ** 2).sum())) / spread
    if abs(slope) <= 2 * error:
        return None
    level: Array = rewards.mean(axis=1) - slope * longer
    return level


def _within(values: Array, *, out: Array | None = None) -> Array:
    """Return the values less the means of their row and column, `out` in place of another array."""
    # Step by step in one array: each may take a gigabyte.
    rows, mean = values.mean(axis=1, keepdims=True), values.mean()
    within: Array = np.subtract(values, values.mean(axis=0), out=out)
    within -= rows
    within += mean
    return within


def upward(metric: Metric, means: Means) -> Array:
    """Return the metric of these means so that higher is better; not finite where it has no value."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scores = np.asarray(metric(*(means[name] for name in metric.needs)), dtype=np.float64)
    return scores if metric.higher_is_better else -scores


def winners_by(scores: Array, teachers: Sequence[str]) -> tuple[str, ...]:
    """Return who is best by these scores, several where they tie."""
    return tuple(t for t, place in zip(teachers, ranks(scores), strict=True) if place == 1)
