"""`preceptor init`: a study file to start from, and its schema for editors."""

import click

from preceptor.cli.command import Command
from preceptor.cli.output import put


@click.command(cls=Command)
@click.argument("study_file", metavar="[FILE]", default="study.toml")
@click.option(
    "--schema",
    "schema_path",
    metavar="FILE",
    help="Write the JSON Schema of study files instead, for editors; - for standard output.",
)
def init(study_file: str, schema_path: str | None) -> None:
    """Write a commented study file to start from.

    FILE is study.toml unless you name another.
    """
    from preceptor.config.schema import study_schema, write_start
    from preceptor.store.files import json_text

    if schema_path:
        put(schema_path, json_text(study_schema()))
        return
    write_start(study_file)
    click.echo(
        f"{study_file}: fill in your responses and base models, then: preceptor plan {study_file}"
    )
