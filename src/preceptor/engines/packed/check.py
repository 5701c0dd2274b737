"""Whether a model may be packed: first by what its layers are, then by its numbers.

Packing is right where each token depends on those before it through attention alone, and on nothing else in
the row. Layers that hold a state, position biases and a choice among keys are recognised by their structure
and refused. Whatever is not known here is found by its numbers: token by token, a probe must give what the
model's own pass gives, up to a few times the noise of that pass. The noise is measured, because it differs by
orders of magnitude between types and models: the pass is repeated by the other way of attending, with every
step's result moved by about one unit in its last place.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.base import TokenizedPair

PROBE_BUDGET = 45
"""Tokens in one pack of the probe; see `probe_pairs`."""

PROBE_PIECE = 30
"""Longer rows of the probe are run in pieces of this many tokens: some of its rows are, and some are not."""

_PROBE_WINDOW = 8
"""Longer sliding windows are this long while the probe runs, so that it crosses them."""

_FIRST = 4
"""Tokens at the beginning of a response that are judged apart: a state that leaks is felt most there."""

_TIMES_NOISE = 4.0
_FLOOR = {"torch.float32": 1e-4, "torch.float16": 1e-3, "torch.bfloat16": 4e-3}
"""Nats that may lie between two ways of computing whatever the measured noise is."""
_MOST_NOISE = {"torch.float32": 0.02, "torch.float16": 0.1, "torch.bfloat16": 0.5}
"""Nats of noise, root mean square, beyond which the numbers of a probe can prove nothing."""

_ATTENDS = {"full_attention", "sliding_attention"}
_HOLDS_STATE = re.compile(
    r"mamba|rwkv|recurrent|rglru|lstm|deltanet|linearattention|lightning|shortconv|retention",
    re.I,
)
_CHOOSES_KEYS = ("attention_chunk_size", "index_topk")


class NotPackable(Exception):
    """The model's packed pass cannot be right; the text says why, the rest of a sentence."""


def refused_by_structure(model: Any) -> str | None:
    """Return why the model's layers rule packing out, the rest of a sentence; None where they do not."""
    config = model.config.get_text_config()
    settings = {**config.to_dict(), **_as_dict(getattr(config, "attn_config", None))}
    strange = sorted(set(settings.get("layer_types") or ()) - _ATTENDS)
    if strange:
        return f"it has layers of the kind {', '.join(strange)}"
    for module in model.base_model.modules():
        name = type(module).__name__
        if name == "Conv1d" or _HOLDS_STATE.search(name):
            return f"its {name} layers hold a state"
    # Some say in their config whether they have it; Bloom has nothing else.
    if settings.get("alibi", any("alibi" in name for name in dir(model.base_model))):
        return "its positions are biases of attention (ALiBi)"
    for name in _CHOOSES_KEYS:
        if settings.get(name):
            return f"its layers choose among the tokens before ({name})"
    if not model._can_set_attn_implementation():
        return "its attention does not go through the interface of transformers"
    return None


def _as_dict(part: Any) -> dict[str, Any]:
    return {} if part is None else part if isinstance(part, dict) else dict(part.to_dict())


def length_that_changes_positions(config: Any) -> int | None:
    """Return the most tokens of a sequence before its own length changes how positions are encoded.

    Beyond it rotary embeddings of the types longrope and dynamic have other frequencies, for all tokens of
    the call: those of the longest position in it. None for models whose encoding knows no length.
    """
    config = config.get_text_config()
    scaling = (
        getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    )
    limits = []
    for part in (scaling, *(value for value in scaling.values() if isinstance(value, dict))):
        kind = str(part.get("rope_type", part.get("type", "")))
        if kind == "longrope":
            own = part.get("original_max_position_embeddings")
            limits.append(own or getattr(config, "original_max_position_embeddings", None))
        if "dynamic" in kind:
            limits.append(config.max_position_embeddings)
    return min((limit for limit in limits if limit), default=None)


def forget_lengths(model: Any) -> None:
    """Undo what a long sequence leaves behind in rotary embeddings of the type dynamic.

    Their frequencies stay those of the longest sequence so far until a much shorter one comes, so a
    sequence's numbers would depend on what was run before it.
    """
    for module in model.modules():
        if not hasattr(module, "max_seq_len_cached"):
            continue
        for name in [each for each in dir(module) if each.endswith("original_inv_freq")]:
            original = getattr(module, name)
            current = getattr(module, name.replace("original_", ""))
            module.register_buffer(
                name.replace("original_", ""),
                original.to(current.device, copy=True),
                persistent=False,
            )
            setattr(
                module,
                name.replace("original_inv_freq", "max_seq_len_cached"),
                module.original_max_seq_len,
            )


