"""Ask small real teachers, score, rank and export; once more with a server; once more under kills.

Everything goes through the command line, as a user's study would, and what is printed is read back
from the store and from what the commands wrote. Printed as JSON, the first two parts also as they end:

* `in process`: an instruct model and a base model at two temperatures answer the demo's checkable questions;
* `served` (where --url is given): the instruct model behind an OpenAI-compatible server joins them in the
  same store, greedy and sampled, with the best of the samples as a best-of-N teacher;
* `killed`: the larger study in another store, ended by SIGKILL at random moments, resumed and compared.

    python bench/teachers_study.py --instruct MODEL.gguf --base FOLDER --student FOLDER \
        --url http://127.0.0.1:8080/v1 --served-name NAME
"""

import argparse
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preceptor.demo import demo_files
from preceptor.store.store import ResponsePartition, Store

EXPORTS = {"best teacher": (), "best response to each": ("--each", "reward"), "pairs": ("--pairs",)}
SHOWN = ("teacher", "rank", "n", "reward", "loss", "car", "car_low", "car_high", "p_best")
TEMPERATURE, SAMPLES, CONCURRENCY = 0.8, 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instruct", required=True, help="folder or GGUF of an instruct model")
    parser.add_argument("--base", required=True, help="folder or GGUF of a base model")
    parser.add_argument("--student", required=True, help="folder or GGUF of a base model")
    parser.add_argument("--url", help="an OpenAI-compatible server of the instruct model")
    parser.add_argument("--served-name", default="served", help="the model's name there")
    parser.add_argument("--limit", type=int, default=40, help="questions")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    logging.getLogger("preceptor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(folder)), indent=2))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return what all parts found."""
    began = time.perf_counter()
    parts = ["in process", "served"] if given.url else ["in process"]
    for part, store in product(parts, ("whole", "killed")):
        write_study(given, file_of(folder, part, store), served=part == "served")
    found: dict[str, Any] = {}
    for part in parts:
        found[part] = carried_out(folder, part)
        # A whole run takes long: what is there must not be lost with what is still to come.
        print(json.dumps({part: found[part]}), file=sys.stderr, flush=True)
    if given.url:
        found["greedy texts in process and served"] = agreement(folder)
    seconds = sum(found[part]["seconds"]["run"] for part in parts)
    found["killed"] = under_kills(given, folder, parts=parts, longest=seconds / max(1, given.kills))
    found["killed and whole"] = {part: compared(folder, part) for part in parts}
    settings = {"limit": given.limit, "max_tokens": given.max_tokens, "seed": given.seed}
    return {"settings": settings, "seconds": round(time.perf_counter() - began, 1), **found}


def file_of(folder: Path, part: str, store: str) -> Path:
    """Return the study file of a part over the store of this name; beside it lie its results."""
    return folder / f"{part} {store}.toml"


def write_study(given: argparse.Namespace, path: Path, *, served: bool) -> None:
    """Write a part's study file."""
    text = f"""
        data.instructions = {json.dumps([str(path) for path in demo_files()])}
        data.limit = {given.limit}
        students = [{{ model = {json.dumps(given.student)} }}]
        [[teachers]]
        model = {json.dumps(given.instruct)}
        label = "instruct"
        max_tokens = {given.max_tokens}
        [[teachers]]
        model = {json.dumps(given.base)}
        label = "base"
        template = "plain"
        stop = ["\\n\\n"]
        max_tokens = {given.max_tokens}
        temperature = [0.0, {TEMPERATURE}]
        [runtime]
        store = {json.dumps(str(store_of(path)))}
    """
    path.write_text(text + (served_tables(given) if served else ""), encoding="utf-8")


def store_of(path: Path) -> Path:
    """Return the store of a study file or of its result."""
    return path.with_name(path.stem.rpartition(" ")[2])


def served_tables(given: argparse.Namespace) -> str:
    """Return the tables that a server's teachers add to a study file."""
    name = json.dumps(given.served_name)
    return f"""
        [runtime.endpoints.{name}]
        url = {json.dumps(given.url)}
        concurrency = {CONCURRENCY}
        [[teachers]]
        model = {name}
        label = "served"
        engine = "openai"
        max_tokens = {given.max_tokens}
        [[teachers]]
        model = {name}
        label = "served sampled"
        engine = "openai"
        max_tokens = {given.max_tokens}
        temperature = {TEMPERATURE}
        samples = {SAMPLES}

        [[best_of_n]]
        kind = "best"
        of = "served sampled"
        label = "best of samples"
    """


def start(folder: Path, *words: object) -> "subprocess.Popen[bytes]":
    """Start the command; what it says goes to a file."""
    command = [sys.executable, "-m", "preceptor", *map(str, words)]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


def timed(folder: Path, *words: object) -> float:
    """Run the command to its end; return its seconds."""
    began = time.perf_counter()
    if start(folder, *words).wait():
        sys.exit(f"preceptor {words[0]} failed:\n{(folder / 'said').read_text()}")
    return round(time.perf_counter() - began, 1)


def carried_out(folder: Path, part: str) -> dict[str, Any]:
    """Return what planning, running, running again and exporting a part took and gave."""
    path = file_of(folder, part, "whole")
    result, root = path.with_suffix(".json"), store_of(path)
    seconds = {"plan": timed(folder, "plan", path)}
    seconds["run"] = timed(folder, "run", path, "--json", result)
    stored, exported = rows(root), {}
    seconds["run again"] = timed(folder, "run", path)
    again = rows(root)
    for what, options in EXPORTS.items():
        output = folder / part / what
        seconds[f"export {what}"] = timed(folder, "export", path, "--output", output, *options)
        exported[what] = (output / "train.jsonl").read_bytes().count(b"\n")
    ranking = read(result)
    return {
        "seconds": seconds,
        "rows": stored,
        "run_again_changed_nothing": again == stored,
        "teachers": {name: answered(partition) for name, partition in partitions(result).items()},
        "ranking": [{name: row[name] for name in SHOWN} for row in ranking["teachers"]],
        "verdict": ranking["verdict"],
        "exported_rows": exported,
    }


def read(result: Path) -> dict[str, Any]:
    """Return the one ranking of a result."""
    ranking: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))[0]
    return ranking


