"""Kill a scoring run without warning at random moments, resume it each time, compare with a whole run.

Printed as JSON: whether the ranking is the same, whether a row is stored twice with different values, and how
many rows were computed more than once.

    python bench/kill_resume.py --student FOLDER --responses ../shared/data/zoo/*.jsonl --limit 4
"""

import argparse
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from preceptor.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", required=True)
    parser.add_argument("--responses", nargs="+", required=True)
    parser.add_argument("--reward-column", default=None)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest-wait", type=float, default=3.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("preceptor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(folder)), indent=2))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return what the comparison found."""
    start = time.perf_counter()
    run(given, folder, "whole").wait()
    seconds = time.perf_counter() - start
    moments = np.random.default_rng(given.seed)
    kills, counts = 0, []
    for _ in range(given.kills):
        process = run(given, folder, "killed")
        before = rows(folder / "killed")["distinct"]
        # What is killed while it loads proves nothing: wait until it computes, then strike at random.
        while process.poll() is None and rows(folder / "killed")["distinct"] <= before:
            time.sleep(0.05)
        time.sleep(float(moments.uniform(0.0, given.longest_wait)))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(rows(folder / "killed"))
    run(given, folder, "killed").wait()
    return {
        "seconds_undisturbed": round(seconds, 1),
        "kills": kills,
        "rows_after_each_kill": counts,
        "rows_at_the_end": rows(folder / "killed"),
        "rows_of_whole_run": rows(folder / "whole"),
        **compared(folder),
    }


def run(given: argparse.Namespace, folder: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start the command on the store `name`."""
    command = [sys.executable, "-m", "preceptor", "rank", *given.responses]
    command += ["--student", given.student, "--limit", str(given.limit)]
    command += ["--store", str(folder / name), "--json", str(folder / f"{name}.json")]
    if given.reward_column:
        command += ["--reward-column", given.reward_column]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(root: Path) -> dict[str, int]:
    """Return the likelihood rows that lie in the store, and how many are distinct."""
    import pyarrow.parquet as pq

    stored, distinct = 0, set()
    for partition in Store(root).partitions():
        if partition.identity.spec["scorer"] != "likelihood":
            continue
        for path in (root / "scores" / partition.identity.digest).glob("part-*.parquet"):
            keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
            stored += len(keys)
            distinct.update(keys)
    return {"stored": stored, "distinct": len(distinct)}


def compared(folder: Path) -> dict[str, object]:
    """Return how the two rankings differ."""
    whole, killed = (
        json.loads((folder / f"{name}.json").read_text())[0] for name in ("whole", "killed")
    )
    relative, teacher, name, expected, seen = max(
        (
            abs(one[name] - other[name]) / max(1.0, abs(one[name])),
            one["teacher"],
            name,
            one[name],
            other[name],
        )
        for one, other in zip(whole["teachers"], killed["teachers"], strict=True)
        for name in one
        if isinstance(one[name], int | float)
    )
    order = [row["teacher"] for row in whole["teachers"]]
    return {
        "same_order": order == [row["teacher"] for row in killed["teachers"]],
        "largest_relative_difference": relative,
        "where": {"teacher": teacher, "number": name, "whole": expected, "killed": seen},
    }


if __name__ == "__main__":
    main()
