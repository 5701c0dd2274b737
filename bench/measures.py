"""Measures of later work on real responses, against short computations from the published formulas.

The references below share the token ids and nothing else: plain transformers, one response at a time, eager
attention, float64 behind the logits. Twenty responses (four teachers' to five instructions) are scored by
each student. A difference is relative to the larger of 1 and the reference's. `--gradients` says of how many
responses the gradients are projected too; their difference is relative to the reference's. The time of the
pass is that with all extra measures over that with none, in alternating pairs.

    python bench/measures.py --student SmolLM2.gguf gemma-3-270m.gguf --responses math_zoo/*.jsonl
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.ranking.later_metrics import (
    LogProbabilityWithoutFirst,
    StudentCentricAnswer,
    grace,
    lark_score,
)
from preceptor.scorers.gradient import GradientScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.scorers.token_measures import LATER
from preceptor.types import Instruction, Response

TEACHERS, INSTRUCTIONS = 4, 5
ALLOWED = 1e-4
BANDS = {
    "rank_1": (1, 1),
    "rank_2_10": (2, 10),
    "rank_11_100": (11, 100),
    "rank_over_100": (101, 10**9),
}

Values = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", nargs="+", required=True)
    parser.add_argument("--responses", nargs="+", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument(
        "--gradients", type=int, default=0, help="responses whose gradients are tried"
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of timed passes; 0 for none")
    given = parser.parse_args()
    missing = [str(path) for path in given.responses if not path.is_file()]
    if missing or len(given.responses) < TEACHERS:
        print(
            json.dumps({"skipped": f"{TEACHERS} files of responses are needed; missing: {missing}"})
        )
        return
    responses = read(given.responses[:TEACHERS])
    print(
        json.dumps({name: of_student(name, responses, given) for name in given.student}, indent=2)
    )


def read(files: Sequence[Path]) -> list[Response]:
    """Return the answers to the first instructions, those of one teacher after another."""
    found = []
    for path in files:
        rows = [json.loads(line) for line in path.read_text().splitlines()[:INSTRUCTIONS]]
        found += [
            Response(path.stem, Instruction.from_text(row["instruction"]), row["output"])
            for row in rows
        ]
    return found


def of_student(name: str, responses: list[Response], given: argparse.Namespace) -> Values:
    if Path(name).suffix == ".gguf" and not Path(name).is_file():
        return {"skipped": "no such file"}
    runtime = Runtime(device="cpu")
    student = StudentModel(
        Student(model=name, max_length=given.max_length, dtype="float32"), runtime
    )
    scorer = LikelihoodScorer(student, wanted=LATER)
    encoded = [scorer.encoded(response) for response in responses]
    pairs = [scorer.pair(one) for one in encoded if not isinstance(one, str)]
    found: Values = {"tokens": sum(len(pair.response) for pair in pairs)}
    own = scored(scorer, responses)
    model, tokenizer = plain_model(student)
    expected = [reference(model, tokenizer, pair) for pair in pairs]
    columns = {key: np.array([one[key] for one in expected]) for key in expected[0]}
    shape = (TEACHERS, INSTRUCTIONS)
    columns["lark"] = lark(columns.pop("loss").reshape(shape), columns["brier_50"].reshape(shape))
    own["lark"] = lark_score(own["loss"].reshape(shape), own["brier_50"].reshape(shape))
    found["largest_differences"] = {key: difference(own[key], columns[key]) for key in columns}
    if given.gradients:
        found["gradients"] = of_gradients(scorer, model, responses[: given.gradients], pairs)
    every = [*found["largest_differences"].values(), *found.get("gradients", {}).values()]
    found["equal"] = max(every) <= ALLOWED
    del model
    if given.rounds:
        found["time_of_pass"] = timed(student, responses, given.rounds)
    return found


def difference(one: Any, other: Any) -> float:
    return float((np.abs(one - other) / np.maximum(1, np.abs(other))).max())


def scored(scorer: Any, responses: Sequence[Response]) -> Values:
    """Return the product's measures of each response, in their order."""
    values = {one.key: one.values for batch in scorer.score(responses) for one in batch}
    rows = [values[response.key] for response in responses]
    derived = dict(scorer.derive({n: np.array([row[n] for row in rows]) for n in scorer.columns}))
    derived["scas"] = StudentCentricAnswer()(derived["scas_answer"], derived["scas_question"])
    for steps in ("sentence", "line"):
        metric = LogProbabilityWithoutFirst(steps=steps)
        derived[f"aslec_drop_{steps}"] = metric(*(derived[need] for need in metric.needs))
    return derived


