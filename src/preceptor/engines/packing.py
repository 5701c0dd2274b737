"""Plan batches without padding: prompts and the responses that share them, laid end to end.

A pack is one row of tokens. Each response follows the prompt it belongs to, sees that prompt and itself
and nothing else, and a prompt stands in the row once however many responses share it. Where a prompt's
responses do not all fit, the next packs reuse its keys and values instead of computing them again. The
last token of a response predicts nothing that is needed, so it is never in the row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from preceptor.engines.base import TokenizedPair

_WORTH_KEEPING = 64
"""A prompt below this part of the budget is computed again in every pack that needs it."""


@dataclass(frozen=True)
class Branch:
    """One response in a pack: `index` names the pair, `start:stop` its tokens in the row."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Group:
    """A prompt and some of the responses that share it.

    `start:stop` are the prompt's tokens in the row; both are -1 where its keys and values come from the
    pack before (`resumed`). `prompt_tokens` is its length in either case.
    """

    start: int
    stop: int
    prompt_tokens: int
    branches: tuple[Branch, ...]

    @property
    def resumed(self) -> bool:
        """Whether the prompt was computed in the pack before."""
        return self.start < 0


@dataclass(frozen=True)
class Pack:
    """One row of tokens: `ids` and `positions` of equal length, and the groups that lie in it.

    `kept` tells that the last group's prompt must be remembered for the next pack.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    groups: tuple[Group, ...]
    kept: bool = False

    @property
    def predictions(self) -> int:
        """Number of response tokens whose likelihood this pack measures."""
        return sum(b.stop - b.start + 1 for g in self.groups for b in g.branches)


class _Row:
    """A pack under construction."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.groups: list[Group] = []

    def append(self, ids: Sequence[int], offset: int) -> tuple[int, int]:
        start = len(self.ids)
        self.ids.extend(ids)
        self.positions.extend(range(offset, offset + len(ids)))
        return start, len(self.ids)

    def close(self, *, kept: bool) -> Pack:
        return Pack(tuple(self.ids), tuple(self.positions), tuple(self.groups), kept)


def plan(pairs: Sequence[TokenizedPair], indices: Sequence[int], *, budget: int) -> Iterator[Pack]:
    """Yield packs of about `budget` tokens that hold every pair named by `indices` exactly once.

    A prompt is split over packs only where it exceeds the budget with its responses; such packs are of
    about one size and follow each other, unless the prompt is so short that each computes it anew, which
    leaves them free to run side by side. A pack exceeds the budget only when a single response (with its
    prompt) does.
    """
    row = _Row()
    for prompt, members in _by_prompt(pairs, indices).items():
        tokens = len(prompt) + sum(len(pairs[index].response) - 1 for index in members)
        if row.groups and len(row.ids) + tokens > budget:
            yield row.close(kept=False)
            row = _Row()
        anew = len(prompt) * _WORTH_KEEPING <= budget
        size = _even(tokens, budget=budget, repeated=len(prompt) if anew else 0)
        waiting = list(members)
        start, stop = row.append(prompt, 0)
        while True:
            room = budget if tokens <= budget else size
            branches = _fill(row, pairs, waiting, offset=len(prompt), room=room, budget=budget)
            row.groups.append(Group(start, stop, len(prompt), branches))
            if not waiting:
                break
            yield row.close(kept=not anew)
            row = _Row()
            start, stop = row.append(prompt, 0) if anew else (-1, -1)
        if tokens > budget:
            yield row.close(kept=False)
            row = _Row()
    if row.groups:
        yield row.close(kept=False)


def _even(tokens: int, *, budget: int, repeated: int) -> int:
    """Return the size of packs that share out `tokens` evenly, `repeated` of them standing in each."""
    own = tokens - repeated
    return repeated + -(-own // -(-own // (budget - repeated))) if own else budget


def _by_prompt(
    pairs: Sequence[TokenizedPair], indices: Sequence[int]
) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        groups.setdefault(pairs[index].prompt, []).append(index)
    return groups


def _fill(
    row: _Row,
    pairs: Sequence[TokenizedPair],
    waiting: list[int],
    *,
    offset: int,
    room: int,
    budget: int,
) -> tuple[Branch, ...]:
    """Move responses from `waiting` into the row until `room` is taken, at least one and within budget."""
    branches: list[Branch] = []
    while waiting:
        body = pairs[waiting[0]].response[:-1]
        full = (body and len(row.ids) >= room) or len(row.ids) + len(body) > budget
        if branches and full:
            break
        branches.append(Branch(waiting.pop(0), *row.append(body, offset)))
    return tuple(branches)
