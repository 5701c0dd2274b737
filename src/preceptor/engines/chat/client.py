"""Ask any chat endpoint that speaks OpenAI's protocol: hosted services, vLLM, llama.cpp, a colleague's GPU.

A request ends in an answer or in a typed failure, within a patience that outlasts a server's
restart; trouble that may pass is retried, trouble with the request is not, and nothing is asked in other
terms than it was meant. What a server sends is untrusted text, and the key is cut out of it before anything
else reads it.

httpx is used directly: the openai package has retries of its own to switch off, a client per model of its
own types, and writes requests to its log.
"""

import asyncio
import json
import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from preceptor.config.base import Request
from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion, Failure, Finished
from preceptor.engines.chat import reading
from preceptor.engines.chat.gate import Gate, jitter
from preceptor.engines.chat.reading import Body, address_hint, read_completion
from preceptor.engines.chat.secrets import Secrets
from preceptor.engines.chat.wire import (
    denial_of,
    failure_of,
    pause_asked_for,
    payload_of,
    printable,
    refused_parameter,
)
from preceptor.errors import ModelError
from preceptor.types import Message

if TYPE_CHECKING:
    import ssl

    import httpx

logger = logging.getLogger(__name__)

RETRY_AFTER_LIMIT_S = 120.0
"""A server that asks for a longer pause is asked again after this one."""

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
# A server that was never reached is more likely misspelled than restarting.
_FIRST_PATIENCE_S = 60.0
# A page in place of the first answers is more likely a wrong address than a gateway in trouble.
_FOREIGN_TRIES = 3
_FEWER_ALTERNATIVES = 5
_LOST_ADDRESSES = (404, 405)
_PAUSING_STATUSES = (429, 503)
_LIMIT = "max_tokens"
_NEWER_LIMIT = "max_completion_tokens"

_asking: ContextVar[bool] = ContextVar("preceptor_asking", default=False)
_LOGGERS = ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy")))


_PLAIN = Request()

_Queue: TypeAlias = "queue.SimpleQueue[Finished | BaseException | None]"


class Attempt(NamedTuple):
    """What one attempt came to, the seconds the server asked to wait, the parameter it does not take."""

    outcome: Completion | Failure
    pause: float | None = None
    refused: str | None = None


class _QuietWhileAsking(logging.Filter):
    """Drops the HTTP library's records of our own requests: they quote headers and addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _asking.get()


_quiet = _QuietWhileAsking()


@contextmanager
def unrecorded() -> Iterator[None]:
    """Keep the HTTP library's records of requests out of logs, in this thread."""
    before = _asking.set(True)
    try:
        yield
    finally:
        _asking.reset(before)


class _Line(NamedTuple):
    """The connection of one worker, and the line in which all of its run wait for the pace."""

    client: "httpx.AsyncClient"
    lock: asyncio.Lock


