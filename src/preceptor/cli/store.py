"""`preceptor store`: look at what is stored, and forget why rows have no result."""

import json
from collections.abc import Sequence

import click

from preceptor.cli.command import Group
from preceptor.cli.options import runtime_options


def _store() -> Sequence[click.Parameter]:
    return runtime_options(only=("store",))


@click.group("store", cls=Group)
def store_group() -> None:
    """Show what a store holds, or let failed rows be tried again."""


@store_group.command(made=_store)
@click.argument("identity", required=False)
def show(identity: str | None, store: str) -> None:
    """List the identities of a store, or explain one by the start of its name."""
    from preceptor.store.store import Store

    partitions = {partition.identity.digest: partition for partition in Store(store).partitions()}
    if not partitions:
        click.echo(f"The store '{store}' holds nothing.")
    found = [digest for digest in partitions if digest.startswith(identity or "")]
    if partitions and not found:
        raise click.ClickException(
            f"No identity in '{store}' starts with '{identity}'. It holds: {', '.join(partitions)}."
        )
    for digest in found:
        partition = partitions[digest]
        click.echo(f"{partition.kind}/{digest}  {len(partition.keys()):,} rows")
        if identity:
            spec = {"spec": partition.identity.spec, "recorded": dict(partition.recorded)}
            click.echo(json.dumps(spec, indent=2, ensure_ascii=True))


@store_group.command(made=_store)
@click.argument("identity")
def forget(identity: str, store: str) -> None:
    """Forget why rows have no result, so that they are tried again.

    For example after a server was restarted with a longer context. IDENTITY is the start of a name that
    `preceptor store show` prints. Results stay.
    """
    from preceptor.store.store import Store

    found = [s for s in Store(store).partitions() if s.identity.digest.startswith(identity)]
    if len(found) != 1:
        raise click.ClickException(
            f"{len(found)} identities in '{store}' start with '{identity}': expected one. "
            "`preceptor store show` lists them."
        )
    click.echo(f"forgot {found[0].forget_notes():,} notes of {found[0].identity.digest}")
