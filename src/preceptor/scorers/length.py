"""Length of a response: tokens of OpenAI's `cl100k_base` encoding, as in the paper (4.2), and characters."""

from collections.abc import Iterator, Sequence

from preceptor.engines.cl100k import count_tokens
from preceptor.scorers.base import Scorer
from preceptor.store.identity import Identity
from preceptor.types import Response, Score

_BATCH = 4096


class LengthScorer(Scorer):
    """Counts `length` (cl100k_base tokens) and `characters` of each response."""

    name = "length"
    measures = ("length", "characters")
    columns = ("length", "characters")
    reads_answer = True

    def identity(self) -> Identity:
        """Return the identity of the encoding."""
        return Identity.of({"scorer": "length", "encoding": "cl100k_base"})

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield the counts, a few thousand responses at a time."""
        for start in range(0, len(responses), _BATCH):
            yield [
                Score(
                    response.key,
                    {
                        "length": float(count_tokens(response.text or "")),
                        "characters": float(len(response.text or "")),
                    },
                )
                for response in responses[start : start + _BATCH]
            ]
