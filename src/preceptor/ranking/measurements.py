"""Measurements: what was measured of whom, and the instructions on which teachers may be compared.

A comparison is fair only on instructions that every teacher answered and that have
every measure the metrics need. That one common set is found here, or refused with what it would
take.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError, nearest
from preceptor.ranking.later_metrics import LATER_METRICS
from preceptor.ranking.metrics import Array, Metric

Flags = NDArray[np.bool_]

_LIKELIHOOD = "it comes from the likelihood scorer: name a base model with --student"

_REWARD = "give --reward-column NAME, --reward-model ID, or a reference answer in every row"

SOURCES: Mapping[str, str] = {
    "reward": _REWARD,
    "reward_share": _REWARD,
    "likelihood_share": _LIKELIHOOD,
    "loss": _LIKELIHOOD,
    "plain_loss": _LIKELIHOOD,
    "perplexity": _LIKELIHOOD,
    "ifd": _LIKELIHOOD,
    "token_rank": _LIKELIHOOD,
    **dict.fromkeys((name for one in LATER_METRICS for name in one.needs), _LIKELIHOOD),
    "length": "the length scorer always gives it",
}
"""What gives each measure that a registered metric needs."""


@dataclass(frozen=True)
class Measurements:
    """Everything a ranking needs to know about the responses, as columns.

    `values` maps each measure to shape (teachers, instructions), averaged over all its
    samples; NaN is no data for this pair. `instructions` is how many were asked for, at least the
    columns given. Where `denominators` has a measure, its mean is the sum of values over the sum of
    denominators (a corpus-token-mean loss: sums over token counts). `dropped` says per teacher and
    reason how many responses were lost on the way, `truncated` how many were cut at the maximum
    length but kept. For each teacher and instruction `failed` has the share of requests without an answer,
    and `unscored` that of answers without a number, where the columns do not show it; None is none.
    `categories` is the kind of each instruction given, None for none; empty where the data have no kinds.
    `mixtures` are the teachers that are made of several others. `empty` returns an array to be filled, in a
    file, where the values are in files too; None is memory.

    Raises:
        StudyError: if labels repeat, shapes disagree, or a number is infinite.
    """

    teachers: tuple[str, ...]
    instructions: int
    values: Mapping[str, Array]
    denominators: Mapping[str, Array] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)
    failed: Array | None = None
    unscored: Array | None = None
    categories: tuple[str | None, ...] = ()
    mixtures: frozenset[str] = frozenset()
    empty: Callable[[tuple[int, ...]], Array] | None = None

    def __post_init__(self) -> None:
        if not self.teachers or len(set(self.teachers)) < len(self.teachers):
            raise StudyError(
                f"Cannot rank the teachers {list(self.teachers)}: expected at least one, each "
                "label once. Give every teacher a label of its own."
            )
        if unknown := set(self.denominators) - (set(self.values) - {"reward"}):
            raise StudyError(
                f"Denominators for {sorted(unknown)}: expected only measures with values, "
                "and never the reward. Leave them out."
            )
        columns = next((array.shape[-1] for array in self.values.values()), 0)
        shares = {"failed": self.failed, "unscored": self.unscored}
        given = {name: share for name, share in shares.items() if share is not None}
        for name, array in (*self.values.items(), *self.denominators.items(), *given.items()):
            self._check(name, array, (len(self.teachers), columns))

    def _check(self, name: str, array: Array, shape: tuple[int, int]) -> None:
        if array.shape != shape or shape[1] > self.instructions:
            raise StudyError(
                f"Measure '{name}' has shape {array.shape}: expected {shape[0]} teachers by at "
                f"most {self.instructions} instructions, alike for every measure. Build all "
                "measures from the same list of instructions."
            )
        if np.isinf(array).any():
            raise StudyError(
                f"Measure '{name}' has an infinite number: expected finite ones, NaN for no data. "
                "Repair the scorer that gave it."
            )


class _Cut(Mapping[str, Array]):
    """Arrays (teachers, instructions) on some of the instructions, cut out anew at each look.

    Each is as large as what was measured: all of them would be twice the memory. Where `empty` gives room in
    files, each is cut out once. `changed` are others in place of some, cut already.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        keep: Flags,
        empty: Callable[[tuple[int, ...]], Array] | None,
        changed: Mapping[str, Array] | None = None,
    ) -> None:
        self._arrays, self._keep, self._empty = arrays, keep, empty
        self._changed = changed or {}
        self._cut: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        known = self._changed.get(name, self._cut.get(name))
        if known is not None:
            return known
        array, keep = self._arrays[name], self._keep
        if self._empty is None or keep.all():
            return _kept(array, keep)
        found = self._empty((len(array), int(keep.sum())))
        self._cut[name] = np.compress(keep, array, axis=1, out=found)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def at(self, places: NDArray[np.intp]) -> dict[str, Array]:
        """Return the arrays on some of these instructions alone."""
        whole = np.flatnonzero(self._keep)[places]
        return {
            name: np.ascontiguousarray(array)[:, whole]
            if name not in self._changed
            else self._changed[name][:, places]
            for name, array in self._arrays.items()
        }

    def changed(self, name: str, array: Array) -> "_Cut":
        """Return the arrays with another one under a name."""
        other = _Cut(self._arrays, self._keep, self._empty, {**self._changed, name: array})
        other._cut = self._cut
        return other


