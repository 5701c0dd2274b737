"""`preceptor list`: teachers and reward models that are known by short names.

Teachers of one family stand together, and what holds for all of them is printed once, after the licence. A
model's Hub id stands beside its name where the terminal is wide enough, else under it.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from preceptor.cli.command import Group
from preceptor.cli.output import console, put_json

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.config.catalogue import CatalogueEntry

_Row = tuple[str, ...]

_HEADINGS: _Row = ("name", "size", "context", "released", "model")
_RIGHT = (1, 2)
_GAP = 2


@click.group("list", cls=Group)
def list_group() -> None:
    """List the models that are known by short names."""


@list_group.command()
@click.option("--paper", is_flag=True, help="Only the twenty of the paper's table 1.")
@click.option(
    "--family", metavar="NAME", help="Only a family, or names that begin so: 'Gemma 2', qwen3."
)
@click.option(
    "--licence",
    "licences",
    multiple=True,
    metavar="NAME",
    help="Only under this licence. Repeatable. 'free' is any that leaves training on answers free, "
    "'conditions' also those with conditions.",
)
@click.option(
    "--catalogue",
    metavar="FILE",
    help="Also teachers of your own: a catalogue file, or a study file.",
)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write the list as JSON; - for standard output."
)
def teachers(
    paper: bool,
    family: str | None,
    licences: tuple[str, ...],
    catalogue: str | None,
    json_path: str | None,
) -> None:
    """List models that can teach: their size, licence and chat template."""
    from preceptor.config.study import read_catalogue

    entries = read_catalogue(catalogue).filtered(licences, in_paper=paper)
    if family is not None:
        entries = _relatives(entries, family)
    if json_path != "-":
        _print_entries(console(), entries)
    if json_path:
        put_json(json_path, [asdict(entry) for entry in entries])


@list_group.command("reward-models")
def reward_models() -> None:
    """List the reward models that --reward-model knows by short names."""
    from preceptor.config.reward_models import PRESETS
    from preceptor.report.terminal import print_reward_models

    print_reward_models(console(), PRESETS)


def _relatives(entries: Sequence["CatalogueEntry"], family: str) -> list["CatalogueEntry"]:
    """Return the entries of this family, else those whose family or label begins so.

    StudyError where there are none.
    """
    from preceptor.errors import StudyError, nearest

    wanted = _plain(family)
    found = [entry for entry in entries if _plain(entry.family) == wanted] or [
        entry
        for entry in entries
        if wanted
        and (_plain(entry.family).startswith(wanted) or _plain(entry.label).startswith(wanted))
    ]
    if not found:
        families = list(dict.fromkeys(entry.family for entry in entries))
        raise StudyError(
            f"No teacher listed is of the family '{family}'. The families are: "
            f"{', '.join(families)}.{nearest(family, families)}"
        )
    return found


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "-")


def _print_entries(console: "Console", entries: Sequence["CatalogueEntry"]) -> None:
    """Print one group of lines for each family, under common headings."""
    from rich.text import Text

    rows = {entry.name: _row(entry) for entry in entries}
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows.values(), strict=True)]
    beside = sum(widths) + _GAP * len(widths) <= console.width

    def show(lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            console.print(Text(line, style=style), soft_wrap=True)

    show(_lines(_HEADINGS, widths, beside=beside), "bold")
    for family in dict.fromkeys(entry.family for entry in entries):
        members = [entry for entry in entries if entry.family == family]
        mark = ", in the paper's table 1" if any(entry.in_paper for entry in members) else ""
        console.print()
        console.print(Text.assemble((family, "bold"), (mark, "dim")))
        for entry in members:
            show(_lines(rows[entry.name], widths, beside=beside))
        for said in _said(members):
            show(_wrapped(said, console.width, indent=2 * _GAP), "dim")
    console.print()
    for said in _LEGEND:
        show(_wrapped(said, console.width), "dim")


def _wrapped(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Return the text in lines of at most `width`, no name cut at its hyphens."""
    room = max(20, width - indent)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return [" " * indent + line for line in lines]


_LEGEND = (
    "Sizes are in billions of parameters, of a mixture of experts all and those active for a token; "
    "context is in tokens.",
    "Licences and notes are for orientation: read the licence itself. A reasoning trace is part "
    "of a response unless the server takes it out.",
)


def _row(entry: "CatalogueEntry") -> _Row:
    size = "" if entry.parameters is None else f"{entry.parameters:g}B"
    if entry.active is not None:
        size += f"/{entry.active:g}B"
    model = f"{entry.model} (hosted)" if entry.hosted else entry.model
    context = "" if entry.context is None else f"{entry.context:,}"
    return (entry.name, size, context, entry.released, model)


def _lines(row: _Row, widths: Sequence[int], *, beside: bool) -> Iterator[str]:
    """Yield a row as one line, or as two where the model cannot stand beside the rest."""
    cells = [
        cell.rjust(width) if place in _RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    gap = " " * _GAP
    if beside:
        yield gap + gap.join(cells).rstrip()
    else:
        yield gap + gap.join(cells[:-1]).rstrip()
        yield gap * 2 + row[-1]


def _said(members: Sequence["CatalogueEntry"]) -> Iterator[str]:
    """Yield what is to know of a family's members: of all of them first, then of some by name."""
    holders: dict[str, list[str]] = {}
    for entry in members:
        for note in entry.notes:
            holders.setdefault(note, []).append(entry.name)
    of_all = [note for note, names in holders.items() if len(names) == len(members)]
    yield " ".join([_licences(members), *of_all])
    of_some: dict[tuple[str, ...], list[str]] = {}
    for note, names in holders.items():
        if len(names) < len(members):
            of_some.setdefault(tuple(names), []).append(note)
    for who, notes in of_some.items():
        yield f"{', '.join(who)}: {' '.join(notes)}"


def _licences(members: Sequence["CatalogueEntry"]) -> str:
    """Return the licence that most members have, and who has another."""
    licences = [entry.licence or "not stated" for entry in members]
    usual = max(licences, key=licences.count)
    others = "; ".join(
        f"{entry.name}: {entry.licence or 'not stated'}"
        for entry in members
        if (entry.licence or "not stated") != usual
    )
    return f"Licence: {usual} ({others})." if others else f"Licence: {usual}."
