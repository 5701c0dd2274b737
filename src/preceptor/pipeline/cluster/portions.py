"""What goes to one worker at once: whole instructions up to a budget, and what is tried of it again.

The budget is the same for all, counted in characters, which are known before anything is tokenized. The
longest responses go first and together: workers then end at about the same time, and packs waste little.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from preceptor.pipeline.work import Part
from preceptor.types import Response

MOST_DEATHS = 3
"""A response is given up when so many workers have died of it, each with nothing else in hand."""

_EACH = 16
_LEAST, _MOST = 8_000, 1_000_000


@dataclass(frozen=True)
class Portion:
    """Responses for one worker; `cut` says whether it is a piece, `deaths` how many it cost when alone."""

    part: Part
    cut: bool = False
    deaths: int = 0

    @property
    def responses(self) -> list[Response]:
        """All its responses."""
        return [response for group in self.part for response in group]

    @property
    def is_lost(self) -> bool:
        """Whether it is one response that kills whoever computes it."""
        return self.deaths >= MOST_DEATHS

    def after_death(
        self, stored: Collection[bytes], key: Callable[[Response], bytes], *, blamed: bool
    ) -> list["Portion"]:
        """Return what of it is not stored.

        Where the portion is `blamed` for the death, it comes back in pieces, at the second time each response
        by itself: then a death is that response's alone.
        """
        left = [
            found
            for group in self.part
            if (found := [one for one in group if key(one) not in stored])
        ]
        if not left:
            return []
        if not blamed:
            return [replace(self, part=left)]
        if len(self.responses) == 1:
            return [replace(self, deaths=self.deaths + 1)]
        rows = [response for group in left for response in group]
        size = 1 if self.cut else math.ceil(math.sqrt(len(rows)))
        pieces = (rows[start : start + size] for start in range(0, len(rows), size))
        return [Portion([piece], cut=True) for piece in pieces]


def portions_of(parts: Iterable[Part], workers: int) -> list[Portion]:
    """Cut all that is handed out into portions of an equal budget, the longest first."""
    groups = sorted((group for part in parts for group in part), key=_size, reverse=True)
    budget = sum(map(_size, groups)) / (_EACH * workers)
    cut = _cut(groups, min(_MOST, max(_LEAST, budget)))
    return sorted(cut, key=lambda one: sum(map(_size, one.part)), reverse=True)


def _cut(groups: Iterable[Sequence[Response]], budget: float) -> Iterator[Portion]:
    held: list[Sequence[Response]] = []
    size = 0
    for group in groups:
        if held and size + _size(group) > budget:
            yield Portion(held)
            held, size = [], 0
        held.append(group)
        size += _size(group)
    if held:
        yield Portion(held)


def _size(group: Sequence[Response]) -> int:
    """Return the characters of a prompt, which is read once, and of all responses to it."""
    prompt = sum(len(message.content) for message in group[0].instruction.messages)
    return prompt + sum(len(response.text or "") for response in group)
