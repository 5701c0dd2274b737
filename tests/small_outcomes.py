"""Outcomes of small studies: scored once, so that what a report gathers of them costs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.load import open_data
from preceptor.pipeline.rank import Outcome, outcomes
from preceptor.pipeline.score import Silent


def outcomes_of(study: Study, runtime: Runtime) -> list[Outcome]:
    """Carry a study out and return its outcomes."""
    return list(outcomes(open_data(study, runtime, Silent()), study, runtime))


def scored(files: Sequence[Path], store: Path, **options: Any) -> list[Outcome]:
    """Rank files as `api.rank_all` does, with few draws, and return the outcomes."""
    given = {"device": "cpu", "n_resamples": 200, "store": str(store), **options}
    return outcomes_of(*api.study_of(files, **given))
