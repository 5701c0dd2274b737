"""Scoring by a Ray cluster and by shards: how fast, and whether the numbers are those of one process.

Printed as JSON: tokens a second of two actors with a thread each against this process with two threads, on
the same responses with models loaded; what is in the store after actors and drivers were killed at random
moments; and the store of four `--shard` processes that ran at once, row by row against an undisturbed run.

    python bench/ray_scale.py --student MODEL.gguf --responses ../shared/data/zoo/*.jsonl --limit 40
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow.parquet as pq

from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.pipeline.cluster.executor import executor_of
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.score import step_of
from preceptor.pipeline.work import Amount, Silent

Rows = dict[tuple[str, bytes], dict[str, object]]
TWO = ("--executor", "ray", "--address", "local", "--workers", "2", "--worker-cores", "1")
WARM_UP = 2


class Counted(Silent):
    """A progress that adds up."""

    def __init__(self) -> None:
        self.done = Amount()

    def advance(self, done: Amount) -> None:
        """Add what was stored."""
        self.done += done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", required=True)
    parser.add_argument("--responses", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument(
        "--store", help="URL of an empty folder for the shards; by default a local one"
    )
    parser.add_argument("--only", nargs="*", default=["speed", "kills", "shards"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("preceptor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, object] = {"limit": given.limit, "responses": len(given.responses)}
        if "speed" in given.only:
            found["speed"] = speed(given, folder)
        if {"kills", "shards"} & set(given.only):
            assert started(given, folder / "whole").wait() == 0
        if "kills" in given.only:
            found["kills"] = tortured(given, folder)
        if "shards" in given.only:
            found["shards"] = sharded(given, folder)
        print(json.dumps(found, indent=2))


def speed(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return tokens a second here and there, of models that are loaded."""
    import torch

    torch.set_num_threads(2)
    local = rate(given, {"executor": "local", "store": str(folder / "local")})
    two = {"executor": "ray", "address": "local", "workers": 2, "worker_cores": 1}
    ray = rate(given, {**two, "store": str(folder / "ray")})
    compared = differences(rows(str(folder / "local")), rows(str(folder / "ray")))
    return {
        "local_tokens_per_second": round(local, 1),
        "ray_tokens_per_second": round(ray, 1),
        "efficiency": round(ray / local, 3),
        **compared,
    }


def rate(given: argparse.Namespace, runtime: dict[str, object]) -> float:
    study, _ = api.study_of(
        given.responses, students=[given.student], by="loss", metrics=["loss"], limit=given.limit
    )
    at = Runtime.model_validate({"device": "cpu", **runtime})
    execute = executor_of(at)
    (data,) = Pipeline(study, at).load()
    _, steps = Pipeline(study, at).plan(data, study.students[0])
    step = next(one for one in steps if one.name == "likelihood")
    execute(step_of(step.scorer, at, data.source, data.selection.sample(WARM_UP)), Silent())
    told = Counted()
    began = time.perf_counter()
    execute(step, told)
    seconds = time.perf_counter() - began
    step.resource.release()
    return told.done.tokens / seconds


def started(given: argparse.Namespace, store: Path | str, *words: str) -> "subprocess.Popen[bytes]":
    """Start ranking with this store."""
    command = [sys.executable, "-m", "preceptor", "rank", *given.responses, *words]
    command += ["--student", given.student, "--metric", "loss", "--by", "loss", "--device", "cpu"]
    command += ["--limit", str(given.limit), "--max-batch-tokens", "1024", "--store", str(store)]
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(os.devnull, "wb") as nowhere:
        return subprocess.Popen(
            command, stdout=nowhere, stderr=sys.stderr, env={**os.environ, **quiet}
        )


def tortured(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Kill actors, by both signals, and drivers, each some time after new rows were stored."""
    chance = np.random.default_rng(given.seed)
    store, struck, left_over = folder / "killed", Counter[str](), 0
    driver = started(given, store, *TWO)
    while struck.total() < given.kills and driver.poll() is None:
        before = len(list(store.rglob("part-*.parquet")))
        while driver.poll() is None and len(list(store.rglob("part-*.parquet"))) == before:
            time.sleep(0.05)
        time.sleep(float(chance.uniform(0.0, 2.0)))
        kind = str(chance.choice(["actor killed", "actor stopped", "driver killed"]))
        family = (
            psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        )
        actors = [one for one in family if is_actor(one)]
        if kind == "driver killed" and driver.poll() is None:
            driver.kill()
            driver.wait()
            _, alive = psutil.wait_procs(actors, timeout=10)
            left_over += len(alive)
            struck[kind] += 1
            driver = started(given, store, *TWO)
        elif actors:
            victim = actors[int(chance.integers(len(actors)))]
            victim.send_signal(signal.SIGKILL if kind == "actor killed" else signal.SIGTERM)
            struck[kind] += 1
    code = driver.wait()
    compared = differences(rows(str(folder / "whole")), rows(str(store)))
    claims = len(list(store.rglob("claim-*")))
    told = {"exit": code, "actors_left_over": left_over, "claims_left_over": claims}
    return {"kills": struck.total(), **struck, **told, **compared}


def is_actor(process: psutil.Process) -> bool:
    try:
        return "ray::Worker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def sharded(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run all shards at once on one store."""
    store = given.store or str(folder / "shards")
    every = range(1, given.shards + 1)
    running = [started(given, store, "--shard", f"{place}/{given.shards}") for place in every]
    codes = [one.wait() for one in running]
    seen = rows(store)
    # A ranking looks at its responses besides, which no shard does: its own steps are what compares.
    steps = {partition for partition, _ in seen[0]}
    whole = {key: row for key, row in rows(str(folder / "whole"))[0].items() if key[0] in steps}
    return {"exits": codes, "steps": len(steps), **differences((whole, 0), seen)}


def rows(store: str) -> tuple[Rows, int]:
    """Return all rows by partition and key, and how many lie there a second time."""
    files, path = fsspec.core.url_to_fs(store)
    found: Rows = {}
    twice = 0
    for name in files.glob(f"{path}/scores/*/part-*.parquet"):
        with files.open(name) as handle:
            for row in pq.read_table(handle).to_pylist():
                key = (name.split("/")[-2], row.pop("key"))
                twice += key in found
                found[key] = row
    return found, twice


def differences(expected: tuple[Rows, int], seen: tuple[Rows, int]) -> dict[str, object]:
    """Return how the rows of a store differ from those of another."""
    (one, _), (other, twice) = expected, seen
    largest = max(
        (
            abs(float(value) - float(number)) / max(1.0, abs(float(value)))  # type: ignore[arg-type]
            for key in one.keys() & other.keys()
            for name, value in one[key].items()
            if isinstance(value, int | float)
            and isinstance(number := other[key].get(name, np.inf), int | float)
        ),
        default=None,
    )
    return {
        "rows": len(other),
        "rows_lost": len(one.keys() - other.keys()),
        "rows_too_many": len(other.keys() - one.keys()),
        "keys_twice": twice,
        "largest_relative_difference": largest,
    }


if __name__ == "__main__":
    main()
