"""`preceptor evaluate`: results of fine-tuned students from judgements, or from answers and a judge.

Which benchmark a file belongs to shows in its rows. A student's benchmarks meet under one name, and AP is the
mean of two. A judge is called only where one is named.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.judge import judge_parameters
from preceptor.cli.options import output_options, runtime_options
from preceptor.cli.output import console, put, put_json
from preceptor.errors import StudyError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from preceptor.benchmarks.average_performance import StudentResult
    from preceptor.types import Estimate

_Record = dict[str, object]

_NONE = "-"
_GAP = 3
_NAME = 16


def _file(name: str, help: str, *, section: str, **settings: Any) -> Option:
    return Option(
        [name],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=help,
        section=section,
        **settings,
    )


def _parameters() -> list[click.Parameter]:
    names, files = "Names", "Files of the benchmarks"
    return [
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        Option(
            ["--student"], metavar="NAME", help="The base model that was fine-tuned.", section=names
        ),
        Option(
            ["--teacher", "teachers"],
            multiple=True,
            metavar="MODEL=TEACHER",
            help="Whose responses a judged MODEL was fine-tuned on; its benchmarks meet. Repeatable.",
            section=names,
        ),
        *judge_parameters(),
        _file(
            "--baseline-answers",
            "Answers to be beaten, or annotations that hold them. Default: each benchmark's own, fetched.",
            section=files,
            multiple=True,
        ),
        Option(
            ["--baseline"],
            default="gpt-4-0314",
            show_default=True,
            metavar="NAME",
            help="Whom Arena-Hard's models played against.",
            section=files,
        ),
        Option(
            ["--judged-by"],
            multiple=True,
            metavar="[FILE=]JUDGE",
            help="Who judged files of verdicts that name no judge: all of them, or one. Repeatable.",
            section=files,
        ),
        _file(
            "--arena-questions",
            "Arena-Hard's question.jsonl. Default: from the files of answers, or fetched.",
            section=files,
        ),
        _file("--instructions", "AlpacaEval's 805 instructions. Default: fetched.", section=files),
        _file("--gamed", "AlpacaEval's df_gamed.csv. Default: fetched.", section=files),
        *runtime_options(only=("store", "device")),
        Option(
            ["--seed"],
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Of resampling.",
        ),
        *output_options("the results", html=False),
        Option(
            ["--write-files"],
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Write answers and verdicts as the benchmarks' own tools do.",
            section="Output",
        ),
    ]


@click.command(cls=Command, made=_parameters)
def evaluate(
    files: tuple[Path, ...], json_path: str | None, csv_path: str | None, **given: Any
) -> None:
    """Score fine-tuned students on benchmarks, from judgements or answers.

    FILES are AlpacaEval 2 annotations, Arena-Hard v0.1 or v2.0 judgements, v0.1 battles, or MT-Bench's single
    marks, JSON or JSON lines; AP is the mean of AlpacaEval 2 and Arena-Hard v0.1. Files of answers are judged
    by --judge. With --student, --csv writes what `preceptor agreement --observed` reads.
    """
    from preceptor.benchmarks.average_performance import judge_warnings, student_results
    from preceptor.benchmarks.files import read_files
    from preceptor.benchmarks.registry import benchmarks
    from preceptor.cli.judge import judge_files, require_judge
    from preceptor.cli.judge_agreement import measure_judge

    if given["judge_agreement"]:
        measure_judge(files, given, json_path)
        return
    names, student = _names(given["teachers"]), given["student"]
    known = benchmarks(given)
    read = read_files(files, known, judged_by=given["judged_by"])
    require_judge(read.answers, given)
    judged = judge_files(read.answers, known, given)
    if given["estimate"]:
        return
    for one in judged:
        read.verdicts[one.benchmark] += one.verdicts
    scored = [
        known[name].score(own, seed=given["seed"]) for name, own in read.verdicts.items() if own
    ]
    found = [result for one in scored for result in one.results]
    results = student_results(found, names)
    warnings = [warning for one in scored for warning in one.warnings]
    warnings += [warning.text for one in judged for warning in one.warnings()]
    warnings += judge_warnings(found)
    if "-" not in (json_path, csv_path):
        _print(console(), results, warnings)
    records = [_record(result, student, names) for result in results]
    if json_path:
        own = [list(result.warnings) for result in results]
        _put_json(json_path, records, own, warnings)
    if csv_path:
        _put_csv(csv_path, records, observed=student is not None)


def _names(teachers: Sequence[str]) -> dict[str, str]:
    """Return the name of each model that was given one; a model's own name may hold an equals sign."""
    names = {}
    for given in teachers:
        model, equals, teacher = (part.strip() for part in given.rpartition("="))
        if not (model and equals and teacher):
            raise StudyError(f"--teacher is '{given}': expected MODEL=TEACHER.")
        names[model] = teacher
    return names


