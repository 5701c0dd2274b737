"""Attention over a pack: each response attends to its prompt and itself, nothing is padded or masked away.

transformers lets a caller register an attention function by name. Ours reads the layout of the pack being
run from a context variable and attends segment by segment with PyTorch's scaled dot product attention, or to
all segments in one call where the device has it (`varlen`); sliding windows, soft-capped scores and attention
sinks of the architectures that have them are honoured.
A model whose attention does not go through that interface is found out by the engine's self-check.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from preceptor.engines.packed.cuda.varlen import Sequences, attend_at_once, fits, sequences
from preceptor.engines.packed.packing import Group, Pack

if TYPE_CHECKING:
    import torch

_MOST_KEYS_OF_A_MASK = 4096

NAME = "preceptor_packed"
"""The name under which the attention function is registered with transformers."""


@dataclass
class PromptMemory:
    """Keys and values, per layer, of a prompt that later packs resume; the state of its last token.

    `question` is what an engine keeps of the prompt beside them.
    """

    layers: dict[int, "tuple[torch.Tensor, torch.Tensor]"] = field(default_factory=dict)
    last_hidden: "torch.Tensor | None" = None
    question: Any = None


@dataclass
class LongRow:
    """How far a row that is run in pieces of `size` tokens has come in the layer at hand (`pieces`)."""

    size: int
    start: int = 0
    states: "tuple[torch.Tensor, ...]" = ()

    def so_far(
        self, key: "torch.Tensor", value: "torch.Tensor", tokens: int
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return keys and values of the row of `tokens` up to the end of the piece that these are of."""
        if self.start == 0:
            self.states = tuple(
                one.new_empty((*one.shape[:2], tokens, one.shape[3])) for one in (key, value)
            )
        stop = self.start + key.shape[2]
        for whole, piece in zip(self.states, (key, value), strict=True):
            whole[:, :, self.start : stop] = piece
        keys, values = (whole[:, :, :stop] for whole in self.states)
        return keys, values


@dataclass(frozen=True)
class PackContext:
    """What the attention function must know of the pack being run, and what it notes there.

    `device` is where its segments are attended to in one call (`varlen.usable`); None: one by one. `row` is
    there where it is run in pieces. `attended` has an entry for each time that a layer came through the
    function, `outputs` what a hook summed up of a layer for the segment at start and stop.
    """

    pack: Pack
    resumed: PromptMemory | None
    kept: PromptMemory | None
    device: "torch.device | None" = None
    row: LongRow | None = None
    masks: "dict[tuple[int, ...], torch.Tensor]" = field(default_factory=dict)
    attended: list[int] = field(default_factory=list)
    outputs: "dict[tuple[int, int], torch.Tensor]" = field(default_factory=dict)

    @cached_property
    def sequences(self) -> Sequences | None:
        """The segments of the pack where one call takes them all, the same in every layer."""
        if self.device is None or not fits(self.pack):
            return None
        return sequences(self.pack, self.device)


@dataclass(frozen=True)
class _Scoring:
    """How scores become weights in one layer."""

    scale: float | None
    window: int | None
    softcap: float | None
    sinks: "torch.Tensor | None"
    block: int
    masks: "dict[tuple[int, ...], torch.Tensor]"

    @property
    def plain(self) -> bool:
        """Whether weights are the softmax of scaled products and nothing else."""
        return self.softcap is None and self.sinks is None


# transformers hands nothing of ours to an attention function. A context variable has a value for each thread,
# and packs run side by side in threads.
_current: ContextVar[PackContext] = ContextVar("preceptor_pack")


@contextmanager
def running(context: PackContext) -> Iterator[None]:
    """Make `context` the pack that the registered attention function works on."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> PackContext | None:
    """Return the pack that is being run in this thread, if any."""
    return _current.get(None)


def register() -> None:
    """Make `NAME` known to transformers as an attention implementation that needs no mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_args: object, **_kwargs: object) -> None:
    return None


