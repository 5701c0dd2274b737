"""From conversations to the ids and labels that are trained on.

The tokens are those that scoring and chatting use, because the same `Encoder` makes them. The labels are
spans of these ids, so no token's value decides: an end of turn that is also the padding token has its label,
and padding, which the collator adds, has none.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.config.student import Reading
from preceptor.engines.encoder import Encoder
from preceptor.engines.templates import ChatTemplate
from preceptor.errors import DataError, ModelError
from preceptor.finetuning.dataset import Conversation

IGNORED = -100
"""The label of a token that no loss is taken on, as PyTorch's cross-entropy has it."""

NO_ROOM = "no token of a response within max_length"
REFUSED = "the chat template refuses the conversation"
REWRITTEN = "earlier assistant turns that the template shows otherwise in a history"
CUT = "conversations cut at max_length"

Ids = NDArray[np.int32]


class Labelled(NamedTuple):
    """A conversation's ids and labels, both (tokens,); a label is the id itself or `IGNORED`."""

    ids: Ids
    labels: Ids


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on. `left_out` counts dropped rows by reason, `noted` what happened to others."""

    rows: tuple[Labelled, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """All tokens of one epoch."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def trained_tokens(self) -> int:
        """The tokens of one epoch that a loss is taken on."""
        return sum(int((row.labels != IGNORED).sum()) for row in self.rows)

    @property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return max(len(row.ids) for row in self.rows)


class Labeller:
    """Gives conversations their ids and labels under one template, at most `max_length` tokens each.

    Every assistant turn is trained on with the token that ends it, as Axolotl's `roles_to_train:
    [assistant]` and LLaMA-Factory's default do; the paper's conversations have one. An earlier turn that
    the template writes otherwise once it is history (without its reasoning, for example) is not: the model
    would never write it so.

    Raises:
        ModelError: no single token ends a turn, so that a student could not learn to stop.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, *, max_length: int) -> None:
        self.end = end_token(tokenizer, template)
        self.max_length = max_length
        # Cut here and not by the encoder, which would keep a prompt longer than all there is room for.
        self.encoder = Encoder(
            tokenizer, template, max_length=sys.maxsize, reading=Reading(include_end_of_turn=True)
        )

    def label(self, conversations: Iterable[Conversation]) -> TrainingRows:
        """Return the rows of all conversations that leave something to train on, in their order.

        Raises:
            DataError: none does.
        """
        rows, left_out, noted = [], Counter[str](), Counter[str]()
        for conversation in conversations:
            try:
                row, rewritten = self.whole(conversation)
            except ModelError:
                left_out[REFUSED] += 1
                continue
            kept = Labelled(row.ids[: self.max_length], row.labels[: self.max_length])
            if not bool((kept.labels != IGNORED).any()):
                left_out[NO_ROOM] += 1
                continue
            rows.append(kept)
            noted[CUT] += len(row.ids) > len(kept.ids)
            noted[REWRITTEN] += rewritten
        if not rows:
            seen = ", ".join(f"{count:,} rows: {reason}" for reason, count in left_out.items())
            raise DataError(
                f"Nothing is left to train on ({seen}). Raise max_length, now {self.max_length:,}, or "
                "choose another template."
            )
        return TrainingRows(tuple(rows), dict(left_out), {k: v for k, v in noted.items() if v})

    def whole(self, conversation: Conversation) -> tuple[Labelled, int]:
        """Return the uncut row of one conversation, and how many earlier turns got no labels.

        ModelError where the template refuses the conversation.
        """
        last = len(conversation) - 1
        pair = self.encoder.encode(conversation[:last], conversation[last].content)
        ids = np.array(pair.prompt + pair.response, dtype=np.int32)
        labels = np.full_like(ids, IGNORED)
        labels[len(pair.prompt) :] = ids[len(pair.prompt) :]
        rewritten = 0
        for place in range(last):
            if conversation[place].role == "assistant" and place:
                rewritten += not self._label_earlier(conversation, place, ids, labels)
        return Labelled(ids, labels), rewritten

    def _label_earlier(self, conversation: Conversation, place: int, ids: Ids, labels: Ids) -> bool:
        """Label an earlier assistant turn; False where it does not stand in the ids as it was written."""
        pair = self.encoder.encode(conversation[:place], conversation[place].content)
        begin, end = len(pair.prompt), len(pair.prompt) + len(pair.response)
        if not np.array_equal(ids[:end], np.array(pair.prompt + pair.response, dtype=np.int32)):
            return False
        labels[begin:end] = ids[begin:end]
        return True


def end_token(tokenizer: Any, template: ChatTemplate) -> int:
    """Return the one token that ends an assistant's turn.

    Raises:
        ModelError: the template ends a turn with text that is no token of its own, or not at all.
    """
    text = template.end_of_turn
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    if len(ids) == 1 and ids[0] in {*tokenizer.get_added_vocab().values(), tokenizer.eos_token_id}:
        return int(ids[0])
    raise ModelError(
        f"The template '{template.name}' ends a turn with {text!r}, which this tokenizer cuts into "
        f"{len(ids)} ordinary tokens: expected a control token, for the student must learn when to stop. "
        "Choose another template, or `plain`, which ends with the tokenizer's end of sequence."
    )
