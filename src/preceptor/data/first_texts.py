"""The texts of a few instructions, kept from a pass over the data, so that a look at them costs no other.

Instructions are drawn by their hashes: those whose ids come first. Which these are is known at the end alone,
so more than are looked at are held on the way.
"""

from collections.abc import Iterable, Iterator

from preceptor.types import Response

MOST_INSTRUCTIONS = 500
"""Instructions held at the end of a pass; of 500 the 200 that are looked at are nearly always answered by
all."""

MOST_CHARACTERS = 16 * 2**20
"""Characters of responses and instructions held at the end of a pass."""


class FirstTexts:
    """The responses to the instructions whose ids come first, of those that were offered."""

    def __init__(self) -> None:
        self._found: dict[bytes, list[Response]] = {}
        self._characters = 0
        # Up to this id all that was offered is here; None is everything.
        self._last: bytes | None = None

    def offer(self, response: Response) -> None:
        """Take a response, unless its instruction comes too late."""
        identity = response.instruction.id
        if self._last is not None and identity > self._last:
            return
        self._found.setdefault(identity, []).append(response)
        self._characters += _characters(response)
        if len(self._found) > 2 * MOST_INSTRUCTIONS or self._characters > 2 * MOST_CHARACTERS:
            self._shorten()

    def _shorten(self) -> None:
        """Let go of what comes last until the rest is few."""
        for identity in sorted(self._found, reverse=True):
            few = len(self._found) <= MOST_INSTRUCTIONS and self._characters <= MOST_CHARACTERS
            if few:
                self._last = identity
                return
            self._characters -= sum(map(_characters, self._found.pop(identity)))
        self._last = b""

    def extend(self, other: "FirstTexts") -> None:
        """Take what another pass over other data held."""
        bounds = [last for last in (self._last, other._last) if last is not None]
        self._last = min(bounds, default=None)
        for response in other:
            self.offer(response)
        for identity in [one for one in self._found if bounds and one > min(bounds)]:
            self._characters -= sum(map(_characters, self._found.pop(identity)))

    def holds(self, ids: Iterable[bytes]) -> bool:
        """Tell whether all responses to these instructions are here."""
        return self._last is None or max(ids, default=b"") <= self._last

    def __iter__(self) -> Iterator[Response]:
        """Yield the responses, those to one instruction in the order they came."""
        for responses in self._found.values():
            yield from responses


def _characters(response: Response) -> int:
    asked = sum(len(turn.content) for turn in response.instruction.messages)
    return asked + len(response.text or "")
