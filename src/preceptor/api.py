"""What the command line and scripts share: rank responses, run a study, look before paying."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from preceptor.agreement.orders import Observed
from preceptor.config.base import checked
from preceptor.config.data import ReadOptions
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study, StudyFile
from preceptor.errors import StudyError
from preceptor.export import writer as exports
from preceptor.export.writer import Format, Layout, Written
from preceptor.pipeline import export as exporting
from preceptor.pipeline import load as opening
from preceptor.pipeline import rank as runner
from preceptor.pipeline.estimate import CostEstimate, estimate
from preceptor.pipeline.export import ExportOptions
from preceptor.pipeline.score import Progress, Silent
from preceptor.pipeline.select import Rule
from preceptor.ranking.metrics import Metric
from preceptor.ranking.result import Ranking
from preceptor.report.build import report_of, stored_outcomes
from preceptor.report.data import Report
from preceptor.validation.result import ValidationResult
from preceptor.validation.validate import validate as validate_study

__all__ = [
    "RankOptions",
    "export",
    "plan",
    "push",
    "rank",
    "rank_all",
    "respond",
    "run_study",
    "study_of",
    "study_report",
    "validate",
]


class RankOptions(TypedDict, total=False):
    """Everything `rank` takes beyond the data, the student and the reward; each as on the command line.

    `metrics` are names or objects of `Metric`'s shape; `by` orders; `beta` is CAR's. `columns` overrides the
    recognised layout. `trust_remote_code` lets a reward model's repository run code. `rule` is a check as a
    reference holds it, or its JSON. `judge` is a chat model served at `judge_url`, or run here where there is
    none; `rubric` is a file. `reference_model` is the model of the gpt2 metrics.
    """

    metrics: Sequence[str | Metric]
    by: str | None
    beta: float
    limit: int | None
    max_length: int
    chat_template: str
    revision: str | None
    dtype: str
    seed: int
    n_resamples: int
    reward_transform: str
    min_coverage: float
    conditioning: str
    reduction: str
    include_end_of_turn: bool
    trust_remote_code: bool
    rule: Mapping[str, object] | str | None
    judge: str | None
    judge_url: str | None
    judge_key_env: str | None
    judge_concurrency: int
    rubric: str | Path | None
    reference_model: str | None
    columns: ReadOptions
    store: str
    device: str
    max_batch_tokens: int | None
    keep_tokens: bool


class ExportArguments(TypedDict, total=False):
    """What `export` writes; see `ExportOptions`, whose fields these are."""

    layout: Layout
    format: Format
    teacher: str | None
    each: Rule | None
    pairs: bool
    margin: float
    student: str | None
    reward: str | None
    every_sample: bool
    overwrite: bool


_STUDENT = ("max_length", "chat_template", "revision", "dtype")
_READING = ("conditioning", "reduction", "include_end_of_turn")
_RUNTIME = ("store", "device", "max_batch_tokens", "keep_tokens")


def rank(
    responses: str | Path | Sequence[str | Path],
    *,
    student: str | None = None,
    reward_column: str | None = None,
    reward_model: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[RankOptions],
) -> Ranking:
    """Return the teachers whose responses these are, from best to worst for this base model.

    Args:
        responses: files, folders or Hub data sets.
        student: Hub id, local folder or GGUF file; without one only reward and length rank.
        reward_column: numeric column of the data that holds the reward; or else
        reward_model: preset, Hub id or local folder of a reward model.
        progress: told of the work as it goes.
        options: see `RankOptions`.

    Raises:
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
    responses: str | Path | Sequence[str | Path],
    *,
    students: Sequence[str],
    reward_column: str | None = None,
    reward_models: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Unpack[RankOptions],
) -> list[Ranking]:
    """Return one ranking for each student and source of rewards; see `rank`."""
    study, runtime = study_of(
        responses,
        students=students,
        reward_column=reward_column,
        reward_models=reward_models,
        **options,
    )
    return runner.run(study, runtime, progress)


def study_of(
    responses: str | Path | Sequence[str | Path],
    *,
    students: Sequence[str] = (),
    reward_column: str | None = None,
    reward_models: Sequence[str] = (),
    **options: Unpack[RankOptions],
) -> tuple[Study, Runtime]:
    """Return the study and the machine that these options mean.

    StudyError for an option that is unknown or wrong.
    """
    paths = [responses] if isinstance(responses, str | Path) else responses
    given = dict(options)
    picked = {
        name: {key: given[key] for key in keys if key in given}
        for name, keys in (("student", _STUDENT), ("reading", _READING), ("runtime", _RUNTIME))
    }
    ranking = {
        "seed": given.get("seed", 0),
        "n_resamples": given.get("n_resamples", 2000),
        "transform": given.get("reward_transform", "raw"),
        "min_coverage": given.get("min_coverage", 0.5),
    }
    tables = {
        "data": {
            "responses": [str(path) for path in paths],
            "limit": options.get("limit"),
            "columns": options.get("columns", ReadOptions()),
        },
        "students": [{"model": model, **picked["student"]} for model in students],
        "reward": _rewards(options, reward_column, reward_models),
        "metrics": _distinct(options.get("metrics", ())),
        "beta": options.get("beta", 3.0),
        "by": options.get("by"),
        "reading": picked["reading"],
        "ranking": ranking,
    }
    if reference := options.get("reference_model"):
        tables["reference_model"] = {"model": reference, "dtype": options.get("dtype", "auto")}
    return (
        checked(Study, tables, where="options"),
        checked(Runtime, {**picked["runtime"], **_endpoints(options)}, where="options"),
    )


