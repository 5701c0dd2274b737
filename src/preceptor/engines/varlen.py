"""Attention over a whole pack in one call: variable-length attention on a CUDA device in half precision.

Segment by segment, a pack of sixty responses asks the device for hundreds of small steps per layer, and the
device waits for them. Here every prompt and every response is one sequence of a single call; the keys and
values of a prompt are gathered once for each response that follows it.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.packing import Pack

if TYPE_CHECKING:
    import torch

_LEAST_CAPABILITY = (8, 0)
_KNOWN = {"window_size", "scale"}
"""Options without which PyTorch's function cannot say what a layer means (those of 2.10 lack them)."""


class Segments(NamedTuple):
    """The sequences of a pack: where each begins among the queries and keys, (sequences + 1,) each.

    `order` (keys,) names the place of every key among a resumed prompt's tokens followed by the row's.
    """

    queries: NDArray[np.int32]
    keys: NDArray[np.int32]
    order: NDArray[np.int64]


class Sequences(NamedTuple):
    """`Segments` on a device, and the length of the longest."""

    queries: "torch.Tensor"
    keys: "torch.Tensor"
    order: "torch.Tensor"
    most_queries: int
    most_keys: int


def segments(pack: Pack) -> Segments:
    """Return the sequences of a pack, in the order of its row: each prompt in it, then its responses."""
    sequences: list[tuple[int, NDArray[np.int64]]] = []
    remembered = sum(group.prompt_tokens for group in pack.groups if group.resumed)
    for group in pack.groups:
        if group.resumed:
            prompt = np.arange(group.prompt_tokens)
        else:
            prompt = remembered + np.arange(group.start, group.stop)
            sequences.append((len(prompt), prompt))
        for branch in group.branches:
            own = remembered + np.arange(branch.start, branch.stop)
            if len(own):
                sequences.append((len(own), np.concatenate((prompt, own))))
    return Segments(
        _starts([length for length, _ in sequences]),
        _starts([len(keys) for _, keys in sequences]),
        np.concatenate([keys for _, keys in sequences]),
    )


def _starts(lengths: list[int]) -> NDArray[np.int32]:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


def sequences(pack: Pack, device: "torch.device") -> Sequences:
    """Return the sequences of a pack on the device."""
    import torch

    found = segments(pack)
    most = (int(np.diff(starts).max()) for starts in (found.queries, found.keys))
    queries, keys, order = (torch.from_numpy(part).to(device) for part in found)
    return Sequences(queries, keys, order, *most)


def usable(device: "torch.device", dtype: "torch.dtype") -> bool:
    """Whether PyTorch offers the one call here: on a CUDA device in half precision, from 2.11 on."""
    import torch

    half = dtype in (torch.float16, torch.bfloat16)
    if device.type != "cuda" or not half or _attention() is None:
        return False
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


@cache
def _attention() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = inspect.signature(varlen_attn).parameters
    if not set(options) >= _KNOWN:
        return None
    # Later versions want to be told that heads may share keys.
    if "enable_gqa" not in options:
        return varlen_attn
    return partial(varlen_attn, enable_gqa=True)


def attend_at_once(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    sequences: Sequences,
    *,
    scale: float | None,
    window: int | None,
) -> "torch.Tensor":
    """Attend causally within every sequence; (1, tokens, heads, width).

    Shapes: query (1, heads, tokens, width); key and value (1, key heads, places, width), the places being
    those that `sequences.order` names. Queries are the last of their sequence's keys; of these each sees
    itself and the `window - 1` before it, or all.
    """
    attention = _attention()
    assert attention is not None
    keys, values = (part[0].transpose(0, 1)[sequences.order] for part in (key, value))
    out: torch.Tensor = attention(
        query[0].transpose(0, 1).contiguous(),
        keys,
        values,
        sequences.queries,
        sequences.keys,
        sequences.most_queries,
        sequences.most_keys,
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
    )
    return out.unsqueeze(0)
