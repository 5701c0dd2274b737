"""Charts of one ranking: the leaderboard, size against score, and means by category.

A value is never drawn without its 95% interval or its n, because the order of two teachers means nothing
where their intervals overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from preceptor.report.charts.parts import (
    Chart,
    Families,
    Row,
    altair,
    counted,
    cut,
    estimate_fields,
    key_axis,
    label,
    labels,
    n_text,
    name_layer,
    name_rows,
    named,
    shown,
    teacher_rows,
    tips,
    whole_spec,
)

if TYPE_CHECKING:
    from preceptor.report.data import RankingData


HEIGHT = 360
_MOST_CATEGORIES = 12
SIZE_MARGIN = 1.3
"""How far the axis of sizes goes beyond the smallest and the largest."""

ROW = 30
"""Pixels for a teacher's line where its name may have to stand above its mark."""


def ranking_rows(ranked: RankingData) -> list[Row]:
    """Return the teachers' rows with the ordering metric as `value`."""
    by = ranked.ranking.by
    rows = teacher_rows(ranked)
    for row, result in zip(rows, ranked.ranking.teachers, strict=True):
        row |= estimate_fields("value", result.estimates.get(by))
        row |= {"rank": result.rank, "n": result.n, "p_best": f"{result.p_best:.1%}"}
    return rows


def leaderboard(ranked: RankingData, families: Families, *, place: int) -> Chart:
    """Return the ordering metric of every teacher, best first, with its interval."""
    alt = altair()
    rows = ranking_rows(ranked)
    name = label(ranked.ranking.by)
    base = named()
    # On a narrow page the name moves above its mark, where it has the whole width.
    y = key_axis(rows, names="narrow ? '' : datum.label")
    colour = families.encodings(row["family"] for row in rows)
    tip = tips(
        whole="teacher",
        value_text="value [95% interval]",
        rank="rank",
        p_best="P(first)",
        n="instructions",
        family="family",
        size_text="parameters",
    )
    x = alt.X("value_low:Q", title=name, scale=alt.Scale(zero=False, nice=True))
    bar = base.mark_rule(strokeWidth=2.5).encode(y=y, x=x, x2="value_high:Q", color=colour["color"])
    point = base.mark_point(filled=True, size=90, opacity=1)
    point = point.encode(y=y, x=alt.X("value:Q", title=name), tooltip=tip, **colour)
    above = base.mark_text(
        style="name", align="left", dy=-12, opacity=alt.ExprRef("narrow ? 1 : 0")
    ).encode(y=y, x=alt.value(0), text="key:N")
    alternative = _standing(ranked, rows)
    return Chart(
        name="leaderboard",
        section="leaderboard",
        ranking=place,
        title=f"Teachers for {label(ranked.ranking.student)} by {name}",
        caption=(
            f"Dots are {name}, bars its 95% interval over {n_text(rows)} instructions. Best "
            "first; where bars overlap, the order of two teachers is not certain."
        ),
        alternative=alternative,
        spec=whole_spec(
            bar + point + above, height=ROW * len(rows), alternative=alternative, rows=rows
        ),
    )


def _standing(ranked: RankingData, rows: Sequence[Row]) -> str:
    best = ranked.ranking.teachers[0]
    listing = "; ".join(f"{row['label']} {row['value_text']}" for row in rows)
    return (
        f"{counted(len(rows), 'teacher')} by {label(ranked.ranking.by)} with 95% intervals, best "
        f"first: {listing}. P(first) of {label(best.teacher)}: {best.p_best:.0%}."
    )


def size_and_score(ranked: RankingData, families: Families, *, place: int) -> Chart | None:
    """Return size against the ordering metric, relatives joined; None below two known sizes."""
    alt = altair()
    rows = [row for row in ranking_rows(ranked) if row["size"] and row["value"] is not None]
    if len({row["size"] for row in rows}) < 2:
        return None
    name = label(ranked.ranking.by)
    name_rows(rows, "size")
    base = named()
    x = size_axis([row["size"] for row in rows])
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False))
    colour = families.encodings(row["family"] for row in rows)
    tip = tips(
        whole="teacher",
        size_text="parameters",
        value_text="value [95% interval]",
        n="instructions",
    )
    line = base.mark_line(strokeWidth=1.5, opacity=0.6)
    line = line.encode(x=x, y=y, color=colour["color"], order="size:Q")
    low = alt.Y("value_low:Q", title=name)
    bar = base.mark_rule(opacity=0.6)
    bar = bar.encode(x=x, y=low, y2="value_high:Q", color=colour["color"])
    point = base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, tooltip=tip, **colour)
    mark = name_layer(base, x=x, y=y)
    alternative = _paradoxes(rows, name)
    return Chart(
        name="size-and-score",
        section="size",
        ranking=place,
        title="Do larger relatives teach better?",
        caption=(
            f"{name} with its 95% interval over {n_text(rows)} instructions, against the "
            "teacher's size. Lines join a family's members; where one falls, the larger relative is the "
            "worse teacher (the Larger Models' Paradox). Numbers are places in the ranking. "
            "Teachers of unknown size are left out."
        ),
        alternative=alternative,
        spec=whole_spec(
            line + bar + point + mark, height=HEIGHT, alternative=alternative, rows=rows
        ),
    )


