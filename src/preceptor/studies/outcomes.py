"""What any outcomes say of teachers: their size, family, openness, and how their responses were sampled.

Outcomes are scores by student and teacher, higher is better. Family, size and openness of a teacher come
from the catalogue; a teacher that it does not know takes part only where none of them matters. Arithmetic is
exact, so that a difference of nothing is nothing. Nothing here knows the paper.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from preceptor.config.catalogue import SHIPPED, Catalogue, CatalogueEntry
from preceptor.studies.finding import Case, Finding, mean, named, ordinal, place, shown, signed

Outcomes = Mapping[str, Mapping[str, Decimal]]
"""Student -> teacher -> score, higher is better."""

PARADOX = "Larger Models' Paradox: every pair of relatives"

_VARIANT = re.compile(
    r"(?P<model>.+?)(?: T=(?P<temperature>\d+(?:\.\d+)?))?(?: p=\d+(?:\.\d+)?)?"
    r"(?: (?P<choice>best|worst|random)-of-(?:\d+|all))?"
)


def exact(outcomes: Mapping[str, Mapping[str, float]]) -> Outcomes:
    """Return the scores as decimals of the digits that they show."""
    return {
        student: {teacher: Decimal(str(score)) for teacher, score in scores.items()}
        for student, scores in outcomes.items()
    }


def outcome_findings(
    outcomes: Mapping[str, Mapping[str, float]], known: Catalogue = SHIPPED
) -> tuple[Finding, ...]:
    """Return what these outcomes (student -> teacher -> score) say; what they cannot show is left out."""
    scores = exact(outcomes)
    found = (
        larger_models_paradox(scores, known),
        family_effect(scores, known),
        own_version(scores, known),
        open_against_closed(scores, known),
        sampling(scores),
        best_of_n(scores),
    )
    return tuple(finding for finding in found if finding.cases)


def families(teachers: Iterable[str], known: Catalogue = SHIPPED) -> Mapping[str, tuple[str, ...]]:
    """Return the families of the teachers in the catalogue's order, each from the smallest to the largest.

    Teachers that the catalogue does not know are left out, as are two labels of one entry.
    """
    given = {entry.name: name for name in teachers if (entry := known.find(name))}
    grouped: dict[str, list[CatalogueEntry]] = {}
    for entry in known.entries:
        if entry.name in given:
            grouped.setdefault(entry.family, []).append(entry)
    return {
        family: tuple(given[one.name] for one in sorted(members, key=lambda e: e.parameters or 0.0))
        for family, members in grouped.items()
    }


def _teachers(outcomes: Outcomes) -> list[str]:
    return list(dict.fromkeys(teacher for scores in outcomes.values() for teacher in scores))


@dataclass(frozen=True)
class SizeComparison:
    """Two relatives: by student, the score with the larger as teacher less the score with the smaller."""

    family: str
    smaller: str
    larger: str
    differences: Mapping[str, Decimal]

    @property
    def worse_for(self) -> tuple[str, ...]:
        """The students for whom the larger is the worse teacher."""
        return tuple(student for student, change in self.differences.items() if change < 0)


def size_comparisons(outcomes: Outcomes, known: Catalogue = SHIPPED) -> tuple[SizeComparison, ...]:
    """Return every pair of relatives of known size that differ in it, for the students that had both."""
    pairs = (
        (family, smaller, larger)
        for family, members in families(_teachers(outcomes), known).items()
        for smaller, larger in combinations(members, 2)
        if 0 < (known.size(smaller) or 0.0) < (known.size(larger) or 0.0)
    )
    found = (
        SizeComparison(
            family,
            smaller,
            larger,
            {
                student: scores[larger] - scores[smaller]
                for student, scores in outcomes.items()
                if smaller in scores and larger in scores
            },
        )
        for family, smaller, larger in pairs
    )
    return tuple(pair for pair in found if pair.differences)


def larger_models_paradox(outcomes: Outcomes, known: Catalogue = SHIPPED) -> Finding:
    """Return in which families a larger teacher is worse than a smaller one, and how often.

    One run enters several differences, so they are counted and never turned into a p-value.
    """
    pairs = size_comparisons(outcomes, known)
    cases = []
    for family in dict.fromkeys(pair.family for pair in pairs):
        members = [pair for pair in pairs if pair.family == family]
        worse = sum(len(pair.worse_for) for pair in members)
        where = "; ".join(
            f"{known.size(pair.smaller):g}B over {known.size(pair.larger):g}B for {_whom(pair)}"
            for pair in members
            if pair.worse_for
        )
        count = f"{worse} of {sum(len(pair.differences) for pair in members)}"
        cases.append(Case(family, worse > 0, f"{count}: {where or 'none'}"))
    return Finding(
        name=PARADOX,
        claim="In each family some larger teacher is worse than a smaller one (pairs times students).",
        cases=tuple(cases),
        note=_paradox_note(outcomes, pairs) if pairs else "",
    )


def _whom(pair: SizeComparison) -> str:
    """Return for whom the larger is worse, the shorter way round."""
    missing = [student for student in pair.differences if student not in pair.worse_for]
    if not missing:
        return "all"
    return f"all but {named(missing)}" if len(missing) < 3 else named(pair.worse_for)


def _paradox_note(outcomes: Outcomes, pairs: Sequence[SizeComparison]) -> str:
    """Return the counts over all pairs, and what they are not."""
    worse = sum(len(pair.worse_for) for pair in pairs)
    always = sum(len(pair.worse_for) == len(pair.differences) for pair in pairs)
    never = sum(not pair.worse_for for pair in pairs)
    by_student = ", ".join(
        f"{student} {sum(student in pair.worse_for for pair in pairs)}" for student in outcomes
    )
    runs = {
        (student, name)
        for pair in pairs
        for student in pair.differences
        for name in (pair.smaller, pair.larger)
    }
    return (
        f"The larger is worse in {worse} of {sum(len(pair.differences) for pair in pairs)} differences; of "
        f"{len(pairs)} pairs, for all students in {always}, for none in {never}. By student, of "
        f"{len(pairs)}: {by_student}. The differences share {len(runs)} runs, one per teacher and student, "
        "and students agree: no p-value is given."
    )


def family_performance(outcomes: Outcomes, known: Catalogue = SHIPPED) -> Outcomes:
    """Return the mean score of each family's teachers, by student and family."""
    grouped = families(_teachers(outcomes), known)
    return {
        student: {
            family: mean([scores[one] for one in members if one in scores])
            for family, members in grouped.items()
            if any(one in scores for one in members)
        }
        for student, scores in outcomes.items()
    }


