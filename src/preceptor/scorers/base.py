"""A scorer puts measures on responses; this is all the rest of the system knows of it.

Scores come a finished batch at a time, so that each batch is stored before the next is begun and a killed
run loses one at most. Trouble with one response is data (a note), never an exception and never a zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from preceptor.store.identity import Identity
from preceptor.types import Response, Score

Array = NDArray[np.float64]


class Scorer(Protocol):
    """Anything that puts numbers on responses, at once or at a cost."""

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures it can give, by the names that metrics use."""
        ...

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield one score for each response, a finished batch at a time, in any order."""
        ...


class StoredScorer(Scorer, Protocol):
    """A scorer whose numbers cost something and are therefore kept under its identity."""

    @property
    def name(self) -> str:
        """What it does, for progress and plans."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The numbers stored for each response."""
        ...

    def identity(self) -> Identity:
        """Return what everything that could change a number of it hashes to."""
        ...

    def release(self) -> None:
        """Free what was loaded; it is loaded again where it is needed again."""
        ...

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the measures from the stored columns, each of shape (responses,)."""
        ...
