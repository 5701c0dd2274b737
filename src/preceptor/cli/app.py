"""The command line as a whole: the group and what it prints before any command runs."""

import os

import click

from preceptor.cli.ability import ability
from preceptor.cli.agreement import agreement
from preceptor.cli.command import Program
from preceptor.cli.demo import demo
from preceptor.cli.evaluate import evaluate
from preceptor.cli.export import export
from preceptor.cli.generate import generate
from preceptor.cli.init import init
from preceptor.cli.instructions import instructions
from preceptor.cli.list import list_group
from preceptor.cli.plan import plan
from preceptor.cli.rank import rank
from preceptor.cli.report import report
from preceptor.cli.run import run
from preceptor.cli.store import store_group
from preceptor.cli.streams import PrintableFormatter, prepare
from preceptor.cli.studies import studies
from preceptor.cli.tokens import tokens
from preceptor.cli.train import train

COMMANDS: tuple[click.Command, ...] = (
    init,
    rank,
    demo,
    run,
    plan,
    report,
    tokens,
    list_group,
    instructions,
    generate,
    export,
    train,
    evaluate,
    ability,
    agreement,
    studies,
    store_group,
)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="preceptor", prog_name="preceptor")
@click.option("-v", "--verbose", is_flag=True, help="Log what the library does.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only: no progress, no warnings.")
def cli(verbose: bool, quiet: bool) -> None:
    """Find the right teacher for your base model before you pay for fine-tuning."""
    import logging

    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other.")
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(level=level)
    if not quiet:
        # A batch may take a day: how far it is must be seen.
        logging.getLogger("preceptor.engines.chat.batch").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))


for _command in COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    # Pydantic looks for plugins in the metadata of every installed package: a tenth of the time of `--help`.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    prepare()
    cli(auto_envvar_prefix="PRECEPTOR")
