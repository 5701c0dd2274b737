"""Find the right teacher for your base model before you pay for fine-tuning.

`rank` is the main job. Names are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preceptor.api import rank, rank_all, run_study, study_of
    from preceptor.config.data import ReadOptions
    from preceptor.config.runtime import Runtime
    from preceptor.config.study import Study, StudyFile
    from preceptor.errors import (
        DataError,
        MissingPackage,
        ModelError,
        PreceptorError,
        StoreError,
        StudyError,
    )
    from preceptor.ranking.metrics import Metric
    from preceptor.ranking.result import Ranking
    from preceptor.report.charts.parts import Chart
    from preceptor.types import Estimate, Instruction, Message, Response, Score

__version__ = "0.1.0"

_HOMES = {
    "Chart": "report.charts.parts",
    "DataError": "errors",
    "Estimate": "types",
    "Instruction": "types",
    "Runtime": "config.runtime",
    "Message": "types",
    "Metric": "ranking.metrics",
    "MissingPackage": "errors",
    "ModelError": "errors",
    "PreceptorError": "errors",
    "Ranking": "ranking.result",
    "ReadOptions": "config.data",
    "Response": "types",
    "Score": "types",
    "StoreError": "errors",
    "Study": "config.study",
    "StudyError": "errors",
    "StudyFile": "config.study",
    "rank": "api",
    "rank_all": "api",
    "run_study": "api",
    "study_of": "api",
}

__all__ = [
    "Chart",
    "DataError",
    "Estimate",
    "Instruction",
    "Message",
    "Metric",
    "MissingPackage",
    "ModelError",
    "PreceptorError",
    "Ranking",
    "ReadOptions",
    "Response",
    "Runtime",
    "Score",
    "StoreError",
    "Study",
    "StudyError",
    "StudyFile",
    "rank",
    "rank_all",
    "run_study",
    "study_of",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'preceptor' has no attribute '{name}'")
    return getattr(import_module(f"preceptor.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
