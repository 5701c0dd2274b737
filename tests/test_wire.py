"""What is sent to a chat endpoint and read from it, over a real server on loopback where that tells more."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

import chat_server as chat
from chat_server import answer, refuse, reply, request, serving
from chat_server import client_of as client
from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.chat.client import OpenAIChat
from preceptor.engines.chat.reading import read_completion
from preceptor.engines.chat.secrets import Secrets
from preceptor.engines.chat.wire import payload_of, refused_parameter
from preceptor.errors import ModelError
from preceptor.types import Message
from small_times import soon

NO_SECRETS = Secrets.of("http://127.0.0.1:1/v1", None)
TOO_LARGE = (
    "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is "
    "4096 tokens and your request has 100 input tokens."
)


def test_what_says_nothing_is_not_sent_and_what_says_something_is():
    with serving() as told:
        client(told).complete(request(top_p=1.0, stop=(), count=1, seed=None))
        client(told).complete(request(top_p=0.9, stop=("END", "\n"), count=3, seed=0))
    assert set(told.requests[0]) == {"model", "messages", "temperature", "max_tokens"}
    said = {name: told.requests[1][name] for name in ("top_p", "stop", "n", "seed")}
    assert said == {"top_p": 0.9, "stop": ["END", "\n"], "n": 3, "seed": 0}


def test_several_answers_come_in_the_order_of_their_index():
    body = json.loads(chat.several("a", "b", "c"))
    body["choices"].reverse()
    with serving(reply(200, json.dumps(body).encode())) as told:
        outcome = client(told).complete(request(count=3))
    assert isinstance(outcome, Completion)
    assert [outcome.text, *(other.text for other in outcome.others)] == ["a", "b", "c"]
    assert outcome.prompt_tokens == 11
    assert outcome.tokens is None  # the endpoint counts all three together
    assert all(not other.others for other in outcome.others)


def test_one_answer_has_its_tokens():
    with serving(reply(200, chat.several("a"))) as told:
        outcome = client(told).complete(request(count=3))
    assert outcome == Completion("a", "stop", tokens=3, prompt_tokens=11)


def test_more_answers_than_asked_for_are_ignored():
    with serving(otherwise=reply(200, chat.several("a", "b", "c"))) as told:
        one, two = (client(told).complete(request(count=count)) for count in (1, 2))
    assert isinstance(one, Completion) and isinstance(two, Completion)
    assert (one.text, one.others, one.tokens) == ("a", (), None)
    assert [other.text for other in two.others] == ["b"]


def read(*choices: Any, count: int = 5, **usage: Any) -> Completion | Failure:
    return read_completion(
        json.dumps({"choices": choices, "usage": usage}), NO_SECRETS, count=count
    )


def test_withheld_and_unreadable_answers_are_left_out_of_several():
    withheld = {"message": {"content": None}, "finish_reason": "content_filter"}
    good = {"message": {"content": "good"}, "finish_reason": "stop"}
    found = read(withheld, good, {"message": {"content": 7}}, None, {"message": {"content": None}})
    assert isinstance(found, Completion)
    assert (found.text, found.others) == ("good", ())
    assert read(withheld, withheld) == Failure("content filter", "the answer was withheld")


@pytest.mark.parametrize("odd", [True, -3, "7", 1.5, None, [1]])
def test_a_count_of_tokens_that_is_none_is_no_data(odd: Any):
    found = read({"text": "x"}, completion_tokens=odd, prompt_tokens=odd)
    assert found == Completion("x", tokens=None, prompt_tokens=None)


@pytest.mark.parametrize("odd", [True, -1, "0", None, [], 1e300])
def test_an_index_that_is_none_leaves_an_answer_where_it_came(odd: Any):
    found = read({"text": "first", "index": odd}, {"text": "second", "index": 1})
    assert isinstance(found, Completion)
    assert found.text == "first"


def rendered(messages: Sequence[Message]) -> str:
    if messages[-1].content == "no":
        raise ModelError("The template takes no 'no'.")
    return f"<{messages[-1].content}>"


def test_a_rendered_conversation_is_asked_as_a_raw_completion():
    with serving(otherwise=reply(200, chat.several("x", raw=True))) as told:
        endpoint = Endpoint(url=told.url, concurrency=1)
        asking = OpenAIChat(endpoint, "base", render=rendered)
        finished = list(
            asking.complete_all([request("a", alternatives=3), request("no"), request("b")])
        )
    outcomes = {one.index: one.outcome for one in finished}
    assert outcomes[0] == outcomes[2] == Completion("x", "stop", tokens=3, prompt_tokens=11)
    assert outcomes[1] == Failure("refused request", "The template takes no 'no'.")
    assert told.paths == ["/v1/completions"] * 2
    assert [asked["prompt"] for asked in told.requests] == ["<a>", "<b>"]
    assert not {"messages", "logprobs"} & set(told.requests[0])


def test_raw_completions_have_one_name_for_the_limit():
    with serving(otherwise=refuse(400, "max_tokens is not supported")) as told:
        outcome = OpenAIChat(Endpoint(url=told.url), "base", render=rendered).complete(request())
    assert isinstance(outcome, Failure)
    assert outcome.kind == "refused request"
    assert len(told.requests) == 1


def newer(handler: chat.Handler, asked: dict[str, Any]) -> None:
    """Refuse as OpenAI's reasoning models do (the message they sent in 2025)."""
    body = {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
    refusal = reply(400, json.dumps({"error": body}).encode())
    (refusal if "max_tokens" in asked else answer("7"))(handler, asked)


def test_the_newer_name_of_the_limit_is_used_where_the_older_is_refused(
    caplog: pytest.LogCaptureFixture,
):
    with serving(otherwise=newer) as told:
        asking = client(told, concurrency=1)
        finished = list(asking.complete_all([request(alternatives=2)] * 4))
    assert all(isinstance(one.outcome, Completion) for one in finished)
    assert ["max_tokens" in asked for asked in told.requests] == [True] + [False] * 4
    assert [asked["max_completion_tokens"] for asked in told.requests[1:]] == [4] * 4
    assert all("logprobs" in asked for asked in told.requests)
    assert caplog.text.count("max_completion_tokens in place of max_tokens") == 1


def test_a_limit_that_is_too_large_is_the_fault_of_one_request():
    with serving(refuse(400, TOO_LARGE)) as told:
        asking = client(told)
        outcomes = [asking.complete(request()) for _ in range(2)]
    assert isinstance(outcomes[0], Failure)
    assert outcomes[0].of_request
    assert isinstance(outcomes[1], Completion)
    assert all("max_tokens" in asked for asked in told.requests)


@pytest.mark.parametrize("parameter", ["temperature", "top_p", "seed"])
def test_a_parameter_that_is_refused_is_never_left_out(parameter: str):
    message = f"Unsupported value: '{parameter}' does not support 0.5 with this model."
    with serving(otherwise=refuse(400, message)) as told:
        outcome = client(told).complete(request(temperature=0.5, top_p=0.5))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "denied"
    assert f"does not take this {parameter}" in outcome.detail
    assert len(told.requests) == 1


SENT = {"max_tokens": 4, "temperature": 0.0, "seed": 0}


@pytest.mark.parametrize(
    ("message", "named", "refused"),
    [
        ("`temperature` is deprecated for this model.", None, "temperature"),
        ("Unrecognized request argument supplied: seed", None, "seed"),
        ("seed is not supported, nor is temperature", None, "seed"),
        ("Unsupported parameter", "temperature", "temperature"),
        ("Unsupported content in 'what temperature?'", "messages", None),
        ("'top_p' is not supported", None, None),  # it was not sent
        ("the superseed is not supported", None, None),
        ("the temperature rises, said the prompt", None, None),
        (TOO_LARGE, None, None),
        (TOO_LARGE, "max_tokens", None),
        ("max_tokens must be at least 16", None, None),
    ],
)
def test_a_refused_parameter_is_told_from_other_refusals(
    message: str, named: str | None, refused: str | None
):
    body = json.dumps({"error": {"message": message, "param": named}})
    assert refused_parameter(body, SENT) == refused


def test_a_hostile_refusal_is_read_in_linear_time():
    for unit in ("seed ", "must be", "only the defaul", "too  ", "max_tokens"):
        refusal = json.dumps({"error": unit * 100_000})
        assert soon(0.5, refused_parameter, refusal, SENT), unit


def test_calls_go_out_numbered_with_their_answers_and_the_tools():
    call = {"name": "look", "arguments": {"at": 1}}
    turns = (
        Message("user", "Look."),
        Message("assistant", "", json.dumps([call, call])),
        Message("tool", "a", "", "look"),
        Message("tool", "b", "", "look"),
    )
    sent = payload_of(ChatRequest(turns, 9, tools='[{"name":"look"}]'), model="m")
    assert sent["tools"] == [{"name": "look"}]
    _, calling, *given = sent["messages"]
    assert [one["id"] for one in calling["tool_calls"]] == ["call_0", "call_1"]
    assert calling["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": 1}'}
    assert [(one["tool_call_id"], one["content"]) for one in given] == [
        ("call_0", "a"),
        ("call_1", "b"),
    ]
