"""Teachers made of another's samples: the best, the worst, or any of N (paper, finding 5 and table 3).

A derived teacher is rows of the table under another name. Its texts are already there and
already scored under their content, so it costs no generation and no second score.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from preceptor.config.study import Study
from preceptor.config.teachers import BestOfN
from preceptor.data.table import ResponseTable
from preceptor.errors import StudyError, nearest
from preceptor.scorers.base import Array

Rewards = Callable[[BestOfN, ResponseTable, NDArray[np.intp]], Array]
"""Gives the rewards (rows,) of these rows of a response table, NaN where there is none."""


def with_derived(table: ResponseTable, derived: BestOfN, rewards: Rewards) -> ResponseTable:
    """Return the response table with this derived teacher.

    An instruction of which fewer than `n` samples have a reward is left out and counted. Of equal rewards
    the earlier sample is taken.

    Raises:
        StudyError: there is no such teacher, or it has one sample of everything.
    """
    rows = _samples(table, derived)
    values = (
        np.zeros(len(rows))
        if derived.kind == "random"
        else np.asarray(rewards(derived, table, rows))
    )
    usable = np.isfinite(values)
    asked = np.unique(table.instruction[rows])
    kept, values = rows[usable], values[usable]
    of = table.instruction[kept]
    enough = np.bincount(of, minlength=len(table.instructions)) >= (derived.n or 1)
    kept, values, of = kept[enough[of]], values[enough[of]], of[enough[of]]
    order = np.lexsort((table.sample[kept], _preference(table, derived, kept, values), of))
    _, first = np.unique(of[order], return_index=True)
    picked = kept[order][first]
    lacking = len(asked) - len(picked)
    reason = f"fewer than {derived.n or 1} samples with a reward"
    missing = {"missing": len(table.instructions) - len(asked), reason: lacking}
    dropped = {why: count for why, count in missing.items() if count}
    return table.with_teacher(derived.name, picked, dropped)


def require_derivable(study: Study) -> None:
    """Refuse, before its teachers are asked, what cannot be derived of them.

    Where files hold responses too, their teachers are known only once they are read.

    Raises:
        StudyError: there is no such teacher, or it is asked for one response to each instruction.
    """
    if study.data.responses:
        return
    points = [point for teacher in study.teachers for point in teacher.points()]
    samples = {point.name: point.samples for point in points}
    for derived in study.best_of_n:
        _require_known(derived, tuple(samples))
        if samples[derived.of] == 1:
            raise _one_sample(derived)
        if derived.n and derived.n > samples[derived.of]:
            raise StudyError(
                f"'{derived.name}' is to choose among {derived.n} samples of '{derived.of}', which is asked "
                f"for {samples[derived.of]}. Raise its samples, or lower n."
            )
        samples[derived.name] = 1


def without_reward(derived: BestOfN) -> StudyError:
    """Return the error of a teacher to be chosen by a reward that the study does not have."""
    return StudyError(
        f"'{derived.name}' needs a reward to choose by, and the study has none. Give it [best_of_n.reward], "
        "or the study [reward]."
    )


def _require_known(derived: BestOfN, teachers: Sequence[str]) -> None:
    if derived.of not in teachers:
        known = ", ".join(f"'{name}'" for name in teachers)
        raise StudyError(
            f"'{derived.name}' is derived of '{derived.of}', which is no teacher here. Known: {known}."
            f"{nearest(derived.of, teachers)}"
        )


def _one_sample(derived: BestOfN) -> StudyError:
    return StudyError(
        f"'{derived.name}' is to choose among samples of '{derived.of}', which gave one response to "
        "each instruction. Give it samples = N and a temperature."
    )


def _samples(table: ResponseTable, derived: BestOfN) -> NDArray[np.intp]:
    """Return the rows to choose from."""
    _require_known(derived, table.teachers)
    if derived.name in table.teachers:
        raise StudyError(f"A derived teacher is named '{derived.name}' like another: rename it.")
    rows = np.flatnonzero(table.teacher == table.teachers.index(derived.of))
    order = table.order_within()[rows]
    if not len(order) or order.max() == 0:
        raise _one_sample(derived)
    return rows if derived.n is None else rows[order < derived.n]


def _preference(
    table: ResponseTable, derived: BestOfN, rows: NDArray[np.intp], values: Array
) -> NDArray[np.int64] | Array:
    """Return what is sorted by, the lowest first."""
    if derived.kind == "best":
        return -values
    if derived.kind == "worst":
        return values
    salt = derived.seed.to_bytes(8, "little")
    ids = table.instructions[table.instruction[rows]].tolist()
    parts = zip(ids, table.sample[rows].tolist(), strict=True)
    drawn = [
        blake2b(one + sample.to_bytes(4, "little"), salt=salt).digest() for one, sample in parts
    ]
    return np.argsort(np.argsort(np.array(drawn)))