def _at(arrays: Mapping[str, Array], places: NDArray[np.intp]) -> dict[str, Array]:
    """Return arrays on these instructions alone."""
    if isinstance(arrays, _Cut):
        return arrays.at(places)
    return {name: array[:, places] for name, array in arrays.items()}


@dataclass(frozen=True)
class Common:
    """The instructions every teacher has, and each teacher's numbers on them.

    `values` and `denominators` map measures to shape (teachers, `n`), without NaN. `notes` says
    what was left out, in sentences; it is empty where nothing was. `categories` is each
    instruction's kind, empty where the data have no kinds.
    """

    n: int
    values: Mapping[str, Array]
    denominators: Mapping[str, Array]
    dropped: tuple[Mapping[str, int], ...]
    notes: tuple[str, ...]
    categories: tuple[str | None, ...] = ()

    def only(self, places: NDArray[np.intp]) -> "Common":
        """Return the numbers on these instructions alone."""
        return replace(
            self,
            n=len(places),
            values=_at(self.values, places),
            denominators=_at(self.denominators, places),
            categories=tuple(self.categories[at] for at in places) if self.categories else (),
        )

    def of(self, rows: Sequence[int]) -> "Common":
        """Return the numbers of these teachers alone."""
        if len(rows) == len(self.dropped):
            return self
        return replace(
            self,
            values={name: array[rows] for name, array in self.values.items()},
            denominators={name: array[rows] for name, array in self.denominators.items()},
            dropped=tuple(self.dropped[row] for row in rows),
        )

    def changed(self, name: str, array: Array) -> "Common":
        """Return the numbers with another array for one of the measures."""
        if isinstance(self.values, _Cut):
            return replace(self, values=self.values.changed(name, array))
        return replace(self, values={**self.values, name: array})

    def mean(self, name: str) -> Array:
        """Return a measure's mean for each teacher, over the sum of its denominators where it has any."""
        mean: Array = self.values[name].mean(axis=1)
        below = self.denominators.get(name)
        return mean if below is None else mean / below.mean(axis=1)


