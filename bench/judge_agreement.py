"""What a judge is worth: its verdicts against GPT-4's on the same pairs, with "the longer wins" as the floor.

Two kinds of pairs. Against the baseline: GPT-4-Turbo's stored preference for a model's answer over the
baseline's is a verdict on exactly this pair. Between models: no judge saw these pairs; the verdict is
derived, as the sign of the difference of the two models' preferences over the same baseline where it exceeds
a margin. Prints JSON.

    python bench/judge_agreement.py --judge MODEL_FOLDER --data ../shared/data --prompts 60 --store /path
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.benchmarks.comparisons import (
    Comparison,
    Outcome,
    both_orders,
    compared,
    first_place_share,
)
from preceptor.benchmarks.judge_agreement import (
    JudgeAgreement,
    Verdict,
    judge_agreement,
    longer_wins,
)
from preceptor.benchmarks.judges import judge_of
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.config.base import checked
from preceptor.config.finetune import ChatJudge, RewardJudge
from preceptor.config.runtime import Runtime
from preceptor.store.store import Store


def main() -> None:
    given = parsed()
    began = time.monotonic()
    models, baseline = read_zoo(Path(given.data))
    rng = np.random.default_rng(given.seed)
    prompts = sorted(set.intersection(*(set(rows) for rows in models.values())) & set(baseline))
    rng.shuffle(prompts)
    judge, store = judge_given(given), Store(given.store)
    direct, derived = drawn(prompts, models, baseline, given=given, rng=rng)
    found = {
        "judge": judge.name,
        "longest": given.longest,
        "margin": given.margin,
        "against the baseline": agreement_record(direct, judge, store),
        "between models (derived)": agreement_record(derived, judge, store),
    }
    found["seconds"] = round(time.monotonic() - began, 1)
    json.dump(found, sys.stdout, indent=2)


Asked = tuple[Comparison, float]


def drawn(
    prompts: Sequence[str],
    models: Mapping[str, Mapping[str, tuple[str, float]]],
    baseline: Mapping[str, str],
    *,
    given: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[list[Asked], list[Asked]]:
    """Return the pairs against the baseline and those between models, one for each prompt."""
    names = sorted(models)
    direct: list[Asked] = []
    derived: list[Asked] = []
    for prompt in prompts:
        one, other = rng.permutation(names)[:2]
        (first, win), (second, lose) = models[one][prompt], models[other][prompt]
        comparison = Comparison(one, prompt, prompt, first, baseline[prompt])
        if len(direct) < given.prompts and sum(map(len, comparison[2:])) <= given.longest:
            direct.append((comparison, win))
        comparison = Comparison(one, prompt, prompt, first, second)
        fits = sum(map(len, comparison[2:])) <= given.longest and abs(win - lose) > given.margin
        if len(derived) < given.derived and fits:
            derived.append((comparison, 0.5 + (win - lose) / 2))
    return direct, derived


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judge", help="Model run here, or served at --judge-url.")
    parser.add_argument("--judge-url", help="OpenAI-compatible endpoint.")
    parser.add_argument("--reward-model", help="A reward model as the judge.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--prompts", type=int, default=60, help="Pairs against the baseline.")
    parser.add_argument("--derived", type=int, default=60, help="Pairs between models.")
    parser.add_argument(
        "--longest", type=int, default=100_000, help="Characters of question and both answers."
    )
    parser.add_argument("--margin", type=float, default=0.2, help="Least difference of wins.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default=".preceptor")
    return parser.parse_args()


def judge_given(given: argparse.Namespace) -> PairJudge:
    endpoints = {given.judge: {"url": given.judge_url}} if given.judge_url else {}
    runtime = checked(Runtime, {"device": given.device, "endpoints": endpoints}, where="options")
    table: ChatJudge | RewardJudge
    if given.reward_model:
        table = RewardJudge(model=given.reward_model, dtype=given.dtype)
    else:
        engine = "openai" if given.judge_url else "transformers"
        table = ChatJudge(model=given.judge, engine=engine, dtype=given.dtype)
    return judge_of(table, runtime, ("letter", "reward"))


def read_zoo(data: Path) -> tuple[dict[str, dict[str, tuple[str, float]]], dict[str, str]]:
    """Return each model's answers with GPT-4's verdict by prompt, and the baseline's answers."""
    models: dict[str, dict[str, tuple[str, float]]] = {}
    for path in sorted((data / "zoo_judged").glob("*.json")):
        rows: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        models[path.stem] = {
            row["instruction"]: (row["output"], float(row["reward"]))
            for row in rows
            if row.get("output") and row.get("reward") is not None
        }
    # Any model's annotations hold the baseline's answers.
    path = data / "alpaca_eval2" / "annotations_claude-2.1.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    return models, {row["instruction"]: row["output_1"] for row in rows}


def agreement_record(
    asked: Sequence[tuple[Comparison, float]], judge: PairJudge, store: Store
) -> dict[str, Any]:
    """Return the agreement of the judge, of its two halves, and of length alone."""

    def progress(done: int, of: int) -> None:
        print(f"\r{done} of {of}", end="", file=sys.stderr)

    comparisons = [comparison for comparison, _ in asked]
    outcomes = compared(comparisons, judge, store, orders=both_orders, progress=progress)
    kept = [place for place, one in enumerate(outcomes) if one.win is not None]
    verdicts = [verdict(asked[p], outcomes[p].win or 0.0) for p in kept]
    floor = [verdict(asked[p], longer_wins(*asked[p][0][3:])) for p in kept]
    side = first_place_share(outcomes)
    return {
        "comparisons": len(asked),
        "without a verdict": len(asked) - len(kept),
        "the judge": record(judge_agreement(verdicts)),
        "the longer wins": record(judge_agreement(floor)),
        "mean share of whatever stands first": side if side is None else round(side, 3),
        "same winner in both orders": consistent(outcomes),
    }


def verdict(asked: tuple[Comparison, float], win: float) -> Verdict:
    comparison, trusted = asked
    return Verdict(comparison.model, comparison.question, trusted, win)


def consistent(outcomes: Sequence[Outcome]) -> float | None:
    """Return the share of comparisons in which the same answer wins in either order."""
    both = [one for one in outcomes if one.win is not None and len(one.games) > 1]
    if not both:
        return None
    same = [
        ((one.games[True].share or 0.0) > 0.5) == ((one.games[False].share or 0.0) < 0.5)
        for one in both
    ]
    return round(float(np.mean(same)), 3)


def record(found: JudgeAgreement) -> dict[str, Any]:
    return {
        "decided comparisons": found.n,
        "kappa in words": found.words,
        **{
            name: None
            if (one := getattr(found, name)) is None or math.isnan(one.value)
            else [round(number, 3) for number in (one.value, one.low, one.high)]
            for name in ("accuracy", "kappa", "spearman")
        },
    }


if __name__ == "__main__":
    main()
