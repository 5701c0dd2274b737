"""The data of a ranking: teachers from best to worst, and what stands behind each place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from preceptor.errors import StudyError, nearest
from preceptor.ranking.diversity import Diversity
from preceptor.types import Estimate, Warning

Cap = Literal["few-prompts", "skewed", "few-values"]
"""Why no winner is named: few instructions, a few responses that hold the result, hardly a difference."""

MIN_PROMPTS = 30
"""Below this many instructions no winner is named."""

MIN_OF_KIND = 20
"""Instructions of one kind from which on it has means: those over fewer are mostly chance."""

MOST_PROMPTS = 100_000
"""A need of more further instructions than this is not told as a number."""


@dataclass(frozen=True)
class TeacherResult:
    """One teacher's place, and the numbers behind it.

    `rank` 1 is best; teachers that tie share the better rank. `estimates` holds every measure and
    metric; the leader's interval of the metric that orders allows for its having been chosen as the highest.
    `p_rank[k]` is the probability of rank k + 1 by that metric. `p_leader_beats` is the probability that
    the first teacher of the ranking is better than this one, None for the first itself. `dropped`
    counts by reason what kept this teacher out of instructions.

    None for the first are also `behind`, by how much this teacher is behind it (the metric's units, positive
    whatever the direction), and `p_value`, two-sided, of their being equal. `discordant` counts the
    instructions on which only the first, and only this teacher, has the better of two values; None where
    there are more than two.
    """

    teacher: str
    rank: int
    n: int
    estimates: Mapping[str, Estimate]
    p_rank: tuple[float, ...]
    p_leader_beats: float | None
    dropped: Mapping[str, int]
    truncated: int
    behind: Estimate | None = None
    p_value: float | None = None
    discordant: tuple[int, int] | None = None

    @property
    def p_best(self) -> float:
        """The probability of being the first by the metric that orders; ties are split equally."""
        return self.p_rank[0]


@dataclass(frozen=True)
class Evidence:
    """How far the numbers carry the order; all by the metric that orders, over prompts like these.

    `named` tells whether the leader may be called the best: it beats every other teacher in a test that errs
    in at most 5% of the cases where teachers are equal, and nothing stands against it (`cap`). `effective_n`
    is the number of instructions less what skewness costs. Among `contenders`, the leader first, is the best
    with 95% confidence. `regret` is what taking the leader is expected to lose against taking the best, in
    the metric's units. About `more_prompts` further instructions would settle who is first: 0 where that is
    settled, None where more than 100,000 would not.
    """

    named: bool = False
    cap: Cap | None = None
    effective_n: float = 0.0
    contenders: tuple[str, ...] = ()
    regret: float = 0.0
    more_prompts: int | None = None


@dataclass(frozen=True)
class OrderVariant:
    """The order under another way to read the same numbers, against that of the ranking.

    `values` are what orders then, by teacher.
    """

    name: str
    winners: tuple[str, ...]
    same_winner: bool
    same_order: bool
    swapped_pairs: int
    values: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.name} ({' and '.join(self.winners)})"


@dataclass(frozen=True)
class Stability:
    """Whether the order by `by` survives other ways to read the same numbers, one at a time.

    `winners` are those of the ranking, several where they tie.
    """

    by: str
    winners: tuple[str, ...]
    variants: tuple[OrderVariant, ...]
    pairs: int

    @property
    def turned(self) -> tuple[OrderVariant, ...]:
        """The variants under which the first place is another's, or shared with another."""
        return tuple(v for v in self.variants if not v.same_winner)

    def against(self) -> list[str]:
        """Return clauses that name the variants under which the first place is another's, or shared."""
        shared = [str(v) for v in self.turned if set(v.winners) > set(self.winners)]
        other = [str(v) for v in self.turned if str(v) not in shared]
        parts = [f"the winner changes under {', '.join(other)}"] if other else []
        return parts + ([f"the first place is shared under {', '.join(shared)}"] if shared else [])

    def describe(self) -> str:
        """Return one sentence that names the variants under which winner or order change."""
        moved = [v.name for v in self.variants if v.same_winner and not v.same_order]
        parts = self.against()
        parts += [f"the order below the winner changes under {', '.join(moved)}"] if moved else []
        if not parts:
            only = len(self.variants) == 1
            what = self.variants[0].name if only else f"all {len(self.variants)} variants"
            return f"The order by {self.by} is the same under {what}."
        return f"By {self.by}, {'; '.join(parts)}."


@dataclass(frozen=True)
class FormedMetric:
    """What a metric declares: the measures it is made of, and its direction."""

    needs: tuple[str, ...]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Trust:
    """How far the metric that orders has been right before, on data of this kind.

    `kind` was found for the reason `why`. `record` is one line for the verdict. `records` have what each
    formed metric, and a teacher's record with other students, was worth on every published study, as plain
    values. `known` is each known teacher's mean standard score with other students, higher is better, and
    `combined` the order by it and the metric together, which is exploratory.
    """

    kind: str
    why: str
    record: str
    records: tuple[Mapping[str, Any], ...] = ()
    known: Mapping[str, float] = field(default_factory=dict)
    combined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """The order within one kind of instruction, by the metric that orders the whole ranking.

    `name` is None for the other kinds together: what has none, and those of fewer than 20 instructions.
    `means` are by teacher and measure, empty below 20 instructions. `best` leads, with its probability of
    being the first; None where nothing orders. `p_value` is its largest over all rivals, of which `rival` is
    the closest, and `p_adjusted` that for having looked at several kinds (Holm); None below 30 instructions.
    `against` are clauses on why no winner may be named of these numbers, whatever p says.
    """

    name: str | None
    n: int
    means: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    best: str | None = None
    p_best: float | None = None
    rival: str | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Teachers from best to worst for one student by one metric.

    `by` is the metric that orders, `metrics` all that were formed, by name. `instructions` were asked for,
    of which each teacher's `n` could be compared. `stability` is None where there is no other way to read the
    numbers that order. `trust` is None where nobody looked for the metric's record. `categories` are the
    kinds of instructions, the largest first and the others last; empty where there are no two.
    `diversity` is by teacher, exploratory, empty where nobody looked at the texts.
    """

    student: str
    by: str
    metrics: Mapping[str, FormedMetric]
    instructions: int
    teachers: tuple[TeacherResult, ...]
    settings: Mapping[str, object]
    warnings: tuple[Warning, ...]
    stability: Stability | None
    evidence: Evidence = Evidence()
    trust: Trust | None = None
    categories: tuple[Category, ...] = ()
    diversity: Mapping[str, Diversity] = field(default_factory=dict)

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
