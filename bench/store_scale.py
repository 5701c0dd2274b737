"""How long 2,000,000 stored scores take to append, list and look up, and the memory that needs.

Each step runs in its own process, so that its peak memory is its own. Prints a table and one line
of JSON: `python bench/store_scale.py [rows] [rows per append]`.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.types import Score

NAMES = ("loss", "perplexity", "token_rank", "entropy", "reward")
IDENTITY = Identity.of({"bench": "store_scale"})
SEED = 20


def numbered_keys(rows: int) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    raw = np.random.default_rng(SEED).bytes(16 * rows)
    return np.frombuffer(raw, "V16")


def append(partition: ScorePartition, rows: int, batch: int) -> None:
    keys = numbered_keys(rows).tolist()
    rng = np.random.default_rng(SEED)
    for start in range(0, rows, batch):
        numbers = rng.random((batch, len(NAMES))).tolist()
        pairs = zip(keys[start : start + batch], numbers, strict=False)
        partition.append([Score(key, dict(zip(NAMES, row, strict=True))) for key, row in pairs])


def list_keys(partition: ScorePartition, rows: int, batch: int) -> None:
    assert len(partition.keys()) == rows


def look_up(partition: ScorePartition, rows: int, batch: int) -> None:
    asked = numbered_keys(rows)[np.random.default_rng(SEED).permutation(rows)]
    columns = partition.columns(asked, NAMES)
    assert not any(np.isnan(columns[name]).any() for name in NAMES)


def compact(partition: ScorePartition, rows: int, batch: int) -> None:
    partition.compact()


STEPS = {"append": append, "list_keys": list_keys, "look_up": look_up, "compact": compact}


def measure(step: str, root: str, rows: int, batch: int) -> dict[str, float | str]:
    partition = Store(root).scores(IDENTITY)
    start = time.perf_counter()
    STEPS[step](partition, rows, batch)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    return {"step": step, "seconds": round(seconds, 2), "peak_rss_mib": round(peak)}


def main(rows: int, batch: int) -> None:
    results = []
    print(f"{rows:,} rows x {len(NAMES)} columns, {batch:,} rows an append")
    with tempfile.TemporaryDirectory() as root:
        for step in ("append", "list_keys", "look_up", "compact", "list_keys", "look_up"):
            command = [sys.executable, __file__, step, root, str(rows), str(batch)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout)
            result["shards"] = len(list(Path(root).rglob("part-*.parquet")))
            results.append(result)
            print(
                "{step:10} {seconds:8.2f} s {peak_rss_mib:6} MiB {shards:6} shards".format(**result)
            )
    print(json.dumps({"rows": rows, "columns": len(NAMES), "batch": batch, "steps": results}))


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        given = [int(text) for text in sys.argv[1:]]
        main(*given, *(2_000_000, 5_000)[len(given) :])
