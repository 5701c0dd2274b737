"""What goes over the wire to a chat endpoint and what comes back, as pure functions.

Everything a server sends may be anything. It is cut to size, secrets are cut out, and each
field is checked before it is used; what cannot be read is a `Failure`.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from preceptor.engines.base import (
    Alternative,
    ChatRequest,
    Completion,
    Failure,
    FailureKind,
    Position,
)
from preceptor.engines.endings import FILTERED, ending_of

if TYPE_CHECKING:
    from preceptor.engines.chat.secrets import Secrets


BODY_LIMIT = 16 * 2**20
"""Bytes of an answer that are read at most."""

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
    alternatives: bool = False,
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
        payload["messages"] = [message._asdict() for message in request.messages]
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
        payload |= {"logprobs": True, "top_logprobs": request.alternatives}
    return payload


def refused_parameter(body: str, sent: Mapping[str, object]) -> str | None:
    """Return which parameter of those `sent` the body of a 400 refuses to take, None where it is none.

    It may be max_tokens, temperature, top_p or seed. A limit that is only too large is none: that is the
    fault of one request.
    """
    words = _words_of(body)[:_WORDS_READ]
    named = _object(_object(_parsed(body)).get("error")).get("param")
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
    return Failure("denied", printable(f"the endpoint does not take this {parameter}: {words}"))


def failure_of(status: int, body: str, cut: Callable[[str], str]) -> Failure:
    """Return the failure that a status other than 200 means, with the server's own words, `cut`."""
    detail = printable(f"status {status}: {cut(_words_of(body))}")
    return Failure(_kind_of(status, body), detail)


def _kind_of(status: int, body: str) -> FailureKind:
    if status == 429:
        return "rate limited"
    if status in (408, 504):
        return "timed out"
    if status >= 500 or status in (409, 425):
        return "server error"
    if status in _DENIED_STATUSES or status < 400:
        return "denied"
    return "content filter" if any(code in body for code in _FILTER_CODES) else "refused request"


def _words_of(body: str) -> str:
    """Return the message of an error body, or the body itself where it has none."""
    error = _object(_parsed(body)).get("error")
    message = _object(error).get("message") if isinstance(error, Mapping) else error
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


def read_completion(body: str, secrets: Secrets, *, count: int = 1) -> Completion | Failure:
    """Return the completion that the body of a 200 holds, or a failure that says what is wrong.

    Of its choices the first `count` by their index are read; those withheld or unreadable are left out, and
    what remains is the answer and its `others`. The endpoint counts the tokens of all choices together, so
    that of several none has a count of its own.
    """
    parsed = _object(_parsed(body))
    choices = _in_order(parsed.get("choices"))
    read = [_answer(choice, secrets) for choice in choices[:count]]
    answers = [one for one in read if isinstance(one, Completion)]
    if not answers:
        withheld = [one for one in read if isinstance(one, Failure)]
        return withheld[0] if withheld else _without_choices(parsed, body, secrets.cut)
    usage = _object(parsed.get("usage"))
    prompt_tokens = _counted(usage.get("prompt_tokens"))
    tokens = _counted(usage.get("completion_tokens")) if len(choices) == 1 else None
    first, *others = (replace(one, tokens=tokens, prompt_tokens=prompt_tokens) for one in answers)
    return replace(first, others=tuple(others))


def _in_order(choices: object) -> Sequence[Mapping[str, Any]]:
    """Return the choices by their index; one without stands where it came."""
    if not isinstance(choices, list):
        return []
    objects = [_object(choice) for choice in choices]
    places = [_counted(choice.get("index")) for choice in objects]
    order = [came if place is None else place for came, place in enumerate(places)]
    return [objects[came] for came in sorted(range(len(objects)), key=order.__getitem__)]


def _answer(choice: Mapping[str, Any], secrets: Secrets) -> Completion | Failure | None:
    """Return the answer of one choice, a failure where it is withheld, None where it cannot be read."""
    message, reason = choice.get("message"), ending_of(choice.get("finish_reason"))
    if not isinstance(message, Mapping) and "text" not in choice:
        return None
    content = message.get("content") if isinstance(message, Mapping) else choice["text"]
    if reason == FILTERED and not content:
        return Failure("content filter", "the answer was withheld")
    if content is not None and not isinstance(content, str):
        return None
    return Completion(
        secrets.cut_answer(content or ""),
        finish_reason=reason,
        positions=_positions(_object(choice.get("logprobs")).get("content")),
    )


def _counted(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _without_choices(parsed: Mapping[str, Any], body: str, cut: Callable[[str], str]) -> Failure:
    """Some gateways report an error under status 200, with the true status inside."""
    code = _object(parsed.get("error")).get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return failure_of(code, body, cut)
    return Failure("unreadable answer", printable(cut(_words_of(body))) or "an empty body")


def _positions(content: object) -> tuple[Position, ...]:
    """Return the positions of an answer; none at all where any of them cannot be read."""
    if not isinstance(content, list):
        return ()
    positions = []
    for entry in content:
        text = _object(entry).get("token")
        ranked = _object(entry).get("top_logprobs")
        if not isinstance(text, str) or not isinstance(ranked, list):
            return ()
        found = [_alternative(_object(one)) for one in ranked]
        positions.append(Position(text, tuple(one for one in found if one is not None)))
    return tuple(positions)


def _alternative(entry: Mapping[str, Any]) -> Alternative | None:
    text, value = entry.get("token"), entry.get("logprob")
    if not isinstance(text, str) or not isinstance(value, int | float) or not value <= 1e-3:
        return None
    return Alternative(text, min(0.0, float(value)))


def _parsed(body: str) -> object:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
