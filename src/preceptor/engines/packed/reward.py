"""Score whole conversations with a reward model: packed like likelihoods, read off at the last token.

A sequence classifier looks at one position: the last token that is not padding. Packs have no padding, so
that position is known and no mask is needed; conversations that share their prompt share its computation.
Models with code or heads of their own (ArmoRM, encoders) go through their own forward pass, one by one.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.models import LocatedModel, quieten_loading, require_device
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.body import RUNTIME, PackedEngine
from preceptor.errors import ModelError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_PROBE_TOLERANCE = {"torch.float32": 2e-3, "torch.float16": 0.02, "torch.bfloat16": 0.1}
_UNREAD = (0,)
"""Packs leave out a response's last token, because it predicts nothing; here the one before it counts."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """The score of the conversation at `index`; NaN where the model gave no number."""

    index: int
    score: float


class TransformersReward(PackedEngine[Rewarded]):
    """Scores under a loaded `AutoModelForSequenceClassification` with one label."""

    def __init__(self, model: Any, runtime: Runtime = RUNTIME, *, packed: bool = True) -> None:
        # A forward pass of somebody else's code may do more than apply the head.
        self.head = getattr(model, "score", None) if _is_of_the_library(model) else None
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
            raise NotImplementedError("a classifier without a head named score")
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

        ids = torch.tensor([pair.prompt + pair.response[:-1]], device=self.device)
        with torch.inference_mode():
            output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        # ArmoRM's own code gives its preference score under this name, and its logits mean something else.
        score = getattr(output, "score", None)
        values = output.logits if score is None else score
        if values.numel() != 1:
            raise ModelError(
                f"{type(self.model).__name__} gives {values.numel()} numbers for a conversation, expected "
                "one score. Give a model that was trained as a reward model."
            )
        return Rewarded(index, float(values.float().reshape(-1)[0]))

    def _alike(self, packed: Sequence[Rewarded], plain: Sequence[Rewarded]) -> bool:
        limit = _PROBE_TOLERANCE.get(str(self.model.dtype), 0.3)
        return all(
            math.isclose(one.score, other.score, rel_tol=limit, abs_tol=limit)
            or (math.isnan(one.score) and math.isnan(other.score))
            for one, other in zip(packed, plain, strict=True)
        )


def _is_of_the_library(model: Any) -> bool:
    return type(model).__module__.startswith("transformers.")


def load_reward_model(
    located: LocatedModel, *, dtype: str, device: str, trust_remote_code: bool = False
) -> Any:
    """Return the sequence classifier, in `dtype`, on `device`, ready for inference.

    `trust_remote_code` lets code from the model's repository run, which some reward models need.

    Raises:
        ModelError: the weights or the device cannot be used, the score head is not among the weights, or the
            model gives more than one number.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    require_device(device)
    quieten_loading()
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            located.source,
            revision=located.revision,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        model = model.to(device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_refusal(located, error, trust_remote_code=trust_remote_code)) from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"'{located.name}' is no reward model: {', '.join(missing[:3])} is not among its weights and "
            "would be random numbers. Give a model that was trained to score, with its score head."
        )
    if _is_of_the_library(model) and model.config.num_labels != 1:
        raise ModelError(
            f"'{located.name}' gives {model.config.num_labels} numbers, expected one score. A reward "
            "model is a sequence classifier with one label."
        )
    return model.eval()


def _refusal(located: LocatedModel, error: Exception, *, trust_remote_code: bool) -> str:
    wants_code = "trust_remote_code" in str(error)
    if wants_code and not trust_remote_code:
        return (
            f"'{located.name}' needs code from its repository to run. Read that code; if you trust it, "
            "allow it with --trust-remote-code."
        )
    return f"'{located.name}' cannot be loaded as a reward model: {error}"
