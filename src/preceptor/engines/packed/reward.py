"""Score whole conversations with a reward model: packed like likelihoods, read off at the last token.

A sequence classifier looks at one position: the last token that is not padding. Packs have no padding, so
that position is known and no mask is needed; conversations that share their prompt share its computation.
Models with code or heads of their own (ArmoRM, encoders) go through their own forward pass, one by one.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.loading import is_of_the_library
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.body import RUNTIME, PackedEngine
from preceptor.engines.packed.check import NotPackable
from preceptor.errors import ModelError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_UNREAD = (0,)
"""Packs leave out a response's last token, because it predicts nothing; here the one before it counts."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """The score of the conversation at `index`; NaN where there is none, and why, where that is known."""

    index: int
    score: float
    note: str = ""


class TransformersReward(PackedEngine[Rewarded]):
    """Scores under a loaded `AutoModelForSequenceClassification` with one label.

    `typed`: prompt and response are two segments, and the model is told which one each token is of.
    """

    def __init__(
        self, model: Any, runtime: Runtime = RUNTIME, *, packed: bool = True, typed: bool = False
    ) -> None:
        self.typed = typed
        # A forward pass of somebody else's code may do more than apply the head.
        self.head = getattr(model, "score", None) if is_of_the_library(model) else None
        super().__init__(model, runtime, packed=packed)

    def score(self, conversations: Sequence[TokenizedPair]) -> Iterator[list[Rewarded]]:
        """Yield the score of every conversation once, a batch at a time, in any order.

        A conversation is `prompt + response`, both as tokens; the prompt is what others may share.
        """
        yield from self.measure(
            [TokenizedPair(one.prompt, one.response + _UNREAD) for one in conversations]
        )

    def _read_off(
        self, context: PackContext, hidden: "torch.Tensor", pairs: Sequence[TokenizedPair]
    ) -> list[Rewarded]:
        import torch

        if self.head is None:
            raise NotPackable("it is a classifier without a head named score")
        states, order = [], []
        for group in context.pack.groups:
            last = self._last_prompt_state(context, group, hidden)
            for branch in group.branches:
                back = self._padding_behind(pairs[branch.index])
                place = branch.stop - 1 - back
                states.append(last if place < branch.start else hidden[place : place + 1])
                order.append(branch.index)
        scores = self.head(torch.cat(states))[:, 0].float().tolist()
        return [Rewarded(index, score) for index, score in zip(order, scores, strict=True)]

    def _padding_behind(self, pair: TokenizedPair) -> int:
        """Return how many tokens at the end are the padding token, which classifiers look past.

        It happens where the padding token also ends turns; the model was trained with that reading.
        """
        padding = getattr(self.model.config, "pad_token_id", None)
        ids = pair.response[:-1]
        count = 0
        while padding is not None and count < len(ids) and ids[-1 - count] == padding:
            count += 1
        return count

    def _plainly(self, index: int, pair: TokenizedPair) -> Rewarded:
        import torch

        ids = torch.tensor([self._sequence(pair)], device=self.device)
        options = {}
        if self.typed:
            segment = torch.arange(ids.shape[1], device=self.device) >= len(pair.prompt)
            options["token_type_ids"] = segment.long()[None]
        with torch.inference_mode():
            output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        # ArmoRM's own code gives its preference score under this name, and its logits mean something else.
        score = getattr(output, "score", None)
        values = output.logits if score is None else score
        if values.numel() != 1:
            raise ModelError(
                f"{type(self.model).__name__} gives {values.numel()} numbers for a conversation, expected "
                "one score. Give a model that was trained as a reward model."
            )
        return Rewarded(index, float(values.float().reshape(-1)[0]))

    def _sequence(self, pair: TokenizedPair) -> tuple[int, ...]:
        return pair.prompt + pair.response[:-1]

    def _numbers(self, found: Rewarded) -> Sequence[float]:
        return (found.score,)
