"""Teachers that never answer: they are left out with a warning, and the others are compared."""

import numpy as np

from preceptor.data.table import EMPTY_OUTPUT, LOST, ResponseTable
from preceptor.engines.reasoning import UNFINISHED
from preceptor.types import NoteKind, Warning

SILENCE = (UNFINISHED, "empty")
"""Notes of a response that holds no answer, which nobody was paid to look at."""

_SILENCE = [LOST.index(why) for why in (EMPTY_OUTPUT, UNFINISHED, NoteKind.ONLY_REASONING)]
"""Why a response holds no answer, whatever is asked of it."""


def without_silent(table: ResponseTable) -> tuple[ResponseTable, list[Warning]]:
    """Return the teachers of whom any response holds an answer, and a warning of the others.

    Where none does nothing is left out, and the refusal to rank says why.
    """
    silent = table.lost[np.isin(table.lost[:, 2], _SILENCE), 0]
    mute = sorted(set(silent.tolist()) - set(np.unique(table.teacher).tolist()))
    names = tuple(table.teachers[place] for place in mute)
    if not names or len(names) == len(table.teachers):
        return table, []
    text = (
        f"Left out: {', '.join(map(repr, names))}. Not one response holds an answer: each is empty, or a "
        "reasoning trace that is never closed, usually because the limit of tokens ended it."
    )
    left = table.with_teachers(set(table.teachers) - set(names))
    return left, [Warning("left-out", text, names)]
