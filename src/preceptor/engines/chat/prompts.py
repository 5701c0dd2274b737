"""Ask an endpoint what it tells of a prompt, instead of for an answer: log-probabilities, or a reward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.chat.client import OpenAIChat
from preceptor.engines.chat.wire import as_object, failure_of, parsed

Prompt = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptRequest(ChatRequest):
    """A prompt of which something is to be told."""

    prompt: Prompt = ()


@dataclass(frozen=True, slots=True)
class Told(Completion):
    """What was told of a prompt, as it came."""

    of_prompt: Mapping[str, Any] = field(default_factory=dict)


class PromptClient(OpenAIChat):
    """Asks for prompts as the chat client does for answers: patient, bounded, no key in messages.

    `function` of the endpoint gets a body with the model, the prompt under the name `given`, and all that
    `asks` says; its answer is a list under the name `told`, of which the first entry is read.
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
    ) -> None:
        super().__init__(endpoint, model)
        self.function = function
        self._asks = asks
        self._given, self._told = names

    def payload(self, request: ChatRequest, alternatives: int | None = None) -> dict[str, object]:
        """Return the body of a request."""
        assert isinstance(request, PromptRequest)
        prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
        return {"model": self.model, self._given: prompt, **self._asks}

    def outcome_of(self, status: int, body: str, *, count: int = 1) -> Completion | Failure:
        """Return what an answer with this status and body comes to."""
        if status != 200:
            return failure_of(status, body, self.secrets.cut)
        found = as_object(parsed(body)).get(self._told)
        if not isinstance(found, list) or not found:
            return self._misdirected(Failure("foreign answer", f"it holds no {self._told}"))
        return Told("", of_prompt=as_object(found[0]))


def asked_of(prompt: Prompt) -> PromptRequest:
    """Return the request for one prompt."""
    return PromptRequest((), 1, prompt=prompt)
