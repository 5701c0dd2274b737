"""Agreement as tables in a terminal, in the layout of the paper's table 4.

A cell is a number with its interval beneath it, and columns that do not fit beside each other go into a
further band with the students again, so that nothing is cut at any width. Names come from files and are
printed as plain text.
"""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from preceptor.agreement.bootstrap import FEWEST_FOR_INTERVAL, Ends
from preceptor.agreement.calibration import Calibration, HeldOut
from preceptor.agreement.table import Agreement, AgreementTable, Difference, FamilyAgreement
from preceptor.errors import counted
from preceptor.ranking.table import p_value, printable

_WIDEST = 18
_GAP = 2


def print_agreement(console: Console, table: AgreementTable, *, source: str) -> None:
    """Print every metric against every student, then what holds over all students.

    Args:
        console: where to.
        table: what was worked out.
        source: where the observed orders are from, in words.
    """
    comparison = table.comparison
    teachers, students = len(comparison.teachers), len(comparison.students)
    console.print()
    rows = (
        counted(students, "student")
        if comparison.averaged
        else f"{counted(students, 'order')} by student and dimension"
    )
    _say(
        console,
        f"Predicted against observed orders of {counted(teachers, 'teacher')}, {rows}",
        "bold",
    )
    _say(console, f"Observed: {source}. Teachers: {', '.join(comparison.teachers)}.", "dim")
    console.print()
    if teachers < FEWEST_FOR_INTERVAL:
        basis = f"no interval below {FEWEST_FOR_INTERVAL} teachers"
    else:
        basis = f"95% interval over {'families' if table.related else 'teachers'}"
    _say(console, f"Spearman's rho [{basis}]", "bold")
    for band in _bands(table, console.width):
        console.print(_rhos(table, band))
        console.print()
    over = "the student" if students == 1 else f"the {students} students, means"
    _say(console, f"Over {over}" if comparison.averaged else "By dimension", "bold")
    console.print(_summary(table))
    _say(console, _LEGEND, "dim")
    console.print()


_LEGEND = (
    "better: the declared direction; a negative rho says that the other one agrees. p: two-sided, by "
    "permutation; adjusted: for all metrics that are no baselines, in either direction. tau: Kendall's "
    "tau-b. regret: observed points lost by taking the metric's top pick, and their share of the best. top "
    "3: the share of its top three picks that are among the observed three. Baselines: size, a teacher's "
    "parameters; prior, its mean rank over the other students."
)


def _bands(table: AgreementTable, width: int) -> Iterator[list[int]]:
    """Yield the places of columns that fit beside each other."""
    left = width - max(map(len, table.comparison.students))
    band: list[int] = []
    room = left
    for place, mean in enumerate(table.means):
        cells = [row[place] for row in table.cells] + [mean]
        longest = max(len(_range(cell.ends)) for cell in cells)
        room -= max(longest, min(len(mean.column), _WIDEST)) + _GAP
        if band and room < 0:
            yield band
            band = []
            room = left - max(longest, min(len(mean.column), _WIDEST)) - _GAP
        band.append(place)
    yield band


def _rhos(table: AgreementTable, band: Sequence[int]) -> Table:
    grid = _grid(["student", *(table.means[place].column for place in band)])
    last = len(table.cells) - 1
    for row, student in enumerate(table.comparison.students):
        cells = [_cell(table.cells[row][place]) for place in band]
        grid.add_row(Text(printable(student)), *cells, end_section=row == last)
    if len(table.cells) > 1 and table.comparison.averaged:
        grid.add_row(Text("mean", "bold"), *(_cell(table.means[place], "bold") for place in band))
    return grid


def _cell(cell: Agreement, style: str = "") -> Text:
    return Text.assemble((_fixed(cell.rho), style), "\n", (_range(cell.ends), "dim"))


def _summary(table: AgreementTable) -> Table:
    grid = _grid(["metric", "better", "rho", "p", "adjusted", "tau", "regret", "top 3"])
    group = None
    for one in table.summary:
        if one.student is not None and one.student != group:
            group = one.student
            grid.add_row(Text(printable(group), "dim"))
        column = table.comparison.column(one.column)
        grid.add_row(
            Text(printable(one.column)),
            "higher" if column.higher_is_better else "lower",
            _fixed(one.rho),
            p_value(one.permutation.p_value),
            p_value(one.permutation.adjusted),
            _fixed(one.tau),
            f"{one.regret:.2f} ({_share(one.regret_share)})",
            _share(one.top_three),
        )
    return grid


