"""Teachers by dimension: what was observed of each in every benchmark, and where the order changes.

Nothing is averaged over dimensions: points of one are not points of another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, permutations
from typing import NamedTuple

from preceptor.ranking.result import Ranking
from preceptor.types import Estimate


class Placed(NamedTuple):
    """A teacher's place in one dimension, and what it rests on, with its 95% interval."""

    rank: int
    estimate: Estimate


class Turned(NamedTuple):
    """Two teachers of which `one` is clearly ahead in dimension `here`, and `other` in dimension `there`."""

    one: str
    other: str
    here: str
    there: str


@dataclass(frozen=True)
class DimensionTable:
    """One student's teachers in every dimension.

    `measures` says by dimension what it is measured by. `places` has, by teacher in the order of the first
    dimension, its place in each. `disagreeing` counts, of `pairs` of teachers in two dimensions, those that
    stand in opposite orders, and `turned` are those of them whose 95% intervals lie apart in both. `notes`
    say what must be known of the benchmarks.
    """

    student: str
    measures: Mapping[str, str]
    places: Mapping[str, Mapping[str, Placed]]
    turned: tuple[Turned, ...]
    disagreeing: int
    pairs: int
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """Return in words where the order changes from one dimension to another."""
        found = [
            f"{self.student}: {one.one} is ahead of {one.other} in {one.here}, and behind it in {one.there}; "
            "their 95% intervals lie apart in both."
            for one in self.turned
        ]
        rest = self.disagreeing - len(self.turned)
        if rest or not found:
            found.append(
                f"{self.student}: of {self.pairs} comparisons of two teachers in two dimensions {rest} "
                f"{'more ' if found else ''}come out in opposite orders with intervals that overlap: these "
                "data do not tell such a change from chance."
            )
        return found

    def record(self) -> dict[str, object]:
        """Return it as plain values fit for JSON."""
        return {
            "student": self.student,
            "measures": dict(self.measures),
            "teachers": {
                teacher: {
                    name: {"rank": placed.rank, **asdict(placed.estimate)}
                    for name, placed in own.items()
                }
                for teacher, own in self.places.items()
            },
            "turned": [one._asdict() for one in self.turned],
            "opposite": self.disagreeing,
            "of": self.pairs,
            "notes": list(self.notes),
        }


def dimension_tables(
    observed: Sequence[Ranking], named: Sequence[str]
) -> tuple[DimensionTable, ...]:
    """Return a table for each student; none where there is one dimension alone.

    Args:
        observed: one order for each dimension and student.
        named: the dimension of each.
    """
    if len(set(named)) < 2:
        return ()
    students = dict.fromkeys(ranking.student for ranking in observed)
    return tuple(
        _table(
            student,
            {
                name: one
                for name, one in zip(named, observed, strict=True)
                if one.student == student
            },
        )
        for student in students
    )


def _table(student: str, rankings: Mapping[str, Ranking]) -> DimensionTable:
    first = next(iter(rankings.values()))
    places = {
        result.teacher: {
            name: Placed(one[result.teacher].rank, one[result.teacher].estimates[one.by])
            for name, one in rankings.items()
        }
        for result in first.teachers
    }
    turned = tuple(_turned(places, tuple(rankings)))
    couples = list(combinations(rankings, 2))
    opposite = [
        (one, other)
        for one, other in combinations(places.values(), 2)
        for here, there in couples
        if _lead(one, other, here) * _lead(one, other, there) < 0
    ]
    return DimensionTable(
        student=student,
        measures={name: _measure(one) for name, one in rankings.items()},
        places=places,
        turned=turned,
        disagreeing=len(opposite),
        pairs=len(couples) * len(places) * (len(places) - 1) // 2,
        notes=tuple(
            f"{name}: {warning.text}"
            for name, one in rankings.items()
            for warning in one.warnings
            if warning.code == "benchmark"
        ),
    )


def _measure(ranking: Ranking) -> str:
    judge, baseline = (ranking.settings.get(name) for name in ("judge", "baseline"))
    by = f", {'judged' if baseline else 'checked'} by {judge}" if judge else ""
    return f"{ranking.by} in {ranking.settings['benchmark']}{by}, n = {ranking.instructions:,}"


def _lead(one: Mapping[str, Placed], other: Mapping[str, Placed], dimension: str) -> float:
    return one[dimension].estimate.value - other[dimension].estimate.value


def _turned(
    places: Mapping[str, Mapping[str, Placed]], dimensions: Sequence[str]
) -> Iterator[Turned]:
    for here, there in combinations(dimensions, 2):
        for (one, mine), (other, theirs) in permutations(places.items(), 2):
            if _clear(mine[here], theirs[here]) and _clear(theirs[there], mine[there]):
                yield Turned(one, other, here, there)


def _clear(better: Placed, worse: Placed) -> bool:
    return better.estimate.low > worse.estimate.high
