"""Ranking: teachers from best to worst for one student, and how sure that is.

There is one common set of instructions, and what each of them did to every mean and metric, from which come
intervals, paired comparisons and P(first). Whatever could mislead (dropped rows, negative rewards, an order
that turns with beta) stands beside the result as a warning.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from types import MappingProxyType

from preceptor.errors import StudyError, nearest
from preceptor.ranking.categories import by_category
from preceptor.ranking.inference import MIN_EFFECTIVE, effective_numbers
from preceptor.ranking.measurements import (
    Common,
    Measurements,
    common_instructions,
    failure_shares,
    require_measures,
    unscored_shares,
)
from preceptor.ranking.metrics import METRICS, Metric, metrics_for
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import (
    MIN_PROMPTS,
    FormedMetric,
    OrderVariant,
    Stability,
    TeacherResult,
)
from preceptor.ranking.placing import Placed, placed, transformed
from preceptor.ranking.result import Ranking
from preceptor.ranking.stability import stability_of, with_failures
from preceptor.ranking.warnings import negative_rewards, warnings_of
from preceptor.types import Warning

__all__ = [
    "ORDER_BY",
    "Measurements",
    "OrderVariant",
    "Ranking",
    "Stability",
    "TeacherResult",
    "rank",
]

_IN_CHAT = ("car", "reward", "information", "likelihood")
ORDER_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"chat": _IN_CHAT, "reasoning": ("rsr", *_IN_CHAT), "agent": _IN_CHAT}
)
"""What orders by default on each kind of data: the first that was formed, CAR only where it means something.

Written down before any outcome was looked at for it: docs/explanation/studies.md.
"""

RESERVED_FIELDS = frozenset(
    (
        "teacher",
        "rank",
        "n",
        "p_best",
        "p_rank",
        "p_leader_beats",
        "behind",
        "p_value",
        "discordant",
        "dropped",
        "truncated",
        "estimates",
    )
)
"""Fields of a record that no measure or metric may be named after."""


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
        by: kind of the metric that orders; by default the first of `ORDER_BY` that was formed, of the
        options'
            kind of data, chat where they leave it open.
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
    ordering = ordering_metric(chosen, by, kind=options.kind, without_car=meaningless)
    found = placed(
        used,
        ordering,
        metrics=chosen,
        teachers=measurements.teachers,
        options=options,
        mixtures=measurements.mixtures,
    )
    conditional = _is_conditional(settings or {})
    # Within a kind a mixture may be one of the others, who could then never be told from it.
    single = [
        row for row, name in enumerate(measurements.teachers) if name not in measurements.mixtures
    ]
    warnings = warnings_of(
        used,
        chosen,
        teachers=measurements.teachers,
        by=ordering,
        failed=failure_shares(measurements),
        unscored=unscored_shares(measurements, needed),
    )
    return Ranking(
        student=student,
        by=ordering.kind,
        metrics={m.kind: FormedMetric(tuple(m.needs), m.higher_is_better) for m in chosen},
        instructions=measurements.instructions,
        teachers=tuple(_with_losses(one, measurements, common) for one in found.teachers),
        settings={**(settings or {}), **options.model_dump(), "metrics": _parameters(chosen)},
        warnings=(
            *_founded(warnings, ordering, used, kind=options.kind),
            *_rough(found, by=ordering.kind),
            *(Warning("left-out", note) for note in common.notes),
        ),
        stability=stability_of(
            common,
            ordering,
            transform=options.transform,
            teachers=measurements.teachers,
            failures=with_failures(measurements, ordering, transform=options.transform),
            conditional=conditional,
        ),
        evidence=found.evidence,
        categories=by_category(
            common.of(single),
            used.of(single),
            ordering,
            teachers=[measurements.teachers[row] for row in single],
            options=options,
            conditional=conditional,
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


def _founded(
    warnings: Iterable[Warning], by: Metric, common: Common, *, kind: str
) -> Iterator[Warning]:
    """Yield the warnings; that an order looks at no reward weighs less for RSR on reasoning that has one."""
    known = kind == "reasoning" and by.kind == "rsr" and "reward" in common.values
    for one in warnings:
        if one.code == "no-reward" and known:
            yield Warning(
                "one-study",
                "The order by rsr looks at no reward. On reasoning it has found good teachers in one "
                "study, on "
                "which it was tuned.",
            )
        else:
            yield one


def ordering_metric(
    metrics: Sequence[Metric], by: str | None, *, kind: str = "chat", without_car: bool = False
) -> Metric:
    """Return the metric named `by`, by default the first of `ORDER_BY` that was formed; auto is as chat.

    Raises:
        StudyError: it is not among the metrics.
    """
    formed = {metric.kind: metric for metric in metrics}
    if by is not None and by not in formed:
        raise StudyError(
            f"Cannot order by '{by}': the metrics formed are {', '.join(formed)}."
            f"{nearest(by, formed)} Ask for it as a metric too, or order by one of these."
        )
    wanted = ORDER_BY.get(kind, _IN_CHAT)
    order = [one for one in wanted if one != "car" or not without_car]
    default = next((one for one in order if one in formed), metrics[0].kind)
    return formed[by or default]


def _parameters(metrics: Sequence[Metric]) -> dict[str, dict[str, object]]:
    """Return every metric's parameters by kind; an object that is no data class shows none."""
    found: dict[str, dict[str, object]] = {}
    for metric in metrics:
        shown: dict[str, object] = asdict(metric) if is_dataclass(metric) else {}
        found[metric.kind] = {name: value for name, value in shown.items() if name != "kind"}
    return found


def _rough(found: Placed, *, by: str) -> Iterator[Warning]:
    scores, quantity = found.scores, found.upward
    if scores.n < MIN_PROMPTS:
        return
    said = "rough, and miss more often than they say. Give more instructions."
    causes = (
        (
            effective_numbers(scores) < MIN_EFFECTIVE,
            f"A response or two make most of what {by} varies by for",
        ),
        (
            ~quantity.influence.any(axis=1) & (quantity.spread == 0),
            f"Every response gives the same {by} for",
        ),
    )
    for which, cause in causes:
        names = tuple(name for name, one in zip(scores.labels, which, strict=True) if one)
        listed = ", ".join(f"'{name}'" for name in names)
        if names:
            yield Warning("rough-interval", f"{cause} {listed}: these intervals are {said}", names)


def _with_losses(
    result: TeacherResult, measurements: Measurements, common: Common
) -> TeacherResult:
    place = measurements.teachers.index(result.teacher)
    return replace(
        result,
        dropped=common.dropped[place],
        truncated=measurements.truncated.get(result.teacher, 0),
    )
