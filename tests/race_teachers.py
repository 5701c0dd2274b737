"""Teachers at a loopback endpoint that are right ever less often, with prices: a race that asks."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chat_server import Handler, Told, serving
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from small_teachers import write_questions

RIGHT = {"amber": 0.9, "birch": 0.55, "cedar": 0.45, "dill": 0.2}
PROMPT_TOKENS, TOKENS = 20, 10
PRICES = {"amber": (1.0, 4.0), "birch": (2.0, 8.0), "cedar": (0.5, 2.0), "dill": (0.5, 2.0)}
"""Money for a million tokens in and out."""


def said(handler: Handler, asked: dict[str, Any]) -> None:
    """Answer right or wrong by the model and the question, the same whenever it is asked."""
    name, question = asked["model"], asked["messages"][-1]["content"]
    right = random.Random(f"{name} {question}").random() < RIGHT[name]
    message = {"role": "assistant", "content": "yes, it is so" if right else "no, it is not"}
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": TOKENS}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    handler.send(200, json.dumps(body).encode(), {})


@contextmanager
def teachers() -> Iterator[Told]:
    """Serve all of them."""
    with serving(otherwise=said) as told:
        yield told


def asking(
    folder: Path, url: str, *, prompts: int = 150, store: str = "store", **race: Any
) -> tuple[Study, Runtime]:
    """Return a race among the served teachers, and its machine."""
    questions = write_questions(folder, prompts)
    given = {
        "data": {"instructions": str(questions)},
        "teachers": [
            {"model": name, "engine": "openai", "max_tokens": 16, "price_in": prices[0],
             "price_out": prices[1]}
            for name, prices in PRICES.items()
        ],
        "no_student": True,
        "reward": {"kind": "rule", "rule": {"kind": "contains", "answer": "yes"}},
        "by": "reward",
        "race": {"start": 30, **race},
    }  # fmt: skip
    endpoints = {name: {"url": url, "timeout_s": 5.0, "patience_s": 5.0} for name in PRICES}
    runtime = {"store": str(folder / store), "device": "cpu", "endpoints": endpoints}
    return checked(Study, given, where="here"), checked(Runtime, runtime, where="here")


def price_of(requests: list[dict[str, Any]]) -> float:
    """Return what these requests cost."""
    each = (PRICES[one["model"]] for one in requests)
    return sum(PROMPT_TOKENS * asked + TOKENS * given for asked, given in each) / 1e6
