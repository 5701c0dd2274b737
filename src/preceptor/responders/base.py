"""A responder puts a teacher's answer on an instruction; this is what teachers are to the runner.

It is to responses what a scorer is to scores: an identity that covers everything that can change a text, and
an engine that is loaded or contacted only when something is missing. Labels, addresses, keys and batch sizes
never enter the identity, so a renamed teacher or another server pays for nothing twice.
"""

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, Protocol

from preceptor.digests import Identity
from preceptor.engines.base import ChatModel, ChatRequest
from preceptor.types import Instruction, Message, generation_key

_THOUGHTS, _THOUGHTS_END = "<think>", "</think>"

Engine = Literal["transformers", "vllm", "openai", "fake"]


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
            spec |= {"top_p": 1.0, "seed": None, "samples_per_request": 1}
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
    those rendered or run here. `system` goes before every conversation. `thoughts` says whether what a
    model thought aloud is part of its response; it is kept in the store either way.
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
    thoughts: Literal["drop", "keep"] = "drop"


class Ask(NamedTuple):
    """One response to get: an instruction and a sample index."""

    instruction: Instruction
    sample: int

    @property
    def key(self) -> bytes:
        """The key it is stored under."""
        return generation_key(self.instruction.id, self.sample)


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


def without_thoughts(text: str) -> str:
    """Return the response without what was thought aloud before it, up to `</think>`.

    A template may open the thoughts itself, so that only their end stands in the text. Thoughts that never
    end leave nothing.
    """
    opened = text.lstrip().startswith(_THOUGHTS)
    before, end, after = text.partition(_THOUGHTS_END)
    if end and (opened or _THOUGHTS not in before):
        return after.lstrip()
    return "" if opened else text


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
