"""Risk and return: mean loss against mean reward, with the lines of equal CAR behind.

CAR = reward / (1 + beta loss) is constant along reward = c (1 + beta loss), a straight line, so the picture
shows both what a teacher is worth and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from preceptor.report.charts.parts import (
    Chart,
    Families,
    Row,
    altair,
    counted,
    estimate_fields,
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


HEIGHT = 440
LINES = 6
"""About how many lines of equal CAR are drawn."""


@dataclass(frozen=True)
class _Window:
    """What part of the plane is drawn: x and y from low to high."""

    x: tuple[float, float]
    y: tuple[float, float]


def risk_and_return(ranked: RankingData, families: Families, *, place: int) -> Chart | None:
    """Return loss against reward, without rewards loss against length; None without both.

    Teachers without one of the two are left out.
    """
    upright = next((m for m in ("reward", "length") if _measured(ranked, m, "loss")), None)
    if upright is None:
        return None
    rows = _rows(ranked, upright)
    window = _Window(_range(rows, "x"), _range(rows, "y"))
    name_rows(rows, "x")
    beta = chosen_beta(ranked) if upright == "reward" else None
    guides = list(_guides(beta, window)) if beta is not None else []
    axes = _axes(window, upright)
    look = families.encodings(row["family"] for row in rows)
    pieces = _pieces(rows)
    layers = [*_guide_layers(guides, axes), *_relatives(pieces, axes, look)]
    layers += _points(axes, look, upright=upright)
    alternative = _in_words(rows, upright)
    lines = f"; straight lines join equal CAR at beta = {beta:g}" if guides else ""
    return Chart(
        name="risk-and-return" if upright == "reward" else "length-and-loss",
        section="risk",
        ranking=place,
        title="Risk and return" if upright == "reward" else "Length and loss",
        caption=(
            f"Mean loss of the student on a teacher's responses (further left: easier to learn) against mean "
            f"{upright}, bars are 95% intervals over {n_text(rows)} instructions{lines}. Larger "
            "marks are larger models (unknown sizes are smallest); thin lines with arrows lead from the "
            "smallest of a family to its largest. Numbers are places in the ranking."
        ),
        alternative=alternative,
        spec=whole_spec(
            altair().layer(*layers),
            height=HEIGHT,
            alternative=alternative,
            rows=rows,
            guides=guides,
            pieces=pieces,
        ),
    )


def _measured(ranked: RankingData, *measures: str) -> bool:
    return any(
        all(_finite(result.estimates, measure) for measure in measures)
        for result in ranked.ranking.teachers
    )


def _finite(estimates: Mapping[str, Any], measure: str) -> bool:
    return measure in estimates and math.isfinite(estimates[measure].value)


def _rows(ranked: RankingData, upright: str) -> list[Row]:
    rows = []
    largest = max((size for size in ranked.sizes.values() if size), default=1.0)
    for row, result in zip(teacher_rows(ranked), ranked.ranking.teachers, strict=True):
        estimates = result.estimates
        if not (_finite(estimates, "loss") and _finite(estimates, upright)):
            continue
        row |= estimate_fields("x", estimates["loss"]) | estimate_fields("y", estimates[upright])
        row |= estimate_fields("by", estimates.get(ranked.ranking.by))
        # The root keeps 1B and 405B on one picture.
        row["area"] = 50 + 350 * math.sqrt((row["size"] or 0.0) / largest)
        row |= {"n": result.n, "rank": result.rank, "p_best": f"{result.p_best:.1%}"}
        rows.append(row)
    return rows


def _range(rows: Sequence[Row], axis: str) -> tuple[float, float]:
    """Return the ends of an axis: all intervals and a margin."""
    ends = [row[f"{axis}{end}"] for row in rows for end in ("", "_low", "_high")]
    found = [end for end in ends if end is not None]
    low, high = min(found), max(found)
    margin = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def chosen_beta(ranked: RankingData) -> float | None:
    """Return CAR's beta of this ranking, None where CAR was not formed."""
    metrics = ranked.ranking.settings.get("metrics")
    car = metrics.get("car") if isinstance(metrics, Mapping) else None
    beta = car.get("beta") if isinstance(car, Mapping) else None
    return float(beta) if isinstance(beta, int | float) else None


def _guides(beta: float, window: _Window) -> Iterator[Row]:
    """Yield the ends of lines of equal CAR at round values, cut to the window."""
    corners = [y / (1 + beta * x) for x in window.x for y in window.y]
    step = _round_step((max(corners) - min(corners)) / LINES)
    for place in range(math.ceil(min(corners) / step), math.floor(max(corners) / step) + 1):
        car = place * step
        ends = _cut_line(car, beta, window)
        if ends:
            (x, y), (x2, y2) = ends
            top = x2 < window.x[1] - 1e-9 * (window.x[1] - window.x[0])
            yield {"x": x, "y": y, "x2": x2, "y2": y2, "top": top, "text": f"CAR {car:.4g}"}


def _round_step(step: float) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    return next(round_ * scale for round_ in (1, 2, 5, 10) if round_ * scale >= step)