def plain_model(student: StudentModel) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(student.located.folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def reference(model: Any, tokenizer: Any, pair: Any) -> Values:
    """Return the measures of one response by their definitions."""
    ids, start = torch.tensor([pair.prompt + pair.response]), len(pair.prompt)
    seen: list[torch.Tensor] = []
    layer = model.model.layers[-1].mlp.up_proj
    hook = layer.register_forward_hook(lambda _m, _i, out: seen.append(out[0].double()))
    with torch.no_grad():
        raw = model(input_ids=ids, use_cache=False).logits[0, :-1]
    hook.remove()
    nll = -raw.double().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    own, answer = raw[start - 1 :], ids[0, start:, None]
    shares = own.double().softmax(-1)
    # 1 - 2 p + sum of squares, over the vocabulary and among the 50 likeliest, scaled to sum to 1.
    brier = 1 - 2 * shares.gather(1, answer)[:, 0] + shares.square().sum(-1)
    kept, places = shares.topk(50)
    kept = kept / kept.sum(-1, keepdim=True)
    brier_50 = 1 - 2 * (kept * (places == answer)).sum(-1) + kept.square().sum(-1)
    rank = 1 + (own > own.gather(1, answer)).sum(-1)
    loss = nll[start - 1 :]
    found = {"loss": loss.mean(), "brier": brier.mean(), "brier_50": brier_50.mean()}
    found["lark_rho"] = brier_50.mean() / loss.mean()
    for name, (low, high) in BANDS.items():
        found[name] = ((rank >= low) & (rank <= high)).double().mean()
    special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    plain = torch.tensor([token not in special for token in ids[0].tolist()])
    units = seen[0] / seen[0].norm(dim=-1, keepdim=True)
    a, q = units[start:][plain[start:]], units[:start][plain[:start]]
    m_a = loss[plain[start:]].mean()
    m_q = nll[: start - 1][plain[1:start]].mean()
    found["scas"] = 0.5 * m_a**2 * (a @ a.T).mean() + 0.5 * m_a * m_q * (a @ q.T).mean()
    for steps in ("sentence", "line"):
        firsts = first_places(tokenizer, pair.response, steps)
        others = [at for at in range(len(loss)) if at not in firsts]
        found[f"aslec_drop_{steps}"] = -loss[others].mean()
    return {name: float(value) for name, value in found.items()}


def first_places(tokenizer: Any, response: Sequence[int], steps: str) -> set[int]:
    """Return which tokens hold the first sign of a step: of a line, or of a sentence too."""
    ends = [len(tokenizer.decode(response[: at + 1])) for at in range(len(response))]
    text = tokenizer.decode(response)
    found = set()
    for at, sign in enumerate(text):
        before = re.search(r"\s*$", text[:at])
        assert before is not None
        gap, ahead = before.group(), text[: before.start()]
        begins = not ahead or "\n" in gap or (steps == "sentence" and gap and ahead[-1] in ".?!")
        if begins and not sign.isspace():
            found.add(next(place for place, end in enumerate(ends) if end > at))
    return found


def lark(loss: Any, brier: Any) -> Any:
    """Return g = (L_k / sum L)(2 rho_k - sum rho L / sum L) of each teacher, (teachers x instructions,)."""
    rho, total = brier / loss, loss.sum(0)
    return loss / total * (2 * rho - (rho * loss).sum(0) / total)


def of_gradients(scorer: Any, model: Any, responses: Sequence[Response], pairs: Any) -> Values:
    """Return the differences of G-norm and GRACE, over gradients that are projected here."""
    values = {
        one.key: one.values for batch in GradientScorer(scorer).score(responses) for one in batch
    }
    own = np.array([values[response.key]["gradient"] for response in responses])
    expected = np.concatenate([projected(model, pair) for pair in pairs[: len(responses)]])
    prompts = np.arange(len(responses)) % INSTRUCTIONS
    norms = [values[response.key]["g_norm"] for response in responses]
    both = (norms, (expected**2).sum(1)), ([grace(own, prompts).mean()], [trace(expected, prompts)])
    names = ("g_norm", "grace")
    return {
        name: float(np.abs(np.array(one) / np.array(other) - 1).max())
        for name, (one, other) in zip(names, both, strict=True)
    }


def projected(model: Any, pair: Any) -> Any:
    """Return the gradient of a response's loss, projected, times the log of its length, (1, 512)."""
    model.zero_grad()
    labels = torch.tensor([(-100,) * len(pair.prompt) + pair.response])
    model(input_ids=torch.tensor([pair.prompt + pair.response]), labels=labels).loss.backward()
    flat = torch.cat([weight.grad.reshape(-1) for weight in model.parameters()]).double()
    sketch = torch.zeros(8192, dtype=torch.float64)
    for block, part in enumerate(flat.split(2**20)):
        bits = np.random.Generator(np.random.SFC64([0, block])).bytes(2 * 2**20)
        drawn = torch.from_numpy(np.frombuffer(bits, "<u2").astype(np.int64))[: len(part)]
        sketch.index_add_(0, drawn % 8192, part * (drawn // 8192 % 2 * 2 - 1))
    bits = np.random.Generator(np.random.SFC64(1)).bytes(8192 * 64)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(8192, 512) * 2.0 - 1
    return (sketch.numpy() @ signs * np.log(len(pair.response)) / 512**0.5)[None]


def trace(gradients: Any, prompts: Any) -> float:
    """Return GRACE: the mean trace of (S + 0.001 / d)^-1 T over ten parts of the prompts, or fewer."""
    count, traces = int(prompts.max()) + 1, []
    for part in np.array_split(np.random.default_rng(0).permutation(count), min(10, count)):
        test = np.isin(prompts, part)
        train = gradients[~test] / np.linalg.norm(gradients[~test], axis=1, keepdims=True)
        w, v = np.linalg.eigh(train.T @ train / len(train))
        inverse = (v / (w + 1e-3 / gradients.shape[1])) @ v.T
        here = gradients[test]
        by_row = np.einsum("ij,jk,ik->i", here, inverse, here)
        traces += [by_row[prompts[test] == prompt].mean() for prompt in part]
    return float(np.mean(traces))


def timed(student: StudentModel, responses: Sequence[Response], rounds: int) -> Values:
    """Return the seconds of the pass with all that needs no further pass over those without, medians."""
    wanted = {
        "none": (),
        "all": tuple(LATER),
        "all_but_brier_50": tuple(one for one in LATER if LATER[one].of != "brier_50"),
    }
    scorers = {name: LikelihoodScorer(student, wanted=of) for name, of in wanted.items()}

    def run(name: str) -> float:
        return seconds(scorers[name], responses)

    run("all")
    pairs = {
        name: [(run("none"), run(name)) for _ in range(rounds)]
        for name in ("all", "all_but_brier_50")
    }
    return {
        f"{name}_over_none": round(median(more / less for less, more in of), 3)
        for name, of in pairs.items()
    } | {"seconds_of_none": round(median(less for less, _ in pairs["all"]), 2)}


def seconds(scorer: Any, responses: Sequence[Response]) -> float:
    began = time.process_time()
    for _ in scorer.score(responses):
        pass
    return time.process_time() - began


if __name__ == "__main__":
    main()
