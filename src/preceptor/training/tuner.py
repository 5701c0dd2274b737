"""Tune a student on conversations: one recipe, one run of TRL's trainer, one model folder.

The one idea: TRL gets ids and labels that are ready, and decides nothing about tokens. What is left to it is
what it does well: batches, accumulation averaged over the tokens of a whole step, devices, checkpoints.
"""

import logging
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from preceptor.digests import Identity
from preceptor.engines.models import LocatedModel, load_tokenizer, require_device
from preceptor.errors import MissingPackage, ModelError, StudyError
from preceptor.machine import Machine
from preceptor.templates import ChatTemplate, choose_template
from preceptor.training.conversations import Conversations
from preceptor.training.labels import Labelled, Labeller, TrainingRows
from preceptor.training.recipe import (
    OPTIMIZER,
    SCHEDULE,
    Recipe,
    Steps,
    steps_of,
    warmup_caution,
)
from preceptor.training.record import TrainingFolder, disk_error, tuned_identity
from preceptor.training.weights import (
    adapters,
    dress,
    load_student,
    merge_adapter,
    require_quantization,
)

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


class Moment(NamedTuple):
    """One finished step: its mean loss per trained token, the rate it was taken with, and the total."""

    step: int
    total: int
    loss: float
    learning_rate: float


Watch = Callable[[Moment], None]
"""Told of every step."""


@dataclass(frozen=True)
class Tuned:
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


@dataclass(frozen=True)
class Prepared:
    """All that is known before a weight is loaded."""

    student: LocatedModel
    recipe: Recipe
    machine: Machine
    template: ChatTemplate
    rows: TrainingRows
    steps: Steps
    identity: Identity


