"""Time and memory of a ranking whose scores are stored and whose response table is kept: 20 x 1,000,000.

Keys, rewards and scores are drawn; of 100,000 responses one has no likelihood, and one is not there. No texts
are written, so what is measured begins where `preceptor rank` has recognised files that it read before (what
reading takes is `ranking_from_store.py`'s to measure). A shard holds the responses of all teachers to 50,000
instructions, as scoring leaves them. In a process of its own the kept table is found, its checksum verified,
its columns mapped, all scores looked up, and the ranking formed. Seconds and memory are printed as one line
of JSON: `anonymous_megabytes` must be there, the rest of `resident_megabytes` is of files, which the system
may drop.

`--instructions 5000000 --folder DISK` is the whole case and takes about 30 GB of disk. With `--most-rows`
fewer rows are put together at once than is usual, which takes less memory and more time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from preceptor.config.build import study_of
from preceptor.config.student import Student
from preceptor.data import selection, table_cache
from preceptor.data.table import NO_OUTPUT, Gathered, ResponseTable, Signs
from preceptor.pipeline.pipeline import Pipeline
from preceptor.scorers.first_words import FirstWords
from preceptor.scorers.length import LengthScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.store import mapped
from preceptor.store.shards import as_arrow, marked
from preceptor.store.store import ScorePartition, Store
from preceptor.types import Score
from ranking_from_store import save_student

SEED = 7
SHARD_INSTRUCTIONS = 50_000
SAMPLED = 200
NOTED = LACKING = 1e-5
KEY = "0" * 32


def write_files(folder: Path, teachers: int) -> None:
    """Write one row of each teacher, by which its file's layout is recognised."""
    for teacher in range(teachers):
        row = {"instruction": "What is it good for?", "output": f"Of {teacher}.", "reward": 1.0}
        (folder / f"teacher-{teacher:02d}.jsonl").write_text(json.dumps(row) + "\n")


def random_table(teachers: int, instructions: int) -> ResponseTable:
    rng = np.random.default_rng(SEED)
    rows = teachers * instructions
    names = tuple(f"teacher-{teacher:02d}" for teacher in range(teachers))
    return ResponseTable(
        teachers=names,
        instructions=np.frombuffer(rng.bytes(16 * instructions), "V16"),
        teacher=np.repeat(np.arange(teachers, dtype=np.int32), instructions),
        instruction=np.tile(np.arange(instructions, dtype=np.int32), teachers),
        sample=np.zeros(rows, np.int32),
        keys=np.concatenate(
            [np.frombuffer(rng.bytes(16 * instructions), "V16") for _ in range(teachers)]
        ),
        values={"reward": rng.normal(1.0, 0.5, rows)},
        cut_off=np.zeros(rows, np.bool_),
        dropped={name: {} for name in names},
        category=np.full(instructions, -1, np.int32),
        signs=Signs(rows, 0, 0, 60 * rows),
    )


def append(
    partition: ScorePartition,
    keys: np.ndarray,
    columns: dict[str, np.ndarray],
    noted: np.ndarray | None = None,
) -> None:
    """Append a shard; the rows that are `noted` have a note in place of numbers."""
    noted = np.zeros(len(keys), np.bool_) if noted is None else noted
    notes = {"note": pa.array(["non-finite loss"] * len(keys), mask=~noted)}
    numbers = {name: pa.array(column, mask=noted) for name, column in columns.items()}
    rows = pa.table({"key": as_arrow(keys), **notes, **numbers})
    partition._append(marked(rows, ()), durable=False)


def store_scores(folder: Path, table: ResponseTable) -> None:
    rng = np.random.default_rng(SEED)
    student = StudentModel(Student(model=str(folder / "tiny")))
    store = Store(folder / "store")
    lengths = store.scores(LengthScorer().identity())
    likelihoods = store.scores(LikelihoodScorer(student).identity())
    shape = (len(table.teachers), len(table.instructions))
    keys = table.keys.reshape(shape)
    for start in range(0, shape[1], SHARD_INSTRUCTIONS):
        # By instruction, then teacher: whole instructions are scored.
        some = keys[:, start : start + SHARD_INSTRUCTIONS].T.reshape(-1)
        tokens = rng.integers(5, 400, len(some)).astype(np.float64)
        nll, rank, entropy = tokens * rng.lognormal(sigma=0.3, size=(3, len(some)))
        counts = {"length": tokens, "characters": 4 * tokens}
        append(lengths, some, counts)
        found = {"tokens": tokens, "nll": nll, "rank": rank, "entropy": entropy}
        noted = rng.random(len(some)) < NOTED
        append(likelihoods, some, {**found, "truncated": np.zeros(len(some))}, noted)
    words = store.scores(FirstWords().identity())
    sampled = keys[:, :SAMPLED].reshape(-1).tolist()
    words.append([Score(key, {"words": rng.integers(0, 2**24, 30).tolist()}) for key in sampled])


