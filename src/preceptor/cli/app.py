"""The command line: parse, one call, print. Everything it does can be done with `preceptor.api`."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.ability import ability
from preceptor.cli.agreement import agree
from preceptor.cli.evaluate import evaluate
from preceptor.cli.export import export
from preceptor.cli.generate import respond
from preceptor.cli.instructions import instructions
from preceptor.cli.list import teachers
from preceptor.cli.options import (
    column_options,
    endpoint_options,
    output_options,
    ranking_options,
    runtime_options,
)
from preceptor.cli.output import console, keep_command, progress_on, put, typed_command
from preceptor.cli.report import report
from preceptor.cli.studies import published
from preceptor.cli.threads import load_numpy
from preceptor.cli.train import train
from preceptor.cli.validate import plan_validation, run_validation
from preceptor.errors import PreceptorError

if TYPE_CHECKING:
    from preceptor.config.runtime import Runtime
    from preceptor.config.study import Study
    from preceptor.pipeline.rank import Outcome
    from preceptor.ranking.result import Ranking


class _Group(click.Group):
    """Prints the package's own errors without a traceback, and keeps interrupts short."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        keep_command(context, args)
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except PreceptorError as error:
            from preceptor.ranking.table import printable

            # Errors quote names of files, columns and models, which may hold anything.
            lines = map(printable, str(error).split("\n"))
            raise click.ClickException("\n".join(lines)) from error
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


_COLUMN_FIELDS = (
    "layout",
    "instruction_column",
    "response_column",
    "teacher_column",
    "reference_column",
    "split",
)


@cli.command()
@ranking_options
@endpoint_options
@column_options
@runtime_options
@output_options
def rank(json_path: str | None, csv_path: str | None, html_path: str | None, **given: Any) -> None:
    """Rank the teachers whose RESPONSES these are for a base model."""
    study, runtime = _study(given)
    _run(study, runtime, (json_path, csv_path, html_path))


@cli.command()
@click.argument("study_file", metavar="STUDY.TOML")
@output_options
def run(
    study_file: str, json_path: str | None, csv_path: str | None, html_path: str | None
) -> None:
    """Carry out a study file.

    With [train] and [evaluate] the prediction is then validated: every student is fine-tuned on every
    teacher's responses, the answers are judged, and both orders compared. --json then holds all of it, and
    --csv what was observed, for `preceptor agree --observed`.
    """
    load_numpy()
    from preceptor.config.study import StudyFile

    file = StudyFile.read(study_file)
    if file.study.train is not None:
        run_validation(file.study, file.runtime, (json_path, csv_path, html_path))
        return
    _run(file.study, file.runtime, (json_path, csv_path, html_path))


@cli.command()
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str) -> None:
    """Print what a study file would take, without computing anything."""
    from preceptor import api
    from preceptor.config.study import StudyFile
    from preceptor.report.estimate import print_estimate

    file = StudyFile.read(study_file)
    estimate = api.plan(file.study, file.runtime)
    print_estimate(console(), estimate)
    if file.study.train is not None:
        plan_validation(file.study, file.runtime, estimate)


@cli.command()
@click.argument("identity", required=False)
@click.option("--store", default=".preceptor", show_default=True, metavar="DIR", help="The store.")
def show(identity: str | None, store: str) -> None:
    """Explain what a store holds: all identities, or one by the start of its name."""
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


@cli.command()
@click.argument("identity")
@click.option("--store", default=".preceptor", show_default=True, metavar="DIR", help="The store.")
def forget(identity: str, store: str) -> None:
    """Forget why rows of IDENTITY have no result (see `show`), so that they are tried again.

    For example after a server was restarted with a longer context. Results stay.
    """
    from preceptor.store.store import Store

    found = [s for s in Store(store).partitions() if s.identity.digest.startswith(identity)]
    if len(found) != 1:
        raise click.ClickException(
            f"{len(found)} identities in '{store}' start with '{identity}': expected one. "
            "`preceptor show` lists them."
        )
    click.echo(f"forgot {found[0].forget_notes():,} notes of {found[0].identity.digest}")


@cli.command("reward-models")
def reward_models() -> None:
    """List the reward models that --reward-model knows by short names."""
    from preceptor.config.reward_models import PRESETS
    from preceptor.report.terminal import print_reward_models

    print_reward_models(console(), PRESETS)


@cli.command()
@runtime_options
@output_options
def demo(json_path: str | None, csv_path: str | None, html_path: str | None, **given: Any) -> None:
    """Rank six small teachers for gemma-3-270m, with everything real and nothing downloaded."""
    load_numpy()
    from preceptor import api
    from preceptor.demo import GEMMA_NOTICE, demo_files, gemma_gguf

    runtime = {name: given[name] for name in ("store", "device", "max_batch_tokens", "keep_tokens")}
    study, where = api.study_of(demo_files(), students=[str(gemma_gguf())], **runtime)
    click.echo(GEMMA_NOTICE, err=True)
    _run(study, where, (json_path, csv_path, html_path))


def _study(given: dict[str, Any]) -> "tuple[Study, Runtime]":
    load_numpy()
    from preceptor import api
    from preceptor.config.data import ReadOptions

    named = given.pop("teacher_columns")
    columns = {name: given.pop(name) for name in _COLUMN_FIELDS}
    if named:
        columns["teacher_columns"] = tuple(name.strip() for name in named.split(","))
    return api.study_of(given.pop("responses"), columns=ReadOptions(**columns), **given)


def _run(study: "Study", runtime: "Runtime", outputs: Sequence[str | None]) -> None:
    from rich.console import Console

    from preceptor.pipeline import load as opening
    from preceptor.pipeline import rank as runner
    from preceptor.report.estimate import described, rewards_of
    from preceptor.report.terminal import print_lines, print_orders, print_ranking

    aside = Console(stderr=True)
    source = opening.source_of(study, runtime)
    # Before anything is paid for: a file may be read otherwise than was meant.
    print_lines(aside, described(source))
    found: list[Outcome] = []
    try:
        with progress_on(aside) as shown:
            data = opening.open_data(study, runtime, shown, source=source)
            print_lines(aside, rewards_of(data))
            for outcome in runner.outcomes(data, study, runtime, shown):
                found.append(outcome)
    finally:
        # Also when a later one fails: what is done was paid for.
        rankings = [outcome.ranking for outcome in found]
        if "-" not in outputs:
            screen = console()
            for ranking in rankings:
                print_ranking(screen, ranking)
            print_orders(screen, rankings)
    json_path, csv_path, html_path = outputs
    if json_path:
        from preceptor.store.files import json_text

        put(json_path, json_text([ranking.to_dict() for ranking in rankings]))
    if csv_path:
        put(csv_path, _csv(rankings))
    if html_path:
        from preceptor.report.build import report_of
        from preceptor.report.page import page

        put(html_path, page(report_of(found, runtime, command=typed_command())))


def _csv(rankings: "list[Ranking]") -> str:
    from preceptor.store.files import csv_text

    rows = [
        {"student": r.student, "reward_source": r.settings.get("reward"), **record}
        for r in rankings
        for record in r.to_records()
    ]
    return csv_text(rows)


cli.add_command(ability)
cli.add_command(agree)
cli.add_command(evaluate)
cli.add_command(export)
cli.add_command(respond)
cli.add_command(teachers)
cli.add_command(instructions)
cli.add_command(published)
cli.add_command(train)
cli.add_command(report)


def main() -> None:
    """Run the command line."""
    cli()
