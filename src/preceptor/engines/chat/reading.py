"""What comes back from a chat endpoint, as pure functions: bytes to a body, a body to an answer or a failure.

Everything a server sends may be anything. It is bounded as it comes, secrets are cut out, and each field is
checked before it is used. An answer without a text is a failure that says why there is none.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from preceptor.config.secrets import shown_address
from preceptor.engines.base import Alternative, Completion, Failure, Position
from preceptor.engines.chat.wire import as_object, failure_of, parsed, printable, words_of
from preceptor.engines.endings import FILTERED, LENGTH, TOOLS, ending_of

if TYPE_CHECKING:
    from preceptor.engines.chat.secrets import Secrets

BODY_LIMIT = 16 * 2**20
"""Bytes of an answer that are read at most, unpacked."""

_PACKED = ("gzip", "x-gzip", "deflate")
_MOST_TOKENS = 2**40
_LONGEST_TOKEN = 1000
_LEAST_LOG_PROBABILITY = -1e6
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,80})", re.IGNORECASE)
_PARTS = {
    "text": "text",
    "output_text": "text",
    "thinking": "reasoning",
    "reasoning": "reasoning",
    "refusal": "refusal",
}
"""What the parts of a content that is a list hold, by their type; others (images, calls) hold no words."""
_FIELDS = (
    ("reasoning_content", "reasoning"),
    ("reasoning", "reasoning"),
    ("refusal", "refusal"),
)
"""What stands beside a message's content: of vLLM, SGLang, DeepSeek; of OpenRouter and Ollama; of OpenAI."""


class Body:
    """The bytes of an answer, unpacked, and never more than the limit."""

    def __init__(self, encoding: str) -> None:
        """`encoding` is what the header Content-Encoding says."""
        self.encoding = encoding.strip().lower()
        self.fits = True
        self._data = bytearray()
        self._unpack = zlib.decompressobj(47) if self.encoding in _PACKED else None

    @property
    def readable(self) -> bool:
        """Whether the encoding is one that is understood."""
        return self._unpack is not None or self.encoding in ("", "identity")

    def add(self, piece: bytes) -> bool:
        """Take bytes as they came; return whether more may come. A bomb is never unpacked whole."""
        room = BODY_LIMIT + 1 - len(self._data)
        self._data += self._unpack.decompress(piece, room) if self._unpack else piece
        self.fits = len(self._data) <= BODY_LIMIT
        return self.fits

    @property
    def text(self) -> str:
        """The text so far."""
        return self._data.decode("utf-8", "replace")


def read_completion(body: str, secrets: Secrets, *, count: int = 1) -> Completion | Failure:
    """Return the completion that the body of a 200 holds, or a failure that says what is wrong.

    Of its choices the first `count` by their index are read; those withheld, empty or unreadable are left
    out, and what remains is the answer and its `others`. The endpoint counts the tokens of all choices
    together, so that of several none has a count of its own.
    """
    whole = parsed(body)
    if not isinstance(whole, Mapping) or not isinstance(whole.get("choices"), list):
        return _no_completion(whole, body, secrets)
    choices = _in_order(whole["choices"])
    read = [_answer(choice, secrets) for choice in choices[:count]]
    answers = [one for one in read if isinstance(one, Completion)]
    if not answers:
        failures = [one for one in read if isinstance(one, Failure)]
        return failures[0] if failures else Failure("foreign answer", "it holds no readable choice")
    usage = as_object(whole.get("usage"))
    prompt_tokens = _counted(usage.get("prompt_tokens"))
    tokens = _counted(usage.get("completion_tokens")) if len(choices) == 1 else None
    first, *others = (replace(one, tokens=tokens, prompt_tokens=prompt_tokens) for one in answers)
    return replace(first, others=tuple(others))


