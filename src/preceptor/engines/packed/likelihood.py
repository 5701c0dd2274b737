"""Measure likelihoods with a transformers model: packed, and never a whole matrix of logits."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import (
    LikelihoodMeasure,
    Measured,
    TokenizedPair,
    TokenStatistics,
)
from preceptor.engines.loading import load_model
from preceptor.engines.models import LocatedModel
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.body import RUNTIME, PackedEngine
from preceptor.engines.packed.head import Head, TokenTensors, fold_logits
from preceptor.engines.packed.memory import release_memory

if TYPE_CHECKING:
    import torch

_PROBE_TOLERANCE = {"torch.float32": 2e-3, "torch.float16": 0.1, "torch.bfloat16": 0.4}


class TransformersLikelihood(PackedEngine[Measured]):
    """Likelihoods under a loaded `AutoModelForCausalLM`, on the device it lies on."""

    measures: ClassVar[tuple[LikelihoodMeasure, ...]] = ("loss", "token_rank", "entropy")

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
            raise NotImplementedError("an output layer that is not linear")
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
        return self._reduced(order, statistics, pairs)

    def _reduced(
        self, order: list[int], statistics: TokenTensors, pairs: Sequence[TokenizedPair]
    ) -> list[Measured]:
        """Sum token statistics per response on the device and bring them over in one transfer."""
        import torch

        table = torch.stack(list(statistics)).double() if self.device.type != "mps" else None
        table = torch.stack(list(statistics)) if table is None else table
        lengths = [len(pairs[index].response) for index in order]
        parts = torch.split(table, lengths, dim=1)
        sums = torch.stack([part.sum(dim=1) for part in parts]).tolist()
        kept = [part[:2].tolist() if self.runtime.keep_tokens else ((), ()) for part in parts]
        return [
            Measured(index, TokenStatistics(length, *total, *(tuple(column) for column in tokens)))
            for index, length, total, tokens in zip(order, lengths, sums, kept, strict=True)
        ]

    def _plainly(self, index: int, pair: TokenizedPair) -> Measured:
        """Return one pair's statistics from the model's own forward pass and full logits."""
        import torch

        ids = torch.tensor([pair.prompt + pair.response[:-1]], device=self.device)
        targets = torch.tensor(pair.response, device=self.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(targets)).logits
            statistics = fold_logits(logits[0, -len(targets) :], targets)
            return Measured(index, self._reduced([0], statistics, [pair])[0].statistics)

    def _alike(self, packed: Sequence[Measured], plain: Sequence[Measured]) -> bool:
        limit = _PROBE_TOLERANCE.get(str(self.model.dtype), 0.4)
        pairs = [
            (one.statistics, other.statistics) for one, other in zip(packed, plain, strict=True)
        ]
        # A model that only gives NaN gives it either way.
        return all(
            abs(one.nll - other.nll) <= limit * other.tokens
            or (math.isnan(one.nll) and math.isnan(other.nll))
            for one, other in pairs
        )


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
