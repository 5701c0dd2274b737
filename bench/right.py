"""Whether the likelihoods of tiny models of many architectures are right, in float32 and in bfloat16.

The reference knows nothing of packs: one sequence at a time through the model's own forward pass with eager
attention, logits to log-softmax in float64. A model's noise in a type is how far this pass lies from the same
weights in the next wider type (float64, float32). For each architecture and type the JSON says whether the
engine packs it or why not, the largest and the root mean square difference of a token from the reference, and
the same of the noise. What differs by more than a few times the noise, packed or not, is a silent difference.

    python bench/right.py [--only llama gemma2] > right.json
"""

import argparse
import json
import logging
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from architectures import ARCHITECTURES, build
from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.likelihood import TransformersLikelihood

DTYPES = ("float32", "bfloat16")
TIMES_NOISE = 4.0
FLOOR = {"float32": 1e-4, "bfloat16": 4e-3}
"""Nats that are no difference, whatever the noise is."""

Array = NDArray[np.float64]


def pairs() -> list[TokenizedPair]:
    """Return pairs that share prompts of 1 to 30 tokens; with 1 to 60 more they cross windows and thresholds.

    Half of each response repeats what its prompt has, because models show there what they attend to.
    """
    source = random.Random(0)

    def some(length: int) -> tuple[int, ...]:
        return tuple(source.randrange(3, 399) for _ in range(length))

    found = []
    for prompt, lengths in (
        (some(5), (1, 9, 31, 60)),
        (some(30), (2, 7, 12, 24)),
        (some(1), (16,)),
    ):
        for length in lengths:
            copied = (prompt * length)[: length // 2]
            found.append(TokenizedPair(prompt, some(length - len(copied)) + copied))
    return found


PAIRS = pairs()


def reference(name: str, dtype: torch.dtype, weights: torch.dtype) -> list[Array]:
    """Return the nats of each response's tokens, computed in `dtype` with weights rounded to `weights`."""
    model = build(name).to(weights).to(dtype)
    model.set_attn_implementation("eager")
    rows: dict[int, Array] = {}
    # The shortest first: rotary embeddings of the type dynamic remember the longest sequence.
    for index in sorted(
        range(len(PAIRS)), key=lambda at: len(PAIRS[at].prompt + PAIRS[at].response)
    ):
        pair = PAIRS[index]
        with torch.no_grad():
            ids = torch.tensor([pair.prompt + pair.response])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt) - 1 : -1]
        logs = logits.double().log_softmax(-1)
        nats = -logs.gather(1, torch.tensor(pair.response).unsqueeze(1)).squeeze(1)
        rows[index] = nats.numpy()
    return [rows[index] for index in range(len(PAIRS))]


def noise(name: str, plain: Sequence[Array], dtype: torch.dtype) -> list[Array]:
    """Return how far the plain pass is from that of the same weights in the next wider type."""
    wider = torch.float64 if dtype == torch.float32 else torch.float32
    try:
        exact = reference(name, wider, dtype)
    except RuntimeError:  # a model that computes parts in float32 whatever its weights are
        return [np.zeros_like(row) for row in plain]
    return [np.abs(one - other) for one, other in zip(plain, exact, strict=True)]


def measured(engine: TransformersLikelihood) -> list[Array]:
    """Return the engine's nats of each token, and of no pair twice."""
    found = {one.index: one.columns["nll"] for batch in engine.measure(PAIRS) for one in batch}
    return [found[index].astype(np.float64) for index in range(len(PAIRS))]


def sizes(rows: Sequence[Array]) -> tuple[float, float]:
    """Return the root mean square and the largest of all numbers."""
    every = np.concatenate(rows)
    return float(np.sqrt(np.mean(every**2))), float(every.max())


def compare(name: str, kind: str) -> dict[str, Any]:
    """Return everything that is measured for one architecture in one type."""
    dtype = getattr(torch, kind)
    plain = reference(name, dtype, dtype)
    runtime = Runtime(max_batch_tokens=80)
    engine = TransformersLikelihood(build(name).to(dtype), runtime)
    gaps = [np.abs(one - other) for one, other in zip(measured(engine), plain, strict=True)]
    own = noise(name, plain, dtype)
    first = ([row[:4] for row in rows] for rows in (gaps, own))
    silent = any(
        not gap <= TIMES_NOISE * allowed + floor
        for gap, allowed, floor in (
            *((g, n, FLOOR[kind]) for g, n in [tuple(sizes(rows)[0] for rows in (gaps, own))]),
            *((g, n, FLOOR[kind]) for g, n in [tuple(sizes(rows)[0] for rows in first)]),
            *((g, n, 5 * FLOOR[kind]) for g, n in [tuple(sizes(rows)[1] for rows in (gaps, own))]),
        )
    )
    return {
        "architecture": name,
        "dtype": kind,
        "packed": engine.packed,
        "refused": engine.refusal,
        "difference": {"rms": sizes(gaps)[0], "largest": sizes(gaps)[1]},
        "noise": {"rms": sizes(own)[0], "largest": sizes(own)[1]},
        "silent": silent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = [compare(name, kind) for name in given.only for kind in DTYPES]
    counts = {
        "architectures": len(given.only),
        "packed": sum(row["packed"] for row in rows),
        "refused": sum(not row["packed"] for row in rows),
        "silent differences": sum(row["silent"] for row in rows),
    }
    print(json.dumps({"counts": counts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
