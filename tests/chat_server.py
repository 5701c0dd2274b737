"""A small chat server on loopback that answers as told and remembers what it was asked.

It is a real server: a test gives it a list of steps, one per request, and what it does when they run out.
"""

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest
from preceptor.engines.chat import client
from preceptor.types import Message

Step = Callable[["Handler", dict[str, Any]], None]


def completion(content: str | None, *, logprobs: Any = None, reason: str = "stop") -> bytes:
    """Return the body of an answer in OpenAI's form."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}}
    body = {"choices": [{**choice, "finish_reason": reason, "logprobs": logprobs}]}
    return json.dumps({**body, "usage": {"completion_tokens": 1}}).encode()


def several(*contents: str | None, reason: str = "stop", raw: bool = False) -> bytes:
    """Return the body of several answers, or of several continuations where `raw`."""
    choices = [
        {"index": place, "finish_reason": reason, **said(content, raw=raw)}
        for place, content in enumerate(contents)
    ]
    usage = {"completion_tokens": 3 * len(contents), "prompt_tokens": 11}
    return json.dumps({"choices": choices, "usage": usage}).encode()


def said(content: str | None, *, raw: bool) -> dict[str, Any]:
    return {"text": content} if raw else {"message": {"role": "assistant", "content": content}}


def ranked(*positions: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """Return log-probabilities in OpenAI's form: the token of each position and the likeliest there."""
    return {
        "content": [
            {
                "token": token,
                "logprob": likely.get(token, -99.0),
                "top_logprobs": [{"token": t, "logprob": p} for t, p in likely.items()],
            }
            for token, likely in positions
        ]
    }


def answer(content: str | None, **options: Any) -> Step:
    return reply(200, completion(content, **options))


def reply(status: int, body: bytes = b"", **headers: str) -> Step:
    def step(handler: "Handler", _request: dict[str, Any]) -> None:
        handler.send(status, body, headers)

    return step


def refuse(status: int, message: str, **headers: str) -> Step:
    return reply(status, json.dumps({"error": {"message": message}}).encode(), **headers)


def samples(*, seed: str = "honoured", count: str = "honoured") -> Step:
    """Give random words as endpoints do that honour a seed and a count, ignore them, or give copies."""

    def step(handler: "Handler", asked: dict[str, Any]) -> None:
        told: Told = handler.server.told  # type: ignore[attr-defined]
        with told.lock:
            told.samples += 1
            root = {"honoured": asked.get("seed"), "ignored": told.samples, "no effect": 0}[seed]
        number = asked.get("n", 1) if count != "ignored" else 1
        places = [place if count == "honoured" else 0 for place in range(number)]
        texts = [words(f"{root} {place}", asked["max_tokens"]) for place in places]
        handler.send(200, several(*texts, raw="prompt" in asked), {})

    return step


def words(seed: str, number: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(("oak", "tin", "salt", "moth")) for _ in range(number))


def truncated(handler: "Handler", _request: dict[str, Any]) -> None:
    """Say how long the body is, and end the connection halfway."""
    body = completion("7")
    handler.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
    handler.close_connection = True


def reset(handler: "Handler", _request: dict[str, Any]) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


def hang(handler: "Handler", _request: dict[str, Any]) -> None:
    handler.server.told.stop.wait(20)  # type: ignore[attr-defined]
    handler.close_connection = True


def drip(handler: "Handler", _request: dict[str, Any]) -> None:
    """Send a byte now and then: no single read ever times out."""
    handler.send(200, b"", {"Content-Length": "100000"})
    with_pauses = handler.server.told.stop  # type: ignore[attr-defined]
    while not with_pauses.wait(0.05):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            break
    handler.close_connection = True


def echo_headers(status: int) -> Step:
    """Return an error that quotes the request's headers, in the body and in a header of its own."""

    def step(handler: "Handler", _request: dict[str, Any]) -> None:
        seen = str(handler.headers.get("Authorization"))
        body = json.dumps({"error": {"message": f"no entry with {seen} at all"}}).encode()
        handler.send(status, body, {"X-Seen": seen})

    return step


@dataclass
class Told:
    """What a server is to do and what it has seen."""

    steps: list[Step]
    otherwise: Step
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0
    busy: int = 0
    busiest: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Does the next step for each request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told: Told = self.server.told  # type: ignore[attr-defined]
        found = self.path == "/v1/models" and told.models
        body = {"object": "list", "data": told.models} if found else {"detail": "Not Found"}
        self.send(200 if found else 404, json.dumps(body).encode(), {})

    def do_POST(self) -> None:
        told: Told = self.server.told  # type: ignore[attr-defined]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with told.lock:
            told.requests.append(request)
            told.headers.append(dict(self.headers))
            told.paths.append(self.path)
            told.times.append(time.monotonic())
            step = told.steps.pop(0) if told.steps else told.otherwise
            told.busy += 1
            told.busiest = max(told.busiest, told.busy)
        try:
            step(self, request)
        finally:
            with told.lock:
                told.busy -= 1

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that says nothing of connections that break, since the tests break them."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_args: object) -> None:
        pass


@contextmanager
def serving(
    *steps: Step,
    otherwise: Step | None = None,
    port: int = 0,
    handler: type[Handler] = Handler,
) -> Iterator[Told]:
    """Run a server that does the steps, then always `otherwise` (default: answer 7); pauses are short."""
    told = Told(list(steps), otherwise or answer("7"))
    server = Server(("127.0.0.1", port), handler)
    server.told = told  # type: ignore[attr-defined]
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_FIRST_DELAY_S", 0.02)
            yield told
    finally:
        told.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def request(text: str = "hello", **options: Any) -> ChatRequest:
    """Return a short request."""
    return ChatRequest((Message("user", text),), max_tokens=4, **options)


def client_of(told: Told, **options: Any) -> client.OpenAIChat:
    """Return a client of the server with a few seconds of patience; options are of its endpoint."""
    given = {"url": told.url, "timeout_s": 5.0, "patience_s": 8.0, **options}
    return client.OpenAIChat(Endpoint(**given), "some-model")
