"""The chat client against a real server on loopback that misbehaves in every way we know of."""

import email.utils
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pydantic import ValidationError

import chat_server as chat
from chat_server import (
    Told,
    answer,
    client_of,
    completion,
    refuse,
    reply,
    request,
    serving,
)
from preceptor.config.base import checked
from preceptor.config.runtime import Endpoint
from preceptor.engines.base import Completion, Failure
from preceptor.engines.chat.client import OpenAIChat
from preceptor.engines.chat.secrets import Secrets
from preceptor.engines.chat.wire import (
    DETAIL_LIMIT,
    pause_asked_for,
    printable,
)
from preceptor.errors import ModelError, StudyError

KEY = "sk-test-9f8e7d6c5b4a/+"


def client(told: Told, **options: Any) -> OpenAIChat:
    return client_of(told, **{"api_key_env": "SOME_KEY", **options})


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOME_KEY", KEY)
    return KEY


def test_what_is_asked_is_openais_form():
    with serving() as told:
        outcome = client(told).complete(request(alternatives=20, seed=3))
    assert outcome == Completion("7", "stop", (), 1)
    assert told.paths == ["/v1/chat/completions"]
    assert told.requests == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.0,
            "max_tokens": 4,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 20,
        }
    ]
    assert "Authorization" not in told.headers[0]


def test_the_key_is_sent_as_a_bearer(key: str):
    with serving() as told:
        client(told).complete(request())
    assert told.headers[0]["Authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    "fault",
    [
        refuse(429, "slow down"),
        refuse(500, "oops"),
        reply(503, b"<html>no</html>"),
        refuse(408, "late"),
        refuse(409, "busy"),
        reply(200, b'{"choices": [{"mess'),
        reply(200, b""),
        reply(200, b"\xff\xfe"),
        reply(200, b"[" * 100_000),
        reply(200, b'{"choices": [null]}'),
        reply(200, b'{"choices": [{"message": {"content": 7}}]}'),
        reply(200, b'{"error": {"code": 502, "message": "upstream"}}'),
        chat.truncated,
        chat.reset,
    ],
)
def test_trouble_that_may_pass_is_asked_again(fault: chat.Step):
    with serving(fault, fault) as told:
        outcome = client(told).complete(request())
    assert isinstance(outcome, Completion)
    assert len(told.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "refused request"), (413, "refused request"), (422, "refused request")]
    + [(status, "denied") for status in (301, 401, 402, 403, 404)],
)
def test_trouble_that_will_not_pass_is_not_asked_again(status: int, kind: str):
    with serving(otherwise=refuse(status, "No.", Location="http://127.0.0.1:9/")) as told:
        outcome = client(told).complete(request())
    assert outcome == Failure(kind, f"status {status}: No.")  # type: ignore[arg-type]
    assert len(told.requests) == 1


def test_withheld_answers_are_content_filters():
    azure = b'{"error": {"code": "content_filter", "message": "flagged"}}'
    with serving(reply(400, azure), answer(None, reason="content_filter")) as told:
        outcomes = [client(told).complete(request()) for _ in range(2)]
    assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["content filter"] * 2


def test_a_pause_in_seconds_is_kept():
    with serving(refuse(429, "wait", Retry_After="1.2")) as told:
        assert isinstance(client(told).complete(request()), Completion)
    assert told.times[1] - told.times[0] >= 1.2


def test_a_pause_until_a_date_is_kept():
    def busy(handler: chat.Handler, asked: dict[str, Any]) -> None:
        date = email.utils.formatdate(time.time() + 3, usegmt=True)
        refuse(503, "wait", Retry_After=date)(handler, asked)

    with serving(busy) as told:
        assert isinstance(client(told).complete(request()), Completion)
    assert told.times[1] - told.times[0] >= 1.5  # a date has whole seconds


def test_a_pause_that_is_no_pause_is_none():
    assert [pause_asked_for(text) for text in (None, "soon", "nan", "inf", "", "-3")] == [
        *(None,) * 5,
        0.0,
    ]


def test_a_pause_beyond_all_patience_ends_the_request_at_once():
    start = time.monotonic()
    with serving(otherwise=refuse(429, "tomorrow", Retry_After="86400")) as told:
        outcome = client(told, patience_s=60.0).complete(request())
    assert outcome == Failure("rate limited", "status 429: tomorrow")
    assert time.monotonic() - start < 30
    assert len(told.requests) == 1


