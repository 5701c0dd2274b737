"""How far a ranking is to be trusted: its kind of data, and the record of its metric and teachers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.table import ResponseTable
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import Places, Trust
from preceptor.ranking.result import Ranking
from preceptor.studies.own import every
from preceptor.studies.prior import known_teachers, order_of
from preceptor.studies.record import PRIOR, has_good_record, line_of, of
from preceptor.types import DataKind, Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData

TOOLS, TRACES, WORKED = 0.1, 0.5, 500
"""From these shares of responses with tools or traces, and lengths where as many have references, data are
of a kind."""

_FEWEST_KNOWN = 2


@dataclass(frozen=True)
class FoundKind:
    """What kind the responses are, and why, in words."""

    kind: DataKind
    why: str


def kind_of(asked: str, table: ResponseTable | None) -> FoundKind:
    """Return the kind that was asked for; for auto what the responses show. None: there are none yet."""
    for kind in get_args(DataKind):
        if asked == kind:
            return FoundKind(kind, "as asked for")
    if table is None or not table.signs.responses:
        return FoundKind("chat", "no response is there yet; --kind says otherwise")
    seen = table.signs
    length = seen.characters / seen.responses
    if seen.tools >= TOOLS * seen.responses:
        return FoundKind("agent", f"{seen.tools / seen.responses:.0%} of the responses have tools")
    if seen.traces >= TRACES * seen.responses:
        return FoundKind(
            "reasoning", f"{seen.traces / seen.responses:.0%} of the responses show a trace"
        )
    referenced = table.checked_keys is not None and len(table.keys) > 0
    share = float(np.mean(table.checked_keys != table.keys)) if referenced else 0.0
    has = "with" if share >= TRACES else "few" if share else "without"
    why = f"{has} references, {length:,.0f} characters on average, few traces"
    worked = share >= TRACES and length >= WORKED
    return FoundKind("reasoning" if worked else "chat", why)


def options_for(study: Study, table: ResponseTable) -> RankingOptions:
    """Return how the study ranks, with the kind of its data."""
    found = kind_of(study.ranking.kind, table)
    return study.ranking.model_copy(update={"kind": found.kind})


def with_trust(
    ranking: Ranking, warnings: Iterable[Warning], data: LoadedData, study: Study, runtime: Runtime
) -> Ranking:
    """Return the ranking with these warnings, and with what its metric and teachers were worth elsewhere."""
    found = kind_of(study.ranking.kind, data.selection.table)
    kind = found.kind
    known = known_teachers(ranking.order, ranking.student, kind, every(runtime.store))
    names = (*ranking.metrics, PRIOR)
    trust = Trust(
        kind=kind,
        why=found.why,
        record=line_of(ranking.by, kind),
        records=tuple(asdict(one) for name in names for one in of(name, kind)),
        known=known,
        combined=_combined(ranking, known, kind),
    )
    apart = _disagreement(ranking, kind)
    return replace(ranking, trust=trust, warnings=(*apart, *ranking.warnings, *warnings))


def _upward(ranking: Places, metric: str) -> dict[str, float]:
    sign = 1 if ranking.metrics[metric].higher_is_better else -1
    return {one.teacher: sign * one.estimates[metric].value for one in ranking}


def _combined(ranking: Places, known: dict[str, float], kind: DataKind) -> tuple[str, ...]:
    """Return the combined order; none where the metric has no record or fewer than two teachers are known."""
    metric, prior = of(ranking.by, kind), of(PRIOR, kind)
    if len(known) < _FEWEST_KNOWN or not metric or not prior:
        return ()
    return order_of(_upward(ranking, ranking.by), known, (metric[0].rho, prior[0].rho))


def _disagreement(ranking: Places, kind: DataKind) -> Iterable[Warning]:
    """Yield a warning where no teacher leads by the metric that orders and by all that have a good record."""
    leaders = {ranking.by: {one.teacher for one in ranking if one.rank == 1}}
    for metric in ranking.metrics:
        if metric != ranking.by and has_good_record(metric, kind):
            values = _upward(ranking, metric)
            leaders[metric] = {
                name for name, value in values.items() if value == max(values.values())
            }
    if not set.intersection(*leaders.values()):
        said = ", ".join(
            f"{' and '.join(sorted(names))} by {metric}" for metric, names in leaders.items()
        )
        yield Warning(
            "metrics-disagree", f"Metrics with a good record disagree on who is first: {said}."
        )
