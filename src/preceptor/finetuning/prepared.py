"""What is known of a fine-tuning run before a weight is loaded: rows, steps, template, identity.

Everything that can be refused is refused here, and a plan needs no more than this.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from preceptor.config.recipe import Recipe, Steps, steps_of
from preceptor.config.runtime import Runtime
from preceptor.engines.loading import load_tokenizer
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.errors import ModelError
from preceptor.finetuning.checkpoint import fine_tuned_identity
from preceptor.finetuning.dataset import Conversation, Conversations
from preceptor.finetuning.labels import Labeller, TrainingRows
from preceptor.store.identity import Identity


@dataclass(frozen=True)
class Prepared:
    """All that is known before a weight is loaded."""

    student: LocatedModel
    recipe: Recipe
    runtime: Runtime
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
    runtime: Runtime,
    devices: int = 1,
) -> Prepared:
    """Return the rows, steps and identity of a fine-tuning run, without loading any weights.

    Raises:
        StudyError: the recipe does not fit the devices, or there is no such template.
        ModelError: the tokenizer cannot be used, or no token ends a turn.
        DataError: nothing is left to train on.
    """
    recipe = recipe.on(runtime)
    template = choose_template(recipe.chat_template, student.folder)
    identity = fine_tuned_identity(student, conversations.digest, recipe)
    labeller = Labeller(load_tokenizer(student), template, max_length=recipe.max_length)
    rows = labeller.label(conversations.rows)
    steps = steps_of(recipe, len(rows.rows), devices=devices)
    return Prepared(student, recipe, runtime, template, rows, steps, identity)


def which_are_whole(
    student: LocatedModel, conversations: Sequence[Conversation], recipe: Recipe
) -> list[bool]:
    """Return whether nothing of a conversation would be cut, for each; one that is refused is not whole.

    Raises:
        ModelError: the tokenizer cannot be used, or no token ends a turn.
    """
    template = choose_template(recipe.chat_template, student.folder)
    labeller = Labeller(load_tokenizer(student), template, max_length=recipe.max_length)
    return [_is_whole(labeller, conversation) for conversation in conversations]


def _is_whole(labeller: Labeller, conversation: Conversation) -> bool:
    try:
        row, _ = labeller.whole(conversation)
    except ModelError:
        return False
    return len(row.ids) <= labeller.max_length
