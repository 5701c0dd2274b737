"""The command `instructions`: choose the questions that teachers will be asked, and write them.

What became of every row is printed as a table and written as a report beside the file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import field_options
from preceptor.cli.output import console, put_json
from preceptor.errors import StudyError, counted

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.config.curation import Where
    from preceptor.data.curation_report import CurationReport

_SHOWN_FILES = 12
_CATEGORY = ("task_category", "category")
_QUALITY = ("input_quality", "quality")


def _parameters() -> list[click.Parameter]:
    from preceptor.config.curation import Curation
    from preceptor.config.data import ReadOptions
    from preceptor.config.keywords import Keyword, keywords_of

    named = {"languages": "--language", "categories": "--category", "qualities": "--quality"}
    where = {"metavar": "COLUMN=VALUE", "multiple": True, "type": str}
    read = ("instruction_column", "reference_column", "split")
    return [
        click.Argument(["sources"], nargs=-1, required=True),
        Option(
            ["--output"], required=True, metavar="FILE", help="Where to write: .jsonl or .parquet."
        ),
        *field_options(
            "Choice",
            keywords_of(Curation),
            changed={"where": where, "near_duplicates": {"metavar": "SIMILARITY"}},
        ),
        *(
            Option(
                [option, name], multiple=True, help="Keep this one. Repeatable.", section="Choice"
            )
            for name, option in named.items()
        ),
        Option(
            ["--turns"],
            type=click.Choice(["last", "first"]),
            default="last",
            show_default=True,
            help="Of longer conversations: all up to the user's last turn, or the first turn alone.",
            section="Data",
        ),
        *field_options("Data", {name: Keyword(ReadOptions, name) for name in read}),
        Option(["--overwrite"], is_flag=True, help="Replace the file where it exists."),
    ]


@click.command(cls=Command, made=_parameters)
def instructions(sources: tuple[str, ...], output: str, overwrite: bool, **given: Any) -> None:
    """Choose instructions: filter, drop duplicates, draw.

    SOURCES are files, folders or Hub data sets of instructions, with or without responses.
    """
    path = Path(output)
    report_path = path.with_name(f"{path.name}.report.json")
    _check_output(path, report_path, overwrite=overwrite)
    from preceptor.config.base import checked
    from preceptor.config.curation import Curation
    from preceptor.config.data import ReadOptions
    from preceptor.data.curation import curate
    from preceptor.data.instructions import PromptSource, write_prompts
    from preceptor.report.terminal import print_lines

    where = _filters(given)
    turns = given.pop("turns")
    names = ("instruction_column", "reference_column", "split")
    reading = ReadOptions(**{name: given.pop(name) for name in names})
    options = checked(Curation, {**given, "where": where}, where="instructions")
    source = PromptSource.open(sources, reading, turns=turns)
    described = [file.describe() for file in source.files]
    hidden = len(described) - _SHOWN_FILES
    more = [f"... and {hidden} more files"] if hidden > 0 else []
    print_lines(console(aside=True), [*described[:_SHOWN_FILES], *more])
    curated = curate(source, options)
    fields = [column for one in where for column in one.columns]
    write_prompts(curated, path, fields=fields)
    details = {"output": path.name, "turns": turns, "files": described}
    put_json(str(report_path), curated.report.to_dict() | details)
    _print_report(console(), curated.report, path)


def _check_output(path: Path, report_path: Path, *, overwrite: bool) -> None:
    if path.suffix not in (".jsonl", ".parquet"):
        raise StudyError(f"'{path}' ends in neither .jsonl nor .parquet: name it so.")
    for existing in (path, report_path):
        if existing.exists() and not overwrite:
            raise StudyError(f"'{existing}' exists. Name another file, or add --overwrite.")


def _filters(given: dict[str, Any]) -> "tuple[Where, ...]":
    """Take the filters out of what was given; values of one column are alternatives."""
    from preceptor.config.curation import Where

    found: dict[tuple[str, ...], list[str]] = {}
    named = {"languages": ("language",), "categories": _CATEGORY, "qualities": _QUALITY}
    for option, columns in named.items():
        if values := given.pop(option):
            found.setdefault(columns, []).extend(values)
    for text in given.pop("where"):
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise StudyError(f"--where is '{text}': expected COLUMN=VALUE, as language=English.")
        found.setdefault((column.strip(),), []).append(value)
    return tuple(Where(columns=columns, values=tuple(values)) for columns, values in found.items())


def _print_report(screen: "Console", report: "CurationReport", path: Path) -> None:
    """Print what became of every row; names come from data and are shown as plain text."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from preceptor.ranking.table import printable
    from preceptor.report.terminal import print_lines

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="fold")
    for heading in ("read", *report.reasons, "kept"):
        table.add_column(Text(printable(heading)), justify="right", overflow="fold")
    rows = [
        [tally.read, *(tally.dropped[reason] for reason in report.reasons), tally.kept]
        for tally in report.sources.values()
    ]
    for name, row in zip(report.sources, rows, strict=True):
        table.add_row(Text(printable(name)), *_numbers(row))
    if len(rows) > 1:
        table.add_row("all", *_numbers(map(sum, zip(*rows, strict=True))), style="bold")
    screen.print(table)
    print_lines(screen, report.notes())
    seed = report.options.seed
    text = f"{counted(report.kept, 'instruction')} written to {printable(str(path))} (seed {seed})."
    screen.print(Text(text), soft_wrap=True)


def _numbers(values: Iterable[int]) -> list[str]:
    return [f"{value:,}" for value in values]
