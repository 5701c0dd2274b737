"""Outcomes of small studies: scored once, so that what a report gathers of them costs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.outcome import Outcome
from preceptor.pipeline.pipeline import Pipeline


def outcomes_of(study: Study, runtime: Runtime) -> list[Outcome]:
    """Carry a study out and return its outcomes."""
    return list(Pipeline(study, runtime).outcomes())


def scored(files: Sequence[Path], store: Path, **options: Any) -> list[Outcome]:
    """Rank files as `api.rank_all` does, with few draws, and return the outcomes."""
    given = {"device": "cpu", "n_resamples": 200, "store": str(store), **options}
    given["no_student"] = "students" not in options
    return outcomes_of(*api.study_of(files, **given))
