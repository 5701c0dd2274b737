"""Every metric against every student: the paper's table 4 with intervals, and what stands beside it.

One set of draws of the teachers serves every cell, so the mean over students and the difference of two
metrics are paired, draw by draw. Results are plain frozen data; NaN is no value.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from preceptor.agreement.bootstrap import (
    FEWEST_FOR_INTERVAL,
    Ends,
    PermutationTest,
    adjusted_p_values,
    bonett_wright,
    design_effect,
    percentile_ends,
    permutation_test,
    permuted_rhos,
    resample,
    resample_families,
    resampled_spearman,
    rho_interval,
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

FEWEST_TOLD_APART = 35
"""From so many teachers on the 95% interval of a rho of 0.8 is at most 0.3 wide; fewer are warned of."""


@dataclass(frozen=True)
class Agreement:
    """How well one column predicts one student's order, or on average all students'.

    `student` is None for the average. `ends` is the 95% interval of rho, NaN below 8 teachers.
    `permutation` is two-sided, with the range of rho by chance, and with p adjusted for all metrics and
    students (for all metrics, of an average); baselines are not tested for. `regret` is in points of
    the observed measure, `regret_share` of the best. `top_three` is the share of the three top picks
    that are among the observed three.
    """

    column: str
    student: str | None
    rho: float
    ends: Ends
    permutation: PermutationTest
    tau: float
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


_PARTS = {2: ("low", "high"), 4: ("p", "low", "high", "p_adjusted")}


@dataclass(frozen=True)
class Difference:
    """One column's mean rho less another's on the same teachers and students.

    `ends` is by draws of teachers, of whole families where some are related. `p_better` is the share of
    draws in which the first is better, ties by half; both are NaN below 8 teachers. `needed` is roughly
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

    `ends` is the interval of the table's means. `lowest` and `highest` are the extremes with
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
        alone, self._counts = self._drawn()
        self._alone = {c.title: self._resampled(c, alone) for c in comparison.columns}
        self._rhos = {c.title: self._resampled(c, self._counts) for c in comparison.columns}
        rhos = np.array([self._seen(column) for column in comparison.columns])
        chance = np.stack([self._permuted(column) for column in comparison.columns], axis=1)
        tests = self._tests(rhos, chance)
        self.cells = [
            [
                self._cell(column, row, rho=float(rhos[k, row]), test=tests[k][row])
                for k, column in enumerate(comparison.columns)
            ]
            for row in range(len(comparison.students))
        ]
        tests = self._tests(rhos.mean(axis=1, keepdims=True), chance.mean(axis=2, keepdims=True))
        self.means = [
            self._mean(column, rho=float(rhos[k].mean()), test=tests[k][0])
            for k, column in enumerate(comparison.columns)
        ]

    @property
    def summary(self) -> list[Agreement]:
        """One number for each column: its mean over students, or where that has no meaning every cell."""
        return (
            self.means if self.comparison.averaged else [one for row in self.cells for one in row]
        )

    @property
    def related(self) -> bool:
        """Whether teachers are of fewer families than they are, and of two or more."""
        return 1 < len(set(self.comparison.families)) < len(self.comparison.teachers)

    def _drawn(self) -> tuple[Array, Array]:
        """Return draws of teachers, and of whole families where some teachers are related."""
        families = self.comparison.families
        rng = np.random.default_rng([self.seed, 0])
        alone = resample(len(families), draws=self.draws, rng=rng)
        if not self.related:
            return alone, alone
        rng = np.random.default_rng([self.seed, 3])
        return alone, resample_families(families, draws=self.draws, rng=rng)

    def _seen(self, column: Column) -> list[float]:
        pairs = zip(column.predicted, self.comparison.observed, strict=True)
        return [spearman(*pair) for pair in pairs]

    def _resampled(self, column: Column, counts: Array) -> Array:
        return resampled_spearman(column.predicted, self.comparison.observed, counts)

    def _permuted(self, column: Column) -> Array:
        # Every column sees the same shuffles, as it sees the same draws.
        rng = np.random.default_rng([self.seed, 1])
        return permuted_rhos(column.predicted, self.comparison.observed, draws=self.draws, rng=rng)

    def _ends(self, rho: float, column: Column, rows: slice) -> Ends:
        """Return the interval of a column's mean rho over these students."""
        if not math.isfinite(rho):
            return Ends(math.nan, math.nan)
        drawn, alone = self._rhos[column.title][:, rows], self._alone[column.title][:, rows]
        families = len(set(self.comparison.families)) if self.related else 0
        effect = design_effect(alone, drawn, families)
        return rho_interval(
            rho, drawn.mean(axis=1), teachers=len(self.comparison.teachers), effect=effect
        )

    def _cell(self, column: Column, row: int, *, rho: float, test: PermutationTest) -> Agreement:
        predicted, observed = column.predicted[row], self.comparison.observed[row]
        regret = top_one_regret(predicted, observed)
        return Agreement(
            column=column.title,
            student=self.comparison.students[row],
            rho=rho,
            ends=self._ends(rho, column, slice(row, row + 1)),
            permutation=test,
            tau=kendall(predicted, observed),
            regret=regret.points,
            regret_share=regret.share,
            top_three=top_three_hit(predicted, observed),
        )

    def _mean(self, column: Column, *, rho: float, test: PermutationTest) -> Agreement:
        cells = [cell for row in self.cells for cell in row if cell.column == column.title]
        return Agreement(
            column=column.title,
            student=None,
            rho=rho,
            ends=self._ends(rho, column, slice(None)),
            permutation=test,
            tau=_average(cell.tau for cell in cells),
            regret=_average(cell.regret for cell in cells),
            regret_share=_average(cell.regret_share for cell in cells),
            top_three=_average(cell.top_three for cell in cells),
        )

    def _tests(self, rhos: Array, chance: Array) -> list[list[PermutationTest]]:
        """Return a test for each rho, adjusted for all of them whose column is no baseline.

        Args:
            rhos: shape (columns, students), or (columns, 1) for means.
            chance: the same of shuffled teachers, shape (shuffles, columns, students).
        """
        teachers = len(self.comparison.teachers)
        judged = [not column.baseline for column in self.comparison.columns]
        adjusted = np.full(rhos.shape, np.nan)
        adjusted[judged] = adjusted_p_values(
            rhos[judged].ravel(), chance[:, judged].reshape(len(chance), -1), teachers=teachers
        ).reshape(-1, rhos.shape[1])
        return [
            [
                permutation_test(float(rho), chance[:, k, row], teachers=teachers)._replace(
                    adjusted=float(adjusted[k, row])
                )
                for row, rho in enumerate(row_of)
            ]
            for k, row_of in enumerate(rhos)
        ]

    def differences(self, against: str) -> list[Difference]:
        """Return every other column's difference from the column of this title or metric.

        Raises:
            StudyError: for a column that does not exist.
        """
        other = self.comparison.column(against)
        return [self._difference(c, other) for c in self.comparison.columns if c is not other]

    def _difference(self, column: Column, other: Column) -> Difference:
        gains = (self._rhos[column.title] - self._rhos[other.title]).mean(axis=1)
        few = len(self.comparison.teachers) < FEWEST_FOR_INTERVAL
        gains = np.array([]) if few else gains[np.isfinite(gains)]
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
        return Difference(column.title, other.title, value, ends, p_better, needed)

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
        return [
            self._family(column, names, rests, mean=mean)
            for column, mean in zip(self.comparison.columns, self.means, strict=True)
        ]

    def _family(
        self, column: Column, names: Sequence[str], rests: Array, *, mean: Agreement
    ) -> FamilyAgreement:
        left = list(zip(self._resampled(column, rests).mean(axis=1).tolist(), names, strict=True))
        left = [one for one in left if math.isfinite(one[0])] or [(math.nan, "")]
        related = same_family(self.comparison.families)
        unrelated = ~related & ~np.eye(len(related), dtype=bool)
        rows = list(zip(column.predicted, self.comparison.observed, strict=True))
        return FamilyAgreement(
            column=column.title,
            rho=mean.rho,
            ends=mean.ends,
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
        sentences = []
        if teachers < FEWEST_FOR_INTERVAL:
            sentences.append(
                f"No interval below {FEWEST_FOR_INTERVAL} teachers: {teachers} have too few orders for one "
                "that holds the truth often enough. Read p."
            )
        elif teachers < FEWEST_TOLD_APART:
            low, high = bonett_wright(0.8, teachers)
            sentences.append(
                f"With {teachers} teachers the 95% interval of a rho of 0.8 spans {low:.2f} to {high:.2f}: a "
                "difference of two metrics needs a paired interval (--baseline) to mean anything."
            )
        if families < teachers:
            draws = (
                "intervals are by draws of whole families"
                if self.related
                else "no interval sees it"
            )
            sentences.append(
                f"The {teachers} teachers are of {families} families, and relatives are alike: {draws}, and "
                "p takes the teachers for independent (--by-family)."
            )
        return sentences


def _average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