def common_instructions(
    measurements: Measurements, needed: Sequence[str], *, min_coverage: float
) -> Common:
    """Return the instructions on which every teacher has every needed measure.

    A measure that is not needed is carried along where it is complete on them, and named in a warning
    otherwise.

    Args:
        measurements: what was measured.
        needed: measures, all of them present in `measurements`.
        min_coverage: smallest acceptable share of the instructions asked for.

    Raises:
        StudyError: if a teacher has no data at all for a needed measure, if fewer than two
        instructions
            are common, or if they are too small a share; the message says who costs the most.
    """
    missing = {name: _missing(measurements, name) for name in measurements.values}
    _require_some_data(measurements, {name: missing[name] for name in needed})
    innocent = _bystanders(measurements)
    gaps = np.logical_or.reduce([missing[name] for name in needed]) & ~innocent
    dropped = tuple(
        _reasons(
            measurements,
            place,
            lost,
            {name: (missing[name] & ~innocent)[place] for name in needed},
        )
        for place, lost in enumerate(_lost(measurements, gaps))
    )
    keep = complete(measurements, needed)
    n = int(keep.sum())
    if n < 2 or n < min_coverage * measurements.instructions:
        raise StudyError(_refusal(measurements, gaps, dropped, min_coverage=min_coverage))
    whole = [name for name in missing if not missing[name][:, keep].any()]
    return Common(
        n=n,
        values=_Cut({name: measurements.values[name] for name in whole}, keep, measurements.empty),
        denominators=_Cut(
            {name: one for name, one in measurements.denominators.items() if name in whole},
            keep,
            measurements.empty,
        ),
        dropped=dropped,
        notes=tuple(_notes(measurements, gaps, dropped, whole=whole)),
        categories=tuple(compress(measurements.categories, keep)),
    )


def complete(measurements: Measurements, needed: Sequence[str]) -> Flags:
    """Tell on which instructions every teacher has every needed measure."""
    gaps = np.logical_or.reduce([_missing(measurements, name) for name in needed])
    return np.asarray(~gaps.any(axis=0))


def failure_shares(measurements: Measurements) -> dict[str, float]:
    """Return the share of its requests that each teacher left without an answer, of those that left any."""
    failed = measurements.failed
    return {} if failed is None else _shares(measurements, failed)


def unscored_shares(measurements: Measurements, needed: Sequence[str]) -> dict[str, float]:
    """Return the share of instructions that each teacher answered, and for which it lacks a needed number.

    Where all teachers lack it, it is the instruction's fault and chooses nothing.
    """
    answered = _answered(measurements).all(axis=0)
    lacking = answered & np.logical_or.reduce([_missing(measurements, name) for name in needed])
    lacking &= ~lacking.all(axis=0)
    unscored = _unscored(measurements)
    return _shares(measurements, lacking | (unscored & ~unscored.all(axis=0)))


def _answered(measurements: Measurements) -> Flags:
    """Tell which pairs have any number."""
    known = [~_missing(measurements, name) for name in measurements.values]
    found: Flags = np.logical_or.reduce(known)
    return found


def _unscored(measurements: Measurements) -> Flags:
    """Tell which pairs have no number because all answers lack one."""
    answered = _answered(measurements)
    if measurements.unscored is None:
        return np.zeros_like(answered)
    return ~answered & (measurements.unscored > 0)


def _shares(measurements: Measurements, of: Array | Flags) -> dict[str, float]:
    shares = of.mean(axis=1) if of.shape[1] else np.zeros(len(of))
    named = zip(measurements.teachers, shares.tolist(), strict=True)
    return {name: share for name, share in named if share > 0}


def require_measures(metrics: Iterable[Metric], measures: Iterable[str]) -> None:
    """Check that every measure the metrics need was taken.

    Raises:
        StudyError: naming the metric, the measure, and what would give it.
    """
    known = list(measures)
    for metric in metrics:
        for measure in metric.needs:
            if measure not in known:
                remedy = SOURCES.get(measure)
                raise StudyError(
                    f"Metric '{metric.kind}' needs the measure '{measure}', which the responses do "
                    f"not have; they have {', '.join(known) or 'none'}."
                    + (f" To have it, {remedy}." if remedy else nearest(measure, known))
                )


def _missing(measurements: Measurements, name: str) -> Flags:
    missing: Flags = np.isnan(measurements.values[name])
    if name in measurements.denominators:
        missing |= np.isnan(measurements.denominators[name])
    return missing


def _bystanders(measurements: Measurements) -> Flags:
    """Tell who lacks numbers only because another's are missing there, so that nothing was measured."""
    unscored, failed = _unscored(measurements), measurements.failed
    others: Flags = unscored.any(axis=0) & ~unscored
    return others if failed is None else others & (failed == 0)


def _kept(array: Array, keep: Flags) -> Array:
    # One memory layout whatever came in, because sums round differently along another; and no copy
    # where nothing is left out, because it would double the memory.
    return np.ascontiguousarray(array if keep.all() else array[:, keep])


