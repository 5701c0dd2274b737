"""Attention over a whole pack in one call: variable-length attention on a CUDA device in half precision.

Segment by segment, a pack of sixty responses asks the device for hundreds of small steps per layer, and the
device waits for them. Here every prompt and every response is one sequence of a single call; the keys and
values of a prompt are gathered once for each response that follows it.

PyTorch's documentation does not say how queries and keys of different length are aligned, nor whether a
window counts the query itself. So the call is tried against the definition once, before it is relied on.
"""

import inspect
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.packed.packing import Pack

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_KNOWN = {"window_size", "scale"}
"""Options without which PyTorch's function cannot say what a layer means (those of 2.10 lack them)."""

_MOST_KEYS = 2**18
"""Keys that may be gathered: with 8 heads of width 128 they and their values take a gigabyte."""

_MOST_SEQUENCES = 2**16 - 1
"""What one call may be given, by the size of a CUDA grid."""


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


def fits(pack: Pack) -> bool:
    """Whether the keys of all its sequences can be gathered: many answers to a long prompt repeat it."""
    answers = sum(len(group.branches) for group in pack.groups)
    repeated = sum(len(group.branches) * group.prompt_tokens for group in pack.groups)
    few = answers + len(pack.groups) <= _MOST_SEQUENCES
    return few and repeated + len(pack.ids) <= _MOST_KEYS


def segments(pack: Pack) -> Segments:
    """Return the sequences of a pack, in the order of its row: each prompt in it, then its responses."""
    sequences: list[tuple[int, NDArray[np.int64]]] = []
    first = pack.groups[0]
    remembered = first.prompt_tokens if first.resumed else 0
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


@cache
def usable(device: "torch.device", dtype: "torch.dtype") -> bool:
    """Whether the one call is right here: on a CUDA device in half precision, with PyTorch from 2.11 on."""
    import torch

    half = dtype in (torch.float16, torch.bfloat16)
    if device.type != "cuda" or not half or _attention() is None:
        return False
    try:
        right = _is_right(device, dtype)
    except torch.OutOfMemoryError:
        raise
    # A device that is too old for it, or another maker's, or a version with another signature.
    except (RuntimeError, TypeError, ValueError) as error:
        logger.info("packs are attended to segment by segment, which is slower: %s", error)
        return False
    if not right:
        logger.info("packs are attended to segment by segment: variable-length attention is wrong")
    return right


def _is_right(device: "torch.device", dtype: "torch.dtype") -> bool:
    """Whether 3 queries over 7 keys and 5 over 5, with and without a window, give what is defined."""
    import torch

    queries, keys = (
        torch.tensor(starts, dtype=torch.int32, device=device) for starts in ((0, 3, 8), (0, 7, 12))
    )
    both = Sequences(queries, keys, torch.arange(12, device=device), most_queries=5, most_keys=7)
    source = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, tokens, 64, generator=source, device=device, dtype=dtype)
        for heads, tokens in ((4, 8), (2, 12), (2, 12))
    )
    return all(
        torch.allclose(
            attend_at_once(query, key, value, both, scale=0.3, window=window).float(),
            torch.cat(
                [
                    _defined(query[:, :, :3], key[:, :, :7], value[:, :, :7], window),
                    _defined(query[:, :, 3:], key[:, :, 7:], value[:, :, 7:], window),
                ],
                dim=1,
            ),
            rtol=0.02,
            atol=0.02,
        )
        for window in (None, 2, 4)
    )


def _defined(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", window: int | None
) -> "torch.Tensor":
    """Return causal attention by its definition at the scale 0.3; (1, tokens, heads, width), float32."""
    import torch

    length, total = query.shape[2], key.shape[2]
    keys, values = (part.float().repeat_interleave(2, dim=1) for part in (key, value))
    ago = torch.arange(total - length, total).unsqueeze(1) - torch.arange(total)
    seen = ((ago >= 0) & (ago < (window or total))).to(query.device)
    scores = 0.3 * query.float() @ keys.transpose(-1, -2)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ values).transpose(1, 2)


@cache
def _attention() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    options = inspect.signature(varlen_attn).parameters
    if not set(options) >= _KNOWN:
        return None
    # Later versions must be asked to let heads share keys.
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
