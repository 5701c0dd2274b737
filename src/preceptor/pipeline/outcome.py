"""What the pipeline ends with: a ranking, and where everything it rests on can be read again."""

from collections.abc import Sequence
from dataclasses import dataclass

from preceptor.config.study import Study
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.plan import REFERENCE, StudentPlan
from preceptor.pipeline.response_warnings import drawn_from_common, skipped_rows
from preceptor.pipeline.score import Step
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.result import Ranking
from preceptor.ranking.warnings import Warning


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
        return measures.measurements(
            [step.scorer for step in self.steps], [step.stored() for step in self.steps]
        )


def warnings_of(data: LoadedData, study: Study) -> list[Warning]:
    """Return the warnings of the responses, the selection and the rows that could not be read."""
    limited = drawn_from_common(data.selection) if study.data.limit is not None else []
    return [*data.warnings, *limited, *skipped_rows(data.skipped, data.problems)]


def settings_of(
    data: LoadedData, study: Study, plan: StudentPlan, steps: Sequence[Step]
) -> dict[str, object]:
    """Return how the measurements were made; of every step the identity of its numbers in full."""
    source = data.source
    settings: dict[str, object] = {
        "responses": list(study.data.responses),
        "layouts": [file.describe() for file in source.files],
        "limit": study.data.limit,
        "reward": data.reward and data.reward_name,
        "reading": study.reading.model_dump(),
        "skipped_rows": dict(data.skipped),
        "cut_by_generator": {k: v for k, v in data.selection.table.cut.items() if v},
    }
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
