"""Pairs of random tokens for the tiny models of `conftest`, and which of these can be packed."""

import random
from collections.abc import Sequence

import torch

from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.scorers.token_measures import sums_of

PACKED = [
    "llama",
    "gemma2",
    "gemma3",
    "qwen3",
    "mistral",
    "phi3",
    "gpt2",
    "neox",
    "opt",
    "gpt-oss",
]
PLAIN = ["bloom", "mamba"]
NAN_TOKEN = 399
"""A token that random pairs never hold."""


def random_ids(source: random.Random, length: int) -> tuple[int, ...]:
    return tuple(source.randrange(3, NAN_TOKEN) for _ in range(length))


def by_response(engine: TransformersLikelihood, pairs: Sequence[TokenizedPair]) -> torch.Tensor:
    """Return loss, mean rank and mean Brier score of every pair, (pairs, 3), in float64."""
    found = sorted((one for batch in engine.measure(pairs) for one in batch), key=lambda m: m.index)
    assert [one.index for one in found] == list(range(len(pairs)))
    sums = [sums_of(one.columns) for one in found]
    rows = [[s[name] / s["tokens"] for name in ("nll", "rank", "brier")] for s in sums]
    return torch.tensor(rows, dtype=torch.float64)
