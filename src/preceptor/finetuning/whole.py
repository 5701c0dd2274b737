"""Which conversations fit into `max_length` whole, found with the tokens that training would use."""

from collections.abc import Sequence

from preceptor.config.recipe import Recipe
from preceptor.engines.models import LocatedModel, load_tokenizer
from preceptor.engines.templates import choose_template
from preceptor.errors import ModelError
from preceptor.finetuning.dataset import Conversation
from preceptor.finetuning.labels import Labeller


def which_are_whole(
    student: LocatedModel, conversations: Sequence[Conversation], recipe: Recipe
) -> list[bool]:
    """Tell of each conversation whether nothing of it would be cut; one that is refused is not whole.

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
