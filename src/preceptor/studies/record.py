"""What metrics have been worth on published outcomes: their record, by kind of data.

`record.csv` holds it, so that a verdict need not form it anew; `computed` forms it anew, and a test and
`preceptor studies --check` hold the file to that. A study that is a negative control teaches nothing and is
left out.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from preceptor.agreement.bootstrap import bonett_wright
from preceptor.agreement.compare import FEWEST, Column, Comparison, compare
from preceptor.agreement.correlation import leave_one_out_prior
from preceptor.agreement.table import Agreement, AgreementTable
from preceptor.ranking.metrics import METRICS
from preceptor.store.files import csv_text
from preceptor.studies.predictions import mean_correlations
from preceptor.studies.study import XU, OutcomeStudy, declared, shipped, study
from preceptor.studies.tables import STUDENTS
from preceptor.types import DataKind

PRIOR = "prior"
"""The baseline that needs no scoring: a teacher's mean rank over the other students."""

_FILE = Path(__file__).with_name("record.csv")
_PRINTED = {"reward_skywork_27b": "reward"}
"""Metrics of table 4 under our names: the reward is the one that CAR is made of there."""


@dataclass(frozen=True)
class Record:
    """How well a metric predicted one study's outcomes.

    `rho` is the mean over students, `low` and `high` its 95% interval (of whole families where some
    teachers are related), None below 8 teachers. `regret` is the mean of the points lost by taking its
    favourite, None where no values are printed or scores are orders alone. `reader` is the student that
    stood in for the study's own, where one did. In an `in_sample` study something of the metric was chosen.
    `printed`: the study prints the rhos and not the values, so that the interval is a formula's, which
    knows no relatives.
    """

    metric: str
    kind: DataKind
    study: str
    teachers: int
    students: int
    rho: float
    low: float | None
    high: float | None
    regret: float | None
    in_sample: bool
    reader: str
    printed: bool

    @property
    def is_good(self) -> bool:
        """Whether chance is ruled out: the interval lies above zero."""
        return self.low is not None and self.low > 0


def comparison_of(one: OutcomeStudy) -> Comparison:
    """Return a study's own predictions beside its outcomes."""
    return compare(one.predictions, one.outcomes, directions=declared(one), catalogue=one.catalogue)


def prior_comparison(one: OutcomeStudy) -> Comparison | None:
    """Return the prior beside the outcomes of the teachers that all students had; None for too few."""
    teachers = [t for t in one.teachers if all(t in row for row in one.outcomes.values())]
    if len(one.students) < 2 or len(teachers) < FEWEST:
        return None
    observed = np.array([[row[t] for t in teachers] for row in one.outcomes.values()])
    prior = Column(PRIOR, PRIOR, False, -leave_one_out_prior(observed), baseline=True)
    return Comparison(
        one.students, tuple(teachers), observed, (prior,), (), catalogue=one.catalogue
    )


def computed(studies: Iterable[OutcomeStudy] | None = None) -> Iterator[Record]:
    """Yield the record of every metric of ours, and of the prior, on every study that can teach something."""
    for one in shipped() if studies is None else studies:
        if one.control:
            continue
        if one.name == XU:
            yield from _printed(one)
        if (prior := prior_comparison(one)) is not None:
            yield from _records(one, prior)
        if one.predictions:
            yield from _records(one, comparison_of(one))


def _records(one: OutcomeStudy, comparison: Comparison) -> Iterator[Record]:
    table = AgreementTable(comparison)
    alone = len(comparison.columns) == 1
    for column, mean in zip(comparison.columns, table.means, strict=True):
        if column.metric in METRICS or (alone and column.metric == PRIOR):
            reader = column.title.partition(" (")[2].rstrip(")")
            found = _record(one, column.metric, mean, comparison, reader)
            yield found
            if found.metric == "loss":
                yield replace(
                    found, metric="likelihood"
                )  # one order, and one column in a comparison


