"""`preceptor run`: carry out a study file."""

import click

from preceptor.cli.command import Command
from preceptor.cli.options import output_options
from preceptor.cli.output import load_numpy
from preceptor.cli.rank import rank_and_print
from preceptor.cli.validate import run_validation


@click.command(cls=Command, made=output_options)
@click.argument("study_file", metavar="STUDY.TOML")
def run(
    study_file: str, json_path: str | None, csv_path: str | None, html_path: str | None
) -> None:
    """Carry out a study file: rank, and validate where it says so.

    With [train] and [evaluate] the prediction is then validated: every student is fine-tuned on every
    teacher's responses, the answers are judged, and both orders compared. --json then holds all of it, and
    --csv what was observed, for `preceptor agreement --observed`.
    """
    load_numpy()
    from preceptor.config.study import StudyFile

    file = StudyFile.read(study_file)
    carry_out = rank_and_print if file.study.train is None else run_validation
    carry_out(file.study, file.runtime, (json_path, csv_path, html_path))
