"""What the command line and scripts share: rank responses, run a study, look before paying."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from preceptor.agreement.compare import compare
from preceptor.agreement.orders import Observed, read_observed, read_predictions
from preceptor.agreement.table import AgreementTable
from preceptor.benchmarks.average_performance import StudentResult, student_results
from preceptor.benchmarks.files import read_files
from preceptor.benchmarks.registry import benchmarks
from preceptor.config.base import checked
from preceptor.config.build import Paths, generation_of, study_of
from preceptor.config.curation import Curation
from preceptor.config.data import ReadOptions
from preceptor.config.export import Export
from preceptor.config.keywords import TRAIN, sorted_out
from preceptor.config.recipe import Recipe
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study, StudyFile, read_catalogue
from preceptor.data.curation import curate
from preceptor.data.curation_report import CurationReport
from preceptor.data.instructions import PromptSource, write_prompts
from preceptor.errors import StoreError, StudyError
from preceptor.export import writer as exports
from preceptor.export.writer import Written
from preceptor.finetuning.dataset import read_conversations
from preceptor.finetuning.finetune import FineTuned, fine_tune, student_named
from preceptor.finetuning.trainer import Watch
from preceptor.pipeline import export as exporting
from preceptor.pipeline import race as racing
from preceptor.pipeline.estimate import CostEstimate, estimate
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.responses_file import generate_to_file
from preceptor.pipeline.work import Progress
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.result import Ranking
from preceptor.report.data import Report
from preceptor.report.progress import showing
from preceptor.store.shards import Check
from preceptor.store.store import ResponsePartition, ScorePartition, Store
from preceptor.validation.result import ValidationResult
from preceptor.validation.validate import validate as validate_study

__all__ = [
    "curate_instructions",
    "evaluate",
    "export_dataset",
    "forget",
    "generate",
    "measure_agreement",
    "plan",
    "push",
    "rank",
    "rank_all",
    "run",
    "stored",
    "study_of",
    "study_report",
    "tokens",
    "train",
    "validate",
]


if TYPE_CHECKING:
    from preceptor.report.tokens import RowTokens

Students: TypeAlias = Sequence[str | Path | Student]
Raced: TypeAlias = Literal[True] | RaceOptions | Mapping[str, object]
"""That a race is to be run, and how: the fields of `RaceOptions`."""


@overload
def rank(responses: Paths, *, race: Raced, **options: Any) -> RaceResult: ...


@overload
def rank(responses: Paths, *, race: Literal[False] | None = None, **options: Any) -> Ranking: ...


def rank(
    responses: Paths,
    *,
    student: str | Path | Student | None = None,
    reward_column: str | None = None,
    reward_model: str | None = None,
    race: Raced | Literal[False] | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Ranking | RaceResult:
    """Return the teachers whose responses these are, from best to worst for this base model.

    Args:
        responses: files, folders or Hub data sets.
        student: Hub id, local folder or GGUF file, or its table; to rank for none, give `no_student=True`.
        reward_column: numeric column of the data that holds the reward; or else
        reward_model: preset, Hub id or local folder of a reward model.
        race: True, or the table `[race]`, to race: teachers leave as soon as they cannot be the best.
        progress: what shows how far it is; by default bars in a notebook and a terminal, False for none.
        options: fields of the tables of a study file by name: of `Study` (`metrics`, `by`, `beta`,
            `reference_model`), `Data`, `ReadOptions`, `Student`, `Reading`, `RankingOptions`, `RaceOptions`
            and `Runtime`; `reward_transform`; `rule`, a check or its JSON; `trust_remote_code` of the reward
            model; `judge`, a chat model that scores, with `rubric` (a file) and the fields of `JudgeReward`
            and `Endpoint` after `judge_`: it is served at `judge_url`, or else run here.

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
    for several, one in (("students", "student"), ("reward_models", "reward_model")):
        if several in options:
            raise StudyError(
                f"rank has no option '{several}': it takes one {one}, rank_all several."
            )
    found: Sequence[Ranking | RaceResult] = rank_all(
        responses,
        students=[student] if student else [],
        reward_column=reward_column,
        reward_models=[reward_model] if reward_model else [],
        race=race,
        progress=progress,
        **options,
    )
    return found[0]


@overload
def rank_all(
    responses: Paths, *, students: Students, race: Raced, **options: Any
) -> list[RaceResult]: ...


@overload
def rank_all(
    responses: Paths, *, students: Students, race: Literal[False] | None = None, **options: Any
) -> list[Ranking]: ...


