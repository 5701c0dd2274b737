"""`preceptor tokens` shows what counts as the scorer counts it, and no text drives the terminal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import preceptor
from json_form import check
from preceptor.cli.app import cli
from small_templates import SOURCES, family_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread", "private_cache")

THINKING = "<think>\nTwo and two.\n</think>\n\nfour \x1b[31mcats"


@pytest.fixture
def student(tmp_path: Path, make_tokenizer: Callable[..., Any], make_model: Any) -> Path:
    model = make_model("llama")
    model.resize_token_embeddings(512, mean_resizing=False)
    folder = tmp_path / "student"
    model.save_pretrained(folder)
    family_tokenizer(make_tokenizer).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(SOURCES["qwen3"])
    return folder


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    path = tmp_path / "responses.jsonl"
    rows = [
        {"teacher": teacher, "instruction": f"Say {word}.", "output": text, "reward": 1.0}
        for word in ("one", "two", "three")
        for teacher, text in (("a", THINKING), ("b", f"The {word} sat on the mat."))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_tokens_have_their_roles_and_the_losses_that_a_ranking_stored(
    student: Path, responses: Path, tmp_path: Path
) -> None:
    options = {"student": str(student), "store": str(tmp_path / "store")}
    bare = preceptor.tokens(responses, row=3, **options)
    assert {token.loss for token in bare.tokens} == {None}
    preceptor.rank(responses, reward_column="reward", keep_tokens=True, progress=False, **options)
    found = preceptor.tokens(responses, row=3, **options)
    assert (found.teacher, found.student) == ("a", "student")
    of = {
        role: "".join(token.text for token in found.tokens if token.role == role)
        for role in ("context", "reasoning", "answer", "cut")
    }
    assert of["context"] == "<|im_start|>user\nSay two.<|im_end|>\n<|im_start|>assistant\n"
    assert of["reasoning"] + of["answer"] == THINKING
    assert (of["answer"], of["cut"]) == ("four \x1b[31mcats", "")
    assert all((token.loss is None) == (token.role == "context") for token in found.tokens)
    assert min(token.rank for token in found.tokens if token.rank is not None) >= 1


def test_the_command_shows_cuts_and_brackets_and_escapes_what_drives_a_terminal(
    student: Path, responses: Path, tmp_path: Path
) -> None:
    words = ["tokens", str(responses), "--student", str(student), "--store", str(tmp_path / "none")]
    shown = CliRunner().invoke(cli, words, catch_exceptions=False).output
    assert "<|im_start|>user\nSay one.<|im_end|>" in shown
    assert "{<think>\nTwo and two.\n</think>\n\n}[four \\x1b[31mcats]" in shown
    assert "\x1b" not in shown
    assert "{} reasoning, counted" in shown
    whole = json.loads(CliRunner().invoke(cli, [*words, "--json", "-"]).output)["tokens"]
    length = str(len(whole) - 3)
    cut = CliRunner().invoke(cli, [*words, "--max-length", length, "--json", "-"])
    check("tokens", json.loads(cut.output))
    assert [token["role"] for token in json.loads(cut.output)["tokens"]][-4:] == [
        "answer",
        *["cut"] * 3,
    ]
    assert not (tmp_path / "none").exists()


def test_a_row_that_is_not_there_is_refused(student: Path, responses: Path) -> None:
    with pytest.raises(preceptor.DataError, match="no response 99"):
        preceptor.tokens(responses, student=str(student), row=99)
