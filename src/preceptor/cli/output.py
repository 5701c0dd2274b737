"""Where commands write: the terminal, files, and progress beside them."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.streams import write_utf8
from preceptor.config.secrets import REDACTED, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.pipeline.work import Progress


def console(*, aside: bool = False) -> "Console":
    """Return the console of standard output, or of standard error; a pipe or a file gets a width of 120.

    COLUMNS sets another, as everywhere.
    """
    from rich.console import Console

    # A pipe or a file has no width of its own: long names should not be folded for nothing.
    known = (sys.stderr if aside else sys.stdout).isatty() or os.environ.get("COLUMNS")
    wide = None if known else 120
    return Console(stderr=aside, width=wide, quiet=aside and is_quiet())


def is_quiet() -> bool:
    """Whether `preceptor --quiet` was asked for."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def put_json(path: str, content: Mapping[str, object] | list[dict[str, Any]]) -> None:
    """Write as indented JSON to a file, or to standard output where the path is `-`.

    The object, or each of a list, says the version of its form.
    """
    from preceptor.ranking.schema import versioned
    from preceptor.store.files import json_text

    held = [versioned(one) for one in content] if isinstance(content, list) else versioned(content)
    put(path, json_text(held))


def put_csv(path: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV to a file, or to standard output where the path is `-`."""
    from preceptor.store.files import csv_text

    put(path, csv_text(rows))


def put(path: str, text: str) -> None:
    """Write text without secrets to a file, or to standard output where the path is `-`."""
    text = without_secrets(text)
    if path == "-":
        write_utf8(text)
        return
    from preceptor.store.files import write_text

    write_text(path, text)


_COMMAND = "preceptor.command"
_USER, _QUERY = re.compile(r"(?<=://).*@", re.DOTALL), re.compile(r"\?.*=.*", re.DOTALL)


def keep_command(context: click.Context, words: Sequence[str]) -> None:
    """Remember the words after `preceptor` for `typed_command`."""
    context.meta[_COMMAND] = shlex.join(["preceptor", *map(_shown, words)])


def _shown(word: str) -> str:
    if "://" not in word:
        return word
    return _QUERY.sub(f"?{REDACTED}", _USER.sub(f"{REDACTED}@", word))


def typed_command() -> str:
    """Return the command line as it was typed, quoted for a shell.

    No option takes a secret; users, passwords and queries of addresses are left out all the same.
    """
    return str(click.get_current_context().meta[_COMMAND])


@contextmanager
def progress_on(aside: "Console | None" = None) -> "Iterator[Progress]":
    """Show progress on standard error while it lasts: live bars, or lines where it is no terminal.

    `preceptor --quiet` shows none.
    """
    from preceptor.report.progress import showing

    with showing(not is_quiet(), console=aside) as shown:
        yield shown


def require_comparison(sizes: Sequence[int]) -> None:
    """Let the command fail, after its output, where no ranking of the run holds two teachers.

    A script that takes an exit code of 0 for an answer would take the only teacher for the best.

    Args:
        sizes: teachers in each ranking.

    Raises:
        NothingToCompare: each has one.
    """
    if max(sizes, default=0) < 2:
        from preceptor.errors import NothingToCompare

        raise NothingToCompare(
            "Nothing to compare: expected two teachers, and only one is left. Give the responses of "
            "another to the same instructions."
        )


def load_numpy() -> None:
    """Load NumPy with its matrix products on one thread.

    Whoever starts the process decides how many threads there are, and never the library, which may run
    beside other work. Threads that wait for each other on busy cores made a large ranking ten times slower,
    and gain a second or two on idle ones. The variable is read when NumPy is loaded, and must not reach
    PyTorch.
    """
    named = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(named)
    os.environ[named] = given or "1"
    import numpy  # noqa: F401

    if given is None:
        del os.environ[named]
