"""Conversations as data sets write them: roles, calls of tools, content parts, reasoning beside a text."""

import json

import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.settle import settle
from preceptor.types import Message

CALL = {"name": "weather", "arguments": {"city": "Bonn", "days": 2}}
CANONICAL = '[{"arguments":{"city":"Bonn","days":2},"name":"weather"}]'
OPENAI = {
    "id": "c1",
    "type": "function",
    "function": {**CALL, "arguments": json.dumps(CALL["arguments"])},
}
SCHEMA = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
MARKED = "<think>\nHm.\n</think>\n\nBlue."


def read(row, **options):
    """Return the responses of one row and its problems."""
    reading = settle([row], ReadOptions(**options), where="data.jsonl", label="stem")
    problems: list[str] = []
    found = list(reading.responses(row, lambda *_: 0, report=problems.append))
    return found, problems


def only(row, **options):
    (found,), problems = read(row, **options)
    assert problems == []
    return found


def chat(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "user") for name in ("user", "human", "User", "HUMAN")),
        *((name, "assistant") for name in ("gpt", "chatgpt", "model", "bot", "Assistant")),
        *((name, "tool") for name in ("tool", "function", "observation", "ipython")),
        *((name, "tool") for name in ("tool_response", "function-response", "environment")),
        *((name, name) for name in ("system", "developer")),
    ],
)
def test_roles_are_known_by_the_names_that_data_sets_use(name, role):
    before = [] if role in ("system", "developer") else [("user", "Hi")]
    row = chat(*before, (name, "x"), ("user", "Well?"), ("assistant", "Yes."))
    assert only(row).instruction.messages[len(before)] == Message(role, "x")


def test_an_unknown_role_is_named_with_those_that_are_known():
    _, (problem,) = read(chat(("user", "Hi"), ("narrator", "x"), ("assistant", "y")))
    assert "'narrator'" in problem and "system, developer, user, assistant, tool" in problem


@pytest.mark.parametrize(
    "calling",
    [
        [{"role": "assistant", "content": None, "tool_calls": [OPENAI]}],
        [{"role": "assistant", "content": None, "tool_calls": json.dumps([OPENAI])}],
        [{"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}],
        [{"role": "assistant", "content": "", "function_call": OPENAI["function"]}],
        [{"from": "function_call", "value": json.dumps(CALL)}],
        [{"from": "Function-Call", "value": json.dumps([CALL])}],
    ],
    ids=["openai", "as text", "objects", "legacy", "sharegpt", "sharegpt list"],
)
def test_calls_of_tools_are_read_alike_however_they_are_written(calling):
    turns = [
        {"role": "user", "content": "Rain?"},
        *calling,
        {"role": "tool", "content": "no", "name": "weather"},
        {"role": "assistant", "content": "No."},
    ]
    found = only({"messages": turns})
    assert found.text == "No."
    assert found.instruction.messages == (
        Message("user", "Rain?"),
        Message("assistant", "", CANONICAL),
        Message("tool", "no", "", "weather"),
    )


def test_a_tools_turn_has_the_name_of_the_call_that_it_answers():
    turns = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [OPENAI]},
        {"role": "tool", "content": {"rain": False}, "tool_call_id": "c1"},
        {"role": "assistant", "content": "No."},
    ]
    assert only({"messages": turns}).instruction.messages[-1] == Message(
        "tool", '{"rain":false}', "", "weather"
    )


def test_a_call_after_what_the_assistant_said_is_one_turn_with_it():
    turns = [
        {"from": "human", "value": "Rain?"},
        {"from": "gpt", "value": "I look."},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "no"},
        {"from": "gpt", "value": "No."},
    ]
    messages = only({"conversations": turns}).instruction.messages
    twice = json.dumps([*json.loads(CANONICAL)] * 2, separators=(",", ":"))
    assert messages[1] == Message("assistant", "I look.", twice)
    assert len(messages) == 3


def test_an_answer_that_is_a_call_is_a_response():
    turns = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [OPENAI]},
    ]
    found = only({"messages": turns, "tools": [SCHEMA]})
    assert (found.text, found.tool_calls) == ("", CANONICAL)


