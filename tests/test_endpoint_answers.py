"""What endpoints send, and worse: answered, or a failure with its reason, in few requests."""

import gzip
import json
import zlib
from typing import Any

import pytest

import chat_server as chat
from chat_server import Told, answer, completion, refuse, reply, serving
from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.chat.client import OpenAIChat
from preceptor.engines.chat.reading import BODY_LIMIT, address_hint, read_completion
from preceptor.engines.chat.secrets import Secrets
from preceptor.engines.endings import ending_of
from preceptor.types import Message

NO_SECRETS = Secrets.of("http://127.0.0.1:1/v1", None)
PAGE = b"<!doctype html><html><title>Open WebUI</title></html>"
EVENTS = b'data: {"choices": [{"delta": {"content": "Blue"}}]}\n\ndata: [DONE]\n\n'
DEEP = b'{"choices":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
BOMB = gzip.compress(b"a" * (BODY_LIMIT + 2**20), 1)
GZIP = {"Content-Encoding": "gzip"}


def asked(told: Told, path: str = "/v1", **options: Any) -> Completion | Failure:
    url = told.url.removesuffix("/v1") + path
    asking = OpenAIChat(Endpoint(url=url, timeout_s=5.0, patience_s=8.0), "some-model")
    return asking.complete(ChatRequest((Message("user", "hello"),), max_tokens=4, **options))


def of_message(reason: str | None = "stop", **message: Any) -> Completion | Failure:
    body = {"choices": [{"message": message, "finish_reason": reason}]}
    return read_completion(json.dumps(body), NO_SECRETS)


@pytest.mark.parametrize(
    ("body", "headers", "kind", "said", "requests"),
    [
        (PAGE, {}, "foreign answer", "a page ('Open WebUI') came", 3),
        (EVENTS, {}, "foreign answer", "a stream of events came", 3),
        (b'{"error": "Unexpected endpoint"}', {}, "foreign answer", "Unexpected endpoint", 3),
        (b'{"id": 7}', {}, "foreign answer", '{"id": 7}', 3),
        (b"[1, 2, 3]", {}, "foreign answer", "[1, 2, 3]", 3),
        (b"hello world", {}, "foreign answer", "hello world", 3),
        (DEEP, {}, "foreign answer", "what came is no answer", 3),
        (b'{"n": ' + b"9" * 5000 + b"}", {}, "foreign answer", "no answer", 3),
        (b'{"choices": []}', {}, "foreign answer", "no readable choice", 3),
        (b'{"choices": [null, {"message": {"content": {"a": 1}}}]}', {}, "foreign answer", "no", 3),
        (completion("7"), {"Content-Encoding": "br"}, "foreign answer", "encoded as br", 3),
        (b" " * (BODY_LIMIT + 1), {}, "oversized answer", "more than", 1),
        (BOMB, GZIP, "oversized answer", "more than", 1),
        (b'{"error": {"code": 401, "message": "no"}}', {}, "denied", "status 401: no", 1),
        (b'{"error": {"code": "400", "message": "no"}}', {}, "refused request", "status 400", 1),
    ],
)  # fmt: skip
def test_what_will_not_pass_ends_in_few_requests_with_what_it_was(
    body: bytes, headers: dict[str, str], kind: str, said: str, requests: int
):
    with serving(otherwise=reply(200, body, **headers)) as told:
        outcome = asked(told)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, len(told.requests)) == (kind, requests)
    assert said in outcome.detail


@pytest.mark.parametrize("fault", [PAGE, b"", b'{"choices": [{"mess', b'{"error": {"code": 503}}'])
def test_what_passes_is_asked_again_until_the_answer_comes(fault: bytes):
    with serving(reply(200, fault), reply(200, fault)) as told:
        assert isinstance(asked(told), Completion)
    assert len(told.requests) == 3


def test_a_page_after_answers_is_a_gateway_in_trouble_and_has_a_minute():
    with serving(answer("7"), *[reply(200, PAGE)] * 4) as told:
        asking = OpenAIChat(Endpoint(url=told.url, timeout_s=5.0, patience_s=8.0), "some-model")
        request = ChatRequest((Message("user", "hello"),), max_tokens=4)
        assert all(isinstance(asking.complete(request), Completion) for _ in range(2))
    assert len(told.requests) == 6


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_packed_answer_is_unpacked(pack: Any):
    encoding = "gzip" if pack is gzip.compress else "deflate"
    with serving(reply(200, pack(completion("7")), Content_Encoding=encoding)) as told:
        outcome = asked(told)
    assert isinstance(outcome, Completion) and outcome.text == "7"


def test_an_answer_that_says_it_is_huge_is_not_waited_for():
    with serving(otherwise=reply(200, b"{", **{"Content-Length": str(10 * 2**30)})) as told:
        outcome = asked(told)
    assert isinstance(outcome, Failure) and outcome.kind == "oversized answer"


