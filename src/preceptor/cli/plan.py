"""`preceptor plan`: what a study file would take."""

import click

from preceptor.cli.command import Command
from preceptor.cli.output import console
from preceptor.cli.validate import plan_validation


@click.command(cls=Command)
@click.argument("study_file", metavar="STUDY.TOML")
def plan(study_file: str) -> None:
    """Estimate what a study file takes; nothing is computed."""
    from preceptor import api
    from preceptor.config.study import StudyFile
    from preceptor.report.estimate import print_estimate

    file = StudyFile.read(study_file)
    estimate = api.plan(file.study, file.runtime)
    print_estimate(console(), estimate)
    if file.study.train is not None:
        plan_validation(file.study, file.runtime, estimate)
