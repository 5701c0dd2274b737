"""Run a row that is longer than a pack in pieces: layer by layer, and within each layer piece by piece.

What a layer writes for the length of a row is then its output alone, and it takes the place of the input;
all else is as long as a piece. Of keys and values those of one layer are held. Running all layers of a piece
before the next piece would need them of every layer, which for most models is more than a whole pass takes.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from preceptor.engines.packed import attention


def take_pieces(model: Any) -> bool:
    """Let the layers of `model` and the norm behind them take long rows in pieces; False: none are found."""
    from torch.nn import ModuleList

    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    for parent in model.base_model.modules():
        children = list(parent.children())
        layers = [one for one in children if isinstance(one, ModuleList) and len(one) == count]
        if not layers:
            continue
        norms = [one for one in children if "norm" in type(one).__name__.lower()]
        for module in (*layers[0], *norms):
            module.forward = _in_pieces(module.forward)
        return True
    return False


def _in_pieces(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return `forward` of a module that takes hidden states (1, tokens, width) first and gives such."""

    @wraps(forward)
    def run(*given: Any, **options: Any) -> Any:
        context = attention.current()
        row = None if context is None else context.row
        if row is None:
            return forward(*given, **options)
        hidden = given[0]
        tokens = hidden.shape[1]
        for start in range(0, tokens, row.size):
            row.start = start
            span = slice(start, start + row.size)
            out = forward(*_cut(given, span, tokens), **_cut(options, span, tokens))
            first, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
            hidden[:, span] = (
                first  # no later piece reads it: what they see of this one are its keys
            )
        return hidden if rest is None else (hidden, *rest)

    return run


def _cut(value: Any, span: slice, tokens: int) -> Any:
    """Return what belongs to the tokens of `span`, wherever one of the first two axes is that of tokens."""
    import torch

    if isinstance(value, tuple):
        return tuple(_cut(one, span, tokens) for one in value)
    if isinstance(value, dict):
        return {name: _cut(one, span, tokens) for name, one in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if value.dim() > 1 and value.shape[1] == tokens:
        return value[:, span]
    return value[span] if value.dim() == 1 and len(value) == tokens else value
