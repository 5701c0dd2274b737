"""`preceptor train`: tune a student on exported responses, or write the same for another tool."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import field_option, field_options, rehash_option

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.config.recipe import Recipe
    from preceptor.config.runtime import Runtime
    from preceptor.engines.models import LocatedModel
    from preceptor.finetuning.trainer import Moment, Watch

TOOLS = ("axolotl", "llama-factory")


def _write_accelerate(context: click.Context, _option: object, folder: str | None) -> None:
    """Write the launcher's files and end, whatever else is asked for."""
    if folder is None or context.resilient_parsing:
        return
    from preceptor.finetuning.launch import write_accelerate

    for path in write_accelerate(Path(folder)):
        click.echo(path)
    context.exit()


def _parameters() -> list[click.Parameter]:
    from preceptor.config.keywords import Keyword, keywords_of
    from preceptor.config.recipe import Lora, Recipe
    from preceptor.config.runtime import Runtime
    from preceptor.config.student import Student

    student, lora = Keyword(Student, "model"), keywords_of(Lora, prefix="lora_")
    flag = {"is_flag": True, "type": bool, "metavar": None, "default": False}
    return [
        click.Argument(["data"], nargs=-1, required=True),
        field_option(student, "student", "Model", required=True, metavar="MODEL"),
        field_option(Keyword(Student, "revision"), "revision", "Model"),
        Option(
            ["--output"], required=True, metavar="DIR", help="Folder of the model.", section="Model"
        ),
        *field_options("Recipe", keywords_of(Recipe, without=("lora",))),
        field_option(Keyword(Recipe, "lora"), "lora", "Adapters", **flag),
        *field_options("Adapters", lora, changed={"lora_targets": {"option": "--lora-target"}}),
        field_option(Keyword(Runtime, "device"), "device", "Runtime"),
        rehash_option(),
        *_run_options(),
    ]


def _run_options() -> list[click.Parameter]:
    return [
        Option(["--dry-run"], is_flag=True, help="Estimate, and train nothing.", section="Runtime"),
        Option(
            ["--devices"],
            type=click.IntRange(min=1),
            metavar="N",
            help="With --dry-run or --export: for so many devices. Default: 1, and the paper's 4.",
            section="Runtime",
        ),
        Option(
            ["--export", "tool"],
            type=click.Choice(TOOLS),
            help="Write this tool's configuration to DIR instead, which puts its model in DIR/model.",
            section="Other tools",
        ),
        Option(
            ["--write-accelerate"],
            metavar="FOLDER",
            callback=_write_accelerate,
            is_eager=True,
            expose_value=False,
            help="Write configurations of `accelerate launch` for several GPUs, and end.",
            section="Other tools",
        ),
    ]


@click.command(cls=Command, made=_parameters)
def train(data: tuple[str, ...], tool: str | None, **given: Any) -> None:
    """Fine-tune a student on what `preceptor export` wrote.

    DATA are files or folders of the `messages` layout. The defaults are the paper's (table 5). Run the same
    command again to go on after an interruption.
    """
    from preceptor.config.runtime import Runtime
    from preceptor.engines.models import locate

    place = {
        name: given.pop(name)
        for name in ("student", "output", "revision", "device", "devices", "dry_run")
    }
    recipe = _recipe(given)
    located = locate(place["student"], revision=place["revision"])
    if tool:
        _export(tool, data, located, recipe=recipe, place=place)
        return
    if place["devices"] and not place["dry_run"]:
        raise click.UsageError("--devices is for --dry-run and --export; a launcher sets it here.")
    _train(data, located, recipe, runtime=Runtime(device=place["device"]), place=place)


def _recipe(given: dict[str, Any]) -> "Recipe":
    from preceptor.config.base import checked
    from preceptor.config.recipe import Recipe

    lora = {name: given.pop(f"lora_{name}") for name in ("rank", "alpha", "dropout", "targets")}
    wanted = {**given, "lora": lora if given["lora"] else None}
    return checked(Recipe, wanted, where="train")


