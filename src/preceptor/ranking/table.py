"""A ranking as a table: plain text for terminals and `print`, and HTML for notebooks.

Labels come from data and models, so control characters are shown as escapes and HTML is escaped. Colours are
added by `report/terminal.py`.
"""

import html
import math
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from preceptor.ranking.places import MIN_PROMPTS, Category, OrderVariant, Places, Trust
from preceptor.ranking.stability import FAILURES
from preceptor.ranking.verdict import Claim, claim_in, limits, percent, several, verdict_of
from preceptor.types import Estimate

_MEASURES = ("reward", "loss", "length")
_GAP = "   "
_ALWAYS = 5
"""Columns that are shown however narrow the page is: place, teacher, metric, P(first), n."""

_INGREDIENTS = ("reward", "loss")
"""What CAR is made of, and stands beside it before names are left whole."""

_READABLE = 14
"""Characters of a name in one line of a table that has CAR's ingredients."""

_MOST_CATEGORIES = 12
"""Categories that have a line below the table."""

_MOST_NAMED = 4
"""Teachers whose value stands in a line below the table."""

_TIMES_AS_LONG = 2
"""From how many times the shortest teacher's mean length on unequal amounts are spoken of."""

_NARROWEST = 8
"""Characters of a name in one line of a table for which there is no room."""


@dataclass(frozen=True)
class Column:
    """A heading and the cells below it."""

    title: str
    cells: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        """Columns of a terminal that the widest cell takes."""
        return max(map(_width, (self.title, *self.cells)))

    def lines(self, width: int) -> Iterator[list[str]]:
        """Yield each cell's lines, filled up to this width and folded where they are wider."""
        for text in (self.title, *self.cells):
            folded = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
            blanks = [" " * (width - _width(line)) for line in folded]
            yield [
                line + blank if self.left else blank + line
                for line, blank in zip(folded, blanks, strict=True)
            ]


def printable(text: str) -> str:
    """Return text with control characters shown as escapes, so that a label cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_text(ranking: Places, *, width: int = 80) -> str:
    """Return verdict, table and warnings as text of at most so many columns, teachers' names folded."""
    heading, rule, *rows = table_lines(ranking, width=width)
    paragraphs = [printable(verdict_of(ranking).text), *map(printable, beneath(ranking))]
    below = [*footnotes(ranking), *(f"Warning: {warning}" for warning in ranking.warnings)]
    return "\n".join(
        [
            *(textwrap.fill(one, width) for one in paragraphs),
            "",
            heading,
            rule,
            *("\n".join(row.split("\n")) for row in rows),
            *([""] if below else []),
            *(textwrap.fill(printable(one), width) for one in below),
        ]
    )


def beneath(ranking: Places) -> list[str]:
    """Return the lines below the verdict: where rewards are from, and the record of the metric."""
    lines = [f"Rewards: {ranking.reward_source}."] if ranking.reward_source else []
    return lines + ([ranking.trust.record] if ranking.trust else [])


def footnotes(ranking: Places) -> list[str]:
    """Return the lines below the table, without the warnings: about the order, and how far to trust it."""
    return [
        *about_order(ranking),
        *([limits(ranking)] if len(ranking) > 1 else []),
        *unequal_lengths(ranking),
        *in_categories(ranking),
        *trusted(ranking.trust),
    ]


def in_categories(ranking: Places) -> list[str]:
    """Return a line for each category with its best teacher and how sure that is; the largest are shown."""
    if not ranking.categories:
        return []
    if verdict_of(ranking).claim is Claim.NO_RECOMMENDATION:
        return ["Nobody is recommended in any category of instructions either."]
    tested = sum(one.p_adjusted is not None for one in ranking.categories)
    looked = f", p adjusted for looking at {tested}" if tested > 1 else ""
    lines = [f"By category of instruction (a winner beats every other teacher{looked}):"]
    lines += [_in_category(ranking, one) for one in ranking.categories[:_MOST_CATEGORIES]]
    more = len(ranking.categories) - _MOST_CATEGORIES
    return [*lines, f"{more} more categories are in the JSON."] if more > 0 else lines


def _in_category(ranking: Places, category: Category) -> str:
    """Return one category's line."""
    title = f"{'other categories' if category.name is None else category.name} (n {category.n})"
    if category.best is None:
        return f"{title}: nobody is named."
    claim, against = claim_in(ranking, category)
    value = _interval(category.means[category.best][ranking.by])
    p = category.p_adjusted
    sure = f"fewer than {MIN_PROMPTS} prompts" if p is None else f"p {p_value(p)}"
    basis = f"{ranking.by} {value}, {sure}"
    if claim is Claim.FIRST:
        return f"{title}: {category.best} is first, {basis}."
    if claim is Claim.LEADS_SO_FAR:
        why = "; ".join(against)
        return f"{title}: {category.best} leads so far, {basis}. No winner is named: {why}."
    return f"{title}: no clear winner. {category.best} leads, {basis}."