def print_differences(console: Console, table: AgreementTable, found: Sequence[Difference]) -> None:
    """Print how far each column is from the one chosen, and how many teachers would settle it."""
    if not found:
        return
    _say(
        console, f"Mean rho less that of {found[0].against}, paired over the same teachers", "bold"
    )
    grid = _grid(["metric", "difference", "95% interval", "P(better)", "teachers needed"])
    for one in found:
        grid.add_row(
            Text(printable(one.column)),
            _fixed(one.value, "+"),
            _range(one.ends, "+"),
            _fixed(one.p_better, digits=2),
            _needed(one, len(table.comparison.teachers)),
        )
    console.print(grid)
    teachers = len(table.comparison.teachers)
    close = [one.column for one in found if one.needed != teachers]
    if close:
        _say(
            console,
            f"{teachers} teachers are too few to tell {', '.join(close)} from {found[0].against}. Teachers "
            "needed is a rough guess: it supposes that more teachers would be like these.",
            "yellow",
        )
    console.print()


def _needed(one: Difference, teachers: int) -> str:
    if one.needed == teachers:
        return "these do"
    return f"about {one.needed}" if one.needed else "over 1,000"


def print_families(console: Console, found: Sequence[FamilyAgreement]) -> None:
    """Print what holds when a family is left out, and within and across families."""
    _say(console, "By family: mean rho where relatives are not taken for independent", "bold")
    grid = _grid(["metric", "rho", "95%, families", "lowest", "highest", "within", "across"])
    for one in found:
        grid.add_row(
            Text(printable(one.column)),
            _fixed(one.rho),
            _range(one.ends),
            _left_out(one.lowest),
            _left_out(one.highest),
            _share(one.within),
            _share(one.across),
        )
    console.print(grid)
    _say(
        console,
        "95%, families: over whole families. lowest, highest: with any one family left out, and "
        "which. within, across: pairs of teachers of one family and of two that are ordered right; 50% is "
        "chance.",
        "dim",
    )
    console.print()


def _left_out(extreme: tuple[float, str]) -> Text:
    value, family = extreme
    return Text.assemble(_fixed(value), "\n", (f"no {printable(family)}" if family else "", "dim"))


def print_calibration(console: Console, found: Calibration) -> None:
    """Print each beta and transform, the judgement on what was held out, and the verdict."""
    _say(console, "Calibration: mean rho of CAR by beta and transform of the mean rewards", "bold")
    transforms = list(dict.fromkeys(one.candidate.transform for one in found.tried))
    grid = _grid(["beta", *transforms])
    for beta in sorted({one.candidate.beta for one in found.tried}):
        cells = {one.candidate.transform: one for one in found.tried if one.candidate.beta == beta}
        texts = [
            Text.assemble(
                (_fixed(cells[name].rho), "bold" if cells[name].candidate == found.best else ""),
                (f" {_range(cells[name].ends)} {_share(cells[name].chosen):>4}", "dim"),
            )
            if name in cells
            else ""
            for name in transforms
        ]
        grid.add_row(f"{beta:g}", *texts)
    console.print(grid)
    _say(console, "95% interval; then the share of draws that would choose it.", "dim")
    console.print()
    _print_held_out(console, "student", "rho", found.students)
    _print_held_out(console, "family", "pairs right", found.families)
    _say(console, found.verdict(), "bold")
    console.print()


def _print_held_out(console: Console, what: str, unit: str, held: Sequence[HeldOut]) -> None:
    if not held:
        _say(console, f"No {what} can be held out: there is only one.", "dim")
        return
    grid = _grid([f"{what} held out", "chosen on the rest", unit, "default's"])
    for one in held:
        grid.add_row(
            Text(printable(one.name)), str(one.chosen), _fixed(one.value), _fixed(one.default)
        )
    console.print(grid)
    console.print()


def print_notes(console: Console, left_out: Sequence[str], warnings: Sequence[str]) -> None:
    """Print what was left out, and what to be careful with."""
    for note in left_out:
        _say(console, note, "dim")
    for warning in warnings:
        console.print(Text("Warning: ", "yellow bold") + Text(printable(warning), "yellow"))
    console.print()


def _grid(headings: Sequence[str]) -> Table:
    """Return an empty table: names left, numbers right, the headings in bold."""
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for place, heading in enumerate(headings):
        right = place > 0
        grid.add_column(
            Text(printable(heading)),
            justify="right" if right else "left",
            overflow="fold",
            max_width=None if place == 0 else max(_WIDEST, 26 if len(headings) < 5 else 0),
        )
    return grid


def _say(console: Console, text: str, style: str) -> None:
    console.print(Text(printable(text), style))


def _fixed(value: float, sign: str = "-", *, digits: int = 3) -> str:
    return f"{value:{sign}.{digits}f}" if math.isfinite(value) else "n/a"


def _range(ends: Ends, sign: str = "-") -> str:
    """Return an interval without the zeros before the points: [-.11, .93]."""
    if not math.isfinite(ends.low):
        return "[n/a]"
    low, high = (f"{round(end, 2) + 0.0:{sign}.2f}".replace("0.", ".", 1) for end in ends)
    return f"[{low}, {high}]"


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "n/a"
