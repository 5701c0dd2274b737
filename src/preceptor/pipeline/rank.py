"""Carry a study out from files to rankings.

Read once for the table, score what the store lacks, put the measures together as columns, rank. Nothing
here knows how a score is made.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from typing import Any

from numpy.typing import NDArray

from preceptor.config.runtime import Runtime
from preceptor.config.study import Student, Study
from preceptor.pipeline import plan
from preceptor.pipeline.columns import Assembly
from preceptor.pipeline.load import Opened, open_data, require_addresses, step_of
from preceptor.pipeline.score import Progress, Silent, Step, carry_out
from preceptor.pipeline.sources import GeneratedSource
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.rank import rank
from preceptor.ranking.result import Ranking
from preceptor.ranking.warnings import Warning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A ranking, and where what it rests on can be read again: no measures and no texts are kept here."""

    ranking: Ranking
    opened: Opened
    study: Study
    planned: plan.StudentPlan
    steps: Sequence[Step]

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, best first."""
        return tuple(result.teacher for result in self.ranking.teachers)

    def measurements(self) -> Measurements:
        """Return what was ranked, read from the store once more."""
        assembly = _assembly(self.opened, self.study, self.planned)
        return assembly.measurements(
            [step.scorer for step in self.steps], [step.stored() for step in self.steps]
        )


def run(study: Study, runtime: Runtime, progress: Progress | None = None) -> list[Ranking]:
    """Return one ranking for each student and source of rewards; only what the store lacks is computed.

    Raises:
        PreceptorError: the data, a model or the question do not allow a ranking; what was scored before
            that is stored.
    """
    shown = progress or Silent()
    return list(rank_opened(open_data(study, runtime, shown), study, runtime, shown))


def rank_opened(
    data: Sequence[Opened], study: Study, runtime: Runtime, progress: Progress | None = None
) -> Iterator[Ranking]:
    """Yield one ranking for each student and opened data, as each is done; see `run`."""
    # Not a loop, which would hold on to one while the next is computed.
    return map(attrgetter("ranking"), outcomes(data, study, runtime, progress))


def outcomes(
    data: Sequence[Opened], study: Study, runtime: Runtime, progress: Progress | None = None
) -> Iterator[Outcome]:
    """Yield one outcome for each student and opened data, as each is done; see `run`.

    All models are found, and endpoints' keys looked at, before the first is loaded.
    """
    pairs = list(product(students_of(study), data))
    plans = [steps_of(opened, study, runtime, student) for student, opened in pairs]
    require_addresses([step for _, steps in plans for step in steps])
    for (_, opened), (planned, steps) in zip(pairs, plans, strict=True):
        ranking = _ranking(opened, study, planned, steps, progress or Silent())
        yield Outcome(ranking, opened, study, planned, steps)


def students_of(study: Study) -> Sequence[Student | None]:
    """Return the students to rank for; None is any, by reward and length alone."""
    return study.students or (None,)


def steps_of(
    opened: Opened, study: Study, runtime: Runtime, student: Student | None
) -> tuple[plan.StudentPlan, list[Step]]:
    """Return what ranking opened data for a student takes, as steps over the store."""
    planned = plan.for_student(study, runtime, student, reward=opened.reward)
    choice = opened.choice
    return planned, [step_of(one, runtime, opened.source, choice) for one in planned.scorers]


def _carried_out(steps: Sequence[Step], progress: Progress) -> list[Mapping[str, NDArray[Any]]]:
    """Carry out the steps; a model is freed once no later step of them uses it."""
    columns = []
    for place, step in enumerate(steps):
        columns.append(carry_out(step, progress))
        if not any(step.scorer.resource is later.scorer.resource for later in steps[place + 1 :]):
            step.scorer.resource.release()
    return columns


def _assembly(opened: Opened, study: Study, planned: plan.StudentPlan) -> Assembly:
    return Assembly(opened.choice, study, [metric.kind for metric in planned.metrics])


def _ranking(
    opened: Opened,
    study: Study,
    planned: plan.StudentPlan,
    steps: Sequence[Step],
    progress: Progress,
) -> Ranking:
    columns = _carried_out(steps, progress)
    assembly = _assembly(opened, study, planned)
    measurements = assembly.measurements([step.scorer for step in steps], columns)
    settings = _settings(opened, study, planned) | {
        "scorers": {step.name: _described(step) for step in steps}
    }
    ranking = rank(
        measurements,
        student=planned.name,
        metrics=planned.metrics,
        by=study.by,
        settings=settings,
        options=study.ranking,
    )
    warnings = (
        *ranking.warnings,
        *opened.warnings,
        *assembly.warnings(),
        *_not_drawn(opened, study),
        *_skipped(opened),
    )
    return replace(ranking, warnings=warnings)


def _described(step: Step) -> dict[str, object]:
    """Return what made the numbers of a step: the identity under which they lie, in full."""
    identity = step.partition.identity
    return {"identity": identity.digest, "spec": identity.spec}


def _not_drawn(opened: Opened, study: Study) -> list[Warning]:
    """Return, where a limit drew instructions, which could not be drawn and why."""
    table = opened.choice.table
    reasons = [
        f"'{teacher}' {', '.join(f'{reason} {count}' for reason, count in counts.items())}"
        for teacher, counts in table.dropped.items()
        if counts
    ]
    if study.data.limit is None or not reasons:
        return []
    return [
        Warning(
            "drawn-from-common",
            f"The {len(opened.choice.taken)} instructions were drawn from those that every teacher answered, "
            f"of {len(table.instructions)} in the data. Lacking: {'; '.join(reasons)}.",
        )
    ]


def _skipped(opened: Opened) -> list[Warning]:
    """Return a warning for each file that had rows that could not be read, with the first of them."""
    first = {problem.path: problem for problem in reversed(opened.problems)}
    return [
        Warning(
            "skipped-rows",
            f"{count} rows of {path} could not be read and were skipped; the first: {first[path]}.",
        )
        for path, count in opened.skipped.items()
        if count
    ]


def _settings(opened: Opened, study: Study, planned: plan.StudentPlan) -> dict[str, object]:
    settings: dict[str, object] = {
        "responses": list(study.data.responses),
        "layouts": [file.describe() for file in opened.source.files],
        "limit": study.data.limit,
        "reward": opened.reward and opened.reward_name,
        "reading": study.reading.model_dump(),
        "skipped_rows": dict(opened.skipped),
        "cut_by_generator": {k: v for k, v in opened.choice.table.cut.items() if v},
    }
    if isinstance(opened.source, GeneratedSource):
        settings["instructions"] = list(study.data.instructions)
        settings["teachers"] = opened.source.specs()
    if study.best_of_n:
        settings["derived"] = [derived.model_dump(mode="json") for derived in study.best_of_n]
    if planned.student is not None:
        settings["student"] = planned.student.spec()
    if any(kind.endswith(plan.REFERENCE) for kind in (m.kind for m in planned.metrics)):
        settings["reference"] = study.reference_model.name
    return settings
