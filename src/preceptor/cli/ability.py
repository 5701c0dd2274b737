"""`preceptor ability`: what a model can do in general, and what fine-tuning changed.

A fine-tuned student that wins more comparisons may have forgotten something: the tasks of lm-eval show it, on
the same documents before and after.
"""

import math
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import field_option, field_options
from preceptor.cli.output import console, put_json

if TYPE_CHECKING:
    from preceptor.benchmarks.general_ability import Ability, AbilityChange


def _parameters() -> list[click.Parameter]:
    from preceptor.config.ability import AbilityOptions
    from preceptor.config.keywords import Keyword, keywords_of
    from preceptor.config.runtime import Runtime

    folder = {"type": click.Path(exists=True, file_okay=False), "metavar": "DIR"}
    return [
        click.Argument(["model"]),
        Option(
            ["--task", "tasks"],
            multiple=True,
            required=True,
            metavar="NAME",
            help="A task of lm-eval, such as ifeval, mmlu or gsm8k. Repeatable.",
            section="Tasks",
        ),
        Option(
            ["--baseline"],
            metavar="MODEL",
            help="The model before fine-tuning, to compare with.",
            section="Tasks",
        ),
        *field_options("Tasks", keywords_of(AbilityOptions), changed={"task_folder": folder}),
        field_option(Keyword(Runtime, "device"), "device", "Runtime"),
        Option(
            ["--json", "json_path"],
            metavar="FILE",
            help="Write as JSON; - for standard output.",
            section="Output",
        ),
    ]


@click.command(cls=Command, made=_parameters)
def ability(
    model: str,
    tasks: tuple[str, ...],
    baseline: str | None,
    json_path: str | None,
    device: str,
    **given: Any,
) -> None:
    """Measure the general ability of MODEL with lm-eval."""
    from preceptor.benchmarks.general_ability import ability_changes, measure_ability
    from preceptor.config.ability import AbilityOptions
    from preceptor.config.runtime import Runtime

    options, runtime = AbilityOptions(**given), Runtime(device=device)
    found = measure_ability(model, tasks, options, runtime)
    changes = []
    if baseline:
        base = measure_ability(baseline, tasks, options, runtime)
        changes = ability_changes(base, found, seed=options.seed)
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
