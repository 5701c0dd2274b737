"""`preceptor studies`: the paper's tables and what they say, and what a user's own outcomes say.

Without options it says what is found in all tables; `--table` shows one and what concerns it. Everything
shown is computed at once from the printed numbers, so nothing here can go stale.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command
from preceptor.cli.output import console, put

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.studies import BenchmarkRow, Correlation, Finding, Summary

_GAP = 2
_FEW = 6
_SCORES = {"alpaca_lc": "AE2 LC", "alpaca_wr": "AE2 WR", "arena_hard": "AH"}
_SHORT = {
    "Qwen2-1.5B": "Qwen2\n1.5B",
    "Gemma 2-2B": "Gemma 2\n2B",
    "Qwen2.5-3B": "Qwen2.5\n3B",
    "Llama-3.2-3B": "Llama\n3.2-3B",
    "Llama-3.1-Minitron-4B": "Minitron\n4B",
}
"""Students as headings of narrow columns."""


@click.command(cls=Command)
@click.option(
    "--table", "number", type=click.IntRange(1, 9), metavar="N", help="Only the paper's table N."
)
@click.option(
    "--outcomes",
    metavar="FILE",
    help="Say instead what your own outcomes say: a CSV of teacher, student and score.",
)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write all of it as JSON; - for standard output."
)
def studies(number: int | None, outcomes: str | None, json_path: str | None) -> None:
    """Show the paper's tables and findings, or what your own outcomes say."""
    from preceptor import studies

    if number is not None and outcomes is not None:
        raise click.UsageError("--table is of the paper: leave it out, or --outcomes.")
    if outcomes is not None:
        from preceptor.agreement.orders import read_observed

        findings = studies.outcome_findings(read_observed(outcomes))
    else:
        findings = tuple(one for one in studies.findings() if number in (None, *one.tables))
    if json_path != "-":
        screen = console()
        if number is not None:
            _print_table(screen, number)
        elif outcomes is None:
            _print_figure_2(screen)
        _print_findings(screen, findings, paper=outcomes is None)
    if json_path:
        _write(json_path, number, findings, paper=outcomes is None)


