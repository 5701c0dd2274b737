"""Scoring by a Ray cluster and by shards: how fast, and whether the numbers are those of one process.

Printed as JSON: tokens a second of two actors with a thread each against this process with two threads, on
the same responses with models loaded; what is in the store after actors and drivers were killed at random
moments; and the store of four `--shard` processes that ran at once, row by row against an undisturbed run.
Without a student and responses a small random model reads made-up ones, which serves for kills and shards.
With `--counted-s3` the shards' store is a bucket of an S3 server on loopback, each process has a cache of its
own, as on machines of its own, and requests are counted.

    python bench/ray_scale.py --student MODEL.gguf --responses ../shared/data/zoo/*.jsonl --limit 40
    python bench/ray_scale.py --only shards --counted-s3
    python bench/ray_scale.py --only kills --kills 20 --width 384 --layers 6 --limit 3000
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
from contextlib import ExitStack
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.pipeline.cluster.executor import executor_of
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.score import step_of
from preceptor.pipeline.work import Amount, Silent
from ranking_from_store import WORDS, save_student

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from s3_server import s3_server

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
    parser.add_argument("--student", help="by default a small random model")
    parser.add_argument("--responses", nargs="+", help="by default made-up ones of four teachers")
    parser.add_argument("--width", type=int, default=64, help="of the random model")
    parser.add_argument("--layers", type=int, default=2, help="of the random model")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument(
        "--store", help="URL of an empty folder for the shards; by default a local one"
    )
    parser.add_argument(
        "--counted-s3", action="store_true", help="store of the shards on an S3 server that counts"
    )
    parser.add_argument("--only", nargs="*", default=["speed", "kills", "shards"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("preceptor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.student is None:
            given.student = str(folder / "student")
            save_student(folder / "student", width=given.width, layers=given.layers)
        if given.responses is None:
            given.responses = made_up(folder, given.limit)
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


def made_up(folder: Path, instructions: int) -> list[str]:
    """Write responses of four teachers, 20 to 60 words each, and return their files."""
    files = []
    for teacher in range(4):
        rng = np.random.default_rng([7, teacher])
        file = folder / f"teacher-{teacher}.jsonl"
        with file.open("w") as handle:
            for number in range(instructions):
                words = rng.choice(WORDS, rng.integers(20, 60))
                row = {"instruction": f"How wide is the sea {number}?", "output": " ".join(words)}
                handle.write(json.dumps(row) + "\n")
        files.append(str(file))
    return files


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


def started(
    given: argparse.Namespace, store: Path | str, *words: str, cache: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start ranking with this store."""
    command = [sys.executable, "-m", "preceptor", "rank", *given.responses, *words]
    command += ["--student", given.student, "--metric", "loss", "--by", "loss", "--device", "cpu"]
    command += ["--limit", str(given.limit), "--max-batch-tokens", "1024", "--store", str(store)]
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    quiet |= {} if cache is None else {"PRECEPTOR_CACHE": str(cache)}
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
    """Run all shards at once on one store, then the ranking of what they stored."""
    with ExitStack() as stack:
        asked, store = Counter[str](), given.store or str(folder / "shards")
        if given.counted_s3:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            asked, store = stack.enter_context(s3_server(patch)), "s3://bucket/shards"
        every = range(1, given.shards + 1)
        running = [
            started(given, store, "--shard", f"{at}/{given.shards}", cache=folder / f"cache-{at}")
            for at in every
        ]
        codes = [one.wait() for one in running]
        of_shards = dict(asked)
        seen = rows(store)
        asked.clear()
        codes.append(started(given, store, cache=folder / "cache-ranking").wait())
        requests = {"shards": of_shards, "ranking": dict(asked)} if given.counted_s3 else None
    # A ranking looks at its responses besides, which no shard does: its own steps are what compares.
    steps = {partition for partition, _ in seen[0]}
    whole = {key: row for key, row in rows(str(folder / "whole"))[0].items() if key[0] in steps}
    compared = differences((whole, 0), seen)
    return {"exits": codes, "steps": len(steps), "requests": requests, **compared}


def rows(store: str) -> tuple[Rows, int]:
    """Return all rows by partition and key, and how many lie there a second time."""
    files, path = fsspec.core.url_to_fs(store)
    found: Rows = {}
    twice = 0
    shards = f"{path}/scores/*/part-*.parquet", f"{path}/scores/*/kept/part-*.parquet"
    for name in (one for pattern in shards for one in files.glob(pattern)):
        partition = name.replace("/kept/", "/").split("/")[-2]
        with files.open(name) as handle:
            for row in pq.read_table(handle).to_pylist():
                key = (partition, row.pop("key"))
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