@pytest.mark.parametrize("fault", [chat.hang, chat.drip])
def test_a_hang_ends_and_is_asked_again(fault: chat.Step):
    start = time.monotonic()
    with serving(fault) as told:
        outcome = client(told, timeout_s=0.5).complete(request())
    assert isinstance(outcome, Completion)
    assert 0.5 <= time.monotonic() - start < 15  # a hang lasts twenty


def test_patience_has_an_end():
    start = time.monotonic()
    with serving(otherwise=chat.hang) as told:
        outcome = client(told, timeout_s=0.3, patience_s=1.0).complete(request())
    assert isinstance(outcome, Failure)
    assert outcome.kind == "timed out"
    assert not outcome.of_request
    assert time.monotonic() - start < 15


def test_a_server_that_is_killed_and_restarted_is_waited_for():
    with serving(chat.reset, otherwise=chat.reset) as told:
        port = told.port
        waiting = client(told)
        found: list[Completion | Failure] = []
        thread = threading.Thread(target=lambda: found.append(waiting.complete(request())))
        thread.start()
        while not told.requests:
            time.sleep(0.01)
    time.sleep(0.5)  # nothing listens now
    with serving(port=port):
        thread.join(10)
    assert isinstance(found[0], Completion)


def test_where_nobody_listens_the_failure_says_so():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = Endpoint(url=f"http://127.0.0.1:{port}/v1", patience_s=0.2)
    outcome = OpenAIChat(endpoint, "m").complete(request())
    assert isinstance(outcome, Failure)
    assert outcome.kind == "unreachable"


def test_many_come_as_they_finish_and_no_more_at_once_than_said():
    others = threading.Semaphore(0)

    def slow(handler: chat.Handler, asked: dict[str, Any]) -> None:
        text = asked["messages"][0]["content"]
        if text == "0":
            assert all(others.acquire(timeout=10) for _ in range(9))
        time.sleep(0.1)
        answer(text)(handler, asked)
        others.release()

    with serving(otherwise=slow) as told:
        many = client(told, concurrency=3)
        finished = list(many.complete_all([request(str(place)) for place in range(10)]))
    assert sorted(one.index for one in finished) == list(range(10))
    assert finished[-1].index == 0
    for one in finished:
        assert isinstance(one.outcome, Completion)
        assert one.outcome.text == str(one.index)
    assert told.busiest == 3


def test_no_requests_have_no_outcomes():
    with serving() as told:
        assert list(client(told).complete_all([])) == []


def test_closing_early_ends_what_is_under_way():
    start = time.monotonic()
    with serving(answer("1"), otherwise=chat.hang) as told:
        outcomes = client(told, concurrency=4).complete_all([request()] * 50)
        next(outcomes)
        outcomes.close()
        assert time.monotonic() - start < 15
    assert len(told.requests) <= 8


def test_an_endpoint_without_log_probabilities_is_asked_without_and_that_is_remembered():
    def strict(handler: chat.Handler, asked: dict[str, Any]) -> None:
        refused = "logprobs" in asked
        (refuse(400, "logprobs is not supported") if refused else answer("7"))(handler, asked)

    with serving(otherwise=strict) as told:
        asking = client(told, concurrency=1)
        finished = list(asking.complete_all([request(alternatives=20)] * 5))
    assert all(isinstance(one.outcome, Completion) for one in finished)
    assert ["logprobs" in asked for asked in told.requests] == [True] + [False] * 5


def test_a_prompt_that_is_refused_either_way_says_nothing_of_log_probabilities():
    def full(handler: chat.Handler, asked: dict[str, Any]) -> None:
        long = len(asked["messages"][0]["content"]) > 10
        (refuse(400, "too long") if long else answer("7"))(handler, asked)

    with serving(otherwise=full) as told:
        asking = client(told, concurrency=1)
        outcomes = [asking.complete(request(text, alternatives=5)) for text in ("x" * 11, "y")]
    assert outcomes[0] == Failure("refused request", "status 400: too long")
    assert isinstance(outcomes[1], Completion)
    assert "logprobs" in told.requests[-1]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_the_key_is_in_no_log_message_or_representation(
    status: int, key: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG), serving(otherwise=chat.echo_headers(status)) as told:
        asking = client(told, patience_s=0.7)
        outcome = asking.complete(request(alternatives=1))
    assert isinstance(outcome, Failure)
    assert "no entry with [redacted] at all" in outcome.detail
    assert told.headers[0]["Authorization"].endswith(key)
    shown = [outcome, asking, asking.endpoint, vars(asking), vars(asking.endpoint)]
    for text in (caplog.text, *map(str, shown), *map(repr, shown)):
        assert key not in text
        assert json.dumps(key).strip('"') not in text


