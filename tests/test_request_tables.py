"""What requests say beyond the usual, what makers advise, and judges whose endpoints refuse some of it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import chat_server as chat
from chat_server import Step, answer, refuse, serving
from preceptor.benchmarks.judge_prompts import Pair
from preceptor.benchmarks.judges import judge_of
from preceptor.config.base import Request, checked
from preceptor.config.finetune import ChatJudge
from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.study import Study
from preceptor.config.teachers import Teacher
from preceptor.errors import ModelError, StudyError
from preceptor.pipeline.sources import source_of
from preceptor.pipeline.work import Silent
from preceptor.scorers.judge import Judge
from preceptor.store.store import Store
from preceptor.types import Instruction, Response
from small_teachers import backend, job, runtime_at, served, study_with, write_questions

ALL = {
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
    "top_k": 20,
    "min_p": 0.05,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.05,
    "extra_body": {"service_tier": "flex", "provider": {"order": ["a"]}},
}


def test_a_teachers_request_is_sent_as_it_stands_and_belongs_to_its_identity(tmp_path: Path):
    questions = write_questions(tmp_path, 1)
    table = {**ALL, "leave_out": ["seed"]}
    with serving() as told:
        runtime = runtime_at(tmp_path / "store", told)
        job(study_with(questions, served(temperature=1, request=table)), runtime).run(Silent())
        plain = backend(study_with(questions, served(temperature=1)), runtime).identity()
        asked = backend(
            study_with(questions, served(temperature=1, request=table)), runtime
        ).identity()
        empty = backend(
            study_with(questions, served(temperature=1, request={})), runtime
        ).identity()
    sent = told.requests[-1]
    expected = {**{k: v for k, v in ALL.items() if k != "extra_body"}, **ALL["extra_body"]}  # type: ignore[dict-item]
    assert {name: sent[name] for name in expected} == expected
    assert "seed" not in sent
    assert plain == empty
    assert asked.spec["request"] == {**expected, "leave_out": ["seed"]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"extra_body": {"temperature": 1}}, "extra_body.temperature: set it in the table"),
        ({"extra_body": {"max_completion_tokens": 1}}, "set max_tokens in the table above"),
        ({"extra_body": {"stream": True}}, "extra_body.stream: it is set here"),
        ({"extra_body": {"top_k": 1}}, "extra_body.top_k: give it as request.top_k"),
        (
            {"extra_body": {"headers": {"Authorization": "x"}}},
            "'Authorization' looks like a secret",
        ),
        ({"extra_body": {"route": ["sk-12345678abc"]}}, "'route' looks like a secret"),
        ({"extra_body": {"x": float("nan")}}, "a request is sent as JSON"),
        ({"extra_body": {"x": "y" * 30_000}}, "expected at most 20,000"),
        ({"reasoning_efort": "low"}, "'reasoning_effort'"),
        ({"leave_out": ["temperature"]}, "set temperature = 1"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_by_name(table: dict[str, Any], said: str):
    with pytest.raises(StudyError) as refused:
        checked(Teacher, served(request=table), where="here")
    assert said in str(refused.value)
    assert "12345678abc" not in str(refused.value)


def test_a_request_is_for_served_models():
    for kind, table in ((Teacher, {"model": "m"}), (ChatJudge, {"model": "m"})):
        with pytest.raises(StudyError, match="engine = 'openai'"):
            checked(kind, {**table, "request": {"top_k": 5}}, where="here")  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (
            {"model": "qwen3-8b"},
            "temperature = 0.6, top_p = 0.95, top_k = 20. The card warns of greedy",
        ),
        ({"model": "Qwen/Qwen3-8B", "temperature": 0.6, "top_p": 0.95}, "than its card advises"),
        ({"model": "qwen3-8b", "temperature": 0.6, "top_p": 0.95, "request": {"top_k": 20}}, None),
        ({"model": "deepseek-r1-distill-qwen-7b"}, "which may end in endless repetition"),
        ({"model": "deepseek-r1-distill-qwen-7b", "temperature": 0.6, "top_p": 0.95}, None),
        ({"model": "qwen3-4b-instruct-2507"}, "temperature = 0.7, top_p = 0.8, top_k = 20."),
        ({"model": "qwen2-7b-instruct"}, None),
        ({"model": "qwen3-8b", "engine": "fake"}, None),
    ],
)
def test_sampling_other_than_a_maker_advises_is_told_and_never_changed(
    tmp_path: Path, teacher: dict[str, Any], said: str | None
):
    table = {"engine": "openai", **teacher}
    study = study_with(write_questions(tmp_path, 1), table)
    runtime = Runtime(endpoints={table["model"]: {"url": "http://127.0.0.1:1/v1"}})  # type: ignore[dict-item]
    (one,) = source_of(study, runtime).jobs
    assert one.backend.teacher.temperature == table.get("temperature", 0)
    if said is None:
        assert one.advice is None
    else:
        assert one.advice is not None and said in one.advice


def test_a_catalogue_of_ones_own_may_advise(tmp_path: Path):
    file = tmp_path / "own.toml"
    file.write_text(
        '[[teachers]]\nname = "mine"\nmodel = "served"\nadvised = { temperature = 0.3 }\n'
    )
    tables = {
        "data": {"instructions": str(write_questions(tmp_path, 1))},
        "teachers": [served()],
        "catalogue": str(file),
        "no_student": True,
    }
    study = checked(Study, tables, where="here")
    runtime = Runtime(endpoints={"served": {"url": "http://127.0.0.1:1/v1"}})  # type: ignore[dict-item]
    (one,) = source_of(study, runtime).jobs
    assert one.advice is not None and "temperature = 0.3" in one.advice


# Judges


def unable(status: int, message: str, *, most: int = 0) -> Step:
    """Refuse log-probabilities, or more than so many of them."""

    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        count = asked.get("top_logprobs", 0)
        likely = chat.ranked(("7", {"7": -0.1, "8": -2.4})) if count else None
        (refuse(status, message) if count > most else answer("7", logprobs=likely))(handler, asked)

    return step


RESPONSES = [Response("t", Instruction.from_text(f"Question {n}?"), "Fine.") for n in range(4)]


@pytest.mark.parametrize(
    ("status", "message", "most", "tried", "told"),
    [
        (403, "You are not allowed to request logprobs", 0, [20, 0, 0, 0, 0], "gives no log"),
        (400, "logprobs is not supported", 0, [20, 0, 0, 0, 0], "gives no log-probabilities"),
        (400, "top_logprobs must be between 0 and 5", 5, [20, 5, 5, 5, 5], "only the 5 likeliest"),
        (422, "top_logprobs: too large", 5, [20, 5, 5, 5, 5], "only the 5 likeliest"),
        (400, "top_logprobs is not supported", 0, [20, 5, 0, 0, 0, 0], "gives no log-probabilities"),
    ],
)  # fmt: skip
def test_a_judge_whose_log_probabilities_are_refused_goes_on_and_says_what_that_means(
    caplog: pytest.LogCaptureFixture,
    status: int,
    message: str,
    most: int,
    tried: list[int],
    told: str,
):
    with serving(otherwise=unable(status, message, most=most)) as server:
        judge = Judge(JudgeReward(model="j"), Endpoint(url=server.url, concurrency=1))
        scores = [score for batch in judge.score(RESPONSES) for score in batch]
    assert [asked.get("top_logprobs", 0) for asked in server.requests] == tried
    assert all(score.values["expected"] == float(most > 0) for score in scores)
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert told in warning
    assert ("coarser than an expectation" in warning) is (most == 0)


def test_a_judge_that_refuses_its_temperature_says_what_to_set_and_is_asked_so():
    body = {
        "message": "Unsupported value: 'temperature' does not support 0 with this model. "
        "Only the default (1) value is supported.",
        "param": "temperature",
    }

    def strict(handler: chat.Handler, asked: dict[str, Any]) -> None:
        refused = asked.get("temperature", 1) != 1
        step = chat.reply(400, json.dumps({"error": body}).encode()) if refused else answer("7")
        step(handler, asked)

    with serving(otherwise=strict) as told:
        endpoint = Endpoint(url=told.url, concurrency=1)
        with pytest.raises(
            ModelError, match=r"set temperature = 1, or leave it out by request.leave_out"
        ):
            list(Judge(JudgeReward(model="j"), endpoint).score(RESPONSES))
        for table in (
            JudgeReward(model="j", temperature=1),
            JudgeReward(model="j", request=Request(leave_out=("temperature",))),
        ):
            judge = Judge(table, endpoint)
            assert len([s for batch in judge.score(RESPONSES) for s in batch]) == 4
            assert judge.identity() != Judge(JudgeReward(model="j"), endpoint).identity()
    sent = [asked.get("temperature", "none") for asked in told.requests]
    assert sent[-8:] == [1, 1, 1, 1, "none", "none", "none", "none"]


def test_a_judge_of_pairs_takes_the_same_tables_and_says_what_letters_cost(tmp_path: Path):
    table = ChatJudge(
        model="j", engine="openai", temperature=1, request=Request(reasoning_effort="low")
    )
    with serving(otherwise=unable(403, "You are not allowed to request logprobs")) as told:
        runtime = checked(Runtime, {"endpoints": {"j": {"url": told.url}}}, where="here")
        judge = judge_of(table, runtime, ("letter",))
        with pytest.raises(ModelError, match="each verdict is then 0 or 1 in place of a share"):
            judge.compare([Pair("Why?", "Because.", "No.")], Store(tmp_path))
    assert all(asked["temperature"] == 1 for asked in told.requests)
    assert all(asked["reasoning_effort"] == "low" for asked in told.requests)
