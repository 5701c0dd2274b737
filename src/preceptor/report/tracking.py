"""Send a ranking to an experiment tracker by its own library: numbers and settings, to MLflow the JSON too.

Where they go is the library's to know: MLFLOW_TRACKING_URI, WANDB_MODE, TRACKIO_DIR and the like. A teacher's
numbers stand under its name, as `teacher/car`; the project, or experiment, is called preceptor.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from textwrap import shorten
from typing import Any, NamedTuple

from preceptor.config.secrets import without_secrets
from preceptor.errors import PreceptorError, require
from preceptor.ranking.result import Ranking

PROJECT = "preceptor"
_LONGEST = 500
"""Characters of a setting: MLflow's oldest limit."""


class _Run(NamedTuple):
    """What is logged: plain settings, finite numbers by name, and all of it as JSON's values."""

    name: str
    settings: dict[str, Any]
    numbers: dict[str, float]
    whole: dict[str, Any]


def log_ranking(ranking: Ranking, tracker: str, *, quiet: bool = False) -> None:
    """Log a ranking as one run.

    Args:
        ranking: the ranking.
        tracker: mlflow, trackio or wandb.
        quiet: keep what the library says of itself from standard error; its errors are raised.

    Raises:
        MissingPackage: its library is not installed.
        PreceptorError: the library refused; its own words are in the message.
    """
    require_tracker(tracker)
    said = io.StringIO() if quiet else sys.stderr
    try:
        with redirect_stdout(said), redirect_stderr(said):  # it is no part of the result
            TRACKERS[tracker](_run_of(ranking))
    except (
        Exception
    ) as error:  # each library raises errors of its own, of its server and of the network
        why = shorten(str(error), 300, placeholder=" ...")
        raise PreceptorError(
            f"The ranking is done, and {tracker} did not take it ({type(error).__name__}): {why}\n"
            f"{_place(tracker)}Mend that and run the same command again: nothing is computed twice."
        ) from error


def _place(tracker: str) -> str:
    """Return how to say where MLflow keeps runs, if nothing says it: the skinny one has no database."""
    if tracker != "mlflow" or os.environ.get("MLFLOW_TRACKING_URI"):
        return ""
    return (
        "MLFLOW_TRACKING_URI names the server; for a folder: MLFLOW_TRACKING_URI=./mlruns "
        "MLFLOW_ALLOW_FILE_STORE=true. "
    )


def require_tracker(tracker: str) -> None:
    """Check, before anything is spent, that the tracker's library is installed; else MissingPackage."""
    require(tracker, purpose=f"Logging to {tracker}")


def _run_of(ranking: Ranking) -> _Run:
    whole: dict[str, Any] = json.loads(without_secrets(ranking.to_json()))
    settings = {"by": whole["by"], "student": whole["student"], "claim": whole["verdict"]["claim"]}
    settings |= {"leader": whole["verdict"]["teacher"], "instructions": whole["instructions"]}
    settings |= _flat(whole["settings"])
    names = _distinct([one["teacher"] for one in whole["teachers"]])
    numbers: dict[str, float] = {}
    for name, one in zip(names, whole["teachers"], strict=True):
        held = {"rank": one["rank"], "p_first": one["p_best"], "n": one["n"]}
        held |= {metric: estimate["value"] for metric, estimate in one["estimates"].items()}
        numbers |= {f"{name}/{key}": float(x) for key, x in held.items() if x is not None}
    reward = whole["settings"].get("reward")
    title = f"{whole['student']}, {reward}" if reward else str(whole["student"])
    return _Run(title, settings, numbers, whole)


def _flat(held: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings under names with dots; lists as JSON, long texts cut."""
    found: dict[str, Any] = {}
    for name, value in held.items():
        key = before + _key(name)
        if isinstance(value, Mapping):
            found |= _flat(value, f"{key}.")
        elif isinstance(value, list):
            found[key] = json.dumps(value, ensure_ascii=False)[:_LONGEST]
        else:
            found[key] = value[:_LONGEST] if isinstance(value, str) else value
    return found


def _key(name: str) -> str:
    """Return a name of the letters that every tracker takes."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", name)[:100]


def _distinct(names: list[str]) -> list[str]:
    """Return the keys of the names, those that meet in one apart by a number."""
    keys: list[str] = []
    for name in names:
        key, count = _key(name), 1
        while key in keys:
            count += 1
            key = f"{_key(name)}-{count}"
        keys.append(key)
    return keys


def _to_mlflow(run: _Run) -> None:
    import mlflow

    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run.name):
        mlflow.log_params(run.settings)
        mlflow.log_metrics(run.numbers)
        mlflow.log_dict(run.whole, "ranking.json")


def _to_trackio(run: _Run) -> None:
    import trackio

    trackio.init(project=PROJECT, name=run.name, config=run.settings)
    trackio.log(run.numbers)
    trackio.finish()


def _to_wandb(run: _Run) -> None:
    import wandb

    with wandb.init(project=PROJECT, name=run.name, config=run.settings) as ours:
        ours.log(run.numbers)


TRACKERS: Mapping[str, Callable[[_Run], None]] = {
    "mlflow": _to_mlflow,
    "trackio": _to_trackio,
    "wandb": _to_wandb,
}
"""What sends a run, by the name of the library."""
