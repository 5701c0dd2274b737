"""How much one teacher's responses differ among themselves: distinct-2, and the share of near duplicates.

Neither is a mean over responses, so neither is a metric: nothing orders by them, and nothing is known of what
they foretell. All teachers are looked at on the same prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.int64]
"""A response's first words as hashes below 2 to the power of 31, (words,)."""

SIMILAR = (7, 10)
"""Jaccard similarity of the sets of bigrams from which on two responses are near duplicates, a fraction."""

FEWEST_BIGRAMS = 10
"""Responses with fewer distinct bigrams are left out of the share: right answers of few words are alike."""

FEWEST_COUNTED = 100
"""Of fewer bigrams there is no distinct-2: a handful is distinct whoever wrote it."""


@dataclass(frozen=True)
class Diversity:
    """What one teacher's responses have in common.

    `distinct_2` is the number of distinct bigrams of words over that of all bigrams (Li et al. 2016,
    NAACL, distinct-n), `bigrams`; every teacher is given the same number of words of each response, since
    it falls with length. `near_duplicates` is the share, of `responses` that are long enough, that is a near
    duplicate of another one, to another prompt. None where too little can be counted.
    """

    distinct_2: float | None
    bigrams: int
    near_duplicates: float | None
    responses: int


def diversity_of(words: Sequence[Sequence[Words]]) -> list[Diversity]:
    """Return the diversity of each teacher; `words` are, by teacher, of one response to each prompt."""
    shortest = [min(map(len, prompt)) for prompt in zip(*words, strict=True)]
    return [_diversity(own, shortest) for own in words]


def _diversity(responses: Sequence[Words], lengths: Sequence[int]) -> Diversity:
    parts = [_bigrams(one[:length]) for one, length in zip(responses, lengths, strict=True)]
    counted = np.concatenate([np.empty(0, np.int64), *parts])
    duplicates, looked_at = _near_duplicates([np.unique(_bigrams(one)) for one in responses])
    return Diversity(
        distinct_2=len(np.unique(counted)) / len(counted)
        if len(counted) >= FEWEST_COUNTED
        else None,
        bigrams=len(counted),
        near_duplicates=duplicates / looked_at if looked_at > 1 else None,
        responses=looked_at,
    )


def _bigrams(words: Words) -> Words:
    return (words[:-1] << 31) | words[1:]


def _near_duplicates(sets: Sequence[Words]) -> tuple[int, int]:
    """Return how many of the sets that are large enough have a near duplicate, and how many those are."""
    kept = [one for one in sets if len(one) >= FEWEST_BIGRAMS]
    if not kept:
        return 0, 0
    sizes = np.array([len(one) for one in kept])
    _, places = np.unique(np.concatenate(kept), return_inverse=True)
    # Which set has which bigram, so that one product counts what every two sets share.
    has = np.zeros((len(kept), int(places.max()) + 1), np.float32)
    has[np.repeat(np.arange(len(kept)), sizes), places] = 1
    shared = (has @ has.T).astype(np.int64)
    together = sizes[:, None] + sizes - shared
    near = shared * SIMILAR[1] >= together * SIMILAR[0]
    np.fill_diagonal(near, False)
    return int(near.any(axis=1).sum()), len(kept)
