"""How fast a model could answer on this machine, and what it takes, before it is loaded: never for results.

Writing a token for each conversation of a batch takes one product of every weight with the
batch. So one product of known size, timed here and now, gives the pace that no model of so many parameters
can beat, whether arithmetic or memory is the limit.
"""

import os
import time
from pathlib import Path
from typing import Any

from preceptor.engines.models import LocatedModel
from preceptor.errors import require

_WIDTH = 4096
_REPEATS = 5


def parameters_of(located: LocatedModel) -> int | None:
    """Return how many parameters a model has by the headers of its weights; None where unknown."""
    from math import prod

    require("safetensors", purpose="Reading a model's size")
    from safetensors import SafetensorError, safe_open

    files = sorted(Path(located.source).glob("*.safetensors"))
    if not files:
        return _parameters_on_hub(located)
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="numpy") as weights:
                names = weights.keys()  # a file of weights cannot be gone through itself
                total += sum(prod(weights.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError):
            return None
    return total


def _parameters_on_hub(located: LocatedModel) -> int | None:
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError

    try:
        found = get_safetensors_metadata(located.source, revision=located.revision)
    except (HfHubHTTPError, NotASafetensorsRepoError, OSError, ValueError):
        return None
    return sum(found.parameter_count.values())


def device_memory(device: str) -> int:
    """Return the bytes of memory that models have on a device; 0 where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def fastest_pace(parameters: int, *, batch: int, dtype: str, device: str) -> float:
    """Return tokens a second of a whole batch that nothing of this size can beat here."""
    import torch

    kind = getattr(torch, dtype)
    weights = torch.ones(_WIDTH, _WIDTH, dtype=kind, device=device)
    states = torch.ones(batch, _WIDTH, dtype=kind, device=device)
    seconds = min(_timed(states, weights, device) for _ in range(_REPEATS))
    return batch / (seconds * parameters / _WIDTH**2)


def _timed(states: Any, weights: Any, device: str) -> float:
    import torch

    began = time.perf_counter()
    product = states @ weights
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    float(product[0, 0])
    return time.perf_counter() - began
