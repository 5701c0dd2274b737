"""Outcome studies in a terminal: what there is, one study, the paper's tables, findings, checks, the record.

Everything shown is computed at once from the printed numbers, so nothing here can go stale. Names come from
files and are printed as plain text.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preceptor.ranking.table import printable
from preceptor.studies import (
    NOT_CHECKABLE,
    STUDENTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_8_DEVIATION,
    TABLE_8_MEAN,
    TABLE_9,
    TITLES,
    BenchmarkRow,
    Correlation,
    Finding,
    Summary,
    average_performance,
    defined_average,
    families,
)
from preceptor.studies.check import Check
from preceptor.studies.choice import Choice
from preceptor.studies.record import Record
from preceptor.studies.study import OutcomeStudy

_GAP = 2
_FEW = 6
_MOST = 24
_SCORES = {"alpaca_lc": "AE2 LC", "alpaca_wr": "AE2 WR", "arena_hard": "AH"}
_SHORT = {
    "Qwen2-1.5B": "Qwen2\n1.5B",
    "Gemma 2-2B": "Gemma 2\n2B",
    "Qwen2.5-3B": "Qwen2.5\n3B",
    "Llama-3.2-3B": "Llama\n3.2-3B",
    "Llama-3.1-Minitron-4B": "Minitron\n4B",
}
"""Students as headings of narrow columns."""


def _show(console: Console, text: str, *, indent: int = 0, hang: int = 0, style: str = "") -> None:
    """Print a text in lines that fit, no name cut at its hyphens; `hang` indents all but the first."""
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


def _title(console: Console, text: str) -> None:
    console.print()
    _show(console, text, style="bold")


def _grid(
    console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> None:
    """Print a grid whose first `left` columns are words and the others numbers."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, heading in enumerate(headings):
        side: Any = "left" if place < left else "right"
        grid.add_column(Text(heading), justify=side, overflow="fold", vertical="bottom")
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def print_list(console: Console, studies: Sequence[OutcomeStudy]) -> None:
    """Print a line for each study: its kind of data, its size, and what must be known of it."""
    rows = (
        (
            printable(one.name),
            one.kind,
            printable("; ".join([one.title, *one.marks])),
            f"{len(one.teachers)}",
            f"{len(one.students)}",
        )
        for one in studies
    )
    _grid(console, ("study", "data", "what", "teachers", "students"), rows, left=3)
    _show(
        console,
        "`preceptor studies show NAME` has one with what it says, `preceptor studies record` what "
        "metrics have been worth "
        "on them, `preceptor agreement NAME` its own measures against its outcomes.",
        style="dim",
    )


def print_study(console: Console, one: OutcomeStudy) -> None:
    """Print where a study is from, and every score, the best teacher of a student marked."""
    _title(console, printable(f"{one.name}: {one.title}"))
    for text in (
        f"Source: {one.source}.",
        f"Score: {one.score}.",
        *(f"Mark: {m}." for m in one.marks),
    ):
        _show(console, printable(text), indent=_GAP)
    widest = max(map(len, one.teachers)) + _GAP
    for band in _bands(one.students, console.width - widest):
        rows = [(printable(t), *(_score(one.outcomes[s], t) for s in band)) for t in one.teachers]
        _grid(console, ("teacher", *(printable(s).replace(", ", "\n") for s in band)), rows)
    _show(console, "* the best teacher of this student", style="dim")


