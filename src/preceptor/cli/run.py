"""`preceptor run`: carry out a study file."""

import click

from preceptor.cli.command import Command
from preceptor.cli.options import log_option, output_options, rehash_option, runtime_options
from preceptor.cli.output import load_numpy
from preceptor.cli.rank import rank_and_print
from preceptor.cli.validate import run_validation, seeds_option, with_seeds


def _parameters() -> list[click.Parameter]:
    shard = runtime_options(only=("shard",))
    return [seeds_option(), *shard, rehash_option(), *output_options(), log_option()]


@click.command(cls=Command, made=_parameters)
@click.argument("study_file", metavar="STUDY.TOML")
def run(
    study_file: str,
    seeds: int | None,
    shard: str | None,
    log_to: str | None,
    **paths: str | None,
) -> None:
    """Carry out a study file: rank, and validate where it says so.

    With [train] and [evaluate] the prediction is then validated: every student is fine-tuned on every
    teacher's responses, the answers are judged, and both orders compared. --json then holds all of it, and
    --csv what was observed, for `preceptor agreement --observed`.
    """
    load_numpy()
    from preceptor.config.base import checked
    from preceptor.config.runtime import Runtime
    from preceptor.config.study import StudyFile

    file = StudyFile.read(study_file)
    study = with_seeds(file.study, seeds)
    runtime = file.runtime
    if shard is not None:
        runtime = checked(Runtime, {**runtime.model_dump(), "shard": shard}, where="runtime")
    outputs = (paths["json_path"], paths["csv_path"], paths["html_path"])
    if study.train is None or runtime.shard is not None:
        rank_and_print(study, runtime, outputs, log_to)
        return
    if log_to is not None:
        raise click.UsageError("--log-to logs rankings, and this study has [train]: leave it out.")
    run_validation(study, runtime, outputs)
