"""Kill processes without warning at random moments of every kind of work, and look for what they lost.

Scoring by a tiny model, generation, judging (both over a loopback endpoint that counts), training, export,
and compaction. After each kill the same command is run again. Printed as JSON for each kind: the kills that
struck a living process, rows or files lost (there before a kill and not after), rows stored with two values,
requests asked again and how many may be (those in flight when a process was killed), and whether the end
is the same as that of a run that nobody disturbed. `bench/kill_resume.py` does it to a model of one's own.

    python bench/kills.py --kills 100
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loopback import CountingServer
from preceptor.store.store import Identity, Store

sys.path.append(str(Path(__file__).parents[1] / "tests"))
CONCURRENCY = 4
QUICK = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COMPACTING = """
import os, sys
from preceptor.store.store import Identity, Store
from preceptor.types import Score
partition = Store(sys.argv[1]).scores(Identity.of({"bench": "kills"}))
begin, end = len(partition.keys()), int(sys.argv[2])
for number in range(begin, end):
    partition.append([Score(number.to_bytes(16, "big"), {"number": float(number)})])
    print(number, flush=True)
    if number % 10 == 9:
        partition.compact()
partition.compact()
keys = [number.to_bytes(16, "big") for number in range(end)]
with open(sys.argv[3], "w") as file:
    file.write(str(partition.columns(keys, ["number"])["number"].tolist()))
