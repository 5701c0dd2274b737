"""Judge real responses with a real model behind a real server that fails, and is killed, while it is asked.

llama.cpp's server (package xllamacpp) runs in a process of its own behind a proxy that injects rate limits,
server errors, hangs and truncated answers; halfway the server is killed with SIGKILL and started again.
Printed as JSON: what was scored and asked, that a second run asks nothing, how the scores differ from an
undisturbed run, and whether the key or a header lies in the store or the log.

    python bench/judge_faults.py --gguf MODEL.gguf --python PYTHON_WITH_XLLAMACPP ../shared/data/zoo/*.jsonl
"""

import argparse
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Endpoint
from preceptor.scorers.judge import Judge
from preceptor.store.store import Store
from preceptor.types import Instruction, Response

KEY = "sk-bench-3f1c9a7e5d2b8064"
FAULTS = ("429", "500", "hang", "truncated")
SERVER = """
import sys, time, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.port, given.n_ctx, given.n_parallel = sys.argv[1], int(sys.argv[2]), 8192, 2
given.cpuparams.n_threads = given.cpuparams_batch.n_threads = int(sys.argv[3])
server = xllamacpp.Server(given)
while True:
    time.sleep(60)
"""


class ModelServer:
    """llama.cpp's server in a process of its own, which can be killed and started again."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it serves some seconds later."""
        command = [self.given.python, "-c", SERVER, self.given.gguf, str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*command, str(self.given.threads)], **quiet)

    def wait_until_it_serves(self) -> None:
        """Return once the model is loaded."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        sys.exit("The model's server does not start: try its command by hand.")

    def kill(self) -> None:
        """End the process without warning."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_and_restart(self) -> None:
        """Kill, stay away for a second, start again."""
        self.kill()
        time.sleep(1.0)
        self.start()


class Proxy(ThreadingHTTPServer):
    """Forwards requests to the server, and injects a fault into a share of them."""

    daemon_threads = True

    def __init__(self, server: ModelServer, *, share: float, seed: int, kill_after: int | None):
        super().__init__(("127.0.0.1", 0), Forward)
        self.backend = server
        self.share = share
        self.kill_after = kill_after
        self.chance = np.random.default_rng(seed)
        self.calls = 0
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handle_error(self, *_args: object) -> None:
        """Count connections that the client gave up."""
        self.counts["connection broken"] += 1

    def next_fault(self) -> str | None:
        """Return the fault of this request, if it is to meet one; kill the server at its time."""
        with self.lock:
            self.calls += 1
            if self.calls == self.kill_after:
                self.counts["server killed"] += 1
                threading.Thread(target=self.backend.kill_and_restart).start()
            if self.chance.random() >= self.share:
                return None
            fault = FAULTS[int(self.chance.integers(len(FAULTS)))]
            self.counts[fault] += 1
            return fault


