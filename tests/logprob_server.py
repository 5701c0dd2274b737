"""Stands in for servers that tell a prompt's log-probabilities: as documented, from a real model."""

import json
from collections.abc import Callable
from typing import Any

from chat_server import Handler, Step

Spoil = Callable[[dict[str, Any]], None]


def log_probabilities(model: Any, tokenizer: Any, spoil: Spoil = lambda choice: None) -> Step:
    """Answer /v1/completions as vLLM does with `prompt_logprobs`, or as servers do that echo.

    `spoil` may change the choice before it is sent.
    """
    import torch

    def step(handler: Handler, asked: dict[str, Any]) -> None:
        prompt = asked["prompt"]
        ids = (
            tokenizer.encode(prompt, add_special_tokens=False)
            if isinstance(prompt, str)
            else prompt
        )
        with torch.no_grad():
            every = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        own = [float(every[place, token]) for place, token in enumerate(ids[1:])]
        ranks = [int((every[place] >= value).sum()) for place, value in enumerate(own)]
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length"}
        spelled = [tokenizer.decode([token]) for token in ids]
        if asked.get("echo"):
            choice["logprobs"] = {"tokens": [*spelled, "x"], "token_logprobs": [None, *own, -1.0]}
        else:
            told = zip(ids[1:], own, ranks, spelled[1:], strict=True)
            choice["prompt_logprobs"] = [
                None,
                *({str(i): {"logprob": p, "rank": r, "decoded_token": s}} for i, p, r, s in told),
            ]
        spoil(choice)
        handler.send(200, json.dumps({"choices": [choice]}).encode(), {})

    return step
