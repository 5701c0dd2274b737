"""Speed of the likelihood engine against its peers and the machine's limit, side by side in one run.

Everything scores the same responses with the same weights in float32. The limit is a roofline: the
multiplications that cannot be avoided (each prompt once, each response token but the last through the body,
each response token through the head) over the speed of a large matrix product. A shared machine's speed
changes by half within a minute, so the product is measured all along: a process of its own scores, and every
few seconds it is stopped for as long as a few products take, which is taken off its time. Attention's own
multiplications are told apart, because peers' references usually leave them out. Rounds are interleaved and
medians of ratios are reported, because absolute times on a shared machine mean little.

    python bench/speed.py --model FOLDER --responses ../shared/data/zoo/*.jsonl

Models of the size that users tune do not come with a package; `--shape` measures one with random weights, on
which speed does not depend, and the tokens of `--model`.

The variables MKL_ENABLE_INSTRUCTIONS=AVX2 and ATEN_CPU_CAPABILITY=avx2 hold everything to the instructions
of a processor without AVX-512: the limit, the peers and the engine.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from statistics import mean, median
from typing import Any, NamedTuple

import torch

import paused
from preceptor.engines.base import TokenizedPair
from preceptor.engines.models import LocatedModel, load_model, load_tokenizer, locate
from preceptor.engines.transformers import EngineOptions, TransformersLikelihood
from preceptor.instructions import ResponseSource
from preceptor.templates import Encoder, choose_template

SHAPES = {
    "llama-3.2-1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    }
}
"""Configurations of Llama models, from their public cards."""


CONTENDERS = ("padded_batch_of_8", "one_by_one", "lm_eval")
"""Whom the engine is compared with."""


class Work(NamedTuple):
    """Multiplications that cannot be avoided, in floating point operations."""

    linear: float
    attention: float
    tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--responses", nargs="+", required=True)
    parser.add_argument("--instructions", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--token-budget", type=int, default=None)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=None)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    messages, pauses = paused.run(score_all, given)
    facts, *spans = messages
    print(json.dumps(summary(facts, [result(span, pauses) for span in spans], given), indent=2))


class Facts(NamedTuple):
    """What is scored: the model's name, the work in it, and the tokens of each response."""

    model: str
    work: Work
    lengths: list[int]


class Span(NamedTuple):
    """What one contender did in one round: its times, and the responses' losses."""

    name: str
    begin: float
    end: float
    processor: float
    losses: list[float]


def score_all(there: Connection, given: argparse.Namespace) -> None:
    """Let every contender score the same pairs, round after round, and tell of each."""
    torch.set_num_threads(given.threads)
    located = locate(given.model)
    pairs = read_pairs(located, given)
    model = load(located, given.shape)
    contenders = build(located, model, given)
    name = given.shape or located.name
    there.send(Facts(name, necessary(model, pairs), [len(pair.response) for pair in pairs]))
    for _ in range(given.rounds):
        for name, contender in contenders.items():
            begin, busy = time.monotonic(), time.process_time()
            losses = contender(pairs)
            end, busy = time.monotonic(), time.process_time() - busy
            there.send(Span(name, begin, end, busy, losses))


def load(located: LocatedModel, shape: str | None) -> Any:
    """Return the model, or one of another shape with random weights, the same at every call."""
    if shape is None:
        return load_model(located, dtype="float32", device="cpu")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).eval()


def read_pairs(located: LocatedModel, given: argparse.Namespace) -> list[TokenizedPair]:
    """Return the pairs of every file's first instructions, in the order of the files."""
    template = choose_template("auto", located.folder)
    encoder = Encoder(load_tokenizer(located), template, max_length=given.max_length)
    pairs = []
    for path in given.responses:
        for response in islice(ResponseSource.open([path]), given.instructions):
            pair = encoder.encode(response.instruction.messages, response.text or "")
            if pair.response:
                pairs.append(TokenizedPair(pair.prompt, pair.response))
    return pairs


def necessary(model: Any, pairs: Sequence[TokenizedPair]) -> Work:
    """Return the multiplications nobody can avoid on these pairs."""
    embedding = model.get_input_embeddings().weight
    body = sum(p.numel() for p in model.parameters() if p.dim() == 2 and p.shape != embedding.shape)
    prompts = {pair.prompt for pair in pairs}
    inner = sum(len(prompt) for prompt in prompts) + sum(len(p.response) - 1 for p in pairs)
    predicted = sum(len(pair.response) for pair in pairs)
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    spans = [(0, len(prompt)) for prompt in prompts]
    spans += [(len(pair.prompt), len(pair.response) - 1) for pair in pairs]
    seen = sum(
        seen_keys(before, length, window) for window in windows(config) for before, length in spans
    )
    attention = 4 * width * config.num_attention_heads * seen
    return Work(2.0 * body * inner + 2.0 * embedding.numel() * predicted, attention, predicted)


