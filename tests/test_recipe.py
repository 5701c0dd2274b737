"""The recipe: the paper's numbers, one step on any number of devices, and what names a fine-tuned model."""

import pytest

from preceptor.config.base import checked
from preceptor.config.recipe import Lora, Recipe, steps_of, warmup_caution
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError


def test_the_defaults_are_the_papers():
    # Xu et al. 2025, table 5; two epochs and 2e-5 also in section 3.2.
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.epochs, recipe.batch_size) == (2e-5, 2, 32)
    assert (recipe.per_device_batch_size, recipe.warmup_steps, recipe.max_length) == (1, 100, 4096)
    assert steps_of(recipe, 100_000, devices=4).accumulation == 8


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_a_step_has_as_many_rows_on_any_number_of_devices(devices: int):
    steps = steps_of(Recipe(), 1000, devices=devices)
    assert steps.accumulation * devices == 32
    assert (steps.per_epoch, steps.total) == (32, 64)


def test_rows_that_cannot_be_shared_out_are_refused_with_what_fits():
    with pytest.raises(StudyError, match=r"3 device\(s\).*1, 2, 4, 8, 16, 32"):
        steps_of(Recipe(), 1000, devices=3)


def test_a_warm_up_longer_than_the_training_is_told_of_and_a_share_is_not():
    caution = warmup_caution(steps_of(Recipe(), 320))
    assert caution is not None and "100 steps and the training has 20" in caution
    short = steps_of(Recipe(warmup_ratio=0.1), 320)
    assert short.warmup == 2
    assert warmup_caution(short) is None
    assert warmup_caution(steps_of(Recipe(), 100_000)) is None


def test_what_only_changes_speed_does_not_enter_the_identity():
    recipe = Recipe(dtype="float32")
    how = {
        "per_device_batch_size": 4,
        "gradient_checkpointing": False,
        "save_steps": 5,
        "attention": "sdpa",
    }
    assert recipe.model_copy(update=how).identity() == recipe.identity()


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-5},
        {"batch_size": 16},
        {"seed": 1},
        {"lora": Lora()},
        {"dtype": "bfloat16"},
    ],
)
def test_what_changes_the_weights_enters_the_identity(change: dict[str, object]):
    recipe = Recipe(dtype="float32")
    assert recipe.model_copy(update=change).identity() != recipe.identity()


def test_every_field_enters_the_identity_or_is_known_not_to():
    outside = {
        "attention",
        "per_device_batch_size",
        "gradient_checkpointing",
        "save_steps",
        "chat_template",
    }
    renamed = {"batch_size": "batch", "warmup_ratio": "warmup_share", "load_in_4bit": "quantized"}
    fields = {renamed.get(name, name) for name in Recipe.model_fields}
    assert fields - Recipe(dtype="float32").identity().keys() == outside


def test_an_unresolved_data_type_has_no_identity():
    with pytest.raises(StudyError, match="auto"):
        Recipe().identity()
    assert Recipe().on(Runtime(device="cpu")).dtype == "float32"
    assert Recipe().on(Runtime(device="cuda")).dtype == "bfloat16"


def test_quantized_weights_need_adapters_and_wrong_fields_are_named():
    with pytest.raises(StudyError, match="set lora too"):
        checked(Recipe, {"load_in_4bit": True}, where="train")
    with pytest.raises(StudyError, match="learning_rate"):
        checked(Recipe, {"learning_rates": 1}, where="train")
    with pytest.raises(StudyError, match="no multiple"):
        checked(Recipe, {"batch_size": 32, "per_device_batch_size": 3}, where="train")
