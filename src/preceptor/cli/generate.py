"""`preceptor generate`: ask one teacher for responses to instructions, without a study file."""

from pathlib import Path
from typing import Any

import click

from preceptor.cli.command import Command
from preceptor.cli.output import progress_on


@click.command(cls=Command)
@click.argument("instructions", nargs=-1, required=True)
@click.option(
    "--teacher",
    required=True,
    metavar="MODEL",
    help="Catalogue name, Hub id, folder, GGUF, or with --url the name as served.",
)
@click.option("--output", required=True, metavar="FILE", help="JSONL file to write.")
@click.option("--url", help="Base URL of the OpenAI-compatible endpoint that serves it.")
@click.option(
    "--key-env", metavar="NAME", help="Environment variable that holds the endpoint's key."
)
@click.option(
    "--concurrency",
    type=int,
    default=8,
    show_default=True,
    help="Requests at once to the endpoint.",
)
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm", "fake"]),
    default="transformers",
    show_default=True,
    help="What runs it here, without --url.",
)
@click.option(
    "--chat-template",
    default="auto",
    show_default=True,
    help="auto, own, gemma, llama3, chatml, phi3, plain, or a .jinja file.",
)
@click.option("--system", default="", help="Text that goes before every conversation.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Share to draw from.")
@click.option("--max-tokens", type=int, default=2048, show_default=True, help="Of a response.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends a response. Repeatable.")
@click.option("--samples", type=int, default=1, show_default=True, help="Per instruction.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first sample.")
@click.option("--limit", type=int, metavar="N", help="Ask N instructions, drawn by seed 0.")
@click.option("--store", default=".preceptor", show_default=True, metavar="DIR", help="The store.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--overwrite", is_flag=True, help="Replace the output.")
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
    click.echo(f"{count:,} responses in {output}")