def _export(
    tool: str,
    data: Sequence[str],
    located: "LocatedModel",
    *,
    recipe: "Recipe",
    place: dict[str, Any],
) -> None:
    from preceptor.config.recipe import PAPER_DEVICES
    from preceptor.finetuning.dataset import data_files, read_conversations
    from preceptor.finetuning.exports import Job, write_axolotl, write_llama_factory

    folder = Path(place["output"])
    job = Job(
        model=place["student"],
        data=tuple(data_files(data)),
        rows=len(read_conversations(data).rows),
        output=folder / "model",
        devices=place["devices"] or PAPER_DEVICES,
    )
    write = write_axolotl if tool == "axolotl" else write_llama_factory
    for path in write(job, located, recipe, folder=folder):
        click.echo(path)


def _train(
    data: Sequence[str],
    located: "LocatedModel",
    recipe: "Recipe",
    *,
    runtime: "Runtime",
    place: dict[str, Any],
) -> None:
    from rich.console import Console

    from preceptor.finetuning.checkpoint import TrainingFolder
    from preceptor.finetuning.dataset import read_conversations
    from preceptor.finetuning.estimate import estimate_of, require_room
    from preceptor.finetuning.finetune import carry_out
    from preceptor.finetuning.prepared import devices, is_main_process, prepare
    from preceptor.report.terminal import print_lines

    output = Path(place["output"])
    together = place["devices"] or devices()
    aside = Console(stderr=True, quiet=not is_main_process())
    conversations = read_conversations(data)
    print_lines(aside, conversations.problems)
    prepared = prepare(located, conversations, recipe, runtime=runtime, devices=together)
    estimate = estimate_of(prepared, conversations.left_out, devices=together)
    print_lines(aside, estimate.lines())
    if place["dry_run"]:
        return
    if TrainingFolder(output).finished(prepared.identity) is None:
        require_room(estimate, output)
    with _watching(aside, estimate.steps.total) as watch:
        trained = carry_out(prepared, output, watch=watch)
    if is_main_process():
        how = (
            "was fine-tuned before; nothing to do"
            if trained.stored
            else f"took {trained.seconds:,.0f} s"
        )
        click.echo(
            f"{trained.folder}: loss {trained.first_loss:.4f} in the first step, {trained.last_loss:.4f} in "
            f"the last of {trained.steps:,}; {how}"
        )


@contextmanager
def _watching(aside: "Console", total: int) -> Iterator["Watch"]:
    """Show steps, loss, rate and time left on standard error: a live bar, or lines every few seconds."""
    if not aside.is_terminal:
        yield _lines(aside)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("train"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} steps"),
        TextColumn("{task.fields[figures]}", style="cyan"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=aside,
    ) as bars:
        task = bars.add_task("train", total=total, figures="")

        def show(moment: "Moment") -> None:
            bars.update(task, completed=moment.step, total=moment.total, figures=_figures(moment))

        yield show


def _lines(aside: "Console", *, every: float = 10.0) -> "Watch":
    """Return what prints a line for the first step, the last, and now and then between."""
    import time

    from preceptor.report.terminal import print_lines

    begun: list[tuple[float, int]] = []
    shown = [0.0]

    def show(moment: "Moment") -> None:
        now = time.monotonic()
        if not begun:
            begun.append((now, moment.step))
        if moment.step < moment.total and now - shown[0] < every:
            return
        shown[0] = now
        since, first = begun[0]
        left = (now - since) * (moment.total - moment.step) / max(1, moment.step - first)
        after = f", about {left:,.0f} s left" if moment.step > first else ""
        line = f"train: {moment.step:,}/{moment.total:,} steps, {_figures(moment)}{after}"
        print_lines(aside, [line])

    return show


def _figures(moment: "Moment") -> str:
    return f"loss {moment.loss:.4f}, rate {moment.learning_rate:.2g}"