def partitions(result: Path) -> dict[str, ResponsePartition]:
    """Return where the answers of each asked teacher of a result lie, by its label."""
    every = Store(store_of(result)).partitions()
    found = {one.identity.digest: one for one in every if isinstance(one, ResponsePartition)}
    asked = read(result)["settings"]["teachers"]
    return {label: found[teacher["identity"]] for label, teacher in asked.items()}


def answered(partition: ResponsePartition) -> dict[str, object]:
    """Return how many responses a teacher gave and of what kind; its speed has the loading in it."""
    costs = partition.costs()
    answers = list(partition.each())
    return {
        "responses": costs.responses,
        "empty": sum(not (one.text or "").strip() for one in answers),
        "refused": len(partition.notes()),
        "mean_tokens": round(costs.tokens, 1),
        "tokens_per_second": round(costs.tokens_per_second, 1),
        "finish_reasons": dict(Counter(one.finish_reason for one in answers)),
    }


def agreement(folder: Path) -> dict[str, object]:
    """Return the share of greedy texts that are the same run here and served."""
    found = partitions(folder / "served whole.json")
    here, there = texts(found["instruct"]), texts(found["served"])
    both = here.keys() & there.keys()
    equal = sum(here[key] == there[key] for key in both)
    return {"both": len(both), "equal": equal, "share": round(equal / max(1, len(both)), 3)}


def texts(partition: ResponsePartition) -> dict[bytes, str | None]:
    """Return a partition's texts by their keys."""
    return {one.key: one.text for one in partition.each()}


def rows(root: Path) -> dict[str, int]:
    """Return how many distinct rows a store holds by kind, and how many lie there once more."""
    lying = sum(pq.read_metadata(shard).num_rows for shard in root.rglob("part-*.parquet"))
    found = counted(root)
    return {**found, "more_than_once": lying - found.total()}


def under_kills(
    given: argparse.Namespace, folder: Path, *, parts: list[str], longest: float
) -> dict[str, object]:
    """Kill the largest study again and again, then let all end; return how it went."""
    began = time.perf_counter()
    moments = np.random.default_rng(given.seed)
    path = file_of(folder, parts[-1], "killed")
    killed, after = 0, []
    for number in range(given.kills):
        process = start(folder, "run", path)
        # Chance would seldom meet the student's scores, which are quick: the last kill waits for them.
        scoring = number == given.kills - 1
        kinds = ("likelihood",) if scoring else ("responses", "likelihood")
        wait_for_more(process, store_of(path), kinds=kinds)
        time.sleep(float(moments.uniform(0.0, 2.0 if scoring else longest)))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        after.append(counted(store_of(path)))
    for part in reversed(parts):
        path = file_of(folder, part, "killed")
        timed(folder, "run", path, "--json", path.with_suffix(".json"))
    return {
        "kills": killed,
        "seconds": round(time.perf_counter() - began, 1),
        "rows_after_each_kill": after,
        "rows": rows(store_of(path)),
    }


def wait_for_more(process: "subprocess.Popen[bytes]", root: Path, *, kinds: Sequence[str]) -> None:
    """Wait until a run has stored something: one killed while it loads proves little."""
    before = counted(root)
    while process.poll() is None and all(counted(root)[kind] <= before[kind] for kind in kinds):
        time.sleep(0.2)


def counted(root: Path) -> Counter[str]:
    """Return how many distinct rows a store holds: responses, and scores by their scorer."""
    found: Counter[str] = Counter()
    for partition in Store(root).partitions():
        found[str(partition.identity.spec.get("scorer", partition.kind))] += len(partition.keys())
    return found


def compared(folder: Path, part: str) -> dict[str, object]:
    """Return how stored texts and ranking differ between the undisturbed run and the killed one."""
    results = [file_of(folder, part, store).with_suffix(".json") for store in ("whole", "killed")]
    stores, rankings = [partitions(result) for result in results], [read(one) for one in results]
    teachers = {}
    for label in stores[0]:
        one, other = (texts(store[label]) for store in stores)
        teachers[label] = {
            "rows": [len(one), len(other)],
            "same_keys": one.keys() == other.keys(),
            "same_texts": sum(one[key] == other.get(key) for key in one),
        }
    whole, killed = ({row["teacher"]: row for row in ranking["teachers"]} for ranking in rankings)
    return {
        "teachers": teachers,
        "same_order": list(whole) == list(killed),
        "largest_difference_of_any_number": {
            label: largest_difference(row, killed[label]) for label, row in whole.items()
        },
    }


def largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Return it over the numbers of two records; None where a number stands beside none."""
    pairs = [(value, other[name]) for name, value in one.items() if isinstance(value, int | float)]
    if not all(isinstance(beside, int | float) for _, beside in pairs):
        return None
    return max(abs(value - beside) for value, beside in pairs)


if __name__ == "__main__":
    main()
