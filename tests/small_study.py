"""Small studies for tests: response files, the command run on them, and what a store then holds."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from preceptor.api import rank
from preceptor.cli.app import cli
from preceptor.ranking.result import Ranking
from preceptor.store.store import Store

WORDS = ("the", "cat", "sat", "on", "mat", "sea", "is", "wide", "deep", "two", "plus", "four")
Rows = list[dict[str, Any]]


def rows_of(teacher: int, instructions: int = 6, *, words: int = 8) -> Rows:
    """Return rows whose texts and rewards differ between teachers and instructions."""
    rng = np.random.default_rng([teacher, instructions])
    return [
        {
            "instruction": f"What is number {number} good for?",
            "output": " ".join(rng.choice(WORDS, size=int(rng.integers(2, words + 1))))
            + f" {teacher}.",
            "reward": round(float(rng.uniform(0.1, 2.0)), 3),
        }
        for number in range(instructions)
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_teachers(
    folder: Path, teachers: int = 2, instructions: int = 6, *, words: int = 8
) -> list[Path]:
    """Write one file for each teacher, named alpha, beta, ..."""
    names = ("alpha", "beta", "gamma", "delta")[:teachers]
    return [
        write_rows(folder / f"{name}.jsonl", rows_of(place, instructions, words=words))
        for place, name in enumerate(names)
    ]


def preceptor(*arguments: object) -> Result:
    """Run the command in this process; an error that it should have worded escapes.

    A ranking for which no student is named is for none.
    """
    words = [str(one) for one in arguments]
    if words[0] == "rank" and "--student" not in words:
        words.append("--no-student")
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def ranked(*arguments: object) -> list[dict[str, Any]]:
    """Return what `preceptor rank ARGUMENTS --json -` prints, one dictionary for each student.

    An only teacher is compared with nobody, which is an exit code of 1.
    """
    result = preceptor("rank", *arguments, "--json", "-")
    assert result.stdout.startswith("["), result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    compared = any(len(ranking["teachers"]) > 1 for ranking in found)
    assert result.exit_code == (0 if compared else 1), result.output
    return found


def by_teacher(ranking: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the records by the teacher's name."""
    return {record["teacher"]: record for record in ranking["teachers"]}


def ranking_of(tmp_path: Path, **changes: Any) -> Ranking:
    """Return a ranking of two teachers by their rewards, with some of its fields changed."""
    files = write_teachers(tmp_path / "ranked")
    options = {"no_student": True, "reward_column": "reward", "store": str(tmp_path / "of")}
    return replace(rank(files, **options), **changes)


def command(*arguments: object) -> list[str]:
    """Return the words of a command line that runs preceptor in a process of its own."""
    return [sys.executable, "-m", "preceptor", *map(str, arguments)]


def start(*arguments: object, **settings: Any) -> "subprocess.Popen[str]":
    """Start preceptor in a process of its own, with one thread and its words kept apart."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in jobs that a shell put into the background, and children would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), **{**pipes, "env": environment, **settings})


def partition_sizes(store: Path) -> dict[str, int]:
    """Return the number of distinct rows by scorer, the pass without instruction apart."""
    sizes = {}
    for partition in Store(store).partitions():
        spec = partition.identity.spec
        sizes[str(spec.get("conditioning", spec["scorer"]))] = len(partition.keys())
    return sizes


def shards(store: Path) -> list[Path]:
    """Return every shard."""
    return sorted(store.rglob("part-*.parquet"))
