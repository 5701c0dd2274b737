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


JUDGE = "judge"
JUDGE_TOKENS, JUDGE_PRICES = (90, 1), (3.0, 5.0)
"""Tokens in and out of each judgement, and what a million of them cost."""


def said(handler: Handler, asked: dict[str, Any]) -> None:
    """Answer right or wrong by the model and the question, the same whenever it is asked; or judge."""
    name, question = asked["model"], asked["messages"][-1]["content"]
    told = (PROMPT_TOKENS, TOKENS)
    if name == JUDGE:
        text, told = "9" if "yes, it is so" in question else "2", JUDGE_TOKENS
    else:
        right = random.Random(f"{name} {question}").random() < RIGHT[name]
        text = "yes, it is so" if right else "no, it is not"
    message = {"role": "assistant", "content": text}
    usage = dict(zip(("prompt_tokens", "completion_tokens"), told, strict=True))
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    handler.send(200, json.dumps(body).encode(), {})


@contextmanager
def teachers() -> Iterator[Told]:
    """Serve all of them."""
    with serving(otherwise=said) as told:
        yield told


def asking(
    folder: Path,
    url: str,
    *,
    prompts: int = 150,
    store: str = "store",
    judge: dict[str, float] | None = None,
    **race: Any,
) -> tuple[Study, Runtime]:
    """Return a race among the served teachers, and its machine; `judge` has the prices of one that judges."""
    questions = write_questions(folder, prompts)
    given = {
        "data": {"instructions": str(questions)},
        "teachers": [
            {"model": name, "engine": "openai", "max_tokens": 16, "price_in": prices[0],
             "price_out": prices[1]}
            for name, prices in PRICES.items()
        ],
        "no_student": True,
        "reward": {"kind": "rule", "rule": {"kind": "contains", "answer": "yes"}}
        if judge is None
        else {"kind": "judge", "model": JUDGE, "logprobs": False},
        "by": "reward",
        "race": {"start": 30, **race},
    }  # fmt: skip
    at = {"url": url, "timeout_s": 5.0, "patience_s": 5.0}
    endpoints = {**dict.fromkeys(PRICES, at), JUDGE: at | (judge or {})}
    runtime = {"store": str(folder / store), "device": "cpu", "endpoints": endpoints}
    return checked(Study, given, where="here"), checked(Runtime, runtime, where="here")


def price_of(requests: list[dict[str, Any]]) -> float:
    """Return what these requests cost."""
    tokens = dict.fromkeys(PRICES, (PROMPT_TOKENS, TOKENS)) | {JUDGE: JUDGE_TOKENS}
    prices = PRICES | {JUDGE: JUDGE_PRICES}
    each = (zip(tokens[one["model"]], prices[one["model"]], strict=True) for one in requests)
    return sum(count * price for pairs in each for count, price in pairs) / 1e6
