"""Speed of the likelihood engine against its peers and the machine's limit, side by side in one run.

Everything scores the same responses with the same weights in float32. The limit is a roofline: the
multiplications that cannot be avoided (each prompt once, each response token but the last through the body,
each response token through the head) over the speed of a large matrix product. Attention's own
multiplications are counted apart, because peers' references usually leave them out. A shared machine's speed
changes by half within a minute: so all of them, and the product, take turns of a few seconds, each in a
process of its own that is stopped in between. Medians of ratios over rounds are reported, because absolute
times mean little.

    python bench/speed.py --model FOLDER --responses ../shared/data/zoo/*.jsonl

Models of the size that users tune do not come with a package; `--shape` measures one with random weights, on
which speed does not depend, and the tokens of `--model`.

The variables MKL_ENABLE_INSTRUCTIONS=AVX2 and ATEN_CPU_CAPABILITY=avx2 hold everything to the instructions
of a processor without AVX-512: the limit, the peers and the engine.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch

import turns
from preceptor.config.runtime import Runtime
from preceptor.data.responses import ResponseSource
from preceptor.engines.base import Likelihood, TokenizedPair
from preceptor.engines.encoder import Encoder
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import LocatedModel, locate
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.templates import choose_template
from preceptor.errors import PreceptorError

SHAPES: dict[str, dict[str, Any]] = {
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


def options(description: str, *, instructions: int, max_length: int) -> argparse.ArgumentParser:
    """Return a parser of what is scored and how often, with these defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--responses", nargs="+", required=True)
    parser.add_argument("--instructions", type=int, default=instructions)
    parser.add_argument("--max-length", type=int, default=max_length)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def main() -> None:
    parser = options(__doc__, instructions=3, max_length=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-batch-tokens", type=int, default=None)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=CONTENDERS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = ["preceptor", *given.only]
    if "lm_eval" in names and importlib.util.find_spec("lm_eval") is None:
        parser.error(
            "lm_eval needs its package: pip install lm-eval==0.4.13, or leave it out by --only"
        )
    try:
        located = locate(given.model)
        pairs = read_pairs(located, given)
    except PreceptorError as error:
        parser.error(str(error))
    if not pairs:
        parser.error(f"no response fits into {given.max_length} tokens: give more by --max-length")
    players: dict[str, turns.Player] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = random_model(given.shape, folder) if given.shape else None
        try:
            for name in names:
                players[name] = turns.Player(score, name, located, pairs, weights, given)
            rounds = [turns.play(players) for _ in range(given.rounds)]
        finally:
            turns.end(players.values())
    print(json.dumps(summary(players["preceptor"].first, rounds, given), indent=2))


class Facts(NamedTuple):
    """What is scored: the model's name, the work in it, and the tokens of each response."""

    model: str
    work: Work
    lengths: list[int]


def score(
    there: Connection,
    name: str,
    located: LocatedModel,
    pairs: list[TokenizedPair],
    weights: str | None,
    given: argparse.Namespace,
) -> None:
    """Let one contender score all pairs whenever it is asked to; say first what the work is."""
    torch.set_num_threads(given.threads)
    model = load(located, weights)
    facts = Facts(
        given.shape or located.name, necessary(model, pairs), [len(pair.response) for pair in pairs]
    )
    contender = build(name, located, model, given)
    turns.serve(there, facts, lambda: contender(pairs))


def random_model(shape: str, folder: str) -> str:
    """Write a model of this shape with random weights, so that all processes map the same file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).save_pretrained(folder)
    return folder


def load(located: LocatedModel, weights: str | None) -> Any:
    """Return the model, or the one whose weights lie in another folder."""
    if weights is not None:
        located = replace(located, folder=Path(weights), source=weights)
    return load_model(located, dtype="float32", device="cpu")


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


def build(name: str, located: LocatedModel, model: Any, given: argparse.Namespace) -> Contender:
    """Return what scores pairs under this name."""
    if name == "padded_batch_of_8":
        return lambda pairs: padded(model, pairs, size=8)
    if name == "one_by_one":
        return lambda pairs: padded(model, pairs, size=1)
    if name == "lm_eval":
        return lm_eval(located, model)
    engine = TransformersLikelihood(model, Runtime(max_batch_tokens=given.max_batch_tokens))
    return lambda pairs: ours(engine, pairs)


def ours(engine: Likelihood, pairs: Sequence[TokenizedPair]) -> list[float]:
    """Return the losses by an engine, ours with ranks and entropies."""
    found = {
        m.index: float(m.columns["nll"].sum()) for batch in engine.measure(pairs) for m in batch
    }
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
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows]).to(model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask.to(model.device)).logits
            for place, pair in enumerate(batch):
                first, stop = len(pair.prompt), len(rows[place])
                span = logits[place, first - 1 : stop - 1].float().log_softmax(-1)
                losses.append(-span.gather(1, ids[place, first:stop].unsqueeze(1)).sum())
    return torch.stack(losses).tolist()


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


Round = dict[str, tuple[list[float], turns.Times]]


def summary(facts: Facts, rounds: Sequence[Round], given: argparse.Namespace) -> dict[str, object]:
    """Return medians over rounds: fractions of the roofline, and ratios to the engine."""
    return {
        "model": facts.model,
        "settings": vars(given) | {"responses": len(given.responses)},
        "processor_instructions": {
            "pytorch": torch.backends.cpu.get_cpu_capability(),
            "mkl": os.environ.get("MKL_ENABLE_INSTRUCTIONS", "its own choice"),
        },
        "response_tokens": facts.work.tokens,
        "contenders": {name: row(name, facts, rounds, given.threads) for name in rounds[0]},
    }


def row(name: str, facts: Facts, rounds: Sequence[Round], threads: int) -> dict[str, object]:
    """Return a contender's medians over rounds, each beside the engine's of the same round."""
    work = facts.work
    both = [(one[name], one["preceptor"]) for one in rounds]
    times = [theirs for (_, theirs), _ in both]
    of_peak = median(work.linear / t.seconds / mean(t.products) for t in times)
    of_fastest = median(work.linear / t.seconds / max(t.products) for t in times)
    by_processor = median(work.linear / t.processor / mean(t.products) * threads for t in times)
    return {
        "roofline": round(of_peak, 3),
        "roofline_with_attention": round(of_peak * (1 + work.attention / work.linear), 3),
        "roofline_by_fastest_product": round(of_fastest, 3),
        "roofline_by_processor_time": round(by_processor, 3),
        "gigaflops_of_products": [
            {
                "mean": round(mean(t.products) / 1e9, 1),
                "least": round(min(t.products) / 1e9, 1),
                "most": round(max(t.products) / 1e9, 1),
                "count": len(t.products),
            }
            for t in times
        ],
        "seconds": [round(t.seconds, 1) for t in times],
        "tokens_per_second": round(median(work.tokens / t.seconds for t in times), 1),
        "preceptor_is_faster_by": round(
            median(theirs.seconds / ours.seconds for (_, theirs), (_, ours) in both), 2
        ),
        "processor_time_ratio": round(
            median(theirs.processor / ours.processor for (_, theirs), (_, ours) in both), 2
        ),
        "largest_difference": max(
            abs(a - b) / length
            for (theirs, _), (ours, _) in both
            for a, b, length in zip(theirs, ours, facts.lengths, strict=True)
        ),
    }


if __name__ == "__main__":
    main()
