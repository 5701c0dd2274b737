"""The leaderboard as a page shows it: columns that sort, cells with the value they sort by.

A cell is its text and, beside it, the plain value behind the text, so that the page's script sorts without
reading numbers back from words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preceptor.ranking.metrics import METRICS
from preceptor.ranking.places import TeacherResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import form_in
from preceptor.report.wording import ABSENT, alike, chance
from preceptor.types import Estimate

if TYPE_CHECKING:
    from preceptor.report.data import RankingData


_Form = Callable[[float | None], str]

BAR_WIDTH = 132
_BAR_MARGIN = 5

_FIRST = ("reward", "loss", "length")


@dataclass(frozen=True)
class Bar:
    """An interval drawn as a line with a point, in pixels from the left of `BAR_WIDTH`."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What one cell shows. `value` sorts it (None is always last), `note` stands below in small print."""

    text: str
    value: float | str | None
    note: str = ""
    bar: Bar | None = None


@dataclass(frozen=True)
class Heading:
    """A column. `kind` is "number" or "text"; `better` says which end is good, empty where neither is."""

    title: str
    kind: str
    better: str = ""


@dataclass(frozen=True)
class Row:
    """One teacher's cells, in the order of the headings; the second is its name."""

    teacher: str
    family: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Leaderboard:
    """A ranking's table, best teacher first, and the families that a reader may choose from."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    families: tuple[str, ...]


def leaderboard(ranked: RankingData) -> Leaderboard:
    """Return the table of a ranking: every metric and measure with its interval, n, and what was left out."""
    ranking = ranked.ranking
    others = _other_quantities(ranking)
    headings = [
        Heading("rank", "number"),
        Heading("teacher", "text"),
        Heading(ranking.by, "number", better(ranking, ranking.by)),
        Heading("P(first)", "number", "higher"),
        *(Heading(name, "number", better(ranking, name)) for name in others),
        Heading("leader better", "number"),
        Heading("family", "text"),
        Heading("size", "number"),
        Heading("tokens", "number"),
        Heading("n", "number"),
        Heading("dropped", "number"),
        Heading("truncated", "number"),
    ]
    forms = {name: alike(form_in(ranking, name)) for name in (ranking.by, *others)}
    rows = tuple(_row(ranked, result, forms) for result in ranking.teachers)
    families = sorted({row.family for row in rows if row.family})
    return Leaderboard(tuple(headings), rows, tuple(families))


def better(ranking: Ranking, quantity: str) -> str:
    """Return "higher" or "lower", as the quantity's own metric declares it; empty where none does."""
    metric = ranking.metrics.get(quantity) or METRICS.get(quantity)
    return "" if metric is None else "higher" if metric.higher_is_better else "lower"


def _other_quantities(ranking: Ranking) -> list[str]:
    """Return what else was measured or formed, without what says the same twice."""
    present = ranking.teachers[0].estimates
    names = [*(name for name in _FIRST if name in present), *ranking.metrics, *present]
    twice = {ranking.by, "likelihood"} if "loss" in present else {ranking.by}
    return [name for name in dict.fromkeys(names) if name not in twice]


def _row(ranked: RankingData, result: TeacherResult, forms: Mapping[str, _Form]) -> Row:
    name, by = result.teacher, ranked.ranking.by
    family = ranked.families.get(name) or ""
    size, tokens = ranked.sizes.get(name), ranked.tokens.get(name)
    cells = [
        Cell(str(result.rank), result.rank),
        Cell(name, name),
        _estimated(result.estimates[by], forms[by], _ends(ranked.ranking)),
        Cell(chance(result.p_best), result.p_best),
        *(_estimated(result.estimates.get(one), forms[one]) for one in forms if one != by),
        Cell(chance(result.p_leader_beats), result.p_leader_beats),
        Cell(family or ABSENT, family or None),
        Cell(ABSENT if size is None else f"{size:g}B", size),
        Cell(ABSENT if tokens is None else f"{tokens:,.0f}", tokens),
        Cell(f"{result.n:,}", result.n),
        _dropped(result),
        _truncated(result),
    ]
    return Row(name, family, tuple(cells))


def _estimated(
    estimate: Estimate | None, form: _Form, ends: tuple[float, float] | None = None
) -> Cell:
    if estimate is None or not math.isfinite(estimate.value):
        return Cell(ABSENT, None)
    note = f"{form(estimate.low)} to {form(estimate.high)}"
    return Cell(form(estimate.value), estimate.value, note, ends and _bar(estimate, ends))


def _ends(ranking: Ranking) -> tuple[float, float] | None:
    """Return the lowest and highest end of all teachers' intervals, None where there is no span."""
    found = [result.estimates[ranking.by] for result in ranking.teachers]
    lows = [one.low for one in found if math.isfinite(one.low)]
    highs = [one.high for one in found if math.isfinite(one.high)]
    return (min(lows), max(highs)) if lows and highs and min(lows) < max(highs) else None


def _bar(estimate: Estimate, ends: tuple[float, float]) -> Bar | None:
    def place(value: float) -> float:
        share = (value - ends[0]) / (ends[1] - ends[0])
        return round(_BAR_MARGIN + share * (BAR_WIDTH - 2 * _BAR_MARGIN), 1)

    parts = (estimate.low, estimate.value, estimate.high)
    return Bar(*map(place, parts)) if all(map(math.isfinite, parts)) else None


def _dropped(result: TeacherResult) -> Cell:
    total = sum(result.dropped.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in result.dropped.items() if count)
    return Cell(f"{total:,}", total, reasons)


def _truncated(result: TeacherResult) -> Cell:
    share = result.truncated / result.n if result.n else None
    return Cell(f"{result.truncated:,}", result.truncated, f"{share:.1%}" if share else "")