def _bands(students: Sequence[str], width: int) -> Iterator[Sequence[str]]:
    """Yield the students whose columns fit beside each other."""
    most = max(1, width // (_GAP + max(max(map(len, name.split(", "))) for name in students)))
    yield from (students[at : at + most] for at in range(0, len(students), most))


def _score(row: Mapping[str, float], teacher: str) -> str:
    if teacher not in row:
        return ""
    return f"{row[teacher]:.4g}{'*' if row[teacher] == max(row.values()) else ' '}"


def print_record(console: Console, records: Sequence[Record]) -> None:
    """Print what metrics have been worth, by kind of data, the best first."""
    rows = (
        (
            one.kind,
            f"{one.metric} ({one.reader} reads)" if one.reader else one.metric,
            one.study,
            f"{one.teachers} x {one.students}",
            f"{one.rho:.3f}",
            "" if one.low is None else f"{one.low:.2f} to {one.high:.2f}",
            "" if one.regret is None else f"{one.regret:.2f}",
            "yes" if one.in_sample else "",
        )
        for one in sorted(records, key=lambda one: (one.kind, -one.rho))
    )
    headings = ("data", "metric", "study", "n", "rho", "95%", "regret", "in sample")
    _grid(console, headings, rows, left=3)
    _show(
        console,
        "n: teachers x students. rho: Spearman's, the mean over students, with its interval over "
        "teachers, whole families where some are related; none below 8 teachers. regret: mean points "
        "lost by taking the metric's favourite. In "
        "sample: something of the metric was chosen on these outcomes.",
        style="dim",
    )


def print_choices(console: Console, choices: Sequence[Choice]) -> None:
    """Print what taking each favourite costs each student, a grid for each study; the default is marked."""
    for study, reader in dict.fromkeys((one.study, one.reader) for one in choices):
        some = [one for one in choices if (one.study, one.reader) == (study, reader)]
        default = some[0].default or "not measured"
        _title(
            console,
            f"{study}: points lost by taking each favourite{f', {reader} reads' if reader else ''} (default: "
            f"{default})",
        )
        names = list(some[0].regrets)
        rows = [(printable(one.student), *(f"{one.regrets[n]:.2f}" for n in names)) for one in some]
        means = (sum(one.regrets[name] for one in some) / len(some) for name in names)
        rows.append(("mean", *(f"{mean:.2f}" for mean in means)))
        headings = (f"{name}*" if name == some[0].default else name for name in names)
        _grid(console, ("student", *headings), rows)


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print a line for each check."""
    rows = (
        (
            "ok" if one.holds else "NO",
            one.study,
            one.what,
            f"{one.count}",
            f"{one.difference:.2g}",
            f"{one.allowed:g}",
        )
        for one in checks
    )
    _grid(console, ("", "study", "printed numbers", "n", "worst", "allowed"), rows, left=3)


def print_over_teachers(console: Console, name: str, records: Sequence[Record]) -> None:
    """Print a study's mean rhos with intervals that take its teachers for unrelated."""
    _show(console, f"{name}: mean rho, 95% interval of draws of single teachers", style="bold")
    rows = (
        (one.metric, f"{one.rho:.3f}", f"{one.low:.2f} to {one.high:.2f}")
        for one in sorted(records, key=lambda one: -one.rho)
    )
    _grid(console, ("metric", "rho", "95%"), rows)


def print_table(console: Console, number: int) -> None:
    """Print a table as the paper has it, with recomputed averages beside the printed ones."""
    _title(console, f"Table {number}: {TITLES[number]}")
    if number == 1:
        rows = ((g.family, g.released, g.label, _size(g.size)) for g in TABLE_1)
        _grid(console, ("family", "released", "Model ID", "size"), rows, left=3)
    elif number == 5:
        settings = ((one.name, one.value) for one in TABLE_5)
        _grid(console, ("hyper-parameter", "value"), settings)
    elif number in (4, 9):
        _print_correlations(console, TABLE_4 if number == 4 else TABLE_9)
    elif number == 7:
        for measure, name in _SCORES.items():
            _print_by_student(console, name, measure)
        print_figure_2(console)
    else:
        rows_of = {2: TABLE_2, 3: TABLE_3, 6: TABLE_6, 8: TABLE_8}
        _print_scores(console, rows_of[number])


def _size(billions: float | None) -> str:
    return "-" if billions is None else f"{billions:g}B"


def _print_scores(console: Console, rows: Sequence[BenchmarkRow]) -> None:
    """Print rows of scores with the printed average, and beside it AP as the paper defines it."""
    lines = [_scores(row, row.name, f"{defined_average(row)}") for row in rows]
    if rows[0].table == 8:
        lines += [_scores(one, one.label, "") for one in (TABLE_8_MEAN, TABLE_8_DEVIATION)]
    _grid(console, ("row", *_SCORES.values(), "AP", "LC and AH"), lines)


def _scores(row: BenchmarkRow | Summary, name: str, again: str) -> tuple[str, ...]:
    return (name, *(f"{getattr(row, measure)}" for measure in _SCORES), f"{row.average}", again)


def _print_correlations(console: Console, cells: Sequence[Correlation]) -> None:
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


def _print_by_student(console: Console, name: str, measure: str) -> None:
    """Print one score of table 7, teachers as rows."""
    values = {(row.teacher, row.student): f"{getattr(row, measure)}" for row in TABLE_7}
    teachers = dict.fromkeys(row.teacher for row in TABLE_7)
    rows = ((str(one), *(values[one, student] for student in STUDENTS)) for one in teachers)
    _show(console, name, style="bold")
    _grid(console, ("teacher", *(_SHORT[student] for student in STUDENTS)), rows)


def print_figure_2(console: Console) -> None:
    """Print figure 2 as numbers: AP of every teacher, relatives together, the smallest first."""
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


def print_findings(console: Console, findings: Sequence[Finding], *, paper: bool = True) -> None:
    """Print each claim with how often it holds; of the paper also what its numbers cannot show."""
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


def _cases(finding: Finding) -> Iterator[str]:
    """Yield the cases worth a line: all where they are few, else those that do not hold."""
    few = len(finding.claimed) <= _FEW
    worth = finding.claimed if few else finding.exceptions
    for case in worth[:_MOST]:
        yield f"{'yes' if case.holds else 'NO '} {case.where}: {case.numbers}"
    if len(worth) > _MOST:
        yield f"and {len(worth) - _MOST} more, which --json has."
    if finding.beyond:
        held = sum(case.holds for case in finding.beyond)
        few = len(finding.beyond) <= _FEW
        end = ":" if few or held < len(finding.beyond) else "."
        yield f"Beyond the text, in {held} of {len(finding.beyond)}{end}"
    for case in finding.beyond:
        if few or not case.holds:
            yield f"{'yes' if case.holds else 'no '} {case.where}: {case.numbers}"
