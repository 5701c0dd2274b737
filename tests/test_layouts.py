"""Golden rows of each layout, and what becomes of values that do not fit."""

import math

import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.layouts import LAYOUTS
from preceptor.data.settle import settle
from preceptor.errors import DataError
from preceptor.types import Instruction, Message

# The example row of the AlpacaEval README ("model outputs" file format).
ALPACA_EVAL = {
    "instruction": "What are the names of some famous actors?",
    "output": "Some famous actors are:\n1. Hugh Jackman",
    "generator": "oasst-rlhf-llama-33b",
    "dataset": "helpful_base",
}
# Row format of the Stanford Alpaca data (alpaca_data.json).
ALPACA = {
    "instruction": "Identify the odd one out.",
    "input": "Twitter, Instagram, Telegram",
    "output": "Telegram",
}
# Row format of Magpie-Align/Magpie-Generator-Zoo, shortened.
MAGPIE = {
    "conversation_id": "c1",
    "instruction": "What is 2+2?",
    "response": "4.",
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi!"},
        {"from": "human", "value": "What is 2+2?"},
        {"from": "gpt", "value": "4."},
    ],
    "gen_response_configs": {"temperature": 0.0, "output_generator": "google/gemma-2-2b-it"},
}
# Row format of openbmb/UltraFeedback, shortened.
ULTRAFEEDBACK = {
    "source": "evol_instruct",
    "instruction": "Name a prime.",
    "models": ["alpaca-7b", "gpt-4"],
    "completions": [
        {
            "model": "alpaca-7b",
            "response": "9",
            "overall_score": 2.0,
            "fine-grained_score": 1.5,
            "annotations": {"helpfulness": {"Rating": "1"}},
        },
        {
            "model": "gpt-4",
            "response": "7",
            "overall_score": 9.5,
            "fine-grained_score": 5.0,
            "annotations": {"helpfulness": {"Rating": "5"}},
        },
    ],
}
# Rows of the data set formats of TRL (docs: "Dataset formats and types").
MESSAGES = {
    "messages": [
        {"role": "user", "content": "What color is the sky?"},
        {"role": "assistant", "content": "It is blue."},
    ]
}
PROMPT_COMPLETION = {"prompt": "The sky is", "completion": " blue."}
CONVERSATIONAL = {
    "prompt": [{"role": "user", "content": "What color is the sky?"}],
    "completion": [{"role": "assistant", "content": "It is blue."}],
}


def read(*rows, **options):
    """Return the layout, the responses and the problems of rows settled on their own."""
    reading = settle(rows, ReadOptions(**options), where="data.jsonl", label="stem")
    problems = []

    def number(teacher, instruction, stated):
        return 0 if stated is None else stated

    responses = [
        response
        for row in rows
        for response in reading.responses(row, number, report=problems.append)
    ]
    return reading.layout, responses, problems


def only(*rows, **options):
    _, responses, problems = read(*rows, **options)
    assert problems == []
    (response,) = responses
    return response


def test_alpaca_eval_row_gives_the_generators_output():
    layout, (response,), problems = read(ALPACA_EVAL)
    assert (layout, problems) == ("alpaca-eval", [])
    assert response.teacher == "oasst-rlhf-llama-33b"
    assert response.instruction == Instruction.from_text(ALPACA_EVAL["instruction"])
    assert response.text == ALPACA_EVAL["output"]
    assert response.columns == {}


def test_alpaca_row_appends_its_input_after_a_blank_line():
    layout, (response,), _ = read(ALPACA)
    assert layout == "alpaca"
    assert response.instruction.text == "Identify the odd one out.\n\nTwitter, Instagram, Telegram"
    assert (response.text, response.teacher) == ("Telegram", "stem")


@pytest.mark.parametrize("blank", ["", "  \n", None])
def test_alpaca_row_with_a_blank_input_is_its_instruction_alone(blank):
    assert only({**ALPACA, "input": blank}).instruction.text == "Identify the odd one out."


def test_alpaca_input_is_kept_where_the_row_also_names_its_generator():
    response = only({**ALPACA, "generator": "gpt-4"})
    assert response.instruction.text.endswith("Telegram")
    assert response.teacher == "gpt-4"


