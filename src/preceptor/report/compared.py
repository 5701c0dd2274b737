"""The numbers a ranking rests on, in its order: what curves, distributions and examples are made of.

Measures are read again and cut to the ranking's common instructions here, once for each report, so that all
that is shown beside a ranking covers just what was ranked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from preceptor.pipeline.outcome import Outcome
from preceptor.ranking.bootstrap import Array
from preceptor.ranking.measurements import Common, Measurements, common_instructions
from preceptor.ranking.metrics import CompatibilityAdjustedReward, Metric
from preceptor.ranking.placing import transformed


@dataclass(frozen=True)
class Compared:
    """An outcome's measures on its common instructions, teachers in the ranking's order.

    `raw` holds rewards as given, before any transform. `instructions` index the table's, one for each
    column.
    """

    outcome: Outcome
    raw: Common
    instructions: NDArray[np.intp]

    @classmethod
    def of(cls, outcome: Outcome) -> "Compared":
        """Read the measures of an outcome from the store once more."""
        measurements = outcome.measurements()
        needed = list(dict.fromkeys(n for metric in outcome.plan.metrics for n in metric.needs))
        coverage = outcome.study.ranking.min_coverage
        common = common_instructions(measurements, needed, min_coverage=coverage)
        places = np.array([measurements.teachers.index(t) for t in outcome.teachers])
        ordered = replace(
            common,
            values=_rows(common.values, places),
            denominators=_rows(common.denominators, places),
            dropped=tuple(common.dropped[place] for place in places.tolist()),
        )
        kept = outcome.data.selection.taken[_complete(measurements, needed)]
        assert len(kept) == common.n
        return cls(outcome, ordered, kept)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, best first."""
        return self.outcome.teachers

    @property
    def metric(self) -> Metric:
        """What orders the teachers."""
        by = self.outcome.ranking.by
        return next(metric for metric in self.outcome.plan.metrics if metric.kind == by)

    @property
    def car(self) -> CompatibilityAdjustedReward | None:
        """CAR as it was formed, None where it was not."""
        formed = self.outcome.plan.metrics
        return next((m for m in formed if isinstance(m, CompatibilityAdjustedReward)), None)

    @cached_property
    def used(self) -> Common:
        """The measures as they were ranked: rewards transformed."""
        return transformed(self.raw, self.outcome.study.ranking.transform)


def _rows(arrays: Mapping[str, Array], places: NDArray[np.intp]) -> dict[str, Array]:
    return {name: array[places] for name, array in arrays.items()}


def _complete(measurements: Measurements, needed: list[str]) -> NDArray[np.intp]:
    """Return the columns in which every teacher has every needed measure."""
    arrays = [measurements.values[name] for name in needed]
    arrays += [array for name, array in measurements.denominators.items() if name in needed]
    gaps = [np.isnan(array).any(axis=0) for array in arrays]
    return np.flatnonzero(~np.logical_or.reduce(gaps))
