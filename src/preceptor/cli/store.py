"""`preceptor store`: look at what is stored, verify it, forget failures, remove what is old."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from preceptor.cli.command import Group
from preceptor.cli.options import runtime_options
from preceptor.errors import counted

if TYPE_CHECKING:
    from preceptor.store.store import ResponsePartition, ScorePartition

    Partition = ScorePartition | ResponsePartition


def _store() -> Sequence[click.Parameter]:
    return runtime_options(only=("store",))


@click.group("store", cls=Group)
def store_group() -> None:
    """Show and verify what a store holds, or let failed rows be tried again."""


@store_group.command("list", made=_store)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write the list as JSON; - for standard output."
)
def list_(store: str, json_path: str | None) -> None:
    """List what is stored: what made it, rows, size and age, newest first."""
    from preceptor.store.store import Store

    found = sorted(Store(store).partitions(), key=lambda one: -(one.last_written() or 0))
    records = [_held(one) for one in found]
    if json_path is not None:
        from preceptor.cli.output import put_json

        put_json(json_path, [one._asdict() for one in records])
    elif not records:
        click.echo(f"The store '{store}' holds nothing.")
    else:
        _print(records)


class _Held(NamedTuple):
    """What a partition holds; `age` is in seconds since its newest rows were stored, None for no rows.

    `in_work` names the processes that are adding to it.
    """

    identity: str
    kind: str
    name: str
    rows: int
    bytes: int
    age: float | None
    in_work: list[str]


def _held(one: "Partition") -> _Held:
    spec = one.identity.spec
    name = one.recorded.get("name") or spec.get("scorer") or spec.get("engine") or ""
    return _Held(
        one.identity.digest,
        one.kind,
        str(name),
        len(one.keys()),
        one.size(),
        _age_of(one),
        sorted(map(str, one.in_work())),
    )


def _age_of(one: "Partition") -> float | None:
    written = one.last_written()
    return None if written is None else max(0.0, time.time() - written)


def _print(records: Sequence[_Held]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from preceptor.cli.output import console
    from preceptor.ranking.table import printable

    table = Table(box=None, pad_edge=False)
    for heading in ("identity", "kind", "what"):
        table.add_column(heading, overflow="fold")
    for heading in ("rows", "size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("in work" if any(one.in_work for one in records) else "", overflow="fold")
    for one in records:
        table.add_row(
            one.identity[:12],
            one.kind,
            escape(printable(one.name)),
            f"{one.rows:,}",
            _size(one.bytes),
            "" if one.age is None else _age(one.age),
            escape(printable(", ".join(one.in_work))),
        )
    console().print(table)


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@store_group.command(made=_store)
@click.argument("identity")
def show(identity: str, store: str) -> None:
    """Explain one identity, given by the start of its name: what made its rows, and with which versions."""
    from preceptor.api import only

    partition = only(identity, store)
    click.echo(
        f"{partition.kind}/{partition.identity.digest}  {counted(len(partition.keys()), 'row')}\n"
        + json.dumps(
            {"spec": partition.identity.spec, "recorded": dict(partition.recorded)},
            indent=2,
            ensure_ascii=True,
        )
    )


@store_group.command(made=_store)
@click.argument("identity")
def forget(identity: str, store: str) -> None:
    """Forget why rows have no result, so that they are tried again.

    For example after a server was restarted with a longer context. IDENTITY is the start of a name that
    `preceptor store list` prints. Results stay.
    """
    from preceptor.api import only

    partition = only(identity, store)
    click.echo(f"forgot {counted(partition.forget_notes(), 'note')} of {partition.identity.digest}")


@store_group.command(made=_store)
@click.option(
    "--repair",
    is_flag=True,
    help="Set damaged shards aside, write lost identity files again, sweep what killed runs left.",
)
def check(repair: bool, store: str) -> None:
    """Verify every byte of a store. Exits with 1 where something is damaged.

    What a damaged shard held is missing for every reader: the next run computes or asks for it again.
    """
    from preceptor.store.store import Store

    shards, damaged, aside = 0, 0, 0
    for partition in Store(store).partitions():
        found = partition.check(repair=repair)
        shards, damaged, aside = (
            shards + found.shards,
            damaged + len(found.unfit),
            aside + len(found.set_aside),
        )
        for name, why in found.unfit.items():
            click.echo(f"{partition.kind}/{partition.identity.digest}/{name}: {why}")
    click.echo(f"{counted(shards, 'shard')} verified: {damaged:,} damaged, {aside:,} set aside.")
    if damaged and not repair:
        click.echo(
            "`preceptor store check --repair` sets them aside, and runs fill what is missing."
        )
        raise click.exceptions.Exit(1)


@store_group.command(made=_store)
@click.argument("identities", nargs=-1)
@click.option(
    "--older-than", type=click.FloatRange(0), metavar="DAYS", help="Also all that got no row since."
)
@click.option("--yes", is_flag=True, help="Remove for good; without it, only say what would go.")
def prune(identities: tuple[str, ...], older_than: float | None, yes: bool, store: str) -> None:
    """Remove what is no longer wanted: IDENTITIES, what is old, and damaged shards that were set aside.

    What is removed must be computed or paid for again.
    """
    from preceptor.api import only
    from preceptor.store.store import Store

    chosen = {one.identity.digest for one in (only(start, store) for start in identities)}
    for partition in Store(store).partitions():
        age = _age_of(partition)
        old = older_than is not None and age is not None and age > older_than * 86_400
        whole = old or partition.identity.digest in chosen
        aside = partition.set_aside()
        if whole and (busy := ", ".join(map(str, partition.in_work()))):
            click.echo(f"{partition.kind}/{partition.identity.digest} is in use by {busy}: kept")
            continue
        if whole or aside:
            what = (
                f"{counted(len(partition.keys()), 'row')}"
                if whole
                else f"{counted(len(aside), 'shard')} set aside"
            )
            click.echo(f"{partition.kind}/{partition.identity.digest}: {what}")
            if yes:
                partition.delete(only_set_aside=not whole)
    if not yes:
        click.echo("Nothing is removed without --yes.")
