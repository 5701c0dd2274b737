"""Spend less on memory traffic on a CPU, where a model's elementwise steps cost more than they should.

Between multiplications a model writes matrices of many megabytes. Fresh memory for each of them is taken
from the system page by page, and a separate copy for each step leaves the cache: together up to a fifth of
the time. Nothing here changes a number beyond rounding.
"""

import ctypes
import logging
import sys
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
_TOP_PAD = 256 * 1024 * 1024
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_TOLERANCE = 1e-5


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next allocation, instead of giving it back.

    Done with glibc's `mallopt`, for the whole process; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))
    mallopt(_M_MMAP_THRESHOLD, ctypes.c_int(_LARGEST_MMAP_THRESHOLD))
    mallopt(_M_TOP_PAD, ctypes.c_int(_TOP_PAD))


def gate_in_place(model: Any) -> int:
    """Make the gated feed-forward layers of a float32 `model` reuse their memory; return how many do.

    A layer is recognised by the names of its parts and changed only if it then gives the same output.
    """
    import torch

    changed = 0
    for module in model.modules():
        if {name for name, _ in module.named_children()} != _GATED:
            continue
        if getattr(getattr(module.gate_proj, "weight", None), "dtype", None) != torch.float32:
            continue
        probe = torch.linspace(-1, 1, 2 * module.gate_proj.in_features).view(1, 2, -1)
        with torch.inference_mode():
            expected = module(probe)
            module.forward = MethodType(_gated, module)
            difference = float((module(probe) - expected).abs().max() / expected.abs().max())
        if difference < _TOLERANCE:
            changed += 1
        else:
            del module.forward
    return changed


def _gated(self: Any, hidden: "torch.Tensor") -> "torch.Tensor":
    gate, up = self.gate_proj(hidden), self.up_proj(hidden)
    out: torch.Tensor = self.down_proj(_activated_and_multiplied(self.act_fn, gate, up))
    return out


def _activated_and_multiplied(
    activation: Any, gate: "torch.Tensor", up: "torch.Tensor"
) -> "torch.Tensor":
    """Return the activation of `gate` times `up`, in the memory of `gate` where that can be."""
    import torch

    name = type(activation).__name__
    if name in ("SiLU", "SiLUActivation"):
        return torch.nn.functional.silu(gate, inplace=True).mul_(up)
    if name == "GELUTanh":
        out: torch.Tensor = torch.ops.aten.gelu_(gate, approximate="tanh").mul_(up)
        return out
    changed: torch.Tensor = activation(gate).mul_(up)
    return changed


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    import torch

    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_memory(device: str) -> None:
    """Give what is cached and not used back to the device, `cuda` or `mps`."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