def home_of(student: str, known: Iterable[str]) -> str | None:
    """Return the family that the student's name begins with, as Gemma 2 of google/gemma-2-2b, or None."""
    name = _plain(student)
    return next(
        (one for one in known if re.match(rf"{re.escape(_plain(one))}(?![\d.])", name)), None
    )


def _plain(name: str) -> str:
    """Return a name as most makers' Hub ids spell it: gemma-2-2b of Gemma 2-2B, qwen-3-8b of Qwen3-8B."""
    plain = re.sub(r"[\s_-]+", "-", name.strip().rstrip("/").rpartition("/")[2].casefold())
    plain = re.sub(r"(?<=[a-z])(?=\d)", "-", plain)
    return plain.removeprefix("meta-")


def family_effect(outcomes: Outcomes, known: Catalogue = SHIPPED) -> Finding:
    """Return whether a family teaches its own relative better than it teaches the other students.

    A family's mean score is taken relative to the mean of all of the student's teachers, since students
    differ in how much they learn from any. A share of a mean means nothing where a score is below zero: such
    students are left out.
    """
    performance = family_performance(outcomes, known)
    relative = {
        student: {
            family: value / mean(list(outcomes[student].values())) for family, value in own.items()
        }
        for student, own in performance.items()
        if min(outcomes[student].values(), default=-1) >= 0 and any(outcomes[student].values())
    }
    cases = []
    for student, shares in relative.items():
        family = home_of(student, shares)
        others = [
            other[family] for name, other in relative.items() if name != student and family in other
        ]
        if family is None or not others:
            continue
        numbers = (
            f"{family}: {shares[family]:.2f} times the mean score, for other students at most "
            f"{max(others):.2f}; {ordinal(place(shares, family))} of {len(shares)} families"
        )
        cases.append(Case(student, shares[family] > max(others), numbers))
    return Finding(
        name="Family's help",
        claim=(
            "A family's teachers, relative to all, do better for their own relative than for any other "
            "student."
        ),
        cases=tuple(cases),
    )


