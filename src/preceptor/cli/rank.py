"""`preceptor rank`: rank the teachers of ready responses, and what `run` and `demo` share with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command
from preceptor.cli.options import (
    column_options,
    endpoint_options,
    output_options,
    ranking_options,
    runtime_options,
)
from preceptor.cli.output import (
    console,
    load_numpy,
    progress_on,
    put,
    put_csv,
    put_json,
    typed_command,
)

if TYPE_CHECKING:
    from preceptor.config.runtime import Runtime
    from preceptor.config.study import Study
    from preceptor.pipeline.rank import Outcome
    from preceptor.ranking.result import Ranking

Outputs = Sequence[str | None]
"""Where to write JSON, CSV and HTML; None for nowhere."""

_COLUMN_FIELDS = (
    "layout",
    "instruction_column",
    "response_column",
    "teacher_column",
    "reference_column",
    "split",
)


@click.command(cls=Command)
@ranking_options
@endpoint_options
@column_options
@runtime_options
@output_options
def rank(json_path: str | None, csv_path: str | None, html_path: str | None, **given: Any) -> None:
    """Rank the teachers whose RESPONSES these are for a base model."""
    study, runtime = _study(given)
    rank_and_print(study, runtime, (json_path, csv_path, html_path))


def _study(given: dict[str, Any]) -> "tuple[Study, Runtime]":
    load_numpy()
    from preceptor import api
    from preceptor.config.data import ReadOptions

    named = given.pop("teacher_columns")
    columns = {name: given.pop(name) for name in _COLUMN_FIELDS}
    if named:
        columns["teacher_columns"] = tuple(name.strip() for name in named.split(","))
    return api.study_of(given.pop("responses"), columns=ReadOptions(**columns), **given)


def rank_and_print(study: "Study", runtime: "Runtime", outputs: Outputs) -> None:
    """Rank for every student, print the tables as far as they are finished, and write the files."""
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
        put_json(json_path, [ranking.to_dict() for ranking in rankings])
    if csv_path:
        put_csv(csv_path, _rows(rankings))
    if html_path:
        from preceptor.report.build import report_of
        from preceptor.report.page import page

        put(html_path, page(report_of(found, runtime, command=typed_command())))


def _rows(rankings: "list[Ranking]") -> list[dict[str, Any]]:
    return [
        {"student": r.student, "reward_source": r.settings.get("reward"), **record}
        for r in rankings
        for record in r.to_records()
    ]