def devices() -> int:
    """Return how many processes train together, as the launcher says; 1 without one."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


def is_main_process() -> bool:
    """Tell whether this process speaks for all that train together."""
    return os.environ.get("RANK", "0") == "0"


def prepare(
    student: LocatedModel,
    conversations: Conversations,
    recipe: Recipe,
    *,
    machine: Machine,
    devices: int = 1,
) -> Prepared:
    """Return the rows, steps and identity of a tuning, without loading any weights.

    Raises:
        StudyError: the recipe does not fit the devices, or there is no such template.
        ModelError: the tokenizer cannot be used, or no token ends a turn.
        DataError: nothing is left to train on.
    """
    recipe = recipe.on(machine)
    template = choose_template(recipe.template, student.folder)
    identity = tuned_identity(student, conversations.digest, recipe)
    labeller = Labeller(load_tokenizer(student), template, max_length=recipe.max_length)
    rows = labeller.label(conversations.rows)
    steps = steps_of(recipe, len(rows.rows), devices=devices)
    return Prepared(student, recipe, machine, template, rows, steps, identity)


def tune(
    student: LocatedModel,
    conversations: Conversations,
    recipe: Recipe,
    *,
    output: Path,
    machine: Machine,
    watch: Watch | None = None,
) -> Tuned:
    """Tune a student and write the model to `output`; go on where an earlier run was stopped.

    The folder then loads with transformers and with `locate`, answers in chat and stops. It is a model only
    once it is finished: until then it holds no config. A tuning that is finished there is returned as it
    is. Adapters are merged; they also stay in `training/adapter`.

    Raises:
        StudyError: the recipe cannot be carried out here, or the folder holds something else.
        ModelError: the student cannot be used. DataError: nothing is left to train on.
        StoreError: the disk refuses. MissingPackage: TRL is not installed.
    """
    prepared = prepare(student, conversations, recipe, machine=machine, devices=devices())
    return carry_out(prepared, output, watch=watch)


def carry_out(prepared: Prepared, output: Path, *, watch: Watch | None = None) -> Tuned:
    """Carry out what `prepare` prepared; all else is as in `tune`."""
    folder = TrainingFolder(Path(output))
    done = folder.finished(prepared.identity)
    if done is not None:
        return _tuned(prepared, folder, done, stored=True)
    _require_trl()
    _require_devices(prepared)
    if caution := warmup_caution(prepared.steps):
        logger.warning(caution)
    if is_main_process():
        folder.begin(prepared.identity)
        folder.remove_torn()
    begun = time.perf_counter()
    with _between_libraries(), _interrupts() as stop:
        trainer = _trainer(prepared, folder, [_follow(folder, watch), _stopper(stop)])
        try:
            checkpoint = folder.newest_checkpoint()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if stop.is_set():
                raise KeyboardInterrupt
            _save(trainer, prepared, folder)
        except OSError as error:
            raise disk_error(folder.output, error) from error
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "steps": trainer.state.global_step,
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


@contextmanager
def _between_libraries() -> Iterator[None]:
    """Hide what PEFT and transformers have to say to each other about a renamed setting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Let the first interrupt end the training after the step at hand; the second ends it at once.

    Processes that train together could see it at different steps, so for them it ends at once.
    """
    stop = threading.Event()
    if devices() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_signal: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        logger.warning("interrupted: stopping after this step, whose checkpoint is kept")

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


_LOGGED = ("step", "loss", "learning_rate", "grad_norm")


def _tuned(prepared: Prepared, folder: TrainingFolder, result: Any, *, stored: bool) -> Tuned:
    return Tuned(
        folder=folder.output,
        identity=prepared.identity,
        steps=result["steps"],
        first_loss=result["first_loss"],
        last_loss=result["last_loss"],
        seconds=result["seconds"],
        stored=stored,
    )


def _require_trl() -> None:
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingPackage("trl", purpose="Tuning a student", extra="train") from error


def _require_devices(prepared: Prepared) -> None:
    """Check that what the machine names is what the trainer would take."""
    import torch

    device = prepared.machine.resolved_device()
    require_device(device)
    if prepared.recipe.quantized:
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


def _trainer(prepared: Prepared, folder: TrainingFolder, callbacks: list[Any]) -> Any:
    """Return TRL's trainer over the prepared rows, silent but for the callbacks."""
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    # Before the weights: a sharded launch must know of itself when they are loaded.
    settings = sft_settings(prepared, folder.checkpoints)
    trainer: Any = SFTTrainer(
        model=load_student(prepared.student, prepared.recipe),
        args=settings,
        train_dataset=dataset_of(prepared.rows.rows),
        processing_class=load_tokenizer(prepared.student),
        peft_config=adapters(prepared.recipe),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    # TRL's loss always divides by the tokens of the whole step, whatever the model's own loss does.
    trainer.model_accepts_loss_kwargs = True
    return trainer


def sft_settings(prepared: Prepared, folder: Path) -> Any:
    """Return TRL's settings for a recipe; checkpoints go to `folder`."""
    from trl.trainer.sft_config import SFTConfig

    recipe, steps = prepared.recipe, prepared.steps
    on_cpu = prepared.machine.resolved_device() == "cpu"
    share = recipe.warmup_share
    checkpointing: Any = {_checkpointing_name(SFTConfig): recipe.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=SCHEDULE,
        optim=OPTIMIZER,
        weight_decay=recipe.weight_decay,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.device_batch,
        gradient_accumulation_steps=steps.accumulation,
        warmup_steps=recipe.warmup_steps if share is None else steps.warmup,
        bf16=recipe.dtype == "bfloat16",
        seed=recipe.seed,
        data_seed=recipe.seed,
        # The rows are cut and labelled already.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=False,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=2,  # the newest may be torn by a kill
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen, not averaged away
        report_to=[],
        disable_tqdm=True,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        **checkpointing,
    )


def _checkpointing_name(settings: Any) -> str:
    """Return what this version of transformers calls gradient checkpointing."""
    new = "activation_checkpointing"
    return new if new in settings.__dataclass_fields__ else "gradient_checkpointing"


def dataset_of(rows: tuple[Labelled, ...]) -> "datasets.Dataset":
    """Return the rows as TRL takes ready ones: `input_ids` and `labels`, lists of int32."""
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    offsets = np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int64)
    columns = {
        "input_ids": np.concatenate([row.ids for row in rows]),
        "labels": np.concatenate([row.labels for row in rows]),
    }
    arrays = [pa.LargeListArray.from_arrays(offsets, values) for values in columns.values()]
    return datasets.Dataset(InMemoryTable(pa.table(arrays, names=list(columns))))


def _follow(folder: TrainingFolder, watch: Watch | None) -> Any:
    """Return what marks whole checkpoints and passes on what every step logs."""
    from transformers import TrainerCallback

    class Follow(TrainerCallback):
        """Follows a training."""

        def on_save(self, args: Any, state: Any, control: Any, **_rest: Any) -> None:
            if state.is_world_process_zero:
                folder.mark_whole(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            logs = rest.get("logs") or {}
            loss = logs.get("loss")
            if loss is None:
                return
            if not np.isfinite(loss):
                raise ModelError(
                    f"The loss of step {state.global_step} is {loss}: the training has run away. Lower "
                    "learning_rate, or train in float32."
                )
            if watch is not None and state.is_world_process_zero:
                rate = float(logs.get("learning_rate", 0.0))
                watch(Moment(state.global_step, state.max_steps, float(loss), rate))

    return Follow()


def _stopper(stop: threading.Event) -> Any:
    """Return what ends a training after a step, with a checkpoint, once it is asked to."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        """Ends a training on request."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_rest: Any) -> None:
            if stop.is_set() and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

    return Stop()


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
