"""Killed, interrupted and simultaneous runs: what is stored stays and is never redone.

Everything runs in processes of its own, over a tiny real model. `bench/kill_resume.py` is the thorough
version, for models and data of one's own.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from small_study import by_teacher, partition_sizes, shards, start, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache")

KILLS = 4
PATIENCE = 120.0


class Study:
    """A run long enough to be killed in, of `rows` responses; its processes end with the test."""

    def __init__(self, folder: Path, student: Path, *, rows: int = 640) -> None:
        self.rows = rows
        files = write_teachers(folder / "data", instructions=rows // 2, words=4)
        self.words = ("rank", *files, "--student", student, "--reward-column", "reward")
        self.words += ("--device", "cpu", "--max-batch-tokens", "128")
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self, store: Path, result: Path) -> "subprocess.Popen[str]":
        process = start(*self.words, "--store", store, "--json", result)
        self.processes.append(process)
        return process


@pytest.fixture
def study(tmp_path: Path, model_folder: Path, request: pytest.FixtureRequest) -> Iterator[Study]:
    study = Study(tmp_path, model_folder, **getattr(request, "param", {}))
    yield study
    for process in study.processes:
        process.kill()
        with process:
            pass


def wait_for_scoring(process: "subprocess.Popen[str]") -> str:
    """Read what the process says until the model's step begins; return all of it."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("likelihood: ") or line.startswith("Error"):
            break
    return said


def stop_at_scores(process: "subprocess.Popen[str]", store: Path, *, more_than: int) -> None:
    """Stop the process once the model has put something more into the store, if it has not ended.

    It runs in slices, so that on a fast machine it cannot end between a look at the store and what follows.
    """
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and partition_sizes(store).get("conditional", 0) <= more_than:
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)


def finish(process: "subprocess.Popen[str]") -> str:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def rows_by_key(store: Path) -> dict[tuple[str, bytes], list[Mapping[str, Any]]]:
    """Return every stored row by partition and key, however often it was stored."""
    found: dict[tuple[str, bytes], list[Mapping[str, Any]]] = {}
    for shard in shards(store):
        for row in pq.read_table(shard).to_pylist():
            found.setdefault((shard.parent.name, row.pop("key")), []).append(row)
    return found


def check_same(result: Path, expected: Path) -> None:
    """Check that two runs say the same; batches differ after a kill, and rounding with them."""
    (one,), (other,) = json.loads(result.read_text()), json.loads(expected.read_text())
    assert [r["teacher"] for r in one["teachers"]] == [r["teacher"] for r in other["teachers"]]
    for name, record in by_teacher(other).items():
        found = by_teacher(one)[name]
        assert found.keys() == record.keys()
        for field, value in record.items():
            same = pytest.approx(value, rel=1e-9) if isinstance(value, float | list) else value
            assert found[field] == same, (name, field)
    assert one["settings"] == other["settings"]


def test_runs_killed_at_any_moment_resume_to_the_same_result(study: Study, tmp_path: Path):
    store, result, expected = tmp_path / "store", tmp_path / "got.json", tmp_path / "expected.json"
    process = study.begin(tmp_path / "undisturbed", expected)
    began = time.monotonic()
    wait_for_scoring(process)
    starting = time.monotonic() - began
    finish(process)

    rng = np.random.default_rng(10)
    sizes = [0]
    for kill in range(KILLS):
        process = study.begin(store, result)
        if kill % 4 < 2:
            stop_at_scores(process, store, more_than=partition_sizes(store).get("conditional", 0))
            if kill % 4 == 1:
                process.send_signal(signal.SIGCONT)
                time.sleep(rng.uniform(0.0, 0.4))
        else:
            time.sleep(rng.uniform(0.1, 1.2) * starting)
        process.kill()
        process.communicate()
        stored = rows_by_key(store)
        sizes.append(len(stored))
        # Nothing stored was computed again: at most a compaction was cut short, which changes no row.
        for rows in stored.values():
            assert all(row == rows[0] for row in rows)
    assert sizes == sorted(sizes)
    assert any(study.rows < size < 2 * study.rows for size in sizes), "no kill met the scoring"

    finish(study.begin(store, result))
    words = 2 * 200  # of two teachers, for as many instructions as are looked at
    sizes_in_the_end = {"length": study.rows, "conditional": study.rows, "first words": words}
    assert partition_sizes(store) == sizes_in_the_end
    assert all(len(rows) == 1 for rows in rows_by_key(store).values())
    check_same(result, expected)


# Long enough that it cannot end between its first scores and the interrupt.
@pytest.mark.parametrize("study", [{"rows": 1280}], indirect=True)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_computed_and_says_so(
    study: Study, tmp_path: Path, sign: signal.Signals
):
    store, result = tmp_path / "store", tmp_path / "got.json"
    process = study.begin(store, result)
    wait_for_scoring(process)
    stop_at_scores(process, store, more_than=0)
    process.send_signal(sign)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; what was computed is stored. Run the same command to go on." in said
    assert "Traceback" not in said
    assert not result.exists()
    stored = partition_sizes(store)["conditional"]
    assert 0 < stored < study.rows
    again = study.begin(store, result)
    assert f"likelihood: {stored:,} stored, {study.rows - stored:,} to compute" in wait_for_scoring(
        again
    )


SHARING = """
import json, sys, time
from pathlib import Path
from preceptor import api
from preceptor.pipeline.work import Silent

class Counting(Silent):
    computed = 0

    def begin(self, step, stored, missing):
        if step == "likelihood":  # neither computes before the other is there
            Path(own).touch()
            while not Path(other).exists():
                time.sleep(0.01)

    def advance(self, done):
        if done.tokens:  # only what is computed has tokens
            self.computed += done.responses
            time.sleep(0.3)  # longer than a part takes: a busy machine slows both alike

own, other, student, store, *files = sys.argv[1:]
told = Counting()
options = {"student": student, "reward_column": "reward", "store": store, "device": "cpu"}
ranking = api.rank(files, max_batch_tokens=128, progress=told, **options)
print(json.dumps([told.computed, ranking.to_records()]))
"""


def test_two_processes_at_once_share_the_work(tmp_path: Path, model_folder: Path):
    files = write_teachers(tmp_path / "data", instructions=320, words=2)
    rows = 640
    marks = tmp_path / "one", tmp_path / "other"
    both = []
    for own, other in (marks, marks[::-1]):
        given = map(str, (own, other, model_folder, tmp_path / "store", *files))
        words = [sys.executable, "-c", SHARING, *given]
        both.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    try:
        found = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in both]
    finally:
        for process in both:
            process.kill()
    computed = [number for number, _ in found]
    assert rows <= sum(computed) < 1.5 * rows
    assert min(computed) > 0.1 * rows
    assert found[0][1] == found[1][1]