def _rewards(
    options: RankOptions, column: str | None, models: Sequence[str]
) -> list[dict[str, object]]:
    """Return the tables of the sources of rewards that the options name."""
    shared = {"dtype": options.get("dtype", "auto")}
    code = options.get("trust_remote_code", False)
    found: list[dict[str, object]] = [{"kind": "column", "column": column}] if column else []
    found += [{"kind": "model", "model": m, "trust_remote_code": code, **shared} for m in models]
    if rule := options.get("rule"):
        found.append({"kind": "rule", "rule": _rule(rule)})
    if judge := options.get("judge"):
        engine = "openai" if options.get("judge_url") else "transformers"
        found.append({"kind": "judge", "model": judge, "engine": engine, **shared})
        if rubric := options.get("rubric"):
            found[-1]["rubric"] = _text_of(rubric)
    elif options.get("rubric"):
        raise StudyError("A rubric is given without a judge: name the model with --judge.")
    return found


def _rule(given: Mapping[str, object] | str) -> Mapping[str, object]:
    if not isinstance(given, str):
        return given
    try:
        rule = json.loads(given)
    except ValueError as error:
        raise StudyError(
            f"The rule is not JSON ({error}): {given:.80}. Expected a check such as "
            '{"kind": "contains", "answer": "Paris"}.'
        ) from error
    if not isinstance(rule, dict):
        raise StudyError(f"The rule is {given:.80}: expected a JSON object with a kind.")
    return rule


def _text_of(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"Cannot read the rubric '{path}': {error}.") from error


def _endpoints(options: RankOptions) -> dict[str, object]:
    """Return where the judge is served, as the machine's table of endpoints."""
    judge, url = options.get("judge"), options.get("judge_url")
    if not url:
        return {}
    if not judge:
        raise StudyError("A judge's URL is given without a judge: name the model with --judge.")
    endpoint = {
        "url": url,
        "api_key_env": options.get("judge_key_env"),
        "concurrency": options.get("judge_concurrency", 8),
    }
    return {"endpoints": {judge: endpoint}}


def _distinct(metrics: Sequence[str | Metric]) -> list[str | Metric]:
    return [metric for place, metric in enumerate(metrics) if metric not in metrics[:place]]


def run_study(path: str | Path, progress: Progress | None = None) -> list[Ranking]:
    """Carry out the study file at `path` as far as the prediction; return one ranking for each student.

    What `[train]` and `[evaluate]` ask for is `validate`'s.
    """
    file = StudyFile.read(path)
    return runner.run(file.study, file.runtime, progress)


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


def validate(path: str | Path, progress: Progress | None = None) -> ValidationResult:
    """Carry out the study file at `path` from its teachers to the validation of its prediction.

    Raises:
        PreceptorError: the file has no `[train]` and `[evaluate]`, or a stage cannot be gone through; what
            was done before is stored.
    """
    file = StudyFile.read(path)
    return validate_study(file.study, file.runtime, progress)


def export(
    study: str | Path,
    output: str | Path,
    *,
    progress: Progress | None = None,
    **options: Unpack[ExportArguments],
) -> Written:
    """Write the responses that a study file chooses as a data set; see `ExportArguments`.

    Raises:
        PreceptorError: bad input, in words that say what to do.
    """
    file = StudyFile.read(study)
    chosen = ExportOptions(**options)
    return exporting.export(file.study, file.runtime, Path(output), chosen, progress or Silent())


class TeacherArguments(TypedDict, total=False):
    """How `respond` asks; as the fields of `[[teachers]]` and `[runtime]`.

    `url`, `key_env` and `concurrency` are those of an endpoint, which is asked in place of `engine`.
    """

    url: str | None
    key_env: str | None
    concurrency: int
    engine: str
    chat_template: str
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    stop: Sequence[str]
    samples: int
    seed: int
    limit: int | None
    store: str
    device: str


_TEACHER = (
    "engine",
    "chat_template",
    "system",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "samples",
    "seed",
)


def respond(
    instructions: Sequence[str | Path],
    *,
    model: str,
    output: str | Path,
    progress: Progress | None = None,
    **options: Unpack[TeacherArguments],
) -> int:
    """Ask one teacher for what the store lacks, write all its responses as JSONL, and return how many.

    Raises:
        PreceptorError: bad input, in words that say what to do.
    """
    given = dict(options)
    teacher = {"model": model, **{name: given[name] for name in _TEACHER if name in given}}
    runtime: dict[str, object] = {
        name: given[name] for name in ("store", "device") if name in given
    }
    if url := options.get("url"):
        teacher |= {"engine": "openai"}
        concurrency = options.get("concurrency", 8)
        endpoint = {
            "url": url,
            "api_key_env": options.get("key_env"),
            "concurrency": concurrency,
        }
        runtime |= {"endpoints": {model: endpoint}}
    tables = {
        "data": {
            "instructions": [str(path) for path in instructions],
            "limit": options.get("limit"),
        },
        "teachers": [teacher],
    }
    study = checked(Study, tables, where="options")
    where = checked(Runtime, runtime, where="options")
    return opening.respond_to_file(study, where, Path(output), progress or Silent())


def require_token() -> None:
    """Check that there is a token to push with; DataError where HF_TOKEN is not set."""
    exports.require_token()


def push(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload an exported data set to the Hub with the token in HF_TOKEN; return its address."""
    return exports.push(Path(folder), repository, private=private)


def plan(study: Study, runtime: Runtime) -> CostEstimate:
    """Return what the study would take, teacher by teacher and step by step, without paying for anything."""
    return estimate(study, runtime)
