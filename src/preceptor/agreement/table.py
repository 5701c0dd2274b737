"""Every metric against every student: the paper's table 4 with intervals, and what stands beside it.

One set of draws of the teachers serves every cell, so the mean over students and the difference of two
metrics are paired, draw by draw. Results are plain frozen data; NaN is no value.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from preceptor.agreement.bootstrap import (
    Ends,
    PermutationTest,
    fisher_interval,
    percentile_ends,
    permutation_test,
    resample,
    resample_families,
    resampled_kendall,
    resampled_spearman,
    teachers_needed,
    without_each_family,
)
from preceptor.agreement.calibration import (
    MEAN_TRANSFORMS,
    Calibration,
    Labels,
    calibrate,
    candidates,
)
from preceptor.agreement.compare import Column, Comparison
from preceptor.agreement.correlation import (
    Array,
    kendall,
    pairs_right,
    same_family,
    spearman,
    top_one_regret,
    top_three_hit,
)
from preceptor.errors import StudyError

TOLD_APART = 0.3
"""An interval of a rho of 0.8 that is wider than this is warned of."""


@dataclass(frozen=True)
class Agreement:
    """How well one column predicts one student's order, or on average all students'.

    `student` is None for the average, which has no Fisher interval. `permutation` is two-sided, with
    the range of rho by chance. `regret` is in points of the observed measure, `regret_share` of the
    best. `top_three` is the share of the three top picks that are among the observed three.
    """

    column: str
    student: str | None
    rho: float
    ends: Ends
    fisher: Ends
    permutation: PermutationTest
    tau: float
    tau_ends: Ends
    regret: float
    regret_share: float
    top_three: float

    def record(self) -> dict[str, object]:
        """Return it as one flat row: text and numbers, None for no value."""
        fields = asdict(self)
        flat: dict[str, object] = {}
        for name, value in fields.items():
            parts = (
                zip(_PARTS[len(value)], value, strict=True) if isinstance(value, tuple) else None
            )
            flat |= {f"{name}_{part}": one for part, one in parts} if parts else {name: value}
        return {name: _none(value) for name, value in flat.items()}


_PARTS = {2: ("low", "high"), 3: ("p", "low", "high")}


@dataclass(frozen=True)
class Difference:
    """One column's mean rho less another's on the same teachers and students.

    `p_better` is the share of draws in which the first is better, ties by half. `needed` is roughly
    how many teachers let the difference clear zero: as many as there are where it does, None where a
    thousand would not.
    """

    column: str
    against: str
    value: float
    ends: Ends
    p_better: float
    needed: int | None


@dataclass(frozen=True)
class FamilyAgreement:
    """A column's mean rho once relatives are no longer taken for independent teachers.

    `ends` is the interval from draws of whole families. `lowest` and `highest` are the extremes with
    any one family left out, and which. `within` and `across` are the shares of pairs ordered right
    among teachers of one family and of different ones; 0.5 is chance.
    """

    column: str
    rho: float
    ends: Ends
    lowest: tuple[float, str]
    highest: tuple[float, str]
    within: float
    across: float


class AgreementTable:
    """The agreement of a comparison's columns with its students.

    Draws are taken once, when it is made. `cells` has a row for each student and in it one for each
    column; `means` has one for each column.
    """

    def __init__(self, comparison: Comparison, *, draws: int = 2000, seed: int = 0) -> None:
        """Work out all cells; one seed gives the same numbers again."""
        if draws < 100:
            raise StudyError(f"{draws} draws say nothing of an interval's ends: give 100 or more.")
        self.comparison, self.draws, self.seed = comparison, draws, seed
        self._counts = resample(
            len(comparison.teachers), draws=draws, rng=np.random.default_rng([seed, 0])
        )
        self._rhos = {c.title: self._resampled(c, self._counts) for c in comparison.columns}
        self.cells = [
            [self._cell(column, row) for column in comparison.columns]
            for row in range(len(comparison.students))
        ]
        self.means = [self._mean(column, k) for k, column in enumerate(comparison.columns)]

    def _resampled(self, column: Column, counts: Array) -> Array:
        return resampled_spearman(column.predicted, self.comparison.observed, counts)

    def _test(self, column: Column, rows: slice) -> PermutationTest:
        # Every cell sees the same shuffles, as it sees the same draws.
        rng = np.random.default_rng([self.seed, 1])
        observed = self.comparison.observed
        return permutation_test(column.predicted[rows], observed[rows], draws=self.draws, rng=rng)

    def _cell(self, column: Column, row: int) -> Agreement:
        predicted, observed = column.predicted[row], self.comparison.observed[row]
        rho, regret = spearman(predicted, observed), top_one_regret(predicted, observed)
        taus = resampled_kendall(predicted[None], observed[None], self._counts)
        return Agreement(
            column=column.title,
            student=self.comparison.students[row],
            rho=rho,
            ends=percentile_ends(self._rhos[column.title][:, row]),
            fisher=fisher_interval(rho, len(predicted)),
            permutation=self._test(column, slice(row, row + 1)),
            tau=kendall(predicted, observed),
            tau_ends=percentile_ends(taus[:, 0]),
            regret=regret.points,
            regret_share=regret.share,
            top_three=top_three_hit(predicted, observed),
        )

    def _mean(self, column: Column, place: int) -> Agreement:
        cells = [row[place] for row in self.cells]
        taus = resampled_kendall(column.predicted, self.comparison.observed, self._counts)
        return Agreement(
            column=column.title,
            student=None,
            rho=_average(cell.rho for cell in cells),
            ends=percentile_ends(self._rhos[column.title].mean(axis=1)),
            fisher=Ends(math.nan, math.nan),
            permutation=self._test(column, slice(None)),
            tau=_average(cell.tau for cell in cells),
            tau_ends=percentile_ends(taus.mean(axis=1)),
            regret=_average(cell.regret for cell in cells),
            regret_share=_average(cell.regret_share for cell in cells),
            top_three=_average(cell.top_three for cell in cells),
        )

    def differences(self, against: str) -> list[Difference]:
        """Return every other column's difference from the column of this title or metric.

        Raises:
            StudyError: for a column that does not exist.
        """
        other = self.comparison.column(against)
        return [self._difference(c, other) for c in self.comparison.columns if c is not other]

    def _difference(self, column: Column, other: Column) -> Difference:
        gains = (self._rhos[column.title] - self._rhos[other.title]).mean(axis=1)
        gains = gains[np.isfinite(gains)]
        means = {mean.column: mean.rho for mean in self.means}
        value = means[column.title] - means[other.title]
        ends = percentile_ends(gains)
        needed: int | None = len(self.comparison.teachers)
        if not (ends.low > 0 or ends.high < 0):
            rng = np.random.default_rng([self.seed, 2])
            pair = column.predicted, other.predicted
            needed = teachers_needed(*pair, self.comparison.observed, rng=rng) if value else None
        won = np.where(np.abs(gains) < 1e-12, 0.5, gains > 0)
        p_better = float(won.mean()) if won.size else math.nan
        return Difference(
            column.title, other.title, value, percentile_ends(gains), p_better, needed
        )

    def by_family(self) -> list[FamilyAgreement]:
        """Return each column's agreement by families.

        Raises:
            StudyError: where all teachers are of one family.
        """
        names, rests = without_each_family(self.comparison.families)
        if len(names) < 2:
            raise StudyError(
                f"All teachers are of the family '{names[0]}': there is nothing to hold out. Add "
                "teachers of other families."
            )
        rng = np.random.default_rng([self.seed, 3])
        picks = resample_families(self.comparison.families, draws=self.draws, rng=rng)
        return [
            self._family(column, names, rests, picks=picks) for column in self.comparison.columns
        ]

    def _family(
        self, column: Column, names: Sequence[str], rests: Array, *, picks: Array
    ) -> FamilyAgreement:
        left = list(zip(self._resampled(column, rests).mean(axis=1).tolist(), names, strict=True))
        left = [one for one in left if math.isfinite(one[0])] or [(math.nan, "")]
        related = same_family(self.comparison.families)
        unrelated = ~related & ~np.eye(len(related), dtype=bool)
        rows = list(zip(column.predicted, self.comparison.observed, strict=True))
        return FamilyAgreement(
            column=column.title,
            rho=_average(spearman(*row) for row in rows),
            ends=percentile_ends(self._resampled(column, picks).mean(axis=1)),
            lowest=min(left),
            highest=max(left),
            within=_average(pairs_right(*row, related) for row in rows),
            across=_average(pairs_right(*row, unrelated) for row in rows),
        )

    def calibration(self) -> Calibration:
        """Return what a fitted beta and reward transform gain; see `calibration.calibrate`.

        Raises:
            StudyError: without a column of mean rewards and one of mean losses, one of each.
        """
        found = {}
        for name in ("reward", "loss"):
            columns = [column for column in self.comparison.columns if column.metric == name]
            if len(columns) != 1:
                raise StudyError(
                    f"Calibration needs one column '{name}' and found {len(columns)}. Give predictions with "
                    "mean rewards of one source and mean losses."
                )
            found[name] = columns[0].values
        transforms = ("raw",) if self.comparison.transformed else MEAN_TRANSFORMS
        return calibrate(
            found["reward"],
            found["loss"],
            self.comparison.observed,
            counts=self._counts,
            labels=Labels(self.comparison.students, self.comparison.families),
            tried=candidates(transforms=transforms),
        )

    def warnings(self) -> list[str]:
        """Return what so few teachers cannot tell, in sentences."""
        teachers, families = len(self.comparison.teachers), len(set(self.comparison.families))
        low, high = fisher_interval(0.8, teachers)
        sentences = []
        if not high - low <= TOLD_APART:
            span = f"{low:.2f} to {high:.2f}" if math.isfinite(low) else "everything"
            sentences.append(
                f"With {teachers} teachers the 95% interval of a rho of 0.8 spans {span} (Fisher's z): a "
                "difference of two metrics needs a paired interval (--baseline) to mean anything."
            )
        if families < teachers:
            sentences.append(
                f"The {teachers} teachers are of {families} families, and relatives are alike: intervals "
                "over teachers are too narrow (--by-family)."
            )
        return sentences


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
