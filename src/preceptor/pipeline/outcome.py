"""What the pipeline ends with: a ranking, and where everything it rests on can be read again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.responses import shown_path
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.diversity import repeat_themselves, with_diversity
from preceptor.pipeline.exploratory import cheapest_reward, noise_in
from preceptor.pipeline.plan import REFERENCE, StudentPlan
from preceptor.pipeline.response_warnings import drawn_from_common, skipped_rows
from preceptor.pipeline.score import Step
from preceptor.pipeline.work import Executor, Progress
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.result import Ranking
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData


@dataclass(frozen=True)
class Outcome:
    """A ranking, and where what it rests on can be read again: no measures and no texts are kept here."""

    ranking: Ranking
    data: LoadedData
    study: Study
    plan: StudentPlan
    steps: Sequence[Step]

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, best first."""
        return tuple(result.teacher for result in self.ranking.teachers)

    def measurements(self) -> Measurements:
        """Return what was ranked, read from the store once more."""
        measures = ColumnMeasures(self.data.selection, self.study, self.plan.kinds)
        scorers = [step.scorer for step in self.steps]
        return measures.measurements(scorers, (step.stored() for step in self.steps))


def completed(
    ranking: Ranking,
    data: LoadedData,
    study: Study,
    runtime: Runtime,
    progress: Progress,
    execute: Executor,
) -> Ranking:
    """Return the ranking with the diversity of its responses, and warnings of what was ranked.

    Those are of the responses, the selection, rows that could not be read, and noise.
    """
    ranking = with_diversity(ranking, data, runtime, execute)
    noise, way = [], []
    if not {"no-reward", "one-study"}.isdisjoint(warning.code for warning in ranking.warnings):
        noise = noise_in(data, runtime, progress, execute)
        way = [cheapest_reward(study, data.source)] if data.reward is None else []
    found = [*noise, *data.warnings, *repeat_themselves(ranking.diversity)]
    found += drawn_from_common(data.selection) if study.data.limit is not None else []
    found += [*skipped_rows(data.skipped, data.problems), *way]
    return replace(ranking, warnings=(*ranking.warnings, *found))


def compared(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes of one run, warned of where another reward or template gives another winner."""
    return [
        replace(one, ranking=replace(one.ranking, warnings=(*one.ranking.warnings, *found)))
        if (found := list(_turned(one, outcomes)))
        else one
        for one in outcomes
    ]


def _turned(one: Outcome, outcomes: Sequence[Outcome]) -> Iterator[Warning]:
    winners = _winners(one)
    for other in outcomes:
        if other is one or _model(other) != _model(one) or _winners(other) == winners:
            continue
        conditions = {
            f"reward = {other.data.reward_name}": other.data.reward_name != one.data.reward_name,
            f"student = {other.ranking.student}": other.ranking.student != one.ranking.student,
        }
        named = ", ".join(name for name, differs in conditions.items() if differs)
        shared = set(_winners(other)) > set(winners)
        what = "The first place is shared" if shared else "The winner changes"
        yield Warning("winner-changes", f"{what} under {named} ({' and '.join(_winners(other))}).")


def _model(outcome: Outcome) -> str | None:
    model = outcome.plan.student
    return None if model is None else model.student.model


def _winners(outcome: Outcome) -> list[str]:
    return [result.teacher for result in outcome.ranking.teachers if result.rank == 1]


def settings_of(
    data: LoadedData, study: Study, plan: StudentPlan, steps: Sequence[Step]
) -> dict[str, object]:
    """Return how the measurements were made; of every step the identity of its numbers in full."""
    source = data.source
    settings: dict[str, object] = {
        "responses": [shown_path(path) for path in study.data.responses],
        "layouts": [file.describe() for file in source.files],
        "limit": study.data.limit,
        "instructions_in_data": len(data.selection.table.instructions),
        "prices": _prices(data, study),
        "reward": data.reward and data.reward_name,
        "reading": study.reading.model_dump(),
        "skipped_rows": dict(data.skipped),
        "cut_by_generator": {k: v for k, v in data.selection.table.cut.items() if v},
    }
    if data.selection.table.signs.traces:
        settings["traces"] = data.selection.table.signs.traces
    generated = {job.name: job.partition.costs().tokens for job in source.jobs}
    if known := {name: mean for name, mean in generated.items() if math.isfinite(mean)}:
        settings["generated_tokens"] = known
    if source.jobs:
        settings["instructions"] = list(study.data.instructions)
        settings["teachers"] = source.specs()
    if study.best_of_n:
        settings["best_of_n"] = [best_of_n.model_dump(mode="json") for best_of_n in study.best_of_n]
    if plan.student is not None:
        settings["student"] = plan.student.spec()
    if any(kind.endswith(REFERENCE) for kind in plan.kinds):
        settings["reference"] = study.reference_model.name
    settings["scorers"] = {
        step.name: {"identity": step.identity.digest, "spec": step.identity.spec} for step in steps
    }
    return settings


def _prices(data: LoadedData, study: Study) -> dict[str, float]:
    """Return what a million response tokens cost, of the teachers whose price is known."""
    known = study.known
    entries = {name: known.find(name) for name in data.selection.table.teachers}
    return {
        name: one.price_out for name, one in entries.items() if one and one.price_out is not None
    }