def packed_attention(
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: object = None,
    **options: Any,
) -> "tuple[torch.Tensor, None]":
    """Attend within the current pack.

    Shapes: query (1, heads, tokens, width), key and value (1, key heads, tokens, width); returns
    (1, tokens, heads, value width). transformers fixes the signature.
    """
    context = _current.get()
    scoring = _Scoring(
        scale=options.get("scaling"),
        window=options.get("sliding_window"),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
        # On a CPU small blocks compute the least that is masked; a device is busy only with large ones.
        block=128 if query.device.type == "cpu" else 1024,
        masks=context.masks,
    )
    layer = int(getattr(module, "layer_idx", 0) or 0)
    context.attended.append(layer)
    states, tokens = (key, value), len(context.pack.ids)
    if context.row is not None:
        states = context.row.so_far(key, value, tokens)
    first = context.pack.groups[0]  # the only one where a prompt is kept or resumed
    if context.kept is not None and states[0].shape[2] == tokens:
        prompt = _prompt_states(context, first, layer, states)
        # Copies: a view would keep the memory of the whole row until the last response of the prompt.
        context.kept.layers[layer] = (prompt[0].clone(), prompt[1].clone())
    if not scoring.plain or context.row is not None or context.sequences is None:
        return _one_by_one(context, layer, query, states, scoring), None
    if first.resumed:
        states = _joined(_prompt_states(context, first, layer, states), states)
    options = {"scale": scoring.scale, "window": scoring.window}
    return attend_at_once(query, *states, context.sequences, **options), None


def _one_by_one(
    context: PackContext,
    layer: int,
    query: "torch.Tensor",
    states: "tuple[torch.Tensor, torch.Tensor]",
    scoring: _Scoring,
) -> "torch.Tensor":
    """Attend segment by segment; (1, tokens, heads, value width). The queries are the row's last so far."""
    key, value = states
    total = key.shape[2]
    before = total - query.shape[2]
    output = query.new_empty((1, query.shape[2], query.shape[1], value.shape[-1]))
    for group in context.pack.groups:
        prompt = _prompt_states(context, group, layer, states)
        for segment in group.segments:
            span = slice(max(segment.start, before), min(segment.stop, total))
            if span.start >= span.stop:  # of another piece, empty, or resumed
                continue
            own = (key[:, :, segment.start : span.stop], value[:, :, segment.start : span.stop])
            seen = own if segment is group else _joined(prompt, own)
            here = slice(span.start - before, span.stop - before)
            output[:, here] = _attend(query[:, :, here], *seen, scoring)
    return output


def _prompt_states(
    context: PackContext, group: Group, layer: int, states: "tuple[torch.Tensor, torch.Tensor]"
) -> "tuple[torch.Tensor, torch.Tensor]":
    if group.resumed:
        if context.resumed is None:
            raise RuntimeError("a pack resumes a prompt that no pack kept")
        return context.resumed.layers[layer]
    key, value = states
    return key[:, :, group.start : group.stop], value[:, :, group.start : group.stop]


