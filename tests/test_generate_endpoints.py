"""Asking a teacher: what an endpoint does with seeds and counts is found out first, notes are final."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import chat_server as chat
from chat_server import Step, answer, refuse, serving
from preceptor.errors import ModelError
from preceptor.pipeline.work import Silent
from small_teachers import (
    Asked,
    generations,
    job,
    runtime_at,
    served,
    stored_twice,
    study_with,
    texts_in,
    write_questions,
)

PROBES = 3
"""Requests that find out about seeds; one more finds out about counts."""


def ask(tmp_path: Path, step: Step, *, instructions: int = 4, **teacher: Any) -> list[Any]:
    """Ask a server that always does this step; return what it was asked."""
    study = study_with(write_questions(tmp_path, instructions), served(**teacher))
    with serving(otherwise=step) as told:
        job(study, runtime_at(tmp_path / "store", told)).run(Silent())
    return told.requests


def of_instructions(requests: list[Any]) -> list[Any]:
    return [one for one in requests if "number" in str(one.get("messages"))]


def fewer(given: int) -> Step:
    """Honour seed and count while it is found out about, then give at most `given` choices."""

    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        if "number" in str(asked["messages"]):
            asked = {**asked, "n": min(given, asked.get("n", 1))}
        chat.samples()(handler, asked)

    return step


def test_an_endpoint_without_effect_of_seeds_is_refused_before_samples_are_paid_for(tmp_path: Path):
    study = study_with(write_questions(tmp_path, 4), served(temperature=0.8, samples=3))
    with serving(otherwise=chat.samples(seed="no effect")) as told:
        one = job(study, runtime_at(tmp_path / "store", told))
        with pytest.raises(ModelError, match=r"3 samples would be 3 copies, and 12 are still"):
            one.run(Silent())
    assert len(told.requests) == PROBES
    assert of_instructions(told.requests) == []


def test_one_sample_of_an_endpoint_without_effect_of_seeds_is_asked_for_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    requests = ask(tmp_path, chat.samples(seed="no effect"), temperature=0.8)
    assert "'served': Two different seeds gave the same answer" in caplog.text
    assert len(requests) == PROBES + 4
    assert len(texts_in(tmp_path / "store")) == 4


def test_an_endpoint_that_ignores_seeds_is_told_of_and_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ask(tmp_path, chat.samples(seed="ignored"), temperature=0.8, samples=3)
    assert "'served': The same seed gave two different answers" in caplog.text
    assert len(texts_in(tmp_path / "store")) == 12


def test_an_endpoint_that_honours_seeds_is_asked_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        ask(tmp_path, chat.samples(), temperature=0.8, samples=3)
    assert caplog.text == ""


def test_a_greedy_teacher_is_not_checked(tmp_path: Path):
    assert len(ask(tmp_path, chat.samples(seed="no effect"))) == 4


def test_samples_that_share_a_request_come_with_one_request(tmp_path: Path):
    requests = ask(
        tmp_path, chat.samples(), temperature=0.8, samples=4, samples_per_request=4, seed=7
    )
    asked = of_instructions(requests)
    assert [one["n"] for one in asked] == [4] * 4
    assert len({one["seed"] for one in asked}) == 4
    texts = texts_in(tmp_path / "store")
    # The server's words follow from seed and place alone: with one seed for all they would be four.
    assert (len(texts), len(set(texts.values()))) == (16, 16)


def test_samples_beyond_what_a_request_holds_share_the_next(tmp_path: Path):
    teacher = {"temperature": 0.8, "samples": 5, "samples_per_request": 4, "seed": 7}
    asked = of_instructions(ask(tmp_path, chat.samples(), instructions=2, **teacher))
    assert sorted(one.get("n", 1) for one in asked) == [1, 1, 4, 4]
    assert len({one["seed"] for one in asked}) == 4


@pytest.mark.parametrize("count", ["ignored", "copies"])
def test_an_endpoint_that_gives_no_several_answers_is_asked_singly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: str
):
    teacher = {"temperature": 0.8, "samples": 4, "samples_per_request": 4}
    asked = of_instructions(ask(tmp_path, chat.samples(count=count), **teacher))
    said = {"ignored": "the endpoint gave 1", "copies": "were all alike"}[count]
    assert said in caplog.text
    assert [one.get("n", 1) for one in asked] == [1] * 16
    assert len({one["seed"] for one in asked}) == 16
    assert len(texts_in(tmp_path / "store")) == 16


def test_an_endpoint_that_refuses_a_count_is_asked_singly_and_nothing_is_noted(tmp_path: Path):
    def one_at_a_time(handler: chat.Handler, asked: dict[str, Any]) -> None:
        (refuse(400, "n must be 1") if "n" in asked else chat.samples())(handler, asked)

    asked = ask(tmp_path, one_at_a_time, temperature=0.8, samples=4, samples_per_request=4)
    assert len(texts_in(tmp_path / "store")) == 16
    assert len([one for one in asked if "n" in one]) == 1


@pytest.mark.parametrize("given", [1, 3])
def test_samples_that_a_request_did_not_give_are_asked_for_singly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: int
):
    teacher = {"temperature": 0.8, "samples": 4, "samples_per_request": 4}
    asked = of_instructions(ask(tmp_path, fewer(given), **teacher))
    assert "'served' gave fewer answers than were asked for at once (n)" in caplog.text
    counts = [one.get("n", 1) for one in asked]
    assert counts == [4] * 4 + [1] * (4 * (4 - given))
    found = [(one.instruction, one.sample) for _, one in generations(tmp_path / "store")]
    assert len(found) == len(set(found)) == 16
    assert stored_twice(tmp_path / "store") == []


def test_the_reason_why_an_answer_ended_is_stored(tmp_path: Path):
    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        hit = "number 1" in asked["messages"][-1]["content"]
        answer("text", reason="length" if hit else "stop")(handler, asked)

    ask(tmp_path, step)
    reasons = [one.finish_reason for _, one in generations(tmp_path / "store")]
    assert sorted(map(str, reasons)) == ["length", "stop", "stop", "stop"]


def test_tokens_and_time_of_an_answer_are_stored(tmp_path: Path):
    body = json.loads(chat.several("text"))
    ask(tmp_path, chat.reply(200, json.dumps(body).encode()))
    for _, one in generations(tmp_path / "store"):
        assert (one.tokens, one.prompt_tokens) == (3, 11)  # as the server says
        assert one.seconds is not None and 0 < one.seconds < 5


def filtered(handler: chat.Handler, asked: dict[str, Any]) -> None:
    """Withhold one prompt, withhold one answer, and answer the rest."""
    text = asked["messages"][-1]["content"]
    if "number 1" in text:
        refuse(400, "no", X_Code="content_filter")(handler, asked)
    elif "number 2" in text:
        answer(None, reason="content_filter")(handler, asked)
    else:
        answer("text")(handler, asked)


def test_what_is_withheld_is_a_note_and_never_asked_again(tmp_path: Path):
    study = study_with(write_questions(tmp_path, 4), served())
    with serving(otherwise=filtered) as told:
        runtime = runtime_at(tmp_path / "store", told, concurrency=1)
        one = job(study, runtime)
        one.run(Silent())
        assert len(texts_in(tmp_path / "store")) == 2
        assert sorted(one.notes()) == [
            "content filter: the answer was withheld",
            "refused request: status 400: no",
        ]
        before = len(told.requests)
        again = Asked()
        job(study, runtime).run(again)
        assert len(told.requests) == before
    assert again.steps == {"served responds": (4, 0)}


def test_settings_that_are_always_refused_are_an_error_and_no_notes(tmp_path: Path):
    study = study_with(write_questions(tmp_path, 4), served())
    with serving(otherwise=refuse(400, "no such thing")) as told:
        one = job(study, runtime_at(tmp_path / "store", told))
        with pytest.raises(ModelError, match=r"'served' does not answer even a short request"):
            one.run(Silent())
    assert one.partition.notes() == {}


def test_one_withheld_choice_of_several_is_asked_for_singly(tmp_path: Path):
    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        if asked.get("n", 1) > 1 and "number" in str(asked["messages"]):
            choices = json.loads(chat.several("a", None, "c"))
            choices["choices"][1]["finish_reason"] = "content_filter"
            chat.reply(200, json.dumps(choices).encode())(handler, asked)
        else:
            chat.samples()(handler, asked)

    teacher = {"temperature": 0.8, "samples": 3, "samples_per_request": 3}
    asked = of_instructions(ask(tmp_path, step, instructions=1, **teacher))
    assert [one.get("n", 1) for one in asked] == [3, 1]
    texts = {one.sample: one.text for _, one in generations(tmp_path / "store")}
    assert (texts[0], texts[1]) == ("a", "c")
    assert texts[2] not in ("a", "c", None)
