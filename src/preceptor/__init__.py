"""Find the right teacher for your base model before you pay for fine-tuning.

`rank` is the main job. Names are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preceptor.api import (
        export,
        generate,
        plan,
        push,
        rank,
        rank_all,
        run_study,
        study_of,
        study_report,
        validate,
    )
    from preceptor.benchmarks.answers import answers_in
    from preceptor.benchmarks.base import Benchmark
    from preceptor.benchmarks.questions import Answers, QuestionSet
    from preceptor.config.data import ReadOptions
    from preceptor.config.runtime import Endpoint, Runtime
    from preceptor.config.study import Student, Study, StudyFile
    from preceptor.config.teachers import Teacher, TeacherPoint
    from preceptor.data.layouts import Layout
    from preceptor.engines.base import (
        ChatRequest,
        Completion,
        Failure,
        Finished,
        Likelihood,
        Measured,
        TokenizedPair,
        TokenStatistics,
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
    from preceptor.ranking.result import Ranking
    from preceptor.ranking.warnings import Warning
    from preceptor.report.charts.parts import Chart
    from preceptor.report.data import RankingData
    from preceptor.scorers.base import Scorer
    from preceptor.store.identity import Identity
    from preceptor.teachers.base import TeacherBackend
    from preceptor.types import Estimate, Instruction, Message, Response, Score

__version__ = "0.1.0"

_HOMES = {
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
    "Ranking": "ranking.result",
    "RankingData": "report.data",
    "RankingOptions": "ranking.options",
    "ReadOptions": "config.data",
    "Response": "types",
    "Runtime": "config.runtime",
    "Score": "types",
    "Scorer": "scorers.base",
    "StoreError": "errors",
    "Student": "config.study",
    "Study": "config.study",
    "StudyError": "errors",
    "StudyFile": "config.study",
    "Teacher": "config.teachers",
    "TeacherBackend": "teachers.base",
    "TeacherPoint": "config.teachers",
    "TeacherResult": "ranking.places",
    "TokenStatistics": "engines.base",
    "TokenizedPair": "engines.base",
    "Warning": "ranking.warnings",
    "answers_in": "benchmarks.answers",
    "export": "api",
    "generate": "api",
    "plan": "api",
    "push": "api",
    "rank": "api",
    "rank_all": "api",
    "run_study": "api",
    "study_of": "api",
    "study_report": "api",
    "validate": "api",
}

__all__ = [
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
    "Ranking",
    "RankingData",
    "RankingOptions",
    "ReadOptions",
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
    "TokenStatistics",
    "TokenizedPair",
    "Warning",
    "answers_in",
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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'preceptor' has no attribute '{name}'")
    return getattr(import_module(f"preceptor.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
