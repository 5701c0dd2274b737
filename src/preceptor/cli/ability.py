"""`preceptor ability`: what a model can do in general, and what fine-tuning changed.

A fine-tuned student that wins more comparisons may have forgotten something: the tasks of lm-eval show it, on
the same documents before and after.
"""

import math
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command
from preceptor.cli.output import console, put_json

if TYPE_CHECKING:
    from preceptor.benchmarks.general_ability import Ability, AbilityChange


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A task of lm-eval, such as ifeval, mmlu or gsm8k. Repeatable.",
)
@click.option("--baseline", metavar="MODEL", help="The model before fine-tuning, to compare with.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Documents of each task.")
@click.option(
    "--task-folder",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Folder of further tasks as YAML files.",
)
@click.option("--chat-template", is_flag=True, help="Render prompts with the model's own template.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Documents at a time.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of examples and resampling.",
)
@click.option("--json", "json_path", metavar="FILE", help="Write as JSON; - for standard output.")
def ability(model: str, baseline: str | None, json_path: str | None, **given: Any) -> None:
    """Measure the general ability of MODEL with lm-eval."""
    from preceptor.benchmarks.general_ability import (
        AbilityOptions,
        ability_changes,
        measure_ability,
    )
    from preceptor.config.runtime import Runtime

    runtime = Runtime(device=given["device"])
    options = AbilityOptions(
        limit=given["limit"],
        device=runtime.resolved_device(),
        dtype=runtime.resolved_dtype("auto"),
        batch_size=given["batch_size"],
        chat_template=given["chat_template"],
        task_folder=given["task_folder"],
        seed=given["seed"],
    )
    found = measure_ability(model, given["tasks"], options)
    changes = []
    if baseline:
        base = measure_ability(baseline, given["tasks"], options)
        changes = ability_changes(base, found, seed=given["seed"])
    if json_path:
        record = {
            "abilities": list(map(_record, found)),
            "changes": list(map(_change_record, changes)),
        }
        put_json(json_path, record)
    if json_path != "-":
        _print(found, {(one.task, one.metric): one for one in changes})


def _record(one: "Ability") -> dict[str, object]:
    error = one.standard_error
    return {
        "task": one.task,
        "metric": one.metric,
        "value": one.value,
        "standard_error": None if math.isnan(error) else error,
        "n": one.n,
        "higher_is_better": one.higher_is_better,
    }


def _change_record(one: "AbilityChange") -> dict[str, object]:
    ends = {"value": one.difference.value, "low": one.difference.low, "high": one.difference.high}
    known = {name: None if math.isnan(end) else end for name, end in ends.items()}
    return {
        "task": one.task,
        "metric": one.metric,
        "base": _record(one.base),
        "difference": known,
        "paired": one.paired,
    }


def _print(found: "list[Ability]", changes: "dict[tuple[str, str], AbilityChange]") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from preceptor.ranking.table import printable

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ["task", "metric", "value", "standard error", "n"]
    for heading in [*headings, "change [95% interval]"] if changes else headings:
        table.add_column(heading, overflow="fold")
    for one in found:
        cells = [
            printable(one.task),
            printable(one.metric),
            f"{one.value:.4f}",
            "-" if math.isnan(one.standard_error) else f"{one.standard_error:.4f}",
            str(one.n),
        ]
        if change := changes.get((one.task, one.metric)):
            ends = change.difference
            cells.append(f"{ends.value:+.4f} [{ends.low:+.4f}, {ends.high:+.4f}]")
        table.add_row(*map(Text, cells))
    console().print(table)
