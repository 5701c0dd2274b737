"""`preceptor run`: carry out a study file."""

import click

from preceptor.cli.command import Command
from preceptor.cli.options import output_options, rehash_option
from preceptor.cli.output import load_numpy
from preceptor.cli.rank import rank_and_print
from preceptor.cli.validate import run_validation, seeds_option, with_seeds


@click.command(cls=Command, made=lambda: [seeds_option(), rehash_option(), *output_options()])
@click.argument("study_file", metavar="STUDY.TOML")
def run(
    study_file: str,
    seeds: int | None,
    json_path: str | None,
    csv_path: str | None,
    html_path: str | None,
) -> None:
    """Carry out a study file: rank, and validate where it says so.

    With [train] and [evaluate] the prediction is then validated: every student is fine-tuned on every
    teacher's responses, the answers are judged, and both orders compared. --json then holds all of it, and
    --csv what was observed, for `preceptor agreement --observed`.
    """
    load_numpy()
    from preceptor.config.study import StudyFile

    file = StudyFile.read(study_file)
    study = with_seeds(file.study, seeds)
    carry_out = rank_and_print if study.train is None else run_validation
    carry_out(study, file.runtime, (json_path, csv_path, html_path))