@pytest.mark.parametrize(
    "config",
    [
        {"gen_response_configs": {"output_generator": "google/gemma-2-2b-it"}},
        {"gen_response_configs.output_generator": "google/gemma-2-2b-it"},
    ],
    ids=["nested", "flattened"],
)
def test_magpie_row_keeps_system_and_earlier_turns_in_the_instruction(config):
    row = {"conversations": MAGPIE["conversations"], **config}
    layout, (response,), _ = read(row)
    assert layout == "magpie"
    assert response.teacher == "google/gemma-2-2b-it"
    assert response.text == "4."
    assert response.instruction.messages == (
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", "Hi!"),
        Message("user", "What is 2+2?"),
    )


def test_whole_magpie_row_is_recognised_despite_its_other_columns():
    assert read(MAGPIE)[0] == "magpie"


def test_conversations_without_a_generator_config_are_sharegpt():
    layout, (response,), _ = read({"conversations": MAGPIE["conversations"], "model": "vicuna"})
    assert (layout, response.teacher, response.text) == ("sharegpt", "vicuna", "4.")


def test_messages_end_in_the_response():
    layout, (response,), _ = read(MESSAGES)
    assert (layout, response.text) == ("messages", "It is blue.")
    assert response.instruction == Instruction.from_text("What color is the sky?")


def test_string_and_conversational_prompt_completion_are_read_alike():
    layout, (plain,), _ = read(PROMPT_COMPLETION)
    assert (layout, plain.text, plain.instruction.text) == (
        "prompt-completion",
        " blue.",
        "The sky is",
    )
    layout, (turns,), _ = read(CONVERSATIONAL)
    assert (layout, turns.text) == ("prompt-completion", "It is blue.")
    assert turns.instruction == Instruction.from_text("What color is the sky?")


def test_earlier_turns_of_a_completion_belong_to_the_instruction():
    row = {
        "prompt": "Hello",
        "completion": [
            {"role": "assistant", "content": "Hi!"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "Well."},
        ],
    }
    response = only(row)
    assert [message.content for message in response.instruction.messages] == [
        "Hello",
        "Hi!",
        "And?",
    ]
    assert response.text == "Well."


def test_ultrafeedback_row_gives_one_response_per_completion_with_its_own_numbers():
    names = ("overall_score", "fine-grained_score", "annotations.helpfulness.Rating")
    layout, responses, problems = read(ULTRAFEEDBACK, number_columns=names)
    assert (layout, problems) == ("ultrafeedback", [])
    assert [(r.teacher, r.text) for r in responses] == [("alpaca-7b", "9"), ("gpt-4", "7")]
    assert [list(r.columns.values()) for r in responses] == [[2.0, 1.5, 1.0], [9.5, 5.0, 5.0]]


def test_a_bad_completion_costs_only_itself():
    good = ULTRAFEEDBACK["completions"][1]
    row = {"instruction": "Name a prime.", "completions": [{**good, "response": 7}, "7", good]}
    _, responses, problems = read(row)
    assert [r.text for r in responses] == ["7"]
    assert len(problems) == 2


def test_a_teacher_called_by_a_number_that_is_rounded_is_no_teacher():
    row = {"instruction": "2+2?", "output": "4", "generator": "a"}
    _, responses, problems = read(row, {**row, "generator": float(2**64)})
    assert [r.teacher for r in responses] == ["a"] and "write the name as a text" in problems[0]


def test_named_teacher_columns_give_one_response_each():
    row = {"question": "2+2?", "gpt-4": "4", "llama": None, "answer": "4"}
    layout, responses, _ = read(row, teacher_columns=("gpt-4", "llama"))
    assert layout == "teacher-columns"
    assert [(r.teacher, r.text) for r in responses] == [("gpt-4", "4"), ("llama", None)]


def test_two_string_columns_beside_an_instruction_are_taken_for_teachers():
    row = {
        "id": "a",
        "prompt_id": "b",
        "category": "qa",
        "prompt": "2+2?",
        "gpt-4": "4",
        "phi": "5",
    }
    layout, responses, _ = read(row)
    assert layout == "teacher-columns"
    assert [(r.teacher, r.text) for r in responses] == [("gpt-4", "4"), ("phi", "5")]
    # One bad value costs its row, not its teacher.
    layout, responses, problems = read(row, {**row, "phi": 5}, row)
    assert layout == "teacher-columns" and len(problems) == 1
    assert [r.teacher for r in responses] == ["gpt-4", "phi", "gpt-4", "gpt-4", "phi"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "response_a": "a", "response_b": "b"},
        {"prompt": "p", "input": "i", "gpt-4": "a", "phi": "b"},
        {"prompt": "p", "gpt-4": "a"},
        {"prompt": "p", "gpt-4": "a", "length": 3},
        {"text": "a", "topic": "b"},
    ],
)
def test_an_unrecognised_row_lists_columns_layouts_and_options(row):
    with pytest.raises(DataError) as error:
        read(row)
    for words in ("data.jsonl", *row, *LAYOUTS.names(), "instruction_column", "teacher_columns"):
        assert words in str(error.value)