@pytest.mark.parametrize("name", ["tools", "functions"])
@pytest.mark.parametrize("as_text", [False, True])
def test_schemas_of_tools_belong_to_the_instruction(name, as_text):
    row = chat(("user", "Rain?"), ("assistant", "No."))
    padded = {**SCHEMA, "strict": None}  # as Parquet fills in what other rows have
    tools = json.dumps([SCHEMA]) if as_text else [padded]
    found = only({**row, name: tools}).instruction
    assert json.loads(found.tools) == [SCHEMA]
    assert found.given_id != only(row).instruction.given_id


@pytest.mark.parametrize("value", ["", None, [], "[]", "hammer, saw", ["hammer"]])
def test_a_column_that_holds_no_schemas_changes_nothing(value):
    row = chat(("user", "Rain?"), ("assistant", "No."))
    assert only({**row, "tools": value}) == only(row)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**chat(("user", "a"), ("assistant", "b")), "tools": '[{"name"'}, "'tools' is no JSON"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            r"parts that are not text ('image_url')",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]},
                ]
            },
            "'messages.tool_calls' has a call that names no function",
        ),
        (chat(("tool", "a"), ("assistant", "b")), "no turn of the user"),
    ],
)
def test_what_cannot_be_read_is_told(row, words):
    found, (problem,) = read(row)
    assert (found, words in problem) == ([], True), problem


def parts(*held):
    return [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Col"}, {"type": "text", "text": "our?"}],
        },
        {"role": "assistant", "content": list(held)},
    ]


ASKED = {"role": "user", "content": "Colour?"}
TEXT = {"type": "output_text", "text": "Blue."}


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": "Blue.", "reasoning_content": "Hm."},
            ]
        },
        {"messages": [ASKED, {"role": "assistant", "content": "Blue.", "reasoning": "Hm."}]},
        {"messages": [ASKED, {"role": "assistant", "content": MARKED, "thinking": "Hm."}]},
        {"messages": parts({"type": "thinking", "thinking": "Hm."}, TEXT)},
        {"messages": parts({"type": "reasoning", "summary": [{"text": "Hm."}]}, TEXT)},
        {"prompt": "Colour?", "completion": "Blue.", "reasoning_content": "Hm."},
        {"instruction": "Colour?", "output": "Blue.", "generator": "m", "thinking": "Hm."},
        {
            "instruction": "Colour?",
            "completions": [{"model": "m", "response": "Blue.", "reasoning": "Hm."}],
        },
        {
            "prompt": "Colour?",
            "response": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Blue.<|return|>",
        },
        {"prompt": "Colour?", "response": "analysisHm.assistantfinalBlue."},
    ],
)
def test_a_trace_is_marked_before_its_answer_wherever_it_stands(row):
    found = only(row)
    assert (found.instruction.text, found.text) == ("Colour?", MARKED)


def test_a_column_of_reasoning_is_named_or_left_alone():
    row = {"prompt": "Colour?", "completion": "Blue.", "reasoning": "Hm.", "thoughts": "Ha."}
    assert only(row, reasoning_column="none").text == "Blue."
    assert only(row, reasoning_column="thoughts").text == MARKED.replace("Hm", "Ha")
    columns = {"prompt": "Colour?", "a": "Blue.", "b": "Red.", "reasoning": "Hm."}
    assert [one.text for one in read(columns, teacher_columns=("a", "b"))[0]] == ["Blue.", "Red."]


@pytest.mark.parametrize(("match", "same"), [("text", False), ("user-turns", True), ("id", True)])
def test_conversations_with_their_own_earlier_answers_are_matched_as_asked(match, same):
    turns = [("user", "Hi"), ("assistant", "Yo"), ("user", "Why? "), ("assistant", "So.")]
    other = [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "Thus.")]
    one, two = (only({"id": 7, **chat(*held)}, match=match).instruction for held in (turns, other))
    assert (one.id == two.id) == same
    assert one.given_id != two.given_id


def test_a_row_without_an_id_is_told_and_so_are_data_without_a_column_of_ids():
    row = chat(("user", "Hi"), ("assistant", "Yo"))
    _, (problem,) = read({**row, "uuid": None}, match="id")
    assert "'uuid' is missing, expected the id to match by" in problem
    with pytest.raises(Exception, match=r"no column that is known to hold an id.*--id-column"):
        read(row, match="id")
