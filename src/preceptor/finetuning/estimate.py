"""What a fine-tuning run would take: rows, tokens, steps, memory and disk, before any weight is loaded.

Figures that are known are counted, and memory is the sum of what must be held at once. Each part of the
estimate is a line of its own, so that one can see what to save on.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preceptor.config.recipe import Recipe, Steps, warmup_caution
from preceptor.errors import StudyError
from preceptor.finetuning.prepared import Prepared
from preceptor.finetuning.weights import Size, size_of

_GIB = 1024**3
_ADAM_BYTES = 8
"""AdamW keeps two float32 moments of every trained parameter."""
_FULL_BYTES = 4
_FOUR_BIT_BYTES = 0.55
"""Half a byte, and the constants of the doubly quantized blocks (Dettmers et al. 2023, section 3)."""
_LAYER_FACTOR = 34
"""Bytes of 16-bit activations of a layer per token and unit of width, attention's scores left out
(Korthikanti et al. 2022, equation 1)."""
_HEAD_TILE_BYTES = _GIB // 4


@dataclass(frozen=True)
class CostEstimate:
    """What a fine-tuning run would take. Bytes of memory are for one device that holds all weights.

    Sharding (FSDP, ZeRO) divides weights, gradients and moments by the devices, not the activations.
    """

    rows: int
    tokens: int
    trained_tokens: int
    longest: int
    devices: int
    steps: Steps
    size: Size
    memory: Mapping[str, int]
    disk: int
    left_out: Mapping[str, int]
    noted: Mapping[str, int]
    warning: str | None

    def lines(self) -> list[str]:
        """Return it in words, a line for each thing to know."""
        parts = ", ".join(f"{name} {held / _GIB:,.1f}" for name, held in self.memory.items())
        lines = [
            f"{self.rows:,} rows, {self.tokens:,} tokens, {self.trained_tokens:,} of them in responses; "
            f"the longest row has {self.longest:,}",
            f"{self.steps.total:,} steps, {self.steps.per_epoch:,} per epoch, {self.steps.warmup:,} of them "
            f"warm-up; {self.steps.accumulation} x {self.devices} device(s) at once per step",
            f"{self.size.trained:,} of {self.size.parameters:,} parameters are trained",
            f"memory: about {sum(self.memory.values()) / _GIB:,.1f} GiB ({parts})",
            f"disk: up to {self.disk / _GIB:,.1f} GiB",
        ]
        lines += [f"left out: {count:,} ({reason})" for reason, count in self.left_out.items()]
        lines += [f"note: {count:,} {what}" for what, count in self.noted.items()]
        return lines + ([f"warning: {self.warning}"] if self.warning else [])


def estimate_of(
    prepared: Prepared, left_out: Mapping[str, int], *, devices: int = 1
) -> CostEstimate:
    """Return what a prepared fine-tuning run would take; `left_out` counts what was not read.

    ModelError where the student's config cannot be used.
    """
    size = size_of(prepared.student, prepared.recipe)
    rows = prepared.rows
    return CostEstimate(
        rows=len(rows.rows),
        tokens=rows.tokens,
        trained_tokens=rows.trained_tokens,
        longest=rows.longest,
        devices=devices,
        steps=prepared.steps,
        size=size,
        memory=memory_of(prepared.recipe, size, longest=rows.longest),
        disk=disk_of(prepared.recipe, size, steps=prepared.steps),
        left_out={**left_out, **rows.left_out},
        noted=rows.noted,
        warning=warmup_caution(prepared.steps),
    )


def memory_of(recipe: Recipe, size: Size, *, longest: int) -> dict[str, int]:
    """Return the bytes that one unsharded device holds at once, by what they are for."""
    computed = 2 if recipe.dtype == "bfloat16" else 4
    frozen = _FOUR_BIT_BYTES if recipe.load_in_4bit else computed
    adapters = size.trained if recipe.lora else 0
    weights = frozen * size.parameters if recipe.lora else _FULL_BYTES * size.parameters
    tokens = recipe.per_device_batch_size * longest
    layer = _LAYER_FACTOR * computed // 2 * tokens * size.width
    kept = size.layers * computed * tokens * size.width
    activations = layer + kept if recipe.gradient_checkpointing else size.layers * layer
    return {
        "weights": round(weights) + _FULL_BYTES * adapters,
        "gradients": _FULL_BYTES * size.trained,
        "moments": _ADAM_BYTES * size.trained,
        "activations": activations + _HEAD_TILE_BYTES,
    }


def disk_of(recipe: Recipe, size: Size, *, steps: Steps) -> int:
    """Return the bytes that checkpoints and the model take at most: three checkpoints at a time."""
    saved = -(-steps.total // recipe.save_steps)
    checkpoint = (_FULL_BYTES + _ADAM_BYTES) * size.trained
    model = (2 if recipe.dtype == "bfloat16" else 4) * size.parameters
    whole = 0 if recipe.lora else _FULL_BYTES * size.parameters
    return min(3, saved) * checkpoint + max(model, whole)


def require_room(estimate: CostEstimate, output: Path) -> None:
    """Check that the disk has room for the checkpoints and the model.

    Raises:
        StudyError: it has not.
    """
    place = next(path for path in (output, *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < estimate.disk:
        raise StudyError(
            f"The disk of {output} has {free / _GIB:,.1f} GiB free, and checkpoints and model take up to "
            f"{estimate.disk / _GIB:,.1f} GiB. Free space, choose another output folder, or train with lora."
        )
