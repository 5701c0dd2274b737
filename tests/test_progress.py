"""What a run shows: on a terminal one live display, in a pipe lines, and nothing that other libraries draw.

The program runs for real on a GGUF file that it must convert and load, in a pseudo-terminal and in a pipe.
"""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from preceptor.pipeline.work import Amount
from preceptor.report.progress import LiveProgress, PlainProgress
from preceptor.store.activity import activity, listening
from small_gguf import write_gguf
from small_study import command, preceptor, write_teachers

FOREIGN = re.compile(
    r"\d+%\||it/s|Converting and de-quantizing|Loading weights|Writing model shards|tqdm"
)
"""Marks of bars that transformers and the Hub's library draw of their own."""


def words(folder: Path, tokenizer: Any) -> list[str]:
    model = write_gguf(folder / "tiny.gguf", tokenizer)
    options = ("--student", model, "--chat-template", "plain", "--reward-column", "reward")
    return command("rank", *write_teachers(folder), *options, "--store", folder / "store")


def environment(folder: Path) -> dict[str, str]:
    own = {"PRECEPTOR_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1", "TERM": "xterm"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminal of this kind")
def test_a_terminal_shows_one_live_display_and_loading_as_loading(tmp_path: Path, tokenizer: Any):
    import pty

    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # its other end is closed
                return
            if not part:
                return
            seen.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        words(tmp_path, tokenizer),
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    reader.join(30)
    shown = seen.decode()
    assert done.returncode == 0, shown
    assert not FOREIGN.search(shown)
    for what in ("converting tiny.gguf", "loading tiny.gguf", "likelihood", "12/12 responses"):
        assert what in shown
    assert b"P(first)" in done.stdout and b"likelihood:" not in done.stdout


def test_a_pipe_gets_lines_and_none_of_another_library(tmp_path: Path, tokenizer: Any):
    done = subprocess.run(
        words(tmp_path, tokenizer),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not FOREIGN.search(done.stderr) and "\x1b" not in done.stderr + done.stdout
    lines = done.stderr.splitlines()
    assert "converting tiny.gguf, once" in lines
    assert lines.index("likelihood: 0 stored, 12 to compute") < len(lines)
    assert lines.count("loading tiny.gguf") == 2  # to convert it, and to run it
    assert "P(first)" in done.stdout and "stored" not in done.stdout


def test_a_plan_says_that_a_file_is_converted_and_parses_it_once(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, private_cache: Path
):
    import gguf

    read: list[str] = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path: Any, *more: Any) -> None:
            read.append(str(path))
            super().__init__(path, *more)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    model = write_gguf(tmp_path / "tiny.gguf", tokenizer)
    write_teachers(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(
        f"""[data]
responses = ["{tmp_path.as_posix()}/*.jsonl"]
[[students]]
model = "{model.as_posix()}"
chat_template = "plain"
[reward]
kind = "column"
column = "reward"
[runtime]
store = "{(tmp_path / "store").as_posix()}"
"""
    )
    done = preceptor("plan", study, "--json", "-")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["teachers"] == 2
    assert "converting tiny.gguf, once" in done.stderr.splitlines()
    assert len(read) == 1 and gguf.GGUFReader is Reader


def test_a_log_hears_every_while_of_what_is_not_done_yet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    plain = PlainProgress(Console(width=100), every=10)
    plain.begin("likelihood", 0, Amount(100, 1000))
    with listening(plain.busy), activity("fetching a model"):
        for seconds in (1, 5, 9):
            clock[0] = seconds
            plain.tick()
        with activity("hashing it"):
            clock[0] = 20
            plain.tick()
        clock[0] = 40
        plain.tick()
    clock[0] = 60
    plain.tick()
    plain.end()
    clock[0] = 99
    plain.tick()
    assert capsys.readouterr().out.splitlines() == [
        "likelihood: 0 stored, 100 to compute",
        "fetching a model",
        "hashing it",
        "hashing it: 11 s",
        "fetching a model: 20 s",
        "likelihood: 0/100",
    ]


def test_a_log_that_nobody_advances_is_written_by_a_clock_of_its_own(
    capsys: pytest.CaptureFixture[str],
):
    with PlainProgress(Console(width=100), every=0.05) as plain, listening(plain.busy):
        plain.begin("judge", 0, Amount(3, 30))
        with activity("loading a judge"):
            plain._ended.wait(0.5)
    said = capsys.readouterr().out
    assert said.startswith("judge: 0 stored, 3 to compute\nloading a judge\nloading a judge: 0 s\n")
    assert not plain._clock.is_alive()


def test_what_goes_on_stands_under_the_bars_and_leaves_no_line(
    capsys: pytest.CaptureFixture[str],
):
    with LiveProgress(Console(force_terminal=True, width=100)) as live, listening(live.busy):
        live.begin("likelihood", 0, Amount(2, 20))
        with activity("loading [red]tiny[/red]"):
            live.say(["a look"])
            assert [task.total for task in live._bars.tasks] == [None]
        assert live._bars.tasks == []
    assert "loading [red]tiny[/red]" in capsys.readouterr().out.replace("\x1b[0m", "")
