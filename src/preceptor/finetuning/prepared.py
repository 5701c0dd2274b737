"""What is known of a fine-tuning run before a weight is loaded: rows, steps, template, identity.

Everything that can be refused is refused here, and a plan needs no more than this.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from preceptor.config.recipe import Recipe, Steps, steps_of
from preceptor.config.runtime import Runtime
from preceptor.engines.loading import load_tokenizer
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.errors import ModelError
from preceptor.finetuning.checkpoint import fine_tuned_identity
from preceptor.finetuning.dataset import Conversation, Conversations
from preceptor.finetuning.labels import IGNORED, Labeller, TrainingRows
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


class Sizes(NamedTuple):
    """Of a conversation: whether nothing would be cut, and the tokens that are trained on.

    One that the template refuses is not whole and has none.
    """

    whole: bool
    trained: int


def sizes_of(
    student: LocatedModel, conversations: Sequence[Conversation], recipe: Recipe
) -> list[Sizes]:
    """Return how large each conversation is.

    Raises:
        ModelError: the tokenizer cannot be used, or no token ends a turn.
    """
    template = choose_template(recipe.chat_template, student.folder)
    labeller = Labeller(load_tokenizer(student), template, max_length=recipe.max_length)
    return [_sizes(labeller, conversation) for conversation in conversations]


def _sizes(labeller: Labeller, conversation: Conversation) -> Sizes:
    try:
        row, _ = labeller.whole(conversation)
    except ModelError:
        return Sizes(whole=False, trained=0)
    kept = row.labels[: labeller.max_length]
    return Sizes(len(row.ids) <= labeller.max_length, int((kept != IGNORED).sum()))
