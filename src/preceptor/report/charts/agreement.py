"""Agreement of predictions with what was observed: every metric's rho, and the scatter behind one.

A rho of few teachers is uncertain, so it is drawn with its interval for each student, and the teachers
themselves stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from preceptor.agreement.bootstrap import FEWEST_FOR_INTERVAL
from preceptor.agreement.compare import Column
from preceptor.agreement.table import Agreement, AgreementTable
from preceptor.report.charts.dots import Dot, dot_chart, dot_rows, dots_data, dots_height
from preceptor.report.charts.parts import (
    WHOLE,
    Chart,
    Families,
    Row,
    altair,
    counted,
    cut,
    label,
    labels,
    name_layer,
    name_rows,
    named,
    number,
    shown,
    tips,
    whole_spec,
)
from preceptor.report.wording import row_labels

if TYPE_CHECKING:
    from preceptor.report.data import Report


HEIGHT = 380
MEAN = "mean over students"


def agreement_charts(report: Report) -> tuple[Chart, ...]:
    """Return rho of every metric and the ordering metric's scatter for each student; none without."""
    if report.agreement is None:
        return ()
    column = _ordering_column(report, report.agreement)
    return (_rhos(report.agreement), *_scatters(report.agreement, column, outcome=report.outcome))


def _rhos(table: AgreementTable) -> Chart:
    rows = dot_rows(_dots(table))
    students, teachers = len(table.comparison.students), len(table.comparison.teachers)
    ordered = sorted(table.summary, key=lambda one: -np.nan_to_num(one.rho, nan=-2.0))
    averaged = table.comparison.averaged
    clauses = [
        f"{label(one.column)}{'' if averaged else f' on {label(str(one.student))}'} "
        f"{shown(one.rho)}{_interval(one)}"
        for one in ordered
    ]
    over = f"mean over {counted(students, 'student')}" if averaged else "by student and dimension"
    alternative = f"Spearman's rho, {over}: {'; '.join(clauses)}."
    chart = dot_chart(rows, title="Spearman's rho", what="metric", groups="student")
    return Chart(
        name="agreement",
        section="agreement",
        ranking=None,
        title="How well each metric predicts the observed order",
        caption=(
            f"Spearman's rho between a metric's order of n = {teachers} teachers and the observed order, for "
            f"each student {'and on average' if averaged else 'in each dimension'}, with {_basis(table)}. 1 "
            "is the same order, 0 chance; best first. Overlapping intervals do not tell metrics apart."
        ),
        alternative=alternative,
        spec=whole_spec(
            chart, height=dots_height(rows), alternative=alternative, **dots_data(rows)
        ),
    )


def _basis(table: AgreementTable) -> str:
    if len(table.comparison.teachers) < FEWEST_FOR_INTERVAL:
        return f"no interval below {FEWEST_FOR_INTERVAL} teachers"
    return f"95% intervals over {'families' if table.related else 'teachers'}"


def _interval(cell: Agreement) -> str:
    low, high = cell.ends
    return f" [{shown(low)}, {shown(high)}]" if math.isfinite(low) else ""


def _dots(table: AgreementTable) -> Iterator[Dot]:
    """Yield the cells, best mean first."""
    places = np.argsort([-np.nan_to_num(mean.rho, nan=-2.0) for mean in table.means], kind="stable")
    for place in places.tolist():
        for row, student in zip(table.cells, row_labels(table).values(), strict=True):
            yield _dot(row[place], student)
        if len(table.cells) > 1 and table.comparison.averaged:
            yield _dot(table.means[place], MEAN)


def _dot(cell: Agreement, group: str) -> Dot:
    return cell.column, group, cell.rho, (cell.ends.low, cell.ends.high)


def _ordering_column(report: Report, table: AgreementTable) -> Column:
    """Return the column of the metric that orders the report, else the first that is no baseline."""
    columns = table.comparison.columns
    wanted = [one.ranking.by for one in report.rankings]
    ordering = [column for by in wanted for column in columns if column.metric == by]
    return [*ordering, *(column for column in columns if not column.baseline), *columns][0]


def _scatters(table: AgreementTable, column: Column, *, outcome: str | None) -> Iterator[Chart]:
    place = table.comparison.columns.index(column)
    for line, row in enumerate(table.cells):
        yield _scatter(table, column, row[place], line=line, outcome=outcome)


def _scatter(
    table: AgreementTable, column: Column, cell: Agreement, *, line: int, outcome: str | None
) -> Chart:
    alt = altair()
    rows = _scatter_rows(table, column, line)
    families = Families(tuple(sorted({str(row["family"]) for row in rows})))
    name, student = label(column.title), label(table.comparison.students[line])
    base = named()
    place = {
        "x": alt.X(
            "x:Q", title=f"predicted: {name}", scale=alt.Scale(zero=False, nice=False, padding=12)
        ),
        "y": alt.Y("y:Q", title="observed", scale=alt.Scale(zero=False, nice=False, padding=12)),
    }
    tip = tips(whole="teacher", family="family", x_text="predicted", y_text="observed")
    look = families.encodings(families.names)
    point = base.mark_point(filled=True, size=80, opacity=1).encode(**place, tooltip=tip, **look)
    interval = f"{shown(cell.rho)}{_interval(cell)}"
    alternative = _in_words(rows, column, f"For {student}, rho of {name} is {interval}.")
    return Chart(
        name=f"predicted-and-observed-{student}",
        section="agreement",
        ranking=None,
        title=f"Predicted and observed for {student}",
        caption=(
            f"{name} against what was observed ({cut(outcome or 'higher is better', WHOLE)}), n = "
            f"{len(rows)} teachers; Spearman's rho is {interval} ({_basis(table)}). "
            f"{'Higher' if column.higher_is_better else 'Lower'} {name} predicts better. Numbers are "
            "places in the observed order."
        ),
        alternative=alternative,
        spec=whole_spec(
            point + name_layer(base, **place), height=HEIGHT, alternative=alternative, rows=rows
        ),
    )


def _scatter_rows(table: AgreementTable, column: Column, line: int) -> list[Row]:
    """Return a row for each teacher, the best observed first."""
    names, observed = table.comparison.teachers, table.comparison.observed[line]
    short, families = labels(names), table.comparison.families
    rows: list[Row] = []
    for rank, one in enumerate(np.argsort(-observed, kind="stable").tolist(), start=1):
        x, y = float(column.values[line, one]), float(observed[one])
        if number(x) is not None and number(y) is not None:
            rows.append(
                {"number": f"{rank}", "label": short[one], "whole": cut(names[one], WHOLE)}
                | {"family": label(families[one]), "x": x, "y": y}
                | {"x_text": shown(x), "y_text": shown(y)}
            )
    name_rows(rows, "x")
    return rows


def _in_words(rows: list[Row], column: Column, start: str) -> str:
    if not rows:
        return f"{start} No teacher has both numbers."
    turned = 1 if column.higher_is_better else -1
    pick = max(rows, key=lambda row: turned * row["x"])
    return (
        f"{start} Best observed: {rows[0]['label']} ({rows[0]['y_text']}). The top pick, "
        f"{pick['label']}, is number {pick['number']} of {len(rows)} "
        f"({pick['y_text']})."
    )