def about_order(ranking: Places) -> list[str]:
    """Return what stands below the table of the order itself: how stable it is, and failures."""
    if ranking.stability is None:
        return []
    failed = [one for one in ranking.stability.variants if one.name == FAILURES]
    shown = [_with_failures(ranking, one) for one in failed]
    return [ranking.stability.describe(), *shown]


def unequal_lengths(ranking: Places) -> list[str]:
    """Return what unequal lengths mean for fine-tuning, where they are far apart."""
    name = next((one for one in ("tokens", "length") if one in ranking.best.estimates), None)
    if name is None:
        return []
    order = sorted(ranking.teachers, key=lambda result: result.estimates[name].value)
    short, long = order[0], order[-1]
    least, most = (one.estimates[name].value for one in (short, long))
    if least <= 0 or most <= _TIMES_AS_LONG * least:
        return []
    return [
        f"Responses of {long.teacher} are {most / least:.1f} times as long as those of {short.teacher}: with "
        "as many rows a student trains on that many times the tokens. preceptor export --equal tokens and "
        'equal = "tokens" in [train] take fewer rows of longer teachers.'
    ]


def trusted(trust: Trust | None) -> list[str]:
    """Return which kind the data are taken for, and what is known of the teachers with other students."""
    if trust is None:
        return []
    lines = [f"Data: {trust.kind} ({trust.why})."]
    if trust.known:
        order = sorted(trust.known, key=lambda name: -trust.known[name])
        shown = ", ".join(f"{name} {trust.known[name]:+.2f}" for name in order[:_MOST_NAMED])
        more = f" and {len(order) - _MOST_NAMED} more" if len(order) > _MOST_NAMED else ""
        lines.append(f"With other students, in deviations from the mean teacher: {shown}{more}.")
    if trust.combined:
        lines.append(f"Combined with the metric (exploratory): {several(trust.combined, 'and')}.")
    return lines


def _with_failures(ranking: Places, variant: OrderVariant) -> str:
    """Return the order had every request without an answer earned the lowest reward."""
    higher = ranking.metrics[ranking.by].higher_is_better
    order = sorted(variant.values, key=variant.values.__getitem__, reverse=higher)
    shown = ", ".join(f"{name} {number(variant.values[name])}" for name in order[:_MOST_NAMED])
    more = f" and {len(order) - _MOST_NAMED} more" if len(order) > _MOST_NAMED else ""
    return f"{ranking.by} on all prompts asked, failures at the lowest reward: {shown}{more}."


def table_lines(ranking: Places, *, width: int) -> list[str]:
    """Return the heading, a rule and a line for each teacher; a line holds breaks where a name is folded.

    As many of the further measures and metrics are shown as fit, and the others are named in a last line.
    """
    columns = list(_columns(ranking))
    needed = _ALWAYS + sum(one.title in _INGREDIENTS for one in columns)
    if columns[2].title.partition(" ")[0] != "car" or _least_width(columns[:needed]) > width:
        needed = _ALWAYS
    shown, room = [], width - 1
    for place, column in enumerate(columns):
        room -= column.width + (len(_GAP) if place else 0)
        if room >= 0 or place < needed:
            shown.append(column)
    hidden = [column.title for column in columns if column not in shown]
    note = f" Not shown, for want of room: {', '.join(hidden)}."
    lines = aligned(shown, width=width, folded=1)
    return [*lines, *(textwrap.wrap(note, width) if hidden else [])]


def aligned(columns: Sequence[Column], *, width: int, folded: int) -> list[str]:
    """Return the heading, a rule and a line for each row; cells of one column fold where there is no room."""
    widths = [column.width for column in columns]
    over = 1 + sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if over > 0:
        widths[folded] = max(_NARROWEST, widths[folded] - over)
    cells = (column.lines(size) for column, size in zip(columns, widths, strict=True))
    rows = [_row(parts, widths) for parts in zip(*cells, strict=True)]
    rule = " " + "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    return [rows[0], rule, *rows[1:]]


def _least_width(columns: list[Column]) -> int:
    """Return the columns of a terminal that these take once names are folded as far as reads well."""
    widths = [column.width for column in columns]
    widths[1] = min(widths[1], _READABLE)
    return 1 + sum(widths) + len(_GAP) * (len(widths) - 1)


