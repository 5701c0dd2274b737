"""Calibration: which beta and reward transform make CAR agree best, judged where they were not chosen.

A choice looks good on the data that chose it. So beta is chosen on all students but one, or all families but
one, and judged on the one held out; and the bootstrap chooses anew in every draw, which shows how many betas
the same data could have preferred. Arrays are (students, teachers); rewards and losses are a teacher's means,
observed values are higher-is-better.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.agreement.bootstrap import (
    Ends,
    percentile_ends,
    resampled_spearman,
    without_each_family,
)
from preceptor.agreement.correlation import Array, pairs_right, spearman
from preceptor.errors import StudyError, nearest
from preceptor.ranking.metrics import TRANSFORMS, CompatibilityAdjustedReward

BETAS = (0.0, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""The betas tried: 0 is the reward alone; at 100 CAR's order is nearly that of reward over loss."""

MEAN_TRANSFORMS = ("raw", "sigmoid", "shift-min")
"""The transforms tried, of the teachers' mean rewards; minmax would give shift-min's order again."""


class Candidate(NamedTuple):
    """One reading of CAR: its beta, and the transform of the mean rewards."""

    beta: float
    transform: str

    def __str__(self) -> str:
        return f"beta {self.beta:g}, {self.transform}"


DEFAULT = Candidate(3.0, "raw")
"""The paper's reading (section 4.5): beta 3 and the rewards as they are."""


class Tried(NamedTuple):
    """A candidate's mean rho over students, its 95% interval, and the share of draws that prefer it."""

    candidate: Candidate
    rho: float
    ends: Ends
    chosen: float


class HeldOut(NamedTuple):
    """What was chosen without one student or family, and how it and the default did on that one.

    Students are judged by rho, families by the share of pairs ordered right among the pairs that
    hold one of its teachers; NaN where there is nothing to judge.
    """

    name: str
    chosen: Candidate
    value: float
    default: float


@dataclass(frozen=True)
class Calibration:
    """The candidates, the best of them against the default, and the judgement on what was held out.

    `difference` is the best one's mean rho less the default's, `ends` its paired 95% interval over
    teachers. Both flatter the best, which was chosen on these teachers; what was held out does not.
    `students` and `families` are empty where nothing can be held out.
    """

    tried: tuple[Tried, ...]
    best: Candidate
    difference: float
    ends: Ends
    students: tuple[HeldOut, ...]
    families: tuple[HeldOut, ...]
    teachers: int

    def verdict(self) -> str:
        """Return whether the best candidate differs from the default by more than the data can tell."""
        if self.best == DEFAULT:
            return f"No candidate agrees better than the default, {DEFAULT}."
        seen = f"{self.best} agrees best: {self.difference:+.3f} in mean rho {_range(self.ends)}"
        seen += f" over the default, {DEFAULT}, where it was chosen{self._held_out()}"
        if self.ends.low > 0 and all(_gain(held) > 0 for held in self._judged()):
            return f"{seen}. That is more than the choice of {self.teachers} teachers explains."
        return (
            f"{seen}. {self.teachers} teachers are too few to tell it from the default: "
            f"keep beta {DEFAULT.beta:g}."
        )

    def _judged(self) -> tuple[Sequence[HeldOut], ...]:
        return tuple(held for held in (self.students, self.families) if math.isfinite(_gain(held)))

    def _held_out(self) -> str:
        parts = []
        if self.students in self._judged():
            parts.append(f"{_gain(self.students):+.3f} in rho on students held out")
        if self.families in self._judged():
            parts.append(f"{100 * _gain(self.families):+.1f}% of pairs right on families held out")
        return f", and {' and '.join(parts)}" if parts else ""


def _gain(held: Sequence[HeldOut]) -> float:
    gains = [one.value - one.default for one in held if math.isfinite(one.value - one.default)]
    return float(np.mean(gains)) if gains else math.nan


def _range(ends: Ends) -> str:
    return f"[{ends.low:+.3f}, {ends.high:+.3f}]" if math.isfinite(ends.low) else "(no interval)"


def candidates(
    betas: Iterable[float] = BETAS, transforms: Iterable[str] = MEAN_TRANSFORMS
) -> tuple[Candidate, ...]:
    """Return every pair of beta and transform, the default first and added where it is missing.

    Raises:
        StudyError: for an unknown transform, or a beta that is negative or not finite.
    """
    found = [DEFAULT]
    for transform in transforms:
        if transform not in TRANSFORMS:
            raise StudyError(
                f"No reward transform is called '{transform}'; known are {', '.join(TRANSFORMS)}."
                f"{nearest(transform, TRANSFORMS)}"
            )
        found += [Candidate(CompatibilityAdjustedReward(beta=b).beta, transform) for b in betas]
    return tuple(dict.fromkeys(found))


def fitted(reward: Array, loss: Array, candidate: Candidate) -> Array:
    """Return CAR as this candidate reads it, shape (students, teachers).

    The transform sees one student's teachers at a time, because shift-min depends on who is there.
    """
    metric = CompatibilityAdjustedReward(beta=candidate.beta)
    transformed = [TRANSFORMS[candidate.transform](row) for row in reward]
    return metric(np.array(transformed), loss)


