"""Dots in lines: several values, with or without intervals, for each of several named things.

A line for each thing compared and in it a place for each group, so that intervals lie side by side and not on
each other. Agreement and the paper's tables are drawn so.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from preceptor.report.charts.parts import (
    WHOLE,
    Families,
    Row,
    altair,
    cut,
    labels,
    named,
    number,
    shown,
    tips,
)

NAME_ROOM = 14
"""Pixels of a line that are left to its name, which stands there on a narrow page."""

DOT = 7
"""Pixels of a line for each group."""

Dot = tuple[str, str, float, tuple[float, float] | None]
"""A line's name, a group's name, the value, and its interval where there is one."""


def dot_rows(dots: Iterable[Dot]) -> list[Row]:
    """Return the dots as rows; names are cut, and stay different where they are."""
    found = list(dots)
    lines, groups = (_short(dot[place] for dot in found) for place in (0, 1))  # type: ignore[misc]
    rows = []
    for line, group, value, ends in found:
        low, high = ends or (None, None)
        spelled = shown(value) if ends is None else f"{shown(value)} [{shown(low)}, {shown(high)}]"
        rows.append(
            {
                "line": lines[line],
                "group": groups[group],
                "family": groups[group],
                "value": number(value),
            }
            | {"low": number(low), "high": number(high), "text": spelled}
            | {"whole": cut(line, WHOLE), "whole_group": cut(group, WHOLE)}
        )
    return rows


def _short(names: Iterable[str]) -> dict[str, str]:
    distinct = list(dict.fromkeys(names))
    return dict(zip(distinct, labels(distinct), strict=True))


def dot_chart(rows: Sequence[Row], *, title: str, what: str, groups: str) -> Any:
    """Return the dots over an axis called `title`; `what` a line and `groups` a group is, for tooltips."""
    alt = altair()
    names = list(dict.fromkeys(str(row["line"]) for row in rows))
    kinds = list(dict.fromkeys(str(row["group"]) for row in rows))
    look = Families(tuple(kinds)).encodings(kinds)
    base = named()
    scale = alt.Scale(domain=names, paddingInner=0.3, paddingOuter=0.15)
    axis = alt.Axis(
        title=None, ticks=False, domain=False, labelExpr="narrow ? '' : datum.label", labelPadding=6
    )
    y = alt.Y("line:N", scale=scale, sort=None, axis=axis)
    aside = alt.YOffset("group:N", scale=alt.Scale(domain=kinds), sort=None)
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False))
    tip = tips(whole=what, whole_group=groups, text=title)
    point = base.mark_point(filled=True, size=50, opacity=1)
    layers = [point.encode(x=x, y=y, yOffset=aside, tooltip=tip, **look)]
    bar = base.mark_rule(strokeWidth=1.5, opacity=0.8).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=y, yOffset=aside, color=look["color"]
    )
    # Without an interval Vega would warn of an empty scale.
    if any(row["low"] is not None for row in rows):
        layers.insert(0, bar)
    return alt.layer(*layers, _line_names(y, step=line_height(rows)))


def dots_data(rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """Return the data that `dot_chart` names."""
    lines = [{"line": name} for name in dict.fromkeys(row["line"] for row in rows)]
    return {"rows": rows, "lines": lines}


def _line_names(y: Any, *, step: float) -> Any:
    """Return the names above their lines, seen on a narrow page alone."""
    alt = altair()
    text = named("lines").mark_text(
        style="name", align="left", dy=6 - step / 2, opacity=alt.ExprRef("narrow ? 1 : 0")
    )
    return text.encode(x=alt.value(0), y=y, text="line:N")


def line_height(rows: Sequence[Row]) -> float:
    """Return the pixels of one line."""
    return NAME_ROOM + 8 + DOT * len({row["group"] for row in rows})


def dots_height(rows: Sequence[Row]) -> float:
    """Return the pixels of all lines."""
    return line_height(rows) * len({row["line"] for row in rows})


def ends_text(rows: Sequence[Row]) -> str:
    """Return each line's smallest and largest value in words."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(str(row["line"]), []).append(row)
    clauses = []
    for line, members in grouped.items():
        values = sorted(row["value"] for row in members if row["value"] is not None)
        if not values:
            clauses.append(f"{line}: no data")
        elif len(values) == 1:
            clauses.append(f"{line}: {shown(values[0])}")
        else:
            clauses.append(f"{line}: {shown(values[0])} to {shown(values[-1])}")
    return "; ".join(clauses)