def test_named_columns_override_recognition():
    row = {**MAGPIE, "who": "me"}
    response = only(
        row, instruction_column="instruction", response_column="response", teacher_column="who"
    )
    assert (response.instruction.text, response.text, response.teacher) == (
        "What is 2+2?",
        "4.",
        "me",
    )


def test_dotted_names_reach_into_nested_objects():
    row = {"task": {"question": "2+2?"}, "result": {"text": "4", "by": "phi"}}
    response = only(
        row,
        instruction_column="task.question",
        response_column="result.text",
        teacher_column="result.by",
    )
    assert (response.instruction.text, response.text, response.teacher) == ("2+2?", "4", "phi")


def test_unknown_column_and_layout_suggest_the_nearest():
    with pytest.raises(DataError, match=r"no column 'outptu'.*Did you mean 'output'"):
        read(ALPACA_EVAL, response_column="outptu")
    with pytest.raises(DataError, match=r"Did you mean 'sharegpt'"):
        read(ALPACA_EVAL, layout="shargpt")
    with pytest.raises(DataError, match=r"'messages' reads messages"):
        read(ALPACA_EVAL, layout="messages")
    with pytest.raises(DataError, match=r"'alpaca' has no teacher_columns"):
        read(ALPACA, layout="alpaca", teacher_columns=("output",))


@pytest.mark.parametrize("label", ["../../x", "  ../../x\n", "Qwen", "qwen ", "cafe\u0301"])
def test_any_teacher_label_is_taken_as_it_is_written(label):
    assert only({**ALPACA_EVAL, "generator": label}).teacher == label


@pytest.mark.parametrize("label", ["", "  ", None])
def test_a_blank_teacher_label_falls_back_to_the_files(label):
    assert only({**ALPACA_EVAL, "generator": label}).teacher == "stem"


def test_an_instruction_is_read_as_given_but_for_line_ends():
    response = only({**ALPACA_EVAL, "instruction": " a\r\n  b \u00a0\n", "output": " x\r\n "})
    assert response.instruction.text == " a\n  b \u00a0\n"
    assert response.text == " x\r\n "


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_missing_output_is_none_and_a_blank_one_stays_as_it_is(text):
    assert only({**ALPACA_EVAL, "output": text}).text == text


def test_an_absent_output_key_is_a_response_without_text():
    _, responses, problems = read(ALPACA_EVAL, {"instruction": "Other?", "generator": "g"})
    assert [r.text for r in responses] == [ALPACA_EVAL["output"], None]
    assert problems == []


def test_a_conversation_without_an_answer_is_a_response_without_text():
    _, responses, _ = read(MESSAGES, {"messages": MESSAGES["messages"][:1]})
    assert [r.text for r in responses] == ["It is blue.", None]


def test_a_list_of_text_parts_is_joined():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    row = {"messages": [{"role": "user", "content": parts}, MESSAGES["messages"][1]]}
    assert only(row).instruction.text == "What now?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output": 3.5}, r"'output' is 3.5 \(float\), expected a string"),
        ({"output": ["a"]}, "parts that are not text"),
        ({"output": []}, "expected a string"),
        ({"output": [{"type": "image", "url": "u"}]}, "parts that are not text"),
        ({"instruction": " \n"}, "'instruction' is empty"),
        ({"instruction": None}, "no text in a turn of the user"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_problem_that_says_why(change, words):
    _, responses, problems = read({**ALPACA_EVAL, **change})
    assert responses == []
    assert len(problems) == 1
    with pytest.raises(ValueError, match=words):
        raise ValueError(problems[0])


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}],
        [{"role": "user", "content": None}, {"role": "assistant", "content": "y"}],
        [{"role": "user", "content": " "}, {"role": "assistant", "content": "y"}],
        [{"role": ["user"], "content": "x"}],
        ["x"],
        [],
        "x",
        None,
    ],
)
def test_a_conversation_that_cannot_be_read_is_a_problem(turns):
    _, responses, problems = read(MESSAGES, {"messages": turns})
    assert len(responses) == 1
    assert len(problems) == 1


