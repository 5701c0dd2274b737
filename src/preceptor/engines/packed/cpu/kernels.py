"""Compiled steps for a CPU: built once from `kernels.c` by the machine's own C compiler, where there is one.

Between multiplications PyTorch walks over the same memory once for every elementwise operation; the
compiled steps walk over it once. They change numbers by rounding alone, and whoever uses them keeps a way
without: no compiler, another kind of number or another device means that way. The environment variable
PRECEPTOR_KERNELS=off does too.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SWITCH = "PRECEPTOR_KERNELS"
"""Environment variable; `off` keeps to PyTorch's own operations."""

_FLAGS = (
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
)
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 60
_SOURCE = Path(__file__).with_name("kernels.c")

SILU = (1.0, 0.0)
GELU_TANH = (2 * (2 / 3.141592653589793) ** 0.5, 0.044715)
"""Slope and cube of the activation `g / (1 + exp(-slope * (g + cube * g**3)))`."""


class Kernels:
    """The compiled steps; every tensor must be contiguous float32 on the CPU (`fits`)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        functions: Any = library
        whole, real, at = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
        functions.preceptor_fold.argtypes = [at, whole, whole, whole, *[at] * 7]
        functions.preceptor_root_mean_square.argtypes = [at, at, at, whole, whole, real, real]
        functions.preceptor_gate.argtypes = [at, at, whole, real, real]
        states, sizes = [at, at, at, whole], [whole, whole, whole]
        functions.preceptor_attend.argtypes = [
            *(at, whole, whole, whole, whole, *states, *states),
            *(*sizes, real, whole, at, at),
        ]
        functions.preceptor_rotate.argtypes = [at, *[whole] * 5, at, at]
        for name in ("fold", "root_mean_square", "gate", "rotate", "attend"):
            getattr(functions, f"preceptor_{name}").restype = None
        functions.preceptor_attend_scratch.argtypes = sizes
        functions.preceptor_attend_scratch.restype = whole
        self._library = functions

    def fold(self, logits: "torch.Tensor", first: int, *state: "torch.Tensor") -> None:
        """Fold a tile (rows, columns) of logits, from vocabulary entry `first` on, into `state`.

        `state` is, each of shape (rows,): targets (int64), thresholds, found, top (float32), total,
        weighted (float64), above (float32); see `kernels.c`.
        """
        pointers = [tensor.data_ptr() for tensor in state]
        self._library.preceptor_fold(logits.data_ptr(), *logits.shape, first, *pointers)

    def root_mean_square(
        self, values: "torch.Tensor", weight: "torch.Tensor", *, epsilon: float, offset: float
    ) -> "torch.Tensor":
        """Return `values` (..., width) over their root mean square, times `weight + offset`."""
        import torch

        out, width = torch.empty_like(values), values.shape[-1]
        self._library.preceptor_root_mean_square(
            values.data_ptr(),
            out.data_ptr(),
            weight.data_ptr(),
            values.numel() // width,
            width,
            epsilon,
            offset,
        )
        return out

    def gate(
        self, gate: "torch.Tensor", up: "torch.Tensor", *, slope: float, cube: float
    ) -> "torch.Tensor":
        """Return `activation(gate) * up` in the memory of `gate`."""
        self._library.preceptor_gate(gate.data_ptr(), up.data_ptr(), gate.numel(), slope, cube)
        return gate

    def rotate(
        self, values: "torch.Tensor", cosine: "torch.Tensor", sine: "torch.Tensor"
    ) -> "torch.Tensor":
        """Embed positions in `values` (heads, tokens, width), in place; angles are (tokens, width)."""
        self._library.preceptor_rotate(
            values.data_ptr(),
            *values.stride()[:2],
            *values.shape,
            cosine.data_ptr(),
            sine.data_ptr(),
        )
        return values

    def attend(
        self,
        query: "torch.Tensor",
        shared: "tuple[torch.Tensor, torch.Tensor]",
        own: "tuple[torch.Tensor, torch.Tensor]",
        out: "torch.Tensor",
        *,
        scale: float,
        window: int | None,
    ) -> "torch.Tensor":
        """Attend causally; `query` (heads, queries, width) are the last positions of the keys.

        `shared` and `own` are keys and values (key heads, tokens, width) that follow each other; each query
        sees the `window` keys that end with its own, all of them where it is None. See `attends`.
        Writes to and returns `out` (queries, heads, value width), contiguous.
        """
        heads, queries, width = query.shape
        value_width, keys = own[1].shape[-1], shared[0].shape[1] + own[0].shape[1]
        scratch = query.new_empty(self._library.preceptor_attend_scratch(keys, width, value_width))
        parts: list[Any] = []
        for key, value in (shared, own):
            strides = (ctypes.c_int64 * 4)(*key.stride()[:2], *value.stride()[:2])
            parts += [key.data_ptr(), value.data_ptr(), strides, key.shape[1]]
        self._library.preceptor_attend(
            query.data_ptr(),
            *query.stride()[:2],
            queries,
            heads,
            *parts,
            own[0].shape[0],
            width,
            value_width,
            scale,
            window or 0,
            out.data_ptr(),
            scratch.data_ptr(),
        )
        return out


def fits(*tensors: "torch.Tensor") -> bool:
    """Whether the compiled steps can work on these tensors."""
    import torch

    return all(
        one.dtype == torch.float32 and one.device.type == "cpu" and one.is_contiguous()
        for one in tensors
    )


_ATTENDED = 32
"""Widths that the compiled attention takes are multiples of this."""


def attends(*heads: "torch.Tensor") -> bool:
    """Whether the compiled attention can work on these (1, key heads, tokens, width), strided or not."""
    import torch

    return all(
        one.dtype == torch.float32
        and one.device.type == "cpu"
        and one.stride(-1) == 1
        and one.shape[-1] % _ATTENDED == 0
        for one in heads
    )


def rotates(
    query: "torch.Tensor", key: "torch.Tensor", cosine: "torch.Tensor", sine: "torch.Tensor"
) -> bool:
    """Whether the compiled rotation can work on these (1, heads, tokens, width), over their whole width."""
    import torch

    angles = (1, query.shape[-2], query.shape[-1])
    return (
        fits(cosine, sine)
        and cosine.shape == sine.shape == angles
        and all(
            one.dtype == torch.float32
            and one.device.type == "cpu"
            and one.stride(-1) == 1
            and (one.dim(), one.shape[0], *one.shape[2:]) == (4, *angles)
            for one in (query, key)
        )
    )


def switched_off() -> bool:
    """Whether the user wants PyTorch's own operations."""
    return os.environ.get(SWITCH, "").lower() in ("off", "0", "no")


