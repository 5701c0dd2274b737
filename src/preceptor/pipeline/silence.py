"""Teachers that never answer: they are left out with a warning, and the others are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from preceptor.data.table import Selection
from preceptor.engines.reasoning import UNFINISHED
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.score import Step, Stored

SILENCE = (UNFINISHED, "empty")
"""Notes of a response that holds no answer, which no other run could give a score."""


def without_silent(
    data: LoadedData, steps: Sequence[Step], columns: Sequence[Stored]
) -> tuple[LoadedData, Sequence[Step], Sequence[Stored]]:
    """Return data, steps and columns of the teachers of whom any response holds an answer.

    Where none does nothing is left out, and the ranking says why it cannot be.
    """
    selection = data.selection
    teacher = selection.table.teacher[selection.rows]
    silent = np.zeros(len(teacher), np.bool_)
    for stored in columns:
        silent |= np.isin(stored["note"], SILENCE)
    names = selection.table.teachers
    heard = set(np.unique(teacher[~silent]).tolist())
    mute = tuple(name for place, name in enumerate(names) if place not in heard)
    if not mute or len(mute) == len(names):
        return data, steps, columns
    table = selection.table.with_teachers(set(names) - set(mute))
    rows = np.flatnonzero(np.isin(table.instruction, selection.taken))
    narrowed = Selection(table, rows, selection.taken, selection.asked)
    kept = np.isin(teacher, list(heard))
    text = (
        f"Left out: {', '.join(map(repr, mute))}. Not one response holds an answer: each is empty, or a "
        "reasoning trace that is never closed, usually because the limit of tokens ended it."
    )
    warnings = (*data.warnings, Warning("left-out", text, mute))
    return (
        replace(data, selection=narrowed, warnings=warnings),
        [replace(step, selection=narrowed) for step in steps],
        [{name: column[kept] for name, column in stored.items()} for stored in columns],
    )