def _show(
    console: "Console", text: str, *, indent: int = 0, hang: int = 0, style: str = ""
) -> None:
    """Print a text in lines that fit, no name cut at its hyphens; `hang` indents all but the first."""
    from rich.text import Text

    lines = textwrap.wrap(
        text,
        max(40, console.width),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def _title(console: "Console", text: str) -> None:
    console.print()
    _show(console, text, style="bold")


def _grid(
    console: "Console", headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> None:
    """Print a grid whose first `left` columns are words and the others numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, heading in enumerate(headings):
        side: Any = "left" if place < left else "right"
        grid.add_column(Text(heading), justify=side, overflow="fold", vertical="bottom")
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def _print_table(console: "Console", number: int) -> None:
    """Print a table as the paper has it, with recomputed averages beside the printed ones."""
    from preceptor import studies as paper

    _title(console, f"Table {number}: {paper.TITLES[number]}")
    if number == 1:
        rows = ((g.family, g.released, g.label, _size(g.size)) for g in paper.TABLE_1)
        _grid(console, ("family", "released", "Model ID", "size"), rows, left=3)
    elif number == 5:
        settings = ((one.name, one.value) for one in paper.TABLE_5)
        _grid(console, ("hyper-parameter", "value"), settings)
    elif number in (4, 9):
        _print_correlations(console, paper.TABLE_4 if number == 4 else paper.TABLE_9)
    elif number == 7:
        for measure, name in _SCORES.items():
            _print_by_student(console, name, measure)
        _print_figure_2(console)
    else:
        rows_of = {2: paper.TABLE_2, 3: paper.TABLE_3, 6: paper.TABLE_6, 8: paper.TABLE_8}
        _print_scores(console, rows_of[number])


def _size(billions: float | None) -> str:
    return "-" if billions is None else f"{billions:g}B"


def _print_scores(console: "Console", rows: Sequence["BenchmarkRow"]) -> None:
    """Print rows of scores with the printed average, and beside it AP as the paper defines it."""
    from preceptor.studies import TABLE_8_DEVIATION, TABLE_8_MEAN, defined_average

    lines = [_scores(row, row.name, f"{defined_average(row)}") for row in rows]
    if rows[0].table == 8:
        lines += [_scores(one, one.label, "") for one in (TABLE_8_MEAN, TABLE_8_DEVIATION)]
    _grid(console, ("row", *_SCORES.values(), "AP", "LC and AH"), lines)


def _scores(row: "BenchmarkRow | Summary", name: str, again: str) -> tuple[str, ...]:
    return (name, *(f"{getattr(row, measure)}" for measure in _SCORES), f"{row.average}", again)


def _print_correlations(console: "Console", cells: Sequence["Correlation"]) -> None:
    """Print a table of rho with metrics as rows, by our names, and the student as the heading."""
    students = dict.fromkeys(cell.student for cell in cells)
    values = {(cell.metric, cell.student): f"{cell.rho}" for cell in cells}
    metrics = dict.fromkeys((cell.metric, cell.heading) for cell in cells)
    headings = [_SHORT[name] if name else "mean" for name in students]
    _grid(
        console,
        ("metric", *headings),
        ((metric, *(values[metric, name] for name in students)) for metric, _ in metrics),
    )
    words = ", ".join(f"{metric} is {heading}" for metric, heading in metrics)
    _show(console, f"In the paper's words: {words}.", style="dim")


def _print_by_student(console: "Console", name: str, measure: str) -> None:
    """Print one score of table 7, teachers as rows."""
    from preceptor.studies import STUDENTS, TABLE_7

    values = {(row.teacher, row.student): f"{getattr(row, measure)}" for row in TABLE_7}
    teachers = dict.fromkeys(row.teacher for row in TABLE_7)
    rows = ((str(one), *(values[one, student] for student in STUDENTS)) for one in teachers)
    _show(console, name, style="bold")
    _grid(console, ("teacher", *(_SHORT[student] for student in STUDENTS)), rows)


def _print_figure_2(console: "Console") -> None:
    """Print figure 2 as numbers: AP of every teacher, relatives together, the smallest first."""
    from preceptor.studies import average_performance, families

    performance = average_performance()
    best = {student: max(values.values()) for student, values in performance.items()}
    _title(console, "Figure 2: AP, recomputed from table 7 as the mean of AE2 LC and AH")
    rows = [
        (
            teacher,
            *(
                f"{values[teacher]:.3f}{'*' if values[teacher] == best[student] else ' '}"
                for student, values in performance.items()
            ),
        )
        for teachers in families().values()
        for teacher in teachers
    ]
    _grid(console, ("teacher", *(f"{_SHORT[student]} " for student in performance)), rows)
    _show(console, "* the best teacher of this student", style="dim")


def _print_findings(
    console: "Console", findings: Sequence["Finding"], *, paper: bool = True
) -> None:
    """Print each claim with how often it holds; of the paper also what its numbers cannot show."""
    from preceptor.studies import NOT_CHECKABLE

    if findings:
        whose = (
            "What the paper claims" if paper else "What these outcomes say of the paper's claims"
        )
        _title(console, f"{whose}, case by case (NO: it does not hold there)")
    elif not paper:
        _show(
            console, "These outcomes say nothing of the paper's claims: no teachers that compare."
        )
    for finding in findings:
        console.print()
        source = finding.source and f" ({finding.source})"
        _show(console, f"{finding.name}{source}", style="bold")
        held = f"holds in {finding.held} of {len(finding.claimed)}"
        _show(console, f"{finding.claim} {held[0].upper()}{held[1:]}.", indent=_GAP)
        for line in _cases(finding):
            _show(console, line, indent=2 * _GAP, hang=2 * _GAP)
        if finding.note:
            _show(console, finding.note, indent=_GAP, style="dim")
    if paper and len(findings) > _FEW:
        _title(console, "What the printed numbers cannot show")
        for one in NOT_CHECKABLE:
            _show(console, one, indent=_GAP, hang=_GAP)


def _cases(finding: "Finding") -> Iterator[str]:
    """Yield the cases worth a line: all where they are few, else those that do not hold."""
    few = len(finding.claimed) <= _FEW
    for case in finding.claimed if few else finding.exceptions:
        yield f"{'yes' if case.holds else 'NO '} {case.where}: {case.numbers}"
    if finding.beyond:
        held = sum(case.holds for case in finding.beyond)
        few = len(finding.beyond) <= _FEW
        end = ":" if few or held < len(finding.beyond) else "."
        yield f"Beyond the text, in {held} of {len(finding.beyond)}{end}"
    for case in finding.beyond:
        if few or not case.holds:
            yield f"{'yes' if case.holds else 'no '} {case.where}: {case.numbers}"


def _write(path: str, number: int | None, findings: Sequence["Finding"], *, paper: bool) -> None:
    """Write the findings as JSON, and the paper's tables; numbers lose their trailing zeros."""
    from dataclasses import asdict

    from preceptor.store.files import json_text
    from preceptor.studies import table

    numbers = range(1, 10) if number is None else (number,)
    content: dict[str, Any] = {"findings": [asdict(one) for one in findings]}
    if paper:
        content["tables"] = {f"{one}": [asdict(row) for row in table(one)] for one in numbers}
    put(path, json_text(content))
