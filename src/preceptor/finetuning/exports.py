"""The same recipe as configuration files of Axolotl and LLaMA-Factory.

Both files say what `Recipe` says in the other tool's words, so that a table in the documentation can hold all
three against the paper. Keys are those of Axolotl 0.19 and LLaMA-Factory 0.9.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.config.recipe import OPTIMIZER, PAPER_DEVICES, SCHEDULE, Recipe, steps_of
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.errors import StudyError
from preceptor.finetuning.checkpoint import write_durably

_FACTORY_TEMPLATES = {
    "gemma": "gemma",
    "llama3": "llama3",
    "chatml": "chatml",
    "phi3": "phi",
    "own": None,
}
"""LLaMA-Factory's name of a template (its data/template.py); none makes it read the tokenizer's own."""

_DATA_NAME = "preceptor"


@dataclass(frozen=True)
class Job:
    """What is to be trained: the student as it was named, the data, and the folder of the model.

    `rows` counts the rows of all files together.
    """

    model: str
    data: tuple[Path, ...]
    rows: int
    output: Path
    devices: int = PAPER_DEVICES


def write_axolotl(job: Job, student: LocatedModel, recipe: Recipe, *, folder: Path) -> list[Path]:
    """Write `axolotl.yaml` and the template it names; return what was written.

    Raises:
        StudyError: the recipe does not fit the devices, or there is no such template.
        StoreError: the disk refuses.
    """
    template = choose_template(recipe.chat_template, student.folder)
    files = {"axolotl.yaml": yaml(axolotl_config(job, recipe, template, folder=folder))}
    if template.name != "own":
        files["chat_template.jinja"] = template.source
    return _write(folder, files)


def write_llama_factory(
    job: Job, student: LocatedModel, recipe: Recipe, *, folder: Path
) -> list[Path]:
    """Write `llama_factory.yaml` and `dataset_info.json`; return what was written.

    Raises:
        StudyError: the recipe does not fit the devices, or LLaMA-Factory has no such template.
        StoreError: the disk refuses.
    """
    template = choose_template(recipe.chat_template, student.folder)
    config = llama_factory_config(job, recipe, template, folder=folder)
    return _write(
        folder,
        {
            "llama_factory.yaml": yaml(config),
            "dataset_info.json": json.dumps(dataset_info(job), indent=2) + "\n",
        },
    )


def axolotl_config(
    job: Job, recipe: Recipe, template: ChatTemplate, *, folder: Path
) -> dict[str, Any]:
    """Return Axolotl's configuration as plain values."""
    steps = steps_of(recipe, job.rows, devices=job.devices)
    own = template.name == "own"
    held = {} if own else {"chat_template_jinja": str(folder.absolute() / "chat_template.jinja")}
    return {
        "base_model": job.model,
        "chat_template": "tokenizer_default" if own else "jinja",
        **held,
        "eot_tokens": [template.end_of_turn],
        "datasets": [_axolotl_data(path) for path in job.data],
        "val_set_size": 0,
        "sequence_len": recipe.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
        "micro_batch_size": recipe.per_device_batch_size,
        "gradient_accumulation_steps": steps.accumulation,
        "num_epochs": recipe.epochs,
        "optimizer": OPTIMIZER,
        "lr_scheduler": SCHEDULE,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": steps.warmup,
        "weight_decay": recipe.weight_decay,
        **_axolotl_adapter(recipe),
        "bf16": recipe.dtype != "float32",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        **_attention("attn_implementation", recipe),
        "seed": recipe.seed,
        "save_steps": recipe.save_steps,
        "logging_steps": 1,
        "output_dir": str(job.output.absolute()),
    }


def _axolotl_data(path: Path) -> dict[str, Any]:
    return {
        "path": str(path.absolute()),
        "ds_type": "parquet" if path.suffix == ".parquet" else "json",
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }


def _axolotl_adapter(recipe: Recipe) -> dict[str, Any]:
    if recipe.lora is None:
        return {}
    lora = recipe.lora
    chosen: dict[str, Any] = {"lora_target_linear": True}
    if lora.targets:
        chosen = {"lora_target_modules": list(lora.targets)}
    return {
        "adapter": "qlora" if recipe.load_in_4bit else "lora",
        "load_in_4bit": recipe.load_in_4bit,
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        **chosen,
    }


def _attention(name: str, recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.attention == "auto" else {name: recipe.attention}


def llama_factory_config(
    job: Job, recipe: Recipe, template: ChatTemplate, *, folder: Path
) -> dict[str, Any]:
    """Return LLaMA-Factory's configuration as plain values.

    StudyError where it has no template of that name.
    """
    if template.name not in _FACTORY_TEMPLATES:
        raise StudyError(
            f"LLaMA-Factory takes its templates by name and knows none for '{template.name}'. Use one of "
            f"{', '.join(_FACTORY_TEMPLATES)}, or train with `preceptor train` or Axolotl."
        )
    named = _FACTORY_TEMPLATES[template.name]
    steps = steps_of(recipe, job.rows, devices=job.devices)
    return {
        "model_name_or_path": job.model,
        "trust_remote_code": False,
        "stage": "sft",
        "do_train": True,
        **_factory_adapter(recipe),
        "dataset": ",".join(dataset_info(job)),
        "dataset_dir": str(folder.absolute()),
        **({"template": named} if named else {}),
        "cutoff_len": recipe.max_length,
        "packing": False,
        "train_on_prompt": False,
        "mask_history": False,
        "per_device_train_batch_size": recipe.per_device_batch_size,
        "gradient_accumulation_steps": steps.accumulation,
        "num_train_epochs": recipe.epochs,
        "optim": OPTIMIZER,
        "lr_scheduler_type": SCHEDULE,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": steps.warmup,
        "weight_decay": recipe.weight_decay,
        "bf16": recipe.dtype != "float32",
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        **(
            {} if recipe.attention == "auto" else {"flash_attn": _FACTORY_KERNELS[recipe.attention]}
        ),
        "seed": recipe.seed,
        "save_steps": recipe.save_steps,
        "logging_steps": 1,
        "report_to": "none",
        "output_dir": str(job.output.absolute()),
    }


_FACTORY_KERNELS = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}


def _factory_adapter(recipe: Recipe) -> dict[str, Any]:
    if recipe.lora is None:
        return {"finetuning_type": "full"}
    lora = recipe.lora
    found: dict[str, Any] = {
        "finetuning_type": "lora",
        "lora_rank": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target": ",".join(lora.targets) or "all",
    }
    return found | ({"quantization_bit": 4} if recipe.load_in_4bit else {})


def dataset_info(job: Job) -> dict[str, Any]:
    """Return the entries of LLaMA-Factory's `dataset_info.json`: its "OpenAI format" of messages."""
    entry = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    names = [_DATA_NAME, *(f"{_DATA_NAME}_{number}" for number in range(2, len(job.data) + 1))]
    return {
        name: {"file_name": str(path.absolute()), **entry}
        for name, path in zip(names, job.data, strict=True)
    }


def yaml(value: Mapping[str, Any]) -> str:
    """Return plain values as YAML 1.1, keys in their order."""
    import yaml as library

    how = {"sort_keys": False, "width": 1000}
    text: str = library.safe_dump(dict(value), allow_unicode=True, **how)
    # The library takes NEL (U+0085) for a letter where it writes and for a line's end where it reads.
    return text if "\x85" not in text else library.safe_dump(dict(value), **how)


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    for name, text in files.items():
        write_durably(folder / name, text.encode())
    return [folder / name for name in files]
