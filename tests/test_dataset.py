"""Reading conversations: layouts, places of wrong rows, and a digest that knows no order."""

import json
from pathlib import Path
from typing import Any

import pytest

from preceptor.errors import DataError
from preceptor.export.layouts import Example
from preceptor.export.writer import Card, write_examples
from preceptor.finetuning.dataset import conversations_of, read_conversations
from preceptor.types import Instruction, Message
from small_training import conversation, uneven, write_data

CARD = Card("Small", "At random.", student=None, teachers=(), settings={}, metrics=())


def turns(*pairs: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_export_writes_is_read(tmp_path: Path, format: Any):
    examples = [Example(Instruction.from_text(f"Ask {n}"), f"Say {n}", "gemma") for n in range(3)]
    write_examples(examples, tmp_path / "data", layout="messages", format=format, card=CARD)
    read = read_conversations([tmp_path / "data"])
    assert sorted(row[-1].content for row in read.rows) == ["Say 0", "Say 1", "Say 2"]
    assert read.digest == read_conversations([tmp_path / "data" / f"train.{format}"]).digest


def test_neither_order_nor_file_bears_on_digest_and_order(tmp_path: Path):
    rows = uneven(6).rows
    one = write_data(tmp_path / "one.jsonl", conversations_of(rows))
    (tmp_path / "two.jsonl").write_text("".join(reversed(one.read_text().splitlines(True)[:3])))
    (tmp_path / "three.jsonl").write_text("".join(one.read_text().splitlines(True)[3:]))
    split = read_conversations([tmp_path / "three.jsonl", tmp_path / "two.jsonl"])
    assert split.rows == read_conversations([one]).rows
    assert split.digest == conversations_of(reversed(rows)).digest
    assert split.digest != conversations_of(rows[:5]).digest


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turns(("user", "Hello?")), "no assistant turn"),
        (turns(("assistant", "Hello.")), "nothing before"),
        (turns(("user", "Hi"), ("assistant", "  ")), "an empty assistant turn"),
        (turns(("user", "Hi"), ("tool", "x"), ("assistant", "Hello.")), "a role other than"),
        (turns(("user", "Hi"), ("assistant", None)), "content is no text"),
        ({"messages": ["Hi"]}, "no object"),
        ({"prompt": "Hi"}, "no `messages`"),
        (["Hi"], "no `messages`"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_told_of_by_line(
    tmp_path: Path, row: object, reason: str
):
    good = turns(("user", "Hi"), ("assistant", "Hello."))
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n{{broken\n")
    read = read_conversations([file])
    assert len(read.rows) == 1
    assert len(read.left_out) == 2 and read.left_out["no valid JSON"] == 1
    assert any("line 2: " in told and reason in told for told in read.problems)
    assert any("line 3: " in told for told in read.problems)


def test_nothing_left_is_an_error_that_names_the_places(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(turns(("user", "Hello?"))) + "\n")
    with pytest.raises(DataError, match=r"line 1: no assistant turn"):
        read_conversations([file])


def test_turns_after_the_last_answer_are_cut_off():
    read = conversations_of([[*conversation("Hi", "Hello."), Message("user", "Bye")]])
    assert read.rows == (conversation("Hi", "Hello."),)


def test_what_is_no_file_of_a_known_ending_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("Hi")
    for path, said in (("notes.txt", "ending"), ("none.jsonl", "No data at"), (".", "no train")):
        with pytest.raises(DataError, match=said):
            read_conversations([tmp_path / path])
