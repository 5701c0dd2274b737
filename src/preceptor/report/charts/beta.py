"""CAR as beta grows: ranks, values beside the best, and the probability of being best.

Beta is a choice, so the order is shown for all of its range with the chosen one marked; an order that holds
from end to end does not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.report.charts.parts import (
    Chart,
    Families,
    Row,
    altair,
    counted,
    listed,
    n_text,
    named,
    number,
    shown,
    teacher_rows,
    tips,
    whole_spec,
)
from preceptor.report.charts.risk import chosen_beta

if TYPE_CHECKING:
    from preceptor.ranking.sensitivity import BetaSweep
    from preceptor.report.data import Array, RankingData


LEAST_HEIGHT = 300
LINE = 19
"""Pixels of height for each teacher."""

GAP = 13
"""Pixels between names; where curves end closer together, the upper one has its name."""

CERTAIN = 0.01
"""A teacher whose P(first) never reaches this is left out of its chart."""

_TICKS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def beta_charts(ranked: RankingData, families: Families, *, place: int) -> tuple[Chart, ...]:
    """Return ranks, values and P(first) over beta; nothing without a sweep."""
    sweep = ranked.sweep
    if sweep is None or not sweep.betas:
        return ()
    return (
        _ranks(ranked, sweep, families, place=place),
        _values(ranked, sweep, families, place=place),
        _best(ranked, sweep, families, place=place),
    )


def _ranks(ranked: RankingData, sweep: BetaSweep, families: Families, *, place: int) -> Chart:
    rows = _rows(ranked, sweep, sweep.ranks)
    scale = altair().Scale(domain=[0.5, sweep.ranks.shape[1] + 0.5], reverse=True, nice=False)
    alternative = _winners(ranked, sweep)
    return Chart(
        name="beta-rank",
        section="beta",
        ranking=place,
        title="Rank by CAR as beta grows",
        caption=(
            f"Rank by CAR (1 is best) over beta, from the same {n_text(rows)} instructions at each beta; 0 "
            "is the reward alone. The vertical line is the chosen beta. Lines that cross change places; the "
            "tooltip has CAR and its 95% interval."
        ),
        alternative=alternative,
        spec=_spec(rows, families, _beta(ranked), title="rank", scale=scale, words=alternative),
    )


def _values(ranked: RankingData, sweep: BetaSweep, families: Families, *, place: int) -> Chart:
    rows = _rows(ranked, sweep, beside_best(sweep.values))
    alternative = _runners_up(ranked, sweep)
    return Chart(
        name="beta-value",
        section="beta",
        ranking=place,
        title="CAR as a share of the best CAR at each beta",
        caption=(
            f"CAR over beta, divided by the best teacher's at that beta, from {n_text(rows)} instructions; "
            "1 is the best. The vertical line is the chosen beta. There is no share where even the best CAR "
            "is not positive; the tooltip has CAR itself and its 95% interval."
        ),
        alternative=alternative,
        spec=_spec(
            rows,
            families,
            _beta(ranked),
            title="share of the best CAR",
            scale=_scale(rows),
            words=alternative,
        ),
    )


def _best(ranked: RankingData, sweep: BetaSweep, families: Families, *, place: int) -> Chart:
    rows = _rows(ranked, sweep, sweep.p_best)
    likely = {row["key"] for row in rows if (row["y"] or 0.0) >= CERTAIN}
    rows = [row for row in rows if row["key"] in likely] or rows
    alternative = _candidates(ranked, sweep)
    scale = altair().Scale(domain=[0, 1], nice=False)
    return Chart(
        name="beta-best",
        section="beta",
        ranking=place,
        title="P(first) as beta grows",
        caption=(
            f"The probability of being the best teacher by CAR over prompts like the {n_text(rows)} "
            f"compared, over beta. Teachers that never reach "
            f"{CERTAIN:.0%} are left out. The vertical line is the chosen beta."
        ),
        alternative=alternative,
        spec=_spec(rows, families, _beta(ranked), title="P(first)", scale=scale, words=alternative),
    )


def beside_best(values: Array) -> Array:
    """Return (betas, teachers) values over the largest of their row; NaN where that is not positive."""
    best = np.max(np.where(np.isfinite(values), values, -np.inf), axis=1, keepdims=True)
    return np.where(best > 0, values / np.where(best > 0, best, 1.0), np.nan)


def _rows(ranked: RankingData, sweep: BetaSweep, drawn: Array) -> list[Row]:
    """Return a row for each teacher and beta, with `drawn` (betas, teachers) as `y`."""
    rows = []
    results = ranked.ranking.teachers
    for column, (row, result) in enumerate(zip(teacher_rows(ranked), results, strict=True)):
        for line, beta in enumerate(sweep.betas):
            value, low, high, p_best = (
                array[line, column] for array in (sweep.values, sweep.low, sweep.high, sweep.p_best)
            )
            rows.append(
                row
                | {"beta": beta, "y": number(drawn[line, column]), "n": result.n}
                | {"rank": number(sweep.ranks[line, column]), "p_best": f"{p_best:.1%}"}
                | {"car": f"{shown(value)} [{shown(low)}, {shown(high)}]"}
            )
    return rows


def _beta(ranked: RankingData) -> list[Row]:
    """Return the chosen beta as the data of its line, nothing where there is none."""
    beta = chosen_beta(ranked)
    return [] if beta is None else [{"beta": beta, "text": f"beta = {beta:g}"}]


def _scale(rows: Sequence[Row]) -> Any:
    found = [row["y"] for row in rows if row["y"] is not None]
    low, high = min(found, default=0.0), max(found, default=1.0)
    margin = 0.05 * (high - low) or 0.05
    return altair().Scale(domain=[low - margin, high + margin], nice=False)


def _spec(
    rows: Sequence[Row],
    families: Families,
    chosen: Sequence[Row],
    *,
    title: str,
    scale: Any,
    words: str,
) -> Any:
    """Return lines over beta with their names at the right end."""
    alt = altair()
    height = max(LEAST_HEIGHT, LINE * len({row["key"] for row in rows}))
    betas = sorted({row["beta"] for row in rows})
    ticks = [tick for tick in _TICKS if betas[0] <= tick <= betas[-1]]
    axis = alt.Axis(values=ticks, format="~r", grid=False, labelOverlap="greedy")
    # Even steps near 0 and wide ones after it: what changes, changes at small betas.
    across = alt.Scale(type="symlog", domain=[betas[0], betas[-1]], nice=False)
    x = alt.X("beta:Q", title="beta", scale=across, axis=axis)
    y = alt.Y("y:Q", title=title, scale=scale, axis=alt.Axis(tickMinStep=_step(title)))
    base = named()
    look = families.encodings(row["family"] for row in rows)
    line = base.mark_line(strokeWidth=1.6, opacity=0.75)
    line = line.encode(x=x, y=y, color=look["color"], detail="key:N")
    tip = tips(
        whole="teacher", beta="beta", car="CAR [95% interval]", rank="rank", p_best="P(first)"
    )
    point = base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, tooltip=tip, **look)
    layers = [line, point, _names(x, y)]
    if chosen:
        mark = named("chosen")
        layers.insert(0, mark.mark_rule(style="guide", strokeDash=[5, 3]).encode(x=x))
        text = mark.mark_text(style="quiet", baseline="bottom", dy=-4)
        layers.append(text.encode(x=x, y=alt.value(0), text="text:N"))
    ends = _ends(rows, scale, height=height)
    return whole_spec(
        alt.layer(*layers),
        height=height,
        alternative=words,
        rows=rows,
        ends=ends,
        chosen=chosen,
    )


def _step(title: str) -> float:
    return 1.0 if title == "rank" else 0.0


def _ends(rows: Sequence[Row], scale: Any, *, height: float) -> list[Row]:
    """Return the rows of the largest beta that have room for a name, from the best down."""
    last = max(row["beta"] for row in rows)
    worst = 1 if scale.reverse is True else -1
    ends = [row for row in rows if row["beta"] == last and row["y"] is not None]
    low, high = scale.domain
    kept: list[Row] = []
    for row in sorted(ends, key=lambda row: worst * row["y"]):
        if not kept or height * abs(row["y"] - kept[-1]["y"]) >= GAP * (high - low):
            kept.append(row)
    return kept


def _names(x: Any, y: Any) -> Any:
    """Return the names at the right ends."""
    alt = altair()
    text = named("ends").mark_text(
        style="name",
        align="left",
        baseline="middle",
        dx=8,
        text=alt.ExprRef("narrow ? datum.number : datum.label"),
    )
    return text.encode(x=x, y=y)


def _labels(ranked: RankingData) -> list[str]:
    return [str(row["label"]) for row in teacher_rows(ranked)]


def _winners(ranked: RankingData, sweep: BetaSweep) -> str:
    """Return which teacher is first over which betas, in words."""
    names = _labels(ranked)
    first = [names[int(np.nanargmin(row))] for row in sweep.ranks]
    runs: list[list[float]] = []
    for place, beta in enumerate(sweep.betas):
        if place and first[place] == first[place - 1]:
            runs[-1].append(beta)
        else:
            runs.append([beta])
    clauses = [f"{first[sweep.betas.index(run[0])]} {_over(run)}" for run in runs]
    settled = sum(len(set(column)) == 1 for column in sweep.ranks.T)
    return (
        f"First by CAR: {listed(clauses)}. {settled} of {counted(len(names), 'teacher')} "
        "keep one rank at all betas."
    )


def _over(run: Sequence[float]) -> str:
    return f"at beta {run[0]:g}" if len(run) == 1 else f"from beta {run[0]:g} to {run[-1]:g}"


def _runners_up(ranked: RankingData, sweep: BetaSweep) -> str:
    """Return how close the second comes at the ends of the sweep, in words."""
    names, shares = _labels(ranked), beside_best(sweep.values)
    clauses = []
    for line in dict.fromkeys((0, len(sweep.betas) - 1)):
        order = np.argsort(-np.nan_to_num(shares[line], nan=-np.inf))
        if len(order) > 1 and np.isfinite(shares[line, order[1]]):
            second = (
                f"{names[order[1]]} has {shares[line, order[1]]:.1%} of {names[order[0]]}'s CAR"
            )
            clauses.append(f"at beta {sweep.betas[line]:g}, {second}")
    return f"The runner-up: {listed(clauses) or 'none'}."


def _candidates(ranked: RankingData, sweep: BetaSweep) -> str:
    names = _labels(ranked)
    clauses = [
        f"{name} {column.min():.0%} to {column.max():.0%}"
        for name, column in zip(names, sweep.p_best.T, strict=True)
        if column.max() >= CERTAIN
    ]
    return f"P(first) over beta {sweep.betas[0]:g} to {sweep.betas[-1]:g}: {'; '.join(clauses)}."
