"""Memory and numbers of one long response: the engine against one pass of plain transformers, in float32.

Each runs in a fresh process over the same random weights and tokens. Memory is the peak of the resident set
during the pass, and what of it is above that of the loaded model. Plain transformers holds the logits of all
tokens, of which losses are then taken a block at a time; it is left out, with a reason, where its logits and
weights would take more than 60% of the memory that is free.

    python bench/long.py --shape smollm2-135m --tokens 16384
    python bench/long.py --shape llama-3.2-1b --layers 4 --tokens 16384
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.likelihood import TransformersLikelihood

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    },
}
"""Configurations of Llama models, from their public cards."""

PROMPT = 64
MOST_DIFFERENCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--tokens", type=int, default=16_384, help="of the response")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pack", type=int, help="--max-batch-tokens of the engine")
    parser.add_argument("--role", choices=("engine", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    print(json.dumps(measured(given) if given.role else compared(given), indent=2))


def compared(given: argparse.Namespace) -> dict[str, Any]:
    """Return what both processes say, and how they compare."""
    found: dict[str, Any] = {"shape": given.shape, "layers": layers(given), "tokens": given.tokens}
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        for role in ("engine", "plain"):
            if role == "plain" and (reason := too_much(given)):
                found[role] = {"skipped": reason}
                continue
            out = Path(folder) / f"{role}.npy"
            command = [sys.executable, __file__, *sys.argv[1:], "--role", role, "--out", str(out)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[role] = json.loads(run.stdout)
            losses[role] = np.load(out)
    if "plain" in losses:
        found["peak_of_plain_over_engine"] = found["plain"]["peak_mb"] / found["engine"]["peak_mb"]
        difference = float(np.abs(losses["plain"] - losses["engine"]).max())
        found |= {"largest_difference": difference, "equal": difference <= MOST_DIFFERENCE}
        found["spread_of_losses"] = float(losses["plain"].std())
    return found


def layers(given: argparse.Namespace) -> int:
    return int(given.layers or SHAPES[given.shape]["num_hidden_layers"])


def too_much(given: argparse.Namespace) -> str | None:
    """Return why the plain pass is not tried; None where its memory is there."""
    shape = SHAPES[given.shape]
    logits = 4 * given.tokens * shape["vocab_size"]
    weights = 4 * shape["hidden_size"] * shape["vocab_size"]
    weights += 16 * layers(given) * shape["hidden_size"] * shape["intermediate_size"]
    free = status("/proc/meminfo", "MemAvailable")
    needed = (logits + weights) / 2**20
    if needed < 0.6 * free:
        return None
    return f"about {needed:,.0f} MB are needed, {free:,.0f} MB are free"


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Run one pass in this process; its losses go to `given.out`."""
    torch.set_num_threads(given.threads)
    model, pair = built(given)
    run = plain if given.role == "plain" else engine(model, given)
    loaded = status("/proc/self/status", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = time.perf_counter()
    losses = run(model, pair)
    seconds = time.perf_counter() - began
    peak = status("/proc/self/status", "VmHWM")
    np.save(given.out, losses)
    return {
        "peak_mb": round(peak),
        "loaded_mb": round(loaded),
        "pass_kb_per_token": round((peak - loaded) * 1024 / given.tokens, 1),
        "seconds": round(seconds, 1),
    }


def built(given: argparse.Namespace) -> tuple[Any, TokenizedPair]:
    """Return the model, with weights that let each token depend on others, and what it reads."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    settings = SHAPES[given.shape] | {"num_hidden_layers": layers(given)}
    config = LlamaConfig(**settings, max_position_embeddings=given.tokens + PROMPT)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.data *= (0.1 if "embed" in name else weight.shape[1] ** -0.5) / 0.02
    ids = torch.randint(0, config.vocab_size, (PROMPT + given.tokens,)).tolist()
    return model, TokenizedPair(tuple(ids[:PROMPT]), tuple(ids[PROMPT:]))


def engine(model: Any, given: argparse.Namespace) -> Any:
    loaded = TransformersLikelihood(model, Runtime(max_batch_tokens=given.pack))
    if not (loaded.packed and loaded.in_pieces):
        raise SystemExit(f"the engine would not run this in pieces: {loaded.refusal}")

    def run(_model: Any, pair: TokenizedPair) -> Any:
        ((found,),) = loaded.measure([pair])
        return found.columns["nll"]

    return run


def plain(model: Any, pair: TokenizedPair) -> Any:
    ids = torch.tensor([pair.prompt + pair.response])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, PROMPT - 1 : -1]
        blocks = zip(logits.split(1024), ids[0, PROMPT:].split(1024), strict=True)
        losses = [torch.nn.functional.cross_entropy(*one, reduction="none") for one in blocks]
    return torch.cat(losses).numpy()


def status(file: str, name: str) -> float:
    """Return a figure of Linux in megabytes."""
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
