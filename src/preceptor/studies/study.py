"""Outcome studies: who taught whom, how well the student then did, and what was measured before.

Each shipped study is a CSV file in `data/` beside its table in `studies.toml`; Xu et al.'s outcomes are
made of its own tables. A user's own stand beside the store (`own`). All are one type, so that whatever is
computed for one is computed for all.
"""

import csv
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.agreement.orders import Prediction, read_predictions
from preceptor.config.catalogue import SHIPPED, Catalogue, CatalogueEntry
from preceptor.errors import StudyError, nearest
from preceptor.ranking.metrics import METRICS, metrics_for
from preceptor.studies.tables import average_performance
from preceptor.types import DataKind

XU = "xu2024"
_DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class OutcomeStudy:
    """Outcomes of fine-tuning: student -> teacher -> score, higher is better.

    `kind` is that of the teachers' data and `score` what the number is. `predictions` are what was measured
    before training, with the `directions` of columns that are no metric of ours; of the metrics in
    `in_sample` something was chosen on these very outcomes. `noise` is the standard deviation of a score
    between runs, in its unit, None where nothing says it, and `noise_runs` from how many runs it is, 0
    where it is a formula's. A study is `second_hand` where its source was not read, `orders_only` where no
    score is known, and a `control` where its spread is its noise, so that nothing can be learnt from it.
    `own` is a user's.
    """

    name: str
    title: str
    source: str
    kind: DataKind
    score: str
    outcomes: Mapping[str, Mapping[str, float]]
    predictions: tuple[Prediction, ...] = ()
    directions: Mapping[str, bool] = field(default_factory=dict)
    in_sample: tuple[str, ...] = ()
    catalogue: Catalogue = SHIPPED
    noise: float | None = None
    noise_runs: int = 0
    noise_source: str = ""
    second_hand: bool = False
    orders_only: bool = False
    control: bool = False
    own: bool = False

    @property
    def students(self) -> tuple[str, ...]:
        """The students, in the source's order."""
        return tuple(self.outcomes)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Every teacher of some student, in the source's order."""
        return tuple(dict.fromkeys(name for row in self.outcomes.values() for name in row))

    @property
    def marks(self) -> tuple[str, ...]:
        """What a reader must know before a number of it, in words."""
        said = {
            "second-hand": self.second_hand,
            "orders only": self.orders_only,
            "negative control": self.control,
            "your own": self.own,
        }
        return tuple(words for words, holds in said.items() if holds)


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))


def names() -> tuple[str, ...]:
    """Return the names of the shipped studies."""
    return tuple(_tables())


def shipped() -> tuple[OutcomeStudy, ...]:
    """Return every study that comes with the package."""
    return tuple(map(study, names()))


@cache
def study(name: str) -> OutcomeStudy:
    """Return a shipped study.

    Raises:
        StudyError: none has this name.
    """
    if name not in _tables():
        raise StudyError(
            f"No study is called '{name}'; there are {', '.join(names())}.{nearest(name, names())}"
        )
    table = dict(_tables()[name])
    families, measures = table.pop("families", {}), table.pop("measures", {})
    known = _catalogue(families, table.pop("closed", ()))
    predictions, each = table.pop("predictions", None), table.pop("each_benchmark", False)
    table["in_sample"] = tuple(table.get("in_sample", ()))
    found = OutcomeStudy(name, **table, outcomes={}, catalogue=known)
    if name == XU:
        found = replace(found, outcomes=average_performance())
    else:
        rows = rows_of(name)
        outcomes = _outcomes(rows, each_benchmark=each, standard=found.orders_only)
        found = replace(found, outcomes=outcomes, predictions=_predictions(name, rows, measures))
    if predictions:
        found = replace(found, predictions=tuple(read_predictions(str(_DATA / predictions))))
    return found


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a shipped CSV file as printed; its first line is the source."""
    with (_DATA / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        next(lines)
        return list(csv.DictReader(lines))


def _catalogue(families: Mapping[str, Mapping[str, float]], closed: Iterable[str]) -> Catalogue:
    """Return the catalogue with the families and sizes (0: unknown) of teachers that it lacks."""
    own = tuple(
        CatalogueEntry(
            name, name, family, "", name, parameters=size or None, hosted=name in {*closed}
        )
        for family, members in families.items()
        for name, size in members.items()
    )
    return Catalogue(own) + SHIPPED if own else SHIPPED


def _outcomes(
    rows: Iterable[Mapping[str, str]], *, each_benchmark: bool, standard: bool
) -> dict[str, dict[str, float]]:
    """Return the mean over benchmarks; `standard` takes z within each first, since their scales differ."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        benchmark = row.get("benchmark", "")
        place = found.setdefault((row["student"], benchmark), {})
        place[SHIPPED.label(row["teacher"])] = float(row["score"])
    if each_benchmark:
        return {f"{student}, {benchmark}": row for (student, benchmark), row in found.items()}
    if standard:
        found = {key: _standard(row) for key, row in found.items()}
    return {
        student: {
            teacher: float(
                np.mean([row[teacher] for (of, _), row in found.items() if of == student])
            )
            for (of, _), first in found.items()
            if of == student
            for teacher in first
        }
        for student in dict.fromkeys(student for student, _ in found)
    }


def _standard(row: Mapping[str, float]) -> dict[str, float]:
    values = np.array(list(row.values()))
    return dict(zip(row, ((values - values.mean()) / values.std()).tolist(), strict=True))


def _predictions(
    name: str, rows: Iterable[Mapping[str, str]], measures: Mapping[str, str]
) -> tuple[Prediction, ...]:
    """Return what was measured of each student's teachers, and our metrics formed of it.

    A metric that is printed stands as printed. `information` is the mean number of tokens times their mean
    loss.
    """
    if not measures:
        return ()
    by_student: dict[str, dict[str, Mapping[str, float | None]]] = {}
    for row in rows:
        printed = {k: float(v) for k, v in row.items() if k not in ("teacher", "student", "score")}
        given = {ours: printed.pop(theirs) for ours, theirs in measures.items()}
        given["information"] = given["length"] * given["loss"]
        means = {name: np.array(value) for name, value in given.items()}
        formed = {m.kind: float(m(*(means[n] for n in m.needs))) for m in metrics_for(means)}
        teacher = SHIPPED.label(row["teacher"])
        by_student.setdefault(row["student"], {})[teacher] = {**formed, **printed}
    return tuple(Prediction(student, name, values) for student, values in by_student.items())


def declared(one: OutcomeStudy) -> dict[str, bool]:
    """Return the directions of a study's own columns, those of our metrics left out."""
    return {name: higher for name, higher in one.directions.items() if name not in METRICS}
