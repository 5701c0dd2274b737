"""`--log-to`: what an experiment tracker is sent, by its own library where that is installed."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preceptor.errors import MissingPackage, PreceptorError
from preceptor.report import tracking
from preceptor.report.tracking import TRACKERS, log_ranking
from small_study import preceptor, ranking_of, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be sent, in place of a library that may not be installed."""
    runs: list[Any] = []
    monkeypatch.setattr(tracking, "require_tracker", lambda tracker: None)
    monkeypatch.setattr(tracking, "TRACKERS", dict.fromkeys(TRACKERS, runs.append))
    return runs


def test_means_p_first_and_settings_are_sent_under_the_names_of_teachers(
    tmp_path: Path, sent: list[Any]
):
    ranking = ranking_of(tmp_path)
    log_ranking(ranking, "mlflow")
    (run,) = sent
    for one in ranking.teachers:
        assert run.numbers[f"{one.teacher}/reward"] == one.estimates["reward"].value
        assert run.numbers[f"{one.teacher}/p_first"] == one.p_best
        assert run.numbers[f"{one.teacher}/rank"] == one.rank
    assert run.settings["leader"] == ranking.best.teacher
    assert run.settings["seed"] == ranking.settings["seed"]
    assert run.whole["schema_version"] == 1
    assert all(isinstance(x, str | int | float | None) for x in run.settings.values())


def test_names_that_a_tracker_would_not_take_stay_apart_and_no_number_is_made_up(
    tmp_path: Path, sent: list[Any]
):
    ranking = ranking_of(tmp_path)
    first, second = ranking.teachers
    nan = replace(first.estimates["reward"], value=float("nan"))
    alike = (
        replace(first, teacher="a/b:c", estimates={**first.estimates, "reward": nan}),
        replace(second, teacher="a_b@c"),
    )
    log_ranking(replace(ranking, teachers=alike), "wandb")
    (run,) = sent
    assert "a_b_c/reward" not in run.numbers
    assert run.numbers["a_b_c-2/reward"] == second.estimates["reward"].value


def test_what_a_library_prints_stays_out_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[Any]
):
    def talk(run: Any) -> None:
        print(f"* project of {run.name} initialized")

    monkeypatch.setitem(tracking.TRACKERS, "trackio", talk)  # type: ignore[arg-type]
    files = write_teachers(tmp_path)
    given = ("--reward-column", "reward", "--store", tmp_path / "store", "--log-to", "trackio")
    result = preceptor("rank", *files, *given, "--json", "-")
    assert result.exit_code == 0 and "initialized" in result.stderr
    assert json.loads(result.stdout)
    silent = preceptor("--quiet", "rank", *files, "--no-student", *given, "--json", "-")
    assert silent.exit_code == 0, silent.stderr
    assert silent.stdout == result.stdout and not silent.stderr


def test_what_a_tracker_refuses_is_said_and_a_library_that_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[Any]
):
    def refuse(run: Any) -> None:
        raise ConnectionError("no such server")

    monkeypatch.setitem(tracking.TRACKERS, "trackio", refuse)  # type: ignore[arg-type]
    with pytest.raises(PreceptorError, match=r"trackio did not take it .*no such server"):
        log_ranking(ranking_of(tmp_path), "trackio")
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", refuse)  # type: ignore[arg-type]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        PreceptorError, match=r"no such server\nMLFLOW_TRACKING_URI names the server"
    ):
        log_ranking(ranking_of(tmp_path), "mlflow")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackage, match=r"preceptor\[wandb\]"):
        log_ranking(ranking_of(tmp_path), "wandb")


def test_a_library_that_lacks_is_said_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    store = tmp_path / "store"
    files = write_teachers(tmp_path)
    result = preceptor("rank", *files, "--store", store, "--log-to", "mlflow")
    assert result.exit_code == 1 and "preceptor[mlflow]" in result.stderr
    assert not store.exists()
    raced = preceptor("rank", *files, "--store", store, "--race", "--log-to", "mlflow")
    assert raced.exit_code == 2 and "a race or a shard makes none" in raced.stderr


def test_mlflow_keeps_a_run_that_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"file://{tmp_path}/runs")
    files = write_teachers(tmp_path)
    given = ("--reward-column", "reward", "--store", "store", "--log-to", "mlflow")
    result = preceptor("rank", *files, *given)
    assert result.exit_code == 0, result.output
    (run,) = mlflow.search_runs(experiment_names=["preceptor"], output_format="list")
    assert run.data.params["by"] == "reward" and run.data.params["leader"] == "beta"
    assert run.data.metrics["beta/rank"] == 1 and 0 < run.data.metrics["alpha/p_first"] < 1
    assert list(tmp_path.rglob("ranking.json"))


def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    log_ranking(ranking_of(tmp_path), "wandb")
    assert list(tmp_path.rglob("*.wandb"))


def test_trackio_keeps_a_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("trackio", reason="the extra 'trackio' is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "runs"))
    log_ranking(ranking_of(tmp_path), "trackio")
    assert any(os.path.getsize(one) for one in (tmp_path / "runs").rglob("*.db"))
