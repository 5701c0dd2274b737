"""A teacher backend puts a teacher's answer on an instruction; this is what teachers are to the runner.

It is to responses what a scorer is to scores: an identity that covers everything that can change a text, and
an engine that is loaded or contacted only when something is missing. Labels, addresses, keys and batch sizes
never enter the identity, so a renamed teacher or another server pays for nothing twice.
"""

from hashlib import blake2b
from typing import NamedTuple, Protocol

from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatModel, ChatRequest
from preceptor.engines.reasoning import is_unfinished, without_reasoning
from preceptor.store.identity import Identity
from preceptor.types import Instruction, Message, generation_key


class GenerationRequest(NamedTuple):
    """One response to get: an instruction and a sample index."""

    instruction: Instruction
    sample: int

    @property
    def key(self) -> bytes:
        """The key it is stored under."""
        return generation_key(self.instruction.given_id, self.sample)


class TeacherBackend(Protocol):
    """One teacher that can be asked.

    Subclass it to have the defaults: answered one by one, nothing to check, no price, speed unknown.
    """

    teacher: TeacherPoint
    """What it is, and how it is sampled."""

    part: int | None = None
    """Groups of requests to hand over at once; None where requests are taken one by one."""

    batch: int | None = None
    """Requests that are answered together, in a composition of their own; None where each is alone."""

    where: object = "this process"
    """Where it is asked, for messages."""

    honours_seeds: bool = True
    """Whether samples surely differ with their seeds; else that is found out before many are paid for."""

    terms: str = ""
    """How it is asked, where that is no direct way: when the answers come, and at which price."""

    paid: bool = False
    """Whether each answer may cost money."""

    prices: tuple[float | None, float | None] = (None, None)
    """What a million tokens of prompt and of response cost; None where it is not known."""

    @property
    def chat(self) -> ChatModel:
        """The engine; loaded at first use."""
        ...

    @property
    def opens_reasoning(self) -> bool:
        """Whether its prompts are known to end with the beginning of a reasoning trace."""
        return False

    def identity(self) -> Identity:
        """Return what everything that could change a text of it hashes to."""
        ...

    def response_in(self, text: str) -> str | None:
        """Return what of a generated text is the response: the answer, unless reasoning is kept too.

        None where the text is a reasoning trace that never ends.
        """
        if self.teacher.reasoning == "keep":
            return text
        opened = self.opens_reasoning
        return (
            None if is_unfinished(text, opened=opened) else without_reasoning(text, opened=opened)
        )

    def preflight(self) -> None:
        """Check, before anything is spent, what asking needs beyond the model: endpoint and key.

        Raises:
            ModelError: the address or the key cannot be used.
        """
        return None

    def fastest_pace(self, batch: int) -> float | None:
        """Return tokens a second that it cannot beat on this machine; None where that is not known."""
        return None

    @property
    def memory(self) -> int:
        """Bytes that it takes when it is loaded, as far as known."""
        return 0

    def release(self) -> None:
        """Free what was loaded; it is loaded again where it is needed again."""
        return None


def request_of(teacher: TeacherPoint, instruction: Instruction, sample: int) -> ChatRequest:
    """Return what the teacher is asked for one sample."""
    return ChatRequest(
        messages=_with_system(instruction.messages, teacher.system),
        max_tokens=teacher.max_tokens,
        temperature=teacher.temperature,
        top_p=teacher.top_p,
        stop=teacher.stop,
        seed=None if teacher.temperature == 0 else _seed(teacher.seed, instruction, sample),
        tools=instruction.tools,
    )


def _seed(seed: int, instruction: Instruction, sample: int) -> int:
    """Return a seed of 31 bits, which every endpoint takes.

    With one seed for all instructions, a server with a generator for each request would draw all of them
    with the same noise, and errors of sampling would not average out.
    """
    text = f"{seed} {instruction.content_id.hex()} {sample}"
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) >> 1


def _with_system(messages: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """Put the teacher's system text before the conversation's own."""
    if not system:
        return messages
    if messages[0].role != "system":
        return (Message("system", system), *messages)
    return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])
