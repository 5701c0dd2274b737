"""What the sampling check finds at a real server that honours seeds and counts, ignores them, or copies."""

from typing import Any

from chat_server import Handler, Told, answer, refuse, samples, serving
from preceptor.config.runtime import Endpoint
from preceptor.engines.chat.client import OpenAIChat
from preceptor.engines.chat.sampling_check import SamplingCheck, check_sampling


def client(told: Told, *, concurrency: int = 4) -> OpenAIChat:
    return OpenAIChat(
        Endpoint(url=told.url, concurrency=concurrency, timeout_s=5.0, patience_s=0.3), "m"
    )


def test_an_endpoint_that_honours_both_is_told_nothing_of():
    with serving(otherwise=samples()) as told:
        found = check_sampling(client(told), count=3)
    assert found == SamplingCheck("honoured", "honoured", asked=3, received=3)
    assert found.findings() == []


def test_what_is_asked_is_short_and_sampled():
    with serving(otherwise=samples()) as told:
        check_sampling(client(told, concurrency=1), count=2)
    assert [asked["temperature"] for asked in told.requests] == [1.0] * 4
    assert [asked["max_tokens"] for asked in told.requests] == [24] * 4
    first, again, other, several = told.requests
    assert first == again
    assert first["seed"] != other["seed"]
    assert several == {**first, "n": 2}


def test_a_count_of_one_is_not_asked_for():
    with serving(otherwise=samples()) as told:
        found = check_sampling(client(told))
    assert found == SamplingCheck("honoured", "not asked")
    assert len(told.requests) == 3


def test_a_seed_that_is_ignored_cannot_be_reproduced():
    with serving(otherwise=samples(seed="ignored")) as told:
        found = check_sampling(client(told), count=2)
    assert (found.seed, found.count) == ("ignored", "honoured")
    (sentence,) = found.findings()
    assert "none can be made again" in sentence and "keep the stored answers" in sentence


def test_a_seed_without_effect_makes_copies():
    with serving(otherwise=samples(seed="no effect")) as told:
        found = check_sampling(client(told))
    assert found.seed == "no effect"
    (sentence,) = found.findings()
    assert "every further sample would be a copy" in sentence


def test_a_seed_that_is_refused_is_unknown_and_the_sentence_says_why():
    with serving(otherwise=refuse(400, "Unsupported parameter: 'seed'")) as told:
        found = check_sampling(client(told), count=2)
    assert (found.seed, found.count, found.received) == ("unknown", "unknown", None)
    assert [sentence.count("Unsupported parameter: 'seed'") for sentence in found.findings()] == [
        1,
        1,
    ]


def test_a_count_that_is_refused_leaves_what_is_known_of_the_seed():
    def one_at_a_time(handler: Handler, asked: dict[str, Any]) -> None:
        (refuse(400, "n must be 1") if "n" in asked else samples())(handler, asked)

    with serving(otherwise=one_at_a_time) as told:
        found = check_sampling(client(told), count=2)
    assert (found.seed, found.count) == ("honoured", "unknown")
    assert found.why == "refused request: status 400: n must be 1"


def test_an_endpoint_that_is_down_is_unknown():
    with serving(otherwise=refuse(500, "busy")) as told:
        found = check_sampling(client(told))
    assert (found.seed, found.why) == ("unknown", "server error: status 500: busy")


def test_empty_answers_are_no_copies():
    with serving(otherwise=answer("", reason="length")) as told:
        found = check_sampling(client(told), count=1)
    assert found.seed == "unknown"
    assert "only reasoning: all tokens were spent" in found.findings()[0]


def test_raw_completions_are_checked_alike():
    with serving(otherwise=samples(seed="ignored")) as told:
        asking = OpenAIChat(
            Endpoint(url=told.url), "m", render=lambda messages: messages[-1].content
        )
        found = check_sampling(asking, count=2)
    assert set(told.paths) == {"/v1/completions"}
    assert (found.seed, found.count) == ("ignored", "honoured")