def prepare(folder: Path, teachers: int, instructions: int) -> None:
    save_student(folder / "tiny")
    write_files(folder, teachers)
    table = random_table(teachers, instructions)
    store_scores(folder, table)
    table_cache.save(KEY, Gathered(without_some(table), {}, ()))


def without_some(table: ResponseTable) -> ResponseTable:
    """Return the table without some responses, as where a teacher left requests without an answer."""
    rng = np.random.default_rng(SEED)
    rows = np.flatnonzero(rng.random(len(table.keys)) < LACKING)
    counts = np.bincount(table.teacher[rows], minlength=len(table.teachers)).tolist()
    dropped = {n: {NO_OUTPUT: count} for n, count in zip(table.teachers, counts, strict=True)}
    return table.without(rows, NO_OUTPUT, dropped)


def rank(folder: Path, most_rows: int | None) -> None:
    """Rank, and print the seconds it took, the winner and what was compared."""
    if most_rows is not None:
        selection.MOST_ROWS = mapped.MOST_IN_MEMORY = most_rows
    began, busy = time.perf_counter(), time.process_time()
    files = sorted(str(file) for file in folder.glob("teacher-*.jsonl"))
    study, runtime = study_of(files, students=[folder / "tiny"], reward_column="reward")
    pipeline = Pipeline(study, runtime.model_copy(update={"store": str(folder / "store")}))
    kept = table_cache.load(KEY)
    assert kept is not None
    found_again = time.process_time() - busy
    pipeline.source._gathered["reward"] = kept
    (ranking,) = pipeline.rankings()
    found = {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
        "of_these_until_mapped": round(found_again, 1),
        "compared": ranking.teachers[0].n,
        "winner": ranking.teachers[0].teacher,
        "by": ranking.by,
        "diversity": len(ranking.diversity),
    }
    print(json.dumps(found))


def watched(command: list[str]) -> dict[str, object]:
    """Run a process; return the last line it prints, and its largest memory in megabytes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")
        most = {"RssAnon": 0, "VmRSS": 0}
        while process.poll() is None:
            lines = status.read_text().splitlines() if status.exists() else []
            for name, _, value in (line.partition(":") for line in lines):
                if name in most:
                    most[name] = max(most[name], int(value.split()[0]))
            time.sleep(0.02)
        assert process.stdout is not None
        said = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit(process.returncode)
    megabytes = {name: round(kib * 1024 / 1e6) for name, kib in most.items()}
    found: dict[str, object] = json.loads(said[-1])
    return found | {
        "anonymous_megabytes": megabytes["RssAnon"],
        "resident_megabytes": megabytes["VmRSS"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, default=20)
    parser.add_argument("--instructions", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    parser.add_argument("--most-rows", type=int, help="rows put together at once")
    parser.add_argument("--step", choices=("prepare", "rank"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step == "prepare":
        prepare(given.folder, given.teachers, given.instructions)
    elif given.step == "rank":
        rank(given.folder, given.most_rows)
    if given.step:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # What is kept and mapped lies beside the data, and not in the user's own cache.
        os.environ["PRECEPTOR_CACHE"] = str(folder / "cache")
        sizes = [f"--teachers={given.teachers}", f"--instructions={given.instructions}"]
        command = [sys.executable, __file__, f"--folder={folder}", *sizes]
        if not (folder / "store").exists():
            subprocess.run([*command, "--step=prepare"], check=True)
        command += [f"--most-rows={given.most_rows}"] if given.most_rows else []
        found = watched([*command, "--step=rank"])
    print(json.dumps({"rows": given.teachers * given.instructions, **found}))


if __name__ == "__main__":
    main()