@cache
def kernels() -> Kernels | None:
    """Return the compiled steps, built at first use; None where they cannot be had, or are switched off."""
    if switched_off():
        return None
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None or not _SOURCE.is_file():
        logger.info("no C compiler is here: elementwise steps run in PyTorch, which is slower")
        return None
    try:
        return Kernels(ctypes.CDLL(str(_built(compiler))))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        logger.info("the compiled steps could not be built (%s): PyTorch does without", error)
        return None


def _built(compiler: str) -> Path:
    """Return the library, compiled unless this machine's cache has it."""
    from platformdirs import user_cache_path

    flags = (*_FLAGS, *_held_back())
    parts = (_SOURCE.read_bytes(), repr((compiler, flags, _processor())).encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = user_cache_path("preceptor") / "kernels"
    library = folder / f"{digest}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / library.name
        subprocess.run(
            [compiler, *flags, "-o", str(made), str(_SOURCE), "-lm"],
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )
        made.replace(library)
    return library


def _held_back() -> tuple[str, ...]:
    """Return flags that keep to PyTorch's own choice of instructions (its ATEN_CPU_CAPABILITY)."""
    import torch

    return ("-mno-avx512f",) if torch.backends.cpu.get_cpu_capability() == "AVX2" else ()


def _processor() -> Any:
    """Return what `-march=native` depends on: a cache may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    return sorted({one for one in lines if one.startswith(("flags", "Features", "model name"))})
