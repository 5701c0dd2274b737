"""The table `[train]`: how a student is fine-tuned, with the paper's numbers as defaults.

The recipe fixes the rows of one optimizer step (`batch_size`), and the devices at hand only decide
how that step is cut up. So the same recipe is the same training on one device and on four.
"""

import math
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from preceptor.config.base import Table
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError

OPTIMIZER = "adamw_torch"
"""AdamW as PyTorch has it (paper, table 5: Adamw)."""

SCHEDULE = "cosine"
"""How the rate falls after the warm-up: to zero, along a cosine (paper, table 5)."""

PAPER_DEVICES = 4
"""The devices of the paper's experiments (appendix A.2 and table 5)."""

_HASHED_AS = {"batch_size": "batch", "warmup_ratio": "warmup_share", "load_in_4bit": "quantized"}
"""Names under which fields were first hashed, so that trained models are found again."""

_HOW_NOT_WHAT = {
    "attention",
    "per_device_batch_size",
    "dtype",
    "gradient_checkpointing",
    "save_steps",
}


class Lora(Table):
    """Adapters of low rank beside frozen weights (Hu et al. 2021)."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale: the adapters count alpha / rank times.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapters' inputs dropped.")
    targets: tuple[str, ...] = Field(
        (),
        description="Layers that get adapters. Default: all linear ones but the head.",
    )


class Recipe(Table):
    """How a student is fine-tuned. The defaults are the paper's (table 5 and section 3.2)."""

    learning_rate: float = Field(2e-5, gt=0, description="Highest rate, after the warm-up.")
    epochs: int = Field(2, ge=1, description="Passes over the data.")
    batch_size: int = Field(32, ge=1, description="Rows of one step, over all devices together.")
    per_device_batch_size: int = Field(
        1, ge=1, description="Rows that a device holds at once; the rest of a step is accumulated."
    )
    max_length: int = Field(
        4096, ge=2, description="Tokens of a conversation; what lies beyond is cut off."
    )
    warmup_steps: int = Field(
        100, ge=0, description="Steps in which the rate rises to its highest."
    )
    warmup_ratio: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of all steps to warm up in, instead of a number of steps.",
    )
    weight_decay: float = Field(
        0.0, ge=0, description="AdamW's weight decay; the paper names none, and Axolotl's is 0."
    )
    lora: Lora | None = Field(
        None, description="Train adapters instead of all weights; they are merged in the end."
    )
    load_in_4bit: bool = Field(
        False, description="Hold the frozen weights in 4 bits (QLoRA); needs adapters and CUDA."
    )
    chat_template: str = Field(
        "auto", description="auto, own, gemma, llama3, chatml, phi3, plain, or a .jinja file."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the computation; auto is bfloat16 on an accelerator, else float32."
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="Kernel of attention; auto leaves the choice to transformers."
    )
    gradient_checkpointing: bool = Field(
        True, description="Compute activations twice instead of keeping them."
    )
    save_steps: int = Field(
        100, ge=1, description="Steps between two checkpoints to go on from after an interruption."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Draws the order of rows and the adapters.")

    @model_validator(mode="after")
    def _agrees(self) -> "Recipe":
        if self.load_in_4bit and self.lora is None:
            raise ValueError(
                "load_in_4bit = true trains adapters beside 4-bit weights: set lora too"
            )
        if self.batch_size % self.per_device_batch_size:
            raise ValueError(
                f"batch_size = {self.batch_size} is no multiple of per_device_batch_size = "
                f"{self.per_device_batch_size}"
            )
        return self

    def on(self, runtime: Runtime) -> "Recipe":
        """Return the recipe with the data type that `auto` means on this machine."""
        dtype = "bfloat16" if runtime.resolved_dtype(self.dtype) == "bfloat16" else "float32"
        return self.model_copy(update={"dtype": dtype})

    def identity(self) -> dict[str, object]:
        """Return what bears on the trained weights, fit for an `Identity`.

        What only changes rounding or speed stays out, and so does the template's name: its text belongs
        to the identity (`fine_tuned_identity`). StudyError while the data type is still `auto`.
        """
        if self.dtype == "auto":
            raise StudyError(
                "The recipe's dtype is 'auto': expected float32 or bfloat16. Use `on`."
            )
        fields = self.model_dump(mode="json", exclude=_HOW_NOT_WHAT | {"chat_template"})
        bearing = {_HASHED_AS.get(name, name): value for name, value in fields.items()}
        return bearing | {"dtype": self.dtype, "optimizer": OPTIMIZER, "schedule": SCHEDULE}


class Steps(NamedTuple):
    """How many optimizer steps there are, and how each is cut up: `accumulation` parts per device."""

    accumulation: int
    per_epoch: int
    total: int
    warmup: int


def steps_of(recipe: Recipe, rows: int, *, devices: int = 1) -> Steps:
    """Return the steps that a recipe takes over so many rows.

    The last step of an epoch may have fewer rows than `batch`.

    Raises:
        StudyError: a step's rows cannot be shared out among the devices evenly.
    """
    at_once = recipe.per_device_batch_size * devices
    if recipe.batch_size % at_once:
        fitting = [
            count for count in range(1, recipe.batch_size + 1) if not recipe.batch_size % count
        ]
        raise StudyError(
            f"A step of {recipe.batch_size} rows cannot be shared out: {devices} device(s) with "
            f"{recipe.per_device_batch_size} row(s) each take {at_once} at once. Make rows at once one of "
            f"{', '.join(map(str, fitting))}, or change batch_size."
        )
    per_epoch = math.ceil(rows / recipe.batch_size)
    total = per_epoch * recipe.epochs
    share = recipe.warmup_ratio
    warmup = recipe.warmup_steps if share is None else math.ceil(share * total)
    return Steps(recipe.batch_size // at_once, per_epoch, total, warmup)


def warmup_caution(steps: Steps) -> str | None:
    """Say that the rate never reaches its highest, where the warm-up is as long as the training."""
    if not steps.warmup or steps.warmup < steps.total:
        return None
    return (
        f"The warm-up takes {steps.warmup:,} steps and the training has {steps.total:,}: the rate never "
        "reaches its highest. Give warmup_ratio, for example 0.03, instead of a number of steps."
    )