def _cut_line(
    car: float, beta: float, window: _Window
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the ends of reward = car (1 + beta loss) inside the window; None where hardly any is."""
    low, high = window.x
    slope = car * beta
    if slope:
        first, second = sorted((y / slope - 1 / beta) for y in window.y)
        low, high = max(low, first), min(high, second)
    elif not window.y[0] <= car <= window.y[1]:
        return None
    if high - low < 0.1 * (window.x[1] - window.x[0]):
        return None
    return (low, car + slope * low), (high, car + slope * high)


def _axes(window: _Window, upright: str) -> dict[str, Any]:
    alt = altair()
    x, y = (alt.Scale(domain=list(ends), nice=False, zero=False) for ends in (window.x, window.y))
    titles = ("mean loss (nats per token)", f"mean {upright}")
    plain = alt.Axis(grid=False)
    return {
        "x": alt.X("x:Q", scale=x, title=titles[0], axis=plain),
        "y": alt.Y("y:Q", scale=y, title=titles[1], axis=plain),
    }


def _guide_layers(guides: Sequence[Row], axes: Mapping[str, Any]) -> list[Any]:
    """Return the lines and, just outside the plot, what they are."""
    if not guides:
        return []
    alt = altair()
    base = named("guides")
    line = base.mark_rule(style="guide", strokeDash=[2, 4]).encode(**axes, x2="x2:Q", y2="y2:Q")
    beside = {
        "align": alt.ExprRef("datum.top ? 'center' : 'left'"),
        "dx": alt.ExprRef("datum.top ? 0 : 5"),
        "dy": alt.ExprRef("datum.top ? -8 : 0"),
    }
    text = base.mark_text(style="quiet", baseline="middle", **beside)
    return [line, text.encode(x=alt.X("x2:Q"), y=alt.Y("y2:Q"), text="text:N")]


def _pieces(rows: Sequence[Row]) -> list[Row]:
    """Return the pieces of the paths that lead through families by size."""
    grouped: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row["size"]), key=lambda row: row["size"]):
        grouped.setdefault(row["family"], []).append(row)
    return [
        {"family": family, "x": a["x"], "y": a["y"], "x2": b["x"], "y2": b["y"]}
        | {"middle_x": (a["x"] + b["x"]) / 2, "middle_y": (a["y"] + b["y"]) / 2}
        for family, members in grouped.items()
        for a, b in pairwise(members)
    ]


def _relatives(
    pieces: Sequence[Row], axes: Mapping[str, Any], look: Mapping[str, Any]
) -> list[Any]:
    """Return the paths through families, with an arrow amid each piece."""
    if not pieces:
        return []
    alt = altair()
    base = named("pieces")
    colour = {"color": look["color"]}
    line = base.mark_rule(opacity=0.55).encode(**axes, x2="x2:Q", y2="y2:Q", **colour)
    # The angle depends on the shape of the plot, which is known only where it is drawn.
    turn = (
        "atan2(scale('x', datum.x2) - scale('x', datum.x), scale('y', datum.y) - scale('y', datum.y2))"
        " * 180 / PI"
    )
    arrow = base.mark_point(
        shape="triangle-up", filled=True, size=45, opacity=0.8, angle=alt.ExprRef(turn)
    ).encode(x=alt.X("middle_x:Q"), y=alt.Y("middle_y:Q"), **colour)
    return [line, arrow]


def _points(axes: Mapping[str, Any], look: Mapping[str, Any], *, upright: str) -> list[Any]:
    alt = altair()
    base = named()
    bars = [
        base.mark_rule(opacity=0.5).encode(
            x=alt.X("x_low:Q"), x2="x_high:Q", y=axes["y"], color=look["color"]
        ),
        base.mark_rule(opacity=0.5).encode(
            x=axes["x"], y=alt.Y("y_low:Q"), y2="y_high:Q", color=look["color"]
        ),
    ]
    tip = tips(
        whole="teacher",
        family="family",
        size_text="parameters",
        rank="rank",
        by_text="ordering metric [95%]",
        y_text=f"mean {upright} [95%]",
        x_text="mean loss [95%]",
        p_best="P(first)",
        n="instructions",
    )
    size = alt.Size("area:Q", scale=None, legend=None)
    point = base.mark_point(filled=True, opacity=0.9).encode(**axes, size=size, tooltip=tip, **look)
    return [*bars, point, name_layer(base, **axes)]


def _in_words(rows: Sequence[Row], upright: str) -> str:
    most = max(rows, key=lambda row: row["y"])
    least = min(rows, key=lambda row: row["x"])
    first = rows[0]
    return (
        f"{counted(len(rows), 'teacher')} by mean loss and mean {upright}. Most {upright}: {most['label']} "
        f"({shown(most['y'])} at a loss of {shown(most['x'])}). Least loss: {least['label']} "
        f"({shown(least['x'])} at a {upright} of {shown(least['y'])}). Best by the ranking: {first['label']} "
        f"({upright} {first['y_text']}, loss {first['x_text']})."
    )
