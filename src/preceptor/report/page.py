"""One self-contained HTML page: which teacher, how sure, why, at what cost, and everything behind it.

What models and data wrote never becomes markup or code. Texts pass the template engine's escaping, data lie
in JSON blocks that the page's own scripts put in as text, and a content security policy names those scripts
by their hashes, so that nothing else runs and nothing is fetched.
"""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from preceptor.config.secrets import without_secrets
from preceptor.errors import MissingPackage
from preceptor.ranking.table import in_categories, trusted
from preceptor.report import leaderboard, sections
from preceptor.report.charts.figures import Chart, charts_of, published_charts, script_bundle, theme
from preceptor.report.data import RankingData, Report
from preceptor.report.dimensions import dimension_views
from preceptor.report.explorer import Examples, explorers
from preceptor.report.wording import island, visible

logger = logging.getLogger(__name__)

_SCRIPTS = ("page.js", "explorer.js")
_CHART_SCRIPT = "charts.js"
_HEADINGS = {
    "leaderboard": "The order and its doubt",
    "risk": "Reward and loss",
    "beta": "If beta were another",
    "size": "Size of the teacher",
    "distribution": "Distribution over instructions",
    "category": "By category",
    "agreement": "Agreement",
    "paper": "The paper's tables",
}


@dataclass(frozen=True)
class Figure:
    """A chart in the page: `data` is its specification as JSON, `id` is its own within the page."""

    id: str
    chart: Chart
    data: str


@dataclass(frozen=True)
class Section:
    """One ranking's part of the page; `figures` are in groups, each under its heading."""

    id: str
    ranked: RankingData
    brief: sections.Brief
    board: leaderboard.Leaderboard
    categories: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Figure, ...]], ...]
    examples: Examples
    settings: tuple[sections.Setting, ...]
    records: tuple[sections.RecordLine, ...]
    diversity: tuple[sections.DiversityLine, ...]
    trusted: tuple[str, ...]


def page(report: Report) -> str:
    """Return the report as one HTML file that opens offline and fetches nothing.

    Its examples take at most six megabytes, so that a page of one ranking of twenty teachers stays under
    eight; where they do not fit fewer are shown, and the page says how many. Without the chart packages it
    has no charts and says how to get them.
    """
    charts = drawn(lambda: charts_of(report))
    found, texts = explorers(report.rankings)
    rankings = tuple(
        _section(place, one, charts or (), examples)
        for place, (one, examples) in enumerate(zip(report.rankings, found, strict=True))
    )
    shared = [chart for chart in charts or () if chart.ranking is None]
    values = {
        "report": report,
        "rankings": rankings,
        "overview": sections.overview(report),
        "groups": grouped(shared, "shared"),
        "agreement": sections.agreement_lines(report.agreement) if report.agreement else (),
        "dimensions": dimension_views(report.dimensions),
        "texts": Markup(texts.data()),
        "no_charts": charts is None,
        "bar_width": leaderboard.BAR_WIDTH,
    }
    return rendered("page.html.jinja", values, with_charts=bool(charts))


def published_page() -> str:
    """Return the paper's own study as a page of charts.

    Raises:
        MissingPackage: where the chart packages are not installed.
    """
    values = {"groups": grouped(published_charts(), "paper")}
    return rendered("published.html.jinja", values, with_charts=True)


def drawn(draw: Callable[[], tuple[Chart, ...]]) -> tuple[Chart, ...] | None:
    """Return the charts, None where the packages that draw them are missing."""
    try:
        _chart_script()
        return draw()
    except MissingPackage as error:
        logger.info("The page has no charts: %s", error)
        return None


def _section(
    place: int, ranked: RankingData, charts: Sequence[Chart], examples: Examples
) -> Section:
    name = f"ranking-{place + 1}"
    return Section(
        id=name,
        ranked=ranked,
        brief=sections.brief(ranked),
        board=leaderboard.leaderboard(ranked),
        categories=tuple(in_categories(ranked.ranking)),
        groups=grouped([chart for chart in charts if chart.ranking == place], name),
        examples=examples,
        settings=sections.settings_of(ranked.ranking.settings),
        records=sections.record_lines(ranked.ranking.trust),
        diversity=sections.diversity_lines(ranked.ranking),
        trusted=tuple(trusted(ranked.ranking.trust)),
    )


def grouped(charts: Sequence[Chart], prefix: str) -> tuple[tuple[str, tuple[Figure, ...]], ...]:
    """Return the charts as figures under their headings, in the order they came."""
    by_section: dict[str, list[Figure]] = {}
    for place, chart in enumerate(charts):
        figure = Figure(f"{prefix}-chart-{place + 1}", chart, island(chart.spec))
        by_section.setdefault(chart.section, []).append(figure)
    return tuple((_HEADINGS.get(name, name), tuple(some)) for name, some in by_section.items())


def rendered(template: str, values: Mapping[str, object], *, with_charts: bool) -> str:
    """Return the template with its style and scripts, and the policy that allows only these."""
    names = (*_SCRIPTS, _CHART_SCRIPT) if with_charts else _SCRIPTS
    scripts = [_resource(name) for name in names]
    if with_charts:
        scripts.insert(len(_SCRIPTS), _chart_script())
    style = _resource("page.css")
    themes = {"light": theme(False), "dark": theme(True)} if with_charts else {}
    frame = {
        "policy": _policy(scripts, style),
        "style": Markup(style),
        "scripts": [Markup(script) for script in scripts],
        "themes": Markup(island(themes)),
        "island": lambda data: Markup(data),
    }
    return without_secrets(_environment().get_template(template).render(**values, **frame))


@cache
def _environment() -> Environment:
    """Return the templates' environment: every text is made showable, then escaped."""
    return Environment(
        loader=PackageLoader("preceptor", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_showable,
    )


def _showable(value: object) -> object:
    return value if isinstance(value, Markup) or callable(value) else visible(str(value))


@cache
def _resource(name: str) -> str:
    return files("preceptor.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _chart_script() -> str:
    # Bundling takes seconds and always gives the same.
    return _closed(script_bundle())


def _closed(script: str) -> str:
    """Return a script in whose strings nothing ends the element that holds it."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str], style: str) -> str:
    hashes = " ".join(dict.fromkeys(map(_hash, scripts)))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
