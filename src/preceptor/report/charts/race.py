"""A race as a picture: by how much each teacher is behind the leader, with bounds, over the prompts seen."""

from __future__ import annotations

from typing import Any

from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.race.verdict import percent
from preceptor.report.charts.parts import (
    WHOLE,
    Chart,
    Row,
    altair,
    cut,
    interval_text,
    labels,
    listed,
    named,
    number,
    shown,
    tips,
    whole_spec,
)

HEIGHT = 380


def race_chart(race: RaceResult) -> Chart:
    """Return the confidence sequences of the gap to the leader.

    Raises:
        MissingPackage: if altair is not installed.
    """
    rows = _rows(race)
    words = _in_words(race)
    return Chart(
        name="race",
        section="The race",
        title=f"How far each teacher is behind the leader by {race.by}",
        caption=(
            f"The gap in {race.by} to whoever led at that look, and its bounds, over the prompts seen (log "
            f"scale). All bounds hold at all looks together with {percent(race)} confidence (asymptotic). A "
            "cross: the teacher was beaten there and left. 0 is the leader."
        ),
        alternative=words,
        spec=_spec(rows, race, words),
    )


def _rows(race: RaceResult) -> list[Row]:
    """Return a row for each look and teacher in it."""
    names = [one.teacher for one in race.racers]
    short = dict(zip(names, labels(names), strict=True))
    rows: list[Row] = []
    for look in race.looks:
        for name, gap in look.behind.items():
            last = race[name].rows == look.rows
            rows.append(
                {"key": f"{names.index(name) + 1} {short[name]}", "whole": cut(name, WHOLE)}
                | {"rows": look.rows, "gap": number(gap.value), "n": f"{look.n:,}"}
                | {"low": number(gap.low), "high": number(gap.high)}
                | {"gap_text": interval_text(gap), "leader": cut(look.leader, WHOLE)}
                | {"out": name in look.dropped, "last": last, "label": short[name]}
            )
    return rows


def _spec(rows: list[Row], race: RaceResult, words: str) -> Any:
    alt = altair()
    gaps = [row["gap"] for row in rows if row["gap"] is not None]
    most = max(gaps, default=1.0) or 1.0
    # Bounds of the first looks may be many times as wide as any gap: they are cut at the frame.
    up = alt.Scale(domain=[-0.6 * most, 1.6 * most], nice=False)
    across = alt.Scale(
        type="log", domain=[race.looks[0].rows * 0.95, race.looks[-1].rows * 1.03], nice=False
    )
    axis = alt.Axis(values=_ticks([look.rows for look in race.looks]), format=",d", grid=False)
    x = alt.X("rows:Q", title="prompts seen", scale=across, axis=axis)
    y = alt.Y("gap:Q", title=f"behind the leader, {race.by}", scale=up)
    keys = sorted({str(row["key"]) for row in rows}, key=lambda key: int(key.split()[0]))
    colour = alt.Color(
        "key:N",
        scale=alt.Scale(domain=keys),
        legend=alt.Legend(title=None, columns=1, symbolOpacity=1),
    )
    tip = tips(
        whole="teacher", gap_text="behind [bounds]", leader="the leader", n="prompts compared"
    )
    base = named()
    band = base.mark_area(opacity=0.13, clip=True).encode(
        x=x, y=alt.Y("low:Q", scale=up), y2="high:Q", color=colour
    )
    bounds = [
        base.mark_line(strokeWidth=0.8, opacity=0.6, clip=True).encode(
            x=x, y=alt.Y(f"{end}:Q", scale=up), color=colour
        )
        for end in ("low", "high")
    ]
    line = base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=colour)
    point = base.mark_point(filled=True, size=30, opacity=1, clip=True).encode(
        x=x, y=y, color=colour, tooltip=tip
    )
    out = base.transform_filter("datum.out").encode(x=x, color=colour, tooltip=tip)
    reach = out.mark_rule(strokeWidth=1.2, clip=True).encode(
        y=alt.Y("low:Q", scale=up), y2="high:Q"
    )
    cross = out.mark_point(shape="cross", filled=True, angle=45, size=130, opacity=1).encode(y=y)
    zero = named("zero").mark_rule(style="guide").encode(y=alt.Y("zero:Q", scale=up))
    layers = [zero, band, *bounds, reach, line, point, cross]
    return whole_spec(
        alt.layer(*layers), height=HEIGHT, alternative=words, rows=rows, zero=[{"zero": 0}]
    )


def _ticks(rows: list[int]) -> list[int]:
    """Return some six of the looks, the last among them: they are as far apart on a log scale."""
    step = max(1, round(len(rows) / 6))
    return rows[::-1][::step][::-1]


def _in_words(race: RaceResult) -> str:
    gone = [
        f"{one.teacher} after {one.rows:,} prompts, {shown(one.behind.value)} behind"
        for one in race.racers
        if one.beaten_by is not None and one.behind is not None
    ]
    left = [
        f"{one.teacher} {interval_text(one.behind)} behind"
        for one in race.left
        if one.behind is not None
    ]
    parts = [f"{race.leader.teacher} leads after {race.leader.rows:,} prompts."]
    parts += [f"Still in: {listed(left)}."] if left else []
    parts += [f"Beaten: {listed(gone)}."] if gone else []
    return " ".join(parts)