def _record(
    one: OutcomeStudy, metric: str, mean: Agreement, comparison: Comparison, reader: str
) -> Record:
    regret = None if one.orders_only else round(mean.regret, 3)
    return Record(
        metric=metric,
        kind=one.kind,
        study=one.name,
        teachers=len(comparison.teachers),
        students=len(comparison.students),
        rho=round(mean.rho, 3),
        low=_known(mean.ends.low),
        high=_known(mean.ends.high),
        regret=regret,
        in_sample=metric in one.in_sample,
        reader=reader,
        printed=False,
    )


def _printed(one: OutcomeStudy) -> Iterator[Record]:
    """Yield the record by table 4 of Xu et al., which prints rho alone."""
    for name, rho in mean_correlations().items():
        metric = _PRINTED.get(name, name)
        if metric in METRICS:
            ends = bonett_wright(float(rho), len(one.teachers))
            yield Record(
                metric=metric,
                kind=one.kind,
                study=one.name,
                teachers=len(one.teachers),
                students=len(STUDENTS),
                rho=round(float(rho), 3),
                low=_known(ends.low),
                high=_known(ends.high),
                regret=None,
                in_sample=metric in one.in_sample,
                reader="",
                printed=True,
            )


def _known(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def text_of(records: Iterable[Record]) -> str:
    """Return the file of these records."""
    return csv_text([asdict(one) for one in records])


@cache
def records() -> tuple[Record, ...]:
    """Return the record that comes with the package."""
    rows = csv.DictReader(io.StringIO(_FILE.read_text(encoding="utf-8")))
    return tuple(_read(row) for row in rows)


def _read(row: dict[str, str]) -> Record:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    kind: DataKind = study(row["study"]).kind
    return Record(
        metric=row["metric"],
        kind=kind,
        study=row["study"],
        teachers=int(row["teachers"]),
        students=int(row["students"]),
        rho=float(row["rho"]),
        low=number("low"),
        high=number("high"),
        regret=number("regret"),
        in_sample=row["in_sample"] == "True",
        reader=row["reader"],
        printed=row["printed"] == "True",
    )


def of(metric: str, kind: DataKind) -> tuple[Record, ...]:
    """Return a metric's records on one kind of data, of most teachers first, of as many the lower rho."""
    found = [one for one in records() if (one.metric, one.kind) == (metric, kind)]
    return tuple(sorted(found, key=lambda one: (-one.teachers, one.rho)))


_WHERE: Mapping[DataKind, str] = {
    "chat": "in open chat",
    "reasoning": "on reasoning data",
    "agent": "on agent data",
}


def line_of(metric: str, kind: DataKind) -> str:
    """Return a metric's record on a kind of data in one line, with what must be held against it."""
    found, name = of(metric, kind), "CAR" if metric == "car" else metric
    if found:
        studies = len({one.study for one in found})
        parts = [
            f"{name} {_WHERE[kind]}: {_worth(found[0])}, "
            f"{f'{studies} studies' if studies > 1 else 'one study'}"
        ]
        parts[0] += ", in which it was chosen" if found[0].in_sample else ""
        worst = min(found, key=lambda one: one.rho)
        if worst.rho < 0 < found[0].rho:
            parts.append(f"but {worst.rho:.2f} over {worst.teachers} teachers elsewhere")
    else:
        parts = [f"{name} {_WHERE[kind]}: no published outcome shows what it is worth"]
    if metric == "car" and (reward := of("reward", kind)):
        parts.append(f"its reward alone {reward[0].rho:.2f}")
    if prior := of(PRIOR, kind):
        few = "" if prior[0].is_good else f" ({prior[0].teachers} teachers)"
        parts.append(f"a teacher's record with other students {prior[0].rho:.2f}{few}")
    return "; ".join(parts) + "."


def _worth(one: Record) -> str:
    interval = f" [{one.low:.2f}, {one.high:.2f}]" if one.low is not None else ""
    return f"rho {one.rho:.2f}{interval} over {one.teachers} teachers"


def has_good_record(metric: str, kind: DataKind) -> bool:
    """Tell whether chance is ruled out for a metric on this kind of data, by all records that can tell."""
    found = [one for one in of(metric, kind) if one.low is not None]
    return bool(found) and all(one.is_good for one in found)
