"""`preceptor export`: write a study's chosen responses as a data set ready to train on."""

from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import field_options
from preceptor.cli.output import progress_on
from preceptor.errors import counted

if TYPE_CHECKING:
    from preceptor.export.writer import Written


def _parameters() -> list[click.Parameter]:
    from preceptor.config.export import Export
    from preceptor.config.keywords import keywords_of

    output, hub = "Output", "Hub"
    form = ("layout", "format", "overwrite")
    chosen = keywords_of(Export, without=form)
    written = {name: one for name, one in keywords_of(Export).items() if name in form}
    return [
        *field_options("Choice of responses", chosen),
        Option(
            ["--output"], required=True, metavar="DIR", help="Folder to write to.", section=output
        ),
        *field_options(output, written),
        Option(
            ["--push-to-hub"],
            metavar="OWNER/NAME",
            help="Also upload it to the Hub, with the token in HF_TOKEN; private.",
            section=hub,
        ),
        Option(["--public"], is_flag=True, help="Make what is uploaded public.", section=hub),
    ]


@click.command(cls=Command, made=_parameters)
@click.argument("study_file", metavar="STUDY.TOML")
def export(
    study_file: str, output: str, push_to_hub: str | None, public: bool, **given: Any
) -> None:
    """Write the chosen responses of a study as a data set with a card."""
    from preceptor import api

    if public and not push_to_hub:
        raise click.UsageError(
            "--public is given without --push-to-hub: there is nothing to upload."
        )
    if push_to_hub:
        api.require_token()
    with progress_on() as progress:
        written = api.export_dataset(study_file, output, progress=progress, **given)
    _tell(written)
    if push_to_hub:
        click.echo(api.push(output, push_to_hub, private=not public))


def _tell(written: "Written") -> None:
    click.echo(f"{counted(written.rows, 'row')} in {written.data}")
    for reason, count in written.skipped.items():
        click.echo(f"left out: {count:,} ({reason})")
