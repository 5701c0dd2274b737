"""A responder puts a teacher's answer on an instruction; this is all that teachers are to the runner.

It is to responses what a scorer is to scores: an identity that covers everything that can change a text, and
an engine that is loaded or contacted only when something is missing. Labels, addresses, keys and batch sizes
never enter the identity, so a renamed teacher or another server pays for nothing twice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from preceptor.digests import Identity
from preceptor.engines.base import ChatModel, ChatRequest
from preceptor.engines.fake import FakeChat
from preceptor.engines.models import (
    LocatedModel,
    context_length,
    load_model,
    load_tokenizer,
    locate,
)
from preceptor.engines.openai import Endpoint, OpenAIChat
from preceptor.errors import ModelError
from preceptor.templates import ChatTemplate, Encoder, choose_template
from preceptor.types import Instruction, Message

if TYPE_CHECKING:
    from preceptor.engines.vllm import VllmChat

Engine = Literal["transformers", "vllm", "openai", "fake"]

_MARK = re.compile(r"<[^<>\s]{1,40}>")
_PROBE = (
    Message("system", "A"),
    Message("user", "B"),
    Message("assistant", "C"),
    Message("user", "D"),
)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn from a teacher; temperature 0 is greedy.

    Sample i has the seed `seed + i`. `samples_per_request` of them share a request, and then its seed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()
    samples: int = 1
    samples_per_request: int = 1
    seed: int = 0

    def spec(self) -> dict[str, object]:
        """Return what bears on a sample's text; greedy texts know neither seed nor nucleus."""
        spec = asdict(self)
        del spec["samples"]
        if self.temperature == 0:
            spec |= {"top_p": 1.0, "seed": None}
        return spec

    def described(self) -> str:
        """Return how it samples, in words."""
        if self.temperature == 0:
            return "greedy"
        nucleus = f", top-p {self.top_p:g}" if self.top_p < 1 else ""
        count = f", {self.samples} samples" if self.samples > 1 else ""
        return f"temperature {self.temperature:g}{nucleus}{count}, seed {self.seed}"


@dataclass(frozen=True)
class TeacherOptions:
    """A teacher: its label, its model and how it answers.

    `api` is for served models, `template`, `max_length` (tokens of prompt and response) and `dtype` for
    those rendered or run here. `system` goes before every conversation.
    """

    name: str
    model: str
    engine: Engine
    sampling: Sampling
    revision: str | None = None
    api: Literal["chat", "completions"] = "chat"
    template: str = "auto"
    max_length: int = 8192
    dtype: str = "float32"
    system: str = ""


class Responder(Protocol):
    """One teacher that can be asked."""

    @property
    def options(self) -> TeacherOptions:
        """What it is."""
        ...

    @property
    def chat(self) -> ChatModel:
        """The engine; loaded at first use."""
        ...

    @property
    def batch(self) -> int | None:
        """Requests that are answered together, in a composition of their own; None where each is alone."""
        ...

    @property
    def where(self) -> object:
        """Where it is asked, for messages."""
        ...

    def identity(self) -> Identity:
        """Return what everything that could change a text of it hashes to."""
        ...

    def release(self) -> None:
        """Free what was loaded; it is loaded again where it is needed again."""
        ...


def request_of(options: TeacherOptions, instruction: Instruction, sample: int) -> ChatRequest:
    """Return what the teacher is asked for one sample."""
    sampling = options.sampling
    return ChatRequest(
        messages=_with_system(instruction.messages, options.system),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=sampling.stop,
        seed=None if sampling.temperature == 0 else sampling.seed + sample,
    )


def _with_system(messages: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """Put the teacher's system text before the conversation's own."""
    if not system:
        return messages
    if messages[0].role != "system":
        return (Message("system", system), *messages)
    return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])