@pytest.mark.parametrize("row", [3, None, "text", ["a"]])
def test_a_row_that_is_no_object_is_a_problem(row):
    reading = settle([ALPACA_EVAL], ReadOptions(), where="data.jsonl", label="stem")
    problems = []
    assert list(reading.responses(row, lambda *_: 0, report=problems.append)) == []
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("value", "number", "reported"),
    [
        (0.5, 0.5, False),
        (3, 3.0, False),
        (True, 1.0, False),
        ("0.7", 0.7, False),
        (None, None, False),
        ("", None, False),
        (math.nan, None, False),
        (-math.inf, None, False),
        ("nan", None, False),
        ("good", math.nan, True),
        ("1_000", math.nan, True),
        ("1,5", math.nan, True),
        ("1 000 000", math.nan, True),
        ("twelve", math.nan, True),
        ("\u0661\u0662", math.nan, True),
        ([1], math.nan, True),
        (10**400, math.nan, True),
    ],
)
def test_a_number_column_is_a_finite_float_none_or_nan_where_it_is_no_number(
    value, number, reported
):
    row = {**ALPACA_EVAL, "scores": {"reward": value}}
    _, (response,), problems = read(row, number_columns=("scores.reward",))
    assert response.columns == pytest.approx({"scores.reward": number}, nan_ok=True)
    assert bool(problems) is reported


def test_a_number_column_absent_from_a_row_is_none_never_zero():
    _, responses, problems = read(
        {**ALPACA_EVAL, "reward": 1}, ALPACA_EVAL, number_columns=("reward",)
    )
    assert [r.columns["reward"] for r in responses] == [1.0, None]
    assert problems == []


@pytest.mark.parametrize(
    ("columns", "sample"),
    [
        ({"sample": 2}, 2),
        ({"sample_index": 3}, 3),
        ({"sample": "4"}, 4),
        ({"sample": 5.0}, 5),
        ({"sample": None, "sample_index": 6}, 6),
        ({"sample": "train-23"}, 0),
        ({"sample": -1}, 0),
        ({"sample": math.inf}, 0),
    ],
)
def test_a_stated_sample_index_is_kept(columns, sample):
    assert only({**ALPACA_EVAL, **columns}).sample == sample


@pytest.mark.parametrize("name", ["finish_reason", "stop_reason"])
def test_the_finish_reason_is_kept(name):
    assert only({**ALPACA_EVAL, name: "length"}).finish_reason == "length"


@pytest.mark.parametrize(
    ("value", "options", "reference"),
    [
        ({"kind": "exact", "answer": "4"}, {}, {"kind": "exact", "answer": "4"}),
        ({"kind": "exact", "tests": None}, {}, {"kind": "exact"}),
        ('{"kind": "number", "answer": 4}', {}, {"kind": "number", "answer": 4}),
        (None, {}, None),
        ("4", {"reference_kind": "exact"}, {"kind": "exact", "answer": "4"}),
        (4, {"reference_kind": "exact"}, {"kind": "exact", "answer": "4"}),
        ("{4}", {"reference_column": "reference"}, {"kind": "math", "answer": "{4}"}),
        ("A" * 99, {"reference_column": "reference"}, {"kind": "exact", "answer": "A" * 99}),
        ("4", {"reference_kind": "none"}, None),
    ],
)
def test_a_reference_is_an_object_or_a_plain_answer(value, options, reference):
    assert only({**ALPACA_EVAL, "reference": value}, **options).reference == reference


def test_a_reference_of_another_shape_is_reported_and_left_out():
    _, (response,), problems = read({**ALPACA_EVAL, "key": ["4"]}, reference_column="key")
    assert response.reference is None
    assert "'key'" in problems[0]


def test_every_option_has_a_help_text_and_that_of_the_layout_names_all():
    texts = {name: str(field.description) for name, field in ReadOptions.model_fields.items()}
    assert all(text.endswith(".") for text in texts.values())
    *names, last = LAYOUTS.names()
    assert texts["layout"].endswith(f"auto, {', '.join(names)} or {last}.")


def test_top_columns_are_all_that_the_reading_looks_at():
    options = ReadOptions(number_columns=("scores.reward",), teacher_column="generator")
    row = {**ALPACA_EVAL, "scores": {"reward": 1}, "embedding": [0.0]}
    wanted = settle([row], options, where="data.jsonl", label="stem").top_columns
    assert {"instruction", "output", "generator", "scores", "finish_reason", "sample"} <= wanted
    assert "embedding" not in wanted
