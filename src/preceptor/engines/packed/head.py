"""From hidden states to token statistics, a tile of the vocabulary at a time.

The matrix `tokens x vocabulary` never exists: for each tile the logits are computed, folded into a
log-normaliser, a sum of squares and a count of likelier tokens, and overwritten by the next tile. On a
CPU the tile stays in cache, so that the folding costs a few percent of the multiplication it follows.
"""

import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from preceptor.engines.packed.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_EXPONENT_LIMIT = 35.0
"""Below this size a float32 logit can be exponentiated as it is, without losing precision of the powers' sum
or of their squares'."""

TOP = 50
"""Likeliest tokens among which LARK's Brier score is taken (arXiv 2605.30651)."""


_GROUP = 64
_MOST_KEPT = 16
"""Columns of a tile whose largest logit is looked at first, and logits of a token kept between searches."""


class TokenTensors(NamedTuple):
    """Statistics of n tokens, each of shape (n,) in float32: nats, ranks from 1, Brier scores.

    A Brier score is 1 - 2 p + the sum of all squared probabilities, p being the token's own. `brier_50` is
    that among the `TOP` likeliest tokens alone, their probabilities scaled to sum to 1; None where not asked
    for.
    """

    nll: "torch.Tensor"
    rank: "torch.Tensor"
    brier: "torch.Tensor"
    brier_50: "torch.Tensor | None" = None


def joined(parts: Sequence[TokenTensors]) -> TokenTensors:
    """Return the statistics of several blocks of tokens as those of one."""
    import torch

    columns = zip(*parts, strict=True)
    nll, rank, brier, *others = (None if one[0] is None else torch.cat(one) for one in columns)
    assert nll is not None and rank is not None and brier is not None
    return TokenTensors(nll, rank, brier, *others)


