"""Measure likelihoods with a transformers model: packed, and never a whole matrix of logits."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import NOTHING, Extra, Measured, Numbers, TokenizedPair
from preceptor.engines.loading import load_model
from preceptor.engines.models import LocatedModel
from preceptor.engines.packed import similarity
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.body import RUNTIME, PackedEngine
from preceptor.engines.packed.check import NotPackable
from preceptor.engines.packed.head import Head, TokenTensors, fold_logits
from preceptor.engines.packed.memory import release_memory
from preceptor.engines.packed.packing import Branch, Group

if TYPE_CHECKING:
    import torch


_MOST_LOGITS = 2**26
"""Logits that a plain pass may hold at once: a quarter of a gigabyte in float32."""

Predictions = Callable[[Sequence[int], "torch.Tensor", bool], TokenTensors]
"""From places and the tokens that follow them to statistics; True asks for those of the likeliest too."""


class TransformersLikelihood(PackedEngine[Measured]):
    """Likelihoods under a loaded `AutoModelForCausalLM`, on the device it lies on."""

    measures: ClassVar[tuple[str, ...]] = (
        *("nll", "rank", "brier"),
        *("brier_50", "similarity", "gradient"),
    )

    @classmethod
    def load(cls, located: LocatedModel, student: Student, runtime: Runtime) -> Self:
        """Return the engine over the student's weights; ModelError where they cannot be loaded."""
        dtype = runtime.resolved_dtype(student.dtype)
        return cls(load_model(located, dtype=dtype, device=runtime.resolved_device()), runtime)

    def __init__(self, model: Any, runtime: Runtime = RUNTIME, *, packed: bool = True) -> None:
        self.head = _head_of(model, next(model.parameters()).device.type)
        self.extra = NOTHING
        super().__init__(model, runtime, packed=packed)

    def release(self) -> None:
        """Free the model's memory."""
        self.model = self.head = None
        release_memory(self.device.type)

    def measure(
        self, pairs: Sequence[TokenizedPair], extra: Extra = NOTHING
    ) -> Iterator[list[Measured]]:
        """Yield every pair's columns once, and its similarities where these are extra."""
        self.extra = extra
        if "similarity" not in extra.measures:
            yield from super().measure(pairs)
            return
        # The last token of a response predicts nothing and would not be run: one more stands after it.
        longer = [
            TokenizedPair(
                pair.prompt, (*pair.response, pair.response[-1]), (*_counted(pair), False)
            )
            for pair in pairs
        ]
        self.watched: list[torch.Tensor] = []
        layer = similarity.up_projection(self.model)
        with similarity.watched(layer, extra.special, self.watched):
            for batch in super().measure(longer):
                yield [replace(one, columns=_but_last(one.columns)) for one in batch]

    @property
    def _top(self) -> bool:
        return "brier_50" in self.extra.measures

    def _read_off(
        self, context: PackContext, hidden: "torch.Tensor", pairs: Sequence[TokenizedPair]
    ) -> list[Measured]:
        import torch

        if self.head is None:
            raise NotPackable("its output layer is not linear")
        rows: list[torch.Tensor] = []
        targets: list[int] = []
        order: list[int] = []
        alike: list[dict[str, float]] = []
        for group in context.pack.groups:
            last = self._last_prompt_state(context, group, hidden)
            question = self._of_prompt(context, group, hidden)
            for branch in group.branches:
                pair = pairs[branch.index]
                rows.extend(_predicting(last, hidden[branch.start : branch.stop], pair))
                targets.extend(compress(pair.response, _counted(pair)))
                order.append(branch.index)
                if question is not None:
                    answer = self._direction(context, branch)
                    alike.append(similarity.similarities(answer, question))
        statistics = self.head.statistics(
            torch.cat(rows),
            torch.tensor(targets, device=self.device, dtype=torch.long),
            top=self._top,
        )
        found = _by_pair(order, statistics, pairs)
        if not alike:
            return found
        return [replace(one, values=of) for one, of in zip(found, alike, strict=True)]

    def _direction(self, context: PackContext, segment: Group | Branch) -> "torch.Tensor":
        return similarity.direction_in_pack(
            context, segment.start, segment.stop, self.extra.special
        )

    def _of_prompt(
        self, context: PackContext, group: Group, hidden: "torch.Tensor"
    ) -> similarity.Question | None:
        """Return what similarities need of a prompt, where they are wanted; a resumed one was looked at."""
        import torch

        if "similarity" not in self.extra.measures:
            return None
        if group.resumed:
            assert context.resumed is not None
            kept: similarity.Question = context.resumed.question
            return kept
        if self.head is None:
            raise NotPackable("its output layer is not linear")
        span = slice(group.start, group.stop)
        ids = context.pack.ids[span]
        direction = self._direction(context, group)
        places = [at for at, token in enumerate(ids) if at and token not in self.extra.special]
        if not places:
            return similarity.Question(direction, math.nan)
        targets = torch.tensor([ids[at] for at in places], device=self.device)
        before = torch.tensor([group.start + at - 1 for at in places], device=self.device)
        return similarity.Question(
            direction, float(self.head.statistics(hidden[before], targets).nll.double().mean())
        )

    def _plainly(self, index: int, pair: TokenizedPair) -> Measured:
        """Return one pair's statistics from the model's own forward pass."""
        import torch

        count = len(pair.response)
        # The last token predicts nothing, but it may be the one that makes the sequence a long one.
        ids = self._sequence(pair) if self._stretches(pair) else pair.prompt + pair.response[:-1]
        alike = "similarity" in self.extra.measures
        with torch.inference_mode():
            predicted = self._predictions(ids, len(ids) if alike else count + 1)
            counted = tuple(compress(pair.response, _counted(pair)))
            targets = torch.tensor(counted, device=self.device, dtype=torch.long)
            first = len(pair.prompt) - 1
            places: Sequence[int] = range(first, first + count)
            if pair.counted is not None:
                places = list(compress(places, pair.counted))
            question = self._of_plain_prompt(pair.prompt, predicted) if alike else None
            statistics = predicted(places, targets, self._top)
        (found,) = _by_pair([0], statistics, [pair])
        if question is None:
            return replace(found, index=index)
        span = slice(len(pair.prompt), len(pair.prompt) + count - 1)
        answer = similarity.mean_direction(self.watched[0][span], ids[span], self.extra.special)
        return replace(found, index=index, values=similarity.similarities(answer, question))

    def _predictions(self, ids: Sequence[int], count: int) -> "Predictions":
        """Run the model; return what gives statistics of targets that follow places among the last `count`.

        Where the logits would be large they are taken from the last hidden states, a tile at a time, if the
        output layer is seen to give the model's own for the last token.
        """
        import torch

        options = self._only_last(1)
        large = count * self.model.get_input_embeddings().weight.shape[0] > _MOST_LOGITS
        given = torch.tensor([ids], device=self.device)
        if large and options and self.head is not None:
            states: list[torch.Tensor] = []
            hook = self.model.base_model.register_forward_hook(
                lambda _module, _given, out: states.append(out[0])
            )
            try:
                last = self.model(input_ids=given, use_cache=False, **options).logits[0, -1]
            finally:
                hook.remove()
            head, hidden = self.head, states[0][0]
            out = hidden.new_empty((1, len(last)))
            own = head.logits(hidden[-1:], 0, out)[0]
            if torch.allclose(own, last.float(), rtol=1e-3, atol=1e-3 * float(last.abs().max())):
                return lambda places, targets, top: head.statistics(
                    hidden[list(places)], targets, top=top
                )
        logits = self.model(input_ids=given, use_cache=False, **self._only_last(count)).logits[0]
        before = len(ids) - len(logits)

        def fold(places: Sequence[int], targets: "torch.Tensor", top: bool) -> TokenTensors:
            if isinstance(places, range):  # a list of places is copied, a span is not
                here = logits[places.start - before : places.stop - before]
            else:
                here = logits[[at - before for at in places]]
            return fold_logits(here, targets, top=top)

        return fold

    def _of_plain_prompt(
        self, prompt: Sequence[int], predicted: "Predictions"
    ) -> similarity.Question:
        import torch

        special = self.extra.special
        units = self.watched[0][: len(prompt)]
        direction = similarity.mean_direction(units, prompt, special)
        places = [at for at, token in enumerate(prompt) if at and token not in special]
        if not places:
            return similarity.Question(direction, math.nan)
        targets = torch.tensor([prompt[at] for at in places], device=self.device)
        nll = predicted([at - 1 for at in places], targets, False).nll
        return similarity.Question(direction, float(nll.double().mean()))

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

    given = {name: one for name, one in statistics._asdict().items() if one is not None}
    table = torch.stack(list(given.values())).cpu().numpy()
    counted = [np.array(_counted(pairs[index])) for index in order]
    parts = np.split(table, np.cumsum([one.sum() for one in counted])[:-1], axis=1)
    found = []
    for index, part, where in zip(order, parts, counted, strict=True):
        whole = np.full((len(given), len(where)), np.nan, np.float32)
        whole[:, where] = part
        found.append(Measured(index, dict(zip(given, whole, strict=True))))
    return found


def _counted(pair: TokenizedPair) -> tuple[bool, ...]:
    return (True,) * len(pair.response) if pair.counted is None else pair.counted


def _predicting(
    last: "torch.Tensor", states: "torch.Tensor", pair: TokenizedPair
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return the states that stand before a response's counted tokens.

    Those are the prompt's `last` (1, width), and the response's own (tokens, width) but for its last token's.
    """
    if pair.counted is None:
        return last, states
    first, *others = pair.counted
    return last[: int(first)], states[[at for at, counts in enumerate(others) if counts]]


def _but_last(columns: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {name: column[:-1] for name, column in columns.items()}


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
