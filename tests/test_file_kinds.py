"""Files that stand for rows in ways of their own: batches of OpenAI, Arrow, paths into lists."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.responses import ResponseSource
from preceptor.errors import DataError
from preceptor.types import Message

ROWS = [{"prompt": f"Give {n}.", "completion": f"{n}"} for n in range(3)]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path, **options: Any) -> list[tuple[str, str | None]]:
    source = ResponseSource.open([path], ReadOptions(**options))
    return [(one.instruction.text, one.text) for one in source]


@pytest.mark.parametrize("of_file", [True, False])
def test_arrow_is_read_as_file_and_as_stream(tmp_path: Path, of_file: bool):
    table = pa.Table.from_pylist(ROWS)
    path = tmp_path / "rows.arrow"
    new = pa.ipc.new_file if of_file else pa.ipc.new_stream
    with path.open("wb") as raw, new(raw, table.schema) as writer:
        writer.write_table(table)
    assert read(path) == [(row["prompt"], row["completion"]) for row in ROWS]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"rows\.arrow cannot be read"):
        read(path)


@pytest.mark.parametrize(
    "ending", [".jsonl.zst", ".tsv", ".tsv.zst"], ids=["jsonl.zst", "tsv", "tsv.zst"]
)
def test_packed_and_tabbed_files_are_read(tmp_path: Path, ending: str):
    tabbed = "prompt\tcompletion\n" + "".join(f"Give {n}.\t{n}\n" for n in range(3))
    text = "".join(f"{json.dumps(row)}\n" for row in ROWS) if "json" in ending else tabbed
    path = tmp_path / f"rows{ending}"
    with pa.output_stream(path, compression="zstd" if "zst" in ending else None) as raw:
        raw.write(text.encode())
    assert read(path) == [(row["prompt"], row["completion"]) for row in ROWS]


@pytest.mark.parametrize("index", ["0", "-1"])
def test_a_path_numbers_the_parts_of_lists(tmp_path: Path, index: str):
    row = {"q": "Why?", "r": {"choices": [{"message": {"content": "So."}}]}}
    path = lines(tmp_path / "a.jsonl", [row])
    column = f"r.choices.{index}.message.content"
    assert read(path, instruction_column="q", response_column=column) == [("Why?", "So.")]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("r.choices.message.content", r"'r.choices' is a list: number its part, as in r.choices.0"),
        ("r.choices.7.message.content", "has no column 'r.choices.7.message.content'"),
        ("r.choices..message", "'r.choices' is a list"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path, column: str, words: str):
    row = {"q": "Why?", "r": {"choices": [{"message": {"content": "So."}}]}}
    with pytest.raises(DataError, match=words):
        read(lines(tmp_path / "a.jsonl", [row]), instruction_column="q", response_column=column)


def answered(name: str, body: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": "b", "custom_id": name, "response": body and {"status_code": 200, "body": body}}


CHAT = {
    "model": "gpt",
    "choices": [
        {
            "message": {"role": "assistant", "content": "So.", "reasoning": "Hm."},
            "finish_reason": "length",
        }
    ],
}
RESPONSES = {
    "model": "gpt",
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "So."}],
        },
    ],
    "incomplete_details": {"reason": "max_output_tokens"},
}


@pytest.mark.parametrize(
    ("body", "request_body"),
    [
        (
            CHAT,
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}]},
        ),
        (RESPONSES, {"input": "Why?", "instructions": "S"}),
        (RESPONSES, {"input": [{"role": "user", "content": "Why?"}], "instructions": "S"}),
    ],
)
def test_batch_output_is_joined_with_what_was_asked(
    tmp_path: Path, body: dict[str, Any], request_body: dict[str, Any]
):
    output = lines(tmp_path / "out.jsonl", [answered("r1", body), answered("r2", None)])
    with pytest.raises(DataError, match=r"holds answers and no prompts.*--requests"):
        read(output)
    wanted = [{"custom_id": name, "url": "/v1", "body": request_body} for name in ("r2", "r1")]
    (tmp_path / "other").mkdir()
    plain = [{"id": name, "system": "S", **request_body} for name in ("r1", "r2")]
    named = lines(tmp_path / "other/asked.jsonl", wanted if "input" in request_body else plain)
    lines(tmp_path / "in.jsonl", wanted)
    for options in ({}, {"requests": str(named)}):
        source = ResponseSource.open([output], ReadOptions(**options))
        first, second = source
        assert first.instruction.messages == (Message("system", "S"), Message("user", "Why?"))
        assert (first.teacher, first.text) == ("gpt", "<think>\nHm.\n</think>\n\nSo.")
        assert (first.finish_reason, second.text) == ("length", None)


def test_an_answer_to_what_was_not_asked_is_a_problem(tmp_path: Path):
    output = lines(tmp_path / "out.jsonl", [answered("r1", CHAT), answered("r9", CHAT)])
    lines(tmp_path / "in.jsonl", [{"custom_id": "r1", "body": {"input": "Why?"}}])
    source = ResponseSource.open([output])
    assert len(list(source)) == 1
    assert "not among the requests" in str(source.problems[0])
