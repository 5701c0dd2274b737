"""What fine-tuning would take: counts that are exact, and memory that follows from what is held."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preceptor.config.recipe import Lora, Recipe, steps_of
from preceptor.engines.loading import load_model
from preceptor.engines.models import locate
from preceptor.errors import StudyError
from preceptor.finetuning import estimate as estimate
from preceptor.finetuning.estimate import disk_of, estimate_of, memory_of, require_room
from preceptor.finetuning.prepared import prepare
from preceptor.finetuning.weights import Size, adapters, size_of
from small_training import CPU, QUICK, student, uneven

pytestmark = pytest.mark.usefixtures("private_cache")

EIGHT = Size(parameters=8_000_000_000, trained=8_000_000_000, layers=32, width=4096)
FEW = Size(parameters=8_000_000_000, trained=40_000_000, layers=32, width=4096)
BFLOAT = Recipe(dtype="bfloat16")


def test_all_weights_take_sixteen_bytes_each():
    # float32 weights, gradients and two moments: 4 + 4 + 8 (Rajbhandari et al. 2020, section 3.1).
    held = memory_of(BFLOAT, EIGHT, longest=4096)
    state = held["weights"] + held["gradients"] + held["moments"]
    assert state == 16 * EIGHT.parameters


def test_adapters_and_four_bits_save_what_they_should():
    lora = BFLOAT.model_copy(update={"lora": Lora()})
    four = lora.model_copy(update={"load_in_4bit": True})
    assert memory_of(lora, FEW, longest=1)["weights"] == 2 * FEW.parameters + 4 * FEW.trained
    assert memory_of(lora, FEW, longest=1)["moments"] == 8 * FEW.trained
    assert memory_of(four, FEW, longest=1)["weights"] < 5_000_000_000


def test_checkpointing_and_shorter_rows_save_activations():
    kept = BFLOAT.model_copy(update={"gradient_checkpointing": False})
    long = memory_of(BFLOAT, EIGHT, longest=4096)["activations"]
    assert long < memory_of(kept, EIGHT, longest=4096)["activations"]
    assert memory_of(BFLOAT, EIGHT, longest=512)["activations"] < long


# What PEFT and transformers have to say to each other about a renamed setting.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("lora", [None, Lora(), Lora(rank=3, targets=("q_proj", "down_proj"))])
def test_the_parameters_are_those_that_are_trained(
    lora: Lora | None, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
):
    from peft import get_peft_model

    located = student(tmp_path / "student", "llama", make_model, tokenizer)
    recipe = QUICK.model_copy(update={"lora": lora})
    model = load_model(located, dtype="float32", device="cpu")
    size = size_of(located, recipe)
    assert size.parameters == model.num_parameters()
    settings = adapters(recipe)
    tuned = model if settings is None else get_peft_model(model, settings)
    assert size.trained == sum(one.numel() for one in tuned.parameters() if one.requires_grad)
    assert (size.layers, size.width) == (3, 32)


def test_rows_tokens_and_steps_are_told(model_folder: Path):
    prepared = prepare(locate(str(model_folder)), uneven(20), QUICK, runtime=CPU)
    found = estimate_of(prepared, {"no assistant turn": 2})
    said = "\n".join(found.lines())
    assert found.rows == 20 and found.tokens == prepared.rows.tokens
    assert "20 rows, " in said and "3 steps, 3 per epoch, 1 of them warm-up; 8 x 1" in said
    assert "left out: 2 (no assistant turn)" in said
    assert found.warning is None and "warning" not in said


def test_a_full_disk_is_told_of_before_anything_is_trained(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    prepared = prepare(locate(str(model_folder)), uneven(8), QUICK, runtime=CPU)
    found = estimate_of(prepared, {})
    require_room(found, tmp_path / "not" / "yet" / "there")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _path: SimpleNamespace(free=10))
    with pytest.raises(StudyError, match=r"0\.0 GiB free.*train with lora"):
        require_room(found, tmp_path)


def test_the_disk_holds_three_checkpoints_at_most():
    few = disk_of(BFLOAT, EIGHT, steps=steps_of(BFLOAT, 1600))
    many = disk_of(BFLOAT, EIGHT, steps=steps_of(BFLOAT, 100_000))
    assert few == 12 * EIGHT.parameters + 4 * EIGHT.parameters
    assert many == 3 * 12 * EIGHT.parameters + 4 * EIGHT.parameters
