"""What goes over the wire to a chat endpoint and what comes back, as pure functions.

The one idea: everything a server sends may be anything. It is cut to size, secrets are cut out, and each
field is checked before it is used; what cannot be read is a `Failure`.
"""

import base64
import email.utils
import ipaddress
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from preceptor.config.runtime import REDACTED, without_secrets
from preceptor.engines.base import (
    Alternative,
    ChatRequest,
    Completion,
    Failure,
    FailureKind,
    Position,
)
from preceptor.errors import ModelError

BODY_LIMIT = 16 * 2**20
"""Bytes of an answer that are read at most."""

DETAIL_LIMIT = 200
"""Characters of a server's own words that are kept at most."""

_LEAST_SECRET = 4
_LEAST_SECRET_IN_ANSWER = 12
"""Keys of local servers are often words such as EMPTY, which must not be torn out of answers."""

logger = logging.getLogger(__name__)

_OPENAI = "api.openai.com"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
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


@dataclass(frozen=True, repr=False)
class Secrets:
    """An endpoint's address and key, and all that must never be written down because of them."""

    url: str
    key: str | None
    hidden: tuple[str, ...]
    loopback: bool

    @classmethod
    def of(cls, url: str, api_key_env: str | None) -> "Secrets":
        """Return the secrets of an endpoint.

        Raises:
            ModelError: the address is no http address, the key is missing where one is needed, or its
                characters cannot stand in a header.
        """
        parts = _split(url)
        loopback = _is_loopback(parts.hostname or "")
        if api_key_env is None and parts.hostname == _OPENAI:
            api_key_env = "OPENAI_API_KEY"
        if api_key_env is not None and not _VARIABLE.fullmatch(api_key_env):
            raise ModelError(
                "What was given as the name of an environment variable is none (letters, digits and _). "
                "Keys are never given on the command line or in files: put the key into a variable and "
                "give the variable's name."
            )
        key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
        if not key and api_key_env and not loopback:
            raise ModelError(
                f"The endpoint {without_secrets(url)} needs a key, and the environment variable "
                f"{api_key_env} is not set. Set it, or name another variable (api_key_env)."
            )
        if not (key.isascii() and key.isprintable()):
            raise ModelError(
                f"The value of {api_key_env} holds characters that no key has: expected printable "
                "ASCII. Set it again."
            )
        if key and parts.scheme == "http" and not loopback:
            logger.warning("the key goes to %s unencrypted: use https", without_secrets(url))
        secrets = [f"Bearer {key}", key] if key else []
        return cls(url, key or None, _spellings(secrets + _secrets_in(parts)), loopback)

    def __repr__(self) -> str:
        return f"Secrets({without_secrets(self.url)})"

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the key; none without a key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def address(self, path: str) -> str:
        """Return the address of an endpoint's function; user and query of the base are kept."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}", fragment=""))

    def cut(self, text: str) -> str:
        """Return the text of a message without any secret, however JSON would spell it."""
        for secret in self.hidden:
            text = text.replace(secret, REDACTED)
        return text

    def cut_answer(self, text: str) -> str:
        """Return the text of an answer without any secret that is too long to be a word."""
        for secret in self.hidden:
            if len(secret) >= _LEAST_SECRET_IN_ANSWER:
                text = text.replace(secret, REDACTED)
        return text


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass  # an unreadable port or bracket
    raise ModelError(
        f"'{without_secrets(url)}' is no endpoint: expected an address such as "
        "http://127.0.0.1:8080/v1."
    )


def _secrets_in(parts: SplitResult) -> list[str]:
    """Return what must not be shown of an address: user, password, query values, as sent and as meant."""
    secrets = [value for _, value in parse_qsl(parts.query)]
    secrets += [pair.partition("=")[2] for pair in parts.query.split("&")]
    for word in (parts.username, parts.password):
        secrets += [word, unquote(word)] if word else []  # a token may stand in either place
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(pair.encode()).decode()
        secrets += [f"Basic {encoded}", encoded]
    return secrets


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _spellings(secrets: list[str]) -> tuple[str, ...]:
    """Return each secret as it is and as JSON may spell it, longest first."""
    long = {secret for secret in secrets if len(secret) >= _LEAST_SECRET}
    escaped = {json.dumps(secret)[1:-1] for secret in long}
    slashed = {secret.replace("/", "\\/") for secret in long | escaped}
    return tuple(sorted(long | escaped | slashed, key=len, reverse=True))


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
    message, reason = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, Mapping) and "text" not in choice:
        return None
    content = message.get("content") if isinstance(message, Mapping) else choice["text"]
    if reason == "content_filter" and not content:
        return Failure("content filter", "the answer was withheld")
    if content is not None and not isinstance(content, str):
        return None
    return Completion(
        secrets.cut_answer(content or ""),
        finish_reason=reason if isinstance(reason, str) else None,
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
