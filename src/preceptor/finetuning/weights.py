"""The student's weights: loaded to be trained, measured before, and written as a model that answers.

What is written must give back in chat exactly what was trained. So it carries the template it was trained
under, begins with the beginning token it saw, and stops at the token that ended its turns.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from preceptor.config.recipe import Recipe
from preceptor.engines.loading import (
    is_sharded,
    load_tokenizer,
    load_weights,
    quieten_loading,
    require_causal,
)
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import ChatTemplate
from preceptor.errors import ModelError, StudyError, nearest, require
from preceptor.finetuning.checkpoint import disk_error
from preceptor.finetuning.labels import end_token
from preceptor.types import Message

logger = logging.getLogger(__name__)

_ONE_USER_TURN = (Message("user", "INSTRUCTION"),)
_LEFT_BY_TRAINERS = ("training_args.bin", "README.md")


@dataclass(frozen=True)
class Size:
    """Numbers of parameters: all, and those that are trained; and the shape that activations have."""

    parameters: int
    trained: int
    layers: int
    width: int


def load_student(located: LocatedModel, recipe: Recipe) -> Any:
    """Return the causal language model, ready to be trained, on the CPU (on its GPU if quantized).

    All weights are float32 where all are trained, because steps of 2e-5 are lost in bfloat16; frozen ones
    beside adapters are in the recipe's dtype, or in 4 bits.

    Raises:
        ModelError: the weights cannot be used.
    """
    import torch

    dtype = getattr(torch, recipe.dtype) if recipe.lora else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if recipe.attention != "auto":
        options["attn_implementation"] = recipe.attention
    if recipe.load_in_4bit:
        options |= _quantized()
    model = load_weights("AutoModelForCausalLM", located, **options)
    if not is_sharded():
        require_causal(model, located)
    return model


def require_savable(model: Any, tokenizer: Any, located: LocatedModel) -> None:
    """Try, before the first step, what is saved after the last: the configs and the tokenizer.

    Raises:
        ModelError: one of them cannot be saved, or the tokenizer has more tokens than the model.
    """
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer of '{located.name}' has {len(tokenizer):,} tokens and the model's embedding "
            f"{rows:,} rows: expected no more tokens than rows. Give the tokenizer of these weights."
        )
    parts = {
        "tokenizer": tokenizer,
        "config (config.json)": model.config,
        "generation config (generation_config.json)": getattr(model, "generation_config", None),
    }
    for name, part in parts.items():
        try:
            with TemporaryDirectory() as folder:
                if part is not None:
                    part.save_pretrained(folder)
        except Exception as error:  # whatever a library of tokenizers raises
            reason = " ".join(str(error).split())
            raise ModelError(
                f"The {name} of '{located.name}' cannot be saved, so nothing that is trained could be: "
                f"{reason} Repair the model's files."
            ) from error


def require_quantization() -> None:
    """Check that 4-bit weights can be used here.

    Raises:
        StudyError: there is no CUDA device, or no bitsandbytes.
    """
    import torch

    if not torch.cuda.is_available():
        raise StudyError(
            f"load_in_4bit = true needs a CUDA device, and this PyTorch ({torch.__version__}) has none. "
            "Leave it out and train with lora alone, or run on a machine with an NVIDIA GPU."
        )
    if find_spec("bitsandbytes") is None:
        raise StudyError(
            "load_in_4bit = true needs the package 'bitsandbytes', which is not installed. Install it with: "
            "pip install bitsandbytes"
        )


def _quantized() -> dict[str, Any]:
    """Return the options of QLoRA (Dettmers et al. 2023): normal floats, quantized twice."""
    import os

    import torch
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {
        "quantization_config": settings,
        "device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))},
    }


def size_of(located: LocatedModel, recipe: Recipe) -> Size:
    """Return how many parameters there are and are trained, without loading or fetching weights.

    ModelError where the config cannot be read; StudyError where an adapter is wanted beside no layer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    quieten_loading()
    try:
        config = AutoConfig.from_pretrained(located.folder, trust_remote_code=False)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"The config of '{located.name}' cannot be used: {error}") from error
    own = config.get_text_config()
    parameters = model.num_parameters()
    return Size(
        parameters=parameters,
        trained=_adapter_parameters(model, recipe) if recipe.lora else parameters,
        layers=own.num_hidden_layers,
        width=own.hidden_size,
    )


