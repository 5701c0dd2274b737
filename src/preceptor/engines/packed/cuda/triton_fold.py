"""Fold a tile of logits into token statistics on a CUDA device: one walk over it, in Triton.

PyTorch's own operations walk over a tile six times, which takes five times as long as the multiplication
that made it. Triton comes with PyTorch's builds for CUDA on Linux: import this module only where it is.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    import torch

_MOST_COLUMNS = 4096
"""Columns that one row holds at once."""

_LOG2_E = tl.constexpr(1.4426950408889634)


def fold(logits: "torch.Tensor", first: int, *state: "torch.Tensor") -> None:
    """Fold a tile (rows, columns) of logits, from vocabulary entry `first` on, into `state`.

    Everything is contiguous and on one CUDA device. `state` is, each of shape (rows,): targets (int64),
    thresholds, found, top (float32), total, squares (float64), above (float32). `top` is the largest logit
    so far, in units of ln 2; `total` is the sum of 2 ** (logit - top), `squares` that of the squares of
    these powers; `above` counts the logits over the threshold, which is the target's own logit; `found`
    gets the target's logit once its tile comes.
    """
    import torch

    rows, width = logits.shape
    block = min(_MOST_COLUMNS, triton.next_power_of_2(width))
    # Triton launches on the current device, whichever that of the tensors is.
    with torch.cuda.device(logits.device):
        _fold_row[(rows,)](logits, width, first, *state, block=block, num_warps=8)


@triton.jit  # type: ignore[untyped-decorator]
def _fold_row(  # type: ignore[no-untyped-def]  # noqa: PLR0913
    logits,
    width,
    first,
    targets,
    thresholds,
    found,
    tops,
    totals,
    squares,
    above,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    here = logits + row.to(tl.int64) * width
    target = tl.load(targets + row) - first
    threshold = tl.load(thresholds + row)
    top = tl.load(tops + row)
    total = tl.load(totals + row)
    square = tl.load(squares + row)
    likelier = tl.load(above + row)
    for start in range(0, width, block):
        column = start + tl.arange(0, block)
        logit = tl.load(here + column, mask=column < width, other=-float("inf"))
        others = tl.where(column == target, -float("inf"), logit)
        likelier += tl.sum((others > threshold).to(tl.float32), 0)
        risen = tl.maximum(top, tl.max(logit, 0) * _LOG2_E)
        scale = tl.exp2(top - risen)
        power = tl.exp2(logit * _LOG2_E - risen)
        square = square * scale * scale + tl.sum(power * power, 0)
        total = total * scale + tl.sum(power, 0)
        top = risen
    tl.store(tops + row, top)
    tl.store(totals + row, total)
    tl.store(squares + row, square)
    tl.store(above + row, likelier)
    if (target >= 0) & (target < width):
        tl.store(found + row, tl.load(here + target))