class OpenAIChat:
    """The chat model that `endpoint` serves under the name `model`.

    With `render`, which turns a conversation into the text to be continued, it is asked for raw completions:
    for base models, and for templates that the endpoint does not have. The text goes without the token that
    begins a sequence, which servers add themselves; such answers have no `positions`. A ModelError of
    `render` is a refused request. `request` is what every request says beside what it asks.

    ModelError where the address or the key cannot be used. Nothing is asked before the first request.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        render: Callable[[Sequence[Message]], str] | None = None,
        request: Request = _PLAIN,
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.render = render
        self._request = request
        self.secrets = Secrets.of(
            endpoint.url, endpoint.api_key_env, allow_http=endpoint.allow_http
        )
        self._gate = Gate(endpoint.requests_per_minute, spread=_FIRST_DELAY_S)
        self._most_alternatives: int | None = 0 if render else None
        self._limit = _LIMIT
        self._has_warned = False
        self._reached = self._answered = False
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_quiet)

    def __repr__(self) -> str:
        return f"OpenAIChat({self.model!r}, {self.endpoint!r})"

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request, or why there is none."""
        return next(self.complete_all([request])).outcome

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every request's outcome once, as it finishes, `endpoint.concurrency` at a time.

        A request is taken when it can be sent, in a thread of its own.
        Closing the generator early ends the requests under way. Where outcomes are taken slower than they
        come, the asking waits.
        """
        finished: _Queue = queue.SimpleQueue()
        # A request keeps its place until its outcome and those that came with it were dealt with, so that a
        # killed process has paid for no more answers that it did not store.
        places = asyncio.Semaphore(self.endpoint.concurrency)
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._ask_all(requests, finished, places))
        # In a thread of its own, because a notebook's thread has a running loop already.
        thread = threading.Thread(target=_drive, args=(work, finished), daemon=True)
        thread.start()
        try:
            dealt_with = 0
            for one in _drain(finished):
                more = not finished.empty()
                yield replace(one, more=more)
                dealt_with += 1
                while dealt_with and not more:
                    loop.call_soon_threadsafe(places.release)
                    dealt_with -= 1
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()

    async def _ask_all(
        self, requests: Iterable[ChatRequest], finished: "_Queue", places: asyncio.Semaphore
    ) -> None:
        _asking.set(True)
        source = iter(enumerate(requests))
        lock, security = asyncio.Lock(), self._security()

        async def work() -> None:
            await places.acquire()
            first = next(source, None)
            if first is None:
                return
            # A client for each worker: one pool of 200 connections answers 30 requests a second, because it
            # looks at every connection for every other one at each of its steps.
            async with self._client(security) as client:
                line = _Line(client, lock)
                for index, request in chain([first], source):
                    finished.put(Finished(index, await self._ask(line, request)))
                    await places.acquire()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.endpoint.concurrency):
                group.create_task(work())

    def _security(self) -> "ssl.SSLContext":
        """Return what all connections of a run trust: it takes a while to read."""
        import httpx

        try:
            httpx.URL(self.secrets.address(""))
        except httpx.InvalidURL:
            raise ModelError(f"{self.endpoint!r} has no usable address. Check its url.") from None
        return httpx.create_ssl_context()

    def _client(self, security: "ssl.SSLContext") -> "httpx.AsyncClient":
        import httpx

        return httpx.AsyncClient(
            headers={
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                **self.secrets.headers(),
            },
            timeout=httpx.Timeout(self.endpoint.timeout_s, connect=_CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=1),
            verify=security,
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not self.secrets.loopback,
        )

    async def _ask(self, line: _Line, request: ChatRequest) -> Completion | Failure:
        """Return the outcome of one request, asked without alternatives where they are refused."""
        refusal: Failure | None = None
        for count in self._ladder(request.alternatives):
            if refusal is not None and count and "top_logprobs" not in refusal.detail:
                continue  # it is not their number that is refused
            try:
                payload = self.payload(request, count)
            except ModelError as error:
                return Failure("refused request", printable(str(error)))
            outcome = await self._ask_patiently(line, payload)
            if not (count and isinstance(outcome, Failure) and _may_be_of_logprobs(outcome)):
                break
            refusal = refusal or outcome
        if isinstance(outcome, Completion) and refusal is not None:
            self._settle_for(count, refusal)
        return outcome

    def _ladder(self, asked: int) -> list[int]:
        """Return how many alternatives to ask for, one number after another, as they are refused."""
        if self._most_alternatives is not None:
            asked = min(asked, self._most_alternatives)
        fewer = [_FEWER_ALTERNATIVES] if asked > _FEWER_ALTERNATIVES else []
        return list(dict.fromkeys([asked, *fewer, 0]))

    def _settle_for(self, count: int, refusal: Failure) -> None:
        """Ask for no more alternatives than the endpoint has just given, and say what that means."""
        if self._most_alternatives is not None and self._most_alternatives <= count:
            return
        self._most_alternatives = count
        meaning = (
            f"only the {count} likeliest tokens: a judge's expectation leaves out numbers beyond them"
            if count
            else "no log-probabilities: of a judge only the number it writes is known, which is coarser than "
            "an expectation and ties more often"
        )
        logger.warning("%s gives %s (%s)", self.model, meaning, refusal.detail)

    async def _ask_patiently(self, line: _Line, payload: dict[str, object]) -> Completion | Failure:
        end = time.monotonic() + self.endpoint.patience_s
        first_end = time.monotonic() + _FIRST_PATIENCE_S
        longest = _FIRST_DELAY_S
        foreign = 0
        while True:
            stood = await self._gate.passage(end, line.lock)
            if isinstance(stood, Failure):
                return stood
            end += stood
            attempt = await self._attempt(line.client, payload, end - time.monotonic())
            outcome = attempt.outcome
            if not isinstance(outcome, Failure):
                self._answered = True
                self._remember_limit(payload)
                return outcome
            if attempt.refused == _LIMIT and "messages" in payload:
                payload[_NEWER_LIMIT] = payload.pop(_LIMIT)
                continue
            wait = jitter(longest) + (attempt.pause or 0.0)
            longest = min(2 * longest, _LONGEST_DELAY_S)
            foreign += outcome.kind == "foreign answer"
            if foreign >= _FOREIGN_TRIES and not self._answered:
                return outcome
            if foreign or (outcome.kind == "unreachable" and not self._reached):
                end = min(end, first_end)
            if not outcome.passes or time.monotonic() + wait >= end:
                return outcome
            self._warn_of_waiting(outcome, wait)
            await asyncio.sleep(wait)

    def _remember_limit(self, payload: dict[str, object]) -> None:
        """Use the newer name of the limit from now on, once an answer has come under it."""
        if _NEWER_LIMIT in payload and self._limit != _NEWER_LIMIT:
            self._limit = _NEWER_LIMIT
            logger.warning("%s takes %s in place of %s", self.model, _NEWER_LIMIT, _LIMIT)

    def _warn_of_waiting(self, failure: Failure, wait: float) -> None:
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        logger.log(
            level,
            "%s at %r: %s; asking again in %.1f s, and so on",
            self.model,
            self.endpoint,
            failure.detail or failure.kind,
            wait,
        )

    async def _attempt(
        self, client: "httpx.AsyncClient", payload: dict[str, object], left: float
    ) -> Attempt:
        """Return what one attempt came to; it ends in time even where a server drips bytes."""
        import httpx

        seconds = max(0.1, min(self.endpoint.timeout_s, left))
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(client, payload)
        except (TimeoutError, httpx.TimeoutException):
            return Attempt(Failure("timed out", f"no answer within {seconds:.3g} s"))
        except httpx.RequestError as error:
            detail = self.secrets.cut(f"{type(error).__name__}: {error}")
            return Attempt(Failure("unreachable", printable(detail)))

    async def _exchange(self, client: "httpx.AsyncClient", payload: dict[str, object]) -> Attempt:
        url = self.secrets.address(self.function)
        # Not by the client's own json: half a surrogate pair in a text would end the run.
        content = json.dumps(payload).encode("ascii")
        async with client.stream("POST", url, content=content) as reply:
            self._reached = True
            try:
                body = await self._body_of(reply)
            except zlib.error as error:
                return Attempt(Failure("unreadable answer", f"it cannot be unpacked: {error}"))
        if reply.status_code != 200:
            return self._refusal(reply, body.text, payload)
        if not body.readable:
            detail = f"encoded as {body.encoding}, which was not asked for"
            return Attempt(Failure("foreign answer", printable(detail)))
        if not body.fits:
            return Attempt(Failure("oversized answer", f"more than {reading.BODY_LIMIT} bytes"))
        count = payload.get("n", 1)
        assert isinstance(count, int)
        return Attempt(self.outcome_of(200, body.text, count=count))

    async def _body_of(self, reply: "httpx.Response") -> Body:
        """Return the answer's bytes, of one that says it is too long none."""
        body = Body(reply.headers.get("content-encoding", ""))
        stated = reply.headers.get("content-length", "")
        if stated.isascii() and stated.isdigit() and float(stated) > reading.BODY_LIMIT:
            body.fits = False
            return body
        async for piece in reply.aiter_raw():
            if not body.add(piece):
                break
        return body

    def _misdirected(self, failure: Failure) -> Failure:
        """Return the failure with what may be wrong with the address."""
        return Failure(failure.kind, printable(address_hint(self.endpoint.url) + failure.detail))

    def _refusal(self, reply: "httpx.Response", body: str, payload: dict[str, object]) -> Attempt:
        """Return what a status other than 200 came to; a pause asked for is one for the whole client."""
        failure = failure_of(reply.status_code, body, self.secrets.cut)
        if reply.status_code in _LOST_ADDRESSES:
            return Attempt(self._misdirected(failure))
        if reply.status_code in (400, 422) and failure.kind == "refused request":
            refused = refused_parameter(body, payload)
            if refused is not None and refused != _LIMIT:
                failure = denial_of(refused, failure.detail)
            return Attempt(failure, refused=refused)
        pause = pause_asked_for(reply.headers.get("retry-after"))
        if pause is None:
            return Attempt(failure)
        pause = min(pause, RETRY_AFTER_LIMIT_S)
        if reply.status_code in _PAUSING_STATUSES:
            self._gate.close(pause, failure)
        return Attempt(failure, pause)

    @property
    def function(self) -> str:
        """The endpoint's function that is asked."""
        return "completions" if self.render else "chat/completions"

    def payload(self, request: ChatRequest, alternatives: int | None = None) -> dict[str, object]:
        """Return the body of a request, with as many alternatives as the endpoint gives where none are named.

        Raises:
            ModelError: the conversation cannot be rendered; the words hold no secret.
        """
        try:
            prompt = self.render(request.messages) if self.render else None
        except ModelError as error:
            raise ModelError(self.secrets.cut(str(error))) from None
        if alternatives is None:
            alternatives = self._ladder(request.alternatives)[0]
        payload = payload_of(
            request, model=self.model, prompt=prompt, alternatives=alternatives, limit=self._limit
        )
        for name in self._request.leave_out:
            payload.pop(name, None)
        return payload | self._request.body()

    def outcome_of(self, status: int, body: str, *, count: int = 1) -> Completion | Failure:
        """Return what an answer with this status and body comes to."""
        if status != 200:
            return failure_of(status, body, self.secrets.cut)
        outcome = read_completion(body, self.secrets, count=count)
        if isinstance(outcome, Failure) and outcome.kind == "foreign answer":
            return self._misdirected(outcome)
        return outcome


def _may_be_of_logprobs(failure: Failure) -> bool:
    """Tell whether a request may have failed because it asked for log-probabilities."""
    named = failure.kind == "denied" and "logprobs" in failure.detail
    return named or failure.kind == "refused request"


def _drive(work: "asyncio.Task[None]", finished: "_Queue") -> None:
    """Run the work's loop until it is done or cancelled; put what went wrong, and at the end None."""
    loop = work.get_loop()
    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(work)
        finished.put(None)
    except BaseException as error:
        finished.put(error)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())


def _drain(finished: "_Queue") -> Iterator[Finished]:
    """Yield what the loop's thread puts, until it ends; raise what went wrong there."""
    while (item := finished.get()) is not None:
        if isinstance(item, BaseExceptionGroup):
            raise item.exceptions[0]
        if isinstance(item, BaseException):
            raise item
        yield item
