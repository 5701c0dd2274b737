"""Ask an endpoint that fails one request in five, two hundred requests at once, and count what comes of each.

A small server in a process of its own answers after a short while, and fails a share of what it is asked:
server errors, rate limits with and without a pause, broken connections, truncated answers, hangs, pages in
place of answers. Printed as JSON, for that server and for one without faults: requests, attempts, outcomes,
duplicates, lost, seconds; and how many times longer the first took. Requests are made when they are looked
at, so that the growth of memory is the client's own.

    python bench/endpoint_faults.py --requests 2000
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion
from preceptor.engines.chat.client import OpenAIChat
from preceptor.types import Message

FAULTS = ("500", "429", "429 with pause", "dropped", "truncated", "hang", "page")


class FaultyServer:
    """Echoes the text it is asked with, or fails."""

    def __init__(self, given: argparse.Namespace, share: float) -> None:
        self.given = given
        self.share = share
        self.chance = np.random.default_rng(given.seed)
        self.counts: Counter[str] = Counter()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection until either side ends it."""
        try:
            while await self.exchange(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.counts["given up by the client"] += 1
        finally:
            writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        first = await reader.readline()
        if not first:
            return False
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = await reader.readexactly(length)
        if first.startswith(b"GET"):
            writer.write(framed(200, json.dumps(self.counts).encode()))
            return True
        self.counts["attempts"] += 1
        return await self.act(json.loads(body)["messages"][0]["content"], writer)

    async def act(self, text: str, writer: asyncio.StreamWriter) -> bool:
        """Answer or fail as chance has it; return whether the connection goes on."""
        fault = "none"
        if self.chance.random() < self.share:
            fault = FAULTS[int(self.chance.integers(len(FAULTS)))]
            self.counts[fault] += 1
        if fault == "hang":
            await asyncio.sleep(10 * self.given.timeout)
            return False
        await asyncio.sleep(self.given.latency)
        if fault == "dropped":
            return False
        if fault in ("500", "429", "429 with pause"):
            pause = f"Retry-After: {self.given.pause}\r\n" if "pause" in fault else ""
            writer.write(framed(int(fault[:3]), b"{}", pause))
            return True
        if fault == "page":
            writer.write(framed(200, b"<html><title>502 Bad Gateway</title></html>"))
            return True
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        whole = framed(200, json.dumps({"choices": [choice]}).encode())
        writer.write(whole[:-20] if fault == "truncated" else whole)
        return fault != "truncated"


def framed(status: int, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def serve(given: argparse.Namespace, share: float, port: int) -> None:
    async def run() -> None:
        server = FaultyServer(given, share)
        await asyncio.start_server(server.connection, "127.0.0.1", port, backlog=1024)
        await asyncio.sleep(86400)

    asyncio.run(run())


class Numbered(Sequence[ChatRequest]):
    """So many requests, each made when it is looked at; the number is the text."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, place: Any) -> Any:
        if place >= self.number:
            raise IndexError(place)
        return ChatRequest((Message("user", str(place)),), max_tokens=16)


def measure(given: argparse.Namespace, share: float) -> dict[str, object]:
    """Return what came of the requests to a server that fails this share of them."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(given, share, port), daemon=True
    )
    process.start()
    try:
        wait_until_it_serves(port)
        found = asked(given, f"http://127.0.0.1:{port}/v1")
        return {**found, "server": counts_of(port)}
    finally:
        process.terminate()
        process.join()


def asked(given: argparse.Namespace, url: str) -> dict[str, object]:
    """Ask everything; return what came of it."""
    endpoint = Endpoint(
        url=url, concurrency=given.concurrency, timeout_s=given.timeout, patience_s=given.patience
    )
    seen = np.zeros(given.requests, dtype=np.int64)
    failures: Counter[str] = Counter()
    memory: list[float] = []
    start = time.perf_counter()
    for one in OpenAIChat(endpoint, "served").complete_all(Numbered(given.requests)):
        seen[one.index] += 1
        if not isinstance(one.outcome, Completion):
            failures[one.outcome.kind] += 1
        elif one.outcome.text != str(one.index):
            failures["the answer to another request"] += 1
        if seen.sum() % max(1, given.requests // 10) == 0:
            memory.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))
    return {
        "requests": given.requests,
        "outcomes": int(seen.sum()),
        "duplicates": int((seen > 1).sum()),
        "lost": int((seen == 0).sum()),
        "failures": dict(failures),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_memory_mb_at_each_tenth": memory,
    }


def wait_until_it_serves(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("The server does not start.")


def counts_of(port: int) -> dict[str, int]:
    """Ask the server what it did."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        counts: dict[str, int] = json.loads(connection.recv(65536).partition(b"\r\n\r\n")[2])
    return counts


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.2, help="of requests that meet a fault")
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of one answer")
    parser.add_argument("--pause", type=int, default=1, help="seconds of Retry-After")
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--patience", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    faulty, faultless = measure(given, given.share), measure(given, 0.0)
    seconds = [float(str(found["seconds"])) for found in (faulty, faultless)]
    summary = {"faulty": faulty, "faultless": faultless, "ratio": round(seconds[0] / seconds[1], 2)}
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
