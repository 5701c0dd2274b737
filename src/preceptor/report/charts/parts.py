"""What all charts share: the chart itself, teachers as rows of a chart's data, and common encodings.

Everything a user or a model wrote enters a spec as a data value under a field name of ours, never as a field
name, an expression or markup. So no name can break a chart or run anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preceptor.errors import require
from preceptor.ranking.table import printable
from preceptor.types import Estimate

if TYPE_CHECKING:
    from preceptor.report.data import RankingData


Row = dict[str, Any]

LABEL = 40
"""Characters of a label; the tooltip has the whole name."""

WHOLE = 200
"""Characters of a name in a tooltip or a text alternative."""

NARROW = 560
"""Pixels of container below which numbers stand for names."""

NAMED = 3
"""How many teachers have their names beside their marks; of the others there stands the number."""


_INHERITED = re.compile(
    r"constructor|hasOwnProperty|isPrototypeOf|propertyIsEnumerable|to(?:Locale)?String|valueOf"
    r"|__proto__|__(?:define|lookup)[GS]etter__"
)


@dataclass(frozen=True)
class Chart:
    """One picture and the words beside it.

    `name` is fit for a file name and unique within a report. `ranking` is the place of its ranking in the
    report, None where it is of the whole report. `caption` says how to read it; `alternative` says in words
    and numbers what a screen reader's user would otherwise miss. `spec` is Vega-Lite JSON with its data and
    neither colours nor a URL, not even of its schema: embed it in the mode "vega-lite" with a theme's config.
    """

    name: str
    section: str
    title: str
    caption: str
    alternative: str
    spec: Mapping[str, object]
    ranking: int | None = None


def altair() -> Any:
    """Return the module altair.

    Raises:
        MissingPackage: if it is not installed.
    """
    require("altair", purpose="A chart")
    import altair as module

    return module


@dataclass(frozen=True)
class Families:
    """The families of a whole report, so that each has one colour and one shape in all its charts."""

    names: tuple[str, ...]

    def encodings(self, present: Iterable[object]) -> dict[str, Any]:
        """Return colour and shape by the field `family`, with a legend of those that are present."""
        alt = altair()
        found = set(present)
        shown = [name for name in self.names if name in found]
        entry = 30 + 7 * min(max(map(len, shown), default=0), 22)
        columns = alt.ExprRef(f"narrow ? {max(1, 300 // entry)} : {max(1, 700 // entry)}")
        legend = alt.Legend(title=None, values=shown, columns=columns, symbolOpacity=1)
        scale = alt.Scale(domain=list(self.names))
        return {
            name: kind("family:N", scale=scale, legend=legend if len(shown) > 1 else None)
            for name, kind in (("color", alt.Color), ("shape", alt.Shape))
        }


def families_of(ranked: Sequence[RankingData]) -> Families:
    """Return the families of all rankings, by name."""
    return Families(tuple(sorted({label(f) for one in ranked for f in one.families.values()})))


def cut(text: str, length: int) -> str:
    """Return the text on one line, control and direction marks as escapes, at most `length` characters.

    A name that every object of JavaScript has, such as `constructor`, gets a space that is not seen: Vega
    would find it in the table of its scale where nobody put it.
    """
    shown = printable(" ".join(text[: 4 * length].split()))
    if _INHERITED.fullmatch(shown):
        return f"{shown}\N{NO-BREAK SPACE}"
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def label(text: str) -> str:
    """Return a name as it stands beside a mark."""
    return cut(text, LABEL)


def labels(names: Sequence[str]) -> list[str]:
    """Return a label for each name, different where the names are."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        short = label(name)
        seen[short] = count = seen.get(short, 0) + 1
        found.append(short if count == 1 else f"{cut(short, LABEL - 5)} ({count})")
    return found


def number(value: float | None) -> float | None:
    """Return a finite number as it is, and None for any other."""
    return float(value) if value is not None and math.isfinite(value) else None


def shown(value: float | None) -> str:
    """Return a number for a reader, four digits; "no data" where there is none."""
    found = number(value)
    return "no data" if found is None else f"{found:.4g}"


def interval_text(estimate: Estimate | None) -> str:
    """Return an estimate and its interval for a reader."""
    if estimate is None or number(estimate.value) is None:
        return "no data"
    return f"{shown(estimate.value)} [{shown(estimate.low)}, {shown(estimate.high)}]"


