"""Measure likelihoods with a transformers model: packed, and never a whole matrix of logits."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import Measured, TokenizedPair, TokenMeasure
from preceptor.engines.loading import load_model
from preceptor.engines.models import LocatedModel
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.body import RUNTIME, PackedEngine
from preceptor.engines.packed.check import NotPackable
from preceptor.engines.packed.head import Head, TokenTensors, fold_logits
from preceptor.engines.packed.memory import release_memory

if TYPE_CHECKING:
    import torch


class TransformersLikelihood(PackedEngine[Measured]):
    """Likelihoods under a loaded `AutoModelForCausalLM`, on the device it lies on."""

    measures: ClassVar[tuple[TokenMeasure, ...]] = ("nll", "rank", "entropy")

    @classmethod
    def load(cls, located: LocatedModel, student: Student, runtime: Runtime) -> Self:
        """Return the engine over the student's weights; ModelError where they cannot be loaded."""
        dtype = runtime.resolved_dtype(student.dtype)
        return cls(load_model(located, dtype=dtype, device=runtime.resolved_device()), runtime)

    def __init__(self, model: Any, runtime: Runtime = RUNTIME, *, packed: bool = True) -> None:
        self.head = _head_of(model, next(model.parameters()).device.type)
        super().__init__(model, runtime, packed=packed)

    def release(self) -> None:
        """Free the model's memory."""
        self.model = self.head = None
        release_memory(self.device.type)

    def _read_off(
        self, context: PackContext, hidden: "torch.Tensor", pairs: Sequence[TokenizedPair]
    ) -> list[Measured]:
        import torch

        if self.head is None:
            raise NotPackable("its output layer is not linear")
        rows: list[torch.Tensor] = []
        targets: list[int] = []
        order: list[int] = []
        for group in context.pack.groups:
            last = self._last_prompt_state(context, group, hidden)
            for branch in group.branches:
                rows.extend((last, hidden[branch.start : branch.stop]))
                targets.extend(pairs[branch.index].response)
                order.append(branch.index)
        statistics = self.head.statistics(
            torch.cat(rows), torch.tensor(targets, device=self.device, dtype=torch.long)
        )
        return _by_pair(order, statistics, pairs)

    def _plainly(self, index: int, pair: TokenizedPair) -> Measured:
        """Return one pair's statistics from the model's own forward pass and full logits."""
        import torch

        count = len(pair.response)
        # The last token predicts nothing, but it may be the one that makes the sequence a long one.
        ids = self._sequence(pair) if self._stretches(pair) else pair.prompt + pair.response[:-1]
        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                use_cache=False,
                **self._only_last(count + 1),
            ).logits[0]
            first = len(pair.prompt) - 1 - (len(ids) - len(logits))
            targets = torch.tensor(pair.response, device=self.device)
            statistics = fold_logits(logits[first : first + count], targets)
        (found,) = _by_pair([0], statistics, [pair])
        return replace(found, index=index)

    def _only_last(self, count: int) -> dict[str, int]:
        """Return the option that asks for the logits of the last tokens alone, where the model has it."""
        options = inspect.signature(self.model.forward).parameters
        return {"logits_to_keep": count} if "logits_to_keep" in options else {}

    def _sequence(self, pair: TokenizedPair) -> tuple[int, ...]:
        return pair.prompt + pair.response

    def _numbers(self, found: Measured) -> Sequence[float]:
        numbers: list[float] = found.columns["nll"].tolist()
        return numbers


def _by_pair(
    order: Sequence[int], statistics: TokenTensors, pairs: Sequence[TokenizedPair]
) -> list[Measured]:
    """Bring token statistics over from the device in one transfer, and cut them into the pairs' columns."""
    import torch

    table = torch.stack(list(statistics)).cpu().numpy()
    stops = np.cumsum([len(pairs[index].response) for index in order])
    parts = np.split(table, stops[:-1], axis=1)
    return [
        Measured(index, dict(zip(TokenTensors._fields, part, strict=True)))
        for index, part in zip(order, parts, strict=True)
    ]


def _head_of(model: Any, device: str) -> Head | None:
    """Return the model's output layer, or None where it is not a plain linear layer."""
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if weight is None or weight.dim() != 2:
        return None
    config = model.config
    multiplier = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    rows, columns = (1024, 1024) if device == "cpu" else (4096, 16384)
    return Head(
        weight.detach(),
        bias=getattr(layer, "bias", None),
        scale=float(multiplier) / float(divisor),
        softcap=getattr(config, "final_logit_softcapping", None),
        rows=rows,
        columns=columns,
    )
