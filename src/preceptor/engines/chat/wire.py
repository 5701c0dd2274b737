"""What goes over the wire to a chat endpoint, and what its refusals mean, as pure functions."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from preceptor.engines.base import ChatRequest, Failure, FailureKind
from preceptor.types import Message

DETAIL_LIMIT = 200
"""Characters of a server's own words that are kept at most."""

_DENIED_STATUSES = frozenset({401, 402, 403, 404, 405})
_FILTER_CODES = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_PARAMETERS = ("max_tokens", "temperature", "top_p", "seed")
_REFUSING = re.compile(
    r"support|recogni[sz]|unknown|unexpected|permitted|allowed|deprecated|invalid|instead"
    r"|cannot|must be|between|range|only the default",
    re.IGNORECASE,
)
_OF_SIZE = re.compile(
    r"too (large|long|many)|exceed|context|maximum|at (most|least)|must be", re.IGNORECASE
)
_WORDS_READ = 2000


def printable(text: str) -> str:
    """Return at most `DETAIL_LIMIT` characters, in one line, with anything unprintable as a space."""
    start = text[: 4 * DETAIL_LIMIT]
    line = "".join(char if char.isprintable() else " " for char in start)
    return " ".join(line.split())[:DETAIL_LIMIT]


def payload_of(
    request: ChatRequest,
    *,
    model: str,
    alternatives: int = 0,
    prompt: str | None = None,
    limit: str = "max_tokens",
) -> dict[str, object]:
    """Return the body of a request for an answer, or for the continuation of `prompt` if one is given.

    `limit` is the endpoint's name for the largest number of tokens. What would say nothing is left out: a
    `top_p` of 1, no seed, no stop texts, a count of 1. OpenAI itself takes at most four stop texts; the
    caller sees to that.
    """
    payload: dict[str, object] = {
        "model": model,
        "temperature": request.temperature,
        limit: request.max_tokens,
    }
    if prompt is None:
        payload["messages"] = list(_sent(request.messages))
        if request.tools:
            payload["tools"] = json.loads(request.tools)
    else:
        payload["prompt"] = prompt
    if request.seed is not None:
        payload["seed"] = request.seed
    if request.top_p != 1:
        payload["top_p"] = request.top_p
    if request.stop:
        payload["stop"] = list(request.stop)
    if request.count > 1:
        payload["n"] = request.count
    if alternatives:
        payload |= {"logprobs": True, "top_logprobs": alternatives}
    return payload


def _sent(messages: Sequence[Message]) -> Iterator[dict[str, object]]:
    """Yield turns as endpoints take them: calls are numbered, arguments texts, answers have the number."""
    made, waiting = 0, deque[str]()
    for message in messages:
        row: dict[str, object] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            calls = []
            for call in json.loads(message.tool_calls):
                waiting.append(name := f"call_{made}")
                made += 1
                given = call["arguments"]
                arguments = given if isinstance(given, str) else json.dumps(given)
                function = {"name": call["name"], "arguments": arguments}
                calls.append({"id": name, "type": "function", "function": function})
            row["tool_calls"] = calls
        elif message.role == "tool" and waiting:
            row["tool_call_id"] = waiting.popleft()
        yield row


def refused_parameter(body: str, sent: Mapping[str, object]) -> str | None:
    """Return which parameter of those `sent` the body of a 400 refuses to take, None where it is none.

    It may be max_tokens, temperature, top_p or seed. A limit that is only too large is none: that is the
    fault of one request.
    """
    words = words_of(body)[:_WORDS_READ]
    named = as_object(as_object(parsed(body)).get("error")).get("param")
    if not isinstance(named, str) or not named:
        places = {name: re.search(rf"(?<!\w){name}(?!\w)", words) for name in _PARAMETERS}
        found = {name: place.start() for name, place in places.items() if place and name in sent}
        named = min(found, key=found.__getitem__, default=None)
    if named not in _PARAMETERS or named not in sent or not _REFUSING.search(words):
        return None
    return None if named == "max_tokens" and _OF_SIZE.search(words) else named


def denial_of(parameter: str, words: str) -> Failure:
    """Return the failure of a request whose `parameter` the endpoint does not take.

    It is never asked without: the answer would be one to another question.
    """
    remedy = "set temperature = 1, or " if parameter == "temperature" else ""
    remedy += f"leave it out by request.leave_out = ['{parameter}']"
    return Failure(
        "denied", printable(f"the endpoint does not take this {parameter} ({remedy}): {words}")
    )


def failure_of(status: int, body: str, cut: Callable[[str], str]) -> Failure:
    """Return the failure that a status other than 200 means, with the server's own words, `cut`."""
    detail = printable(f"status {status}: {cut(words_of(body))}")
    return Failure(_kind_of(status, body), detail)


def _kind_of(status: int, body: str) -> FailureKind:
    if status == 429:
        return "rate limited"
    if status in (408, 504):
        return "timed out"
    if 500 <= status < 600 or status in (409, 425):
        return "server error"
    if status in _DENIED_STATUSES or not 400 <= status < 600:
        return "denied"
    return "content filter" if any(code in body for code in _FILTER_CODES) else "refused request"


def words_of(body: str) -> str:
    """Return the message of an error body, or the body itself where it has none."""
    error = as_object(parsed(body)).get("error")
    message = as_object(error).get("message") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else body


def pause_asked_for(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, given in seconds or as a date, else None."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def parsed(body: str) -> object:
    """Return what a body of JSON holds; None where it is none."""
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found


def as_object(value: object) -> Mapping[str, Any]:
    """Return the value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