def _joined(
    prompt: "tuple[torch.Tensor, torch.Tensor]", own: "tuple[torch.Tensor, torch.Tensor]"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return keys and values of the prompt followed by one's own."""
    import torch

    if not prompt[0].shape[2]:
        return own
    return torch.cat((prompt[0], own[0]), dim=2), torch.cat((prompt[1], own[1]), dim=2)


def _attend(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scoring: _Scoring
) -> "torch.Tensor":
    """Attend causally, the queries being the last positions of the keys; (1, tokens, heads, width)."""
    import torch

    length, total = query.shape[2], key.shape[2]
    # A window that holds all keys hides nothing.
    window = scoring.window if scoring.window and scoring.window < total else None
    # `is_causal` puts the first query beside the first key, which is right only where there are as many.
    if length == total and window is None and scoring.plain:
        return _weigh(query, key, value, None, scoring, causal=True)
    outputs = []
    for start in range(0, length, scoring.block):
        # Keys that no query of the block may see, after it or before its window, are not multiplied at all.
        stop = min(start + scoring.block, length)
        low = max(0, total - length + start - window + 1) if window else 0
        high = total - length + stop
        mask = _band(
            (start + total - length - low, stop - start, high - low), window, query, scoring
        )
        part = (query[:, :, start:stop], key[:, :, low:high], value[:, :, low:high])
        outputs.append(_weigh(*part, mask, scoring, causal=False))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _band(
    shape: tuple[int, int, int], window: int | None, like: "torch.Tensor", scoring: _Scoring
) -> "torch.Tensor":
    """Return what is added to scores, (queries, keys): 0 where a query sees a key, else -inf.

    `shape` is (offset, queries, keys); query i stands at key `offset + i`. Layers share the masks,
    but for long ones: those of all blocks of 32,000 tokens would take two gigabytes.
    """
    import torch

    known = (*shape, window or 0)
    if known in scoring.masks:
        return scoring.masks[known]
    offset, queries, keys = shape
    at = torch.arange(offset, offset + queries, device=like.device).unsqueeze(1)
    keys_at = torch.arange(keys, device=like.device).unsqueeze(0)
    seen = keys_at <= at
    if window:
        seen &= keys_at > at - window
    mask = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
    mask.masked_fill_(~seen, -torch.inf)
    if keys <= _MOST_KEYS_OF_A_MASK:
        scoring.masks[known] = mask
    return mask


def _weigh(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    mask: "torch.Tensor | None",
    scoring: _Scoring,
    *,
    causal: bool,
) -> "torch.Tensor":
    """Return the weighted values, (1, queries, heads, width)."""
    from torch.nn.functional import scaled_dot_product_attention

    heads, key_heads = query.shape[1], key.shape[1]
    # Key heads become the batch so that grouped queries share them without being copied.
    grouped = query.reshape(key_heads, heads // key_heads, *query.shape[2:])
    keys = key.transpose(0, 1).expand(-1, heads // key_heads, -1, -1)
    values = value.transpose(0, 1).expand(-1, heads // key_heads, -1, -1)
    if query.is_cuda and mask is not None and heads != key_heads and scoring.plain:
        # A last query that begins a block of its own gets the wrong mask where heads share memory
        # (pytorch/pytorch#191937).
        keys, values = keys.contiguous(), values.contiguous()
    if scoring.plain:
        weighed = scaled_dot_product_attention(
            grouped, keys, values, attn_mask=mask, is_causal=causal, scale=scoring.scale
        )
    else:
        weighed = _weigh_by_hand(grouped, keys, values, mask, scoring)
    return weighed.reshape(1, heads, *weighed.shape[2:]).transpose(1, 2)


def _weigh_by_hand(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    mask: "torch.Tensor | None",
    scoring: _Scoring,
) -> "torch.Tensor":
    """Attend with capped scores (Gemma 2) or attention sinks (gpt-oss), which SDPA does not offer."""
    import torch

    scale = scoring.scale if scoring.scale is not None else query.shape[-1] ** -0.5
    scores = torch.matmul(query, key.transpose(-1, -2)) * scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if mask is not None:
        scores = scores + mask
    if scoring.sinks is not None:
        # A sink is one more score in each row: it takes its share of the softmax and has no value to give.
        sinks = scoring.sinks.reshape(*query.shape[:2], 1, 1).expand(-1, -1, query.shape[2], 1)
        scores = torch.cat((scores, sinks.to(scores.dtype)), dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights[..., : key.shape[2]], value)


def plain_attention(model: Any) -> str:
    """Return the implementation that computes what the architecture means (Gemma 2: no SDPA)."""
    capped = getattr(model.config, "attn_logit_softcapping", None)
    return "sdpa" if getattr(model, "_supports_sdpa", False) and not capped else "eager"
