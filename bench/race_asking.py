"""Race teachers that are asked at a loopback endpoint with prices; kill the race five times, and resume it.

Eight teachers answer questions and are right ever less often. Printed as JSON: the money that the race spent
beside the money that asking everybody everything costs; and of a race that was killed without warning at
random moments and run again: whether the decisions are the same, and which answers were stored twice or paid
for twice. An answer on its way when the process is killed is lost with it, and asked again: at most as many
as the endpoint is asked at a time. Of those that were lost it is said how long before the kill the server had
sent them: what lies between is the client's way from an answer to the disk.

    python bench/race_asking.py --prompts 2000
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from preceptor.config.runtime import Endpoint
from preceptor.store.store import Store

RIGHT = (0.82, 0.76, 0.7, 0.64, 0.58, 0.5, 0.4, 0.3)
"""The share of right answers of each teacher."""

PROMPT_TOKENS, TOKENS = 40, 200
PRICES = [(0.1 * (place + 1), 0.4 * (place + 1)) for place in reversed(range(len(RIGHT)))]
"""Money for a million tokens in and out; the best teacher is the dearest."""


class Server(ThreadingHTTPServer):
    """Answers from the text of the question, and counts what it answered."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, pause: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pause, self.answered, self.lock = pause, Counter[tuple[str, str]](), threading.Lock()
        self.sent: dict[tuple[str, str], list[float]] = {}

    def handle_error(self, *_args: object) -> None:
        """Say nothing of connections that a killed client broke."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer right or wrong by the teacher and the question, the same whenever it is asked."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, question = asked["model"], asked["messages"][-1]["content"]
        server = self.server
        assert isinstance(server, Server)
        time.sleep(server.pause)
        right = random.Random(f"{name} {question}").random() < RIGHT[int(name.removeprefix("t"))]
        message = {"role": "assistant", "content": "yes" if right else "no"}
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": TOKENS}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": usage}).encode()
        with server.lock:
            server.answered[name, question] += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with server.lock:
            server.sent.setdefault((name, question), []).append(time.monotonic())

    def log_message(self, *_args: object) -> None:
        """Write no log."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds before an answer")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    server = Server(given.pause)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(folder), server), indent=2))


def measure(given: argparse.Namespace, folder: Path, server: Server) -> dict[str, object]:
    """Return what the whole race and the killed one came to."""
    start = time.perf_counter()
    whole = finished(run(given, folder, server, "whole"), folder / "whole.json")
    seconds = time.perf_counter() - start
    paid = dict(server.answered)
    server.answered.clear()
    server.sent.clear()
    moments, kills = random.Random(given.seed), list[float]()
    for _ in range(given.kills):
        before = sum(server.answered.values())
        process = run(given, folder, server, "killed")
        # What is killed while it loads proves nothing: wait until it asks, then strike at random.
        while process.poll() is None and sum(server.answered.values()) <= before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, seconds / (given.kills + 1)))
        if process.poll() is None:
            kills.append(time.monotonic())
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = finished(run(given, folder, server, "killed"), folder / "killed.json")
    again = {key: count - 1 for key, count in server.answered.items() if count > 1}
    return {
        "verdict": whole["verdict"]["text"],
        "prompts": given.prompts,
        "teachers": len(RIGHT),
        "looks": len(whole["looks"]),
        "left_after": {one["teacher"]: one["rows"] for one in whole["racers"]},
        "money_spent": money(paid),
        "money_said_to_be_spent": whole["costs"][-1]["money"],
        "money_in_full": sum(map(price, range(len(RIGHT)))) * given.prompts,
        "money_said_to_be_in_full": whole["full"]["money"],
        "requests": sum(paid.values()),
        "requests_in_full": len(RIGHT) * given.prompts,
        "seconds": round(seconds, 1),
        "kills": len(kills),
        "same_decisions": decisions(killed) == decisions(whole),
        "same_answers_asked": set(server.answered) == set(paid),
        "answers_stored_twice": stored_twice(folder / "killed"),
        "requests_lost_with_a_kill_and_asked_again": sum(again.values()),
        "at_most_in_flight": len(kills) * Endpoint(url="http://127.0.0.1").concurrency,
        "sent_so_many_ms_before_the_kill": sorted(
            lost_after(server.sent[key], kills) for key in again
        ),
    }


def lost_after(sent: list[float], kills: list[float]) -> float:
    """Return how many milliseconds after an answer was sent the kill came that lost it."""
    return round(1000 * min((kill - sent[0] for kill in kills), key=abs), 2)


def run(
    given: argparse.Namespace, folder: Path, server: Server, name: str
) -> "subprocess.Popen[bytes]":
    """Start the command on the store `name`."""
    questions = folder / "questions.jsonl"
    rows = ({"instruction": f"Is number {at} odd?"} for at in range(given.prompts))
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = folder / f"{name}.toml"
    study.write_text(study_text(questions, folder / name, server.server_port))
    command = [sys.executable, "-m", "preceptor", "run", str(study)]
    command += ["--json", str(folder / f"{name}.json")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def study_text(questions: Path, store: Path, port: int) -> str:
    """Return the study file."""
    teachers, endpoints = [], []
    for place, (asked, told) in enumerate(PRICES):
        fields = f'model = "t{place}"\nengine = "openai"\nmax_tokens = 300\n'
        teachers.append(f"[[teachers]]\n{fields}price_in = {asked}\nprice_out = {told}\n")
        address = f"http://127.0.0.1:{port}/v1"
        endpoints.append(f'[runtime.endpoints."t{place}"]\nurl = "{address}"\n')
    return (
        f'by = "reward"\nno_student = true\n[race]\n[data]\ninstructions = "{questions}"\n'
        '[reward]\nkind = "rule"\nrule = { kind = "contains", answer = "yes" }\n'
        f'{"".join(teachers)}[runtime]\nstore = "{store}"\ndevice = "cpu"\n{"".join(endpoints)}'
    )


def finished(process: "subprocess.Popen[bytes]", path: Path) -> dict[str, Any]:
    """Return the race that the process writes."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said.decode())
    (found,) = json.loads(path.read_text())
    return dict(found)


def decisions(race: dict[str, Any]) -> object:
    """Return what was decided at every look."""
    return [race["ending"], race["recommended"], race["looks"]]


def price(place: int) -> float:
    """Return what an answer of a teacher costs."""
    asked, told = PRICES[place]
    return (PROMPT_TOKENS * asked + TOKENS * told) / 1e6


def money(answered: dict[tuple[str, str], int]) -> float:
    """Return what these answers cost."""
    places = ((int(name.removeprefix("t")), count) for (name, _), count in answered.items())
    return sum(price(place) * count for place, count in places)


def stored_twice(root: Path) -> int:
    """Return how many answers lie in the store more than once."""
    import pyarrow.parquet as pq

    twice = 0
    for partition in Store(root).partitions():
        if partition.kind != "responses":
            continue
        counts = Counter(
            key
            for path in (root / "responses" / partition.identity.digest).glob("part-*.parquet")
            for key in pq.read_table(path, columns=["key"])["key"].to_pylist()
        )
        twice += sum(count - 1 for count in counts.values())
    return twice


if __name__ == "__main__":
    main()
