"""Reading instructions, with and without responses, and writing them to be read again."""

import json
from pathlib import Path

import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.instructions import Prompt, PromptSource, write_prompts
from preceptor.data.responses import ResponseSource
from preceptor.errors import DataError, StudyError
from preceptor.types import Instruction, Message
from test_layouts import (
    ALPACA,
    ALPACA_EVAL,
    CONVERSATIONAL,
    MAGPIE,
    MESSAGES,
    PROMPT_COMPLETION,
    ULTRAFEEDBACK,
)

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")

# Columns of the data set cards on the Hub, shortened: Magpie-Align/Llama-3-Magpie-Air-3M-v0.1 and
# Magpie-Qwen2-Pro-1M-v0.1, allenai/WildChat-1M, lmsys/lmsys-chat-1m, vicgalle/alpaca-gpt4.
MAGPIE_AIR = {
    "uuid": "u1",
    "model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "gen_input_config": {"temperature": 1.0, "top_p": 0.99},
    "input": "What is 2+2?",
    "output": "4.",
    "conversations": [
        {"from": "human", "value": "What is 2+2?"},
        {"from": "gpt", "value": "4."},
    ],
    "task_category": "Math",
    "difficulty": "very easy",
    "input_quality": "good",
    "base_reward": None,
    "min_neighbor_distance": 0.2,
    "input_length": 12,
}
MAGPIE_QWEN = {
    "uuid": "u1",
    "model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "gen_input_configs": {"temperature": 1.0, "seed": None},
    "instruction": "What is 2+2?",
    "response": "4.",
    "conversations": [
        {"from": "human", "value": "What is 2+2?"},
        {"from": "gpt", "value": "4."},
    ],
    "task_category": "Math",
    "other_task_category": ["Reasoning"],
    "difficulty": "very easy",
    "input_quality": "good",
    "llama_guard_2": "safe",
    "instruct_reward": -3.5,
    "min_neighbor_distance": 0.2,
    "repeat_count": 0,
    "language": "EN",
}
WILDCHAT = {
    "conversation_hash": "h",
    "model": "gpt-4-0314",
    "conversation": [
        {"role": "user", "content": "Hello", "language": "English", "toxic": False},
        {"role": "assistant", "content": "Hi!", "language": "English", "toxic": False},
        {"role": "user", "content": "Name a prime.", "language": "English", "toxic": False},
        {"role": "assistant", "content": "7", "language": "English", "toxic": False},
    ],
    "turn": 2,
    "language": "English",
    "openai_moderation": [{"flagged": False}],
    "toxic": False,
    "redacted": False,
}
LMSYS = {
    "conversation_id": "c",
    "model": "vicuna-13b",
    "conversation": [
        {"role": "user", "content": "Name a prime."},
        {"role": "assistant", "content": "7"},
    ],
    "turn": 1,
    "language": "English",
    "openai_moderation": [{"flagged": False, "categories": {"hate": False}}],
    "redacted": True,
}
ALPACA_GPT4 = {**ALPACA, "text": "Below is an instruction that describes a task."}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    """Return a function from rows to the prompts that a source reads from a file of them."""

    def from_rows(*rows, turns="last", **options):
        path = lines(tmp_path / "data.jsonl", *rows)
        return list(PromptSource.open([path], ReadOptions(**options), turns=turns))

    return from_rows


def texts(prompts):
    return [prompt.instruction.text for prompt in prompts]


@pytest.mark.parametrize("column", ["instruction", "prompt", "question", "text"])
def test_a_text_column_alone_is_the_instruction(read, column):
    (prompt,) = read({column: "Name a prime.", "topic": "numbers"})
    assert prompt.instruction == Instruction.from_text("Name a prime.")
    assert (prompt.source, prompt.fields) == ("data", {"topic": "numbers"})


def test_an_input_follows_the_instruction_as_in_the_alpaca_layout(read):
    answered = {key: ALPACA[key] for key in ("instruction", "input", "output")}
    alone = {key: ALPACA[key] for key in ("instruction", "input")}
    assert read(alone)[0].instruction.id == read(answered)[0].instruction.id
    assert read({**alone, "input": " "})[0].instruction.text == ALPACA["instruction"]


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
def test_a_conversation_of_the_user_alone_is_taken_up_to_its_last_turn(read, column):
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi!"), ("user", "And?")]
    (prompt,) = read({column: [{"role": role, "content": text} for role, text in turns]})
    assert prompt.instruction.messages == tuple(Message(*turn) for turn in turns)


