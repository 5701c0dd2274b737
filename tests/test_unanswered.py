"""Requests without an answer: each is counted for its teacher by its reason, and none is a response."""

import json
from pathlib import Path
from typing import Any

import pytest

import chat_server as chat
from chat_server import Step, reply, serving
from preceptor import rank
from preceptor.errors import ModelError, StudyError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.work import Silent
from preceptor.types import Warning
from small_study import write_rows
from small_teachers import fake, job, runtime_at, served, study_with, write_questions

WITHOUT_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "only reasoning": ("length", {"content": None, "reasoning_content": "Let me think"}),
    "refusal": ("stop", {"content": None, "refusal": "I cannot help with that."}),
    "tool call": ("tool_calls", {"content": None, "tool_calls": [{"id": "1"}]}),
    "content filter": ("content_filter", {"content": None}),
    "empty answer": ("stop", {"content": ""}),
}


def saying(reason: str, message: dict[str, Any]) -> Step:
    choice = {"message": message, "finish_reason": reason}
    return reply(200, json.dumps({"choices": [choice]}).encode())


def by_number(**said: Step) -> Step:
    """Do what is said for the questions of these numbers, and answer the others."""

    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        text = asked["messages"][-1]["content"]
        found = next((one for name, one in said.items() if f"number {name[1:]} " in text), None)
        (found or chat.answer("A good answer."))(handler, asked)

    return step


def outcome_of(tmp_path: Path, step: Step, *, questions: int, **teacher: Any) -> Any:
    study = study_with(write_questions(tmp_path, questions), served(**teacher), fake())
    with serving(otherwise=step) as told:
        runtime = runtime_at(tmp_path / "store", told, concurrency=1)
        (outcome,) = Pipeline(study, runtime).outcomes()
        asked = len(told.requests)
        Pipeline(study, runtime).generate()
        assert len(told.requests) == asked, "what has no answer is not asked again"
    return outcome


def of_code(warnings: tuple[Warning, ...], code: str, teacher: str) -> list[str]:
    return [one.text for one in warnings if one.code == code and one.teachers == (teacher,)]


def test_what_has_no_text_is_counted_by_teacher_and_reason_and_told(tmp_path: Path):
    said = {f"n{place}": saying(*one) for place, one in enumerate(WITHOUT_TEXT.values(), 1)}
    outcome = outcome_of(tmp_path, by_number(**said), questions=12)
    table = outcome.data.selection.table
    assert table.dropped["served"] == dict.fromkeys(WITHOUT_TEXT, 1)
    assert table.lost_counts(failed=True).sum(axis=1).tolist() == [5, 0]
    told = of_code(outcome.ranking.warnings, "no-response", "served")
    assert len(told) == 5
    for kind in WITHOUT_TEXT:
        assert any(f"'served' gave no response to 1 request: {kind}: " in text for text in told)
    assert {one.n for one in outcome.ranking.teachers} == {7}


def test_a_teacher_that_spends_all_tokens_on_reasoning_is_found_out_at_once(tmp_path: Path):
    study = study_with(write_questions(tmp_path, 8), served())
    with serving(otherwise=saying(*WITHOUT_TEXT["only reasoning"])) as told:
        one = job(study, runtime_at(tmp_path / "store", told, concurrency=1))
        with pytest.raises(ModelError, match=r"all tokens were spent before an answer: raise max"):
            one.run(Silent())
        assert len(told.requests) <= 4  # the probe among them
    assert one.partition.notes() == {}


@pytest.mark.parametrize(
    ("reasoning", "text"), [("drop", "Blue."), ("keep", "<think>\nHm.\n</think>\n\nBlue.")]
)
def test_reasoning_that_a_server_keeps_apart_is_stored_before_the_answer(
    tmp_path: Path, reasoning: str, text: str
):
    step = saying("stop", {"content": "Blue.", "reasoning_content": "Hm."})
    study = study_with(write_questions(tmp_path, 2), served(reasoning=reasoning))
    with serving(otherwise=step) as told:
        one = job(study, runtime_at(tmp_path / "store", told))
        one.run(Silent())
    (given, _) = one.generations()
    assert given.text == "<think>\nHm.\n</think>\n\nBlue."
    assert one.backend.response_in(given.text) == text


def test_an_asked_teachers_trace_that_never_closes_is_told_as_that(tmp_path: Path):
    open_trace = saying("length", {"content": "<think>Let me think"})
    outcome = outcome_of(tmp_path, by_number(n1=open_trace), questions=6, max_tokens=99)
    assert outcome.data.selection.table.dropped["served"] == {"unfinished reasoning": 1}
    (text,) = of_code(outcome.ranking.warnings, "no-response", "served")
    assert "reasoning trace that was never closed" in text
    assert "raise max_tokens (it is 99)" in text


def test_a_part_of_an_answer_that_a_filter_ended_is_told(tmp_path: Path):
    partly = saying("SAFETY", {"content": "Half an"})
    outcome = outcome_of(tmp_path, by_number(n1=partly), questions=6)
    (text,) = of_code(outcome.ranking.warnings, "broken-off", "served")
    assert "'content_filter' (1)" in text


def traced(name: str, outputs: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Give {place}+1.",
            "output": output,
            "generator": name,
            "reference": {"kind": "numeric", "answer": place + 1},
        }
        for place, output in enumerate(outputs)
    ]


def test_a_teacher_whose_traces_never_close_is_left_out_and_the_others_are_ranked(tmp_path: Path):
    rows = traced("open", ["<think>Let me think"] * 6)
    rows += traced("right", [f"{place + 1}" for place in range(6)])
    rows += traced("wrong", ["0"] * 6)
    ranking = rank(
        write_rows(tmp_path / "rows.jsonl", rows), no_student=True, store=str(tmp_path / "s")
    )
    assert [one.teacher for one in ranking.teachers] == ["right", "wrong"]
    (warning,) = (one for one in ranking.warnings if one.teachers == ("open",))
    assert warning.code == "left-out"
    assert "a reasoning trace that is never closed" in warning.text


def test_where_no_teacher_answers_nothing_is_ranked(tmp_path: Path):
    rows = traced("open", ["<think>Let me think"] * 6)
    with pytest.raises(StudyError, match="open: 0 of 6 instructions, 6 unfinished reasoning"):
        rank(write_rows(tmp_path / "rows.jsonl", rows), no_student=True, store=str(tmp_path / "s"))
