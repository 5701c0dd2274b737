"""The data of a ranking: teachers from best to worst, and what stands behind each place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from preceptor.errors import StudyError, nearest
from preceptor.ranking.warnings import Warning
from preceptor.types import Estimate


@dataclass(frozen=True)
class TeacherResult:
    """One teacher's place, and the numbers behind it.

    `rank` 1 is best; teachers that tie share the better rank. `estimates` holds every measure and
    metric. `p_rank[k]` is the probability of rank k + 1. `p_leader_beats` is the probability that
    the first teacher of the ranking is better than this one, None for the first itself. `dropped`
    counts by reason what kept this teacher out of instructions.
    """

    teacher: str
    rank: int
    n: int
    estimates: Mapping[str, Estimate]
    p_rank: tuple[float, ...]
    p_leader_beats: float | None
    dropped: Mapping[str, int]
    truncated: int

    @property
    def p_best(self) -> float:
        """The probability of being the best teacher; ties are split equally."""
        return self.p_rank[0]


@dataclass(frozen=True)
class OrderVariant:
    """CAR's order under another beta or reward transform, against that under the chosen one."""

    name: str
    winners: tuple[str, ...]
    same_winner: bool
    same_order: bool
    swapped_pairs: int


@dataclass(frozen=True)
class Stability:
    """Whether CAR's order survives another beta or another reward transform, one at a time."""

    variants: tuple[OrderVariant, ...]
    pairs: int

    def describe(self) -> str:
        """Return one sentence that names the variants under which winner or order change."""
        turned = [variant.name for variant in self.variants if not variant.same_winner]
        moved = [v.name for v in self.variants if v.same_winner and not v.same_order]
        if not turned and not moved:
            return f"The order by car is the same under all {len(self.variants)} variants."
        parts = [f"the winner changes under {', '.join(turned)}"] if turned else []
        parts += [f"the order below the winner changes under {', '.join(moved)}"] if moved else []
        return f"By car, {' and '.join(parts)}."


@dataclass(frozen=True)
class FormedMetric:
    """What a metric declares: the measures it is made of, and its direction."""

    needs: tuple[str, ...]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Places:
    """Teachers from best to worst for one student by one metric.

    `by` is the metric that orders, `metrics` all that were formed, by name. `instructions` were asked for,
    of which each teacher's `n` could be compared. `stability` is None where CAR was not formed.
    """

    student: str
    by: str
    metrics: Mapping[str, FormedMetric]
    instructions: int
    teachers: tuple[TeacherResult, ...]
    settings: Mapping[str, object]
    warnings: tuple[Warning, ...]
    stability: Stability | None

    @property
    def best(self) -> TeacherResult:
        """The first teacher of the order, however unsure that is: see `verdict`."""
        return self.teachers[0]

    @property
    def order(self) -> tuple[str, ...]:
        """The teachers' names, best first."""
        return tuple(result.teacher for result in self.teachers)

    @property
    def reward_source(self) -> str | None:
        """Where the rewards came from, in words; None where there were none or nothing says it."""
        source = self.settings.get("reward")
        return None if source in (None, "none") else str(source)

    def __getitem__(self, teacher: str) -> TeacherResult:
        """Return one teacher's result; StudyError for a name that is not ranked."""
        for result in self.teachers:
            if result.teacher == teacher:
                return result
        raise StudyError(
            f"No teacher of this ranking is called '{teacher}'; ranked are {', '.join(self.order)}."
            f"{nearest(teacher, self.order)}"
        )

    def __iter__(self) -> Iterator[TeacherResult]:
        return iter(self.teachers)

    def __len__(self) -> int:
        return len(self.teachers)
