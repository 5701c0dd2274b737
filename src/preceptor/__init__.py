"""Find the right teacher for your base model before you pay for fine-tuning.

`rank` is the main job. Names are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preceptor.api import (
        check_store,
        curate_instructions,
        evaluate,
        export_dataset,
        forget,
        generate,
        measure_agreement,
        plan,
        prune_store,
        push,
        rank,
        rank_all,
        run,
        stored,
        study_of,
        study_report,
        tokens,
        train,
        validate,
    )
    from preceptor.benchmarks.answers import answers_in
    from preceptor.benchmarks.base import Benchmark
    from preceptor.benchmarks.general_ability import measure_ability
    from preceptor.benchmarks.questions import Answers, QuestionSet
    from preceptor.config.ability import AbilityOptions
    from preceptor.config.data import ReadOptions
    from preceptor.config.recipe import Recipe
    from preceptor.config.runtime import Endpoint, Runtime
    from preceptor.config.schema import study_schema, write_start
    from preceptor.config.student import Student
    from preceptor.config.study import Study, StudyFile, read_catalogue
    from preceptor.config.teachers import Teacher, TeacherPoint
    from preceptor.data.layouts import Layout
    from preceptor.demo import demo_files
    from preceptor.engines.base import (
        ChatRequest,
        Completion,
        Failure,
        Finished,
        Likelihood,
        Measured,
        TokenizedPair,
    )
    from preceptor.errors import (
        DataError,
        MissingPackage,
        ModelError,
        PreceptorError,
        StoreError,
        StudyError,
    )
    from preceptor.ranking.metrics import Metric
    from preceptor.ranking.options import RankingOptions
    from preceptor.ranking.places import TeacherResult
    from preceptor.ranking.race.options import RaceOptions
    from preceptor.ranking.race.result import RaceResult
    from preceptor.ranking.result import Ranking
    from preceptor.report.charts.parts import Chart
    from preceptor.report.data import RankingData
    from preceptor.scorers.base import Scorer
    from preceptor.store.identity import Identity
    from preceptor.studies.findings import findings
    from preceptor.studies.outcomes import outcome_findings
    from preceptor.teachers.base import TeacherBackend
    from preceptor.types import Estimate, Instruction, Message, Response, Score, Warning

__version__ = "0.1.0"

_HOMES = {
    "AbilityOptions": "config.ability",
    "Answers": "benchmarks.questions",
    "Benchmark": "benchmarks.base",
    "Chart": "report.charts.parts",
    "ChatRequest": "engines.base",
    "Completion": "engines.base",
    "DataError": "errors",
    "Endpoint": "config.runtime",
    "Estimate": "types",
    "Failure": "engines.base",
    "Finished": "engines.base",
    "Identity": "store.identity",
    "Instruction": "types",
    "Layout": "data.layouts",
    "Likelihood": "engines.base",
    "Measured": "engines.base",
    "Message": "types",
    "Metric": "ranking.metrics",
    "MissingPackage": "errors",
    "ModelError": "errors",
    "PreceptorError": "errors",
    "QuestionSet": "benchmarks.questions",
    "RaceOptions": "ranking.race.options",
    "RaceResult": "ranking.race.result",
    "Ranking": "ranking.result",
    "RankingData": "report.data",
    "RankingOptions": "ranking.options",
    "ReadOptions": "config.data",
    "Recipe": "config.recipe",
    "Response": "types",
    "Runtime": "config.runtime",
    "Score": "types",
    "Scorer": "scorers.base",
    "StoreError": "errors",
    "Student": "config.student",
    "Study": "config.study",
    "StudyError": "errors",
    "StudyFile": "config.study",
    "Teacher": "config.teachers",
    "TeacherBackend": "teachers.base",
    "TeacherPoint": "config.teachers",
    "TeacherResult": "ranking.places",
    "TokenizedPair": "engines.base",
    "Warning": "types",
    "answers_in": "benchmarks.answers",
    "check_store": "api",
    "curate_instructions": "api",
    "demo_files": "demo",
    "evaluate": "api",
    "export_dataset": "api",
    "findings": "studies.findings",
    "forget": "api",
    "generate": "api",
    "measure_ability": "benchmarks.general_ability",
    "measure_agreement": "api",
    "outcome_findings": "studies.outcomes",
    "plan": "api",
    "prune_store": "api",
    "push": "api",
    "rank": "api",
    "rank_all": "api",
    "read_catalogue": "config.study",
    "run": "api",
    "stored": "api",
    "study_of": "api",
    "study_report": "api",
    "study_schema": "config.schema",
    "tokens": "api",
    "train": "api",
    "validate": "api",
    "write_start": "config.schema",
}

__all__ = [
    "AbilityOptions",
    "Answers",
    "Benchmark",
    "Chart",
    "ChatRequest",
    "Completion",
    "DataError",
    "Endpoint",
    "Estimate",
    "Failure",
    "Finished",
    "Identity",
    "Instruction",
    "Layout",
    "Likelihood",
    "Measured",
    "Message",
    "Metric",
    "MissingPackage",
    "ModelError",
    "PreceptorError",
    "QuestionSet",
    "RaceOptions",
    "RaceResult",
    "Ranking",
    "RankingData",
    "RankingOptions",
    "ReadOptions",
    "Recipe",
    "Response",
    "Runtime",
    "Score",
    "Scorer",
    "StoreError",
    "Student",
    "Study",
    "StudyError",
    "StudyFile",
    "Teacher",
    "TeacherBackend",
    "TeacherPoint",
    "TeacherResult",
    "TokenizedPair",
    "Warning",
    "answers_in",
    "check_store",
    "curate_instructions",
    "demo_files",
    "evaluate",
    "export_dataset",
    "findings",
    "forget",
    "generate",
    "measure_ability",
    "measure_agreement",
    "outcome_findings",
    "plan",
    "prune_store",
    "push",
    "rank",
    "rank_all",
    "read_catalogue",
    "run",
    "stored",
    "study_of",
    "study_report",
    "study_schema",
    "tokens",
    "train",
    "validate",
    "write_start",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'preceptor' has no attribute '{name}'")
    return getattr(import_module(f"preceptor.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
