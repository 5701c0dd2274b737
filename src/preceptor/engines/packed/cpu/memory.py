"""Spend less on memory traffic on a CPU, where a model's elementwise steps cost more than they should.

Between multiplications a model writes matrices of many megabytes. Fresh memory for each of them is taken
from the system page by page, and a separate copy for each step leaves the cache: together up to a fifth of
the time. Nothing here changes a number beyond rounding.
"""

import ctypes
import logging
import sys
from functools import wraps
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from preceptor.engines.packed.attention import is_running
from preceptor.engines.packed.cpu.kernels import GELU_TANH, SILU, fits, kernels, rotates

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
_TOP_PAD = 256 * 1024 * 1024
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_TOLERANCE = 1e-5
_ROTATION = "apply_rotary_pos_emb"


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


def normalise_at_once(model: Any) -> int:
    """Make the root-mean-square norms of a float32 `model` walk over their input once; return how many do.

    Without compiled steps (`kernels`) nothing is changed. A norm is recognised by its parts, and changed only
    if it then gives the same output: some architectures multiply by the weight, some by one more.
    """
    if kernels() is None:
        return 0
    return sum(map(_normalises_at_once, model.modules()))


def _normalises_at_once(module: Any) -> bool:
    import torch

    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(epsilon, float):
        return False
    if not isinstance(weight, torch.Tensor) or not fits(weight) or weight.dim() != 1:
        return False
    probe = torch.linspace(-1, 2, 2 * len(weight)).view(1, 2, -1)
    with torch.inference_mode():
        expected = module(probe)
        for offset in (0.0, 1.0):
            module.forward = MethodType(_normalised(epsilon, offset), module)
            if torch.allclose(module(probe), expected, rtol=_TOLERANCE, atol=_TOLERANCE):
                return True
    del module.forward
    return False


def _normalised(epsilon: float, offset: float) -> Any:
    """Return the forward method of a norm, (..., width) to the same shape."""
    found = kernels()
    assert found is not None

    def forward(self: Any, hidden: "torch.Tensor") -> "torch.Tensor":
        # Heads are normed after they were moved before the tokens, which their memory does not know.
        turned = hidden.dim() == 4 and not hidden.is_contiguous()
        values = hidden.transpose(1, 2) if turned else hidden
        if not fits(values):
            plain: torch.Tensor = type(self).forward(self, hidden)
            return plain
        out = found.root_mean_square(values, self.weight, epsilon=epsilon, offset=offset)
        return out.transpose(1, 2) if turned else out

    return forward


def rotate_in_place(model: Any) -> int:
    """Make the attention of `model` rotate queries and keys in place; return how many modules now do.

    transformers calls a function of the module that defines the architecture. It is replaced, for the
    process, by one that does the same: in place while a pack is run, whose queries and keys nobody else
    holds, and as before at any other time.
    """
    if kernels() is None:
        return 0
    modules = {type(module).__module__ for module in model.modules()}
    return sum(_rotates_in_place(sys.modules[name]) for name in sorted(modules & set(sys.modules)))


def _rotates_in_place(module: ModuleType) -> bool:
    import torch

    plain = getattr(module, _ROTATION, None)
    if plain is None or not module.__name__.startswith("transformers."):
        return False
    if hasattr(plain, "in_place"):
        return True
    rotate = _rotation(plain)
    query, key, angle = (torch.linspace(-1, 2, n * 32).view(1, -1, 4, 8) for n in (2, 1, 1))
    angles = (angle[:, 0].cos(), angle[:, 0].sin())
    try:
        expected = plain(query, key, *angles)
        found = rotate.in_place(query.clone(), key.clone(), *angles)
        same = all(map(torch.allclose, found, expected))
    # Another architecture's function of that name may take or do anything else.
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return False
    if not same:
        return False
    setattr(module, _ROTATION, rotate)
    return True


def _rotation(plain: Any) -> Any:
    """Return what takes the place of a function that rotates queries and keys, (1, heads, tokens, width)."""
    found = kernels()
    assert found is not None

    def in_place(
        query: "torch.Tensor", key: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor"
    ) -> Any:
        for states in (query, key):
            found.rotate(states[0], cos[0], sin[0])
        return query, key

    @wraps(plain)
    def rotate(query: Any, key: Any, cos: Any, sin: Any, *others: Any, **options: Any) -> Any:
        usual = is_running() and not others and not options and rotates(query, key, cos, sin)
        rotation = in_place if usual else plain
        return rotation(query, key, cos, sin, *others, **options)

    rotate.in_place = in_place  # type: ignore[attr-defined]
    return rotate


def _gated(self: Any, hidden: "torch.Tensor") -> "torch.Tensor":
    gate, up = self.gate_proj(hidden), self.up_proj(hidden)
    out: torch.Tensor = self.down_proj(_activated_and_multiplied(self.act_fn, gate, up))
    return out


def _activated_and_multiplied(
    activation: Any, gate: "torch.Tensor", up: "torch.Tensor"
) -> "torch.Tensor":
    """Return the activation of `gate` times `up`, in the memory of `gate` where that can be."""
    import torch

    known = {"SiLU": SILU, "SiLUActivation": SILU, "GELUTanh": GELU_TANH}
    name, compiled = type(activation).__name__, kernels()
    if name in known and compiled is not None and fits(gate, up):
        slope, cube = known[name]
        return compiled.gate(gate, up, slope=slope, cube=cube)
    if name in ("SiLU", "SiLUActivation"):
        return torch.nn.functional.silu(gate, inplace=True).mul_(up)
    if name == "GELUTanh":
        out: torch.Tensor = torch.ops.aten.gelu_(gate, approximate="tanh").mul_(up)
        return out
    changed: torch.Tensor = activation(gate).mul_(up)
    return changed


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error for want of memory, on any device, from others."""
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
