"""Teachers made of another's samples: the best, the worst, or any of N (paper, finding 5 and table 3).

A best-of-N teacher is rows of the table under another name. Its texts are already there and
already scored under their content, so it costs no generation and no second score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preceptor.config.teachers import BestOfN
from preceptor.data.table import LOST, ResponseTable, is_failure
from preceptor.errors import StudyError, nearest
from preceptor.scorers.base import Array

if TYPE_CHECKING:
    from preceptor.config.study import Study


Rewards = Callable[[BestOfN, ResponseTable, NDArray[np.intp]], Array]
"""Gives the rewards (rows,) of these rows of a response table, NaN where there is none."""


def with_best_of_n(table: ResponseTable, best_of_n: BestOfN, rewards: Rewards) -> ResponseTable:
    """Return the response table with this best-of-N teacher.

    An instruction of which fewer than `n` samples have a reward is left out and counted. Of equal rewards
    the earlier sample is taken.

    Raises:
        StudyError: there is no such teacher, or it has one sample of everything.
    """
    rows = _samples(table, best_of_n)
    values = (
        np.zeros(len(rows))
        if best_of_n.kind == "random"
        else np.asarray(rewards(best_of_n, table, rows))
    )
    usable = np.isfinite(values)
    asked = np.unique(table.instruction[rows])
    kept, values = rows[usable], values[usable]
    of = table.instruction[kept]
    enough = np.bincount(of, minlength=len(table.instructions)) >= (best_of_n.n or 1)
    kept, values, of = kept[enough[of]], values[enough[of]], of[enough[of]]
    order = np.lexsort((table.sample[kept], _preference(table, best_of_n, kept, values), of))
    _, first = np.unique(of[order], return_index=True)
    picked = kept[order][first]
    lacking = len(asked) - len(picked)
    reason = f"fewer than {best_of_n.n or 1} samples with a reward"
    missing = {"missing": len(table.instructions) - len(asked), reason: lacking}
    # Where every sample failed, nothing could be chosen: that is its failure too.
    of_source = table.lost[table.lost[:, 0] == table.teachers.index(best_of_n.of)]
    failed = of_source[is_failure(of_source) & ~np.isin(of_source[:, 1], asked)]
    _, once = np.unique(failed[:, 1], return_index=True)
    missing["missing"] -= len(once)
    missing |= Counter(LOST[why] for why in failed[once, 2].tolist())
    dropped = {why: count for why, count in missing.items() if count}
    return table.with_teacher(best_of_n.name, picked, dropped, failed[once])


def require_derivable(study: Study) -> None:
    """Refuse, before its teachers are asked, what cannot be chosen from their samples.

    Where files hold responses too, their teachers are known only once they are read.

    Raises:
        StudyError: there is no such teacher, or it is asked for one response to each instruction.
    """
    if study.data.responses:
        return
    points = [point for teacher in study.teachers for point in teacher.points()]
    samples = {point.name: point.samples for point in points}
    for best_of_n in study.best_of_n:
        _require_known(best_of_n, tuple(samples))
        if samples[best_of_n.of] == 1:
            raise _one_sample(best_of_n)
        if best_of_n.n and best_of_n.n > samples[best_of_n.of]:
            raise StudyError(
                f"'{best_of_n.name}' is to choose among {best_of_n.n} samples of '{best_of_n.of}', which "
                f"is asked for {samples[best_of_n.of]}. Raise its samples, or lower n."
            )
        samples[best_of_n.name] = 1


def without_reward(best_of_n: BestOfN) -> StudyError:
    """Return the error of a teacher to be chosen by a reward that the study does not have."""
    return StudyError(
        f"'{best_of_n.name}' needs a reward to choose by, and the study has none. Give it "
        "[best_of_n.reward], or the study [reward]."
    )


def _require_known(best_of_n: BestOfN, teachers: Sequence[str]) -> None:
    if best_of_n.of not in teachers:
        known = ", ".join(f"'{name}'" for name in teachers)
        raise StudyError(
            f"'{best_of_n.name}' chooses among samples of '{best_of_n.of}', which is no teacher "
            f"here. Known: {known}.{nearest(best_of_n.of, teachers)}"
        )


def _one_sample(best_of_n: BestOfN) -> StudyError:
    return StudyError(
        f"'{best_of_n.name}' is to choose among samples of '{best_of_n.of}', which gave one response to "
        "each instruction. Give it samples = N and a temperature."
    )


def _samples(table: ResponseTable, best_of_n: BestOfN) -> NDArray[np.intp]:
    """Return the rows to choose from."""
    _require_known(best_of_n, table.teachers)
    if best_of_n.name in table.teachers:
        raise StudyError(
            f"A best-of-N teacher is named '{best_of_n.name}' like another: rename it."
        )
    rows = np.flatnonzero(table.teacher == table.teachers.index(best_of_n.of))
    order = table.order_within()[rows]
    if not len(order) or order.max() == 0:
        raise _one_sample(best_of_n)
    return rows if best_of_n.n is None else rows[order < best_of_n.n]


def _preference(
    table: ResponseTable, best_of_n: BestOfN, rows: NDArray[np.intp], values: Array
) -> NDArray[np.int64] | Array:
    """Return what is sorted by, the lowest first."""
    if best_of_n.kind == "best":
        return -values
    if best_of_n.kind == "worst":
        return values
    salt = best_of_n.seed.to_bytes(8, "little")
    ids = table.instructions[table.instruction[rows]].tolist()
    parts = zip(ids, table.sample[rows].tolist(), strict=True)
    drawn = [
        blake2b(one + sample.to_bytes(4, "little"), salt=salt).digest() for one, sample in parts
    ]
    return np.argsort(np.argsort(np.array(drawn)))
