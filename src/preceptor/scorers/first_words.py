"""The first words of a response, as hashes: what the diversity of a teacher's responses is counted from."""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice

from preceptor.scorers.base import Scorer
from preceptor.store.identity import Identity
from preceptor.types import Response, Score

UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Scripts that are written without spaces, where a character counts as a word."""

MOST_WORDS = 100
"""Words of a response that are looked at."""

HASH_BITS = 24
"""Bits of a word's hash: what a float32, in which lists are stored, holds exactly."""

_CHARACTERS = 3000
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


class FirstWords(Scorer):
    """Hashes the first 100 words within the first 3,000 characters of each response, in their order."""

    name = "first words"
    measures = ()
    columns = ("words",)
    required = ()
    token_column = "words"
    reads_answer = True

    def identity(self) -> Identity:
        """Return the identity of what a word is and how it is hashed."""
        return Identity.of({"scorer": "first words", "words": MOST_WORDS, "rules": 1})

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield the hashes, all at once; of a text without words there are none."""
        yield [
            Score(response.key, {"words": [float(_hash(word)) for word in words(response.text)]})
            for response in responses
        ]


def words(text: str | None) -> list[str]:
    """Return the first words: runs of letters and digits without regard to case, without punctuation."""
    found = _WORD.finditer((text or "")[:_CHARACTERS].casefold())
    return [match[0] for match in islice(found, MOST_WORDS)]


def _hash(word: str) -> int:
    raw = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=HASH_BITS // 8).digest())
