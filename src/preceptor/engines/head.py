"""From hidden states to token statistics, a tile of the vocabulary at a time.

The matrix `tokens x vocabulary` never exists: for each tile the logits are computed, folded into a
log-normaliser, an entropy and a count of likelier tokens, and overwritten by the next tile. On a
CPU the tile stays in cache, so that the folding costs a few percent of the multiplication it follows.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from preceptor.engines.base import RANK_LIMIT
from preceptor.engines.kernels import fits, kernels

if TYPE_CHECKING:
    import torch

_EXPONENT_LIMIT = 60.0
"""Below this size a float32 logit can be exponentiated as it is, without losing its sum's precision."""


class TokenTensors(NamedTuple):
    """Statistics of n tokens, each of shape (n,) in float32: nats, clipped ranks, nats."""

    nll: "torch.Tensor"
    rank: "torch.Tensor"
    entropy: "torch.Tensor"


@dataclass(frozen=True)
class Head:
    """A model's output layer: `logits = cap(scale * (hidden @ weight.T + bias))`.

    `weight` is (vocabulary, hidden), `bias` (vocabulary,) or None. `cap` is Gemma 2's soft-capping.
    `rows` x `columns` is the size of a tile.
    """

    weight: "torch.Tensor"
    bias: "torch.Tensor | None" = None
    scale: float = 1.0
    softcap: float | None = None
    rows: int = 1024
    columns: int = 1024

    def statistics(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> TokenTensors:
        """Return the statistics of the `targets` (n,) predicted from `hidden` (n, width)."""
        import torch

        # Blocks of one size: a short last one would read all weights for a few tokens.
        blocks = -(-hidden.shape[0] // self.rows)
        parts = [
            self._block(*block)
            for block in zip(hidden.tensor_split(blocks), targets.tensor_split(blocks), strict=True)
        ]
        return TokenTensors(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def logits(self, hidden: "torch.Tensor", first: int, out: "torch.Tensor") -> "torch.Tensor":
        """Return the logits of `out.shape[1]` vocabulary entries from `first` on, in float32."""
        import torch

        tile = slice(first, first + out.shape[1])
        torch.mm(hidden, self.weight[tile].t(), out=out)
        if self.bias is not None:
            out += self.bias[tile]
        logits = out.float()
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def _target_logits(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        # In half precision: summed in full and rounded once, as the multiplication does.
        products = hidden.float() * self.weight[targets].float()
        logits = products.sum(-1).to(hidden.dtype)
        if self.bias is not None:
            logits = logits + self.bias[targets]
        logits = logits.float() * self.scale
        return logits if self.softcap is None else (logits / self.softcap).tanh() * self.softcap

    def _block(self, hidden: "torch.Tensor", targets: "torch.Tensor") -> TokenTensors:
        import torch

        count, vocabulary = hidden.shape[0], self.weight.shape[0]
        columns = min(self.columns, vocabulary)
        fold = _fold_for(targets, self._target_logits(hidden, targets), columns=columns)
        memory = hidden.new_empty(count * columns)
        scratch = torch.empty_like(memory, dtype=torch.float32)
        for first in range(0, vocabulary, columns):
            size = min(columns, vocabulary - first)
            out = memory[: count * size].view(count, size)
            fold.add(self.logits(hidden, first, out), first, scratch[: count * size].view_as(out))
        return fold.result()


def _fold_for(
    targets: "torch.Tensor", target_logits: "torch.Tensor", *, columns: int
) -> "_CompiledFold | _Fold":
    if kernels() is not None and fits(target_logits):
        return _CompiledFold(targets, target_logits)
    return _Fold(targets, target_logits, columns=columns)


class _CompiledFold:
    """What `_Fold` does, in one walk over each tile."""

    def __init__(self, targets: "torch.Tensor", target_logits: "torch.Tensor") -> None:
        import torch

        found = kernels()
        assert found is not None
        self._fold = found.fold
        self.targets = targets.contiguous()
        self.threshold = target_logits
        self.target = target_logits.clone()
        # In units of ln 2, as the compiled steps count; the target's logit is seldom far from the largest.
        self.top = target_logits / math.log(2)
        self.total = torch.zeros_like(target_logits, dtype=torch.float64)
        self.weighted = torch.zeros_like(self.total)
        self.above = torch.zeros_like(target_logits)

    def add(self, logits: "torch.Tensor", first: int, scratch: "torch.Tensor") -> None:
        """Fold in the tile `logits` (tokens, columns), whose first column is entry `first`."""
        statistics = (self.top, self.total, self.weighted, self.above)
        self._fold(logits, first, self.targets, self.threshold, self.target, *statistics)

    def result(self) -> TokenTensors:
        """Return the statistics over all tiles."""
        shift = self.total.log()
        nll = (self.top.double() * math.log(2) - self.target) + shift
        entropy = shift - self.weighted / self.total * math.log(2)
        rank = (self.above + 1).clamp(max=RANK_LIMIT)
        return TokenTensors(nll.float(), rank, entropy.float())


class _Fold:
    """Running statistics of a block of tokens over the tiles of the vocabulary."""

    def __init__(
        self, targets: "torch.Tensor", target_logits: "torch.Tensor", *, columns: int
    ) -> None:
        self.threshold = target_logits
        self.target = target_logits.clone()
        self.above = target_logits.new_zeros(target_logits.shape)
        self.normalisers: list[torch.Tensor] = []
        self.entropies: list[torch.Tensor] = []
        ordered, order = targets.sort()
        tiles = (ordered // columns).tolist()
        self.rows_of: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for tile in set(tiles):
            span = slice(bisect_left(tiles, tile), bisect_right(tiles, tile))
            self.rows_of[tile * columns] = (order[span], ordered[span] - tile * columns)

    def add(self, logits: "torch.Tensor", first: int, scratch: "torch.Tensor") -> None:
        """Fold in the tile `logits` (tokens, columns), whose first column is entry `first`."""
        import torch

        top = logits.amax(-1)
        shifted = not float(torch.linalg.vector_norm(top, torch.inf)) < _EXPONENT_LIMIT
        # NaN counts as shifted and stays NaN: the caller turns it into a note.
        source = torch.sub(logits, top.unsqueeze(-1), out=scratch) if shifted else logits
        weights = torch.exp(source, out=scratch)
        total = weights.sum(-1)
        normaliser = total.log() + top if shifted else total.log()
        self.normalisers.append(normaliser)
        self.entropies.append(normaliser - weights.mul_(logits).sum(-1).div_(total))
        self._rank(logits, first, top)

    def _rank(self, logits: "torch.Tensor", first: int, top: "torch.Tensor") -> None:
        import torch

        if first in self.rows_of:
            rows, places = self.rows_of[first]
            self.target[rows] = logits[rows, places]
            logits[rows, places] = -torch.inf
        # Most tokens are likelier than a whole tile: only the others are worth counting in.
        below = (top > self.threshold).nonzero().squeeze(-1)
        likelier = logits[below] > self.threshold[below].unsqueeze(-1)
        self.above.index_add_(0, below, likelier.sum(-1, dtype=self.above.dtype))

    def result(self) -> TokenTensors:
        """Return the statistics over all tiles."""
        import torch

        normalisers = torch.stack(self.normalisers, dim=1)
        normaliser = normalisers.logsumexp(dim=1)
        shares = normalisers - normaliser.unsqueeze(1)
        # Not normaliser minus expected logit: far from zero (GPT-2's lie near -100) the two cancel.
        entropy = (shares.exp() * (torch.stack(self.entropies, dim=1) - shares)).sum(dim=1)
        rank = (self.above + 1).clamp(max=RANK_LIMIT)
        return TokenTensors(normaliser - self.target, rank, entropy)


def fold_logits(logits: "torch.Tensor", targets: "torch.Tensor") -> TokenTensors:
    """Return the statistics of `targets` (n,) under ready logits (n, vocabulary); overwrites them."""
    import torch

    parts = []
    for start in range(0, len(targets), 128):
        block, goal = logits[start : start + 128].float(), targets[start : start + 128]
        fold = _Fold(goal, block.gather(1, goal.unsqueeze(1)).squeeze(1), columns=block.shape[1])
        fold.add(block, 0, torch.empty_like(block))
        parts.append(fold.result())
    return TokenTensors(*(torch.cat(column) for column in zip(*parts, strict=True)))
