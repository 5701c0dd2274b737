"""`preceptor tokens`: how a student reads one response, token by token."""

from typing import Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import COLUMNS, field_option, field_options, runtime_options
from preceptor.cli.output import console, load_numpy, put_json


def _parameters() -> list[click.Parameter]:
    from preceptor.config.keywords import RANK, Keyword
    from preceptor.config.student import Student

    return [
        click.Argument(["responses"], nargs=-1, required=True),
        Option(
            ["--row"],
            type=click.IntRange(1),
            default=1,
            show_default=True,
            metavar="N",
            help="Which response, counted from 1 as they are read.",
            section="Data",
        ),
        *field_options("Data", RANK["columns"], changed=COLUMNS),
        field_option(Keyword(Student, "model"), "student", "Student", required=True),
        *field_options("Student", RANK["student"]),
        *field_options("Student", RANK["reading"]),
        *runtime_options(only=("store",)),
        Option(
            ["--json", "json_path"],
            metavar="FILE",
            help="Write as JSON; - for standard output.",
            section="Output",
        ),
    ]


@click.command(cls=Command, made=_parameters)
def tokens(responses: tuple[str, ...], json_path: str | None, **given: Any) -> None:
    """Show which tokens of a response count for a student, and what is left out.

    Losses and ranks are shown where a ranking stored them (--keep-tokens).
    """
    load_numpy()
    from preceptor import api

    found = api.tokens(responses, **given)
    if json_path is not None:
        put_json(json_path, found.to_dict())
        return
    screen = console()
    for line in found.lines():
        screen.print(line, soft_wrap=True)
    for text in found.table():
        screen.print(text, markup=False, highlight=False, soft_wrap=True)
