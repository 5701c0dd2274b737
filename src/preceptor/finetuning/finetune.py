"""Tune a student on conversations: one recipe, one run of TRL's trainer, one model folder.

TRL gets ids and labels that are ready, and decides nothing about tokens. What is left to it is what it does
well: batches, accumulation averaged over the tokens of a whole step, devices, checkpoints.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preceptor.config.recipe import Recipe, warmup_caution
from preceptor.config.runtime import Runtime
from preceptor.engines.loading import require_device
from preceptor.engines.models import LocatedModel, locate
from preceptor.engines.packed.memory import is_out_of_memory
from preceptor.errors import ModelError, StudyError, require
from preceptor.finetuning.checkpoint import TrainingFolder, disk_error, step_of
from preceptor.finetuning.dataset import Conversations
from preceptor.finetuning.prepared import Prepared, devices, is_main_process, prepare
from preceptor.finetuning.trainer import (
    Watch,
    between_libraries,
    follow,
    interrupts,
    stopper,
    trainer_of,
)
from preceptor.finetuning.weights import dress, merge_adapter, require_quantization
from preceptor.store.identity import Identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuned:
    """A finished model: its folder, what names it, and the loss of the first and the last step.

    `stored` tells that it was finished before and nothing was trained. `seconds` are those of the process
    that finished it.
    """

    folder: Path
    identity: Identity
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    stored: bool


def fine_tune(
    student: LocatedModel,
    conversations: Conversations,
    recipe: Recipe,
    *,
    output: Path,
    runtime: Runtime,
    watch: Watch | None = None,
) -> FineTuned:
    """Tune a student and write the model to `output`; go on where an earlier run was stopped.

    The folder then loads with transformers and with `locate`, answers in chat and stops. It is a model only
    once it is finished: until then it holds no config. A run that is finished there is returned as it
    is. Adapters are merged; they also stay in `training/adapter`.

    Raises:
        StudyError: the recipe cannot be carried out here, or the folder holds something else.
        ModelError: the student cannot be used. DataError: nothing is left to train on.
        StoreError: the disk refuses. MissingPackage: TRL is not installed.
    """
    prepared = prepare(student, conversations, recipe, runtime=runtime, devices=devices())
    if warning := warmup_caution(prepared.steps):
        logger.warning(warning)
    return carry_out(prepared, output, watch=watch)


def student_named(name: str, revision: str | None = None) -> LocatedModel:
    """Return the base model of this Hub id, folder or GGUF file; ModelError where there is none."""
    return locate(name, revision=revision)


def carry_out(prepared: Prepared, output: Path, *, watch: Watch | None = None) -> FineTuned:
    """Carry out what `prepare` prepared; all else is as in `tune`."""
    folder = TrainingFolder(Path(output))
    done = folder.finished(prepared.identity)
    if done is not None:
        return _tuned(prepared, folder, done, stored=True)
    require("trl", purpose="Fine-tuning a student")
    _require_devices(prepared)
    if is_main_process():
        folder.begin(prepared.identity)
        folder.remove_torn()
    begun = time.perf_counter()
    with between_libraries(), _worded(prepared, folder), interrupts() as stop:
        trainer = trainer_of(prepared, folder, [follow(folder, watch), stopper(stop)])
        checkpoint = folder.newest_checkpoint()
        before = step_of(checkpoint) if checkpoint else 0
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.is_set() and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt
        _save(trainer, prepared, folder)
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "steps": trainer.state.global_step,
        "steps_before": before,
        "first_loss": losses[0]["loss"],
        "last_loss": losses[-1]["loss"],
        "seconds": time.perf_counter() - begun,
        "rows": len(prepared.rows.rows),
        "tokens": prepared.rows.tokens,
        "trained_tokens": prepared.rows.trained_tokens,
        "left_out": dict(prepared.rows.left_out),
        "log": [{name: entry.get(name) for name in _LOGGED} for entry in losses],
    }
    trainer.accelerator.wait_for_everyone()
    if is_main_process():
        folder.finish(result)
    return _tuned(prepared, folder, result, stored=False)


_LOGGED = ("step", "loss", "learning_rate", "grad_norm")


@contextmanager
def _worded(prepared: Prepared, folder: TrainingFolder) -> Iterator[None]:
    """Put into words what a disk or a device refuses."""
    try:
        yield
    except OSError as error:
        raise disk_error(folder.output, error) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["out of memory"])[0]
        raise ModelError(
            f"The memory of {prepared.runtime.resolved_device()} is too small for this training: {reason} "
            "Lower per_device_batch_size or max_length, leave gradient_checkpointing on, train with lora, or "
            "shard over several GPUs."
        ) from error


def _tuned(prepared: Prepared, folder: TrainingFolder, result: Any, *, stored: bool) -> FineTuned:
    return FineTuned(
        folder=folder.output,
        identity=prepared.identity,
        steps=result["steps"],
        first_loss=result["first_loss"],
        last_loss=result["last_loss"],
        seconds=result["seconds"],
        stored=stored,
    )


def _require_devices(prepared: Prepared) -> None:
    """Check that what the runtime names is what the trainer would take."""
    import torch

    device = prepared.runtime.resolved_device()
    require_device(device)
    if prepared.recipe.load_in_4bit:
        require_quantization()
    kind, _, number = device.partition(":")
    if kind == "cuda" and number not in ("", "0"):
        raise StudyError(
            f"A training takes the first GPU it sees, and '{device}' was named. Set "
            f"CUDA_VISIBLE_DEVICES={number} and name cuda."
        )
    visible = torch.cuda.device_count() if kind == "cuda" else 1
    if visible > 1 and devices() == 1:
        raise StudyError(
            f"{visible} GPUs are visible to one process. Start it with `accelerate launch "
            "--config_file FILE -m preceptor train ...` to train on all of them, or set "
            "CUDA_VISIBLE_DEVICES=0 to train on one."
        )


def _save(trainer: Any, prepared: Prepared, folder: TrainingFolder) -> None:
    """Write the model to a draft and put it in place, its config last."""
    recipe = prepared.recipe
    if is_main_process():
        shutil.rmtree(folder.draft, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # Every process takes part, for it may hold a share of the weights.
    trainer.save_model(str(folder.adapter if recipe.lora else folder.draft))
    if not is_main_process():
        return
    if recipe.lora:
        _trim_adapter(folder.adapter)
        merge_adapter(prepared.student, recipe, adapter=folder.adapter, draft=folder.draft)
    dress(folder.draft, prepared.student, prepared.template, dtype=recipe.dtype)
    names = sorted(path.name for path in folder.draft.iterdir())
    for name in sorted(names, key=lambda name: name == "config.json"):
        (folder.draft / name).replace(folder.output / name)


def _trim_adapter(adapter: Path) -> None:
    """Leave of a saved adapter what PEFT needs to load it."""
    for path in adapter.iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
