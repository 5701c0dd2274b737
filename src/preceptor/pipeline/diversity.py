"""The diversity of each teacher's responses to the same prompts, and a warning of near duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.data.selection import Selection
from preceptor.pipeline.score import Stored, carry_out, step_of
from preceptor.pipeline.work import Executor, Silent
from preceptor.ranking.diversity import Diversity, diversity_of
from preceptor.ranking.result import Ranking
from preceptor.scorers.first_words import FirstWords
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData

INSTRUCTIONS = 200
"""Instructions whose responses are looked at, drawn by their hashes."""

MANY = 0.1
"""No more than 1% are near duplicates of ten teachers' answers to Arena-Hard, eight teachers' to MATH, and
twelve models' to AlpacaEval (docs/log.md)."""

_FEWEST = 20
"""Responses below which a share says nothing."""


def with_diversity(
    ranking: Ranking, data: LoadedData, runtime: Runtime, execute: Executor
) -> Ranking:
    """Return the ranking with each teacher's diversity over instructions that all answered.

    Of several samples the first counts. The words seen are stored. It is done in a moment, so nobody is shown
    its progress.
    """
    some = first_samples(data.selection.sample(INSTRUCTIONS))
    if not len(some.rows):
        return ranking
    found = carry_out(
        step_of(FirstWords(), runtime, data.source.texts_of(some), some), Silent(), execute
    )
    return replace(ranking, diversity=by_teacher(some, found))


def first_samples(selection: Selection) -> Selection:
    """Return the first sample of every teacher for the instructions that all answered, by teacher."""
    table, rows = selection.table, selection.rows
    whole = np.asarray((table.counts() > 0).all(axis=0))
    rows = rows[whole[table.instruction[rows]]]
    rows = rows[np.lexsort((table.sample[rows], table.instruction[rows], table.teacher[rows]))]
    pairs = np.stack([table.teacher[rows], table.instruction[rows]])
    first = np.diff(pairs, prepend=-1).any(axis=0)
    taken = selection.taken[whole[selection.taken]]
    return Selection(table, rows[first], taken, len(taken))


def by_teacher(selection: Selection, found: Stored) -> dict[str, Diversity]:
    """Return the diversity of each teacher from the words of the rows of `first_samples`.

    An instruction of which some response has no words stored, because its text is gone, is left out.
    """
    names = selection.table.teachers
    lists = found["words"].reshape(len(names), len(selection.taken))
    there = [
        at
        for at in range(lists.shape[1])
        if all(isinstance(one, np.ndarray) for one in lists[:, at])
    ]
    words = [[np.asarray(one, np.int64) for one in row[there]] for row in lists]
    return dict(zip(names, diversity_of(words), strict=True))


def repeat_themselves(diversity: Mapping[str, Diversity]) -> list[Warning]:
    """Return a warning of teachers many of whose responses are near duplicates of one another."""
    shares = {
        name: one.near_duplicates
        for name, one in diversity.items()
        if one.near_duplicates is not None and one.responses >= _FEWEST
    }
    many = {name: share for name, share in shares.items() if share > MANY}
    if not many:
        return []
    listed = ", ".join(f"{share:.0%} of '{name}'" for name, share in many.items())
    others = [share for name, share in shares.items() if name not in many]
    against = (
        f"of the others at most {max(others):.0%}"
        if others
        else "so that the prompts may be nearly alike themselves"
    )
    text = (
        f"Near duplicates: of the responses to {max(diversity[name].responses for name in many)} prompts "
        f"{listed} share seven tenths of their word pairs with the response to another prompt, {against}. "
        "A student may learn less from what is repeated: read some."
    )
    return [Warning("near-duplicates", text, tuple(many))]
