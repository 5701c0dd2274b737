"""Start several processes on one small study at the same moment, and count what each request was paid.

For generation by a teacher, single rewards by a judge and comparisons by a judge, each over a loopback
endpoint that counts: requests asked, different ones, those asked again, the most in flight at once, and
whether all processes came to the same result. With `--kills` so many processes are killed at random moments,
and another is started in place of each: then what the killed ones had in flight may be asked again.

    python bench/processes.py --processes 4 --answers 241 --kills 2
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from loopback import WORDS, CountingServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--answers", type=int, default=241)
    parser.add_argument(
        "--concurrency", type=int, default=8, help="requests of one process at a time"
    )
    parser.add_argument("--delay", type=float, default=0.2, help="seconds of one answer")
    parser.add_argument(
        "--kills", type=int, default=0, help="processes killed in each kind of work"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["generate", "judge", "compare"])
    given = parser.parse_args()
    found = {}
    for work in given.only:
        with tempfile.TemporaryDirectory() as folder, CountingServer(given.delay) as server:
            found[work] = measured(work, given, Path(folder), server)
    print(json.dumps(found, indent=2))


def measured(
    work: str, given: argparse.Namespace, folder: Path, server: CountingServer
) -> dict[str, object]:
    """Return what came of the processes."""
    chance = np.random.default_rng(given.seed)
    write_inputs(folder, given.answers)
    began, before = time.perf_counter(), spent()
    running = {name: started(work, given, folder, server, name) for name in range(given.processes)}
    at_kills = 0
    for kill in range(given.kills):
        until = len(server.asked) + float(chance.uniform(0.1, 0.5)) * given.answers / given.kills
        while len(server.asked) < min(until, given.answers) and alive(running):
            time.sleep(0.01)
        name = int(chance.choice(alive(running) or list(running)))
        running[name].kill()
        running[name].wait()
        at_kills += given.concurrency
        running[name] = started(work, given, folder, server, given.processes + kill)
    said = [process.communicate()[1] for process in running.values()]
    codes = [process.returncode for process in running.values()]
    assert codes == [0] * len(codes), b"".join(said).decode()
    results = {normal(path) for path in folder.glob("result-*")}
    return {
        "processes": given.processes,
        "kills": given.kills,
        "asked": sum(server.asked.values()),
        "distinct": len(server.asked),
        "asked_again": server.twice,
        "may_be_asked_again": at_kills,
        "most_in_flight": server.most_in_flight,
        "different_results": len(results),
        "waited": sum(b"in work" in one for one in said),
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(sum(spent()) - sum(before), 1),
    }


def spent() -> tuple[float, float]:
    """Return the seconds of the processor that ended processes took, in themselves and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime


def alive(running: "dict[int, subprocess.Popen[bytes]]") -> list[int]:
    return [name for name, process in running.items() if process.poll() is None]


def write_inputs(folder: Path, answers: int) -> None:
    """Write questions, a teacher's answers to them, and a baseline's."""
    chance = np.random.default_rng(answers)
    texts = [" ".join(chance.choice(WORDS, size=8)) for _ in range(2 * answers)]
    for place, name in enumerate(("one", "base")):
        rows = [
            {"instruction": f"Question {n}?", "output": texts[2 * n + place], "generator": name}
            for n in range(answers)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def started(
    work: str, given: argparse.Namespace, folder: Path, server: CountingServer, name: int
) -> "subprocess.Popen[bytes]":
    """Start one process on the shared store."""
    result, one = folder / f"result-{name}.json", folder / "one.jsonl"
    words = {
        "generate": [
            "generate",
            one,
            "--teacher",
            "served",
            "--url",
            server.url,
            "--output",
            result,
        ],
        "judge": ["rank", one, "--no-student", "--judge", "grades", "--judge-url", server.url],
        "compare": ["evaluate", one, "--judge", "letters", "--judge-url", server.url],
    }[work]
    if work == "judge":
        words += ["--no-judge-logprobs", "--json", result]
    elif work == "compare":
        words += ["--baseline-answers", folder / "base.jsonl", "--no-logprobs", "--json", result]
    words += ["--concurrency" if work == "generate" else "--judge-concurrency", given.concurrency]
    words += ["--store", folder / "store"]
    return subprocess.Popen(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def normal(path: Path) -> str:
    """Return a result so that equal ones are equal: responses come in any order."""
    return "\n".join(sorted(path.read_text().splitlines()))


if __name__ == "__main__":
    main()
