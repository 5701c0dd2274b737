"""Teachers made of others' responses: best, worst or any of N (paper, finding 5 and table 3), and mixtures.

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
from preceptor.ranking.places import MIN_OF_KIND
from preceptor.scorers.base import Array

if TYPE_CHECKING:
    from preceptor.config.study import Study


Rewards = Callable[[BestOfN, ResponseTable, NDArray[np.intp]], Array]
"""Gives what these rows of a response table are chosen by, (rows,), NaN where there is none."""


def with_best_of_n(table: ResponseTable, best_of_n: BestOfN, rewards: Rewards) -> ResponseTable:
    """Return the response table with this best-of-N teacher, whose sources are named.

    An instruction of which fewer than `n` samples have a reward is left out and counted. Of equal values
    the earlier sample is taken, in a mixture one that the seed draws.

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
    if best_of_n.kind == "routed":
        values = _on_other_half(table, kept, values, seed=best_of_n.seed)
        kept, values = kept[np.isfinite(values)], values[np.isfinite(values)]
    of = table.instruction[kept]
    enough = np.bincount(of, minlength=len(table.instructions)) >= (best_of_n.n or 1)
    kept, values, of = kept[enough[of]], values[enough[of]], of[enough[of]]
    # By right or wrong many are equal: the first of the alphabet would have all of them.
    ties = _drawn(table, best_of_n, kept) if best_of_n.is_mixture else table.sample[kept]
    order = np.lexsort((ties, _preference(table, best_of_n, kept, values), of))
    _, first = np.unique(of[order], return_index=True)
    picked = kept[order][first]
    lacking = len(asked) - len(picked)
    reason = f"fewer than {best_of_n.n or 1} samples with a reward"
    missing = {"missing": len(table.instructions) - len(asked), reason: lacking}
    # Where every sample failed, nothing could be chosen: that is its failure too.
    sources = [table.teachers.index(name) for name in best_of_n.of]
    of_source = table.lost[np.isin(table.lost[:, 0], sources)]
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
        of = best_of_n.among(point.name for point in points).of
        _require_known(best_of_n.name, of, tuple(samples))
        if len(of) == 1 and samples[of[0]] == 1:
            raise _one_sample(best_of_n)
        for name in of:
            if best_of_n.n and best_of_n.n > samples[name]:
                raise StudyError(
                    f"'{best_of_n.name}' is to choose among {best_of_n.n} samples of '{name}', which "
                    f"is asked for {samples[name]}. Raise its samples, or lower n."
                )
        samples[best_of_n.name] = 1


def without_reward(best_of_n: BestOfN) -> StudyError:
    """Return the error of a teacher to be chosen by a reward that the study does not have."""
    return StudyError(
        f"'{best_of_n.name}' needs a reward to choose by, and the study has none. Give it "
        "[best_of_n.reward], or the study [reward]."
    )


def _require_known(chosen: str, of: Sequence[str], teachers: Sequence[str]) -> None:
    for name in of:
        if name not in teachers:
            known = ", ".join(f"'{one}'" for one in teachers)
            raise StudyError(
                f"'{chosen}' chooses among samples of '{name}', which is no teacher "
                f"here. Known: {known}.{nearest(name, teachers)}"
            )


def _one_sample(best_of_n: BestOfN) -> StudyError:
    return StudyError(
        f"'{best_of_n.name}' is to choose among samples of '{best_of_n.of[0]}', which gave one response to "
        "each instruction. Give it samples = N and a temperature."
    )


def _samples(table: ResponseTable, best_of_n: BestOfN) -> NDArray[np.intp]:
    """Return the rows to choose from."""
    _require_known(best_of_n.name, best_of_n.of, table.teachers)
    if best_of_n.name in table.teachers:
        raise StudyError(
            f"A best-of-N teacher is named '{best_of_n.name}' like another: rename it."
        )
    sources = [table.teachers.index(name) for name in best_of_n.of]
    rows = np.flatnonzero(np.isin(table.teacher, sources))
    order = table.order_within()[rows]
    if len(sources) == 1 and (not len(order) or order.max() == 0):
        raise _one_sample(best_of_n)
    return rows if best_of_n.n is None else rows[order < best_of_n.n]


def _on_other_half(
    table: ResponseTable, rows: NDArray[np.intp], values: Array, *, seed: int
) -> Array:
    """Return the mean value of each row's teacher on the other half of the instructions of its kind.

    So the choice for an instruction knows no number of its own half, and the mean of what is chosen is as
    unbiased as a single teacher's (cross-fitting). A kind of fewer than 20 instructions in the other
    half is taken with all kinds together. Means are over instructions of which all teachers have a value,
    unless there are fewer than 20 in a half. NaN where the teacher has no value there.
    """
    salt = seed.to_bytes(8, "little")
    # The last bit: the first ones order the instructions that a limit takes.
    half = np.array(
        [blake2b(one, salt=salt).digest()[-1] & 1 for one in table.instructions.tolist()]
    )
    kind = -1 if table.category is None else table.category
    of, teacher = table.instruction[rows], table.teacher[rows]
    # Who answered the easy ones alone would else seem the best.
    pairs = np.unique(np.stack([of, teacher]), axis=1)[0]
    counts = np.bincount(pairs, minlength=len(table.instructions))
    common = counts == len(np.unique(teacher))
    if np.bincount(half[common], minlength=2).min() < MIN_OF_KIND:
        common = counts > 0
    counted = common[of]

    def elsewhere(group: NDArray[np.intp]) -> Array:
        width = int(group.max(initial=0)) + 2
        place = teacher * width + group[of]
        size = len(table.teachers) * width
        with np.errstate(invalid="ignore"):
            means = np.bincount(place, values * counted, size) / np.bincount(place, counted, size)
        return np.asarray(means[teacher * width + (group[of] ^ 1)])

    within = (2 * (kind + 1) + half).astype(np.intp)
    sizes = np.bincount(within[common], minlength=int(within.max(initial=0)) + 2)
    return np.where(sizes[within[of] ^ 1] >= MIN_OF_KIND, elsewhere(within), elsewhere(half))


def _preference(
    table: ResponseTable, best_of_n: BestOfN, rows: NDArray[np.intp], values: Array
) -> NDArray[np.int64] | Array:
    """Return what is sorted by, the lowest first."""
    if best_of_n.kind == "random":
        return _drawn(table, best_of_n, rows)
    return values if best_of_n.kind == "worst" else -values


def _drawn(table: ResponseTable, best_of_n: BestOfN, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the places of the rows in an order that the seed draws; in a mixture names bear on it too."""
    salt = best_of_n.seed.to_bytes(8, "little")
    names = [name.encode() if best_of_n.is_mixture else b"" for name in table.teachers]
    parts = zip(
        table.instructions[table.instruction[rows]].tolist(),
        table.sample[rows].tolist(),
        table.teacher[rows].tolist(),
        strict=True,
    )
    drawn = [
        blake2b(one + sample.to_bytes(4, "little") + names[teacher], salt=salt).digest()
        for one, sample, teacher in parts
    ]
    return np.argsort(np.argsort(np.array(drawn)))
