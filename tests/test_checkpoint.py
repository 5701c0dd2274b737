"""What a fine-tuned model is known by, and that a killed one goes on to the same weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.config.recipe import Lora
from preceptor.engines.models import locate
from preceptor.errors import StoreError, StudyError
from preceptor.finetuning.checkpoint import TrainingFolder, fine_tuned_identity
from preceptor.finetuning.trainer import Moment
from small_study import preceptor
from small_training import QUICK, log_of, tuned, uneven, write_data

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

PATIENCE = 240.0
RECIPE = QUICK.model_copy(update={"dtype": "float32"})


def test_student_rows_recipe_and_template_name_a_fine_tuned_model(
    tmp_path: Path, model_folder: Path
):
    located, digest = locate(str(model_folder)), uneven(4).digest
    known = fine_tuned_identity(located, digest, RECIPE)
    assert known == fine_tuned_identity(located, digest, RECIPE)
    assert known.spec["student"] == dict(located.identity)
    others = (
        fine_tuned_identity(located, uneven(5).digest, RECIPE),
        fine_tuned_identity(located, digest, RECIPE.model_copy(update={"epochs": 3})),
        fine_tuned_identity(located, digest, RECIPE.model_copy(update={"chat_template": "gemma"})),
    )
    assert len({known.digest, *(other.digest for other in others)}) == 4


def test_a_template_that_is_not_known_is_refused_by_name(
    model_folder: Path,
):
    with pytest.raises(StudyError, match="No template 'gema'"):
        fine_tuned_identity(
            locate(str(model_folder)), "0", RECIPE.model_copy(update={"chat_template": "gema"})
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
    with pytest.raises(StoreError, match="is not JSON"):
        folder.begin(fine_tuned_identity(locate(str(model_folder)), "0", RECIPE))


RESUMED = QUICK.model_copy(
    update={
        "batch_size": 4,
        "epochs": 3,
        "save_steps": 2,
        "warmup_steps": 2,
        "lora": Lora(dropout=0.2),
    }
)
"""Twelve steps; dropout draws in each, so that lost random states would show."""

KILLED = """
import os, signal, sys
from pathlib import Path
from preceptor.engines.models import locate
from preceptor.config.runtime import Runtime
from preceptor.finetuning.dataset import read_conversations
from preceptor.config.recipe import Recipe
from preceptor.finetuning.finetune import fine_tune

model, data, output, recipe = sys.argv[1:]

def strike(moment):
    if moment.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

fine_tune(locate(model), read_conversations([data]), Recipe.model_validate_json(recipe),
     output=Path(output), runtime=Runtime(device="cpu"), watch=strike)
"""
"""Kills itself in step 6, of which nothing is saved: no other process could strike at a sure step."""


def same_model(one: Path, other: Path) -> bool:
    names = ("model.safetensors", "training/adapter/adapter_model.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_killed_fine_tuning_goes_on_to_the_same_weights(tmp_path: Path, model_folder: Path):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    data = write_data(tmp_path / "rows.jsonl", uneven(16))
    words = [model_folder, data, rough, RESUMED.model_dump_json()]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)],
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    newest = TrainingFolder(rough).newest_checkpoint()
    assert newest is not None and newest.name == "checkpoint-4"
    assert not (rough / "config.json").exists()
    given = ["train", data, "--student", model_folder, "--device", "cpu"]
    given += ["--no-gradient-checkpointing"]
    given += ["--batch-size", "4", "--epochs", "3", "--save-steps", "2", "--warmup-steps", "2"]
    given += ["--learning-rate", "1e-3", "--lora", "--lora-dropout", "0.2", "--max-length", "256"]
    for output in (rough, calm):
        result = preceptor(*given, "--output", output)
        assert result.exit_code == 0, result.output
    assert [step["step"] for step in log_of(rough)] == list(range(1, 13))
    assert log_of(calm) == log_of(rough)
    assert same_model(calm, rough)
    assert not (rough / "training" / "checkpoints").exists()
    record = json.loads((rough / "training" / "finished.json").read_text())
    assert (record["steps_before"], record["steps"]) == (4, 12)


def test_an_interrupted_fine_tuning_keeps_its_step_and_goes_on(tmp_path: Path, model_folder: Path):
    def interrupt(moment: Moment) -> None:
        if moment.step == 2:
            signal.raise_signal(signal.SIGINT)

    located, output = locate(str(model_folder)), tmp_path / "out"
    recipe = QUICK.model_copy(update={"batch_size": 2, "lora": Lora(dropout=0.2)})
    with pytest.raises(KeyboardInterrupt):
        tuned(located, uneven(10), recipe, output=output, watch=interrupt)
    newest = TrainingFolder(output).newest_checkpoint()
    assert newest is not None and newest.name == "checkpoint-3"
    steps: list[int] = []
    tuned(
        located, uneven(10), recipe, output=output, watch=lambda moment: steps.append(moment.step)
    )
    assert steps == [4, 5]
    tuned(located, uneven(10), recipe, output=tmp_path / "calm")
    assert same_model(output, tmp_path / "calm")
