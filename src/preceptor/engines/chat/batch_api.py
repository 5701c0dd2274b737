"""A provider's batch functions as OpenAI documents them: a file goes up, a batch is made, files come down.

`POST /files`, `POST /batches`, `GET /batches/{id}`, `GET /files/{id}/content`. Whatever comes back is
untrusted: bounded in size, read field by field, without secrets in what is said of it.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import Failure
from preceptor.engines.chat.gate import jitter
from preceptor.engines.chat.reading import BODY_LIMIT
from preceptor.engines.chat.secrets import Secrets
from preceptor.engines.chat.wire import as_object, failure_of, parsed, pause_asked_for, printable
from preceptor.errors import ModelError

if TYPE_CHECKING:
    import httpx

FILE_LIMIT = 4 * 2**30
"""Bytes of a file of results that are read at most."""

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0
_FINISHED = ("completed", "expired", "cancelled", "failed")
_PAGES = 20


class GoneError(Exception):
    """The provider has no batch or file of this name, or keeps it no longer."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is; `files` are those of its results, and `words` what is wrong with it."""

    status: str
    done: int
    failed: int
    files: tuple[str, ...]
    words: str

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _FINISHED


class BatchApi:
    """The batch functions of one endpoint; every failure that may pass is tried again within its patience."""

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self._endpoint, self._secrets = endpoint, secrets

    def upload(self, lines: IO[bytes]) -> str:
        """Return the name of a file of requests, one to a line."""
        lines.seek(0)
        files = {"file": ("requests.jsonl", lines, "application/jsonl")}
        return _named(self._object("POST", "files", data={"purpose": "batch"}, files=files))

    def create(self, file: str, function: str, token: str) -> str:
        """Hand a batch over once and return its name, whatever happens to the answer on its way."""
        body = {
            "input_file_id": file,
            "endpoint": f"/v1/{function}",
            "completion_window": "24h",
            "metadata": {"preceptor": token},
        }
        end, delay = time.monotonic() + self._endpoint.patience_s, _FIRST_DELAY_S
        while True:
            try:
                return _named(self._object("POST", "batches", patience=0.0, json=body))
            except TimeoutError as error:
                # It may have been made all the same: a second one would be paid for too.
                if found := self.find(token):
                    return found
                if time.monotonic() > end:
                    raise ModelError(f"No batch can be handed over: {error}. Run again.") from error
                time.sleep(jitter(delay))
                delay = min(2 * delay, _LONGEST_DELAY_S)

    def find(self, token: str) -> str | None:
        """Return the name of the batch that this token went along with; None where there is none."""
        after = ""
        for _ in range(_PAGES):
            page = self._object("GET", f"batches?limit=100{after}")
            listed = page.get("data")
            batches = [as_object(one) for one in listed] if isinstance(listed, list) else []
            for one in batches:
                if as_object(one.get("metadata")).get("preceptor") == token:
                    return _named(one)
            if not batches or page.get("has_more") is not True:
                return None
            after = f"&after={_named(batches[-1])}"
        return None

    def progress(self, batch: str) -> Progress:
        """Return how far a batch is; GoneError where there is none of that name."""
        found = self._object("GET", f"batches/{batch}")
        counts = as_object(found.get("request_counts"))
        files = (found.get("output_file_id"), found.get("error_file_id"))
        listed = as_object(found.get("errors")).get("data")
        errors = (
            [as_object(one).get("message") for one in listed] if isinstance(listed, list) else []
        )
        return Progress(
            str(found.get("status"))[:40],
            _count(counts.get("completed")),
            _count(counts.get("failed")),
            tuple(one for one in files if isinstance(one, str) and _is_name(one)),
            printable(self._secrets.cut("; ".join(str(one) for one in errors[:3]))),
        )

    def results(self, file: str) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of a file of results; what is no object is skipped. GoneError where it is gone."""
        with tempfile.TemporaryFile() as kept:
            self._request("GET", f"files/{file}/content", kept, most=FILE_LIMIT)
            kept.seek(0)
            while line := kept.readline(BODY_LIMIT):
                if found := as_object(parsed(line.decode("utf-8", "replace"))):
                    yield found

    def _object(
        self, method: str, path: str, *, patience: float | None = None, **sent: Any
    ) -> Mapping[str, Any]:
        with tempfile.TemporaryFile() as kept:
            self._request(method, path, kept, most=BODY_LIMIT, patience=patience, **sent)
            kept.seek(0)
            return as_object(parsed(kept.read().decode("utf-8", "replace")))

    def _request(
        self, method: str, path: str, kept: IO[bytes], *, patience: float | None = None, **sent: Any
    ) -> None:
        """Write an answer to `kept`; TimeoutError without patience, ModelError where it will not come."""
        end = time.monotonic() + (self._endpoint.patience_s if patience is None else patience)
        delay = _FIRST_DELAY_S
        while True:
            failure, pause = self._try(method, path, kept, **sent)
            if failure is None:
                return
            if not failure.passes:
                function = path.partition("?")[0]
                raise ModelError(
                    f"{self._endpoint!r} refuses {function} ({failure.detail}). Check that it "
                    "has a batch API, the key and the model, or leave out batch_api."
                )
            wait = jitter(delay) + (pause or 0.0)
            delay = min(2 * delay, _LONGEST_DELAY_S)
            if time.monotonic() + wait > end:
                if patience is not None:
                    raise TimeoutError(failure.detail)
                raise ModelError(
                    f"{self._endpoint!r} does not answer ({failure.detail}). Run again: nothing is lost."
                )
            time.sleep(wait)

    def _try(
        self, method: str, path: str, kept: IO[bytes], *, most: int, **sent: Any
    ) -> tuple[Failure | None, float | None]:
        """Return the failure of one attempt, None where there is an answer, and the pause asked for."""
        import httpx

        kept.seek(0)
        kept.truncate()
        for _, file, _ in sent.get("files", {}).values():
            file.seek(0)
        try:
            with (
                self._client() as client,
                client.stream(method, self._secrets.address(path), **sent) as reply,
            ):
                for piece in reply.iter_bytes():
                    kept.write(piece)
                    if kept.tell() > most:
                        return Failure("oversized answer", f"more than {most} bytes"), None
        except httpx.HTTPError as error:
            detail = self._secrets.cut(f"{type(error).__name__}: {error}")
            return Failure("unreachable", printable(detail)), None
        if reply.status_code == 404 and "/" in path:
            raise GoneError(path)
        if reply.status_code == 200:
            return None, None
        kept.seek(0)
        words = kept.read(BODY_LIMIT).decode("utf-8", "replace")
        failure = failure_of(reply.status_code, words, self._secrets.cut)
        return failure, pause_asked_for(reply.headers.get("retry-after"))

    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(
            headers={"Accept-Encoding": "identity", **self._secrets.headers()},
            timeout=httpx.Timeout(self._endpoint.timeout_s, connect=10.0),
            trust_env=not self._secrets.loopback,
        )


def body_of(result: Mapping[str, Any]) -> tuple[int, str]:
    """Return the status and the body of one line of results; of one without an answer what is wrong."""
    response = as_object(result.get("response"))
    status, body = response.get("status_code"), response.get("body")
    if isinstance(status, int) and 100 <= status < 600:
        return status, json.dumps(body)
    # Expired and cancelled requests have an error alone: they were not answered, and may be asked again.
    return 504, json.dumps({"error": result.get("error")})


def _named(found: Mapping[str, Any]) -> str:
    name = found.get("id")
    if isinstance(name, str) and _is_name(name):
        return name
    raise ModelError(
        "The endpoint answers a request of its batch API without a usable id. Leave out batch_api."
    )


def _is_name(text: str) -> bool:
    """Tell whether a name can stand in an address as it is."""
    return (
        0 < len(text) <= 200 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0