class ServedTeacher:
    """A teacher behind an OpenAI-compatible endpoint."""

    batch = None

    def __init__(self, options: TeacherOptions, endpoint: Endpoint) -> None:
        self.options = options
        self.endpoint = endpoint
        self.where = endpoint

    @cached_property
    def chat(self) -> ChatModel:
        """The client."""
        render = self._rendered if self._template else None
        return OpenAIChat(self.endpoint, self.options.model, render=render)

    def _rendered(self, messages: Sequence[Message]) -> str:
        """Return the raw prompt; ModelError where a text would steer its structure.

        A server tokenises the whole, so that what spells a turn's end in the data would end the turn.
        """
        assert self._template is not None
        marks = set(_MARK.findall(self._template.render(_PROBE, generation=True)))
        spelled = [mark for mark in marks if any(mark in m.content for m in messages)]
        if spelled:
            raise ModelError(f"the conversation spells {spelled[0]}, which ends or begins a turn")
        return self._template.render(messages)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        """The template of raw prompts; without a beginning token, which servers add themselves."""
        if self.options.api == "chat":
            return None
        chosen = choose_template(self.options.template, Path("no model"))
        return ChatTemplate(chosen.name, chosen.source, dict.fromkeys(chosen.special_tokens, ""))

    def identity(self) -> Identity:
        """Return the identity of model, prompt and sampling; where it is served does not enter."""
        template = self._template
        return Identity.of(
            {
                "engine": "openai",
                "api": self.options.api,
                "model": self.options.model,
                "revision": self.options.revision,
                "template": dict(template.identity()) if template else None,
                "system": self.options.system,
                **self.options.sampling.spec(),
            }
        )

    def release(self) -> None:
        """Nothing is held."""


class LocalTeacher:
    """A teacher run in this process, by transformers or vLLM."""

    where = "this process"

    def __init__(self, options: TeacherOptions, *, device: str = "cpu", batch: int = 16) -> None:
        self.options = options
        self.device = device
        self.batch = batch if options.engine == "transformers" else None

    @cached_property
    def located(self) -> LocatedModel:
        """Where the model lies, and its identity."""
        return locate(self.options.model, revision=self.options.revision)

    @cached_property
    def chat(self) -> ChatModel:
        """The loaded model."""
        encoder = Encoder(load_tokenizer(self.located), self._template, max_length=self._max_length)
        if self.options.engine == "vllm":
            return self._served_here(encoder)
        from preceptor.engines.generation import TransformersChat

        model = load_model(self.located, dtype=self.options.dtype, device=self.device)
        return TransformersChat(model, encoder, batch=self.batch or 1)

    def _served_here(self, encoder: Encoder) -> "VllmChat":
        from preceptor.engines.vllm import VllmChat

        return VllmChat(
            self.located, encoder=encoder, dtype=self.options.dtype, max_length=self._max_length
        )

    @cached_property
    def _template(self) -> ChatTemplate:
        return choose_template(self.options.template, self.located.folder)

    @cached_property
    def _max_length(self) -> int:
        return min(self.options.max_length, context_length(self.located) or self.options.max_length)

    def identity(self) -> Identity:
        """Return the identity of weights, template, precision and sampling; the device does not enter."""
        return Identity.of(
            {
                "engine": self.options.engine,
                "model": dict(self.located.identity),
                "template": dict(self._template.identity()),
                "max_length": self._max_length,
                "dtype": self.options.dtype,
                "system": self.options.system,
                **self.options.sampling.spec(),
            }
        )

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        self.__dict__.pop("chat", None)


class FakeTeacher:
    """A teacher that makes up deterministic texts at once, to try a study without any model."""

    batch = None
    where = "this process"

    def __init__(self, options: TeacherOptions) -> None:
        self.options = options

    @cached_property
    def chat(self) -> ChatModel:
        """The fake."""
        return FakeChat(self.options.model)

    def identity(self) -> Identity:
        """Return the identity of the fake's name and sampling."""
        spec: Mapping[str, object] = {
            "engine": "fake",
            "model": self.options.model,
            "system": self.options.system,
            **self.options.sampling.spec(),
        }
        return Identity.of(spec)

    def release(self) -> None:
        """Nothing is held."""
