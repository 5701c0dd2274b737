"""Plan batches without padding: prompts and the responses that share them, laid end to end.

A pack is one row of tokens. Each response follows the prompt it belongs to, sees that prompt and itself
and nothing else, and a prompt stands in the row once however many responses share it. Where a prompt's
responses do not all fit, it makes a row of its own, and the packs that hold the responses reuse its keys and
values, side by side. The last token of a response predicts nothing that is needed, so it is never in the row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from preceptor.engines.base import TokenizedPair


@dataclass(frozen=True)
class Branch:
    """One response in a pack: `index` names the pair, `start:stop` its tokens in the row."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Group:
    """A prompt and some of the responses that share it.

    `start:stop` are the prompt's tokens in the row; both are -1 where its keys and values come from a pack
    of its own (`resumed`). `prompt_tokens` is its length in either case.
    """

    start: int
    stop: int
    prompt_tokens: int
    branches: tuple[Branch, ...]

    @property
    def resumed(self) -> bool:
        """Whether the prompt was computed in a pack of its own."""
        return self.start < 0

    @property
    def segments(self) -> "tuple[Group | Branch, ...]":
        """The prompt, then its responses."""
        return (self, *self.branches)


@dataclass(frozen=True)
class Pack:
    """One row of tokens: `ids` and `positions` of equal length, and the groups that lie in it."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def predictions(self) -> int:
        """Number of response tokens whose likelihood this pack measures."""
        return sum(b.stop - b.start + 1 for g in self.groups for b in g.branches)

    @property
    def indices(self) -> list[int]:
        """The pairs whose responses lie in the row."""
        return [branch.index for group in self.groups for branch in group.branches]


@dataclass(frozen=True)
class Plan:
    """A pack, and the packs that can only be run after it because they resume its prompt.

    Where there are such packs, the first holds the prompt and nothing else.
    """

    pack: Pack
    resuming: tuple[Pack, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens in all its rows."""
        return len(self.pack.ids) + sum(len(pack.ids) for pack in self.resuming)


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

    def close(self) -> Pack:
        return Pack(tuple(self.ids), tuple(self.positions), tuple(self.groups))


def plan(pairs: Sequence[TokenizedPair], indices: Sequence[int], *, budget: int) -> Iterator[Plan]:
    """Yield packs of about `budget` tokens that hold every pair named by `indices` exactly once.

    A prompt is split over packs only where it exceeds the budget with its responses; such packs are of
    about one size. A pack exceeds the budget only when a single prompt or response does.
    """
    row = _Row()
    for prompt, members in _by_prompt(pairs, indices).items():
        own = sum(len(pairs[index].response) - 1 for index in members)
        if row.groups and len(row.ids) + len(prompt) + own > budget:
            yield Plan(row.close())
            row = _Row()
        start, stop = row.append(prompt, 0)
        if len(prompt) + own > budget and len(members) > 1:
            row.groups.append(Group(start, stop, len(prompt), ()))
            resuming = _resuming(pairs, members, offset=len(prompt), tokens=own, budget=budget)
            yield Plan(row.close(), tuple(resuming))
            row = _Row()
        else:
            branches = _fill(row, pairs, members, offset=len(prompt), room=budget, budget=budget)
            row.groups.append(Group(start, stop, len(prompt), branches))
    if row.groups:
        yield Plan(row.close())


def _resuming(
    pairs: Sequence[TokenizedPair], waiting: list[int], *, offset: int, tokens: int, budget: int
) -> Iterator[Pack]:
    """Yield packs of one prompt's responses that share out their `tokens` evenly."""
    size = -(-tokens // max(1, -(-tokens // budget)))
    while waiting:
        row = _Row()
        branches = _fill(row, pairs, waiting, offset=offset, room=size, budget=budget)
        row.groups.append(Group(-1, -1, offset, branches))
        yield row.close()


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
