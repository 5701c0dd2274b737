"""Where commands write: the terminal, files, and progress beside them."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.pipeline.score import Progress


def console() -> "Console":
    """Return the console of standard output; a pipe or a file gets a width of 120."""
    from rich.console import Console

    # A pipe or a file has no width of its own: long names should not be folded for nothing.
    return Console() if sys.stdout.isatty() else Console(width=120)


def put(path: str, text: str) -> None:
    """Write text to a file, or to standard output where the path is `-`."""
    if path == "-":
        sys.stdout.write(text)
        return
    from preceptor.store.files import write_text

    write_text(path, text)


_COMMAND = "preceptor.command"
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")


def keep_command(context: click.Context, words: Sequence[str]) -> None:
    """Remember the words after `preceptor` for `typed_command`."""
    context.meta[_COMMAND] = shlex.join(["preceptor", *words])


def typed_command() -> str:
    """Return the command line as it was typed, quoted for a shell.

    No option takes a secret; names and passwords that stand in an address are left out all the same.
    """
    command = str(click.get_current_context().meta[_COMMAND])
    return _USER_IN_ADDRESS.sub("...@", command)


@contextmanager
def progress_on(aside: "Console | None" = None) -> "Iterator[Progress]":
    """Show progress on standard error while it lasts: live bars, or lines where it is no terminal."""
    from preceptor.report.progress import showing

    with showing(True, console=aside) as shown:
        yield shown