def probe_pairs(vocabulary: int) -> list[TokenizedPair]:
    """Return pairs that meet every shape of a pack at `PROBE_BUDGET`.

    The first prompt is resumed by two packs of two responses each; the others share a row, the one with two
    responses, the other with one. Half of a response repeats its prompt, as what a model copies shows best
    what it attends to.
    """
    ids = [(7919 * step + 11) % vocabulary for step in range(64)]
    first, second, third = tuple(ids[:20]), tuple(ids[20:26]), tuple(ids[26:28])
    prompts = (first, second, first, third, first, second, first)
    pairs = []
    for prompt, start in zip(prompts, range(14, 56, 6), strict=True):
        copied = (prompt * 9)[start % len(prompt) :][:7]
        pairs.append(TokenizedPair(prompt, tuple(ids[start : start + 6]) + copied))
    return pairs


@contextmanager
def narrow_windows(model: Any) -> Iterator[None]:
    """Let sliding windows be so short that a probe of some tokens crosses them."""
    places = [model.config, model.config.get_text_config(), *model.modules()]
    wide = {
        id(place): (place, place.sliding_window)
        for place in places
        if isinstance(getattr(place, "sliding_window", None), int)
        and place.sliding_window > _PROBE_WINDOW
    }
    try:
        for place, _ in wide.values():
            place.sliding_window = _PROBE_WINDOW
        yield
    finally:
        for place, window in wide.values():
            place.sliding_window = window


@contextmanager
def rounding_otherwise(model: Any) -> Iterator[None]:
    """Move what every step of the model gives by up to one unit in the last place, at random."""
    import torch

    def moved(_module: Any, _given: Any, out: Any, *, seed: int) -> Any:
        if not isinstance(out, torch.Tensor) or not out.is_floating_point():
            return None
        # A source for each module: passes may run side by side, and must draw the same in any order.
        source = torch.Generator(out.device).manual_seed(seed)
        moves = torch.rand(out.shape, generator=source, device=out.device).mul_(2).sub_(1)
        return out.float().mul_(moves.mul_(torch.finfo(out.dtype).eps).add_(1)).to(out.dtype)

    with ExitStack() as stack:
        for place, module in enumerate(model.modules()):
            if next(module.children(), None) is None:
                stack.enter_context(module.register_forward_hook(partial(moved, seed=place)))
        yield


def difference(
    packed: Sequence[Sequence[float]],
    plain: Sequence[Sequence[float]],
    noisy: Sequence[Sequence[float]],
    dtype: str,
) -> str | None:
    """Return how the packed numbers differ from the plain ones, the rest of a sentence; None: by noise.

    Each holds the numbers of every pair, in the order of its tokens; `noisy` is the plain pass, repeated
    with other rounding. Sizes are root mean squares over all tokens and over the first of each response, and
    the largest of all.
    """
    floor = _FLOOR[dtype]
    gaps, noises = (
        [_gaps(one, other) for one, other in zip(rows, plain, strict=True)]
        for rows in (packed, noisy)
    )
    noise = _size(noises)
    if not noise <= _MOST_NOISE[dtype]:
        return f"its own passes differ by {noise:.2g}, so that nothing can be compared"
    for part in (slice(None), slice(_FIRST)):
        gap, allowed = (_size([row[part] for row in each]) for each in (gaps, noises))
        if not gap <= _TIMES_NOISE * allowed + floor:
            return (
                f"packed and plain numbers differ by {gap:.2g}, its own noise being {allowed:.2g}"
            )
    gap, allowed = (float(np.concatenate(each).max()) for each in (gaps, noises))
    if not gap <= _TIMES_NOISE * allowed + 5 * floor:
        return f"one packed number differs by {gap:.2g} from the plain one, noise by {allowed:.2g}"
    return None


def _gaps(one: Sequence[float], other: Sequence[float]) -> NDArray[np.float64]:
    """Return absolute differences; 0 where both are the same infinity or no number, inf where one is."""
    return np.array(
        [
            0.0
            if a == b or (math.isnan(a) and math.isnan(b))
            else math.inf
            if math.isnan(a - b)
            else abs(a - b)
            for a, b in zip(one, other, strict=True)
        ]
    )


def _size(rows: Sequence[NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(rows) ** 2)))
