"""The one way in which `lm-eval` is run: its tasks found, and a model measured on them.

Tasks and scoring are the harness's (EleutherAI/lm-evaluation-harness). Code of a model's repository is never
run, nor are tasks that run what a model writes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.config.ability import AbilityOptions
from preceptor.config.runtime import Runtime
from preceptor.errors import DataError, ModelError, StudyError, nearest, require


def found_tasks(tasks: Sequence[str], options: AbilityOptions) -> Mapping[str, Mapping[str, Any]]:
    """Return by name, as given, the harness's tasks; a group has several. Their data are fetched.

    Raises:
        MissingPackage: `lm-eval` is not installed.
        StudyError: a task is unknown to the harness, needs a package that is not there, or none is named.
        DataError: a task's data cannot be had.
    """
    manager = _manager(tasks, options)
    found = {}
    for name in tasks:
        with _lacking_told(name):
            try:
                found[name] = dict(manager.load([name])["tasks"])
            except ModuleNotFoundError:
                raise
            except Exception as error:
                raise DataError(
                    f"Cannot load the task '{name}' of lm-eval: {reason_of(error)} Check its data and the "
                    "connection, or leave it out."
                ) from error
    return found


def evaluated(
    model: str | Path,
    tasks: Sequence[str],
    options: AbilityOptions,
    runtime: Runtime,
    *,
    samples: Mapping[str, Sequence[int]] | None = None,
) -> Mapping[str, Any]:
    """Return the harness's result for a Hub id or a folder, with what it says of every document.

    Args:
        model: what is measured.
        tasks: the harness's names.
        options: how they are run.
        runtime: where.
        samples: by task the documents in place of all, in ascending order.

    Raises:
        MissingPackage: `lm-eval` is not installed.
        StudyError: a task is unknown to the harness, needs a package that is not there, or none is named.
        ModelError: the model cannot be loaded, or the harness gives up on a task.
    """
    manager = _manager(tasks, options)
    with _lacking_told(", ".join(tasks)):
        from lm_eval import simple_evaluate

        try:
            found = simple_evaluate(
                model="hf",
                model_args={"pretrained": str(model), "dtype": runtime.resolved_dtype("auto")},
                tasks=list(tasks),
                num_fewshot=options.num_fewshot,
                batch_size=options.batch_size,
                device=runtime.resolved_device(),
                limit=None if samples else options.limit,
                samples=None if samples is None else {k: list(v) for k, v in samples.items()},
                task_manager=manager,
                apply_chat_template=options.chat_template,
                log_samples=True,
                bootstrap_iters=0,
                random_seed=options.seed,
                numpy_random_seed=options.seed,
                torch_random_seed=options.seed,
                fewshot_random_seed=options.seed,
            )
        except ModuleNotFoundError:
            raise
        except Exception as error:
            # Tasks and models are files of others, and the harness lets through whatever they raise.
            raise ModelError(
                f"Cannot measure '{model}': {reason_of(error)} Check model and tasks."
            ) from error
    return found or {}


def is_number(value: object) -> bool:
    """Whether a metric of the harness is a finite number."""
    return isinstance(value, int | float | np.number | np.bool_) and math.isfinite(float(value))


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error of the harness says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _manager(tasks: Sequence[str], options: AbilityOptions) -> Any:
    require("lm_eval", purpose="Measuring general ability")
    with _lacking_told(", ".join(tasks)):
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=options.task_folder)
    if not tasks:
        raise StudyError(
            "No task is named: expected some of the harness's, such as ifeval or gsm8k."
        )
    known = manager.all_tasks
    for task in tasks:
        if task not in known:
            raise StudyError(
                f"The harness knows no task '{task}' among its {len(known)}.{nearest(task, known)} Name "
                "one of them, or a folder of own tasks."
            )
    return manager


@contextmanager
def _lacking_told(tasks: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        lacking = (error.name or str(error)).partition(".")[0]
        raise StudyError(
            f"Measuring {tasks} needs the package '{lacking}', which is not installed. Install it, or "
            "with it all that lm-eval names for a task, such as: pip install 'lm-eval[math]'"
        ) from error