def size_text(size: float | None) -> str:
    """Return billions of parameters as 7B."""
    return "unknown" if number(size) is None else f"{size:g}B"


def teacher_rows(ranked: RankingData) -> list[Row]:
    """Return a row for each teacher, best first.

    `key` is its number (its place in the ranking) and label, `whole` its name in full.
    """
    names = [result.teacher for result in ranked.ranking.teachers]
    rows: list[Row] = []
    for place, (name, short) in enumerate(zip(names, labels(names), strict=True), start=1):
        size = ranked.sizes.get(name)
        rows.append(
            {
                "place": place,
                "number": f"{place}",
                "key": f"{place} {short}",
                "label": short,
                "whole": cut(name, WHOLE),
                "family": label(ranked.families.get(name, "unknown")),
                "size": number(size),
                "size_text": size_text(size),
            }
        )
    return rows


def estimate_fields(name: str, estimate: Estimate | None) -> Row:
    """Return the fields `name`, `name_low`, `name_high` and, for readers, `name_text`."""
    return {
        name: number(estimate.value) if estimate else None,
        f"{name}_low": number(estimate.low) if estimate else None,
        f"{name}_high": number(estimate.high) if estimate else None,
        f"{name}_text": interval_text(estimate),
    }


def tips(**titles: str) -> list[Any]:
    """Return tooltip channels: field of ours = title of ours."""
    alt = altair()
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in titles.items()]


def name_rows(rows: Sequence[Row], across: str) -> None:
    """Put into the rows what stands beside their marks, and on which side there is room for it.

    The names of the `NAMED` best are written out; the number is the key to the others and to a narrow page.
    `across` is the field that is drawn from left to right.
    """
    order = sorted(row[across] for row in rows)
    for row in rows:
        row["name"] = row["label"] if int(row["number"]) <= NAMED else row["number"]
        row["side"] = "left" if row[across] <= order[len(order) // 2] else "right"


def name_layer(base: Any, **place: Any) -> Any:
    """Return the text marks of rows that `name_rows` saw."""
    alt = altair()
    beside = {
        "align": alt.ExprRef("datum.side"),
        "dx": alt.ExprRef("datum.side === 'left' ? 7 : -7"),
        "text": alt.ExprRef("narrow ? datum.number : datum.name"),
    }
    return base.mark_text(style="name", baseline="middle", dy=-9, **beside).encode(**place)


def named(name: str = "rows") -> Any:
    """Return a chart over the data of this name, which `whole_spec` puts in.

    Data stay outside until then, because altair copies and checks what it holds again and again.
    """
    alt = altair()
    return alt.Chart(alt.NamedData(name))


def whole_spec(
    chart: Any, *, height: float, alternative: str, **data: Sequence[Row]
) -> Mapping[str, object]:
    """Return the spec as plain JSON with its `data` by name, as wide as its container.

    It has neither a schema address nor a config.
    """
    alt = altair()
    # Naming `width` makes the expression run again when the window changes.
    narrow = alt.param(name="narrow", expr=f"width > -1 && containerSize()[0] < {NARROW}")
    sized = chart.properties(width="container", height=height, description=alternative)
    spec: dict[str, object] = sized.add_params(narrow).to_dict(validate=False)
    plain = {name: part for name, part in spec.items() if name not in ("$schema", "config")}
    return plain | {"datasets": {name: list(rows) for name, rows in data.items()}}


def key_axis(rows: Sequence[Row], *, names: str | None = None) -> Any:
    """Return the channel y with a line for each teacher; its number alone where there is no room."""
    alt = altair()
    axis = alt.Axis(
        title=None,
        ticks=False,
        domain=False,
        labelPadding=6,
        labelExpr=names or "narrow ? split(datum.label, ' ')[0] : datum.label",
    )
    keys = list(dict.fromkeys(row["key"] for row in rows))
    return alt.Y("key:N", scale=alt.Scale(domain=keys), sort=None, axis=axis)


def listed(parts: Sequence[str]) -> str:
    """Return the parts as a list in a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(count: int, noun: str) -> str:
    """Return "1 teacher" or "2 teachers"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def n_text(rows: Sequence[Row]) -> str:
    """Return how many instructions the rows rest on, as "n = 300"."""
    counts = [row["n"] for row in rows]
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"