os._exit(0)
"""


@dataclass
class Work:
    """One kind of work: the command for a place to work in, and where its result is read from.

    `share` is its part of all kills. Requests are counted where it has a server.
    """

    share: float
    command: Callable[[Path], Sequence[object]]
    result: Callable[[Path], object]
    server: CountingServer | None = None
    prepare: Callable[[Path], None] = lambda place: None


@dataclass
class Tally:
    """What was found."""

    kills: int = 0
    runs: int = 0
    lost: int = 0
    two_values: int = 0
    asked_again: int = 0
    may_be_asked_again: int = 0
    different_ends: int = 0
    left_over: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name, CountingServer(0.05) as server:
        works = works_in(Path(name), server)
        for kind in given.only or works:
            folder = Path(name, kind)
            folder.mkdir()
            kills = round(given.kills * works[kind].share)
            found[kind] = vars(tortured(works[kind], folder, kills, given.seed))
            print(kind, json.dumps(found[kind]), file=sys.stderr, flush=True)
    print(json.dumps({"kills": sum(one["kills"] for one in found.values()), **found}, indent=2))  # type: ignore[index]


def works_in(root: Path, server: CountingServer) -> dict[str, Work]:
    """Return every kind of work over small inputs that are written here."""
    from conftest import build_model, build_tokenizer
    from small_study import rows_of, write_rows
    from small_training import uneven, write_data

    student = root / "student"
    build_model("llama").save_pretrained(student)
    build_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>").save_pretrained(
        student
    )
    files = [
        write_rows(root / "data" / f"{name}.jsonl", rows_of(place, 400))
        for place, name in enumerate(("alpha", "beta"))
    ]
    few = [
        write_rows(root / "few" / f"{name}.jsonl", [{**row, "generator": name} for row in rows])
        for place, name in enumerate(("alpha", "beta"))
        for rows in [rows_of(place, 120)]
    ]
    rows = write_data(root / "rows.jsonl", uneven(48))
    study = "no_student = true\nreward = { kind = 'column', column = 'reward' }\n"

    def study_at(place: Path) -> None:
        runtime = f"[runtime]\nstore = '{place / 'store'}'\ndevice = 'cpu'\n"
        text = f"{study}data.responses = ['{root}/data/*.jsonl']\n{runtime}"
        (place / "study.toml").write_text(text)

    def at(place: Path, *words: object, result: str = "--json") -> Sequence[object]:
        return ["-m", "preceptor", *words, "--store", place / "store", result, place / "result"]

    scoring = ("rank", *files, "--student", student, "--reward-column", "reward", "--device", "cpu")
    asking = ("generate", few[0], "--teacher", "served", "--url", server.url)
    judging = ("evaluate", few[0], "--baseline-answers", few[1], "--judge", "letters")
    training = ("train", rows, "--student", student, "--device", "cpu", "--epochs", "6")
    training += ("--batch-size", "4", "--save-steps", "2", "--warmup-steps", "2", "--lora")
    training += ("--no-gradient-checkpointing", "--max-length", "256", "--lora-dropout", "0.2")
    exporting = ("export", "--every-sample", "--teacher", "alpha", "--overwrite")
    return {
        "scoring": Work(
            0.2,
            lambda place: at(place, *scoring, "--max-batch-tokens", "128"),
            lambda place: rounded(json.loads((place / "result").read_text())),
        ),
        "generation": Work(
            0.2,
            lambda place: at(
                place,
                *(
                    *asking,
                    "--concurrency",
                    CONCURRENCY,
                    "--overwrite",
                ),
                result="--output",
            ),
            lambda place: sorted((place / "result").read_text().splitlines()),
            server,
        ),
        "judging": Work(
            0.15,
            lambda place: at(
                place,
                *(*judging, "--judge-url", server.url, "--judge-concurrency", CONCURRENCY),
                "--no-logprobs",
            ),
            lambda place: json.loads((place / "result").read_text())["results"],
            server,
        ),
        "training": Work(
            0.1,
            lambda place: ["-m", "preceptor", *training, "--output", place / "model"],
            lambda place: (place / "model" / "model.safetensors").read_bytes(),
        ),
        "export": Work(
            0.15,
            lambda place: [
                "-m",
                "preceptor",
                *exporting,
                place / "study.toml",
                "--output",
                place / "set",
            ],
            lambda place: {
                path.name: path.read_bytes() for path in sorted((place / "set").glob("*.jsonl"))
            },
            prepare=study_at,
        ),
        "compaction": Work(
            0.2,
            lambda place: ["-c", COMPACTING, place / "store", 400, place / "result"],
            lambda place: (place / "result").read_text(),
        ),
    }


def tortured(work: Work, folder: Path, kills: int, seed: int) -> Tally:
    """Kill until there were enough kills; compare every end that is reached."""
    chance = np.random.default_rng(seed)
    tally = Tally()
    calm = folder / "calm-0"
    seconds = undisturbed(work, calm)
    expected = work.result(calm)
    while tally.kills < kills:
        tally.runs += 1
        place = folder / f"rough-{tally.runs}"
        place.mkdir()
        work.prepare(place)
        rough(work, place, tally, kills, lambda: float(chance.uniform(0.0, seconds)))
        tally.different_ends += work.result(place) != expected
        tally.left_over += [
            path.name for path in place.rglob("*") if path.name.startswith(("tmp-", "claim-"))
        ]
    return tally


def undisturbed(work: Work, place: Path) -> float:
    """Run the work to its end; return the seconds from its first trace on disk."""
    place.mkdir()
    work.prepare(place)
    process = started(work, place)
    before = traces(place)
    began = time.monotonic()
    while process.poll() is None:
        if traces(place) == before:
            began = time.monotonic()
        time.sleep(0.02)
    assert process.returncode == 0, (place / "errors").read_text()
    return time.monotonic() - began


def rough(work: Work, place: Path, tally: Tally, kills: int, moment: Callable[[], float]) -> None:
    """Run the work until it ends, killing each process but the last some time after its first trace."""
    server = work.server
    if server is not None:
        server.asked.clear()
    while True:
        before, known = traces(place), rows_in(place)
        process = started(work, place)
        while process.poll() is None and traces(place) == before:
            time.sleep(0.01)
        if tally.kills < kills:
            end = time.monotonic() + moment()
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
        else:
            process.wait()
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = rows_in(place)
        tally.lost += sum(key not in stored for key in known)
        tally.two_values += sum(len(values) > 1 for values in stored.values())
        if not alive:
            break
        tally.kills += 1
        if server is not None:
            tally.may_be_asked_again += CONCURRENCY
    assert process.returncode == 0, (place / "errors").read_text()
    if server is not None:
        tally.asked_again += server.twice


def started(work: Work, place: Path) -> "subprocess.Popen[bytes]":
    """Start the work; what it prints are numbers that it has stored, or nothing of interest."""
    words = [sys.executable, *map(str, work.command(place))]
    with (place / "said").open("ab") as said, (place / "errors").open("ab") as errors:
        return subprocess.Popen(words, stdout=said, stderr=errors, env={**os.environ, **QUICK})


def traces(place: Path) -> set[tuple[str, int]]:
    """Return the files of a place that its work has made, and when they changed."""
    found = set()
    for folder, _, names in os.walk(place):
        for name in set(names) - {"said", "errors", "study.toml"}:
            with suppress(FileNotFoundError):
                found.add((f"{folder}/{name}", os.stat(f"{folder}/{name}").st_mtime_ns))
    return found


def rows_in(place: Path) -> dict[tuple[str, bytes], set[str]]:
    """Return every stored row by partition and key, with its different values."""
    import pyarrow.parquet as pq

    found: dict[tuple[str, bytes], set[str]] = {}
    for path in (place / "store").rglob("part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            found.setdefault((path.parent.name, row.pop("key")), set()).add(str(row))
    partition = Identity.of({"bench": "kills"}).digest
    if (place / "store" / "scores" / partition).exists():
        said = (place / "said").read_text().split("\n")[:-1]
        keys = Store(place / "store").scores(Identity.of({"bench": "kills"})).keys().tolist()
        for number in said:
            key = int(number).to_bytes(16, "big")
            assert key in keys, f"row {number} was stored and is lost"
    return found


def rounded(value: object) -> object:
    """Return JSON with numbers to nine digits: batches differ after a kill, and rounding with them."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
