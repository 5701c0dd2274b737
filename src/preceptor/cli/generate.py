"""`preceptor generate`: ask one teacher for responses to instructions, without a study file."""

from pathlib import Path
from typing import Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import field_option, field_options, runtime_options
from preceptor.cli.output import progress_on
from preceptor.errors import counted


def _parameters() -> list[click.Parameter]:
    from preceptor.config.keywords import GENERATE, Keyword
    from preceptor.config.teachers import Teacher

    section, teacher = "Teacher", Keyword(Teacher, "model")
    changed = {
        "stop": {"metavar": "TEXT", "help": "Text that ends a response."},
        "temperature": {"help": "0 is greedy."},
        "top_p": {"help": "Share of probability to draw from (nucleus sampling)."},
    }
    of_responses = ("response_column", "teacher_column", "teacher_columns", "number_columns")
    return [
        click.Argument(["instructions"], nargs=-1, required=True),
        field_option(teacher, "teacher", section, required=True, metavar="MODEL"),
        *field_options(section, GENERATE["teacher"], changed=changed, without=("request",)),
        *field_options("Endpoint that serves the teacher", GENERATE["endpoint"]),
        *field_options("Data", GENERATE["data"], without=("columns",)),
        *field_options("Data", GENERATE["columns"], without=of_responses),
        *runtime_options(only=("store", "device", "batch_size", "gpus")),
        Option(
            ["--output"], required=True, metavar="FILE", help="File to write.", section="Output"
        ),
        Option(["--overwrite"], is_flag=True, help="Replace the file.", section="Output"),
    ]


@click.command(cls=Command, made=_parameters)
def generate(output: str, overwrite: bool, **given: Any) -> None:
    """Generate one teacher's responses to instructions.

    INSTRUCTIONS are files or Hub data sets. The JSONL that is written is what `preceptor rank` reads.
    """
    from preceptor import api

    if given["url"] and given["engine"] != "transformers":
        raise click.UsageError(
            "--engine runs the teacher here, --url asks elsewhere: give one of them."
        )
    if Path(output).exists() and not overwrite:
        raise click.ClickException(f"'{output}' exists: choose another file, or pass --overwrite.")
    with progress_on() as progress:
        count = api.generate(given.pop("instructions"), output=output, progress=progress, **given)
    click.echo(f"{counted(count, 'response')} in {output}")
    if not count:
        raise click.ClickException("No request got a response: the warnings above say why.")
