"""Gradients of a response's loss, projected to a few hundred numbers: a pass of its own, for small models.

Random signs for every parameter and every number of the projection would cost minutes a response. So
parameters are first thrown into 8,192 buckets, each with a random sign (the count sketch: Charikar et al.
2002, Weinberger et al. 2009), and only the buckets' sums are projected by random signs (Rademacher). Products
of two gradients are still right on average; their variance is larger by a sixteenth.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.base import TokenizedPair

DIMENSIONS = 512
"""Numbers that a gradient is projected to, as in GRACE (arXiv 2511.02833)."""

BUCKETS = 8192
"""Buckets of the sketch; a power of two, so that bits of random bytes number them."""

BLOCK = 2**20
"""Parameters whose buckets and signs are drawn at once."""


def places_of_block(block: int) -> NDArray[np.uint16]:
    """Return where the parameters from `block * 2**20` on go, (2**20,).

    That is the bucket of each, and 8,192 more where its sign is positive.
    """
    source = np.random.Generator(np.random.SFC64([0, block]))
    drawn: NDArray[np.uint16] = np.frombuffer(source.bytes(2 * BLOCK), "<u2")
    return drawn % np.uint16(2 * BUCKETS)


@cache
def signs_of_buckets() -> NDArray[np.float32]:
    """Return the signs that project the buckets, (buckets, dimensions), each -1 or 1."""
    bits = np.random.Generator(np.random.SFC64(1)).bytes(BUCKETS * DIMENSIONS // 8)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8)).astype(np.float32) * 2 - 1
    return signs.reshape(BUCKETS, DIMENSIONS)


def projected(gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a gradient (parameters,) projected to (dimensions,); its squared length is right on average."""
    sums = np.zeros(2 * BUCKETS)
    for block in range(-(-len(gradient) // BLOCK)):
        part = gradient[block * BLOCK : (block + 1) * BLOCK]
        places = places_of_block(block)[: len(part)]
        sums += np.bincount(places, weights=part, minlength=2 * BUCKETS)
    sketch = sums[BUCKETS:] - sums[:BUCKETS]
    found: NDArray[np.float32] = (sketch @ signs_of_buckets() / DIMENSIONS**0.5).astype(np.float32)
    return found


def projected_gradients(
    model: Any, pairs: Sequence[TokenizedPair], counted: Sequence[Sequence[bool]]
) -> Iterator[NDArray[np.float32]]:
    """Yield of each pair the gradient of its mean loss over `counted` tokens, projected, (dimensions,).

    Parameters stand in the order of the model, tied ones once.
    """
    for pair, counts in zip(pairs, counted, strict=True):
        yield projected(_gradient(model, pair, counts))


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
