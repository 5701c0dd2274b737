"""`preceptor published`: the paper's tables, what they say, and whether their numbers follow from each other.

The one idea: without options it says what is found in all tables; `--table` shows one and what concerns it.
Everything shown is computed at once from the printed numbers, so nothing here can go stale.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.output import console, put

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.studies import BenchmarkRow, Check, Correlation, Erratum, Finding, Summary

_GAP = 2
_FEW = 6
_SCORES = {"alpaca_lc": "AE2 LC", "alpaca_wr": "AE2 WR", "arena_hard": "AH"}
_KINDS = {
    "inconsistent": "Numbers that contradict others",
    "definition": "Numbers that are not what the text calls them",
    "wording": "Words and names that the numbers contradict",
    "rounded inputs": "Numbers whose inputs were rounded",
    "half digit": "Numbers that lie between two last digits",
}
_SHORT = {
    "Qwen2-1.5B": "Qwen2\n1.5B",
    "Gemma 2-2B": "Gemma 2\n2B",
    "Qwen2.5-3B": "Qwen2.5\n3B",
    "Llama-3.2-3B": "Llama\n3.2-3B",
    "Llama-3.1-Minitron-4B": "Minitron\n4B",
}
"""Students as headings of narrow columns."""


@click.command()
@click.option(
    "--table", "number", type=click.IntRange(1, 9), metavar="N", help="Only the paper's table N."
)
@click.option("--check", is_flag=True, help="Only recompute the numbers; fail where one is off.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Write all of it as JSON; - for standard output."
)
def published(number: int | None, check: bool, json_path: str | None) -> None:
    """Show the paper's tables and findings, and recompute their numbers."""
    from preceptor import studies as paper

    checks = [one for one in paper.checks() if number in (None, one.table)]
    errata = [one for one in paper.ERRATA if number in (None, one.table)]
    findings = [one for one in paper.findings() if number is None or number in one.tables]
    screen = console()
    if json_path != "-":
        if number is not None and not check:
            _print_table(screen, number)
        if not check:
            if number is None:
                _print_figure_2(screen)
            _print_findings(screen, findings)
        _print_checks(screen, checks)
        if not check:
            _print_errata(screen, errata)
    if json_path:
        _write(json_path, number, (checks, errata, findings))
    wrong = paper.faults(checks, errata)
    if wrong:
        raise click.ClickException("\n".join(("The tables and errata disagree:", *wrong)))
    if check and json_path != "-":
        _show(screen, "Passed: what is not equal is an erratum, and every erratum is still there.")


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
    """Print rows of scores with the printed average, and recomputed what it is the average of."""
    from preceptor.studies import TABLE_8_DEVIATION, TABLE_8_MEAN, checks
    from preceptor.studies.checks import shown

    again = {(one.table, one.row): shown(one) for one in checks() if one.column == "AP"}
    lines = [_scores(row, row.name, again[row.table, row.name]) for row in rows]
    if rows[0].table == 8:
        for summary in (TABLE_8_MEAN, TABLE_8_DEVIATION):
            lines.append(_scores(summary, summary.label, again[8, summary.label]))
    _grid(console, ("row", *_SCORES.values(), "AP", "exactly"), lines)


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
    told = ", ".join(f"{metric} is {heading}" for metric, heading in metrics)
    _show(console, f"In the paper's words: {told}.", style="dim")


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


def _print_checks(console: "Console", checks: Sequence["Check"]) -> None:
    """Print how many numbers of each table agree and how, and what rounding explains."""
    from preceptor.studies import Agreement
    from preceptor.studies.checks import rounding_rules, tally

    _title(console, f"{len(checks)} printed numbers recomputed from other printed numbers")
    counts = tally(checks)
    rows = [
        (f"table {number}", *(f"{count[kind] or '-'}" for kind in Agreement))
        for number, count in counts.items()
    ]
    _grid(console, ("", *Agreement), rows)
    halves = sum(count[Agreement.HALF] for count in counts.values())
    if halves:
        fits = rounding_rules(checks)
        told = ", ".join(f"{fit} as rounding {rule} gives" for rule, fit in fits.items())
        _show(console, f"Of {halves} half digits are printed: {told}.", style="dim")


def _print_errata(console: "Console", errata: Sequence["Erratum"]) -> None:
    """Print the errata, those with one explanation together."""
    if not errata:
        return
    _title(console, "Where the paper disagrees with itself")
    together: dict[tuple[str, str], list[Erratum]] = {}
    for erratum in errata:
        together.setdefault((erratum.kind, erratum.explanation), []).append(erratum)
    kind = ""
    for (next_kind, explanation), group in together.items():
        if next_kind != kind:
            kind = next_kind
            console.print()
            _show(console, _KINDS[kind], style="bold")
        for one in group:
            instead = "in fact" if kind in ("definition", "wording") else "recomputed"
            told = f"Table {one.table}, {one.row}, {one.column}: {one.printed}; {instead} {one.recomputed}"
            _show(console, told, indent=_GAP, hang=_GAP)
        _show(console, explanation, indent=2 * _GAP, style="dim")


def _print_findings(console: "Console", findings: Sequence["Finding"]) -> None:
    """Print each claim with how often it holds, and what the printed numbers cannot show."""
    from preceptor.studies import NOT_CHECKABLE

    if findings:
        _title(console, "What the paper claims, case by case (NO: it does not hold there)")
    for finding in findings:
        console.print()
        _show(console, f"{finding.name} ({finding.source})", style="bold")
        held = f"holds in {finding.held} of {len(finding.claimed)}"
        _show(console, f"{finding.claim} {held[0].upper()}{held[1:]}.", indent=_GAP)
        for line in _cases(finding):
            _show(console, line, indent=2 * _GAP, hang=2 * _GAP)
        if finding.remark:
            _show(console, finding.remark, indent=_GAP, style="dim")
    if len(findings) > _FEW:
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


def _write(path: str, number: int | None, parts: Sequence[Sequence[Any]]) -> None:
    """Write tables, checks, errata and findings as JSON; numbers lose their trailing zeros."""
    import json
    from dataclasses import asdict

    from preceptor import studies as paper

    numbers = range(1, 10) if number is None else (number,)
    tables: Mapping[str, Any] = {
        f"{one}": [asdict(row) for row in paper.table(one)] for one in numbers
    }
    named = dict(zip(("checks", "errata", "findings"), parts, strict=True))
    content = {"tables": tables} | {
        name: [asdict(one) for one in members] for name, members in named.items()
    }
    put(path, json.dumps(content, indent=2, ensure_ascii=False, default=float) + "\n")
