"""The chat client under load: its pace, its pauses, and that no request is lost whatever fails."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

import chat_server as chat
from chat_server import Told, answer, refuse, request, serving
from chat_server import client_of as client
from preceptor.engines.base import ChatRequest, Completion, Failure


def test_requests_are_paced_evenly_and_waiting_for_it_takes_no_patience():
    # The sixth goes out after 1.25 s, more than its patience, fails, and is asked again all the same.
    with serving(*[answer("7")] * 5, refuse(500, "oops")) as told:
        asking = client(told, requests_per_minute=240, patience_s=0.8)
        start = time.monotonic()
        finished = list(asking.complete_all([request()] * 6))
    assert all(isinstance(one.outcome, Completion) for one in finished)
    gone = sorted(when - start for when in told.times)
    for place, when in enumerate(gone):
        assert when >= 0.25 * place - 0.01
    assert len(gone) == 7
    assert gone[-1] < 15


def test_two_runs_of_one_client_share_its_pace():
    with serving() as told:
        asking = client(told, requests_per_minute=600)
        start = time.monotonic()
        threads = [
            threading.Thread(target=lambda: list(asking.complete_all([request()] * 3)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told.times) == 6
    assert max(told.times) - start >= 0.45


def test_a_run_that_ends_early_leaves_no_gap_in_the_pace():
    with serving() as told:
        asking = client(told, requests_per_minute=120)
        outcomes = asking.complete_all([request()] * 60)
        next(outcomes)
        outcomes.close()
        start = time.monotonic()
        asking.complete(request())
    assert time.monotonic() - start < 15  # a few times to go may be lost, not sixty: half a minute


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_one_for_all_workers(status: int):
    def slow(handler: chat.Handler, asked: dict[str, Any]) -> None:
        time.sleep(0.1)
        answer("7")(handler, asked)

    with serving(refuse(status, "wait", Retry_After="1.0"), otherwise=slow) as told:
        finished = list(client(told, concurrency=4).complete_all([request()] * 12))
    assert len(finished) == 12
    assert all(isinstance(one.outcome, Completion) for one in finished)
    # What was on its way when the pause was asked for, and all the rest only after it.
    assert sum(when - told.times[0] < 1.0 for when in told.times) <= 8
    assert len(told.times) == 13


def test_a_pause_beyond_all_patience_ends_what_has_not_been_asked_with_its_reason():
    with serving(otherwise=refuse(429, "tomorrow", Retry_After="86400")) as told:
        finished = list(client(told, concurrency=2).complete_all([request()] * 6))
    assert [one.outcome for one in finished] == [
        Failure("rate limited", "status 429: tomorrow")
    ] * 6
    assert len(told.requests) <= 2


class Touched(Sequence[ChatRequest]):
    """Requests made when they are looked at; it remembers how far that went."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.furthest = -1

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, place: Any) -> Any:
        if place >= self.number:
            raise IndexError(place)
        self.furthest = max(self.furthest, place)
        return request(str(place))


def test_a_slow_consumer_is_not_run_ahead_of():
    requests = Touched(10_000)
    with serving() as told:
        outcomes = client(told, concurrency=3).complete_all(requests)
        for taken in range(1, 4):
            next(outcomes)
            time.sleep(0.3)
            assert len(told.requests) <= 2 * 3 + taken
            assert requests.furthest < 3 * 3 + taken
        outcomes.close()


def faulty(chance: Any) -> chat.Step:
    """Return a step that fails one request in five, in one of six ways."""
    faults = [
        refuse(500, "oops"),
        refuse(429, "slow down"),
        refuse(429, "slow down", Retry_After="0.3"),
        chat.reset,
        chat.truncated,
        chat.hang,
    ]

    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        with handler.server.told.lock:  # type: ignore[attr-defined]
            fault = chance.choice(faults) if chance.random() < 0.2 else None
        (fault or answer(asked["messages"][0]["content"]))(handler, asked)

    return step


def test_every_request_ends_in_one_outcome_whatever_fails():
    with serving(otherwise=faulty(random.Random(7))) as told:
        asking = client(told, concurrency=50, timeout_s=2.0, patience_s=60.0)
        finished = list(asking.complete_all([request(str(place)) for place in range(150)]))
    assert Counter(one.index for one in finished) == Counter(range(150))
    for one in finished:
        assert isinstance(one.outcome, Completion), one.outcome
        assert one.outcome.text == str(one.index)
    assert len(told.requests) > 165


def test_two_hundred_stand_at_once():
    def together(handler: chat.Handler, asked: dict[str, Any]) -> None:
        told: Told = handler.server.told  # type: ignore[attr-defined]
        end = time.monotonic() + 20
        while told.busiest < 200 and time.monotonic() < end:
            time.sleep(0.02)
        answer(asked["messages"][0]["content"])(handler, asked)

    with serving(otherwise=together) as told:
        asking = client(told, concurrency=200, timeout_s=30.0, patience_s=60.0)
        finished = list(asking.complete_all([request(str(place)) for place in range(200)]))
    assert told.busiest == 200
    assert len(told.requests) == 200
    texts = {one.index: getattr(one.outcome, "text", None) for one in finished}
    assert texts == {place: str(place) for place in range(200)}


def test_a_request_without_patience_left_is_its_failure():
    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        odd = int(asked["messages"][0]["content"]) % 2
        (refuse(500, "odd") if odd else answer("even"))(handler, asked)

    with serving(otherwise=step) as told:
        asking = client(told, concurrency=20, patience_s=0.5)
        finished = list(asking.complete_all([request(str(place)) for place in range(40)]))
    assert Counter(one.index for one in finished) == Counter(range(40))
    for one in finished:
        failed = isinstance(one.outcome, Failure) and not one.outcome.of_request
        assert failed == bool(one.index % 2)
