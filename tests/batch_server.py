"""A loopback stand-in of a provider's batch API, as OpenAI documents it, beside the chat server."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import chat_server as chat
from chat_server import Told, serving

Fate = Callable[[dict[str, Any]], "bytes | int | str"]
"""What becomes of a request's body: an answer, the status of a refusal, `expired`, or `lost`."""


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def echo(body: dict[str, Any]) -> bytes:
    return chat.completion(f"Answer to: {text_of(body)}")


@dataclass
class Provider:
    """What the provider holds, and how it is to behave."""

    told: Told
    fate: Fate = echo
    polls: int = 1
    """How often a batch is asked after before it has ended."""
    end: str = "completed"
    vanish: int = 0
    """So many batches are made whose name never reaches the client."""
    busy: int = 0
    """So many requests to the batch API are refused with a 503 first."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    on_poll: Callable[[], None] = lambda: None

    @property
    def asked(self) -> list[str]:
        """The texts that were asked for in all batches: each of them is paid for."""
        lines = [line for one in self.batches.values() for line in self.lines(one)]
        return [text_of(line["body"]) for line in lines]

    def lines(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def upload(self, handler: "Handler", raw: bytes) -> dict[str, Any]:
        kind = handler.headers["Content-Type"]
        form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
        parts = {
            part.get_param("name", header="content-disposition"): part for part in form.iter_parts()
        }  # type: ignore[attr-defined]
        assert parts["purpose"].get_payload(decode=True) == b"batch"
        name = f"file-{len(self.files)}"
        self.files[name] = parts["file"].get_payload(decode=True)
        return {"id": name, "object": "file", "purpose": "batch"}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["completion_window"] == "24h" and asked["endpoint"] == "/v1/chat/completions"
        name = f"batch_{len(self.batches)}"
        batch = {"id": name, "object": "batch", "status": "validating", "left": self.polls, **asked}
        ids = [line["custom_id"] for line in self.lines(batch)]
        assert len(set(ids)) == len(ids)
        self.batches[name] = batch
        return batch

    def poll(self, name: str) -> dict[str, Any]:
        self.on_poll()
        batch = self.batches.get(name, {"status": "gone", "left": 99})
        batch["left"] -= 1
        if batch["left"] >= 0:
            batch["status"] = "in_progress"
        elif batch["status"] != self.end:
            batch["status"] = self.end
            if self.end == "failed":
                batch["errors"] = {"data": [{"message": "Enqueued token limit reached"}]}
            else:
                self.finish(batch)
        return batch

    def finish(self, batch: dict[str, Any]) -> None:
        output, errors = [], []
        for line in reversed(self.lines(batch)):  # in any order
            fate = self.fate(line["body"])
            result: dict[str, Any] = {
                "custom_id": line["custom_id"],
                "response": None,
                "error": None,
            }
            if isinstance(fate, bytes):
                result["response"] = {"status_code": 200, "body": json.loads(fate)}
                output.append(result)
            elif isinstance(fate, int):
                result["response"] = {"status_code": fate, "body": {"error": {"message": "no"}}}
                errors.append(result)
            elif fate == "expired":
                result["error"] = {"code": "batch_expired", "message": "not in time"}
                errors.append(result)
        for key, results in (("output_file_id", output), ("error_file_id", errors)):
            name = f"file-{len(self.files)}"
            self.files[name] = "".join(json.dumps(one) + "\n" for one in results).encode()
            batch[key] = name if results else None
        batch["request_counts"] = {"completed": len(output), "failed": len(errors)}

    def listed(self) -> dict[str, Any]:
        return {"data": list(reversed(self.batches.values())), "has_more": False}


class Handler(chat.Handler):
    """Serves the batch API's functions, and chats as it is told."""

    provider: Provider

    def do_POST(self) -> None:
        path = self.path.removeprefix("/v1/")
        if path not in ("files", "batches"):
            super().do_POST()
            return
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self._busy():
            return
        found = (
            self.provider.upload(self, raw)
            if path == "files"
            else self.provider.create(json.loads(raw))
        )
        if path == "batches" and self.provider.vanish:
            self.provider.vanish -= 1
            chat.reset(self, {})
            return
        self.send(200, json.dumps(found).encode(), {})

    def do_GET(self) -> None:
        parts = self.path.removeprefix("/v1/").partition("?")[0].split("/")
        if self._busy():
            return
        if parts == ["batches"]:
            body = json.dumps(self.provider.listed()).encode()
        elif parts[0] == "batches" and parts[1] in self.provider.batches:
            body = json.dumps(self.provider.poll(parts[1])).encode()
        elif parts[0] == "files" and parts[1] in self.provider.files:
            body = self.provider.files[parts[1]]
        else:
            self.send(404, b'{"error": {"message": "no such thing"}}', {})
            return
        self.send(200, body, {})

    def _busy(self) -> bool:
        self.provider.seen.append(f"{self.command} {self.path.removeprefix('/v1/')}")
        if not self.provider.busy:
            return False
        self.provider.busy -= 1
        self.send(503, b"{}", {})
        return True


@contextmanager
def providing(**behaviour: Any) -> Iterator[Provider]:
    """Run a provider; single requests are answered as those of batches are."""

    def at_once(handler: chat.Handler, asked: dict[str, Any]) -> None:
        handler.send(200, echo(asked), {})

    class Bound(Handler):
        pass

    with serving(otherwise=at_once, handler=Bound) as told:
        Bound.provider = Provider(told, **behaviour)
        yield Bound.provider
