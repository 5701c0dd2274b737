"""`preceptor demo`: rank the teachers that come with the package."""

from typing import Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import RANKING, output_options, runtime_options
from preceptor.cli.output import load_numpy
from preceptor.cli.rank import rank_and_print


def _parameters() -> list[click.Parameter]:
    files = Option(
        ["--files", "files"],
        metavar="DIR",
        section="Output",
        help="Write the teachers' responses and the base model there, and rank nothing.",
    )
    return [*runtime_options(only=RANKING), *output_options(), files]


@click.command(cls=Command, made=_parameters)
def demo(
    json_path: str | None,
    csv_path: str | None,
    html_path: str | None,
    files: str | None,
    **given: Any,
) -> None:
    """Rank six small teachers for gemma-3-270m; nothing is downloaded."""
    load_numpy()
    from preceptor import api
    from preceptor.demo import GEMMA_NOTICE, demo_files, gemma_gguf, write_demo

    if files is not None:
        click.echo(GEMMA_NOTICE, err=True)
        for path in write_demo(files):
            click.echo(path)
        return
    study, runtime = api.study_of(demo_files(), students=[str(gemma_gguf())], **given)
    click.echo(GEMMA_NOTICE, err=True)
    rank_and_print(study, runtime, (json_path, csv_path, html_path))