def size_axis(sizes: Sequence[float]) -> object:
    """Return the channel x by the field `size`, in billions of parameters, logarithmic."""
    alt = altair()
    steps = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
    low, high = min(sizes) / SIZE_MARGIN, max(sizes) * SIZE_MARGIN
    return alt.X(
        "size:Q",
        title="billions of parameters (log)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(
            format="~r", grid=False, values=[step for step in steps if low <= step <= high]
        ),
    )


def _paradoxes(rows: Sequence[Row], name: str) -> str:
    """Return which teachers rank below the next smaller of their family, in words."""
    grouped: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["size"]):
        grouped.setdefault(row["family"], []).append(row)
    pairs = [pair for members in grouped.values() for pair in pairwise(members)]
    worse = [
        f"{large['label']} ({large['size_text']}, {shown(large['value'])}) ranks below "
        f"{small['label']} ({small['size_text']}, {shown(small['value'])})"
        for small, large in pairs
        if large["rank"] > small["rank"]
    ]
    listing = f": {'; '.join(worse)}" if worse else ""
    return (
        f"{name} against size for {counted(len(rows), 'teacher')}. Of {len(pairs)} neighbours within a "
        f"family, the larger ranks lower in {len(worse)}{listing}."
    )


def by_category(ranked: RankingData, *, place: int) -> Chart | None:
    """Return the heat map of teachers and categories; None without categories."""
    alt = altair()
    measure = _category_measure(ranked)
    if measure is None:
        return None
    rows = _category_rows(ranked, measure)
    name, columns = label(measure), list(dict.fromkeys(row["category"] for row in rows))
    base = named()
    x = alt.X(
        "category:N",
        title=None,
        sort=None,
        scale=alt.Scale(domain=columns),
        axis=alt.Axis(orient="top", labelAngle=-35, labelLimit=220, domain=False, ticks=False),
    )
    y = key_axis(rows)
    tip = tips(whole="teacher", category="category", value_text=f"{name} [95% interval]")
    cell = base.mark_rect().encode(
        x=x,
        y=y,
        color=alt.Color("value:Q", title=f"mean {name}", scale=alt.Scale(zero=False)),
        tooltip=tip,
    )
    room = alt.ExprRef(f"width < {36 * len(columns)} ? 0 : 1")
    text = base.mark_text(style="name", opacity=room).encode(x=x, y=y, text="short:N")
    alternative = _category_winners(rows, name)
    return Chart(
        name="by-category",
        section="category",
        ranking=place,
        title=f"Mean {name} by category of instruction",
        caption=(
            f"Each cell is a teacher's mean {name} over the category's instructions, whose number n stands "
            "beside its name; the tooltip has the 95% interval. Teachers are in the ranking's order. Of many "
            "categories the twelve largest are shown; one of fewer than 20 instructions is among the others, "
            "because its mean would be mostly chance."
        ),
        alternative=alternative,
        spec=whole_spec(
            cell + text,
            height=24 * len(ranked.ranking.teachers),
            alternative=alternative,
            rows=rows,
        ),
    )


def _category_measure(ranked: RankingData) -> str | None:
    """Return the measure to show: reward, else the first that the ordering metric needs, else any."""
    found = dict.fromkeys(
        measure
        for category in ranked.ranking.categories
        for means in category.means.values()
        for measure in means
    )
    ranking = ranked.ranking
    wanted = ("reward", *ranking.metrics[ranking.by].needs, ranking.by, *found)
    return next((measure for measure in wanted if measure in found), None)


def _category_rows(ranked: RankingData, measure: str) -> list[Row]:
    teachers = teacher_rows(ranked)
    names = [result.teacher for result in ranked.ranking.teachers]
    found: list[Row] = []
    some = ranked.ranking.categories[:_MOST_CATEGORIES]
    names_of = ("other categories" if one.name is None else one.name for one in some)
    titles = labels(
        [f"{cut(name, 30)} (n {one.n})" for name, one in zip(names_of, some, strict=True)]
    )
    for title, category in zip(titles, some, strict=True):
        for name, row in zip(names, teachers, strict=True):
            estimate = category.means.get(name, {}).get(measure)
            found.append(row | estimate_fields("value", estimate) | {"category": title})
    largest = max((abs(row["value"]) for row in found if row["value"] is not None), default=0.0)
    digits = max(0, 2 - math.floor(math.log10(largest or 1.0)))
    for row in found:
        value = row["value"]
        # Adding zero turns what was rounded to -0.0 into 0.0.
        row["short"] = "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"
    return found


def _category_winners(rows: Sequence[Row], name: str) -> str:
    """Return the highest teacher of every category, in words."""
    best: dict[str, Row] = {}
    for row in rows:
        held = best.get(row["category"])
        if row["value"] is not None and (held is None or row["value"] > held["value"]):
            best[row["category"]] = row
    listing = "; ".join(
        f"{title}: {row['label']} {shown(row['value'])}" for title, row in best.items()
    )
    return f"Highest mean {name} by category: {listing or 'no data'}."
