"""Small trainings for tests: conversations of very different lengths, tiny students, and their recipe."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from preceptor.config.recipe import Recipe
from preceptor.config.runtime import Runtime
from preceptor.engines.models import LocatedModel, locate
from preceptor.finetuning.dataset import Conversations, conversations_of
from preceptor.finetuning.finetune import FineTuned, fine_tune
from preceptor.finetuning.trainer import Watch
from preceptor.types import Message

CPU = Runtime(device="cpu")
QUICK = Recipe(
    learning_rate=1e-3,
    epochs=1,
    batch_size=8,
    warmup_steps=1,
    max_length=256,
    gradient_checkpointing=False,
)


def conversation(user: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", user), Message("assistant", answer))


def uneven(count: int) -> Conversations:
    """Return conversations whose answers have from one to about a hundred words."""
    words = "the cat sat on the mat and the sea is wide "
    return conversations_of(
        [conversation(f"What is {place}?", words * (place % 8) + "cat") for place in range(count)]
    )


def write_data(path: Path, conversations: Conversations) -> Path:
    """Write them in the `messages` layout."""
    rows = ({"messages": [turn._asdict() for turn in row]} for row in conversations.rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def student(
    folder: Path, name: str, make_model: Callable[..., Any], tokenizer: Any
) -> LocatedModel:
    """Save a tiny model and its tokenizer, and find them again."""
    make_model(name).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return locate(str(folder))


def tuned(
    located: LocatedModel,
    rows: Conversations,
    recipe: Recipe,
    *,
    output: Path,
    watch: Watch | None = None,
) -> FineTuned:
    """Tune on the CPU."""
    return fine_tune(located, rows, recipe, output=output, runtime=CPU, watch=watch)


def log_of(output: Path) -> Sequence[dict[str, float]]:
    """Return what every step of a finished fine-tuning logged."""
    log: Sequence[dict[str, float]] = json.loads(
        (output / "training" / "finished.json").read_text()
    )["log"]
    return log
