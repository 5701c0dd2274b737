"""A race as an HTML page: the verdict, a line for each teacher, the picture, and what it took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preceptor.ranking.race.result import Racer, RaceResult
from preceptor.ranking.race.table import footnotes
from preceptor.ranking.table import form_of
from preceptor.report import sections
from preceptor.report.charts.parts import Chart
from preceptor.report.charts.race import race_chart
from preceptor.report.page import Figure, drawn, grouped, rendered
from preceptor.report.wording import Piece, alike, named

_Form = Callable[[float | None], str]


@dataclass(frozen=True)
class Line:
    """One teacher's line of the table, as text."""

    teacher: str
    value: str
    behind: str
    rows: str
    beaten_by: str


@dataclass(frozen=True)
class RaceSection:
    """One race's part of the page."""

    id: str
    race: RaceResult
    chosen: str
    verdict: tuple[Piece, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Figure, ...]], ...]
    settings: tuple[sections.Setting, ...]


def race_page(races: Sequence[RaceResult], *, command: str) -> str:
    """Return the races of one run as one HTML file that opens offline and fetches nothing."""
    charts = drawn(lambda: tuple(map(race_chart, races)))
    found = [
        _section(place, race, charts[place : place + 1] if charts else ())
        for place, race in enumerate(races)
    ]
    values = {"races": found, "command": command, "no_charts": charts is None}
    return rendered("race.html.jinja", values, with_charts=bool(charts))


def _section(place: int, race: RaceResult, charts: Sequence[Chart]) -> RaceSection:
    name = f"race-{place + 1}"
    return RaceSection(
        id=name,
        race=race,
        chosen=race.choice[0].teacher,
        verdict=named(race.verdict().text, [one.teacher for one in race.racers]),
        lines=_lines(race.racers),
        notes=tuple(footnotes(race)),
        groups=grouped(charts, name),
        settings=sections.settings_of(race.settings),
    )


def _lines(racers: Sequence[Racer]) -> tuple[Line, ...]:
    """Return a line for each teacher, the numbers of a column in one form."""
    gaps = [one.behind for one in racers if one.behind is not None]
    value = alike(form_of(one.value for one in racers))
    behind = alike(form_of(end for gap in gaps for end in (gap.value, gap.low, gap.high)))
    return tuple(_line(one, value, behind) for one in racers)


def _line(one: Racer, value: _Form, behind: _Form) -> Line:
    gap = one.behind
    return Line(
        teacher=one.teacher,
        value=value(one.value),
        behind=""
        if gap is None
        else f"{behind(gap.value)} [{behind(gap.low)}, {behind(gap.high)}]",
        rows=f"{one.rows:,}",
        beaten_by=one.beaten_by or "",
    )
