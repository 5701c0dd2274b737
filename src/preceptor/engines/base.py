"""The two things an engine can do: write responses, or measure how likely given ones are.

They are two protocols because many endpoints can only do the first: asking a chat endpoint for
likelihoods is then an error before anything is spent. Everything here is token ids, never text: a
rendered template that is tokenised again doubles its beginning-of-sequence token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

RANK_LIMIT = 100
"""Token ranks are clipped here, as in the rank-surprisal ratio (arXiv 2601.14249)."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """The ids of one response and of the prompt it is conditioned on; neither is empty."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


class TokenStatistics(NamedTuple):
    """Per-token statistics of one response, reduced to sums over its T tokens.

    `nll` and `entropy` are in nats, `rank` counts from 1 and is clipped at `RANK_LIMIT` per token.
    `token_nll` and `token_rank` hold the T single values where they were asked for, else they are empty.
    """

    tokens: int
    nll: float
    rank: float
    entropy: float
    token_nll: tuple[float, ...] = ()
    token_rank: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """The statistics of the pair at `index` of the sequence that was given."""

    index: int
    statistics: TokenStatistics


class Likelihood(Protocol):
    """An engine that can measure the likelihood of given responses."""

    def measure(self, pairs: Sequence[TokenizedPair]) -> Iterator[list[Measured]]:
        """Yield every pair's statistics exactly once, a finished batch at a time, in any order."""
        ...
