"""The command line as a whole: the group and what it prints before any command runs."""

import os
from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

from preceptor.cli.command import Program
from preceptor.cli.streams import PrintableFormatter, prepare

NAMES = (
    *(
        "init",
        "rank",
        "demo",
        "run",
        "plan",
        "report",
        "tokens",
        "list",
        "instructions",
        "generate",
    ),
    *("export", "train", "evaluate", "ability", "agreement", "studies", "store"),
)
"""The commands. Each lies in the module of its name; where it could not be called so, it ends in `_group`."""


class Commands(MutableMapping[str, click.Command]):
    """The commands by name, imported when they are asked for: the help of one needs no other."""

    def __init__(self) -> None:
        self._found: dict[str, click.Command | None] = dict.fromkeys(NAMES)

    def __getitem__(self, name: str) -> click.Command:
        found = self._found[name]
        if found is None:
            module = import_module(f"preceptor.cli.{name}")
            found = getattr(module, f"{name}_group", None) or getattr(module, name)
            self._found[name] = found
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@click.group(
    cls=Program, commands=Commands(), context_settings={"help_option_names": ["-h", "--help"]}
)
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


def main() -> None:
    """Run the command line."""
    # Pydantic looks for plugins in the metadata of every installed package: a tenth of the time of `--help`.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    prepare()
    cli(auto_envvar_prefix="PRECEPTOR")
