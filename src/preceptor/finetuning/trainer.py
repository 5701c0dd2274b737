"""TRL's trainer over ready rows, what follows its steps, and how it is interrupted.

The trainer decides nothing about tokens and says nothing by itself. Each step is passed on to whoever
watches, and a checkpoint is marked once all of it is written.
"""

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from preceptor.config.recipe import OPTIMIZER, SCHEDULE
from preceptor.engines.loading import load_tokenizer
from preceptor.errors import ModelError
from preceptor.finetuning.checkpoint import TrainingFolder
from preceptor.finetuning.labels import Labelled
from preceptor.finetuning.prepared import Prepared, devices
from preceptor.finetuning.weights import adapters, load_student, require_savable

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
"""Called after every step."""


def trainer_of(prepared: Prepared, folder: TrainingFolder, callbacks: list[Any]) -> Any:
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
    # Not before: the library saves a wrong generation config as it was read, and refuses one that it changed.
    require_savable(trainer.model, trainer.processing_class, prepared.student)
    trainer.remove_callback(PrinterCallback)
    # TRL's loss always divides by the tokens of the whole step, whatever the model's own loss does.
    trainer.model_accepts_loss_kwargs = True
    return trainer


def sft_settings(prepared: Prepared, folder: Path) -> Any:
    """Return TRL's settings for a recipe; checkpoints go to `folder`."""
    from trl.trainer.sft_config import SFTConfig

    recipe, steps = prepared.recipe, prepared.steps
    on_cpu = prepared.runtime.resolved_device() == "cpu"
    share = recipe.warmup_ratio
    checkpointing: Any = {_checkpointing_name(SFTConfig): recipe.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=SCHEDULE,
        optim=OPTIMIZER,
        weight_decay=recipe.weight_decay,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.per_device_batch_size,
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


def follow(folder: TrainingFolder, watch: Watch | None) -> Any:
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


def stopper(stop: threading.Event) -> Any:
    """Return what ends a training after a step, with a checkpoint, once it is asked to."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        """Ends a training on request."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_rest: Any) -> None:
            if stop.is_set() and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

    return Stop()


@contextmanager
def between_libraries() -> Iterator[None]:
    """Hide what PEFT and transformers have to say to each other about a renamed setting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


@contextmanager
def interrupts() -> Iterator[threading.Event]:
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
