"""What the command line and scripts share: rank responses, run a study, look before paying."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preceptor.agreement.orders import Observed
from preceptor.config.base import checked
from preceptor.config.build import Paths, generation_of, study_of
from preceptor.config.export import Export
from preceptor.config.runtime import Runtime
from preceptor.config.study import Student, Study, StudyFile
from preceptor.errors import StudyError
from preceptor.export import writer as exports
from preceptor.export.writer import Written
from preceptor.pipeline import export as exporting
from preceptor.pipeline.estimate import CostEstimate, estimate
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.responses_file import generate_to_file
from preceptor.pipeline.work import Progress
from preceptor.ranking.result import Ranking
from preceptor.report.build import report_of, stored_outcomes
from preceptor.report.data import Report
from preceptor.report.progress import showing
from preceptor.validation.result import ValidationResult
from preceptor.validation.validate import validate as validate_study

__all__ = [
    "export",
    "generate",
    "plan",
    "push",
    "rank",
    "rank_all",
    "run_study",
    "study_of",
    "study_report",
    "validate",
]


def rank(
    responses: Paths,
    *,
    student: str | Path | Student | None = None,
    reward_column: str | None = None,
    reward_model: str | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Ranking:
    """Return the teachers whose responses these are, from best to worst for this base model.

    Args:
        responses: files, folders or Hub data sets.
        student: Hub id, local folder or GGUF file, or its table; without one only reward and length rank.
        reward_column: numeric column of the data that holds the reward; or else
        reward_model: preset, Hub id or local folder of a reward model.
        progress: what shows how far it is; by default bars in a notebook and a terminal, False for none.
        options: fields of the tables of a study file by name: of `Study` (`metrics`, `by`, `beta`,
            `reference_model`), `Data`, `ReadOptions`, `Student`, `Reading`, `RankingOptions` and `Runtime`;
            `reward_transform`; `rule`, a check or its JSON; `trust_remote_code` of the reward model; `judge`,
            a chat model that scores, with `rubric` (a file) and the fields of `JudgeReward` and `Endpoint`
            after `judge_`: it is served at `judge_url`, or else run here.

    Raises:
        StudyError: an option is unknown, wrong, or beside the point.
        PreceptorError: bad input, in words that say what to do.
    """
    sources = {
        "reward_column": reward_column,
        "reward_model": reward_model,
        "rule": options.get("rule"),
        "judge": options.get("judge"),
    }
    given = [name for name, value in sources.items() if value]
    if len(given) > 1:
        raise StudyError(
            f"{' and '.join(given)} are given: expected one source of rewards. rank_all takes several and "
            "returns a ranking for each."
        )
    rankings = rank_all(
        responses,
        students=[student] if student else [],
        reward_column=reward_column,
        reward_models=[reward_model] if reward_model else [],
        progress=progress,
        **options,
    )
    return rankings[0]


def rank_all(
    responses: Paths,
    *,
    students: Sequence[str | Path | Student],
    reward_column: str | None = None,
    reward_models: Sequence[str] = (),
    progress: Progress | bool | None = None,
    **options: Any,
) -> list[Ranking]:
    """Return one ranking for each student and source of rewards; see `rank`."""
    study, runtime = study_of(
        responses,
        students=students,
        reward_column=reward_column,
        reward_models=reward_models,
        **options,
    )
    with showing(progress) as shown:
        return Pipeline(study, runtime, shown).rankings()


def run_study(path: str | Path, progress: Progress | bool | None = None) -> list[Ranking]:
    """Carry out the study file at `path` as far as the prediction; return one ranking for each student.

    What `[train]` and `[evaluate]` ask for is `validate`'s.
    """
    file = StudyFile.read(path)
    with showing(progress) as shown:
        return Pipeline(file.study, file.runtime, shown).rankings()


def study_report(
    path: str | Path,
    *,
    observed: Observed | None = None,
    outcome: str | None = None,
    command: str | None = None,
) -> Report:
    """Return what a page shows of the study file at `path`, from what is stored; nothing is paid for.

    Args:
        path: of the study file.
        observed: student -> teacher -> what was observed after tuning, higher is better.
        outcome: where that is from, in words.
        command: the command line to show; by default the one that makes this report.

    Raises:
        StudyError: responses or scores are missing; the message says which.
        PreceptorError: the study cannot be ranked as it stands.
    """
    file = StudyFile.read(path)
    return report_of(
        stored_outcomes(file.study, file.runtime),
        file.runtime,
        command=command or shlex.join(["preceptor", "report", str(path)]),
        observed=observed,
        outcome=outcome,
    )


def validate(path: str | Path, progress: Progress | bool | None = None) -> ValidationResult:
    """Carry out the study file at `path` from its teachers to the validation of its prediction.

    Raises:
        PreceptorError: the file has no `[train]` and `[evaluate]`, or a stage cannot be gone through; what
            was done before is stored.
    """
    file = StudyFile.read(path)
    with showing(progress) as shown:
        return validate_study(file.study, file.runtime, shown)


def export(
    study: str | Path,
    output: str | Path,
    *,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Written:
    """Write the responses that a study file chooses as a data set; options are the fields of `Export`.

    Raises:
        PreceptorError: bad input, in words that say what to do.
    """
    file = StudyFile.read(study)
    chosen = checked(Export, options, where="export")
    with showing(progress) as shown:
        return exporting.export(file.study, file.runtime, Path(output), chosen, shown)


def generate(
    instructions: Paths,
    *,
    teacher: str,
    output: str | Path,
    progress: Progress | bool | None = None,
    **options: Any,
) -> int:
    """Ask one teacher for what the store lacks, write all its responses as JSONL, and return how many.

    Args:
        instructions: files or Hub data sets.
        teacher: catalogue name, Hub id, folder, GGUF file, or the name as served.
        output: file to write.
        progress: what shows how far it is; by default bars in a notebook and a terminal, False for none.
        options: fields of `Teacher`, `Endpoint` (`url` and more: it is asked in place of `engine`),
            `Runtime`, `ReadOptions`, and `limit`, by name.

    Raises:
        StudyError: an option is unknown, wrong, or beside the point.
        PreceptorError: bad input, in words that say what to do.
    """
    study, runtime = generation_of(instructions, teacher=teacher, **options)
    with showing(progress) as shown:
        return generate_to_file(study, runtime, Path(output), shown)


def require_token() -> None:
    """Check that there is a token to push with; DataError where HF_TOKEN is not set."""
    exports.require_token()


def push(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload an exported data set to the Hub with the token in HF_TOKEN; return its address."""
    return exports.push(Path(folder), repository, private=private)


def plan(study: Study, runtime: Runtime) -> CostEstimate:
    """Return what the study would take, teacher by teacher and step by step, without paying for anything."""
    return estimate(study, runtime)
