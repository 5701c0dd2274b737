"""How far a reward model's scores behind vLLM's server are from those of transformers, and seconds.

`python bench/served_reward.py MODEL RESPONSES.jsonl --url http://127.0.0.1:8000/v1`: rows hold `instruction`
and `output`. Start the server first (`vllm serve MODEL --runner pooling --dtype float32`).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from preceptor.config.rewards import ModelReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.scorers.reward_model import RewardModel
from preceptor.types import Instruction, Response, Score


def scored(
    engine: str, given: argparse.Namespace, responses: list[Response]
) -> tuple[dict[bytes, Score], float]:
    table = ModelReward(
        model=given.model,
        engine=engine,
        dtype="float32",
        chat_template=given.chat_template,
        max_length=given.max_length,
    )
    runtime = Runtime(device="cpu", endpoints={given.model: Endpoint(url=given.url)})
    model = RewardModel(table, runtime)
    began = time.perf_counter()
    found = {one.key: one for batch in model.score(responses) for one in batch}
    return found, round(time.perf_counter() - began, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("responses", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--chat-template", default="auto")
    given = parser.parse_args()
    lines = given.responses.read_text(encoding="utf-8").splitlines()[: given.rows]
    rows = [json.loads(line) for line in lines]
    responses = [
        Response("a", Instruction.from_text(row["instruction"]), row["output"]) for row in rows
    ]
    there, seconds_there = scored("served", given, responses)
    here, seconds_here = scored("transformers", given, responses)
    both = [key for key in here if not here[key].note and not there[key].note]
    values = np.array([[one[key].values["score"] for key in both] for one in (there, here)])
    differences = np.abs(values[0] - values[1])
    print(
        json.dumps(
            {
                "model": given.model,
                "conversations": len(here),
                "compared": len(both),
                "noted": {
                    "served": sum(bool(one.note) for one in there.values()),
                    "transformers": sum(bool(one.note) for one in here.values()),
                },
                "seconds": {"served": seconds_there, "transformers": seconds_here},
                "scores": [float(values.min()), float(values.max())],
                "largest_difference": float(differences.max()),
                "mean_difference": float(differences.mean()),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