@pytest.mark.parametrize("step", [refuse(404, "Not Found"), reply(200, PAGE), refuse(405, "No")])
def test_an_address_without_v1_is_told_with_the_one_to_use(step: chat.Step):
    with serving(otherwise=step) as told:
        outcome = asked(told, path="/base")
    assert isinstance(outcome, Failure)
    better = f"http://127.0.0.1:{told.port}/base/v1"
    assert f"the address may lack /v1: try {better};" in outcome.detail
    assert told.paths[0] == "/base/chat/completions"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://host:1/v1", ""),
        ("http://host/v1beta/openai", ""),
        ("http://host:1", "the address may lack /v1: try http://host:1/v1; "),
        ("http://u:pass@h/", "the address may lack /v1: try http://h/v1 ([redacted]); "),
        ("http://h/v1/chat/completions", "the address ends with its function: try http://h/v1; "),
    ],
)
def test_the_address_to_try_shows_no_secret(url: str, hint: str):
    assert address_hint(url) == hint


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "Blue."}, "Blue.", ""),
        ({"content": [{"type": "text", "text": "Blue."}]}, "Blue.", ""),
        ({"content": ["Bl", {"type": "output_text", "text": "ue."}]}, "Blue.", ""),
        ({"content": [{"type": "image_url"}, 7, {"type": "text", "text": "Blue."}]}, "Blue.", ""),
        ({"content": "Blue.", "reasoning_content": "Hm."}, "Blue.", "Hm."),
        ({"content": "Blue.", "reasoning": "Hm."}, "Blue.", "Hm."),
        ({"content": "Blue.", "reasoning": {"effort": "low"}, "refusal": None}, "Blue.", ""),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "Blue."},
                ]
            },
            "Blue.",
            "Hm.",
        ),
    ],
)
def test_text_and_reasoning_are_found_wherever_they_stand(
    message: dict[str, Any], text: str, reasoning: str
):
    found = of_message(**message)
    assert isinstance(found, Completion)
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("reason", "message", "kind", "said"),
    [
        ("length", {"content": None, "reasoning_content": "Hm"}, "only reasoning", "max_tokens"),
        ("MAX_TOKENS", {"content": "", "reasoning": "Hm"}, "only reasoning", "max_tokens"),
        ("length", {"content": ""}, "only reasoning", "all tokens were spent"),
        ("stop", {"content": " \n", "reasoning": "Hm"}, "only reasoning", "no answer after it"),
        ("stop", {"content": None, "refusal": "I can't."}, "refusal", "I can't."),
        ("stop", {"content": [{"type": "refusal", "refusal": "No\x1b[2J."}]}, "refusal", "No [2J."),
        ("tool_calls", {"content": None, "tool_calls": [{}]}, "tool call", "a tool was called"),
        ("stop", {"content": None, "function_call": {"name": "f"}}, "tool call", "a tool"),
        ("content_filter", {"content": None}, "content filter", "withheld"),
        ("SAFETY", {"content": ""}, "content filter", "withheld"),
        ("end_turn", {"content": ""}, "empty answer", "it ended by stop"),
        (None, {"content": None}, "empty answer", "no reason"),
    ],
)
def test_an_empty_answer_is_a_failure_that_says_why(
    reason: str | None, message: dict[str, Any], kind: str, said: str
):
    found = of_message(reason, **message)
    assert isinstance(found, Failure)
    assert found.kind == kind and found.of_request
    assert said in found.detail


def test_an_empty_text_with_probabilities_is_an_answer():
    ranked = chat.ranked(("", {"m": -0.1, "M": -2.5}))
    found = read_completion(completion("", logprobs=ranked).decode(), NO_SECRETS)
    assert isinstance(found, Completion) and len(found.positions) == 1


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [(word, "length") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")]
    + [(word, "stop") for word in ("stop", "STOP", "end_turn", "eos", "FinishReason.STOP")]
    + [(word, "content_filter") for word in ("content_filter", "SAFETY", "RECITATION", "refusal")]
    + [(word, "tool_calls") for word in ("tool_calls", "tool_use", "function_call")]
    + [("odd", "odd"), (7, None), ("", None), ("x" * 900, "x" * 60)],
)
def test_why_an_answer_ended_has_one_spelling(spelled: object, meant: str | None):
    assert ending_of(spelled) == meant


@pytest.mark.parametrize("odd", [2**64 - 1, 2**41, -5, float("nan"), 10**400])
def test_a_count_of_tokens_beyond_all_responses_is_no_data(odd: float):
    body = {"choices": [{"text": "x"}], "usage": {"completion_tokens": odd, "prompt_tokens": odd}}
    assert read_completion(json.dumps(body), NO_SECRETS) == Completion("x")


@pytest.mark.parametrize("odd", [-(10**400), float("-inf"), -1e7])
def test_a_log_probability_beyond_all_floats_is_impossible(odd: float):
    found = read_completion(
        completion("7", logprobs=chat.ranked(("7", {"7": odd}))).decode(), NO_SECRETS
    )
    assert isinstance(found, Completion)
    assert found.positions[0].alternatives[0].log_probability == float("-inf")
