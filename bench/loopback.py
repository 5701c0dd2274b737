"""A chat endpoint on loopback that says the same to the same request, and counts what it was asked."""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Self

WORDS = ("the", "cat", "sat", "on", "mat", "sea", "is", "wide", "deep", "two", "plus", "four")


class CountingServer:
    """Runs in a thread. `asked` counts each request by its content; `in_flight` are not answered yet.

    The model's name says what it answers: `letters` one of two letters, `grades` a number, others words.
    """

    def __init__(self, delay: float) -> None:
        self.asked: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def twice(self) -> int:
        """Requests beyond the first of each."""
        return sum(self.asked.values()) - len(self.asked)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        )
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                length = 0
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                await self._answer(await reader.readexactly(length), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        request = json.loads(body)
        self.asked[hashlib.blake2b(body).hexdigest()] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay)
            choice = {"message": {"content": said(request)}, "finish_reason": "stop"}
            answer = json.dumps({"choices": [choice]}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
            writer.write(head.encode() + answer)
            await writer.drain()
        finally:
            self.in_flight -= 1


def said(request: dict[str, Any]) -> str:
    """Return what follows from the request alone."""
    digest = hashlib.blake2b(json.dumps(request["messages"]).encode(), digest_size=12).digest()
    if request["model"] == "letters":
        return "mM"[digest[0] % 2]
    if request["model"] == "grades":
        return str(1 + digest[0] % 10)
    return " ".join(WORDS[byte % len(WORDS)] for byte in digest)
