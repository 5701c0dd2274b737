"""The command line: parse, one call, print. Everything it does can be done with `preceptor.api`."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.errors import PreceptorError

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.results import Ranking
    from preceptor.study import Machine, Study

METRIC_NAMES = ("car", "reward", "loss", "perplexity", "ifd", "length", "rsr", "likelihood")

Command = Callable[..., None]


class _Group(click.Group):
    """Prints the package's own errors without a traceback, and keeps interrupts short."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PreceptorError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt as error:
            raise click.ClickException(
                "interrupted; what was computed is stored. Run the same command to go on."
            ) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="preceptor", prog_name="preceptor")
@click.option("-v", "--verbose", is_flag=True, help="Log what the library does.")
def cli(verbose: bool) -> None:
    """Find the right teacher for your base model before you pay for fine-tuning."""
    import logging

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_ranking_options = _options(
    click.argument("responses", nargs=-1, required=True),
    click.option("--student", "students", multiple=True, help="Base model: Hub id, folder or GGUF. Repeatable."),
    click.option("--reward-column", metavar="NAME", help="Numeric column of the data with the reward."),
    click.option("--metric", "metrics", multiple=True, metavar="NAME", help=f"One of {', '.join(METRIC_NAMES)}. Repeatable. Default: all that need no further pass."),
    click.option("--by", metavar="NAME", help="The metric that orders. Default: car, else reward, else likelihood."),
    click.option("--beta", type=float, default=3.0, show_default=True, help="CAR's beta (paper, eq. 3)."),
    click.option("--limit", type=int, metavar="N", help="Compare on N instructions, drawn by the seed."),
    click.option("--max-length", type=int, default=4096, show_default=True, help="Tokens of prompt and response; longer responses are cut and counted."),
    click.option("--template", default="auto", show_default=True, help="auto, own, gemma, llama3, chatml, phi3, plain, or a .jinja file."),
    click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto", show_default=True, help="auto: bfloat16 on an accelerator, float32 on a CPU."),
    click.option("--revision", help="Branch, tag or commit of a Hub model."),
    click.option("--seed", type=int, default=0, show_default=True, help="Draws instructions and bootstrap."),
    click.option("--draws", type=int, default=2000, show_default=True, help="Bootstrap draws."),
    click.option("--reward-transform", type=click.Choice(["raw", "sigmoid", "shift-min", "minmax"]), default="raw", show_default=True, help="Applied to rewards before CAR."),
    click.option("--minimum-coverage", type=float, default=0.5, show_default=True, help="Least share of instructions that all teachers must have answered."),
    click.option("--conditioning", type=click.Choice(["conditional", "unconditional"]), default="conditional", show_default=True, help="Whether the loss sees the instruction."),
    click.option("--reduction", type=click.Choice(["token-mean", "sequence-sum", "corpus-token-mean"]), default="token-mean", show_default=True, help="How token losses become a teacher's loss."),
    click.option("--include-end-of-turn", is_flag=True, help="Count the token that ends the turn."),
)  # fmt: skip

_column_options = _options(
    click.option("--layout", default="auto", show_default=True, help="Layout of the rows, where it is not recognised."),
    click.option("--instruction-column", metavar="NAME", help="Column with the instruction or conversation."),
    click.option("--response-column", metavar="NAME", help="Column with the response."),
    click.option("--teacher-column", metavar="NAME", help="Column that names the teacher."),
    click.option("--teacher-columns", metavar="A,B,C", help="Columns that each hold one teacher's responses."),
    click.option("--reference-column", metavar="NAME", help="Column with the checkable answer."),
    click.option("--split", default="train", show_default=True, help="Split of a Hub data set or saved folder."),
)  # fmt: skip

