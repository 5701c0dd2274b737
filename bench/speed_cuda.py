"""Speed of the likelihood engine on a CUDA device, against plain transformers and the device's own limit.

What is measured, and against what, is as in `speed.py`: the multiplications that nobody can avoid, over the
speed of a large matrix product in the same data type. A GPU is not shared, so contenders simply alternate;
medians over rounds are reported.

    python bench/speed_cuda.py --model FOLDER --shape llama-3.2-1b --responses ../shared/data/zoo/*.jsonl

The folder gives the tokenizer, and the weights where no `--shape` is given. With `--vllm` vLLM's
`prompt_logprobs` are a contender too. It takes half of the device's memory for itself, of which `gigabytes`
know nothing, and has not been run on a GPU yet.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch

from preceptor.engines.base import TokenizedPair
from preceptor.engines.loading import load_model
from preceptor.engines.models import LocatedModel, locate
from preceptor.engines.packed.attention import NAME
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.vllm import load_vllm
from preceptor.engines.vllm_likelihood import VllmLikelihood, chunk_tokens
from preceptor.errors import PreceptorError
from speed import SHAPES, Work, necessary, options, ours, padded, read_pairs

BATCHES = (8, 32)
"""Rows of the padded batches that the engine is compared with."""

Contender = Callable[[Sequence[TokenizedPair]], list[float]]


def main() -> None:
    parser = options(__doc__, instructions=20, max_length=2048)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--vllm", action="store_true", help="measure vLLM's prompt_logprobs too")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error(f"this PyTorch ({torch.__version__}) finds no CUDA device")
    try:
        located = locate(given.model)
        pairs = read_pairs(located, given)
        loaded = None if given.shape else load_model(located, dtype=given.dtype, device="cpu")
    except PreceptorError as error:
        parser.error(str(error))
    model = (loaded or random_model(given.shape, given.dtype)).eval().to("cuda")
    contenders = {"preceptor": engine(model)} | {
        f"{name}_of_{size}": padding(model, size=size, ordered=name == "sorted_batch")
        for name in ("padded_batch", "sorted_batch")
        for size in BATCHES
    }
    with tempfile.TemporaryDirectory() as folder:
        if given.vllm:
            contenders["vllm"] = by_vllm(model, located, Path(folder), given)
        products, rounds = play(contenders, model, pairs, given)
    print(json.dumps(summary(products, rounds, necessary(model, pairs), pairs, given), indent=2))


class Turn(NamedTuple):
    """What a contender found, nats of each response; its seconds and the most memory it held."""

    losses: list[float]
    seconds: float
    gigabytes: float


Round = dict[str, Turn]


def play(
    contenders: dict[str, Contender],
    model: Any,
    pairs: Sequence[TokenizedPair],
    given: argparse.Namespace,
) -> tuple[list[float], list[Round]]:
    """Return the product's speed and every contender's turn of each round, after one to warm up."""

    def turn(name: str, pairs: Sequence[TokenizedPair]) -> Turn:
        model.set_attn_implementation(NAME if name == "preceptor" else "sdpa")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        losses = contenders[name](pairs)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        return Turn(losses, seconds, torch.cuda.max_memory_allocated() / 1e9)

    for name in contenders:
        turn(name, pairs[:40])
    products, rounds = [], []
    for _ in range(given.rounds):
        products.append(product_speed(given.dtype))
        rounds.append({name: turn(name, pairs) for name in contenders})
    return products, rounds


def summary(
    products: Sequence[float],
    rounds: Sequence[Round],
    work: Work,
    pairs: Sequence[TokenizedPair],
    given: argparse.Namespace,
) -> dict[str, object]:
    """Return medians over rounds: fractions of the roofline, and ratios to the engine."""
    speed = median(products)
    seconds = {name: [one[name].seconds for one in rounds] for name in rounds[0]}
    losses = {name: turn.losses for name, turn in rounds[0].items()}
    contenders = {
        name: {
            "roofline": round(work.linear / median(times) / speed, 3),
            "tokens_per_second": round(work.tokens / median(times)),
            "preceptor_is_faster_by": round(median(times) / median(seconds["preceptor"]), 2),
            "seconds": [round(one, 3) for one in times],
            "gigabytes": round(max(one[name].gigabytes for one in rounds), 1),
            "mean_difference": mean(
                abs(one - other) / len(pair.response)
                for one, other, pair in zip(losses[name], losses["preceptor"], pairs, strict=True)
            ),
        }
        for name, times in seconds.items()
    }
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "settings": vars(given) | {"responses": len(given.responses)},
        "teraflops_of_product": round(speed / 1e12, 1),
        "response_tokens": work.tokens,
        "attention_to_linear": round(work.attention / work.linear, 3),
        "contenders": contenders,
    }


def random_model(shape: str, dtype: str) -> Any:
    """Return a model of this shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        return LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).to(getattr(torch, dtype))


def engine(model: Any) -> Contender:
    """Return the engine, packed as it comes."""
    found = TransformersLikelihood(model)
    return lambda pairs: ours(found, pairs)


def padding(model: Any, *, size: int, ordered: bool) -> Contender:
    """Return plain transformers in right-padded batches of `size`, longest first where `ordered`."""

    def score(pairs: Sequence[TokenizedPair]) -> list[float]:
        order = list(range(len(pairs)))
        if ordered:
            order.sort(key=lambda at: -len(pairs[at].prompt + pairs[at].response))
        losses = padded(model, [pairs[at] for at in order], size=size)
        return [loss for _, loss in sorted(zip(order, losses, strict=True))]

    return score


def by_vllm(
    model: Any, located: LocatedModel, folder: Path, given: argparse.Namespace
) -> Contender:
    """Return the engine that reads vLLM's `prompt_logprobs`, of the same weights saved to a folder."""
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(located.folder).save_pretrained(folder)
    saved = locate(str(folder))
    loaded = load_vllm(
        saved,
        dtype=given.dtype,
        max_model_len=given.max_length + 1,
        max_num_batched_tokens=chunk_tokens(saved),
        enable_chunked_prefill=True,
        enable_prefix_caching=False,
        gpu_memory_utilization=0.5,
    )
    found = VllmLikelihood(loaded)
    return lambda pairs: ours(found, pairs)


def product_speed(dtype: str, size: int = 8192) -> float:
    """Return the speed of a large matrix product in operations per second, the median of twenty."""
    kind = getattr(torch, dtype)
    left, right = (torch.randn(size, size, dtype=kind, device="cuda") for _ in range(2))
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(left, right)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2.0 * size**3 / median(times)


if __name__ == "__main__":
    main()