def test_turns_first_keeps_the_system_turn_and_the_first_question(read):
    (prompt,) = read(MAGPIE, turns="first")
    assert prompt.instruction.messages == (Message("system", "Be brief."), Message("user", "Hello"))
    with pytest.raises(StudyError, match="expected first or last"):
        read(MAGPIE, turns="middle")


@pytest.mark.parametrize(
    ("row", "text", "fields"),
    [
        (
            MAGPIE_AIR,
            "What is 2+2?",
            {"task_category": "Math", "difficulty": "very easy", "gen_input_config.top_p": 0.99},
        ),
        (
            MAGPIE_QWEN,
            "What is 2+2?",
            {"task_category": "Math", "input_quality": "good", "gen_input_configs.temperature": 1},
        ),
        (WILDCHAT, "Name a prime.", {"language": "English", "toxic": False, "turn": 2}),
        (LMSYS, "Name a prime.", {"language": "English", "redacted": True}),
        (ULTRAFEEDBACK, "Name a prime.", {"source": "evol_instruct"}),
        (ALPACA_GPT4, f"{ALPACA['instruction']}\n\n{ALPACA['input']}", {}),
    ],
    ids=["magpie-air", "magpie-qwen", "wildchat", "lmsys", "ultrafeedback", "alpaca-gpt-4"],
)
def test_rows_of_the_papers_instruction_sets_are_read(read, row, text, fields):
    (prompt,) = read(row)
    assert prompt.instruction.text == text
    assert fields.items() <= prompt.fields.items()
    assert all(not isinstance(value, list | dict) for value in prompt.fields.values())


@pytest.mark.parametrize(
    "rows",
    [
        [ALPACA_EVAL],
        [ALPACA, {**ALPACA, "input": ""}],
        [MAGPIE],
        [MAGPIE_AIR],
        [MAGPIE_QWEN],
        [ULTRAFEEDBACK],
        [MESSAGES, {"messages": [*MESSAGES["messages"], {"role": "user", "content": "Why?"}]}],
        [PROMPT_COMPLETION],
        [CONVERSATIONAL],
        [{"prompt": "Hello", "completion": [*WILDCHAT["conversation"][1:]]}],
        [WILDCHAT],
        [LMSYS],
        [{**ALPACA_EVAL, "system": "Be brief."}],
        [{"prompt": "2+2?", "gpt-4": "4", "phi": "5"}],
        [{"prompt": "2+2?", "instruction": "Other.", "gpt-4": "4", "phi": "5"}],
        [{"instruction": " a\r\nb ", "output": "x"}],
    ],
)
def test_a_row_has_the_id_that_its_responses_have(read, rows, tmp_path):
    prompts = read(*rows)
    responses = ResponseSource.open([tmp_path / "data.jsonl"])
    of_responses = dict.fromkeys(response.instruction.id for response in responses)
    assert list(dict.fromkeys(prompt.instruction.id for prompt in prompts)) == list(of_responses)


@needs_data
@pytest.mark.parametrize("name", ["zoo/Gemma-2-2b-it.jsonl", "zoo_judged/alpaca-7b.json"])
def test_real_data_have_the_ids_that_their_responses_have(name):
    prompts = PromptSource.open([DATA / name])
    responses = ResponseSource.open([DATA / name])
    assert [p.instruction.id for p in prompts] == [r.instruction.id for r in responses]


def test_a_response_that_cannot_be_read_does_not_cost_the_instruction(read):
    bad = {"model": "m", "response": 7}
    rows = [{**ULTRAFEEDBACK, "completions": [bad]}, {**ULTRAFEEDBACK, "completions": []}]
    assert texts(read(ULTRAFEEDBACK, *rows)) == ["Name a prime."] * 3
    assert (
        texts(read(ALPACA_EVAL, {**ALPACA_EVAL, "output": 7})) == [ALPACA_EVAL["instruction"]] * 2
    )


def test_guessed_teacher_columns_stay_fields_and_named_ones_do_not(read):
    row = {"prompt": "2+2?", "persona": "child", "style": "short"}
    assert read(row)[0].fields == {"persona": "child", "style": "short"}
    assert read(row, teacher_columns=("persona", "style"))[0].fields == {}


def test_fields_are_plain_and_their_numbers_finite(read):
    row = {"prompt": "p", "a": {"b": {"c": 1}}, "list": [1], "none": None, "yes": True}
    assert read(row)[0].fields == {"a.b.c": 1, "none": None, "yes": True}
    assert read({"prompt": "p", "size": float("inf"), "share": float("nan")})[0].fields == {
        "size": None,
        "share": None,
    }


