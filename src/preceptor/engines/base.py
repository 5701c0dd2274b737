"""The two things an engine can do: answer conversations, or measure how likely given texts are.

They are two protocols because many endpoints can only do the first: asking a chat endpoint for
likelihoods is then an error before anything is spent. Likelihoods take token ids, never text: a
rendered template that is tokenised again doubles its beginning-of-sequence token. Chats take messages,
and what goes wrong with one of them is data (`Failure`), never an exception.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, Self, TypeAlias

from preceptor.types import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from preceptor.config.runtime import Runtime
    from preceptor.config.student import Student
    from preceptor.engines.models import LocatedModel

RANK_LIMIT = 100
"""Token ranks are clipped here, as in the rank-surprisal ratio (arXiv 2601.14249)."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """The ids of one response and of the prompt it is conditioned on; neither is empty.

    `counted` tells of each of the response's ids whether anything is to be known of it, at least of one; None
    is of all. What lies between turns that count is not counted, and an engine may leave NaN there.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    counted: tuple[bool, ...] | None = None


Numbers: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True, slots=True)
class Extra:
    """What an engine measures only where it is asked for, because it costs time: names of its `measures`.

    `special` are the ids of special tokens, which have no part in similarities.
    """

    measures: frozenset[str] = frozenset()
    special: frozenset[int] = frozenset()


NOTHING = Extra()


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of the pair at `index`.

    `columns` has for each of the engine's measures of single tokens an array (T,): `nll` in nats, `rank`
    from 1, `brier` = 1 - 2 p + the sum of all squared probabilities, p being the token's own; of what is
    extra `brier_50`, the same among the 50 likeliest tokens, whose probabilities are scaled to sum to 1.
    Tokens that are not `counted` may have NaN.

    `values` has what is known of the whole pair. Of `similarity`: with the unit outputs of the last layer's
    `mlp.up_proj` at the tokens of answer and prompt that are not special, `answer_cosine` is the mean product
    of two of the answer's, `question_cosine` that of one of the answer's and one of the prompt's, and
    `question_nll` the mean loss of the prompt's tokens.

    `note` is why nothing was measured and never will be, as it is stored; the columns are then NaN.
    """

    index: int
    columns: Mapping[str, Numbers]
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


class Likelihood(Protocol):
    """An engine that can measure the likelihood of given responses; see `engines.likelihoods`.

    `measures` names what it gives (`Measured`), `nll` always among it. It is read before anything is loaded:
    a metric that needs what is not there is refused when the run is planned. `gradient` says that
    the model may be loaded here for gradients. An engine that runs it elsewhere has `served = True`, and one
    that takes all memory of a device for itself `takes_device = True`.
    """

    measures: ClassVar[tuple[str, ...]]

    @classmethod
    def load(cls, located: "LocatedModel", student: "Student", runtime: "Runtime") -> Self:
        """Return the engine with its model ready.

        `located` is where the files of the student's model lie. `runtime` resolves what `auto` means, bounds
        a batch (`max_batch_tokens`) and says where models are served.

        Raises:
            ModelError: the model cannot be loaded or reached.
        """
        ...

    def measure(
        self, pairs: Sequence[TokenizedPair], extra: Extra = NOTHING
    ) -> Iterator[list[Measured]]:
        """Yield every pair's columns exactly once, a finished batch at a time, in any order."""
        ...

    def release(self) -> None:
        """Free what the model holds; nothing is measured after that."""
        ...


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation that a model is to continue, and how.

    Temperature 0 is greedy. `top_p` is the share of probability that the likeliest tokens drawn from hold,
    `stop` are texts that end the answer and are no part of it, `count` is how many answers are wanted.
    `alternatives` is how many of the likeliest tokens of each position to report, 0 for none. `choices`
    are the answers hoped for: an engine that sees the whole distribution reports exactly theirs. `tools` are
    the schemas of tools that may be called, as in an `Instruction`.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = 0
    alternatives: int = 0
    choices: tuple[str, ...] = ()
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    count: int = 1
    tools: str = ""


class Alternative(NamedTuple):
    """A token that could have stood at a position, and the natural logarithm of its probability."""

    text: str
    log_probability: float


class Position(NamedTuple):
    """The token of an answer at one position, and the likeliest ones there."""

    text: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    `finish_reason` is `stop`, or `length` where `max_tokens` cut the answer off, or the endpoint's own word.
    `reasoning` is the trace before the answer, where the endpoint keeps the two apart.
    `positions` is empty where the engine reports no probabilities. `tokens` counts the answer's tokens,
    `prompt_tokens` those of what was asked; None where the engine does not say. `others` are the further
    answers where several were asked for.
    """

    text: str
    finish_reason: str | None = None
    positions: tuple[Position, ...] = ()
    tokens: int | None = None
    prompt_tokens: int | None = None
    others: tuple["Completion", ...] = ()
    reasoning: str = ""


FailureKind = Literal[
    "refused request",
    "content filter",
    "only reasoning",
    "refusal",
    "tool call",
    "empty answer",
    "denied",
    "foreign answer",
    "oversized answer",
    "rate limited",
    "server error",
    "timed out",
    "unreachable",
    "unreadable answer",
]

_OF_REQUEST: tuple[FailureKind, ...] = (
    "refused request",
    "content filter",
    "only reasoning",
    "refusal",
    "tool call",
    "empty answer",
)


_PASSING: tuple[FailureKind, ...] = (
    "rate limited",
    "server error",
    "timed out",
    "unreachable",
    "unreadable answer",
    "foreign answer",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer; `detail` is at most 200 printable characters without secrets.

    `denied` is the fault of the settings: key, address or model name. A `foreign answer` is a 200 that holds
    no answer (a page, a stream of events, JSON of another kind): most often the address is wrong. An
    `unreadable answer` was cut on its way.
    """

    kind: FailureKind
    detail: str

    @property
    def of_request(self) -> bool:
        """Whether the same request would fail again whoever asks: it may be written down for good."""
        return self.kind in _OF_REQUEST

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered another time."""
        return self.kind in _PASSING

    @property
    def of_settings(self) -> bool:
        """Whether every request would fail so, where none has been answered yet."""
        return self.kind in ("denied", "foreign answer")


@dataclass(frozen=True, slots=True)
class Finished:
    """The outcome of the request at `index` of the sequence that was given.

    `more` says that further outcomes are there already, which may be stored together with this one.
    """

    index: int
    outcome: Completion | Failure
    more: bool = False


class ChatModel(Protocol):
    """An engine that can answer conversations."""

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request, or why there is none."""
        ...

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every request's outcome exactly once, each as it finishes, in any order.

        Close it to end early.
        """
        ...
