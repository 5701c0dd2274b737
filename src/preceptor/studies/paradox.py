"""The Larger Models' Paradox as a computed statement: which larger teacher is worse, and for whom.

The one idea: every pair of relatives is compared for every student, not only the pairs that the text names.
The differences are not independent (23 pairs of 19 teachers, each student tuned once per teacher, so one run
enters up to four of them), so they are counted and never turned into a p-value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from preceptor.studies.claims import Case, Finding, named, signed
from preceptor.studies.tables import (
    STUDENTS,
    TABLE_1,
    TABLE_6,
    TABLE_8_DEVIATION,
    defined_average,
    exact_performance,
    families,
)

NAMED_PAIRS: tuple[tuple[str, str], ...] = (
    ("Gemma-2-9b-it", "Gemma-2-27b-it"),
    ("Phi-3-small-128k-instruct", "Phi-3-medium-128k-instruct"),
    ("Llama-3.1-70B-Instruct", "Llama-3.1-405B-Instruct"),
    ("Qwen2-7B-Instruct", "Qwen2-72B-Instruct"),
    ("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct"),
)
"""The pairs (smaller, larger) of which section 3.3 says that the smaller teaches better."""

_MEASURED = "Llama-3.1-Minitron-4B"


@dataclass(frozen=True)
class SizeComparison:
    """Two relatives: by student, the AP with the larger as teacher less the AP with the smaller."""

    family: str
    smaller: str
    larger: str
    differences: Mapping[str, Decimal]

    @property
    def worse_for(self) -> tuple[str, ...]:
        """The students for whom the larger is the worse teacher: the paradox."""
        return tuple(student for student, change in self.differences.items() if change < 0)


def size_comparisons() -> tuple[SizeComparison, ...]:
    """Return every pair of relatives in table 7, 23 in six families, by AP as defined."""
    performance = exact_performance()
    return tuple(
        SizeComparison(
            family,
            smaller,
            larger,
            {
                student: performance[student][larger] - performance[student][smaller]
                for student in STUDENTS
            },
        )
        for family, teachers in families().items()
        for smaller, larger in combinations(teachers, 2)
    )


def paradox_findings() -> tuple[Finding, ...]:
    """Return the paradox for the named pairs, for every pair by family, and for the larger student."""
    return (_named_pairs(), _every_pair(), _larger_student())


def _named_pairs() -> Finding:
    pairs = {(pair.smaller, pair.larger): pair for pair in size_comparisons()}
    cases = tuple(
        Case(
            f"{smaller} over {larger}, {student}",
            change < 0,
            f"larger less smaller: {signed(change)}",
        )
        for smaller, larger in NAMED_PAIRS
        for student, change in pairs[smaller, larger].differences.items()
    )
    return Finding(
        "Larger Models' Paradox: the five pairs that the text names",
        "section 3.3, finding 1",
        (7,),
        "The smaller teaches better (of Gemma 2: for almost all students).",
        cases,
    )


def _every_pair() -> Finding:
    pairs = size_comparisons()
    cases = []
    for family in families():
        members = [pair for pair in pairs if pair.family == family]
        worse = sum(len(pair.worse_for) for pair in members)
        said = "; ".join(
            f"{_short(pair.smaller)} over {_short(pair.larger)} for {_whom(pair)}"
            for pair in members
            if pair.worse_for
        )
        count = f"{worse} of {len(members) * len(STUDENTS)}"
        cases.append(Case(family, worse > 0, f"{count}: {said or 'none'}"))
    return Finding(
        "Larger Models' Paradox: every pair of relatives",
        "section 3.3, finding 1 ('universal, evidenced across multiple model families')",
        (7,),
        "In each family some larger teacher is worse than a smaller one (pairs times students).",
        tuple(cases),
        _every_pair_remark(pairs),
    )


def _short(teacher: str) -> str:
    """Return the size that tells relatives apart, as 27B."""
    return next(f"{one.size:g}B" for one in TABLE_1 if one.label == teacher)


def _whom(pair: SizeComparison) -> str:
    """Return for whom the larger is worse, the shorter way round."""
    missing = [student for student in STUDENTS if student not in pair.worse_for]
    if not missing:
        return "all"
    return f"all but {named(missing)}" if len(missing) < 3 else named(pair.worse_for)


def _every_pair_remark(pairs: tuple[SizeComparison, ...]) -> str:
    """Return the counts over all pairs, what they are not, and what is known of the noise."""
    worse = sum(len(pair.worse_for) for pair in pairs)
    always, most = (sum(len(pair.worse_for) >= least for pair in pairs) for least in (5, 3))
    never = sum(not pair.worse_for for pair in pairs)
    by_student = ", ".join(
        f"{student} {sum(student in pair.worse_for for pair in pairs)}" for student in STUDENTS
    )
    # Two runs' difference has twice the variance of one; twice its deviation is the usual yardstick.
    margin = 2 * (2 * TABLE_8_DEVIATION.average**2).sqrt()
    losses = [pair.differences[_MEASURED] for pair in pairs if _MEASURED in pair.worse_for]
    beyond = sum(-loss > margin for loss in losses)
    return (
        f"The larger is worse in {worse} of {len(pairs) * len(STUDENTS)} differences and better in the "
        f"others; of {len(pairs)} pairs, worse for all five students in {always}, for three or more in "
        f"{most}, for none in {never}. By student, of {len(pairs)}: {by_student}. The differences share "
        f"95 runs, one per teacher and student, and students agree: no p-value is given, and the named "
        f"pairs were chosen after the fact. For {_MEASURED}, whose spread between samples is "
        f"{TABLE_8_DEVIATION.average} (table 8), {beyond} of {len(losses)} losses exceed {margin:.2f}, twice "
        "the deviation of a difference."
    )


def _larger_student() -> Finding:
    return Finding(
        "Larger Models' Paradox: Llama-3.1-8B as the student",
        "appendix B.2",
        (6,),
        "The paradox persists with Qwen2.5 and Llama 3.1 as teachers (by either average).",
        tuple(_larger_student_cases()),
        "As printed is the mean of LC, WR and AH; as defined that of LC and AH. Gemma 2 shows no paradox "
        "here, and its 9B and 27B are 1.0 apart at most.",
    )


def _larger_student_cases() -> Iterator[Case]:
    """Yield the pairs of which one average or both say that the larger is worse, then Gemma 2's."""
    printed = {str(row.teacher): row.average or Decimal() for row in TABLE_6}
    defined = {str(row.teacher): defined_average(row) for row in TABLE_6}
    for family, teachers in families().items():
        for smaller, larger in combinations([one for one in teachers if one in defined], 2):
            as_printed, as_defined = (
                averages[larger] - averages[smaller] for averages in (printed, defined)
            )
            if min(as_printed, as_defined) < 0 or family == "Gemma 2":
                yield Case(
                    f"{smaller} over {larger}",
                    max(as_printed, as_defined) < 0,
                    f"larger less smaller: {signed(as_printed)} as printed, {signed(as_defined)} as defined",
                    claimed=family != "Gemma 2",
                )
