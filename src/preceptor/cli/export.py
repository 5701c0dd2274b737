"""`preceptor export`: write a study's chosen responses as a data set ready to train on."""

from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command
from preceptor.cli.output import progress_on

if TYPE_CHECKING:
    from preceptor.export.writer import Written


@click.command(cls=Command)
@click.argument("study_file", metavar="STUDY.TOML")
@click.option("--output", required=True, metavar="DIR", help="Folder to write the data set to.")
@click.option(
    "--teacher", metavar="NAME", help="Whose responses to take. Default: the best of the ranking."
)
@click.option(
    "--each",
    type=click.Choice(["reward", "car", "persyn"]),
    help="Take the best response to each instruction instead, by this score of single responses.",
)
@click.option(
    "--pairs", is_flag=True, help="Write the best and the worst response, for preference tuning."
)
@click.option(
    "--margin", type=float, default=0.0, help="Only pairs whose scores are further apart."
)
@click.option("--student", metavar="NAME", help="For whom, where the study has several students.")
@click.option("--reward", metavar="NAME", help="By which reward, where the study has several.")
@click.option("--every-sample", is_flag=True, help="Take all samples of the teacher.")
@click.option(
    "--layout",
    type=click.Choice(["messages", "alpaca", "sharegpt"]),
    default="messages",
    show_default=True,
    help="Layout of the rows.",
)
@click.option(
    "--format",
    type=click.Choice(["jsonl", "parquet"]),
    default="jsonl",
    show_default=True,
    help="Format of the file.",
)
@click.option("--overwrite", is_flag=True, help="Replace what was exported there before.")
@click.option(
    "--push-to-hub", metavar="OWNER/NAME", help="Also upload it to the Hub, with HF_TOKEN; private."
)
@click.option("--public", is_flag=True, help="Make what is uploaded public.")
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
        written = api.export(study_file, output, progress=progress, **given)
    _tell(written)
    if push_to_hub:
        click.echo(api.push(output, push_to_hub, private=not public))


def _tell(written: "Written") -> None:
    click.echo(f"{written.rows:,} rows in {written.data}")
    for reason, count in written.skipped.items():
        click.echo(f"left out: {count:,} ({reason})")
