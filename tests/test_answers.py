"""The system column beside a prompt: when it is a turn, and when it is something else."""

import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.settle import settle
from preceptor.types import Message

SYSTEM = "Be brief."


def read(*rows, **options):
    """Return the reading of the rows and their responses; no row may be a problem."""
    reading = settle(rows, ReadOptions(**options), where="data.jsonl", label="stem")
    problems = []
    responses = [
        response
        for row in rows
        for response in reading.responses(row, lambda *_: 0, report=problems.append)
    ]
    assert problems == []
    return reading, responses


@pytest.mark.parametrize(
    ("row", "layout", "user"),
    [
        ({"instruction": "i", "output": "o", "generator": "g"}, "alpaca-eval", "i"),
        ({"instruction": "i", "input": "more", "output": "o"}, "alpaca", "i\n\nmore"),
        ({"prompt": "p", "completion": "c"}, "prompt-completion", "p"),
        (
            {"prompt": [{"role": "user", "content": "p"}], "completion": "c"},
            "prompt-completion",
            "p",
        ),
        (
            {"instruction": "i", "completions": [{"model": "m", "response": "r"}]},
            "ultrafeedback",
            "i",
        ),
    ],
)
def test_a_system_text_beside_the_prompt_is_the_turn_before_it(row, layout, user):
    reading, (response,) = read({**row, "system": f" {SYSTEM}\n"})
    assert reading.layout == layout
    as_given = Message("system", f" {SYSTEM}\n")
    assert response.instruction.messages == (as_given, Message("user", user))
    assert "system" in reading.columns
    assert "system" in reading.top_columns


def test_every_teachers_column_answers_the_same_system_turn():
    row = {"prompt": "p", "system": SYSTEM, "a": "1", "b": "2"}
    _, (first, second) = read(row, teacher_columns=("a", "b"))
    assert first.instruction == second.instruction
    assert first.instruction.messages[0] == Message("system", SYSTEM)


def test_a_system_text_that_only_a_later_row_has_still_counts():
    reading, _ = read({"prompt": "p", "completion": "c"})
    (late,) = reading.responses(
        {"prompt": "p", "completion": "c", "system": SYSTEM}, lambda *_: 0, report=print
    )
    assert late.instruction.messages[0] == Message("system", SYSTEM)


@pytest.mark.parametrize("system", ["", " \n", None, 3, ["a"]])
def test_a_system_column_without_text_adds_no_turn(system):
    _, (response,) = read({"prompt": "p", "completion": "c", "system": system})
    assert response.instruction.messages == (Message("user", "p"),)


def test_a_conversation_keeps_the_system_turn_it_has():
    turns = [{"role": "system", "content": "own"}, {"role": "user", "content": "p"}]
    _, (response,) = read({"prompt": turns, "completion": "c", "system": SYSTEM})
    assert response.instruction.messages == (Message("system", "own"), Message("user", "p"))


@pytest.mark.parametrize(
    "options",
    [
        {"teacher_columns": ("system", "baseline")},
        {"response_column": "system"},
        {"instruction_column": "system", "response_column": "baseline"},
    ],
)
def test_a_system_column_that_is_named_for_something_else_adds_no_turn(options):
    reading, responses = read({"prompt": "p", "system": "s", "baseline": "b"}, **options)
    assert reading.columns.count("system") == 1
    for response in responses:
        assert [message.role for message in response.instruction.messages] == ["user"]
