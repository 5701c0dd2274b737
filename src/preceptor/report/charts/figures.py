"""The charts of a report, their export as pictures, and the script that draws them in a page.

A chart is data, Vega-Lite JSON and words. What it looks like comes from a theme, what draws it is one script
without a network, and neither is in the chart.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from preceptor.config.plugins import Registry
from preceptor.errors import require
from preceptor.report.charts.agreement import agreement_charts
from preceptor.report.charts.beta import beta_charts
from preceptor.report.charts.distributions import distribution_charts
from preceptor.report.charts.parts import Chart, Families, families_of
from preceptor.report.charts.published import paper_charts
from preceptor.report.charts.ranking import by_category, leaderboard, size_and_score
from preceptor.report.charts.risk import risk_and_return
from preceptor.report.charts.theme import theme
from preceptor.report.data import RankingData, Report

__all__ = [
    "EMBED_OPTIONS",
    "Chart",
    "charts_of",
    "published_charts",
    "save_charts",
    "script_bundle",
    "theme",
]

EMBED_OPTIONS: Mapping[str, object] = MappingProxyType(
    {"mode": "vega-lite", "ast": True, "actions": False, "renderer": "svg"}
)
"""What vegaEmbed must be given besides a theme's config.

`ast` has expressions interpreted instead of compiled, which a page without unsafe-eval needs. Specs name no
schema, so the mode says what they are.
"""

Draw = Callable[[RankingData, Families], Iterable[Chart | None]]
"""Draws one ranking's ranked: no chart where it lacks what the chart shows, or several."""

_DRAWN: Mapping[str, Draw] = MappingProxyType(
    {
        "leaderboard": lambda ranked, families: [leaderboard(ranked, families, place=0)],
        "risk": lambda ranked, families: [risk_and_return(ranked, families, place=0)],
        "beta": lambda ranked, families: beta_charts(ranked, families, place=0),
        "size": lambda ranked, families: [size_and_score(ranked, families, place=0)],
        "distribution": lambda ranked, _: distribution_charts(ranked, place=0),
        "category": lambda ranked, _: [by_category(ranked, place=0)],
    }
)

CHARTS: Registry[Callable[..., Any]] = Registry("charts", "chart", _DRAWN)
"""What draws the charts of one ranking, in the order of the page; the classes of other packages come last."""

PICTURE_WIDTH = 760
"""Pixels of an exported chart's plot."""

_NAME = 60
_SNIPPET = "window.vegaEmbed = vegaEmbed; window.vega = vega;"


def charts_of(report: Report) -> tuple[Chart, ...]:
    """Return all charts of a report, ranking by ranking, then those of the whole report.

    What lacks its data is left out. Names are unique, with -2 and so on from the second ranking on.

    Raises:
        MissingPackage: if altair is not installed.
    """
    families = families_of(report.rankings)
    found = [
        chart
        for place, ranked in enumerate(report.rankings)
        for chart in _of_ranking(ranked, families, place=place)
    ]
    return _named([*found, *agreement_charts(report)])


def _of_ranking(ranked: RankingData, families: Families, *, place: int) -> list[Chart]:
    drawn = (drawn_by(name, ranked, families) for name in CHARTS.names())
    return [replace(chart, ranking=place) for charts in drawn for chart in charts]


def drawn_by(name: str, ranked: RankingData, families: Families) -> list[Chart]:
    """Return what the charts of this name draw of one ranking; empty where it lacks what they show."""
    found = CHARTS[name]
    draw: Draw = found() if isinstance(found, type) else found
    return [chart for chart in draw(ranked, families) if chart is not None]


def published_charts() -> tuple[Chart, ...]:
    """Return the paper's own results as charts, from its printed tables.

    Raises:
        MissingPackage: if altair is not installed.
    """
    return _named(paper_charts())


def _named(charts: Iterable[Chart]) -> tuple[Chart, ...]:
    """Return the charts with names that are fit for files and differ."""
    taken: set[str] = set()
    found = []
    for chart in charts:
        plain = re.sub(r"[^a-z0-9]+", "-", chart.name[:_NAME].lower()).strip("-") or "chart"
        name, count = plain, 1
        while name in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name)
        found.append(replace(chart, name=name))
    return tuple(found)


def save_charts(charts: Sequence[Chart], folder: Path) -> tuple[Path, ...]:
    """Write each chart as NAME.svg and NAME.png (twice its size), light on white, and return the paths.

    The folder is made where there is none; files of these names are overwritten.

    Raises:
        MissingPackage: if vl-convert-python is not installed.
    """
    converter = _converter()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for chart in charts:
        spec = json.dumps(picture_spec(chart), allow_nan=False)
        vector, picture = (folder / f"{chart.name}.{kind}" for kind in ("svg", "png"))
        vector.write_text(converter.vegalite_to_svg(spec), encoding="utf-8")
        picture.write_bytes(converter.vegalite_to_png(spec, scale=2))
        paths += [vector, picture]
    return tuple(paths)


def picture_spec(chart: Chart) -> dict[str, object]:
    """Return the whole spec of a chart that stands alone: its title, its width, light on white."""
    return {
        **chart.spec,
        "width": PICTURE_WIDTH,
        "title": {"text": chart.title, "limit": PICTURE_WIDTH},
        "padding": 12,
        "config": {**theme(dark=False), "background": "white"},
    }


def script_bundle() -> str:
    """Return one script, about 0.9 MB, that defines `window.vegaEmbed` and `window.vega`.

    It holds Vega, Vega-Lite, vega-embed and the interpreter of expressions that vega-embed uses for
    `ast: true` (see `EMBED_OPTIONS`); it loads nothing.

    Raises:
        MissingPackage: if vl-convert-python is not installed.
    """
    # The bundle declares hundreds of short names, which must not meet a page's own.
    return f"(() => {{{_converter().javascript_bundle(_SNIPPET)}\n}})();"


def _converter() -> Any:
    require("vl_convert", purpose="Drawing charts")
    import vl_convert

    return vl_convert
