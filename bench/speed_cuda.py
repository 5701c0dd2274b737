"""Speed of the likelihood engine on a CUDA device, against plain transformers and the device's own limit.

What is measured, and against what, is as in `speed.py`: the multiplications that nobody can avoid, over the
speed of a large matrix product in the same data type. A GPU is not shared, so contenders simply alternate;
medians over rounds are reported.

    python bench/speed_cuda.py --model FOLDER --shape llama-3.2-1b --responses ../shared/data/zoo/*.jsonl

The folder gives the tokenizer, and the weights where no `--shape` is given.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from preceptor.engines.attention import NAME
from preceptor.engines.base import TokenizedPair
from preceptor.engines.models import load_model, locate
from preceptor.engines.transformers import EngineOptions, TransformersLikelihood
from preceptor.errors import PreceptorError
from speed import SHAPES, necessary, ours, read_pairs

BATCHES = (8, 32)
"""Rows of the padded batches that the engine is compared with."""

Contender = Callable[[Sequence[TokenizedPair]], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--responses", nargs="+", required=True)
    parser.add_argument("--instructions", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    given = parser.parse_args()
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
    for name, contender in contenders.items():
        model.set_attn_implementation(NAME if name == "preceptor" else "sdpa")
        contender(pairs[:40])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, list[float]] = {}
    speeds = []
    for _ in range(given.rounds):
        speeds.append(product_speed(given))
        for name, contender in contenders.items():
            model.set_attn_implementation(NAME if name == "preceptor" else "sdpa")
            torch.cuda.synchronize()
            begin = time.perf_counter()
            losses[name] = contender(pairs)
            torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    work, speed = necessary(model, pairs), median(speeds)
    rows = {
        name: {
            "roofline": round(work.linear / median(times) / speed, 3),
            "tokens_per_second": round(work.tokens / median(times)),
            "preceptor_is_faster_by": round(median(times) / median(seconds["preceptor"]), 2),
            "seconds": [round(one, 3) for one in times],
            "mean_difference": sum(
                abs(one - other) / len(pair.response)
                for one, other, pair in zip(losses[name], losses["preceptor"], pairs, strict=True)
            )
            / len(pairs),
        }
        for name, times in seconds.items()
    }
    found = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "settings": vars(given) | {"responses": len(given.responses)},
        "teraflops_of_product": round(speed / 1e12, 1),
        "response_tokens": work.tokens,
        "attention_to_linear": round(work.attention / work.linear, 3),
        "peak_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "contenders": rows,
    }
    print(json.dumps(found, indent=2))


def random_model(shape: str, dtype: str) -> Any:
    """Return a model of this shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        return LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).to(getattr(torch, dtype))


def engine(model: Any) -> Contender:
    """Return the engine, packed as it comes."""
    found = TransformersLikelihood(model, EngineOptions())
    return lambda pairs: ours(found, pairs)


def padding(model: Any, *, size: int, ordered: bool) -> Contender:
    """Return plain transformers in right-padded batches of `size`, longest first where `ordered`."""

    def score(pairs: Sequence[TokenizedPair]) -> list[float]:
        order = list(range(len(pairs)))
        if ordered:
            order.sort(key=lambda at: -len(pairs[at].prompt + pairs[at].response))
        losses = [0.0] * len(pairs)
        for start in range(0, len(pairs), size):
            batch = order[start : start + size]
            for at, loss in zip(
                batch, padded_losses(model, [pairs[i] for i in batch]), strict=True
            ):
                losses[at] = loss
        return losses

    return score


def padded_losses(model: Any, pairs: Sequence[TokenizedPair]) -> list[float]:
    """Return the losses of one batch from the logits of its response tokens, in float32."""
    rows = [[*pair.prompt, *pair.response] for pair in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    sums = []
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask.to(model.device)).logits
        for place, pair in enumerate(pairs):
            first, stop = len(pair.prompt), len(rows[place])
            span = logits[place, first - 1 : stop - 1].float().log_softmax(-1)
            sums.append(-span.gather(1, ids[place, first:stop].unsqueeze(1)).sum())
        return torch.stack(sums).tolist()


def product_speed(given: argparse.Namespace, size: int = 8192) -> float:
    """Return the speed of a large matrix product in operations per second, the median of twenty."""
    kind = getattr(torch, given.dtype)
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
