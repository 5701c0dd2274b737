"""What other programs of a shell do, the command line does too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from small_study import preceptor as in_this_process
from small_study import write_rows


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"{n}?", "generator": teacher, "output": "so " * n, "mark": n * step}
        for n in range(1, 5)
        for step, teacher in enumerate(("one", "two"), 1)
    ]
    return write_rows(tmp_path / "rows.jsonl", rows)


def preceptor(*words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_options_come_from_the_environment_and_quiet_leaves_the_results_alone(
    responses: Path, tmp_path: Path
) -> None:
    told = {"PRECEPTOR_RANK_REWARD_COLUMN": "mark", "PRECEPTOR_RANK_STORE": str(tmp_path / "store")}
    done = preceptor("--quiet", "rank", responses, "--no-student", "--csv", "-", **told)
    assert done.returncode == 0, done.stderr
    assert "column 'mark'" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "store").is_dir()


def test_the_command_line_counts_before_the_environment(responses: Path) -> None:
    told = {"PRECEPTOR_RANK_REWARD_COLUMN": "mark"}
    done = preceptor("rank", responses, "--no-student", "--reward-column", "absent", **told)
    assert done.returncode == 1
    assert "absent" in done.stderr


def test_verbose_and_quiet_together_are_asked_wrongly() -> None:
    done = in_this_process("-q", "-v", "studies")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "exclude each other" in done.stderr
