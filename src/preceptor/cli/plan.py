"""`preceptor plan`: what a study file would take."""

import click

from preceptor.cli.command import Command, Option
from preceptor.cli.options import rehash_option
from preceptor.cli.output import console
from preceptor.cli.validate import plan_validation, seeds_option, with_seeds


@click.command(cls=Command, made=lambda: [_measure_option(), seeds_option(), rehash_option()])
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str, measure: bool, seeds: int | None) -> None:
    """Estimate what a study file takes; nothing is computed."""
    from preceptor import api
    from preceptor.config.study import StudyFile
    from preceptor.report.estimate import print_estimate

    file = StudyFile.read(study_file)
    study = with_seeds(file.study, seeds)
    estimate = api.plan(study, file.runtime, measure=measure)
    print_estimate(console(), estimate)
    if study.train is not None:
        plan_validation(study, file.runtime, estimate)


def _measure_option() -> Option:
    return Option(
        ["--measure"],
        is_flag=True,
        help="Load the models of which no speed is stated, and score some responses to measure it.",
        section="Runtime",
    )
