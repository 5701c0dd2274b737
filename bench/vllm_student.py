"""How far losses and ranks by vLLM, in this process or served, are from transformers', and tokens/s.

`python bench/vllm_student.py MODEL RESPONSES.jsonl [--engine vllm|served|echo] [--url URL] [--rows N]`: rows
hold `instruction` and `output`. For `served` or `echo` start the server first (`vllm serve MODEL`).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.student import Student
from preceptor.engines.base import Measured, TokenizedPair
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.scorers.likelihood import StudentModel
from preceptor.types import Message


def pairs_of(model: StudentModel, path: Path, rows: int) -> list[TokenizedPair]:
    pairs = []
    for line in path.read_text(encoding="utf-8").splitlines()[:rows]:
        row = json.loads(line)
        encoded = model.encoder.encode((Message("user", row["instruction"]),), row["output"])
        if encoded.response:
            pairs.append(TokenizedPair(encoded.prompt, encoded.response))
    return pairs


def measure(
    engine: str, model: StudentModel, pairs: list[TokenizedPair]
) -> tuple[dict[int, Measured], dict[str, float]]:
    began = time.perf_counter()
    settled = model.student.model_copy(update={"dtype": model.dtype, "engine": engine})
    loaded = LIKELIHOOD_ENGINES[engine].load(model.located, settled, model.runtime)
    ready = time.perf_counter()
    found = {one.index: one for batch in loaded.measure(pairs) for one in batch}
    seconds = time.perf_counter() - ready
    loaded.release()
    tokens = sum(len(pair.prompt) + len(pair.response) for pair in pairs)
    return found, {
        "load_s": round(ready - began, 2),
        "measure_s": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("responses", type=Path)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "served", "echo"))
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--chat-template", default="auto")
    given = parser.parse_args()
    runtime = Runtime(endpoints={given.model: Endpoint(url=given.url)})
    options = {"max_length": given.max_length, "chat_template": given.chat_template}
    model = StudentModel(Student(model=given.model, dtype=given.dtype, **options), runtime)
    pairs = pairs_of(model, given.responses, given.rows)
    there, speed_there = measure(given.engine, model, pairs)
    here, speed_here = measure("transformers", model, pairs)
    both = [i for i in here if i in there and np.isfinite(there[i].columns["nll"]).all()]
    differences = {
        name: np.concatenate([there[i].columns[name] - here[i].columns[name] for i in both])
        for name in there[both[0]].columns
    }
    means = [[each[i].columns["nll"].mean() for i in both] for each in (there, here)]
    print(
        json.dumps(
            {
                "model": given.model,
                "dtype": model.dtype,
                "pairs": len(pairs),
                "compared": len(both),
                given.engine: speed_there,
                "transformers": speed_here,
                "largest_difference": {n: float(np.abs(d).max()) for n, d in differences.items()},
                "mean_difference": {n: float(np.abs(d).mean()) for n, d in differences.items()},
                "correlation_of_losses": float(np.corrcoef(means)[0, 1]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
