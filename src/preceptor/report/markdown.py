"""A report as Markdown for a model card: verdict, table, warnings, agreement, how to make it again.

Names, warnings and settings come from models and data and are untrusted, so each passes `inline` or stands in
a fenced block that it cannot end.
"""

import json
import re
from collections.abc import Callable, Mapping

from preceptor.ranking.places import TeacherResult
from preceptor.ranking.record import plain
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import footnotes, form_in, form_of
from preceptor.report.data import RankingData, Report
from preceptor.report.leaderboard import better
from preceptor.report.sections import agreement_lines, brief
from preceptor.report.wording import alike, chance, visible

_MEANINGFUL = re.compile(
    r"[\\`*\[\]{}<>#|~$&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=[Ww]{3})\.|^[-+]"
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_ARROWS = {"higher": " ↑", "lower": " ↓"}
_ENTITIES = "<>&|$@:"
_SPACES = re.compile(r"\s+")
_TICKS = re.compile("`+")
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def markdown(report: Report) -> str:
    """Return the report as Markdown that a model card can hold; every name in it is escaped.

    Headings begin at the second level. Marks that change the direction of writing are left out of
    names, because Markdown cannot isolate them.
    """
    parts = [f"## {inline(report.title)}"]
    for ranked in report.rankings:
        parts += _ranking(ranked)
    parts += _agreement(report)
    parts += ["### Make it again", _fenced(report.command, "")]
    if report.study_file:
        parts.append(_fenced(report.study_file, "toml"))
    if report.versions:
        named = (f"{inline(name)} {inline(version)}" for name, version in report.versions.items())
        parts.append(f"Versions: {', '.join(named)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def inline(text: str) -> str:
    """Return text that Markdown and HTML within it show as it is, on one line, in a table too."""
    flat = _SPACES.sub(" ", _MARKS.sub("", visible(text))).strip()
    return _NUMBERED.sub(r"\1\\\2", _MEANINGFUL.sub(_escaped, flat))


def _escaped(match: re.Match[str]) -> str:
    # A table ends its cell at an escaped bar too in some renderers, and links are made before escapes.
    return f"&#{ord(match[0])};" if match[0] in _ENTITIES else f"\\{match[0]}"


def _fenced(text: str, language: str) -> str:
    """Return the text in a block of code whose fence is longer than any in the text."""
    shown = visible(text).rstrip("\n")
    longest = max((len(ticks) for ticks in _TICKS.findall(shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _ranking(ranked: RankingData) -> list[str]:
    ranking = ranked.ranking
    warnings = [f"* {inline(warning.text)}" for warning in ranking.warnings]
    changes = [
        f"* {inline(change.condition)}: {inline(change.winner)} {change.does}"
        for change in ranked.changes
    ]
    settings = json.dumps(plain(ranking.settings), ensure_ascii=False, indent=1)
    return [
        f"### Teachers for {inline(ranking.student)}",
        f"**{inline(ranking.verdict().text)}**",
        f"Rewards: {inline(ranking.reward_source or 'none, so the order is exploratory')}.",
        inline(ranking.verdict().record),
        _table(ranked),
        "Intervals are 95% intervals over instructions.",
        "What would change the answer:\n\n" + "\n".join(changes) if changes else "",
        inline(brief(ranked).unchanged),
        *map(inline, footnotes(ranking)),
        "Warnings:\n\n" + "\n".join(warnings) if warnings else "",
        "<details><summary>Settings</summary>\n\n" + _fenced(settings, "json") + "\n\n</details>",
    ]


def _table(ranked: RankingData) -> str:
    ranking = ranked.ranking
    names = [ranking.by, *_further(ranking)]
    titles = [
        "rank",
        "teacher",
        *(_titled(ranking, name) for name in names),
        "P(first)",
        "n",
        "tokens",
    ]
    lines = [titles, ["--:", ":--", *("--:" for _ in titles[2:])]]
    forms = {name: alike(form_in(ranking, name)) for name in names}
    known = [tokens for tokens in ranked.tokens.values() if tokens is not None]
    tokens = alike(form_of(known))
    lines += [
        [*_row(result, forms), tokens(ranked.tokens.get(result.teacher))]
        for result in ranking.teachers
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _titled(ranking: Ranking, name: str) -> str:
    return f"{inline(name)}{_ARROWS.get(better(ranking, name), '')}"


def _agreement(report: Report) -> list[str]:
    """Return how well every metric agrees with what was observed; nothing where nothing was."""
    if report.agreement is None:
        return []
    titles = ["metric", "Spearman's rho", "95% interval", "adjusted p", "regret, points"]
    lines = [titles, [":--", *["--:"] * 4]]
    lines += [
        [
            f"{inline(line.metric)}{_ARROWS[line.better]}",
            line.rho,
            line.interval,
            line.adjusted,
            line.regret,
        ]
        for line in agreement_lines(report.agreement)
    ]
    return [
        "### Was the prediction right?",
        f"Observed: {inline(report.outcome)}." if report.outcome else "",
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
    ]


def _further(ranking: Ranking) -> list[str]:
    """Return the metrics besides the one that orders, and the measures they are made of."""
    present = ranking.teachers[0].estimates
    names = [*(name for name in ("reward", "loss") if name in present), *ranking.metrics]
    return [name for name in dict.fromkeys(names) if name not in {ranking.by, "likelihood"}]


def _row(result: TeacherResult, forms: Mapping[str, Callable[[float | None], str]]) -> list[str]:
    cells = [str(result.rank), inline(result.teacher)]
    for name, form in forms.items():
        one = result.estimates[name]
        cells.append(f"{form(one.value)} [{form(one.low)}, {form(one.high)}]")
    return [*cells, chance(result.p_best), f"{result.n:,}"]