def _row(parts: Iterable[list[str]], widths: list[int]) -> str:
    lines = [
        " " + _GAP.join(cell or " " * size for cell, size in zip(line, widths, strict=True))
        for line in zip_longest(*parts)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _columns(ranking: Places) -> Iterator[Column]:
    results = ranking.teachers
    yield Column("", tuple(str(result.rank) for result in results))
    yield Column("teacher", tuple(printable(result.teacher) for result in results), left=True)
    form = form_in(ranking, ranking.by)
    ordered = tuple(_interval(result.estimates[ranking.by], form) for result in results)
    yield Column(printable(f"{ranking.by} [95% interval]"), ordered)
    yield Column("P(first)", tuple(f"{result.p_best:.2f}" for result in results))
    yield Column("n", tuple(str(result.n) for result in results))
    for name in other_columns(ranking):
        values = [result.estimates[name].value for result in results]
        yield Column(printable(name), tuple(map(form_in(ranking, name), values)))


def other_columns(ranking: Places) -> list[str]:
    """Return the metrics formed and their measures, without what says the same twice."""
    present = ranking.teachers[0].estimates
    names = [*(name for name in _MEASURES if name in present), *ranking.metrics]
    return [name for name in dict.fromkeys(names) if name not in {"likelihood", ranking.by}]


def _interval(estimate: Estimate, form: Callable[[float], str] | None = None) -> str:
    form = form or form_of((estimate.value, estimate.low, estimate.high))
    return f"{form(estimate.value)} [{form(estimate.low)}, {form(estimate.high)}]"


def number(value: float) -> str:
    """Return a number with the digits that a reader wants."""
    return form_of([value])(value)


def form_in(ranking: Places, name: str) -> Callable[[float], str]:
    """Return the form of a metric's or measure's column: that of its values, and of the order's intervals."""
    found = [one for result in ranking.teachers if (one := result.estimates.get(name))]
    values = [one.value for one in found]
    ends = [end for one in found for end in (one.low, one.high)] if name == ranking.by else []
    return form_of([*values, *ends])


def form_of(values: Iterable[float]) -> Callable[[float], str]:
    """Return the one form in which the numbers of a column are written: as many decimals for all.

    The largest decides how many; where it is huge, or another would be 0 with them, all have an exponent.
    """
    sizes = [size for size in map(abs, values) if size and math.isfinite(size)]
    largest = max(sizes, default=0.0)
    decimals = 1 if largest >= 100 else 2 if largest >= 10 else 3
    zeros = any(round(size, decimals) == 0 for size in sizes)
    if sizes and (zeros or not 1e-3 <= largest < 1e6):
        return lambda value: f"{value:.2e}"
    return lambda value: f"{value:.{decimals}f}"


def p_value(value: float) -> str:
    """Return a p; of a very small one no more than that, since no test here is exact so far out."""
    return "n/a" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _width(text: str) -> int:
    """Return the columns that a text takes: two for a wide character, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


_CELL = (
    "padding:3px 12px;color:inherit;background:none;border-bottom:1px solid rgba(128,128,128,.35)"
)


def html_table(ranking: Places) -> str:
    """Return verdict, table and warnings for a notebook, in its own colours; every text is escaped."""
    titles = ("rank", "teacher", "P(first)", "n", *ranking.metrics)
    forms = {name: form_in(ranking, name) for name in ranking.metrics}
    rows = []
    for result in ranking.teachers:
        texts = [str(result.rank), result.teacher, percent(result.p_best), str(result.n)]
        texts += [_html_interval(result.estimates[name], form) for name, form in forms.items()]
        weight = "bold" if result is ranking.teachers[0] else "normal"
        cells = _html_cells("td", texts)
        rows.append(f'<tr style="background:none;font-weight:{weight}">{cells}</tr>')
    below = [*footnotes(ranking), *map(str, ranking.warnings)]
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in below)
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in beneath(ranking))
    return (
        f'<div style="font-family:system-ui,sans-serif;overflow-x:auto">'
        f'<p style="font-size:1.15em"><b>{html.escape(verdict_of(ranking).text)}</b></p>'
        f"{lines}"
        f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f"<tr>{_html_cells('th', titles)}</tr>{''.join(rows)}</table>"
        f"{f'<ul>{notes}</ul>' if notes else ''}</div>"
    )


def _html_cells(tag: str, texts: Iterable[str]) -> str:
    """Return the cells of a row; the second is the teacher's name, and stands to the left."""
    return "".join(
        f'<{tag} style="{_CELL};text-align:{"left" if place == 1 else "right"}">'
        f"{html.escape(text)}</{tag}>"
        for place, text in enumerate(texts)
    )


def _html_interval(estimate: Estimate, form: Callable[[float], str]) -> str:
    """Return a value with its interval, a dash where there is no data."""
    if not math.isfinite(estimate.value):
        return "–"  # noqa: RUF001
    return _interval(estimate, form)