def _adapter_parameters(model: Any, recipe: Recipe) -> int:
    """Return the parameters of the adapters: two thin matrices beside each chosen layer."""
    assert recipe.lora is not None
    _require_layers(model, recipe.lora.targets)
    head = model.get_output_embeddings()
    found = 0
    for name, module in model.named_modules():
        chosen = not recipe.lora.targets or name.rpartition(".")[2] in recipe.lora.targets
        shape: Any = getattr(getattr(module, "weight", None), "shape", ())
        is_linear = type(module).__name__ in ("Linear", "Conv1D")
        if chosen and is_linear and module is not head and len(shape) == 2:
            found += recipe.lora.rank * (shape[0] + shape[1])
    return found


def _require_layers(model: Any, targets: Sequence[str]) -> None:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules() if name}
    linear = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
        }
    )
    for target in targets:
        if target not in names:
            raise StudyError(
                f"The student has no layer '{target}' to put an adapter beside. Its linear ones: "
                f"{', '.join(linear)}.{nearest(target, names)}"
            )


def adapters(recipe: Recipe) -> Any:
    """Return PEFT's config of the recipe's adapters, or None where all weights are trained."""
    if recipe.lora is None:
        return None
    require("peft", purpose="Training adapters")
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=list(recipe.lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )


def merge_adapter(located: LocatedModel, recipe: Recipe, *, adapter: Path, draft: Path) -> None:
    """Write the student's weights with the saved adapter added to them, in the recipe's dtype.

    They are loaded afresh: weights in 4 bits, or sharded ones, cannot be added to.
    """
    import torch
    from peft import PeftModel

    dtype = getattr(torch, recipe.dtype)
    base = load_weights("AutoModelForCausalLM", located, dtype=dtype)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(draft)


def dress(draft: Path, located: LocatedModel, template: ChatTemplate, *, dtype: str) -> None:
    """Make saved weights a model that answers in chat: tokenizer, template, end tokens, dtype.

    Raises:
        StoreError: the disk refuses.
    """
    from transformers import GenerationConfig

    tokenizer = load_tokenizer(located)
    end = end_token(tokenizer, template)
    tokenizer.chat_template = chat_template(tokenizer, template)
    ends = dict.fromkeys([end, *_own_ends(located, tokenizer)])
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(ends),
        pad_token_id=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    try:
        for name in _LEFT_BY_TRAINERS:
            (draft / name).unlink(missing_ok=True)
        _cast(draft, dtype)
        tokenizer.save_pretrained(draft)
        settings.save_pretrained(draft)
    except OSError as error:
        raise disk_error(draft, error) from error


def chat_template(tokenizer: Any, template: ChatTemplate) -> str:
    """Return the template's source, made to begin with the beginning token that was trained with.

    The encoder puts one before every conversation; a template that leaves it to the tokenizer would, in
    chat, begin without it.
    """
    begin = tokenizer.bos_token
    if not begin or template.render(_ONE_USER_TURN).startswith(begin):
        return template.source
    return "{{ bos_token }}" + template.source


def _own_ends(located: LocatedModel, tokenizer: Any) -> list[int]:
    """Return the tokens that ended the student's texts before: its generation config's and eos."""
    path = located.folder / "generation_config.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own = held.get("eos_token_id")
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return [token for token in ends if isinstance(token, int)]


def _cast(draft: Path, dtype: str) -> None:
    """Bring saved weights to a data type, one file after the other."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    for path in sorted(draft.glob("*.safetensors")):
        tensors = load_file(path)
        if all(tensor.dtype == wanted for tensor in tensors.values()):
            continue
        cast = {name: tensor.to(wanted) for name, tensor in tensors.items()}
        save_file(cast, path, metadata={"format": "pt"})
    config_file = draft / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(config | {"dtype": dtype}, indent=2), encoding="utf-8")
