"""Stands in for servers that tell a prompt's log-probabilities: as vLLM 0.32 answers, from a real model."""

import json
from collections.abc import Callable
from typing import Any

from chat_server import Handler, Step, Told, refuse

Spoil = Callable[[dict[str, Any]], None]


def log_probabilities(
    model: Any, tokenizer: Any, spoil: Spoil = lambda choice: None, *, fingerprint: str = "vllm-a"
) -> Step:
    """Answer /v1/completions as vLLM does with `prompt_logprobs` or `echo`.

    `fingerprint` is what vLLM makes of its model and settings. `spoil` may change the choice before it is
    sent. A prompt that leaves no room in the context that the server's list of models has is refused.
    """
    import torch

    def step(handler: Handler, asked: dict[str, Any]) -> None:
        prompt = asked["prompt"]
        ids = (
            tokenizer.encode(prompt, add_special_tokens=False)
            if isinstance(prompt, str)
            else prompt
        )
        told: Told = handler.server.told  # type: ignore[attr-defined]
        if told.models and len(ids) >= told.models[0]["max_model_len"]:
            refuse(400, "max_tokens must be at least 1, got 0.")(handler, asked)
            return
        with torch.no_grad():
            every = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        spelled = [tokenizer.decode([token]) for token in range(every.shape[1])]
        asked_for = asked["logprobs"] if asked.get("echo") else asked["prompt_logprobs"]
        places: list[dict[int, dict[str, Any]]] = []
        for place, token in enumerate(ids[1:]):
            order = every[place].argsort(descending=True)[:asked_for].tolist()
            places.append(
                {
                    one: {
                        "logprob": float(every[place, one]),
                        "rank": int((every[place] >= every[place, one]).sum()),
                        "decoded_token": spelled[one],
                    }
                    for one in dict.fromkeys([token, *order])
                }
            )
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length"}
        choice["prompt_logprobs"] = [None, *({str(i): one for i, one in p.items()} for p in places)]
        if asked.get("echo"):
            own = [place[token]["logprob"] for place, token in zip(places, ids[1:], strict=True)]
            likely = [
                {one["decoded_token"]: one["logprob"] for one in place.values()} for place in places
            ]
            choice["logprobs"] = {
                "tokens": [*(spelled[one] for one in ids), "x"],
                "token_logprobs": [None, *own, -1.0],
                "top_logprobs": [None, *likely, {"x": -1.0}],
            }
        spoil(choice)
        body = {"choices": [choice], "system_fingerprint": fingerprint}
        handler.send(200, json.dumps(body).encode(), {})

    return step
