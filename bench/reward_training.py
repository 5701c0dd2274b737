"""How well small reward models, trained with TRL on pairs made from rules, judge pairs they never saw.

Every accuracy stands beside what knows nothing (the longer answer, the same model
untrained) and carries its 95% Wilson interval. Two models: a tiny one trained from nothing on every kind
of pair, and optionally a real base model whose last layers alone are trained on a few. The kind `zoo`
(the demo's answers, verified right against verified wrong) is never trained on.

Run it with `python bench/reward_training.py [--steps 600] [--base FOLDER]`; it prints JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import make_preference_pairs as pair_maker
import small_reward_model as small
from make_preference_pairs import Pair
from small_reward_model import Recipe

Array = NDArray[np.float64]


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95% interval of a proportion (Wilson 1927); ties count as half a success."""
    z, share = 1.959964, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - float(reach) / (1 + z**2 / trials), middle + float(reach) / (1 + z**2 / trials)


def accuracy(values: Array) -> dict[str, float | int]:
    """Return the mean of preferences with its interval and n."""
    low, high = wilson(float(values.sum()), len(values))
    figures = {"accuracy": float(values.mean()), "low": low, "high": high}
    return {**{name: round(figure, 3) for name, figure in figures.items()}, "n": len(values)}


def by_kind(values: Array, pairs: Sequence[Pair]) -> dict[str, object]:
    """Return the accuracy over all kinds made from rules, and of each kind."""
    kinds = np.array([pair.kind for pair in pairs])
    each = {str(kind): accuracy(values[kinds == kind]) for kind in dict.fromkeys(kinds)}
    return {"all_but_zoo": accuracy(values[kinds != "zoo"]), **each}


def measured(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> dict[str, object]:
    """Return the accuracies of a model."""
    return by_kind(small.preferred(small.rewards(model, tokenizer, pairs)), pairs)


def lengths(pairs: Sequence[Pair]) -> Array:
    """Return what "the longer the better" prefers, (pairs,)."""
    return small.preferred(
        np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs], dtype=np.float64)
    )


def tiny(recipe: Recipe, pairs: Sequence[Pair], folder: Path) -> dict[str, object]:
    """Train the tiny model from nothing; return what it prefers before and after."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    begun = time.perf_counter()
    small.train_reward_model(folder, recipe)
    seconds = time.perf_counter() - begun
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return {
        "parameters": model.num_parameters(),
        "training_pairs": sum(recipe.pairs.values()),
        "steps": recipe.steps,
        "seconds": round(seconds, 1),
        "untrained": measured(small.build_model(tokenizer, recipe), tokenizer, pairs),
        "trained": measured(model, tokenizer, pairs),
    }


def tuned_base(
    base: Path, recipe: Recipe, pairs: Sequence[Pair], *, folder: Path
) -> dict[str, object]:
    """Train the last two layers and a new head of a base model; return what it then prefers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(recipe.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id
    ).eval()
    model.requires_grad_(False)
    for part in (model.score, model.model.norm, *model.model.layers[-2:]):
        part.requires_grad_(True)
    untrained = measured(model, tokenizer, pairs)
    training = pair_maker.make_pairs(pair_maker.TRAIN, recipe.pairs, seed=recipe.seed)
    begun = time.perf_counter()
    settings = small.training_settings(folder, recipe)
    small.train(model, tokenizer, training, settings=settings)
    return {
        "base": base.name,
        "training_pairs": len(training),
        "steps": recipe.steps,
        "seconds": round(time.perf_counter() - begun, 1),
        "untrained_head": untrained,
        "trained": measured(model, tokenizer, pairs),
    }


def first_of_each(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return the first pairs of every kind."""
    kinds = dict.fromkeys(pair.kind for pair in pairs)
    return [pair for kind in kinds for pair in [one for one in pairs if one.kind == kind][:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of the tiny model; 0 leaves it out")
    parser.add_argument("--held-out", type=int, default=100, help="pairs of each kind")
    parser.add_argument("--base", type=Path, help="folder of a base model to tune as well")
    parser.add_argument("--base-pairs", type=int, default=24, help="training pairs of each kind")
    parser.add_argument("--base-held-out", type=int, default=24, help="pairs of each kind")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    pairs = pair_maker.make_pairs(
        pair_maker.HELD_OUT, dict.fromkeys(pair_maker.RULES, asked.held_out), seed=0
    )
    pairs += pair_maker.zoo_pairs(seed=0)
    every = Recipe(pairs=dict.fromkeys(pair_maker.RULES, 2500), steps=asked.steps)
    found: dict[str, object] = {"longer_is_better": by_kind(lengths(pairs), pairs)}
    with tempfile.TemporaryDirectory() as folder:
        if asked.steps:
            found["tiny"] = tiny(every, pairs, Path(folder))
        if asked.base is not None:
            few = first_of_each(pairs, asked.base_held_out)
            counts = dict.fromkeys(pair_maker.RULES, asked.base_pairs)
            steps = sum(counts.values()) // 8
            recipe = replace(every, pairs=counts, steps=steps, batch_size=8, learning_rate=3e-4)
            found["base"] = tuned_base(asked.base, recipe, few, folder=Path(folder))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