def fit_beta(
    reward: Array, loss: Array, observed: Array, *, tried: Sequence[Candidate]
) -> Candidate:
    """Return the candidate with the highest mean rho over the students given.

    Of candidates that agree equally well the first is taken, so the default stands unless beaten.

    Args:
        reward: mean rewards, shape (students, teachers).
        loss: mean losses, likewise; of a proxy student the same in every row.
        observed: likewise, higher is better.
        tried: see `candidates`.

    Raises:
        StudyError: if a value is NaN or infinite, or there are fewer than 2 teachers.
    """
    everyone = np.ones((1, reward.shape[1]))
    return tried[
        int(_first_best(_mean_rhos(reward, loss, observed, tried=tried, counts=everyone))[0])
    ]


def _mean_rhos(
    reward: Array, loss: Array, observed: Array, *, tried: Sequence[Candidate], counts: Array
) -> Array:
    """Return each candidate's mean rho over the students in each draw, shape (draws, candidates)."""
    columns = [
        resampled_spearman(fitted(reward, loss, one), observed, counts).mean(axis=1)
        for one in tried
    ]
    return np.stack(columns, axis=1)


def _first_best(rhos: Array) -> NDArray[np.intp]:
    """Return the first best candidate of each draw; the rounding of a mean makes no winner."""
    comparable = np.where(np.isfinite(rhos), np.round(rhos, 12), -np.inf)
    best: NDArray[np.intp] = comparable.argmax(axis=1)
    return best


def hold_out_students(
    reward: Array, loss: Array, observed: Array, *, tried: Sequence[Candidate], names: Sequence[str]
) -> tuple[HeldOut, ...]:
    """Choose without each student in turn and judge there by rho; empty for a single student."""
    results = []
    for place, name in enumerate(names if len(names) > 1 else ()):
        rest = [other for other in range(len(names)) if other != place]
        chosen = fit_beta(reward[rest], loss[rest], observed[rest], tried=tried)
        here = reward[[place]], loss[[place]]
        value, default = (
            spearman(fitted(*here, one)[0], observed[place]) for one in (chosen, DEFAULT)
        )
        results.append(HeldOut(name, chosen, value, default))
    return tuple(results)


def hold_out_families(
    reward: Array,
    loss: Array,
    observed: Array,
    *,
    tried: Sequence[Candidate],
    families: Sequence[str],
) -> tuple[HeldOut, ...]:
    """Choose without each family's teachers in turn and judge on the pairs that hold one of them.

    The share of pairs ordered right is a mean over students; see `agreement.pairs_right`. Empty
    unless two families or more have two other teachers to choose by.
    """
    results = []
    for name, counts in zip(*without_each_family(families), strict=True):
        kept = counts > 0
        if kept.sum() < 2:
            continue
        rest = [values[:, kept] for values in (reward, loss, observed)]
        chosen = fit_beta(*rest, tried=tried)
        pairs = (~kept)[:, None] | ~kept
        value, default = (
            _mean_right(fitted(reward, loss, one), observed, pairs) for one in (chosen, DEFAULT)
        )
        results.append(HeldOut(name, chosen, value, default))
    return tuple(results)


def _mean_right(predicted: Array, observed: Array, pairs: NDArray[np.bool_]) -> float:
    rows = zip(predicted, observed, strict=True)
    return float(np.mean([pairs_right(one, other, pairs) for one, other in rows]))


class Labels(NamedTuple):
    """Who stands where: one name for each student, one family for each teacher."""

    students: Sequence[str]
    families: Sequence[str]


def calibrate(
    reward: Array,
    loss: Array,
    observed: Array,
    *,
    counts: Array,
    labels: Labels,
    tried: Sequence[Candidate],
) -> Calibration:
    """Return how much a fitted beta and transform gain over the default, and how sure that is.

    Args:
        reward: mean rewards, shape (students, teachers).
        loss: mean losses, likewise.
        observed: likewise, higher is better.
        counts: bootstrap draws of the teachers, shape (draws, teachers).
        labels: names for what is held out.
        tried: see `candidates`; the default must be the first.

    Raises:
        StudyError: as for `fit_beta`.
    """
    everyone = np.ones((1, reward.shape[1]))
    point = _mean_rhos(reward, loss, observed, tried=tried, counts=everyone)
    draws = _mean_rhos(reward, loss, observed, tried=tried, counts=counts)
    chosen = _first_best(draws)
    best = int(_first_best(point)[0])
    rows = [
        Tried(one, float(point[0, k]), percentile_ends(draws[:, k]), float(np.mean(chosen == k)))
        for k, one in enumerate(tried)
    ]
    return Calibration(
        tried=tuple(rows),
        best=tried[best],
        difference=float(point[0, best] - point[0, 0]),
        ends=percentile_ends(draws[:, best] - draws[:, 0]),
        students=hold_out_students(reward, loss, observed, tried=tried, names=labels.students),
        families=hold_out_families(reward, loss, observed, tried=tried, families=labels.families),
        teachers=reward.shape[1],
    )
