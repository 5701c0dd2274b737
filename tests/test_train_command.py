"""`preceptor train`, end to end: what it says first, what it writes, and how wrong inputs are answered."""

import json
from pathlib import Path

import pytest

from preceptor.cli.train import TOOLS
from small_study import preceptor
from small_training import uneven, write_data

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def words(tmp_path: Path, model_folder: Path) -> list[object]:
    data = write_data(tmp_path / "rows.jsonl", uneven(16))
    return ["train", data, "--student", model_folder, "--device", "cpu"]


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path: Path, words: list[object]):
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    result = preceptor(*words, "--output", tmp_path / "out", "--dry-run", "--devices", "4")
    assert result.exit_code == 0, result.output
    for said in (
        "rows.jsonl, line 17: no assistant turn",
        "16 rows, ",
        "2 steps, 1 per epoch, 100 of them warm-up; 8 x 4 device(s)",
        "memory: about",
        "left out: 1 (no assistant turn)",
        "warning: The warm-up takes 100 steps",
    ):
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_it_trains_tells_of_every_step_and_knows_when_it_is_done(
    tmp_path: Path, words: list[object]
):
    words += [
        "--output",
        tmp_path / "out",
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--warmup-steps",
        "1",
    ]
    result = preceptor(*words)
    assert result.exit_code == 0, result.output
    assert "train: 1/2 steps, loss " in result.stderr
    assert "train: 2/2 steps, loss " in result.stderr
    assert "in the last of 2; took" in result.stdout
    assert (tmp_path / "out" / "config.json").is_file()
    again = preceptor(*words)
    assert "nothing to do" in again.stdout


def test_wrong_inputs_are_answered_in_words(tmp_path: Path, words: list[object]):
    output = ["--output", tmp_path / "out"]
    for more, said in (
        (["--load-in-4bit"], "set lora too"),
        (["--per-device-batch-size", "3"], "no multiple of per_device_batch_size"),
        (["--chat-template", "gema"], "Did you mean 'gemma'?"),
        (["--devices", "2"], "--devices is for"),
        (["--max-length", "3"], "Nothing is left to train on"),
        (["--lora", "--lora-target", "q_prj"], "no layer 'q_prj'"),
    ):
        result = preceptor(*words, *output, *more)
        assert result.exit_code != 0
        assert said in result.stderr, result.output
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    (bare / "model.safetensors").write_text("")
    result = preceptor("train", words[1], "--student", bare, *output)
    assert "holds no tokenizer" in result.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_it_writes_another_tools_configuration(tmp_path: Path, words: list[object], tool: str):
    result = preceptor(
        *words, "--output", tmp_path / "job", "--export", tool, "--chat-template", "gemma"
    )
    assert result.exit_code == 0, result.output
    files = [Path(line) for line in result.stdout.split()]
    assert len(files) == 2 and all(file.is_file() for file in files)
    assert str(tmp_path / "rows.jsonl") in "".join(file.read_text() for file in files)


def test_it_writes_the_launchers_files_without_data(tmp_path: Path):
    result = preceptor("train", "--write-accelerate", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == [
        "deepspeed_zero3.yaml",
        "fsdp.yaml",
    ]


def test_a_folder_of_an_export_is_data(tmp_path: Path, words: list[object]):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "train.jsonl").write_text((tmp_path / "rows.jsonl").read_text())
    (folder / "preceptor.json").write_text(json.dumps({}))
    result = preceptor("train", folder, *words[2:], "--output", tmp_path / "out", "--dry-run")
    assert "16 rows, " in result.stderr
