"""The command `instructions`: what it writes, what it tells, and what it refuses."""

import json
from pathlib import Path

import pytest

from json_form import check
from preceptor.data.instructions import PromptSource
from small_study import preceptor, write_rows
from test_instructions import LMSYS, MAGPIE_QWEN, WILDCHAT

TOPICS = ("the sea", "salt", "a lighthouse", "prime numbers", "bread", "old maps", "glass", "rain")


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Files in the layouts of three of the paper's instruction sets, eight rows each."""
    questions = [f"Explain {topic} to a child in three sentences." for topic in TOPICS]
    magpie = [
        {
            **MAGPIE_QWEN,
            "instruction": text,
            "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}],
            "input_quality": "poor" if place < 3 else "good",
        }
        for place, text in enumerate(questions)
    ]
    lmsys = [
        {**LMSYS, "conversation": [{"role": "user", "content": f"Sing of {topic}."}]}
        for topic in TOPICS
    ]
    wildchat = [
        {**WILDCHAT, "conversation": [*WILDCHAT["conversation"][:2], *turns(topic)]}
        for topic in TOPICS
    ]
    written = {"magpie": magpie, "lmsys": lmsys, "wildchat": wildchat}
    return [write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in written.items()]


def turns(topic: str) -> list[dict[str, str]]:
    question = {"role": "user", "content": f"What rhymes with {topic}?"}
    return [question, {"role": "assistant", "content": "Nothing."}]


def done(*arguments: object) -> str:
    result = preceptor("instructions", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_mixture_is_drawn_equally_and_read_back_with_the_same_ids(sources, tmp_path, ending):
    output = tmp_path / f"mix.{ending}"
    said = done(*sources, "--output", output, "--per-source", 4, "--near-duplicates", 0)
    back = list(PromptSource.open([output]))
    known = {prompt.instruction.id: prompt.source for prompt in PromptSource.open(sources)}
    assert len(back) == len({prompt.instruction.id for prompt in back}) == 12
    assert all(known[p.instruction.id] == p.fields["source"] for p in back)
    assert [p.fields["id"] for p in back] == [p.instruction.id.hex() for p in back]
    for words in ("magpie", "lmsys", "wildchat", "not drawn", "12 instructions written", "seed 0"):
        assert words in said


def test_the_report_beside_the_file_says_what_became_of_every_row(sources, tmp_path):
    output = tmp_path / "mix.jsonl"
    done(*sources, "--output", output, "--quality", "good", "--seed", 7, "--count", 10)
    report = json.loads((tmp_path / "mix.jsonl.report.json").read_text())
    check("instructions", report)
    assert report["kept"] == len(rows_of(output)) == 10
    assert report["options"]["seed"] == 7
    assert report["turns"] == "last"
    for tally in report["sources"].values():
        assert tally["read"] == 8 == tally["kept"] + sum(tally["dropped"].values())
    assert report["sources"]["magpie"]["dropped"]["other quality"] == 3
    assert report["sources"]["lmsys"]["without_column"] == {"input_quality or quality": 8}


def test_filters_keep_what_was_asked_for_and_the_columns_they_read(sources, tmp_path):
    output = tmp_path / "a.jsonl"
    filters = ["--language", "English", "--language", "EN", "--where", "redacted=false"]
    done(*sources, "--output", output, *filters, "--near-duplicates", 0)
    rows = rows_of(output)
    assert {row["source"] for row in rows} == {"magpie", "wildchat"}  # LMSYS's are redacted
    assert {row["source"]: row.get("redacted") for row in rows} == {
        "magpie": None,
        "wildchat": False,
    }
    assert {row["language"] for row in rows} == {"English", "EN"}


def test_turns_first_writes_the_first_question(sources, tmp_path):
    output = tmp_path / "a.jsonl"
    done(sources[2], "--output", output, "--turns", "first")
    assert [row["instruction"] for row in rows_of(output)] == ["Hello"]


def test_the_same_command_writes_the_same_bytes_whatever_the_order(sources, tmp_path):
    names = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for name, given in zip(names, (sources, sources[::-1]), strict=True):
        done(*given, "--output", name, "--count", 9)
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_file_is_replaced_only_when_asked(sources, tmp_path):
    output = tmp_path / "a.jsonl"
    done(sources[0], "--output", output, "--count", 2, "--near-duplicates", 0)
    before = output.read_bytes()
    again = ("instructions", sources[0], "--output", output, "--count", 3, "--near-duplicates", 0)
    result = preceptor(*again)
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert output.read_bytes() == before
    assert preceptor(*again, "--overwrite").exit_code == 0
    assert len(rows_of(output)) == 3


def test_nothing_is_written_where_nothing_is_left(sources, tmp_path):
    output = tmp_path / "new" / "a.jsonl"
    result = preceptor("instructions", *sources, "--output", output, "--max-characters", 2)
    assert result.exit_code == 1
    assert "24 too long" in result.output
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--output", "a.csv"], "neither .jsonl nor .parquet"),
        (["--output", "a.jsonl", "--where", "language"], "expected COLUMN=VALUE"),
        (["--output", "a.jsonl", "--where", "=x"], "expected COLUMN=VALUE"),
        (["--output", "a.jsonl", "--count", "0"], "'--count': 0 is not in the range x>=1"),
        (["--output", "a.jsonl", "--where", "langage=EN"], "Did you mean 'language'"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(sources, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    result = preceptor("instructions", *sources, *given)
    assert result.exit_code == (2 if "--count" in given else 1)
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "a.jsonl").exists()


def test_control_characters_of_names_never_reach_the_terminal(tmp_path):
    rows = [{"prompt": "Name a prime.", "kind\x1b[31m": "[red]x[/red]"}]
    source = write_rows(tmp_path / "bad\x1b[31m[red].jsonl", rows)
    said = done(source, "--output", tmp_path / "a.jsonl", "--where", "kind\x1b[31m=[red]x[/red]")
    assert "\x1b" not in said
    assert r"\x1b[31m[red]" in said


def test_control_characters_of_columns_are_escaped_in_errors(tmp_path):
    source = write_rows(tmp_path / "a.jsonl", [{"prompt": "p", "kind\x1b[31m": "x"}])
    for option in ("--where", "--instruction-column"):
        given = ("--output", tmp_path / "b.jsonl", option, "knd=x")
        result = preceptor("instructions", source, *given)
        assert result.exit_code == 1
        assert r"kind\x1b[31m" in result.output
        assert "\x1b" not in result.output


def test_a_missing_file_is_told_as_elsewhere(tmp_path):
    result = preceptor("instructions", tmp_path / "none.jsonl", "--output", tmp_path / "a.jsonl")
    assert result.exit_code == 1
    assert "does not exist" in result.output
