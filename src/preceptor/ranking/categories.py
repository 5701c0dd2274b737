"""The best teacher of each kind of instruction, and how sure that is when several kinds are looked at.

A winner of a kind beats every rival, so its p is the largest of its tests against them (intersection-union,
Berger 1982); and because a winner of any kind may be one by chance, these are adjusted over the kinds (Holm
1979). Which kinds are looked at is decided by their sizes, before any number is.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import Metric
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import MIN_OF_KIND, MIN_PROMPTS, Category
from preceptor.ranking.placing import estimates_of, placed
from preceptor.ranking.quantities import measured
from preceptor.ranking.stability import stability_of
from preceptor.ranking.verdict import CAPS
from preceptor.ranking.warnings import negative_rewards

_SHOWN = ("reward", "loss", "length")
"""Measures that a category shows beside what the metric needs."""


def by_category(
    common: Common,
    used: Common,
    metric: Metric,
    *,
    teachers: Sequence[str],
    options: RankingOptions,
    conditional: bool = True,
) -> tuple[Category, ...]:
    """Return the order within each category, the largest first; none where there is one category alone.

    What has no category, or one of fewer than 20 instructions, comes last as one without a name, of which
    nobody is the best.

    Args:
        common: the compared numbers, rewards not transformed.
        used: the same, rewards transformed.
        metric: what orders the ranking.
        teachers: labels of the rows.
        options: draws, seed and transform.
        conditional: whether the loss is read after the instruction.
    """
    groups = _groups(used.categories)
    if len(groups) < 2:
        return ()
    within = _Within(common, _shown(used, metric), metric, tuple(teachers), options, conditional)
    found = [within.category(name, places) for name, places in groups.items()]
    tested = [one for one in found if one.name is not None and one.n >= MIN_PROMPTS]
    # What has no p is looked at all the same: how many are is decided by their sizes alone.
    p_values = holm([1.0 if one.p_value is None else one.p_value for one in tested])
    p_adjusted = dict(zip((one.name for one in tested), p_values, strict=True))
    return tuple(
        one if one.p_value is None else replace(one, p_adjusted=p_adjusted.get(one.name))
        for one in found
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down, in the order given."""
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    found: list[float] = adjusted.tolist()
    return found


def _groups(categories: Sequence[str | None]) -> dict[str | None, NDArray[np.intp]]:
    """Return the places of each category's instructions; the small ones and those of none under None."""
    found: dict[str | None, list[int]] = {}
    for place, name in enumerate(categories):
        found.setdefault(name, []).append(place)
    sizes = {
        name: len(at) for name, at in found.items() if name is not None and len(at) >= MIN_OF_KIND
    }
    groups: dict[str | None, list[int]] = {
        name: found[name] for name in sorted(sizes, key=lambda name: (-sizes[name], name))
    }
    if rest := sorted(at for name, places in found.items() if name not in sizes for at in places):
        groups[None] = rest
    return {name: np.array(places, dtype=np.intp) for name, places in groups.items()}


def _shown(used: Common, metric: Metric) -> Common:
    """Return the measures that a category shows."""
    names = [name for name in dict.fromkeys((*_SHOWN, *metric.needs)) if name in used.values]
    return replace(
        used,
        values={name: used.values[name] for name in names},
        denominators={n: array for n, array in used.denominators.items() if n in names},
    )


@dataclass(frozen=True)
class _Within:
    """Forms the order within a category; the arguments are those of `by_category`."""

    common: Common
    used: Common
    metric: Metric
    teachers: tuple[str, ...]
    options: RankingOptions
    conditional: bool

    def category(self, name: str | None, places: NDArray[np.intp]) -> Category:
        """Return the order within these instructions; without an order where the metric has no meaning."""
        plain = Category(name, len(places))
        if len(places) < MIN_OF_KIND:
            return plain
        used = self.used.only(places)
        # Few instructions may have no finite value where all of them together have one.
        with suppress(StudyError):
            if self.metric.kind != "car" or not negative_rewards(used, self.teachers):
                return self._ordered(plain, used, places)
        with suppress(StudyError):
            columns = {measure: estimates_of(one) for measure, one in measured(used).items()}
            means = {
                teacher: {measure: column[row] for measure, column in columns.items()}
                for row, teacher in enumerate(self.teachers)
            }
            return replace(plain, means=means)
        return plain

    def _ordered(self, plain: Category, used: Common, places: NDArray[np.intp]) -> Category:
        found = placed(
            used, self.metric, metrics=(self.metric,), teachers=self.teachers, options=self.options
        )
        means = {one.teacher: one.estimates for one in found.teachers}
        if plain.name is None:
            return replace(plain, means=means)
        best, *rivals = found.teachers
        closest = max(rivals, key=lambda one: one.p_value or 0.0, default=None)
        cap = found.evidence.cap
        said = CAPS[cap].format(n=plain.n, effective=found.evidence.effective_n) if cap else ""
        return replace(
            plain,
            means=means,
            best=best.teacher,
            p_best=best.p_best,
            rival=closest.teacher if closest else None,
            p_value=closest.p_value if closest else None,
            against=(*filter(None, [said]), *self._turned(places)),
        )

    def _turned(self, places: NDArray[np.intp]) -> Iterator[str]:
        """Yield clauses on the settings under which another teacher leads."""
        stability = stability_of(
            self.common.only(places),
            self.metric,
            transform=self.options.transform,
            teachers=self.teachers,
            failures=None,
            conditional=self.conditional,
        )
        yield from stability.against() if stability else ()
