"""Fine-tuning on a CUDA device: whole models, adapters, and adapters over four-bit weights learn."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.config.recipe import Lora, Recipe
from preceptor.config.runtime import Runtime
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import locate
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.finetuning.dataset import conversations_of
from preceptor.finetuning.finetune import fine_tune
from small_training import QUICK, conversation, student

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.usefixtures("private_cache"),
    # What PEFT and transformers have to say to each other about a renamed setting.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]

ROWS = conversations_of([conversation("What is the sea?", "The sea is wide.")] * 2)
OFTEN = QUICK.model_copy(update={"epochs": 60, "batch_size": 2, "learning_rate": 1e-2})
KINDS: dict[str, dict[str, object]] = {
    "whole": {},
    "checkpointed": {"gradient_checkpointing": True},
    "adapters": {"lora": Lora()},
    "quantized": {"lora": Lora(), "load_in_4bit": True},
}


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_learns_and_is_written_in_bfloat16(
    kind: str, name: str, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
) -> None:
    if kind == "quantized" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    located = student(tmp_path / "student", name, make_model, tokenizer)
    runtime = Runtime(device="cuda")
    recipe: Recipe = OFTEN.model_copy(update=KINDS[kind]).on(runtime)
    result = fine_tune(located, ROWS, recipe, output=tmp_path / "out", runtime=runtime)
    assert result.last_loss < 0.8 * result.first_loss
    model = load_model(locate(str(result.folder)), dtype="bfloat16", device="cuda")
    assert load_tokenizer(locate(str(result.folder))).chat_template
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    assert TransformersLikelihood(model).packed