def windows(config: Any) -> list[int | None]:
    """Return how many keys a query of each layer may see at most; None: all before it."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    sliding = getattr(config, "sliding_window", None)
    return [sliding if kind == "sliding_attention" else None for kind in kinds]


def seen_keys(before: int, length: int, window: int | None) -> float:
    """Return how many pairs of query and key there are in `length` tokens that follow `before` others."""
    if window is None:
        return length * before + length * (length + 1) / 2
    return float(sum(min(before + place + 1, window) for place in range(length)))


Contender = Callable[[Sequence[TokenizedPair]], list[float]]


def build(located: LocatedModel, model: Any, given: argparse.Namespace) -> dict[str, Contender]:
    """Return what is to score the pairs, by name; the engine is always among them."""
    plain = load(located, given.shape)
    engine = TransformersLikelihood(model, EngineOptions(token_budget=given.token_budget))
    wanted = CONTENDERS if given.only is None else given.only
    contenders: dict[str, Contender] = {"preceptor": lambda pairs: ours(engine, pairs)}
    if "padded_batch_of_8" in wanted:
        contenders["padded_batch_of_8"] = lambda pairs: padded(plain, pairs, size=8)
    if "one_by_one" in wanted:
        contenders["one_by_one"] = lambda pairs: padded(plain, pairs, size=1)
    if "lm_eval" in wanted:
        try:
            contenders["lm_eval"] = lm_eval(located, plain)
        except ImportError:
            told = "lm-eval is not installed: pip install lm-eval==0.4.13 to compare with it"
            print(told, file=sys.stderr)
    return contenders


def ours(engine: TransformersLikelihood, pairs: Sequence[TokenizedPair]) -> list[float]:
    """Return the losses by the engine, which also gives ranks and entropies."""
    found = {m.index: m.statistics.nll for batch in engine.measure(pairs) for m in batch}
    return [found[index] for index in range(len(pairs))]


def padded(model: Any, pairs: Sequence[TokenizedPair], *, size: int) -> list[float]:
    """Return the losses by plain transformers: right-padded batches in the given order, full logits.

    Only what is needed of the logits is normalised: with all of it, a batch of eight long responses would
    need 22 GB over a vocabulary of 262,144.
    """
    losses = []
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        rows = [[*pair.prompt, *pair.response] for pair in batch]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
            for place, pair in enumerate(batch):
                first = len(pair.prompt)
                targets = torch.tensor(pair.response)
                span = logits[place, first - 1 : first + len(targets) - 1].log_softmax(-1)
                losses.append(-float(span.gather(1, targets.unsqueeze(1)).sum()))
    return losses


def lm_eval(located: LocatedModel, model: Any) -> Contender:
    """Return lm-eval's own loglikelihood over token ids, with its default ordering."""
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=load_tokenizer(located), batch_size=1, device="cpu")

    def score(pairs: Sequence[TokenizedPair]) -> list[float]:
        requests = [(("", ""), list(pair.prompt), list(pair.response)) for pair in pairs]
        with torch.inference_mode():
            answers = harness._loglikelihood_tokens(requests, disable_tqdm=True)
        return [-float(answer[0]) for answer in answers]

    return score


class Result(NamedTuple):
    """What one contender did in one round, its pauses taken off; speeds in operations per second."""

    name: str
    seconds: float
    processor: float
    products: list[float]
    losses: list[float]


def result(span: Span, pauses: list[paused.Pause]) -> Result:
    """Return the contender's own seconds, and what products did in its pauses."""
    seconds = span.end - span.begin - paused.paused(span.begin, span.end, pauses)
    products = paused.speeds(span.begin, span.end, pauses)
    return Result(span.name, seconds, span.processor, products, span.losses)


def summary(
    facts: Facts, results: Sequence[Result], given: argparse.Namespace
) -> dict[str, object]:
    """Return medians over rounds: fractions of the roofline, and ratios to the engine."""
    by_name: dict[str, list[Result]] = {}
    for one in results:
        by_name.setdefault(one.name, []).append(one)
    ours = by_name["preceptor"]
    return {
        "model": facts.model,
        "settings": vars(given) | {"responses": len(given.responses)},
        "processor_instructions": {
            "pytorch": torch.backends.cpu.get_cpu_capability(),
            "mkl": os.environ.get("MKL_ENABLE_INSTRUCTIONS", "its own choice"),
        },
        "response_tokens": facts.work.tokens,
        "contenders": {
            name: row(facts, theirs, ours, given.threads) for name, theirs in by_name.items()
        },
    }


def row(
    facts: Facts, theirs: Sequence[Result], ours: Sequence[Result], threads: int
) -> dict[str, object]:
    """Return a contender's medians over its rounds, each beside the engine's of the same round."""
    work = facts.work
    of_peak = median(work.linear / r.seconds / mean(r.products) for r in theirs)
    of_fastest = median(work.linear / r.seconds / max(r.products) for r in theirs)
    by_processor = median(work.linear / r.processor / mean(r.products) * threads for r in theirs)
    both = list(zip(theirs, ours, strict=True))
    return {
        "roofline": round(of_peak, 3),
        "roofline_with_attention": round(of_peak * (1 + work.attention / work.linear), 3),
        "roofline_by_fastest_product": round(of_fastest, 3),
        "roofline_by_processor_time": round(by_processor, 3),
        "gigaflops_of_products": [[round(speed / 1e9, 1) for speed in r.products] for r in theirs],
        "seconds": [round(r.seconds, 1) for r in theirs],
        "tokens_per_second": round(median(work.tokens / r.seconds for r in theirs), 1),
        "preceptor_is_faster_by": round(median(t.seconds / o.seconds for t, o in both), 2),
        "processor_time_ratio": round(median(t.processor / o.processor for t, o in both), 2),
        "largest_difference": max(
            abs(a - b) / length
            for t, o in both
            for a, b, length in zip(t.losses, o.losses, facts.lengths, strict=True)
        ),
    }


if __name__ == "__main__":
    main()
