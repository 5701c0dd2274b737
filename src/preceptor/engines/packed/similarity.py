"""How alike a model's last layer sees the tokens of answer and prompt: one hook in the pass of likelihoods.

With unit vectors the mean cosine over all pairs of tokens is the product of their means, so nothing grows
with the square of a length. SCAS (arXiv 2605.26872) takes the outputs of the last layer's `mlp.up_proj`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from preceptor.engines.packed import attention
from preceptor.errors import ModelError

if TYPE_CHECKING:
    import torch


class Question(NamedTuple):
    """What is kept of a prompt: the mean unit vector and the mean loss of its tokens but the special ones.

    The first token has no loss. Where no token is left, the vector is zero and the loss is NaN.
    """

    direction: "torch.Tensor"
    nll: float


UP_PROJECTION = "mlp.up_proj"


def up_projection(model: Any) -> Any:
    """Return the last layer's `mlp.up_proj`; ModelError where the model has none of that name."""
    layers = [one for name, one in model.named_modules() if name.endswith(UP_PROJECTION)]
    if not layers:
        raise no_up_projection(type(model).__name__)
    return layers[-1]


def no_up_projection(model: str) -> ModelError:
    """Return the refusal of a model without the layer."""
    return ModelError(
        f"{model} has no layer '{UP_PROJECTION}', whose outputs SCAS compares. Leave 'scas' out."
    )


@contextmanager
def watched(layer: Any, special: frozenset[int], elsewhere: "list[torch.Tensor]") -> Iterator[None]:
    """Sum up the unit outputs of `layer` for the segments of the pack being run (`PackContext.outputs`).

    Tokens in `special` are left out. Without a pack all outputs are kept in `elsewhere`.
    """

    def keep(_module: Any, _given: Any, output: "torch.Tensor") -> None:
        import torch

        units = torch.nn.functional.normalize(output[0].float(), dim=-1)
        context = attention.current()
        if context is None:
            elsewhere[:] = [units]
            return
        before = context.row.start if context.row is not None else 0
        for segment in (one for group in context.pack.groups for one in group.segments):
            start, stop = max(segment.start, before), min(segment.stop, before + len(units))
            if start < stop:
                ids = context.pack.ids[start:stop]
                total = _ordinary(units[start - before : stop - before], ids, special).sum(0)
                place = (segment.start, segment.stop)
                context.outputs[place] = context.outputs.get(place, 0) + total

    hook = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def _ordinary(units: "torch.Tensor", ids: Sequence[int], special: frozenset[int]) -> "torch.Tensor":
    import torch

    return units[torch.tensor([token not in special for token in ids], device=units.device)]


def mean_direction(
    units: "torch.Tensor", ids: Sequence[int], special: frozenset[int]
) -> "torch.Tensor":
    """Return the mean of the unit vectors (tokens, width) of the ids that are not special; 0 of none."""
    kept = _ordinary(units, ids, special)
    return kept.sum(0) / max(1, len(kept))


def direction_in_pack(
    context: attention.PackContext, start: int, stop: int, special: frozenset[int]
) -> "torch.Tensor":
    """Return the same of the segment of the pack at `start:stop`."""
    count = sum(token not in special for token in context.pack.ids[start:stop])
    return context.outputs[start, stop] / max(1, count)


def similarities(answer: "torch.Tensor", question: Question) -> dict[str, float]:
    """Return the mean cosines from mean directions, and the prompt's loss; see `Measured`."""
    return {
        "answer_cosine": float(answer @ answer),
        "question_cosine": float(answer @ question.direction),
        "question_nll": question.nll,
    }
