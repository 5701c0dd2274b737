"""Ranking: teachers from best to worst for one student, and how sure that is.

There is one common set of instructions, then one set of bootstrap draws of it, and from these
every mean, metric, interval and P(best), so that all comparisons are paired. Whatever could mislead
(dropped rows, negative rewards, an order that turns with beta) stands beside the result as a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace

import numpy as np

from preceptor.errors import StudyError, nearest
from preceptor.ranking.bootstrap import (
    Array,
    beat_probabilities,
    bootstrap_means,
    percentile_interval,
    rank_probabilities,
    ranks,
)
from preceptor.ranking.measurements import (
    Common,
    Measurements,
    common_instructions,
    require_measures,
)
from preceptor.ranking.metrics import (
    METRICS,
    TRANSFORMS,
    Metric,
    metrics_for,
)
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import FormedMetric, OrderVariant, Stability, TeacherResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.stability import stability_of
from preceptor.ranking.warnings import Warning, negative_rewards, warnings_of
from preceptor.types import Estimate

__all__ = [
    "ORDER_BY",
    "Measurements",
    "OrderVariant",
    "Quantity",
    "Ranking",
    "Stability",
    "TeacherResult",
    "formed",
    "rank",
    "resampled",
    "transformed",
]

ORDER_BY = ("car", "reward", "information", "likelihood")
"""What orders by default: the first of these that was formed, CAR only where it means something."""

RESERVED_FIELDS = frozenset(
    (
        "teacher",
        "rank",
        "n",
        "p_best",
        "p_rank",
        "p_leader_beats",
        "dropped",
        "truncated",
        "estimates",
    )
)
"""Fields of a record that no measure or metric may be named after."""


@dataclass(frozen=True)
class Quantity:
    """A measure's mean or a metric: point values (teachers,) and draws (draws, teachers)."""

    point: Array
    draws: Array

    def estimates(self, n: Sequence[int]) -> list[Estimate]:
        """Return the value and interval of every teacher, over so many instructions each."""
        low, high = percentile_interval(self.draws)
        columns = zip(self.point.tolist(), low.tolist(), high.tolist(), n, strict=True)
        return [Estimate(*column) for column in columns]


def rank(
    measurements: Measurements,
    *,
    student: str,
    metrics: Sequence[Metric] | None = None,
    by: str | None = None,
    settings: Mapping[str, object] | None = None,
    options: RankingOptions | None = None,
) -> Ranking:
    """Return the teachers from best to worst for this student.

    Only instructions on which every teacher has every measure the metrics need are compared.

    Args:
        measurements: what was measured.
        student: its label, for display.
        metrics: any objects of `Metric`'s shape; by default every registered one whose
            measures were taken.
        by: kind of the metric that orders; by default the first of `ORDER_BY` that was formed.
        settings: how the measurements were made, passed through to the result.
        options: draws, seed, reward transform and minimum coverage.

    Raises:
        StudyError: if a measure is missing, too few instructions are common, a metric is not
            finite, or a name is unknown or taken.
    """
    options = options or RankingOptions()
    chosen = tuple(metrics_for(measurements.values) if metrics is None else metrics)
    _require_usable(chosen, measurements)
    needed = list(dict.fromkeys(name for metric in chosen for name in metric.needs))
    common = common_instructions(measurements, needed, min_coverage=options.min_coverage)
    used = transformed(common, options.transform)
    meaningless = bool(negative_rewards(used, measurements.teachers))
    ordering = _ordering_metric(chosen, by, without_car=meaningless)
    measured = resampled(used, options)
    quantities = measured | {m.kind: formed(m, measured) for m in chosen}
    found = warnings_of(
        used, chosen, teachers=measurements.teachers, by=ordering, failed=measurements.failed
    )
    return Ranking(
        student=student,
        by=ordering.kind,
        metrics={m.kind: FormedMetric(tuple(m.needs), m.higher_is_better) for m in chosen},
        instructions=measurements.instructions,
        teachers=_results(measurements, common, quantities, ordering=ordering),
        settings={**(settings or {}), **options.model_dump(), "metrics": _parameters(chosen)},
        warnings=(*found, *(Warning("left-out", note) for note in common.notes)),
        stability=stability_of(
            common,
            ordering,
            transform=options.transform,
            teachers=measurements.teachers,
            failed=measurements.failed,
            conditional=_is_conditional(settings or {}),
        ),
    )


def _is_conditional(settings: Mapping[str, object]) -> bool:
    reading = settings.get("reading")
    return not (isinstance(reading, Mapping) and reading.get("conditioning") == "unconditional")


def _require_usable(metrics: Sequence[Metric], measurements: Measurements) -> None:
    if not metrics:
        raise StudyError(
            f"The measures {list(measurements.values)} feed no known metric: expected those of one "
            f"of {', '.join(METRICS)}. Score the responses, or pass a metric of your own."
        )
    kinds = [metric.kind for metric in metrics]
    for kind in kinds:
        if kinds.count(kind) > 1 or kind in RESERVED_FIELDS:
            raise StudyError(
                f"'{kind}' cannot name a metric here: expected each name once, and none of "
                f"{', '.join(sorted(RESERVED_FIELDS))}. Give the metric another kind."
            )
    require_measures(metrics, measurements.values)


