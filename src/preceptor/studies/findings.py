"""The paper's findings recomputed from its tables, each with the exceptions its sentence leaves out.

The one idea: a finding is true or false case by case (`claims.Finding`). Nothing is computed here that the
printed numbers do not hold; `NOT_CHECKABLE` lists what they cannot show.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from preceptor.studies.checks import deviation
from preceptor.studies.claims import Case, Finding, ordinal, place, signed
from preceptor.studies.paradox import paradox_findings
from preceptor.studies.predictions import prediction_findings
from preceptor.studies.tables import (
    STUDENTS,
    TABLE_2,
    TABLE_3,
    TABLE_6,
    TABLE_8,
    TABLE_8_DEVIATION,
    TABLE_8_MEAN,
    TABLE_8_VARIATION,
    defined_average,
    exact_performance,
    families,
    mean,
)

NOT_CHECKABLE: tuple[str, ...] = (
    "Table 4 itself: the teachers' rewards, losses, IFDs, perplexities and lengths are drawn in figures 4 "
    "and 6 to 9 and printed nowhere. What table 7 allows: AP has no ties for any student, so ranks of 19 "
    "teachers without ties, and each rho must come from an even sum of squared rank differences.",
    "Finding 4 (temperature and top-p): figure 3 has no printed numbers. Table 3 compares sampling at 0.8 "
    "with greedy decoding.",
    "That rewards rise with size in every family but Phi-3: figure 4 has no printed numbers.",
    "Figure 2's bars: it prints no numbers; they are table 7's AP.",
    "That GPT-4 teaches worse because its responses are short: table 2 has no lengths.",
)
"""What the paper says and its printed numbers cannot show."""

_HOME = {
    "Qwen2-1.5B": "Qwen2",
    "Gemma 2-2B": "Gemma 2",
    "Qwen2.5-3B": "Qwen2.5",
    "Llama-3.1-Minitron-4B": "Llama 3.1",
}
"""The family of each student that has relatives among the teachers; Llama 3.2 has none."""

_OWN = {
    "Gemma 2-2B": "Gemma-2-2b-it",
    "Qwen2.5-3B": "Qwen2.5-3B-Instruct",
    "Qwen2-1.5B": "Qwen2-1.5B-Instruct",
}
"""The student's own instruction-tuned version, where it is among table 7's teachers."""


def family_performance() -> Mapping[str, Mapping[str, Decimal]]:
    """Return the mean AP of each family's teachers, by student and family."""
    return {
        student: {
            family: mean([by_teacher[teacher] for teacher in teachers])
            for family, teachers in families().items()
        }
        for student, by_teacher in exact_performance().items()
    }


def findings() -> tuple[Finding, ...]:
    """Return every finding that the printed tables can show, in the paper's order."""
    return (
        _best_two(),
        _leading_families(),
        *paradox_findings(),
        _family_help(),
        _own_version(),
        _open_against_closed(),
        _sampling(),
        _best_of_n(),
        *prediction_findings(),
        _robustness(),
    )


def _best_two() -> Finding:
    cases = []
    for student, values in exact_performance().items():
        ranks = {name: place(values, name) for name in ("Gemma-2-9b-it", "Qwen2.5-72B-Instruct")}
        told = ", ".join(f"{name} {ordinal(rank)}" for name, rank in ranks.items())
        best = max(values, key=lambda name: values[name])
        lead = "" if best in ranks else f"; {best} is 1st"
        cases.append(Case(student, set(ranks.values()) == {1, 2}, told + lead))
    return Finding(
        "The two best teachers",
        "section 3.3",
        (7,),
        "Gemma-2-9b-it and Qwen2.5-72B-Instruct are the two best.",
        tuple(cases),
        "Qwen2.5-72B-Instruct is among the first two for every student.",
    )


def _leading_families() -> Finding:
    cases = []
    for student, values in family_performance().items():
        ranks = {family: place(values, family) for family in ("Gemma 2", "Qwen2", "Qwen2.5")}
        told = ", ".join(f"{family} {ordinal(rank)}" for family, rank in ranks.items())
        cases.append(Case(student, {ranks["Gemma 2"], ranks["Qwen2"]} == {1, 2}, told))
    return Finding(
        "The leading families",
        "section 3.3",
        (7,),
        "Gemma 2 and Qwen2 lead for every student (mean AP of a family's teachers).",
        tuple(cases),
        "Gemma 2 and Qwen2.5 do: the text's Qwen2 must mean Qwen2.5.",
    )


