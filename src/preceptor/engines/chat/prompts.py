"""Ask an endpoint what it tells of a prompt, instead of for an answer: log-probabilities, or a reward."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.chat.client import Attempt, OpenAIChat, unrecorded
from preceptor.engines.chat.reading import Body
from preceptor.engines.chat.wire import as_object, failure_of, parsed

if TYPE_CHECKING:
    import httpx

Prompt = str | tuple[int, ...]

_CONTEXT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class PromptRequest(ChatRequest):
    """A prompt of which something is to be told."""

    prompt: Prompt = ()


@dataclass(frozen=True, slots=True)
class Told(Completion):
    """What was told of a prompt, as it came, and what the server says of its own settings."""

    of_prompt: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


class PromptClient(OpenAIChat):
    """Asks for prompts as the chat client does for answers: patient, bounded, no key in messages.

    `function` of the endpoint gets a body with the model, the prompt under the name `given`, and all that
    `asks` says; its answer is a list under the name `told`, of which the first entry is read. `of_openai`
    says that the function is one of OpenAI's, whose addresses have a version.
    """

    function = "completions"

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        asks: Mapping[str, object],
        *,
        function: str = "completions",
        names: tuple[str, str] = ("prompt", "choices"),
        of_openai: bool = True,
    ) -> None:
        super().__init__(endpoint, model)
        self.function = function
        self._asks = asks
        self._given, self._told = names
        self._of_openai = of_openai
        self.interruptions = 0
        """How often it could not be reached."""

    def payload(self, request: ChatRequest, alternatives: int | None = None) -> dict[str, object]:
        """Return the body of a request."""
        assert isinstance(request, PromptRequest)
        prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
        return {"model": self.model, self._given: prompt, **self._asks}

    def outcome_of(self, status: int, body: str, *, count: int = 1) -> Completion | Failure:
        """Return what an answer with this status and body comes to."""
        if status != 200:
            return failure_of(status, body, self.secrets.cut)
        whole = as_object(parsed(body))
        found = whole.get(self._told)
        if not isinstance(found, list) or not found:
            return self._misdirected(Failure("foreign answer", f"it holds no {self._told}"))
        fingerprint = str(whole.get("system_fingerprint") or "")
        return Told("", of_prompt=as_object(found[0]), fingerprint=fingerprint)

    async def _attempt(
        self, client: "httpx.AsyncClient", payload: dict[str, object], left: float
    ) -> Attempt:
        attempt = await super()._attempt(client, payload, left)
        if isinstance(attempt.outcome, Failure) and attempt.outcome.kind == "unreachable":
            self.interruptions += 1
        return attempt

    def _misdirected(self, failure: Failure) -> Failure:
        return super()._misdirected(failure) if self._of_openai else failure

    def context(self) -> int | None:
        """Return the most tokens that the server says it takes, as vLLM's list of models does; None without.

        Nothing that goes wrong is an error: the server is asked for more than this.
        """
        import httpx

        path = "models" if self._of_openai else "v1/models"
        client = httpx.Client(
            headers={"Accept-Encoding": "identity", **self.secrets.headers()},
            timeout=min(self.endpoint.timeout_s, _CONTEXT_TIMEOUT_S),
            trust_env=not self.secrets.loopback,
        )
        body, end = Body(""), time.monotonic() + _CONTEXT_TIMEOUT_S
        try:
            with unrecorded(), client, client.stream("GET", self.secrets.address(path)) as reply:
                if reply.status_code != 200:
                    return None
                for piece in reply.iter_raw():
                    if not body.add(piece) or time.monotonic() > end:
                        return None
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        models = as_object(parsed(body.text)).get("data")
        for one in map(as_object, models if isinstance(models, list) else ()):
            most = one.get("max_model_len")
            if one.get("id") == self.model and type(most) is int and most > 0:
                return most
        return None


def asked_of(prompt: Prompt) -> PromptRequest:
    """Return the request for one prompt."""
    return PromptRequest((), 1, prompt=prompt)
