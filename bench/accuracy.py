"""How far the packed engine is from the definitions, on real responses and real models, in float32.

The reference below knows nothing of packs. It runs one sequence at a time through the
model's own forward pass with eager attention and reduces full logits in float64. Run it with
`python bench/accuracy.py --model FOLDER --responses FILES...`, the files being JSON Lines with
`instruction` and `output`. The JSON holds the largest absolute difference of each measure from the
reference, and the largest change over token budgets and a shuffled order.

A token's rank can differ where another logit equals its own to rounding: such tokens are counted, and
those that no tie within 1e-4 explains are counted again as `unexplained`.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import RANK_LIMIT, TokenizedPair
from preceptor.engines.loading import load_model
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.scorers.likelihood import StudentModel
from preceptor.scorers.token_measures import clipped
from preceptor.types import Instruction

BUDGETS = (64, 1024, 8192)
TIE = 1e-4
BLOCK = 64

Array = NDArray[np.float64]


class Measures(NamedTuple):
    """Measures of each response, (responses,), and the clipped rank of every token, end to end."""

    loss: Array
    token_rank: Array
    brier: Array
    ifd: Array
    ranks: Array


class TokenColumns(NamedTuple):
    """Nats, clipped rank, Brier score, and how many other logits lie within `TIE`, of each token."""

    nll: Array
    rank: Array
    brier: Array
    ties: Array


def read_responses(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Return instructions and outputs, the first instruction of every file before the second."""
    columns = [
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in files
    ]
    mixed = [row for group in zip(*columns, strict=False) for row in group]
    return [(row["instruction"], row["output"]) for row in mixed if row["output"]]


def encode(
    student: StudentModel, texts: Sequence[tuple[str, str]], rows: int
) -> list[TokenizedPair]:
    """Return the ids of the first `rows` responses that their prompts leave room for."""
    pairs: list[TokenizedPair] = []
    for instruction, output in texts:
        if len(pairs) == rows:
            break
        pair = student.encoder.encode(Instruction.from_text(instruction).messages, output)
        if pair.response:
            pairs.append(TokenizedPair(pair.prompt, pair.response))
    return pairs


def reference_tokens(model: Any, pair: TokenizedPair) -> TokenColumns:
    """Return the definitions applied to one sequence, a block of rows at a time."""
    import torch

    start, length = len(pair.prompt), len(pair.response)
    with torch.inference_mode():
        ids = torch.tensor([pair.prompt + pair.response])
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=length + 1).logits[0, :-1]
        targets = ids[0, start:].unsqueeze(1)
        blocks = []
        for first in range(0, length, BLOCK):
            block, goal = logits[first : first + BLOCK], targets[first : first + BLOCK]
            logs = block.double().log_softmax(-1)
            gap = block - block.gather(1, goal)
            nll = -logs.gather(1, goal).squeeze(1)
            rank = (1 + (gap > 0).sum(-1)).clamp(max=RANK_LIMIT)
            brier = 1 - 2 * (-nll).exp() + (2 * logs).exp().sum(-1)
            blocks.append(torch.stack((nll, rank, brier, (gap.abs() < TIE).sum(-1) - 1)))
        return TokenColumns(*torch.cat(blocks, dim=1).numpy())


def reference(model: Any, pairs: Sequence[TokenizedPair], context: int) -> tuple[Measures, Array]:
    """Return the reference measures, and every token's ties."""
    model.set_attn_implementation("eager")
    with_prompt = [reference_tokens(model, pair) for pair in pairs]
    without = [reference_tokens(model, unconditional(pair, context)) for pair in pairs]
    loss = np.array([tokens.nll.mean() for tokens in with_prompt])
    measures = Measures(
        loss,
        np.array([tokens.rank.mean() for tokens in with_prompt]),
        np.array([tokens.brier.mean() for tokens in with_prompt]),
        np.exp(loss - np.array([tokens.nll.mean() for tokens in without])),
        np.concatenate([tokens.rank for tokens in with_prompt]),
    )
    return measures, np.concatenate([tokens.ties for tokens in with_prompt])