def own_version(outcomes: Outcomes, known: Catalogue = SHIPPED) -> Finding:
    """Return whether a student's own instruction-tuned version is its best teacher."""
    cases = []
    for student, scores in outcomes.items():
        prefix = f"{_plain(student)}-"
        own = next((one for one in scores if _plain(one).startswith(prefix)), None)
        if own is not None and known.find(own):
            rank = place(scores, own)
            cases.append(Case(student, rank == 1, f"{own} {ordinal(rank)} of {len(scores)}"))
    return Finding(
        name="Its own instruction-tuned version as the teacher",
        claim="It is the best teacher.",
        cases=tuple(cases),
    )


def open_against_closed(outcomes: Outcomes, known: Catalogue = SHIPPED) -> Finding:
    """Return whether each open teacher does better than every closed one, for each student that had both."""
    cases = []
    for student, scores in outcomes.items():
        entries = {name: entry for name in scores if (entry := known.find(name))}
        closed = {name: scores[name] for name, entry in entries.items() if entry.hosted}
        for name in entries:
            if closed and name not in closed:
                best = max(closed, key=lambda one: closed[one])
                numbers = f"{shown(scores[name])} against {shown(closed[best])} with {best}"
                where = name if len(outcomes) == 1 else f"{name}, {student}"
                cases.append(Case(where, scores[name] > closed[best], numbers))
    return Finding(
        name="Open against closed",
        claim="Every open teacher does better than every closed one.",
        cases=tuple(cases),
    )


def sampling(outcomes: Outcomes) -> Finding:
    """Return whether responses sampled at a temperature teach better than greedy ones of the same model.

    Their labels say which they are: `NAME T=0` is greedy and `NAME T=0.8` sampled, as a grid has it.
    """
    return Finding(
        name="Sampling against greedy decoding",
        claim="Sampling gives better data than greedy decoding.",
        cases=tuple(
            _variants(
                outcomes,
                lambda better, worse: (
                    better["choice"] is worse["choice"] is None
                    and float(better["temperature"] or 0) > 0
                    and worse["temperature"] is not None
                    and float(worse["temperature"]) == 0
                ),
            )
        ),
    )


def best_of_n(outcomes: Outcomes) -> Finding:
    """Return whether the best of several responses teaches better than one, and one better than the worst.

    Their labels say which they are, `NAME best-of-5` and `NAME worst-of-5`, beside `NAME` or its random one.
    """
    order = {"best": 2, None: 1, "random": 1, "worst": 0}
    return Finding(
        name="Best of several responses by a reward model",
        claim="The best of several responses teach better than one sample; the worst, worse.",
        cases=tuple(
            _variants(
                outcomes,
                lambda better, worse: (
                    better["temperature"] == worse["temperature"]
                    and order[better["choice"]] - order[worse["choice"]] == 1
                ),
            )
        ),
    )


def _variants(
    outcomes: Outcomes, fits: Callable[["re.Match[str]", "re.Match[str]"], bool]
) -> Iterator[Case]:
    """Yield a case for each student and two ways of sampling one model that fit as better and worse."""
    for student, scores in outcomes.items():
        read = {name: match for name in scores if (match := _VARIANT.fullmatch(name))}
        for better, one in read.items():
            for worse, other in read.items():
                if better != worse and one["model"] == other["model"] and fits(one, other):
                    change = scores[better] - scores[worse]
                    numbers = f"{better} less {worse}: {signed(change)}"
                    yield Case(student, change > 0, numbers)