def rank_all(
    responses: Paths,
    *,
    students: Students,
    reward_column: str | None = None,
    reward_models: Sequence[str] = (),
    race: Raced | Literal[False] | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> list[Ranking] | list[RaceResult]:
    """Return one ranking, or race, for each student and source of rewards; see `rank`."""
    study, runtime = study_of(
        responses,
        students=students,
        reward_column=reward_column,
        reward_models=reward_models,
        race=race,
        **options,
    )
    return _carried_out(study, runtime, progress)


def _carried_out(
    study: Study, runtime: Runtime, progress: Progress | bool | None
) -> list[Ranking] | list[RaceResult]:
    with showing(progress) as shown:
        pipeline = Pipeline(study, runtime, shown)
        return pipeline.rankings() if study.race is None else racing.race(pipeline)


def run(
    study: str | Path | StudyFile, progress: Progress | bool | None = None
) -> list[Ranking] | list[RaceResult]:
    """Carry out a study file as far as the prediction; return one ranking for each student and reward.

    With `[race]` these are races.

    What `[train]` and `[evaluate]` ask for is `validate`'s.
    """
    file = study if isinstance(study, StudyFile) else StudyFile.read(study)
    return _carried_out(file.study, file.runtime, progress)


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
        observed: student -> teacher -> what was observed after fine-tuning, higher is better.
        outcome: where that is from, in words.
        command: the command line to show; by default the one that makes this report.

    Raises:
        StudyError: responses or scores are missing; the message says which.
        PreceptorError: the study cannot be ranked as it stands.
    """
    from preceptor.report.build import report_of, stored_outcomes

    file = StudyFile.read(path)
    return report_of(
        stored_outcomes(file.study, file.runtime),
        file.runtime,
        command=command or shlex.join(["preceptor", "report", str(path)]),
        observed=observed,
        outcome=outcome,
    )


def tokens(
    responses: Paths, *, student: str | Path | Student, row: int = 1, **options: Any
) -> "RowTokens":
    """Return how a student reads one response: which tokens are context, which count, what is left out.

    Args:
        responses: files, folders or Hub data sets.
        student: Hub id, local folder or GGUF file, or its table.
        row: which response, counted from 1 as they are read.
        options: as of `rank`. Losses are those that a ranking with the same options stored.

    Raises:
        PreceptorError: there is no such response, or the student's template refuses it.
    """
    from preceptor.report.tokens import tokens_of

    study, runtime = study_of(responses, students=[student], **options)
    return tokens_of(study, runtime, row)


def validate(path: str | Path, progress: Progress | bool | None = None) -> ValidationResult:
    """Carry out the study file at `path` from its teachers to the validation of its prediction.

    Raises:
        PreceptorError: the file has no `[train]` and `[evaluate]`, or a stage cannot be gone through; what
            was done before is stored.
    """
    file = StudyFile.read(path)
    with showing(progress) as shown:
        return validate_study(file.study, file.runtime, shown)


def export_dataset(
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


def plan(
    study: str | Path | Study, runtime: Runtime | None = None, *, measure: bool = False
) -> CostEstimate:
    """Return what a study would take, teacher by teacher and step by step, without paying for anything.

    Args:
        study: a study, or the path of a study file.
        runtime: where it would run, instead of what the file says.
        measure: load the models whose speed is not stated, and score some responses to measure it.
    """
    if isinstance(study, Study):
        return estimate(study, runtime or Runtime(), measure=measure)
    file = StudyFile.read(study)
    return estimate(file.study, runtime or file.runtime, measure=measure)


def train(
    data: Paths,
    *,
    student: str | Path,
    output: str | Path,
    revision: str | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> FineTuned:
    """Fine-tune a base model on data in the `messages` layout, or go on where an earlier run was stopped.

    Args:
        data: files or folders, as `export_dataset` writes them.
        student: Hub id, folder or GGUF file.
        output: folder of the fine-tuned model.
        revision: branch, tag or commit of a Hub model.
        watch: called at every step.
        options: fields of `Recipe`, and `device`, by name.

    Raises:
        PreceptorError: the recipe or the data cannot be used.
    """
    given = sorted_out(TRAIN, options, where="train")
    runtime = checked(Runtime, given["runtime"], where="options")
    recipe = checked(Recipe, given["recipe"], where="options")
    conversations = read_conversations([data] if isinstance(data, str | Path) else data)
    located = student_named(str(student), revision)
    return fine_tune(
        located, conversations, recipe, output=Path(output), runtime=runtime, watch=watch
    )


def evaluate(
    files: Sequence[str | Path], *, seed: int = 0, judged_by: Sequence[str] = ()
) -> list[StudentResult]:
    """Return every model's results on benchmarks from files of judgements, the best first.

    Files of answers are judged by the command `evaluate --judge`, which stores what a judge says.
    `judged_by` says who judged files that name no judge: `JUDGE` all of them, `FILE=JUDGE` one.

    Raises:
        DataError: a file cannot be read, holds no judgements, or could be of another judge than the others.
    """
    known = benchmarks()
    verdicts = read_files(files, known, judged_by=judged_by).verdicts
    scored = [known[name].score(own, seed=seed) for name, own in verdicts.items() if own]
    return student_results([result for one in scored for result in one.results], {})


def measure_agreement(
    predictions: Paths,
    observed: Observed | str | Path,
    *,
    catalogue: str | Path | None = None,
    dimension: str | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    **restrictions: Any,
) -> AgreementTable:
    """Return how well predicted orders of teachers match observed ones.

    Args:
        predictions: files that rankings were written to, JSON or CSV.
        observed: student -> teacher -> outcome, higher is better, or a file of it.
        catalogue: a file that says families and sizes of teachers of one's own.
        dimension: of a file of outcomes in several, which.
        n_resamples: bootstrap resamples.
        seed: draws teachers.
        restrictions: `metrics`, `students` and `directions` of `agreement.compare.compare`.

    Raises:
        DataError: a file cannot be read.
        StudyError: nothing can be compared.
    """
    paths = [predictions] if isinstance(predictions, str | Path) else predictions
    found = [one for path in paths for one in read_predictions(str(path))]
    if isinstance(observed, str | Path):
        observed = read_observed(str(observed), dimension)
    comparison = compare(found, observed, catalogue=read_catalogue(catalogue), **restrictions)
    return AgreementTable(comparison, draws=n_resamples, seed=seed)


def curate_instructions(
    sources: Paths, output: str | Path, *, columns: ReadOptions | None = None, **options: Any
) -> CurationReport:
    """Choose instructions (filter, drop duplicates, draw), write them, and return what became of each row.

    Args:
        sources: files, folders or Hub data sets.
        output: `.jsonl` or `.parquet` file to write.
        columns: what the columns mean.
        options: fields of `Curation` by name.

    Raises:
        DataError: the sources cannot be read, or nothing is left.
        StudyError: an option is wrong.
    """
    paths = [sources] if isinstance(sources, str | Path) else sources
    chosen = checked(Curation, options, where="curate_instructions")
    curated = curate(PromptSource.open(paths, columns or ReadOptions()), chosen)
    kept = [column for one in chosen.where for column in one.columns]
    write_prompts(curated, Path(output), fields=kept)
    return curated.report


def stored(
    store: str | Path = ".preceptor", identity: str = ""
) -> list[ScorePartition | ResponsePartition]:
    """Return what a store holds whose identity begins so: its kind, spec, keys and what was recorded."""
    found = Store(store).partitions()
    return [one for one in found if one.identity.digest.startswith(identity)]


def forget(identity: str, store: str | Path = ".preceptor") -> int:
    """Forget why rows of one identity have no result, so that they are tried again; return how many.

    Raises:
        StoreError: not exactly one identity begins so.
    """
    return only(identity, store).forget_notes()


def check_store(store: str | Path = ".preceptor", *, repair: bool = False) -> dict[str, Check]:
    """Verify every byte of a store; return by identity what was found.

    With `repair`, damaged shards are set aside: the next run computes or asks for what they held.

    Raises:
        StoreError: a newer version wrote a shard, or the disk refuses.
    """
    return {one.identity.digest: one.check(repair=repair) for one in stored(store)}


def prune_store(identity: str, store: str | Path = ".preceptor") -> None:
    """Remove all rows of one identity for good: they must be computed or paid for again.

    Raises:
        StoreError: not exactly one identity begins so.
    """
    only(identity, store).delete()


def only(identity: str, store: str | Path) -> ScorePartition | ResponsePartition:
    """Return the one identity of a store whose name begins so; StoreError where none or several do."""
    found = stored(store, identity)
    if len(found) != 1:
        held = ", ".join(one.identity.digest for one in stored(store)) or "nothing"
        raise StoreError(
            f"{len(found)} identities in '{store}' start with '{identity}': expected one. It holds {held}. "
            "`preceptor store list` says what they are, --store names another store."
        )
    return found[0]