def _require_some_data(measurements: Measurements, missing: Mapping[str, Flags]) -> None:
    for name, absent in missing.items():
        bare = [t for t, row in zip(measurements.teachers, absent, strict=True) if row.all()]
        if bare:
            raise StudyError(
                f"No {name} at all for {_names(bare)}: expected at least two instructions with it. "
                f"Score {name} for these responses, leave the teacher out, or choose metrics that "
                f"do not need {name}."
            )


def _lost(measurements: Measurements, gaps: Flags) -> list[int]:
    """Return how many of the instructions asked for each teacher lacks.

    An instruction that is not among the columns was lost by whoever has a reason for it; where no
    reasons are given at all, by everyone.
    """
    unseen = measurements.instructions - gaps.shape[1]
    given = measurements.dropped
    explained = [
        sum(given.get(name, {}).values()) if given else unseen + int(row.sum())
        for name, row in zip(measurements.teachers, gaps, strict=True)
    ]
    return [
        max(int(row.sum()), min(int(row.sum()) + unseen, known))
        for row, known in zip(gaps, explained, strict=True)
    ]


def _reasons(
    measurements: Measurements, place: int, lost: int, missing: Mapping[str, Flags]
) -> Mapping[str, int]:
    """Return the reasons given with the measurements, else the measures seen to be missing."""
    seen = {f"no {name}": int(absent.sum()) for name, absent in missing.items()}
    counts = dict(measurements.dropped.get(measurements.teachers[place]) or seen)
    counts["unexplained"] = max(0, lost - sum(counts.values()))
    return {reason: count for reason, count in counts.items() if count}


def _losses(measurements: Measurements, gaps: Flags, dropped: Sequence[Mapping[str, int]]) -> str:
    """Return, for every teacher that lacks instructions, how many and why, most first."""
    lost = _lost(measurements, gaps)
    parts = []
    for place in sorted(range(len(lost)), key=lambda place: -lost[place]):
        if lost[place]:
            why = ", ".join(f"{reason} {count}" for reason, count in dropped[place].items())
            name = measurements.teachers[place]
            parts.append(f"'{name}' {lost[place]}" + (f" ({why})" if why else ""))
    return "; ".join(parts)


def _refusal(
    measurements: Measurements,
    gaps: Flags,
    dropped: Sequence[Mapping[str, int]],
    *,
    min_coverage: float,
) -> str:
    """Return why there is too little to compare, who costs the most, and what to do."""
    n = int((~gaps.any(axis=0)).sum())
    alone = gaps & (gaps.sum(axis=0) == 1)
    costs = [(int(a.sum()), int(g.sum())) for a, g in zip(alone, gaps, strict=True)]
    worst = max(range(len(costs)), key=lambda place: costs[place])
    least = max(2, math.ceil(min_coverage * measurements.instructions))
    return (
        f"Only {n} of {measurements.instructions} instructions can be compared: at least {least} "
        "need every measure from every teacher. Lacking: "
        f"{_losses(measurements, gaps, dropped) or 'none'}. '{measurements.teachers[worst]}' costs "
        f"the most: {n + costs[worst][0]} could be compared without it. Leave it out, complete its "
        "responses, give more instructions, or accept a lower minimum coverage."
    )


def _notes(
    measurements: Measurements,
    gaps: Flags,
    dropped: Sequence[Mapping[str, int]],
    *,
    whole: Sequence[str],
) -> list[str]:
    """Return sentences about the instructions, measures and text that are left out."""
    lost = measurements.instructions - int((~gaps.any(axis=0)).sum())
    notes = []
    if lost:
        notes.append(
            f"{lost} of {measurements.instructions} instructions are left out because a teacher "
            f"lacks them: {_losses(measurements, gaps, dropped)}."
        )
    if partial := [name for name in measurements.values if name not in whole]:
        notes.append(f"Not shown, because some responses lack it: {', '.join(partial)}.")
    cut = {name: count for name, count in measurements.truncated.items() if count}
    if cut:
        counts = ", ".join(f"'{name}' {count}" for name, count in cut.items())
        notes.append(f"Responses cut at the maximum length and judged by their start: {counts}.")
    return notes


def _names(teachers: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in teachers)
