"""`preceptor plan`: what a study file would take."""

import click

from preceptor.cli.command import Command
from preceptor.cli.options import rehash_option
from preceptor.cli.output import console
from preceptor.cli.validate import plan_validation, seeds_option, with_seeds


@click.command(cls=Command, made=lambda: [seeds_option(), rehash_option()])
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str, seeds: int | None) -> None:
    """Estimate what a study file takes; nothing is computed."""
    from preceptor import api
    from preceptor.config.study import StudyFile
    from preceptor.report.estimate import print_estimate

    file = StudyFile.read(study_file)
    study = with_seeds(file.study, seeds)
    estimate = api.plan(study, file.runtime)
    print_estimate(console(), estimate)
    if study.train is not None:
        plan_validation(study, file.runtime, estimate)