@dataclass(frozen=True)
class Head:
    """A model's output layer: `logits = cap(scale * (hidden @ weight.T + bias))`.

    `weight` is (vocabulary, hidden), `bias` (vocabulary,) or None. `cap` is Gemma 2's soft-capping.
    `rows` x `columns` is the size of a tile: 4 MB of float32 at 1,024 x 1,024, which a core's cache holds
    while the fold walks over it, and large enough for the product to run at full speed.
    """

    weight: "torch.Tensor"
    bias: "torch.Tensor | None" = None
    scale: float = 1.0
    softcap: float | None = None
    rows: int = 1024
    columns: int = 1024

    def statistics(
        self, hidden: "torch.Tensor", targets: "torch.Tensor", *, top: bool = False
    ) -> TokenTensors:
        """Return the statistics of the `targets` (n,) predicted from `hidden` (n, width).

        With `top` those among the likeliest tokens too, which takes a search.
        """
        # Blocks of one size: a short last one would read all weights for a few tokens.
        blocks = -(-hidden.shape[0] // self.rows)
        parts = [
            self._block(*block, top=top)
            for block in zip(hidden.tensor_split(blocks), targets.tensor_split(blocks), strict=True)
        ]
        return joined(parts)

    def logits(self, hidden: "torch.Tensor", first: int, out: "torch.Tensor") -> "torch.Tensor":
        """Return the logits of `out.shape[1]` vocabulary entries from `first` on, in float32.

        `out` has the type of `hidden`, or is float32 where the device can sum into it (`_sums_in_full`).
        """
        import torch

        tile = slice(first, first + out.shape[1])
        weight = self.weight[tile].t()
        if out.dtype == hidden.dtype:
            torch.mm(hidden, weight, out=out)
        else:
            torch.mm(hidden, weight, out_dtype=out.dtype, out=out)
        if self.bias is not None:
            out += self.bias[tile]
        logits = out.float()
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def _target_logits(
        self, hidden: "torch.Tensor", targets: "torch.Tensor", dtype: "torch.dtype"
    ) -> "torch.Tensor":
        # Summed in full and rounded once, as the multiplication does that gives logits of this type.
        products = hidden.float() * self.weight[targets].float()
        logits = products.sum(-1).to(dtype)
        if self.bias is not None:
            logits = logits + self.bias[targets]
        logits = logits.float() * self.scale
        return logits if self.softcap is None else (logits / self.softcap).tanh() * self.softcap

    def _block(self, hidden: "torch.Tensor", targets: "torch.Tensor", *, top: bool) -> TokenTensors:
        import torch

        count, vocabulary = hidden.shape[0], self.weight.shape[0]
        columns = min(self.columns, vocabulary)
        dtype = torch.float32 if _sums_in_full(hidden.device, hidden.dtype) else hidden.dtype
        fold = _fold_for(targets, self._target_logits(hidden, targets, dtype), columns=columns)
        likeliest = _Likeliest() if top else None
        # One buffer for all tiles: fresh memory for each cost as much as the rest of the fold together.
        memory = hidden.new_empty(count * columns, dtype=dtype)
        for first in range(0, vocabulary, columns):
            size = min(columns, vocabulary - first)
            out = memory[: count * size].view(count, size)
            logits = self.logits(hidden, first, out)
            if likeliest is not None:
                likeliest.add(logits)  # before the fold, which overwrites them
            fold.add(logits, first)
        found = fold.result()
        return found if likeliest is None else likeliest.with_brier(found, fold.target)


class _Likeliest:
    """The largest logits of each token over the tiles of the vocabulary, (tokens, at most `TOP`).

    On a CPU a search through each tile costs half as long as the product that makes it. So only the first is
    searched whole. Of the others nothing matters but what exceeds a token's `TOP`-th largest logit so far,
    which few groups of columns hold. It is kept, and searched when it is much.
    A logit that equals the bound may be left out: which of two equal ones is kept changes no number.
    """

    def __init__(self) -> None:
        self.logits: torch.Tensor | None = None
        self._rows: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []

    def add(self, logits: "torch.Tensor") -> None:
        """Take in the tile `logits` (tokens, columns)."""
        if self.logits is None or self.logits.shape[1] < TOP or logits.is_cuda:
            self._search(logits)
            return
        tokens, columns = logits.shape
        groups = logits.reshape(tokens, -1, _GROUP if columns % _GROUP == 0 else columns)
        bound = self.logits[:, -1:]
        rows, places = (groups.amax(-1) > bound).nonzero(as_tuple=True)
        found = groups[rows, places]
        which, column = (found > bound[rows]).nonzero(as_tuple=True)
        self._rows.append(rows[which])
        self._kept.append(found[which, column])
        if sum(map(len, self._kept)) > _MOST_KEPT * tokens:
            self._merge()

    def _search(self, logits: "torch.Tensor") -> None:
        import torch

        found = logits.topk(min(TOP, logits.shape[1])).values
        if self.logits is not None:
            found = torch.cat((self.logits, found), dim=1)
            found = found.topk(min(TOP, found.shape[1])).values
        self.logits = found

    def _merge(self) -> None:
        """Search what was kept of the tiles since the last search."""
        import torch

        assert self.logits is not None
        if not sum(map(len, self._kept)):
            return
        rows, order = torch.cat(self._rows).sort(stable=True)
        counts = torch.bincount(rows, minlength=len(self.logits))
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        table = self.logits.new_full((len(self.logits), int(counts.max())), -torch.inf)
        table[rows, places] = torch.cat(self._kept)[order]
        self._rows, self._kept = [], []
        self._search(table)

    def with_brier(self, found: TokenTensors, target: "torch.Tensor") -> TokenTensors:
        """Return the statistics with the Brier score among these; `target` is each token's own logit."""
        import torch

        self._merge()
        assert self.logits is not None
        total = self.logits.logsumexp(1)
        squares = (2 * (self.logits - total.unsqueeze(1))).exp().sum(1)
        own = torch.where(found.rank <= TOP, (target - total).exp(), 0.0)
        return found._replace(brier_50=1 - 2 * own + squares)


@cache
def _sums_in_full(device: "torch.device", dtype: "torch.dtype") -> bool:
    """Whether a product of this type can be had in float32, as it was summed, and not rounded first.

    The product takes a tenth longer. In bfloat16 rounded logits are off by 1/256 of their size, and many
    become equal.
    """
    import torch

    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    one = torch.ones(16, 16, device=device, dtype=dtype)
    try:
        torch.mm(one, one, out_dtype=torch.float32, out=torch.empty_like(one, dtype=torch.float32))
    except (TypeError, RuntimeError) as error:  # an earlier version, or another maker's device
        if is_out_of_memory(error):
            raise
        return False
    return True


DeviceFold = Callable[..., None]
"""Folds a tile of logits into the state of a `_FoldOnDevice`; see `triton_fold.fold`."""


def _fold_for(
    targets: "torch.Tensor", target_logits: "torch.Tensor", *, columns: int
) -> "_FoldOnDevice | _Fold":
    fold = _device_fold(target_logits.device) if target_logits.is_cuda else None
    if fold is None:
        return _Fold(targets, target_logits, columns=columns)
    return _FoldOnDevice(fold, targets, target_logits)


@cache
def _device_fold(device: "torch.device") -> DeviceFold | None:
    """Return the fold of a CUDA device; None where Triton is not there or its results are not right."""
    import torch

    logits = torch.linspace(-9, 9, 36_000, device=device).view(3, 12_000)
    targets = torch.tensor([0, 6_000, 11_999], device=device)
    thresholds = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    try:
        from preceptor.engines.packed.cuda.triton_fold import fold

        compiled = _FoldOnDevice(fold, targets, thresholds)
        for first, last in ((0, 5_000), (5_000, 12_000)):
            compiled.add(logits[:, first:last].contiguous(), first)
        plain = _Fold(targets, thresholds, columns=12_000)
        plain.add(logits, 0)
        pairs = zip(compiled.result()[:3], plain.result()[:3], strict=True)
        if not all(torch.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs):
            raise ValueError("Triton's results are not right")
    # Triton builds what it runs, and fails in its own ways where a compiler or a driver does not suit it.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        logger.info("tiles are folded by PyTorch's operations, which is slower: %s", error)
        return None
    return fold


class _FoldOnDevice:
    """What `_Fold` does, in one walk over each tile."""

    def __init__(
        self, fold: DeviceFold, targets: "torch.Tensor", target_logits: "torch.Tensor"
    ) -> None:
        import torch

        self._fold = fold
        self.targets = targets.contiguous()
        self.threshold = target_logits
        self.target = target_logits.clone()
        # In units of ln 2, because a device raises 2 to a power faster than e. The target's logit is a first
        # guess of the largest one: seldom far from it, and finite.
        self.top = target_logits / math.log(2)
        self.total = torch.zeros_like(target_logits, dtype=torch.float64)
        self.squares = torch.zeros_like(self.total)
        self.above = torch.zeros_like(target_logits)

    def add(self, logits: "torch.Tensor", first: int) -> None:
        """Fold in the tile `logits` (tokens, columns), whose first column is entry `first`."""
        statistics = (self.top, self.total, self.squares, self.above)
        self._fold(logits, first, self.targets, self.threshold, self.target, *statistics)

    def result(self) -> TokenTensors:
        """Return the statistics over all tiles."""
        nll = (self.top.double() * math.log(2) - self.target) + self.total.log()
        brier = 1 - 2 * (-nll).exp() + self.squares / self.total**2
        return TokenTensors(nll.float(), self.above + 1, brier.float())


class _Fold:
    """Running statistics of a block of tokens over the tiles of the vocabulary."""

    def __init__(
        self, targets: "torch.Tensor", target_logits: "torch.Tensor", *, columns: int
    ) -> None:
        self.threshold = target_logits
        self.target = target_logits.clone()
        self.above = target_logits.new_zeros(target_logits.shape)
        self.scratch = target_logits.new_empty(len(targets) * columns)
        self.normalisers: list[torch.Tensor] = []
        self.squares: list[torch.Tensor] = []
        # Which rows have their target in which tile, so that a tile looks at those rows alone.
        ordered, order = targets.sort()
        tiles = (ordered // columns).tolist()
        self.rows_of: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for tile in set(tiles):
            span = slice(bisect_left(tiles, tile), bisect_right(tiles, tile))
            self.rows_of[tile * columns] = (order[span], ordered[span] - tile * columns)

    def add(self, logits: "torch.Tensor", first: int) -> None:
        """Fold in the tile `logits` (tokens, columns), whose first column is entry `first`; overwrites it."""
        import torch

        scratch = self.scratch[: logits.numel()].view_as(logits)
        # A row whose entries are all -inf has no largest; a finite number in its place keeps it free of NaN.
        top = logits.amax(-1).clamp_(min=torch.finfo(logits.dtype).min)
        shifted = not float(torch.linalg.vector_norm(top, torch.inf)) < _EXPONENT_LIMIT
        # NaN counts as shifted and stays NaN: the caller turns it into a note.
        # Subtracting the largest is one more walk over the tile, and logits of most models do not need it.
        source = torch.sub(logits, top.unsqueeze(-1), out=scratch) if shifted else logits
        weights = torch.exp(source, out=scratch)
        total = weights.sum(-1)
        normaliser = total.log() + top if shifted else total.log()
        norm = torch.linalg.vector_norm(weights, dim=-1)
        self.normalisers.append(normaliser)
        self.squares.append((norm / total).square())
        self._rank(logits, first, top)

    def _rank(self, logits: "torch.Tensor", first: int, top: "torch.Tensor") -> None:
        import torch

        if first in self.rows_of:
            rows, places = self.rows_of[first]
            self.target[rows] = logits[rows, places]
            # A token is not likelier than itself, even where its two logits differ by rounding.
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
        nll = normaliser - self.target
        shares = (2 * (normalisers - normaliser.unsqueeze(1))).exp()
        # A tile of impossible entries has the share 0 and no squares of its own.
        parts = (torch.stack(self.squares, dim=1) * shares).masked_fill_(shares == 0, 0.0)
        squares = parts.sum(dim=1)
        return TokenTensors(nll, self.above + 1, 1 - 2 * (-nll).exp() + squares)


def fold_logits(
    logits: "torch.Tensor", targets: "torch.Tensor", *, top: bool = False
) -> TokenTensors:
    """Return the statistics of `targets` (n,) under ready logits (n, vocabulary); overwrites them."""
    parts = []
    for start in range(0, len(targets), 128):
        block, goal = logits[start : start + 128].float(), targets[start : start + 128]
        fold = _Fold(goal, block.gather(1, goal.unsqueeze(1)).squeeze(1), columns=block.shape[1])
        likeliest = _Likeliest()
        if top:
            likeliest.add(block)
        fold.add(block, 0)
        found = fold.result()
        parts.append(likeliest.with_brier(found, fold.target) if top else found)
    return joined(parts)
