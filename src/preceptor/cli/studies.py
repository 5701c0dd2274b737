"""`preceptor studies`: outcomes of fine-tuning as data, published and one's own, and what they say."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from preceptor.cli.command import Group
from preceptor.cli.options import runtime_options
from preceptor.cli.output import console, put_json
from preceptor.errors import counted
from preceptor.types import DataKind

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.studies import Finding
    from preceptor.studies.study import OutcomeStudy

_json = click.option(
    "--json", "json_path", metavar="FILE", help="Write all of it as JSON; - for standard output."
)


_dimension = click.option(
    "--dimension",
    metavar="NAME",
    help="Of a FILE of outcomes in several dimensions, such as `preceptor run --csv` writes: which.",
)


def _store() -> Sequence[click.Parameter]:
    return runtime_options(only=("store",))


@click.group(cls=Group, invoke_without_command=True)
@click.option("--check", is_flag=True, help="Recompute every printed number that can be.")
@click.pass_context
def studies(context: click.Context, check: bool) -> None:
    """List outcome studies, show what they say, or add your own outcomes."""
    if check:
        _check()
    elif context.invoked_subcommand is None:
        from preceptor.config.runtime import Runtime

        _list(Runtime().store, None)


def _check() -> None:
    from preceptor.report import studies as report
    from preceptor.studies import check

    found = check.checks()
    report.print_checks(console(), found)
    report.print_over_teachers(console(), "rsr2026", check.over_teachers("rsr2026"))
    if not all(one.holds for one in found):
        raise click.exceptions.Exit(1)


@studies.command("list", made=_store)
@_json
def list_(store: str, json_path: str | None) -> None:
    """List the studies that come with Preceptor, and your own beside the store."""
    _list(store, json_path)


def _list(store: str, json_path: str | None) -> None:
    from preceptor.report.studies import print_list
    from preceptor.studies.own import every

    found = every(store)
    if json_path is None:
        print_list(console(), found)
    else:
        put_json(json_path, {"studies": [_described(one) for one in found]})


@studies.command(made=_store)
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--table", "number", type=click.IntRange(1, 9), metavar="N", help="Only table N of xu2024."
)
@_dimension
@_json
def show(
    name: str, number: int | None, dimension: str | None, store: str, json_path: str | None
) -> None:
    """Show a study's outcomes and what they say, or what those in a FILE say.

    A FILE is a CSV of teacher, student and score, or a JSON of rankings.
    """
    from preceptor import studies as paper
    from preceptor.studies.compatibility import compatibility, study_findings
    from preceptor.studies.own import named
    from preceptor.studies.study import XU, study

    if number is not None and name != XU:
        raise click.UsageError(f"--table is of {XU}: leave it out.")
    one = named(name, store)
    if one is not None and dimension is not None:
        raise click.UsageError(f"--dimension is of a file: leave it out for the study {name}.")
    if name == XU:
        findings = tuple(one for one in paper.findings() if number in (None, *one.tables))
        findings += (depends,) if number is None and (depends := compatibility(study(XU))) else ()
        if json_path != "-":
            _print_paper(console(), number, findings)
        if json_path:
            tables = range(1, 10) if number is None else (number,)
            put_json(json_path, _findings(findings) | {"tables": _tables(tables)})
        return
    findings = study_findings(one) if one else _of_file(name, store, dimension)
    if json_path != "-":
        _print(console(), one, findings)
    if json_path:
        put_json(json_path, _findings(findings) | (_described(one) if one else {}))
    if one is None and not findings:
        from preceptor.errors import NothingToCompare

        raise NothingToCompare(
            f"Nothing to compare in '{name}': expected outcomes of two teachers of one family, by names "
            "that `preceptor list teachers` prints."
        )


def _of_file(name: str, store: str, dimension: str | None) -> "tuple[Finding, ...]":
    from preceptor.agreement.orders import read_observed
    from preceptor.errors import StudyError, nearest
    from preceptor.studies import outcome_findings
    from preceptor.studies.own import every

    if not Path(name).suffix and not Path(name).exists():
        known = [one.name for one in every(store)]
        raise StudyError(
            f"'{name:.80}' is neither a file nor a study; studies are "
            f"{', '.join(known)}.{nearest(name, known)}"
        )
    return outcome_findings(read_observed(name, dimension))


@studies.command(made=_store)
@click.argument("file")
@click.option("--name", metavar="NAME", help="How to call them. Default: the file's name.")
@click.option(
    "--kind",
    type=click.Choice(get_args(DataKind)),
    required=True,
    help="What the teachers' responses are.",
)
@click.option("--score", metavar="TEXT", help="What the score is, in words.")
@click.option("--source", metavar="TEXT", help="Where they are from, in words.")
@click.option(
    "--noise",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Standard deviation of a score between runs, in its unit.",
)
@_dimension
def add(file: str, name: str | None, store: str, **said: Any) -> None:
    """Add your own outcomes: a CSV FILE of teacher, student and score, higher is better."""
    from preceptor.studies.own import OwnStudies

    given = {key: value for key, value in said.items() if value is not None}
    name = name or Path(file).stem.casefold()
    one = OwnStudies(store).add(name, file, **given)
    click.echo(
        f"added {one.name}: {counted(len(one.teachers), 'teacher')}, "
        f"{counted(len(one.students), 'student')}"
    )


@studies.command(made=_store)
@click.argument("name")
def remove(name: str, store: str) -> None:
    """Remove outcomes of your own by NAME."""
    from preceptor.studies.own import OwnStudies

    OwnStudies(store).remove(name)
    click.echo(f"removed {name}")


@studies.command()
@click.option(
    "--by-student",
    is_flag=True,
    help="Also what taking each favourite costs each student, the default's among them.",
)
@_json
def record(by_student: bool, json_path: str | None) -> None:
    """Show what every metric has been worth on published outcomes."""
    from dataclasses import asdict

    from preceptor.report import studies as report
    from preceptor.studies.choice import choices
    from preceptor.studies.record import records

    found = tuple(choices()) if by_student else ()
    if json_path is None:
        report.print_record(console(), records())
        report.print_choices(console(), found)
    else:
        held = {"record": [asdict(one) for one in records()]}
        put_json(json_path, held | {"choices": [asdict(one) for one in found]})


def _print_paper(screen: "Console", number: int | None, findings: "Sequence[Finding]") -> None:
    from preceptor.report import studies as report

    if number is None:
        report.print_figure_2(screen)
    else:
        report.print_table(screen, number)
    report.print_findings(screen, findings)


def _print(screen: "Console", one: "OutcomeStudy | None", findings: "Sequence[Finding]") -> None:
    from preceptor.report import studies as report
    from preceptor.studies.record import records

    if one is not None:
        report.print_study(screen, one)
    report.print_findings(screen, findings, paper=False)
    if one is not None and (own := [r for r in records() if r.study == one.name]):
        report.print_record(screen, own)


def _described(one: "OutcomeStudy") -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "source": one.source,
        "kind": one.kind,
        "score": one.score,
        "marks": one.marks,
        "outcomes": one.outcomes,
    }


def _findings(findings: "Sequence[Finding]") -> dict[str, Any]:
    from dataclasses import asdict

    return {"findings": [asdict(one) for one in findings]}


def _tables(numbers: Sequence[int]) -> dict[str, Any]:
    """Return the paper's tables; numbers lose their trailing zeros."""
    from dataclasses import asdict

    from preceptor.studies import table

    return {f"{one}": [asdict(row) for row in table(one)] for one in numbers}