def test_the_http_library_still_logs_for_others(caplog: pytest.LogCaptureFixture):
    with serving() as told:
        client(told).complete(request())
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").info("somebody else's request")
    assert "somebody else's request" in caplog.text


def test_an_answer_that_quotes_the_key_loses_it(key: str):
    with serving(answer(f"your key is {KEY}, I believe")) as told:
        outcome = client(told).complete(request())
    assert isinstance(outcome, Completion)
    assert outcome.text == "your key is [redacted], I believe"


def test_a_key_escaped_at_every_character_is_found(key: str):
    spelled = "".join(f"\\u{ord(char):04x}" for char in KEY)
    body = b'{"error": {"message": "seen: ' + spelled.encode() + b'"}}'
    with serving(reply(400, body)) as told:
        outcome = client(told).complete(request())
    assert outcome == Failure("refused request", "status 400: seen: [redacted]")


def test_a_servers_words_are_cut_short_and_in_one_line():
    with serving(refuse(400, "bad\x1b[31m\nline " + "x" * 5000)) as told:
        outcome = client(told).complete(request())
    assert isinstance(outcome, Failure)
    assert len(outcome.detail) == DETAIL_LIMIT
    assert outcome.detail.isprintable()
    assert printable("\u202eabc\u2028\x00") == "abc"


def test_the_key_is_not_torn_by_the_limit(key: str):
    with serving(refuse(400, "x" * (DETAIL_LIMIT - 20) + KEY)) as told:
        outcome = client(told).complete(request())
    assert isinstance(outcome, Failure)
    assert KEY[:5] not in outcome.detail


@pytest.mark.parametrize(
    "url",
    [
        "http://someone:hunter2hunter2@127.0.0.1/v1",
        "https://hunter2hunter2@example.org/v1",
        "https://u:p@hunter2hunter2@example.org/v1",
        "https://u:p/hunter2hunter2@example.org/v1",
        "https://example.org/v1?k=hunter2hunter2",
        "https://example.org/v1#hunter2hunter2",
    ],
)
def test_an_address_with_a_user_or_a_query_is_refused_with_the_remedy(url: str):
    with pytest.raises(StudyError, match="key into an environment variable") as raised:
        checked(Endpoint, {"url": url}, where="runtime.endpoints.judge")
    with pytest.raises(ValidationError) as direct:
        Endpoint(url=url)
    assert "hunter2" not in f"{raised.value} {direct.value}"


def test_a_remote_endpoint_needs_its_key_and_says_which():
    with pytest.raises(ModelError, match="MY_KEY is not set"):
        OpenAIChat(Endpoint(url="https://example.org/v1", api_key_env="MY_KEY"), "m")
    OpenAIChat(Endpoint(url="https://example.org/v1", api_key_env=None), "m")


