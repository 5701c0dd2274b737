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


def up_projection(model: Any) -> Any:
    """Return the last layer's `mlp.up_proj`; ModelError where the model has none of that name."""
    layers = [one for name, one in model.named_modules() if name.endswith("mlp.up_proj")]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no layer 'mlp.up_proj', whose outputs SCAS compares. Leave "
            "'scas' out."
        )
    return layers[-1]


@contextmanager
def watched(layer: Any, elsewhere: "list[torch.Tensor]") -> Iterator[None]:
    """Keep the unit outputs of `layer` with the pack being run, without one in `elsewhere`."""

    def keep(_module: Any, _given: Any, output: "torch.Tensor") -> None:
        import torch

        context = attention.current()
        kept = elsewhere if context is None else context.outputs
        kept[:] = [torch.nn.functional.normalize(output[0].float(), dim=-1)]

    hook = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def mean_direction(
    units: "torch.Tensor", ids: Sequence[int], special: frozenset[int]
) -> "torch.Tensor":
    """Return the mean of the unit vectors (tokens, width) of the ids that are not special; 0 of none."""
    import torch

    keep = torch.tensor([token not in special for token in ids], device=units.device)
    kept = units[keep]
    return kept.mean(0) if len(kept) else torch.zeros_like(units[:1].sum(0))


def similarities(answer: "torch.Tensor", question: Question) -> dict[str, float]:
    """Return the mean cosines from mean directions, and the prompt's loss; see `Measured`."""
    return {
        "answer_cosine": float(answer @ answer),
        "question_cosine": float(answer @ question.direction),
        "question_nll": question.nll,
    }
