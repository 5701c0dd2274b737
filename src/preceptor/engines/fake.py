"""Answers without a model, so that a whole study can be tried, and tested, in a second.

An answer is spelled by a digest of what it depends on (name, conversation, and where it is
sampled, how), so that it is the same on every machine and another for every name.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from hashlib import blake2b, shake_256
from itertools import islice

from preceptor.engines.base import ChatRequest, Completion, Failure, Finished

FEWEST_WORDS, MOST_WORDS = 5, 60
"""The bounds of an answer that nothing cuts short."""

_SENTENCE = (
    ("The", "A", "Every", "This", "One", "Another"),
    ("simple", "careful", "common", "short", "clear", "useful", "second", "familiar"),
    ("answer", "step", "reader", "example", "question", "method", "reason", "result"),
    ("explains", "follows", "needs", "shows", "supports", "changes", "describes", "leaves"),
    ("the", "a", "each", "that", "its", "another"),
    ("thought", "choice", "number", "case", "rule", "word", "detail", "problem"),
)
"""The words of a sentence, place by place."""


class FakeChat:
    """A chat model that is none: English-like sentences, different in text and length for each `name`.

    A token is a word. Answers have between `FEWEST_WORDS` and `MOST_WORDS` of them, about as many as is
    usual for the name, unless `max_tokens` or `stop` ends them sooner. At temperature 0 neither seed nor
    `top_p` matters and all of `count` answers are the same; above it each is drawn by seed and temperature,
    where seed None is one more seed, since nothing here is left to chance.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request; none fails."""
        first, *others = [self._answer(request, number) for number in range(max(1, request.count))]
        return Completion(
            first.text,
            first.finish_reason,
            tokens=first.tokens,
            prompt_tokens=first.prompt_tokens,
            others=tuple(others),
        )

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield the outcomes in order."""
        for index, request in enumerate(requests):
            yield Finished(index, self.complete(request))

    def _answer(self, request: ChatRequest, number: int) -> Completion:
        words = self._words(request, number)
        reason = "stop" if len(words) <= request.max_tokens else "length"
        text = " ".join(words[: max(0, request.max_tokens)])
        cuts = [text.find(stop) for stop in request.stop if stop and stop in text]
        if cuts:
            text, reason = text[: min(cuts)], "stop"
        asked = sum(len(message.content.split()) for message in request.messages)
        return Completion(text, reason, tokens=len(text.split()), prompt_tokens=asked)

    def _words(self, request: ChatRequest, number: int) -> list[str]:
        sampled = (float(request.temperature), request.seed, number)
        turns = [turn.parts for turn in request.messages]
        content = [self.name, turns, sampled if request.temperature > 0 else None]
        exact = json.dumps(content).encode()
        # The first byte chooses the length, each of the others a word.
        first, *drawn = shake_256(exact).digest(1 + MOST_WORDS)
        usual = self._usual_length()
        length = max(FEWEST_WORDS, min(usual // 2 + usual * first // 255, MOST_WORDS))
        words = list(islice(_sentences(drawn), length))
        return [*words[:-1], words[-1].rstrip(".") + "."]

    def _usual_length(self) -> int:
        """Return how many words this name usually takes, 8 to 43."""
        wordiness = blake2b(self.name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0]
        return 8 + 35 * wordiness // 255


def _sentences(drawn: Sequence[int]) -> Iterator[str]:
    """Yield a word for each byte, sentence after sentence."""
    for place, byte in enumerate(drawn):
        choices = _SENTENCE[place % len(_SENTENCE)]
        ends = "." if (place + 1) % len(_SENTENCE) == 0 else ""
        yield choices[byte % len(choices)] + ends