_machine_options = _options(
    click.option("--store", default=".preceptor", show_default=True, metavar="DIR", help="Where scores are kept: folder or fsspec URL."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
    click.option("--token-budget", type=int, metavar="N", help="Tokens in one batch; halved when memory runs out."),
    click.option("--keep-tokens", is_flag=True, help="Also store each response token's loss and rank."),
)  # fmt: skip

_output_options = _options(
    click.option("--json", "json_path", metavar="FILE", help="Write the rankings as JSON; - for standard output."),
    click.option("--csv", "csv_path", metavar="FILE", help="Write the rankings as CSV."),
    click.option("--html", "html_path", metavar="FILE", help="Write the rankings as one HTML page."),
)  # fmt: skip

_COLUMN_FIELDS = (
    "layout",
    "instruction_column",
    "response_column",
    "teacher_column",
    "reference_column",
    "split",
)


@cli.command()
@_ranking_options
@_column_options
@_machine_options
@_output_options
def rank(json_path: str | None, csv_path: str | None, html_path: str | None, **given: Any) -> None:
    """Rank the teachers whose RESPONSES these are for a base model."""
    study, machine = _study(given)
    _run(study, machine, (json_path, csv_path, html_path))


@cli.command()
@click.argument("study_file", metavar="STUDY.TOML")
@_output_options
def run(
    study_file: str, json_path: str | None, csv_path: str | None, html_path: str | None
) -> None:
    """Carry out a study file."""
    from preceptor.study import StudyFile

    file = StudyFile.read(study_file)
    _run(file.study, file.machine, (json_path, csv_path, html_path))


@cli.command()
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str) -> None:
    """Print what a study file would take, without computing anything."""
    from preceptor import api
    from preceptor.report.terminal import print_lines
    from preceptor.study import StudyFile

    file = StudyFile.read(study_file)
    console = _console()
    opened, steps = api.plan(file.study, file.machine)
    print_lines(console, [source.describe() for source in opened.source.files])
    teachers, taken = len(opened.choice.roster.teachers), len(opened.choice.taken)
    console.print(f"{teachers} teachers, {taken} of {len(opened.choice.roster.instructions)} instructions; reward: {opened.reward}")  # fmt: skip
    for step in steps:
        tokens = step.missing.characters / 4
        console.print(
            f"{step.student}, {step.step}: {step.stored:,} stored, {step.missing.responses:,} to compute "
            f"(about {tokens:,.0f} tokens) under {step.identity}",
            highlight=False,
            markup=False,
        )


@cli.command()
@click.argument("identity", required=False)
@click.option("--store", default=".preceptor", show_default=True, metavar="DIR", help="The store.")
def show(identity: str | None, store: str) -> None:
    """Explain what a store holds: all identities, or one by the start of its name."""
    from preceptor.store import Store

    for shelf in Store(store).shelves():
        digest = shelf.identity.digest
        if identity and not digest.startswith(identity):
            continue
        click.echo(f"{shelf.kind}/{digest}  {len(shelf.keys()):,} rows")
        if identity:
            spec = {"spec": shelf.identity.spec, "recorded": dict(shelf.recorded)}
            click.echo(json.dumps(spec, indent=2, ensure_ascii=True))


@cli.command()
@_machine_options
@_output_options
def demo(json_path: str | None, csv_path: str | None, html_path: str | None, **given: Any) -> None:
    """Rank six small teachers for gemma-3-270m, with everything real and nothing downloaded."""
    from preceptor import api
    from preceptor.demo import GEMMA_NOTICE, demo_files, gemma_gguf

    machine = {name: given[name] for name in ("store", "device", "token_budget", "keep_tokens")}
    study, where = api.study_of(demo_files(), students=[str(gemma_gguf())], **machine)
    click.echo(GEMMA_NOTICE, err=True)
    _run(study, where, (json_path, csv_path, html_path))


def _study(given: dict[str, Any]) -> "tuple[Study, Machine]":
    from preceptor import api
    from preceptor.layouts import ReadOptions

    named = given.pop("teacher_columns")
    columns = {name: given.pop(name) for name in _COLUMN_FIELDS}
    if named:
        columns["teacher_columns"] = tuple(name.strip() for name in named.split(","))
    return api.study_of(given.pop("responses"), columns=ReadOptions(**columns), **given)


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=False)


def _run(study: "Study", machine: "Machine", outputs: Sequence[str | None]) -> None:
    from rich.console import Console

    from preceptor.report.terminal import LiveProgress, PlainProgress, print_ranking
    from preceptor.run import runner

    aside = Console(stderr=True)
    live = LiveProgress(aside) if aside.is_terminal else None
    with live or nullcontext():
        rankings = runner.run(study, machine, live or PlainProgress(aside))
    if outputs[0] != "-":
        console = _console()
        for ranking in rankings:
            print_ranking(console, ranking)
    _write(rankings, outputs)


def _write(rankings: "list[Ranking]", outputs: Sequence[str | None]) -> None:
    json_path, csv_path, html_path = outputs
    if json_path:
        text = json.dumps([ranking.to_dict() for ranking in rankings], indent=2, allow_nan=False)
        _put(json_path, text + "\n")
    if csv_path:
        _put(csv_path, _csv(rankings))
    if html_path:
        from preceptor.report.page import page

        _put(html_path, page(rankings))


def _put(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"Cannot write '{path}': {error.strerror}.") from error


def _csv(rankings: "list[Ranking]") -> str:
    import csv
    import io

    rows = [{"student": r.student, **record} for r in rankings for record in r.to_records()]
    buffer = io.StringIO()
    fields = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, fields)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def main() -> None:
    """Run the command line."""
    cli()