def test_a_key_that_fits_no_header_is_not_quoted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "sk-line\nbreak")
    with pytest.raises(ModelError, match="SOME_KEY") as raised:
        OpenAIChat(Endpoint(url="http://127.0.0.1:1/v1", api_key_env="SOME_KEY"), "m")
    assert "sk-line" not in str(raised.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x/", "http://", "http://a:b/v1"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(ModelError, match="no endpoint"):
        OpenAIChat(Endpoint(url=url), "m")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.3.2.1/v1", True),
        ("http://[::1]:8/v1", True),
        ("http://localhost.example.org/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_loopback_is_told_from_elsewhere(url: str, here: bool):
    assert Secrets.of(url, None).loopback is here


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as told:
        assert isinstance(client(told).complete(request()), Completion)


def test_log_probabilities_are_read_and_damaged_ones_left_out():
    good = chat.ranked(("7", {"7": -0.1, "8": -2.5}))
    odd = {"content": [{"token": "7", "top_logprobs": [{"token": "7", "logprob": None}, 3, {}]}]}
    bad = {"content": [{"token": 7, "top_logprobs": None}]}
    bodies = [reply(200, completion("7", logprobs=one)) for one in (good, odd, bad)]
    with serving(*bodies) as told:
        outcomes = [client(told).complete(request(alternatives=2)) for _ in bodies]
    positions = [outcome.positions for outcome in outcomes if isinstance(outcome, Completion)]
    assert positions == [(("7", (("7", -0.1), ("8", -2.5))),), (("7", ()),), ()]


def test_a_text_that_is_no_unicode_is_asked_all_the_same():
    with serving() as told:
        assert isinstance(client(told).complete(request("half \ud800 a pair")), Completion)
    assert told.requests[0]["messages"][0]["content"] == "half \ud800 a pair"


@pytest.mark.parametrize(
    "odd", [{"concurrency": 0}, {"timeout_s": 0}, {"patience_s": -1}, {"timeout_s": float("nan")}]
)
def test_limits_that_would_ask_nothing_are_refused(odd: dict[str, Any]):
    with pytest.raises(StudyError, match=next(iter(odd))):
        checked(Endpoint, {"url": "http://127.0.0.1:1/v1", **odd}, where="runtime.endpoints")


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("preceptor.engines.chat.reading.BODY_LIMIT", 1000)
    with serving(otherwise=reply(200, b" " * 100_000)) as told:
        outcome = client(told).complete(request())
    assert isinstance(outcome, Failure)
    assert outcome.kind == "oversized answer"
    assert len(told.requests) == 1  # it would be paid for again


def test_it_works_where_a_loop_runs_already():
    import asyncio

    async def inside() -> Completion | Failure:
        return client(told).complete(request())

    with serving() as told:
        assert isinstance(asyncio.run(inside()), Completion)


@pytest.fixture(autouse=True)
def no_threads_stay() -> Iterator[None]:
    before = threading.active_count()
    yield
    end = time.monotonic() + 15
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_key_of_openai_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Secrets.of("https://api.openai.com/v1", None).headers()
    assert not Secrets.of("http://127.0.0.1:1/v1", None).headers()
    assert not Secrets.of("https://elsewhere.example.org/v1", None).headers()


def test_a_redirection_is_not_followed(key: str):
    with serving() as elsewhere:
        moved = reply(307, Location=f"{elsewhere.url}/chat/completions")
        with serving(otherwise=moved) as told:
            outcome = client(told, patience_s=0.2).complete(request())
    assert isinstance(outcome, Failure)
    assert (len(told.requests), elsewhere.requests) == (1, [])


@pytest.mark.parametrize("name", ["sk-abcdef-0123456789", "hf_abcDEF0123456789abcdef", "a b"])
def test_a_key_given_as_the_name_of_a_variable_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(StudyError, match="never given on the command line") as raised:
        checked(Endpoint, {"url": "https://example.org/v1", "api_key_env": name}, where="options")
    assert name not in str(raised.value)


def test_a_key_goes_unencrypted_to_loopback_alone_unless_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    far = Endpoint(url="http://10.1.2.3/v1", api_key_env="SOME_KEY")
    with pytest.raises(
        ModelError, match=r"10\.1\.2\.3/v1 unencrypted.*https.*allow_http"
    ) as raised:
        OpenAIChat(far, "m")
    assert KEY not in str(raised.value)
    for changed in ({"allow_http": True}, {"api_key_env": None}, {"url": "http://[::1]:8/v1"}):
        OpenAIChat(far.model_copy(update=changed), "m")


@pytest.mark.parametrize(
    "odd",
    [{"requests_per_minute": value} for value in (0, -1, float("nan"), float("inf"))]
    + [{name: value} for name in ("price_in", "price_out") for value in (-0.1, float("nan"))],
)
def test_a_pace_or_a_price_that_is_none_is_refused(odd: dict[str, Any]):
    with pytest.raises(StudyError, match=next(iter(odd))):
        checked(Endpoint, {"url": "http://127.0.0.1:1/v1", **odd}, where="runtime.endpoints")


def test_a_price_may_be_nothing():
    assert Endpoint(url="http://127.0.0.1:1/v1", price_in=0, price_out=0.0).price_in == 0
