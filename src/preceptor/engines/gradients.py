"""Gradients of a response's loss, projected to a few hundred numbers: a pass of its own, for small models.

The projection is by random signs (Rademacher), made block by block from a seed and never held whole. Signs
cost more than products, so a few responses share those of a block.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.base import TokenizedPair

DIMENSIONS = 512
"""Numbers that a gradient is projected to, as in GRACE (arXiv 2511.02833)."""

_BLOCK = 8192
"""Parameters whose signs are made at once."""

_HELD = 2**28
"""Entries of gradients held at once: a gigabyte of float32."""


def signs_of_block(block: int) -> NDArray[np.float32]:
    """Return the signs of the parameters from `block * 8192` on, (8192, dimensions), each -1 or 1."""
    source = np.random.Generator(np.random.SFC64([0, block]))
    bits = source.integers(0, 256, (_BLOCK, DIMENSIONS // 8), dtype=np.uint8)
    return np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1


def projected_gradients(
    model: Any, pairs: Sequence[TokenizedPair], counted: Sequence[Sequence[bool]]
) -> Iterator[NDArray[np.float32]]:
    """Yield of each pair the gradient of its mean loss over `counted` tokens, projected, (dimensions,).

    Parameters stand in the order of the model, tied ones once. The squared length is on average that of the
    gradient.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    held = max(1, min(len(pairs), _HELD // size))
    for start in range(0, len(pairs), held):
        part = range(start, min(start + held, len(pairs)))
        rows = np.stack([_gradient(model, pairs[at], counted[at]) for at in part])
        found = np.zeros((len(rows), DIMENSIONS), np.float32)
        for block in range(-(-size // _BLOCK)):
            columns = rows[:, block * _BLOCK : (block + 1) * _BLOCK]
            found += columns @ signs_of_block(block)[: columns.shape[1]]
        yield from found / np.float32(DIMENSIONS**0.5)


def _gradient(model: Any, pair: TokenizedPair, counted: Sequence[bool]) -> NDArray[np.float32]:
    import torch

    parameters = list(model.parameters())
    device = parameters[0].device
    ids = torch.tensor([pair.prompt + pair.response], device=device)
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt) - 1 : -1]
        here = torch.tensor(counted, device=device)
        targets = ids[0, len(pair.prompt) :]
        loss = torch.nn.functional.cross_entropy(logits[here].float(), targets[here])
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [
        torch.zeros(one.numel()) if part is None else part.reshape(-1).float().cpu()
        for one, part in zip(parameters, parts, strict=True)
    ]
    gradient: NDArray[np.float32] = torch.cat(flat).numpy()
    return gradient