def _ordering_metric(metrics: Sequence[Metric], by: str | None, *, without_car: bool) -> Metric:
    formed = {metric.kind: metric for metric in metrics}
    if by is not None and by not in formed:
        raise StudyError(
            f"Cannot order by '{by}': the metrics formed are {', '.join(formed)}."
            f"{nearest(by, formed)} Ask for it as a metric too, or order by one of these."
        )
    order = [kind for kind in ORDER_BY if kind != "car" or not without_car]
    default = next((kind for kind in order if kind in formed), metrics[0].kind)
    return formed[by or default]


def _parameters(metrics: Sequence[Metric]) -> dict[str, dict[str, object]]:
    """Return every metric's parameters by kind; an object that is no data class shows none."""
    found: dict[str, dict[str, object]] = {}
    for metric in metrics:
        shown: dict[str, object] = asdict(metric) if is_dataclass(metric) else {}
        found[metric.kind] = {name: value for name, value in shown.items() if name != "kind"}
    return found


def transformed(common: Common, transform: str) -> Common:
    """Return the common instructions with their rewards transformed, the pool being just these."""
    if "reward" not in common.values:
        return common
    rewards = TRANSFORMS[transform](common.values["reward"])
    return replace(common, values={**common.values, "reward": rewards})


def resampled(common: Common, options: RankingOptions) -> dict[str, Quantity]:
    """Return the mean of every measure, all from the same draws.

    One seed and number of instructions give a measure the same draws whatever measures stand beside it.
    """
    names = [*common.values, *common.denominators]
    blocks = [*common.values.values(), *common.denominators.values()]
    matrix = np.concatenate(blocks, dtype=np.float64)
    rng = np.random.default_rng(options.seed)
    draws = bootstrap_means(matrix, draws=options.n_resamples, rng=rng)
    draws = draws.reshape(options.n_resamples, len(names), -1)
    point = matrix.mean(axis=1).reshape(len(names), -1)
    quantities = {}
    for place, name in enumerate(common.values):
        quantity = Quantity(point[place], draws[:, place])
        if name in common.denominators:
            below = len(common.values) + list(common.denominators).index(name)
            quantity = _divided(quantity, Quantity(point[below], draws[:, below]), name)
        quantities[name] = quantity
    return quantities


def _divided(numerator: Quantity, denominator: Quantity, name: str) -> Quantity:
    if not (denominator.draws.min() > 0 and denominator.point.min() > 0):
        raise StudyError(
            f"The denominators of '{name}' do not sum to a positive number in every draw: expected "
            "positive counts. Drop responses without tokens before ranking."
        )
    return Quantity(numerator.point / denominator.point, numerator.draws / denominator.draws)


def formed(metric: Metric, measured: Mapping[str, Quantity]) -> Quantity:
    """Return the metric of the means, by value and by draw."""
    inputs = [measured[name] for name in metric.needs]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        point = np.asarray(metric(*(quantity.point for quantity in inputs)))
        draws = np.asarray(metric(*(quantity.draws for quantity in inputs)))
    if point.shape != inputs[0].point.shape or draws.shape != inputs[0].draws.shape:
        raise StudyError(
            f"Metric '{metric.kind}' returned shapes {point.shape} and {draws.shape}: expected "
            f"{inputs[0].point.shape} and {inputs[0].draws.shape}, one number for every mean. "
            "Compute it element by element."
        )
    if not (np.isfinite(point).all() and np.isfinite(draws).all()):
        raise StudyError(
            f"Metric '{metric.kind}' is NaN or infinite for some teacher: expected finite numbers. "
            f"Look at the means of {', '.join(metric.needs)}, or leave the metric out."
        )
    return Quantity(point, draws)


def _results(
    measurements: Measurements,
    common: Common,
    quantities: Mapping[str, Quantity],
    *,
    ordering: Metric,
) -> tuple[TeacherResult, ...]:
    placed = place_teachers(
        measurements.teachers,
        quantities,
        _upward(quantities[ordering.kind], ordering),
        n=[common.n] * len(measurements.teachers),
    )
    dropped = dict(zip(measurements.teachers, common.dropped, strict=True))
    return tuple(
        replace(
            one,
            dropped=dropped[one.teacher],
            truncated=measurements.truncated.get(one.teacher, 0),
        )
        for one in placed
    )


def place_teachers(
    labels: Sequence[str],
    quantities: Mapping[str, Quantity],
    upward: Quantity,
    *,
    n: Sequence[int],
) -> tuple[TeacherResult, ...]:
    """Return the teachers from best to worst: the one place where an order is formed.

    Args:
        labels: the teachers.
        quantities: every measure and metric, for the estimates.
        upward: what orders, so that higher is better.
        n: how many instructions stand behind each teacher's numbers.
    """
    places = ranks(upward.point)
    order = sorted(range(len(labels)), key=lambda teacher: (places[teacher], labels[teacher]))
    p_rank = rank_probabilities(upward.draws)
    beats = beat_probabilities(upward.draws, order[0])
    estimates = {name: quantity.estimates(n) for name, quantity in quantities.items()}
    return tuple(
        TeacherResult(
            teacher=labels[teacher],
            rank=int(places[teacher]),
            n=n[teacher],
            estimates={name: column[teacher] for name, column in estimates.items()},
            p_rank=tuple(p_rank[teacher].tolist()),
            p_leader_beats=float(beats[teacher]) if teacher != order[0] else None,
            dropped={},
            truncated=0,
        )
        for teacher in order
    )


def _upward(quantity: Quantity, metric: Metric) -> Quantity:
    """Return the quantity so that higher is better, by the metric's declared direction."""
    if metric.higher_is_better:
        return quantity
    return Quantity(-quantity.point, -quantity.draws)