def _record(result: "StudentResult", student: str | None, names: dict[str, str]) -> _Record:
    """Return the flat record; with a student the name is the teacher's, else the model's."""
    models = [one.model for one in result.results.values()]
    placed: _Record = {"model": result.name}
    if student is not None or any(model in names for model in models):
        placed = {"teacher": result.name, "student": student}
    return placed | result.to_record()


def _print(screen: "Console", results: "Sequence[StudentResult]", warnings: Sequence[str]) -> None:
    """Print the table and, below it, what must be known of each model and of all."""
    from rich.padding import Padding
    from rich.text import Text

    from preceptor.ranking.table import printable

    def show(text: str, style: str) -> None:
        screen.print(Padding(Text(printable(text), style=style), (0, 0, 0, 1)))

    screen.print(_table(results, screen.width))
    for result in results:
        for warning in result.warnings:
            show(f"{result.name}: {warning}", "yellow")
    for warning in warnings:
        show(f"Warning: {warning}", "yellow")
    show(_legend(results), "dim")


def _legend(results: "Sequence[StudentResult]") -> str:
    """Return what the columns are."""
    from preceptor.benchmarks.average_performance import AP
    from preceptor.benchmarks.registry import benchmark_classes

    meanings = [
        f"{measure}: {kind.title}, {meaning}"
        for name, kind in benchmark_classes().items()
        if any(name in result.results for result in results)
        for measure, meaning in kind.measures.items()
    ]
    meanings.append(f"{AP.name}: the mean of {' and '.join(measure for _, measure in AP.parts)}")
    return (
        f"In percent unless a scale is named; higher is better. {'; '.join(meanings)}. Intervals resample "
        "prompts. Rates over fewer prompts than the benchmark has do not compare with published ones."
    )


def _table(results: "Sequence[StudentResult]", width: int) -> "Table":
    """Return the table, without columns that are empty for every model or have no room."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from preceptor.benchmarks.average_performance import AP, measure_order
    from preceptor.benchmarks.registry import benchmark_classes
    from preceptor.ranking.table import printable

    columns = {}
    whole = {AP.name, *(next(iter(kind.measures)) for kind in benchmark_classes().values())}
    formed = {name for result in results for name in result.estimates}
    for name in filter(formed.__contains__, measure_order(benchmark_classes())):
        short = name not in whole
        heading = name if short else f"{name} [95% interval]"
        columns[heading] = [_cell(result.estimates.get(name), short=short) for result in results]
    left = width - min(_NAME, max(len(printable(result.name)) for result in results))
    shown = {}
    for heading, cells in columns.items():
        left -= _GAP + max(map(len, cells))
        if left >= 0 or "[" in heading:
            shown[heading] = cells
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    for heading in shown:
        # Text, because a heading in brackets would be read as markup.
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for result, *cells in zip(results, *shown.values(), strict=True):
        table.add_row(*map(Text, (printable(result.name), *cells)))
    return table


def _cell(estimate: "Estimate | None", *, short: bool) -> str:
    if estimate is None:
        return _NONE
    if short:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _put_json(
    path: str,
    records: Sequence[_Record],
    own_warnings: Sequence[list[str]],
    warnings: Sequence[str],
) -> None:
    """Write one object: the results, each with its warnings, and the warnings of all."""
    from preceptor.ranking.record import plain

    pairs = zip(records, own_warnings, strict=True)
    results = [{**record, "warnings": own} for record, own in pairs]
    put_json(path, {"results": plain(results), "warnings": list(warnings)})


def _put_csv(path: str, records: Sequence[_Record], *, observed: bool) -> None:
    """Write the records; as observed outcomes only those with an AP, and say which have none."""
    from preceptor.store.files import csv_text

    kept = [record for record in records if record["AP"] is not None or not observed]
    put(path, csv_text(kept, list(dict.fromkeys(name for record in records for name in record))))
    if len(kept) < len(records):
        left_out = len(records) - len(kept)
        verb = "is" if left_out == 1 else "are"
        click.echo(f"{left_out} without an AP {verb} not in the CSV: nothing observed.", err=True)
