"""`preceptor rank`: rank the teachers of ready responses, and what `run` and `demo` share with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command
from preceptor.cli.options import (
    COLUMNS,
    RANKING,
    complete_metric,
    field_option,
    field_options,
    log_option,
    output_options,
    runtime_options,
)
from preceptor.cli.output import (
    console,
    is_quiet,
    load_numpy,
    progress_on,
    put,
    put_csv,
    put_json,
    require_comparison,
    typed_command,
)
from preceptor.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from preceptor.config.runtime import Runtime
    from preceptor.config.study import Study
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.outcome import Outcome
    from preceptor.pipeline.pipeline import Pipeline
    from preceptor.ranking.result import Ranking

Outputs = Sequence[str | None]
"""Where to write JSON, CSV and HTML; None for nowhere."""


def _parameters() -> list[click.Parameter]:
    from preceptor.config.keywords import RANK, Keyword
    from preceptor.config.rewards import ColumnReward, ModelReward
    from preceptor.config.student import Student
    from preceptor.ranking.options import METRIC_NAMES, TRANSFORM_NAMES

    of_study: dict[str, dict[str, Any]] = {
        "metrics": {
            "option": "--metric",
            "multiple": True,
            "metavar": "NAME",
            "shell_complete": complete_metric,
            "help": f"{', '.join(METRIC_NAMES)}, or of another package. Repeatable. Default: all that "
            "need no further pass.",
        },
        "by": {"metavar": "NAME", "shell_complete": complete_metric},
        "reference_model": {
            "metavar": "ID",
            "default": None,
            "show_default": "openai-community/gpt2",
        },
    }
    judge: dict[str, dict[str, Any]] = {
        "judge": {"metavar": "MODEL"},
        "rubric": {
            "metavar": "FILE",
            "default": None,
            "help": "File with what the judge is to look at.",
        },
    }
    code = {
        "trust_remote_code": {
            "help": "Let code of the reward model's repository run; read it first."
        }
    }
    several = {"multiple": True, "metavar": "MODEL"}
    transform = {"type": click.Choice(TRANSFORM_NAMES), "metavar": None}
    return [
        click.Argument(["responses"], nargs=-1, required=True),
        *field_options("Data", RANK["data"], without=("instructions", "columns")),
        *field_options("Data", RANK["columns"], changed=COLUMNS),
        field_option(
            Keyword(Student, "model"), "students", "Student", option="--student", **several
        ),
        field_option(RANK["study"]["no_student"], "no_student", "Student"),
        *field_options("Student", RANK["student"]),
        *field_options("Student", RANK["reading"]),
        field_option(Keyword(ColumnReward, "column"), "reward_column", "Reward"),
        field_option(
            Keyword(ModelReward, "model"),
            "reward_models",
            "Reward",
            option="--reward-model",
            **several,
        ),
        *field_options("Reward", RANK["model"], changed=code),
        *field_options("Reward", RANK["rule"], changed={"rule": {"metavar": "JSON"}}),
        *field_options(
            "Judge that gives rewards",
            RANK["judge"],
            changed=judge,
            without=("judge_request",),
        ),
        *field_options("Judge that gives rewards", RANK["endpoint"]),
        *field_options(
            "Metrics",
            RANK["study"],
            without=("no_student", "teachers", "best_of_n", "train", "evaluate"),
            changed=of_study,
        ),
        *field_options("Metrics", RANK["ranking"], changed={"reward_transform": transform}),
        *field_options("Race", RANK["race"], changed={"race": {"is_flag": True}}),
        *runtime_options(only=RANKING),
        *output_options(),
        log_option(),
    ]


@click.command(cls=Command, made=_parameters)
def rank(
    json_path: str | None,
    csv_path: str | None,
    html_path: str | None,
    log_to: str | None,
    **given: Any,
) -> None:
    """Rank the teachers whose RESPONSES these are for a base model."""
    load_numpy()
    from preceptor import api

    study, runtime = api.study_of(given.pop("responses"), **given)
    rank_and_print(study, runtime, (json_path, csv_path, html_path), log_to)


def rank_and_print(
    study: "Study", runtime: "Runtime", outputs: Outputs, log_to: str | None = None
) -> None:
    """Rank or race for every student; print and write what is finished, also where a later one fails."""
    from preceptor.pipeline.pipeline import Pipeline

    if log_to is not None:
        _require_tracker(log_to, ranks=runtime.shard is None and study.race is None)
    if runtime.shard is not None:
        _score_shard_and_print(Pipeline(study, runtime))
        return
    if study.race is not None:
        _race_and_print(Pipeline(study, runtime), outputs)
        return
    found: list[Outcome] = []
    try:
        carry_out(Pipeline(study, runtime), found, None if "-" in outputs else console())
    finally:
        if found:
            _write(found, runtime, outputs)
    # After the rest, so that a tracker's trouble hides no other error.
    _log(found, log_to)
    require_comparison([len(outcome.ranking) for outcome in found])


def _require_tracker(log_to: str, *, ranks: bool) -> None:
    from preceptor.report.tracking import require_tracker

    if not ranks:
        raise click.UsageError(
            "--log-to logs rankings: a race or a shard makes none. Leave it out."
        )
    require_tracker(log_to)


def _log(found: "Sequence[Outcome]", log_to: str | None) -> None:
    if log_to is not None:
        from preceptor.report.tracking import log_ranking

        for outcome in found:
            log_ranking(outcome.ranking, log_to, quiet=is_quiet())


def _score_shard_and_print(pipeline: "Pipeline") -> None:
    from rich.console import Console

    from preceptor.pipeline.shard import score_shard
    from preceptor.report.estimate import described
    from preceptor.report.terminal import print_lines

    aside = Console(stderr=True)
    print_lines(aside, described(pipeline.source))
    with progress_on(aside) as pipeline.progress:
        found = score_shard(pipeline)
    lines = [
        f"{one.name}: shard {pipeline.runtime.shard} has {counted(one.responses, 'response')}, "
        f"{one.scored:,} scored "
        f"now; {one.left:,} of the whole study without a score yet"
        for one in found
    ]
    lines.append("When every shard is done, the same command without --shard ranks from the store.")
    print_lines(console(), lines)


def _race_and_print(pipeline: "Pipeline", outputs: Outputs) -> None:
    from preceptor.pipeline.race import race
    from preceptor.report.estimate import described
    from preceptor.report.terminal import print_lines, print_race

    aside = console(aside=True)
    print_lines(aside, described(pipeline.source))
    with progress_on(aside) as pipeline.progress:
        found = race(pipeline)
    json_path, csv_path, html_path = outputs
    if "-" not in outputs:
        for one in found:
            print_race(console(), one)
    if json_path:
        put_json(json_path, [one.to_dict() for one in found])
    if csv_path:
        rows = [
            {"student": one.student, "reward_source": one.reward, **record}
            for one in found
            for record in one.to_records()
        ]
        put_csv(csv_path, rows)
    if html_path:
        from preceptor.report.race import race_page

        put(html_path, race_page(found, command=typed_command()))
    require_comparison([len(one.racers) for one in found])


def carry_out(
    pipeline: "Pipeline", found: "list[Outcome]", screen: "Console | None"
) -> "Sequence[LoadedData]":
    """Add each outcome to `found` as it is finished, print them all, and return the data ranked.

    Where one fails, those before it are printed first.
    """
    from preceptor.pipeline.outcome import compared
    from preceptor.report.estimate import described, rewards_of
    from preceptor.report.terminal import print_lines, print_orders, print_ranking

    aside = console(aside=True)
    # Before anything is paid for: a file may be read otherwise than was meant.
    print_lines(aside, described(pipeline.source))
    try:
        with progress_on(aside) as pipeline.progress:
            data = pipeline.load()
            print_lines(aside, rewards_of(data))
            for outcome in pipeline.outcomes(data):
                found.append(outcome)
    finally:
        found[:] = compared(found)
        if screen is not None:
            rankings = [outcome.ranking for outcome in found]
            for ranking in rankings:
                print_ranking(screen, ranking)
            print_orders(screen, rankings)
    return data


def _write(found: "Sequence[Outcome]", runtime: "Runtime", outputs: Outputs) -> None:
    rankings = [outcome.ranking for outcome in found]
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