def test_a_reference_is_read_as_with_responses_and_is_no_field(read):
    reference = {"kind": "exact", "answer": "7"}
    row = {"prompt": "Name a prime.", "reference": reference, "key": "7"}
    (prompt,) = read(row)
    assert (prompt.reference, prompt.fields) == (reference, {"key": "7"})
    (prompt,) = read(row, reference_column="key")
    assert prompt.reference == {"kind": "numeric", "answer": "7"}
    assert "key" not in prompt.fields
    prose = "Some prose, of which nobody could say that it is right or wrong."
    assert read({"prompt": "p", "reference": prose})[0].fields == {"reference": prose}


def test_a_row_that_cannot_be_read_is_counted_and_named_by_line(tmp_path, caplog):
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"prompt": "a"}\n{"prompt": " "}\n{"prom\n[1]\n{"prompt": 3}\n{"prompt": "b"}\n'
    )
    source = PromptSource.open([path])
    for _ in range(2):
        assert texts(source) == ["a", "b"]
        assert [problem.line for problem in source.problems] == [2, 3, 4, 5]
        assert source.problem_counts == {str(path): 4}
    assert sum("4 problems" in record.message for record in caplog.records) == 1


def test_data_without_a_known_column_say_which_columns_there_are(read, tmp_path):
    with pytest.raises(DataError, match=r"columns topic, size; .*instruction_column"):
        read({"topic": "a", "size": 1})
    assert texts(read({"topic": "a", "size": 1}, instruction_column="topic")) == ["a"]
    with pytest.raises(DataError, match=r"no column 'topc'.*Did you mean 'topic'"):
        read({"topic": "a"}, instruction_column="topc")
    with pytest.raises(DataError, match="layout 'alpaca' reads"):
        read({"prompt": "a"}, layout="alpaca")


def test_no_row_that_can_be_read_is_an_error(tmp_path):
    source = PromptSource.open([lines(tmp_path / "a.jsonl", {"prompt": ""})])
    with pytest.raises(DataError, match=r"No row .* can be read"):
        list(source)


def test_the_files_of_a_folder_are_one_source(tmp_path):
    folder = tmp_path / "wildchat"
    folder.mkdir()
    for name in ("train-0.jsonl", "train-1.jsonl"):
        lines(folder / name, WILDCHAT)
    source = PromptSource.open([folder])
    assert [prompt.source for prompt in source] == ["wildchat"] * 2
    assert source.files[0].describe() == (
        "train-0.jsonl: conversation layout (conversation, source 'wildchat' from the folder name)"
    )


def prompt_of(*messages, reference=None, **fields):
    turns = tuple(Message(role, text) for role, text in messages)
    return Prompt(Instruction(turns), reference, fields, "where")


MANY = [
    *(prompt_of(("user", f"Question {number}?"), language="English") for number in range(120)),
    prompt_of(("user", "Control \x1b[31m, tab \t, line\nand \u2028 and \U0001f600."), toxic=False),
    prompt_of(("system", "Be brief."), ("user", "Hello"), reference={"kind": "exact", "n": 1.5}),
    prompt_of(("user", "Hello"), ("assistant", "Hi!"), ("user", "And?"), difficulty=3, other="x"),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("prompts", [MANY, MANY[::-1], MANY[-1:]], ids=["long", "turned", "one"])
def test_what_is_written_is_read_back_with_the_same_ids(tmp_path, name, prompts):
    path = tmp_path / "new" / name
    assert write_prompts(prompts, path, fields=["toxic", "source"]) == len(prompts)
    back = list(PromptSource.open([path]))
    assert [p.instruction for p in back] == [p.instruction for p in prompts]
    assert [p.fields["id"] for p in back] == [p.instruction.id.hex() for p in prompts]
    assert [p.reference for p in back] == [p.reference for p in prompts]
    assert {p.fields["source"] for p in back} == {"where"}
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_json_lines_keep_types_and_leave_out_what_is_not_there(tmp_path):
    path = tmp_path / "a.jsonl"
    write_prompts(MANY[-3:], path, fields=["toxic"])
    first, _, last = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:3])
    assert list(first) == ["id", "instruction", "source", "toxic"]
    assert first["toxic"] is False
    assert list(last) == ["id", "messages", "source", "difficulty"]


def test_a_file_that_fails_to_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def broken():
        yield MANY[0]
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        write_prompts(broken(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StudyError, match="neither"):
        write_prompts(MANY, tmp_path / "a.csv")
