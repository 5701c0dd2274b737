"""How each measure is distributed over instructions, a line for each teacher.

A mean hides its distribution, so the shades are counts over bins that all teachers share, and the bar and its
ends on top are quantiles, which do not depend on the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from preceptor.report.charts.parts import (
    Chart,
    Row,
    altair,
    key_axis,
    label,
    named,
    number,
    shown,
    teacher_rows,
    tips,
    whole_spec,
)

if TYPE_CHECKING:
    from preceptor.report.data import Distribution, RankingData


ROW = 26
_QUANTILES = ("q5", "q25", "q50", "q75", "q95")


def distribution_charts(ranked: RankingData, *, place: int) -> tuple[Chart, ...]:
    """Return a chart for each measure that any teacher has, named after it."""
    return tuple(
        _chart(ranked, distribution, place=place)
        for distribution in ranked.distributions
        if np.isfinite(distribution.quantiles).any()
    )


def _chart(ranked: RankingData, distribution: Distribution, *, place: int) -> Chart:
    alt = altair()
    name = label(distribution.measure)
    bars, strips = _bar_rows(ranked, distribution), _strip_rows(ranked, distribution)
    y = key_axis(bars)
    ends = [float(distribution.edges[0]), float(distribution.edges[-1])]
    scale = alt.Scale(domain=ends, nice=False, zero=False, clamp=True)
    shade = alt.Color(
        "share:Q",
        title="share of instructions",
        scale=alt.Scale(domainMin=0),
        legend=alt.Legend(format=".0%", tickCount=4),
    )
    x = alt.X("left:Q", title=name, scale=scale, axis=alt.Axis(grid=False))
    strip = named("strips").mark_rect(height={"band": 0.9})
    strip = strip.encode(x=x, x2="right:Q", y=y, color=shade, tooltip=tips(**_STRIP_TIPS))
    base = named("bars")
    tip = tips(whole="teacher", **{f"{q}_text": title for q, title in _TITLES.items()})
    thin = base.mark_rule(style="strong").encode(y=y, x=alt.X("q5:Q"), x2="q95:Q", tooltip=tip)
    thick = base.mark_bar(style="strong", height=6).encode(
        y=y, x=alt.X("q25:Q"), x2="q75:Q", tooltip=tip
    )
    middle = base.mark_tick(style="strong", thickness=3, height=16).encode(
        y=y, x=alt.X("q50:Q"), tooltip=tip
    )
    alternative = _in_words(bars, name)
    return Chart(
        name=f"distribution-{name}",
        section="distribution",
        ranking=place,
        title=f"Distribution of {name} over instructions",
        caption=(
            f"For each teacher the median (tick), the middle half (thick bar) and the 5th to 95th percentile "
            f"(thin line) of {name} over {_text_counts(distribution)} instructions. Shades count "
            f"instructions in {len(distribution.edges) - 1} bins that all teachers share; the "
            "outermost hold what lies beyond."
        ),
        alternative=alternative,
        spec=whole_spec(
            strip + thin + thick + middle,
            height=ROW * len(bars),
            alternative=alternative,
            bars=bars,
            strips=strips,
        ),
    )


_TITLES = dict(zip(_QUANTILES, ("5%", "25%", "median", "75%", "95%"), strict=True))
_STRIP_TIPS = {"whole": "teacher", "left": "from", "right": "to", "count": "instructions"}


def _text_counts(distribution: Distribution) -> str:
    counts = sorted({round(float(total)) for total in np.nansum(distribution.counts, axis=1)})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _bar_rows(ranked: RankingData, distribution: Distribution) -> list[Row]:
    """Return a row of quantiles for each teacher."""
    rows = []
    for row, quantiles in zip(teacher_rows(ranked), distribution.quantiles.tolist(), strict=True):
        found = dict(zip(_QUANTILES, map(number, quantiles), strict=True))
        texts = {f"{name}_text": shown(value) for name, value in found.items()}
        rows.append(row | found | texts)
    return rows


def _strip_rows(ranked: RankingData, distribution: Distribution) -> list[Row]:
    """Return a row for each teacher and bin that holds something."""
    edges = distribution.edges.tolist()
    rows = []
    for row, counts in zip(teacher_rows(ranked), distribution.counts, strict=True):
        total = float(np.nansum(counts))
        for place, count in enumerate(counts.tolist()):
            if count > 0:
                left, right = edges[place], edges[place + 1]
                rows.append(
                    {"key": row["key"], "whole": row["whole"], "left": left, "right": right}
                    | {"count": count, "share": count / total}
                )
    return rows


def _in_words(rows: Sequence[Row], name: str) -> str:
    clauses = [
        f"{row['label']} {shown(row['q50'])} ({shown(row['q5'])} to {shown(row['q95'])})"
        for row in rows
    ]
    return f"Median of {name} and 5th to 95th percentile: {'; '.join(clauses)}."