def _family_help() -> Finding:
    relative = {
        student: {
            family: value / mean(list(exact_performance()[student].values()))
            for family, value in values.items()
        }
        for student, values in family_performance().items()
    }
    cases = []
    for student, family in _HOME.items():
        own = relative[student][family]
        best = max(relative[other][family] for other in STUDENTS if other != student)
        rank = ordinal(place(relative[student], family))
        told = (
            f"{family}: {own:.2f} times the mean AP, for other students at most {best:.2f}; "
            f"{rank} of six families"
        )
        cases.append(Case(student, own > best, told, claimed=family != "Llama 3.1"))
    return Finding(
        "Family's help",
        "section 3.3, finding 2",
        (7,),
        "A family's teachers, relative to all, do better for their own relative than for any other student.",
        tuple(cases),
        "Relative only: Qwen2-1.5B is best taught by other families. Llama-3.1-Minitron-4B is pruned from "
        "Llama 3.1, which the text leaves out; Llama-3.2-3B has no relative among the teachers.",
    )


def _own_version() -> Finding:
    cases = []
    for student, teacher in _OWN.items():
        values = exact_performance()[student]
        told = f"{teacher} {ordinal(place(values, teacher))} of {len(values)}"
        cases.append(
            Case(student, place(values, teacher) == 1, told, claimed=student == "Gemma 2-2B")
        )
    larger = {str(row.teacher): defined_average(row) for row in TABLE_6}
    rank = place(larger, "Llama-3.1-8B-Instruct")
    told = f"Llama-3.1-8B-Instruct {ordinal(rank)} of {len(larger)} (table 6)"
    cases.append(Case("Llama-3.1-8B", rank == 1, told, claimed=False))
    return Finding(
        "Its own instruction-tuned version as the teacher",
        "section 3.3, finding 2",
        (6, 7),
        "It is the best teacher (the text names Gemma 2-2B as a prime example).",
        tuple(cases),
    )


def _open_against_closed() -> Finding:
    closed = next(row for row in TABLE_2 if row.label == "GPT-4")
    cases = tuple(
        Case(
            row.label,
            defined_average(row) > defined_average(closed)
            and row.alpaca_wr > closed.alpaca_wr
            and row.alpaca_lc > closed.alpaca_lc
            and row.arena_hard > closed.arena_hard,
            f"AP {row.average} against {closed.average}",
        )
        for row in TABLE_2
        if row is not closed
    )
    return Finding(
        "Open against closed",
        "section 3.3, finding 3",
        (2,),
        "Every open teacher does better than GPT-4 (by every score).",
        cases,
        "One student and one closed teacher, over other instructions (Mix-100K) than the other tables.",
    )


def _scores() -> Mapping[tuple[str, str], Mapping[str, Decimal]]:
    """Return table 3's scores by student and method, AP as defined."""
    return {
        (row.student, str(row.method)): {
            "AP": defined_average(row),
            "LC": row.alpaca_lc,
            "WR": row.alpaca_wr,
            "AH": row.arena_hard,
        }
        for row in TABLE_3
    }


def _compared(better: str, worse: str) -> Iterator[Case]:
    """Yield a case for each score of each student in table 3; only AP counts as claimed."""
    scores = _scores()
    for student in dict.fromkeys(student for student, _ in scores):
        for name, value in scores[student, better].items():
            change = value - scores[student, worse][name]
            told = f"{better} less {worse}: {signed(change)}"
            yield Case(f"{student}, {name}", change > 0, told, claimed=name == "AP")


def _sampling() -> Finding:
    return Finding(
        "Sampling against greedy decoding",
        "section 3.3, finding 4",
        (3,),
        "Sampling (at temperature 0.8) gives better data than greedy decoding.",
        tuple(_compared("Sampling", "Greedy")),
        "The gains in AP are about half of one standard deviation between samples of instructions "
        f"({TABLE_8_DEVIATION.average}, table 8).",
    )


def _best_of_n() -> Finding:
    return Finding(
        "Best of five by a reward model",
        "section 3.3, finding 5",
        (3,),
        "The best of five responses teach slightly better than one sample; the worst, worse.",
        (*_compared("Best-of-N", "Sampling"), *_compared("Sampling", "Worst-of-N")),
        "The choice matters more downwards: the worst cost 1.6 to 1.7 AP, the best gain 0.2 to 0.7.",
    )


def _robustness() -> Finding:
    by_definition = [defined_average(row) for row in TABLE_8]
    variation = 100 * deviation(by_definition) / mean(by_definition)
    printed = [row.average for row in TABLE_8 if row.average is not None]
    computed = 100 * TABLE_8_DEVIATION.average / TABLE_8_MEAN.average
    spread = 100 * (max(printed) - min(printed)) / TABLE_8_MEAN.average
    return Finding(
        "Another sample of instructions",
        "appendix B.3",
        (8,),
        "The average performance varies by only 2.89%.",
        (
            Case(
                "standard deviation over mean",
                round(computed, 2) == TABLE_8_VARIATION,
                f"{computed:.2f}%",
            ),
            Case("range over mean, four samples", spread <= TABLE_8_VARIATION, f"{spread:.1f}%"),
        ),
        "The 2.89% are a coefficient of variation, of the mean of LC, WR and AH; by AP as defined it is "
        f"{variation:.2f}%.",
    )
