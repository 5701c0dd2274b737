"""What a race looks at: measures in the order of its rows, and what is known of every row beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preceptor.config.study import Study
from preceptor.data.selection import select
from preceptor.data.table import ResponseTable, drawn
from preceptor.errors import counted
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.response_warnings import skipped_rows
from preceptor.pipeline.score import TEXTS_IN_MEMORY, Step, Stored, carry_out, step_of
from preceptor.ranking.measurements import (
    Common,
    Measurements,
    common_instructions,
    complete,
    failure_shares,
    unscored_shares,
)
from preceptor.ranking.metrics import TRANSFORMS, Metric
from preceptor.ranking.places import Stability
from preceptor.ranking.placing import transformed
from preceptor.ranking.stability import stability_of, with_failures
from preceptor.ranking.verdict import MANY_CUT
from preceptor.ranking.warnings import warnings_of
from preceptor.scorers.base import Array
from preceptor.types import Response, Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.pipeline import Pipeline
    from preceptor.pipeline.plan import StudentPlan
    from preceptor.pipeline.sources import StudySource


@dataclass(frozen=True)
class Measured:
    """What was measured of the first rows of a race, for the teachers in it.

    The columns of `measurements` are in the order of the race; `places` has the row of each.
    """

    study: Study
    data: LoadedData
    steps: Sequence[Step]
    columns: Sequence[Stored]
    measurements: Measurements
    places: NDArray[np.intp]
    warnings: Sequence[Warning]

    def common(self, needed: Sequence[str]) -> tuple[Common, NDArray[np.intp]]:
        """Return the numbers on the rows where all teachers have what is needed, and these rows."""
        options = self.study.ranking
        found = common_instructions(self.measurements, needed, min_coverage=options.min_coverage)
        return transformed(found, options.transform), self.places[
            complete(self.measurements, needed)
        ]

    def stability(self, metric: Metric) -> Stability | None:
        """Return how the order of this look fares where its numbers are read otherwise."""
        options = self.study.ranking
        return stability_of(
            common_instructions(self.measurements, metric.needs, min_coverage=options.min_coverage),
            metric,
            transform=options.transform,
            teachers=self.measurements.teachers,
            failures=with_failures(self.measurements, metric, transform=options.transform),
            conditional=self.study.reading.conditioning != "unconditional",
        )

    def warnings_beside(self, common: Common, metric: Metric) -> Iterator[Warning]:
        """Yield what could mislead a reader of this look."""
        found = self.measurements
        yield from warnings_of(
            common,
            (metric,),
            teachers=found.teachers,
            by=metric,
            failed=failure_shares(found),
            unscored=unscored_shares(found, metric.needs),
        )
        yield from self.warnings
        for name, cut in found.truncated.items():
            if cut > MANY_CUT * common.n:
                yield Warning(
                    "cut-off",
                    f"Of '{name}', {counted(cut, 'response', 'was')} cut.",
                    (name,),
                )

    @cached_property
    def tokens(self) -> Mapping[str, tuple[int, int]]:
        """The responses scored of each teacher, and their tokens: the student's, else cl100k_base's."""
        table, rows = self.data.selection.table, self.data.selection.rows
        of = [
            stored["tokens" if "tokens" in stored else "length"]
            for stored in self.columns
            if not {"tokens", "length"}.isdisjoint(stored)
        ]
        counts = np.nan_to_num(of[-1].astype(np.float64))
        teacher = table.teacher[rows]
        totals = np.bincount(teacher, weights=counts, minlength=len(table.teachers))
        number = np.bincount(teacher, minlength=len(table.teachers))
        pairs = zip(number.tolist(), totals.astype(int).tolist(), strict=True)
        return dict(zip(table.teachers, pairs, strict=True))


class Ahead:
    """The responses of the first rows of a race, kept so that files are not gone through at every look."""

    def __init__(self, source: StudySource, seed: int) -> None:
        self.source, self.seed = source, seed
        self._kept: Sequence[Response] = ()
        self._rows = 0

    def until(self, rows: int) -> Iterable[Response] | None:
        """Return all responses of so many rows; twice as many are read when they run out.

        None where teachers are asked, or where the texts are too many to keep.
        """
        if self.source.jobs:
            return None
        if rows > self._rows:
            ids = self.source.gathered(None).table.instructions.tolist()
            wanted = {ids[place] for place in drawn(ids, self.seed)[: 2 * rows]}
            kept, held = [], 0
            for response in self.source:
                if response.instruction.id in wanted:
                    kept.append(response)
                    held += len(response.text or "")
                if held > TEXTS_IN_MEMORY:
                    return None
            self._kept, self._rows = kept, 2 * rows
        return self._kept


def measured_on(
    line: Pipeline, data: LoadedData, planned: StudentPlan, texts: Iterable[Response] | None
) -> Measured:
    """Score what is missing of these data, and return the measures in the order of the race.

    What is loaded for it stays loaded, for the next look. `texts` are the responses where they are kept.
    """
    source = data.source if texts is None else texts
    steps = [step_of(one, line.runtime, source, data.selection) for one in planned.scorers]
    done = [carry_out(step, line.progress, line.execute) for step in steps]
    measures = ColumnMeasures(data.selection, line.study, planned.kinds)
    found = measures.measurements([step.scorer for step in steps], done)
    places = race_rows(data.selection.table, line.study.ranking.seed)[data.selection.taken]
    warnings = [*data.warnings, *skipped_rows(data.skipped, data.problems), *measures.warnings()]
    return Measured(
        line.study,
        data,
        steps,
        done,
        _ordered(found, np.argsort(places)),
        np.sort(places),
        warnings,
    )


def race_rows(table: ResponseTable, seed: int) -> NDArray[np.intp]:
    """Return the row of the race that each instruction of the table is."""
    return np.argsort(drawn(table.instructions.tolist(), seed))


def _ordered(found: Measurements, order: NDArray[np.intp]) -> Measurements:
    def taken(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array[:, order] for name, array in arrays.items()}

    return replace(
        found,
        values=taken(found.values),
        denominators=taken(found.denominators),
        failed=None if found.failed is None else found.failed[:, order],
        unscored=None if found.unscored is None else found.unscored[:, order],
    )


def without(data: LoadedData, teachers: Sequence[str], study: Study) -> LoadedData:
    """Return the data of these teachers alone, selected anew: others may have lacked what they have."""
    options = study.ranking
    table = data.selection.table.with_teachers(teachers)
    selection = select(table, None, seed=options.seed, min_coverage=options.min_coverage)
    return replace(data, selection=selection)


def known_of(
    line: Pipeline, data: LoadedData, planned: StudentPlan, teachers: Sequence[str]
) -> dict[str, Array]:
    """Return the measures that all responses in files have beforehand, (teachers, rows of the race).

    Lengths are counted; other scores are taken where the store has them all. Where a teacher lacks a response
    to any instruction, nothing is known of all.

    Args:
        line: the study's.
        data: of all instructions.
        planned: what scores.
        teachers: the rows.
    """
    table = data.selection.table
    whole = set(teachers) <= set(table.teachers) and not len(table.lost)
    if data.source.jobs or not whole or not (table.counts() > 0).all():
        return {}
    data = without(data, teachers, line.study)
    steps = [step_of(one, line.runtime, data.source, data.selection) for one in planned.scorers]
    free = [step for step in steps if step.name == "length" or not step.lacking()]
    columns = [carry_out(step, line.progress, line.execute) for step in free]
    measures = ColumnMeasures(data.selection, line.study, planned.kinds)
    found = measures.measurements([step.scorer for step in free], columns)
    found = _ordered(found, np.argsort(race_rows(table, line.study.ranking.seed)))
    wanted = {"length", *(name for metric in planned.metrics for name in metric.needs)}
    known = {
        name: array[[found.teachers.index(teacher) for teacher in teachers]]
        for name, array in found.values.items()
        if name in wanted - set(found.denominators) and np.isfinite(array).all()
    }
    if "reward" in known:
        known["reward"] = TRANSFORMS[line.study.ranking.transform](known["reward"])
    return known
