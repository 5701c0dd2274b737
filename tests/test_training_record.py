"""What a tuning is known by, and that a killed one goes on to the same weights."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from preceptor.engines.models import locate
from preceptor.errors import StoreError, StudyError
from preceptor.training.record import TrainingFolder, tuned_identity
from small_training import QUICK, uneven, write_data

pytestmark = pytest.mark.usefixtures("private_cache")

PATIENCE = 240.0
RECIPE = QUICK.model_copy(update={"dtype": "float32"})


def test_student_rows_recipe_and_template_name_a_tuning(tmp_path: Path, model_folder: Path):
    located, digest = locate(str(model_folder)), uneven(4).digest
    known = tuned_identity(located, digest, RECIPE)
    assert known == tuned_identity(located, digest, RECIPE)
    assert known.spec["student"] == dict(located.identity)
    others = (
        tuned_identity(located, uneven(5).digest, RECIPE),
        tuned_identity(located, digest, RECIPE.model_copy(update={"epochs": 3})),
        tuned_identity(located, digest, RECIPE.model_copy(update={"template": "gemma"})),
    )
    assert len({known.digest, *(other.digest for other in others)}) == 4


def test_a_template_that_is_not_known_is_refused_by_name(
    model_folder: Path,
):
    with pytest.raises(StudyError, match="No template 'gema'"):
        tuned_identity(
            locate(str(model_folder)), "0", RECIPE.model_copy(update={"template": "gema"})
        )


def test_a_checkpoint_counts_only_with_the_mark_of_its_end(tmp_path: Path):
    folder = TrainingFolder(tmp_path)
    for step in (2, 10, 12):
        (folder.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
    assert folder.newest_checkpoint() is None
    for step in (2, 10):
        folder.mark_whole(step)
    newest = folder.newest_checkpoint()
    assert newest is not None and newest.name == "checkpoint-10"
    folder.remove_torn()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "checkpoint-10",
        "checkpoint-2",
    ]


def test_a_damaged_record_is_an_error(tmp_path: Path, model_folder: Path):
    folder = TrainingFolder(tmp_path)
    folder.inner.mkdir()
    (folder.inner / "identity.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        folder.begin(tuned_identity(locate(str(model_folder)), "0", RECIPE))


class Runs:
    """The same tuning in processes of its own; all end with the test."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, output: Path) -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "preceptor", *self.words, "--output", str(output)]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process


@pytest.fixture
def runs(tmp_path: Path, model_folder: Path, request: pytest.FixtureRequest) -> Any:
    data = write_data(tmp_path / "rows.jsonl", uneven(48))
    # Dropout draws in every step, so that lost random states would show.
    words = ["train", str(data), "--student", str(model_folder), "--device", "cpu"]
    words += ["--batch", "4", "--epochs", "2", "--save-steps", "3", "--warmup-steps", "2"]
    words += ["--learning-rate", "1e-3", "--lora", "--lora-dropout", "0.2"]
    runs = Runs(words)
    yield runs
    for process in runs.processes:
        process.kill()
        process.communicate()


def stop_at(process: "subprocess.Popen[str]", output: Path, sent: signal.Signals) -> None:
    """Send a signal once a checkpoint is whole."""
    deadline = time.monotonic() + PATIENCE
    while TrainingFolder(output).newest_checkpoint() is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(sent)


def test_a_killed_tuning_goes_on_to_the_same_weights(tmp_path: Path, runs: Runs):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    killed = runs.start(rough)
    stop_at(killed, rough, signal.SIGKILL)
    killed.communicate()
    assert not (rough / "config.json").exists()

    interrupted = runs.start(rough)
    newest = TrainingFolder(rough).newest_checkpoint()
    assert newest is not None
    stop_at(interrupted, rough, signal.SIGINT)
    _, said = interrupted.communicate(timeout=PATIENCE)
    assert "Run the same command" in said or interrupted.returncode == 0, said

    for output in (rough, calm):
        process = runs.start(output)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
    logs = [
        json.loads((output / "training" / "finished.json").read_text()) for output in (calm, rough)
    ]
    assert [entry["step"] for entry in logs[1]["log"]] == list(range(1, 25))
    assert logs[0]["log"] == logs[1]["log"]
    for name in ("model.safetensors", "training/adapter/adapter_model.safetensors"):
        assert (calm / name).read_bytes() == (rough / name).read_bytes()
    assert not (rough / "training" / "checkpoints").exists()