def address_hint(url: str) -> str:
    """Return what may be wrong with an endpoint's address where no answer comes; empty where nothing is."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    base = path.removesuffix("/completions").removesuffix("/chat")
    better = base if base != path else f"{path}/v1"
    if base == path and re.search(r"/v[0-9]", path):
        return ""
    tried = shown_address(urlunsplit(parts._replace(path=better)))
    fault = "ends with its function" if base != path else "may lack /v1"
    return f"the address {fault}: try {tried}; "


def _no_completion(whole: object, body: str, secrets: Secrets) -> Failure:
    """Return what a body without choices is."""
    start = body[:4000].lstrip("\ufeff \t\r\n")
    words = printable(secrets.cut(words_of(body)))
    if not start:
        return Failure("unreadable answer", "an empty body")
    if start.startswith("<"):
        title = _TITLE.search(start)
        named = f" ('{printable(secrets.cut(title[1]))}')" if title else ""
        return Failure("foreign answer", f"a page{named} came in place of an answer")
    if start.startswith(("data:", "event:", "id:", ": ")):
        return Failure("foreign answer", "a stream of events came, which was not asked for")
    if isinstance(whole, Mapping):
        return _stated_error(whole, body, secrets) or Failure(
            "foreign answer", f"JSON of another kind came: {words}"
        )
    if start.startswith("{") and _is_cut(body):
        return Failure("unreadable answer", words)
    return Failure("foreign answer", f"what came is no answer: {words}")


def _stated_error(whole: Mapping[str, Any], body: str, secrets: Secrets) -> Failure | None:
    """Some gateways report an error under status 200, with the true status inside."""
    code = as_object(whole.get("error")).get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return failure_of(code, body, secrets.cut)
    return None


def _is_cut(body: str) -> bool:
    """Tell whether JSON ended too early, from what nobody should send: nested too deeply, endless numbers."""
    try:
        json.loads(body)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _in_order(choices: Sequence[object]) -> Sequence[Mapping[str, Any]]:
    """Return the choices by their index; one without stands where it came."""
    objects = [as_object(choice) for choice in choices]
    places = [_counted(choice.get("index")) for choice in objects]
    order = [came if place is None else place for came, place in enumerate(places)]
    return [objects[came] for came in sorted(range(len(objects)), key=order.__getitem__)]


def _answer(choice: Mapping[str, Any], secrets: Secrets) -> Completion | Failure | None:
    """Return the answer of one choice, a failure where it has no text, None where it cannot be read."""
    message = choice.get("message")
    said = _said(message if isinstance(message, Mapping) else {"content": choice.get("text", 0)})
    if said is None:
        return None
    reason = ending_of(choice.get("finish_reason"))
    positions = _positions(as_object(choice.get("logprobs")).get("content"))
    if not said["text"].strip() and not positions:
        return _without_text(as_object(message), said, reason, secrets)
    return Completion(
        secrets.cut_answer(said["text"]),
        finish_reason=reason,
        positions=positions,
        reasoning=secrets.cut_answer(said["reasoning"]),
    )


def _said(message: Mapping[str, Any]) -> dict[str, str] | None:
    """Return a message's text, reasoning and refusal; None where its content cannot be read."""
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        return None
    said = {"text": "", "reasoning": "", "refusal": ""}
    for part in content if isinstance(content, list) else [content or ""]:
        if isinstance(part, str):
            said["text"] += part
        elif kind := _PARTS.get(str(as_object(part).get("type"))):
            said[kind] += _words_in(as_object(part))
    for field, kind in _FIELDS:
        value = message.get(field)
        if isinstance(value, str) and not said[kind]:
            said[kind] = value
    return said


def _words_in(part: Mapping[str, Any]) -> str:
    """Return the words of one part; those of a thought may be parts themselves."""
    held = next((part[name] for name in ("text", "thinking", "refusal") if part.get(name)), "")
    inner = held if isinstance(held, list) else [held]
    words = [one if isinstance(one, str) else as_object(one).get("text") for one in inner]
    return "".join(word for word in words if isinstance(word, str))


def _without_text(
    message: Mapping[str, Any], said: Mapping[str, str], reason: str | None, secrets: Secrets
) -> Failure:
    """Return why an answer has no text: it was withheld, refused, a call, or never came after reasoning."""
    if reason == FILTERED:
        return Failure("content filter", "the answer was withheld")
    if said["refusal"]:
        return Failure("refusal", printable(secrets.cut(said["refusal"])))
    if reason == TOOLS or message.get("tool_calls") or message.get("function_call"):
        return Failure("tool call", "a tool was called in place of an answer")
    if reason == LENGTH:
        return Failure("only reasoning", "all tokens were spent before an answer: raise max_tokens")
    if said["reasoning"]:
        return Failure("only reasoning", "a reasoning trace came, and no answer after it")
    return Failure("empty answer", f"the model wrote nothing (it ended by {reason or 'no reason'})")


def _counted(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return value
    return None


def _positions(content: object) -> tuple[Position, ...]:
    """Return the positions of an answer; none at all where any of them cannot be read."""
    if not isinstance(content, list):
        return ()
    positions = []
    for entry in content:
        text = as_object(entry).get("token")
        ranked = as_object(entry).get("top_logprobs")
        if not isinstance(text, str) or len(text) > _LONGEST_TOKEN or not isinstance(ranked, list):
            return ()
        found = [_alternative(as_object(one)) for one in ranked]
        positions.append(Position(text, tuple(one for one in found if one is not None)))
    return tuple(positions)


def _alternative(entry: Mapping[str, Any]) -> Alternative | None:
    text, value = entry.get("token"), entry.get("logprob")
    if not isinstance(text, str) or not isinstance(value, int | float) or not value <= 1e-3:
        return None
    # A number of 400 digits is no float: what is so unlikely is impossible.
    return Alternative(
        text, min(0.0, float(value)) if value > _LEAST_LOG_PROBABILITY else -math.inf
    )
