"""A scorer puts numbers on responses; this is all the rest of the system knows of it.

Scores come a finished batch at a time, so that each batch is stored before the next is begun and a killed
run loses one at most. Trouble with one response is data (a note), never an exception and never a zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from preceptor.store.identity import Identity
from preceptor.types import Flush, Response, Score, Warning

if TYPE_CHECKING:
    from preceptor.engines.local import LocalModel

Array = NDArray[np.float64]


PART_INSTRUCTIONS = 64
"""Instructions whose responses are scored between two looks at the store."""

USAGE = ("prompt_tokens", "answer_tokens")
"""Columns of what is paid by the token: what each row's request and its answer took, where that is told."""


@dataclass(frozen=True)
class Fee:
    """What a scorer takes that is paid by the token.

    Prices are for a million tokens in and out, None where not known. `overhead` are the characters that a
    request has beside conversation and response, `most` the tokens of an answer at most.
    """

    payee: str
    price_in: float | None
    price_out: float | None
    overhead: int
    most: int

    def money(self, asked: float, answered: float) -> float | None:
        """Return what so many tokens in and out cost; None where a price is not known."""
        if self.price_in is None or self.price_out is None:
            return None
        return (asked * self.price_in + answered * self.price_out) / 1e6


class Resource(Protocol):
    """What several scorers may share, such as a loaded model."""

    @property
    def memory(self) -> int:
        """Bytes that it takes when it is loaded, as far as known."""
        ...

    def release(self) -> None:
        """Free what was loaded; it is loaded again where it is needed again."""
        ...


class Scorer(Protocol):
    """A scorer whose numbers cost something and are therefore kept under its identity.

    Subclass it to have the defaults: nothing to check, nothing to free, the columns are the measures.
    """

    @property
    def name(self) -> str:
        """What it does, for progress and plans."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures it gives, by the names that metrics use."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The numbers stored for each response."""
        ...

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every scored row has: a row that lacks one is scored again."""
        return self.columns

    @property
    def token_column(self) -> str | None:
        """The column of numbers for each token that is required too, None where none is kept."""
        return None

    @property
    def flush(self) -> Flush:
        """When scores are stored: `each` as it comes, where each is paid for, or `timed`, some together."""
        return "timed"

    @property
    def part(self) -> int:
        """Instructions whose responses are handed over at once."""
        return PART_INSTRUCTIONS

    @property
    def of_student(self) -> bool:
        """Whether it reads responses as the student does, so that what it cuts is what the student misses."""
        return False

    @property
    def token_model(self) -> "LocalModel | None":
        """The model whose encoder gives the tokens of a stored `token_nll`; None where none is stored."""
        return None

    @property
    def memory(self) -> int:
        """Bytes that what it loads itself takes, as far as known."""
        return 0

    @property
    def memory_note(self) -> str:
        """What a plan says of its memory behind its name, in brackets."""
        return ""

    @property
    def runs(self) -> str | None:
        """The model that takes its time, as the study names it; None where it runs none, or pays for it."""
        return None

    @property
    def resource(self) -> Resource:
        """What is freed after its last use."""
        return self

    @property
    def fee(self) -> Fee | None:
        """What it takes where it is paid by the token, and stores `USAGE`; None where it costs no money."""
        return None

    @property
    def reads_reference(self) -> bool:
        """Whether a number depends on the response's reference answer too, and is stored by both."""
        return False

    @property
    def reads_answer(self) -> bool:
        """Whether it is given the answer alone, without the reasoning trace before it."""
        return False

    @property
    def cautions(self) -> tuple[Warning, ...]:
        """What a reader of its numbers must know of how they were made."""
        return ()

    def identity(self) -> Identity:
        """Return what everything that could change a number of it hashes to.

        Raises:
            ModelError: its model is not found.
        """
        ...

    def preflight(self) -> None:
        """Check, before anything is spent, what scoring needs beyond the model: endpoint and key.

        Raises:
            ModelError: the address or the key cannot be used.
        """
        return None

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield one score for each response, a finished batch at a time, in any order.

        An empty batch says that the next is waited for: what came is put on disk meanwhile.
        """
        ...

    def release(self) -> None:
        """Free what it has loaded itself."""
        return None

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the measures from the stored columns, each of shape (responses,)."""
        return columns