def unconditional(pair: TokenizedPair, context: int) -> TokenizedPair:
    """Return the same response after nothing but the beginning token."""
    return TokenizedPair((context,), pair.response)


def engine_measures(
    model: Any, pairs: Sequence[TokenizedPair], context: int, *, budget: int, order: Sequence[int]
) -> Measures:
    """Return the engine's measures of the pairs, which it is given in this order."""
    engine = TransformersLikelihood(model, Runtime(max_batch_tokens=budget))
    if not engine.packed:
        raise SystemExit(f"{type(model).__name__} is not packed: there is nothing to measure here")
    passes = []
    for given in (pairs, [unconditional(pair, context) for pair in pairs]):
        found = (one for batch in engine.measure([given[at] for at in order]) for one in batch)
        passes.append({order[one.index]: clipped(one.columns) for one in found})
    rows = [passes[0][at] for at in range(len(pairs))]
    loss, rank, brier = (
        np.array([row[name].mean(dtype=np.float64) for row in rows])
        for name in ("nll", "rank", "brier")
    )
    without = np.array([passes[1][at]["nll"].mean(dtype=np.float64) for at in range(len(pairs))])
    ranks = np.concatenate([row["rank"] for row in rows])
    return Measures(loss, rank, brier, np.exp(loss - without), ranks)


def largest(one: Measures, other: Measures) -> dict[str, float]:
    """Return the largest absolute difference of each measure of a response."""
    names = ("loss", "token_rank", "brier", "ifd")
    return {name: float(np.abs(getattr(one, name) - getattr(other, name)).max()) for name in names}


def rank_changes(one: Measures, other: Measures, ties: Array) -> dict[str, int]:
    """Return how many tokens have another rank, and how many more than their ties explain."""
    changes = np.abs(one.ranks - other.ranks)
    return {
        "tokens": len(changes),
        "changed": int((changes > 0).sum()),
        "unexplained": int((changes > ties).sum()),
    }


def compare(
    folder: str, texts: Sequence[tuple[str, str]], *, rows: int, max_length: int
) -> dict[str, object]:
    """Return everything measured for one model."""
    student = StudentModel(Student(model=folder, max_length=max_length))
    pairs, context = encode(student, texts, rows), student.encoder.context
    model = load_model(student.located, dtype="float32", device="cpu")
    begun = time.perf_counter()
    expected, ties = reference(model, pairs, context)
    reference_seconds = time.perf_counter() - begun
    in_order = range(len(pairs))
    shuffled = np.random.default_rng(0).permutation(len(pairs)).tolist()
    found = {
        budget: engine_measures(model, pairs, context, budget=budget, order=in_order)
        for budget in BUDGETS
    }
    mixed = engine_measures(model, pairs, context, budget=1024, order=shuffled)
    return {
        "model": Path(folder).name,
        "template": student.template.name,
        "responses": len(pairs),
        "mean_loss": float(expected.loss.mean()),
        "from_reference": {str(at): largest(one, expected) for at, one in found.items()},
        "rank_changes": {str(at): rank_changes(one, expected, ties) for at, one in found.items()},
        "over_budgets": {
            f"{low} to {high}": largest(found[low], found[high])
            for low, high in ((BUDGETS[0], BUDGETS[1]), (BUDGETS[1], BUDGETS[2]))
        },
        "over_order": largest(found[1024], mixed),
        "reference_seconds": round(reference_seconds, 1),
        "engine_seconds": round(time.perf_counter() - begun - reference_seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True, help="folder, repeatable")
    parser.add_argument("--responses", nargs="+", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=300, help="tokens of prompt and response")
    arguments = parser.parse_args()
    texts = read_responses(arguments.responses)
    size = {"rows": arguments.rows, "max_length": arguments.max_length}
    results = [compare(folder, texts, **size) for folder in arguments.model]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
