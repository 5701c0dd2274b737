"""`preceptor plan`: what a study file would take."""

from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import rehash_option
from preceptor.cli.output import console, progress_on, put_json
from preceptor.cli.validate import estimated_validation, seeds_option, with_seeds

if TYPE_CHECKING:
    from preceptor.pipeline.estimate import CostEstimate
    from preceptor.validation.estimate import ValidationEstimate


def _parameters() -> list[click.Parameter]:
    return [_measure_option(), seeds_option(), rehash_option(), _json_option()]


@click.command(cls=Command, made=_parameters)
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str, measure: bool, seeds: int | None, json_path: str | None) -> None:
    """Estimate what a study file takes; nothing is computed."""
    from preceptor import api
    from preceptor.config.study import StudyFile
    from preceptor.report.estimate import print_estimate
    from preceptor.report.validation import print_validation_estimate

    file = StudyFile.read(study_file)
    study = with_seeds(file.study, seeds)
    with progress_on():  # a GGUF file's template and tokens are known once it is converted
        estimate = api.plan(study, file.runtime, measure=measure)
    shown, validation = json_path != "-", None
    if shown:
        print_estimate(console(), estimate)
    if study.train is not None:
        validation = estimated_validation(study, file.runtime, estimate)
        if shown:
            print_validation_estimate(console(), validation)
    if json_path:
        put_json(json_path, _record(estimate, validation))


def _record(found: "CostEstimate", validation: "ValidationEstimate | None") -> dict[str, Any]:
    """Return the whole estimate as plain values; None is what is not known."""
    from dataclasses import asdict

    from preceptor.ranking.record import plain
    from preceptor.report.estimate import asked_of, read_as

    compared: dict[str, int | None] = dict.fromkeys(("teachers", "instructions", "compared"))
    if found.data:
        selection = found.data[0].selection
        compared = {
            "teachers": len(selection.table.teachers),
            "instructions": len(selection.table.instructions),
            "compared": selection.complete,
        }
    record = {
        "sources": [*read_as(found.source), *asked_of(found.source)],
        "rewards": [one.reward_name for one in found.data],
        **compared,
        "generation": list(map(asdict, found.generation)),
        "steps": list(map(asdict, found.steps)),
        "fees": list(map(asdict, found.fees)),
        "race": found.race and found.race.model_dump(),
        "later": found.later,
        "warnings": list(dict.fromkeys(one.text for data in found.data for one in data.warnings)),
        "validation": validation and _validation(validation),
    }
    return {name: plain(value) for name, value in record.items()}


def _validation(found: "ValidationEstimate") -> dict[str, Any]:
    from dataclasses import asdict

    costs = [{"judge": judge, **cost._asdict()} for judge, cost in found.verdicts]
    return {**asdict(found), "verdicts": costs}


def _measure_option() -> Option:
    return Option(
        ["--measure"],
        is_flag=True,
        help="Load the models of which no speed is stated, and score some responses to measure it.",
        section="Runtime",
    )


def _json_option() -> Option:
    return Option(
        ["--json", "json_path"],
        metavar="FILE",
        help="Write the estimate as JSON; - for standard output.",
        section="Output",
    )