class Forward(BaseHTTPRequestHandler):
    """One request through the proxy."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_POST(self) -> None:
        """Answer with a fault or forward; errors quote the key, as careless servers do."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.next_fault()
        seen = json.dumps({"error": {"message": f"saw {self.headers['Authorization']}"}}).encode()
        if fault == "429":
            self.answer(429, seen, **{"Retry-After": "1"})
        elif fault == "500":
            self.answer(500, seen)
        elif fault == "hang":
            time.sleep(120)
            self.close_connection = True
        else:
            self.forward(body, cut=fault == "truncated")

    def forward(self, body: bytes, *, cut: bool) -> None:
        """Send the server's answer on, half of it where `cut`."""
        url = f"http://127.0.0.1:{self.server.backend.port}{self.path}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                status, answer = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        except OSError:
            self.server.counts["server away"] += 1
            self.close_connection = True
            return
        self.answer(status, answer[: len(answer) // 2] if cut else answer)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing on the terminal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("responses", nargs="+", type=Path)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--python", default=sys.executable, help="one that has xllamacpp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--instructions", type=int, default=5, help="first ones of each file")
    parser.add_argument("--characters", type=int, default=300, help="of each response at most")
    parser.add_argument("--share", type=float, default=0.3, help="of requests that meet a fault")
    parser.add_argument("--highest", type=int, default=10, help="number of the scale")
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(folder)), indent=2))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return what the runs found."""
    os.environ["PRECEPTOR_BENCH_KEY"] = KEY
    logging.basicConfig(filename=folder / "log.txt", level=logging.DEBUG, force=True)
    responses = read(given)
    server = ModelServer(given)
    server.start()
    server.wait_until_it_serves()
    try:
        disturbed = judged(given, server, responses, folder / "store", share=given.share)
        again = judged(given, server, responses, folder / "store", share=0.0)
        calm = judged(given, server, responses, folder / "calm", share=0.0)
    finally:
        server.kill()
    return {
        "rows": len(responses),
        "disturbed": disturbed,
        "second_run": again,
        "undisturbed": calm,
        **compared(folder, given, responses),
        "key_or_header_found_in": leaks(folder),
    }


def read(given: argparse.Namespace) -> list[Response]:
    """Return the responses to the first instructions of every file, cut short."""
    responses: dict[bytes, Response] = {}
    for path in given.responses:
        with path.open(encoding="utf-8") as lines:
            for line, _ in zip(lines, range(given.instructions), strict=False):
                row = json.loads(line)
                instruction = Instruction.from_text(row["instruction"][: given.characters])
                response = Response(path.stem, instruction, row["output"][: given.characters])
                responses[response.key] = response
    return list(responses.values())[: given.rows]


def judged(
    given: argparse.Namespace,
    server: ModelServer,
    responses: Sequence[Response],
    root: Path,
    *,
    share: float,
) -> dict[str, object]:
    """Score what the store lacks through a proxy; return what that took."""
    proxy = Proxy(
        server, share=share, seed=given.seed, kill_after=len(responses) // 2 if share else None
    )
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    start = time.perf_counter()
    judge = judge_at(f"http://127.0.0.1:{proxy.server_port}/v1", given)
    partition = Store(root).scores(judge.identity())
    present = set(partition.keys().tolist())
    scores = 0
    for batch in judge.score([one for one in responses if one.key not in present]):
        partition.append(batch)
        scores += len(batch)
    proxy.shutdown()
    proxy.server_close()
    return {
        "stored_before": len(present),
        "stored_now": scores,
        "calls": proxy.calls,
        "faults": dict(proxy.counts),
        "seconds": round(time.perf_counter() - start, 1),
    }


def judge_at(url: str, given: argparse.Namespace) -> Judge:
    """Return the judge; where it is served is no part of its identity."""
    endpoint = Endpoint(
        url=url, api_key_env="PRECEPTOR_BENCH_KEY", concurrency=2, timeout_s=given.timeout
    )
    return Judge(JudgeReward(model=Path(given.gguf).name, scale=(1, given.highest)), endpoint)


def compared(
    folder: Path, given: argparse.Namespace, responses: Sequence[Response]
) -> dict[str, object]:
    """Return how the scores of the disturbed and of the undisturbed run differ."""
    judge = judge_at("http://127.0.0.1:1/v1", given)
    keys = [response.key for response in responses]
    one, other = (
        Store(folder / name)
        .scores(judge.identity())
        .columns(keys, ("score", "mass", "sampled", "expected"))
        for name in ("store", "calm")
    )
    both = ~np.isnan(one["score"]) & ~np.isnan(other["score"])
    apart = np.abs(one["score"] - other["score"])[both]
    return {
        "with_score": int(both.sum()),
        "notes": dict(Counter(note for note in one["note"] if note is not None)),
        "same_rows_noted": bool(np.all((one["note"] == None) == (other["note"] == None))),  # noqa: E711
        "expectations": int(np.nansum(one["expected"])),
        "mean_mass": round(float(np.nanmean(one["mass"])), 3) if both.any() else None,
        "scores_from_to": [float(np.nanmin(one["score"])), float(np.nanmax(one["score"]))]
        if both.any()
        else None,
        "largest_difference": float(apart.max()) if both.any() else None,
        "median_difference": float(np.median(apart)) if both.any() else None,
        "rows_that_differ": int((apart > 0).sum()),
        "rows_drawn_differently": int(
            (np.nan_to_num(one["sampled"]) != np.nan_to_num(other["sampled"])).sum()
        ),
    }


def leaks(folder: Path) -> list[str]:
    """Return the files with the key, or with the header that carries it."""
    signs = (KEY.encode(), b"Authorization", b"Bearer ")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(p.relative_to(folder)) for p in files if any(s in p.read_bytes() for s in signs)]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
