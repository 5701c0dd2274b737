"""The paper's findings recomputed from its tables, each with the exceptions its sentence leaves out.

What any outcomes can show is computed as for any (`outcomes`); here stand the paper's own words, which cases
they speak of, and what only its tables hold. `NOT_CHECKABLE` lists what the printed numbers cannot show.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from preceptor.studies import outcomes
from preceptor.studies.finding import Case, Finding, deviation, mean, ordinal, place, signed
from preceptor.studies.outcomes import Outcomes, SizeComparison
from preceptor.studies.predictions import prediction_findings
from preceptor.studies.tables import (
    TABLE_2,
    TABLE_3,
    TABLE_6,
    TABLE_8,
    TABLE_8_DEVIATION,
    TABLE_8_MEAN,
    TABLE_8_VARIATION,
    BenchmarkRow,
    defined_average,
    exact_performance,
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

NAMED_PAIRS: tuple[tuple[str, str], ...] = (
    ("Gemma-2-9b-it", "Gemma-2-27b-it"),
    ("Phi-3-small-128k-instruct", "Phi-3-medium-128k-instruct"),
    ("Llama-3.1-70B-Instruct", "Llama-3.1-405B-Instruct"),
    ("Qwen2-7B-Instruct", "Qwen2-72B-Instruct"),
    ("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct"),
)
"""The pairs (smaller, larger) of which section 3.3 says that the smaller teaches better."""

_MEASURED = "Llama-3.1-Minitron-4B"
"""The student of table 8, of which the spread between samples is known."""

_METHODS = {
    "Best-of-N": " T=0.8 best-of-5",
    "Sampling": " T=0.8",
    "Worst-of-N": " T=0.8 worst-of-5",
    "Greedy": " T=0",
}
"""Table 3's methods as labels of teachers; N is 5."""


def size_comparisons() -> tuple[SizeComparison, ...]:
    """Return every pair of relatives in table 7, 23 in six families, by AP as defined."""
    return outcomes.size_comparisons(exact_performance())


def family_performance() -> Outcomes:
    """Return the mean AP of each family's teachers in table 7, by student and family."""
    return outcomes.family_performance(exact_performance())


def findings() -> tuple[Finding, ...]:
    """Return every finding that the printed tables can show, in the paper's order."""
    return (
        _best_two(),
        _leading_families(),
        _named_pairs(),
        _every_pair(),
        _larger_student(),
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
        numbers = ", ".join(f"{name} {ordinal(rank)}" for name, rank in ranks.items())
        best = max(values, key=lambda name: values[name])
        lead = "" if best in ranks else f"; {best} is 1st"
        cases.append(Case(student, set(ranks.values()) == {1, 2}, numbers + lead))
    return Finding(
        name="The two best teachers",
        claim="Gemma-2-9b-it and Qwen2.5-72B-Instruct are the two best.",
        cases=tuple(cases),
        note="Qwen2.5-72B-Instruct is among the first two for every student.",
        source="section 3.3",
        tables=(7,),
    )


def _leading_families() -> Finding:
    cases = []
    for student, values in family_performance().items():
        ranks = {family: place(values, family) for family in ("Gemma 2", "Qwen2", "Qwen2.5")}
        numbers = ", ".join(f"{family} {ordinal(rank)}" for family, rank in ranks.items())
        cases.append(Case(student, {ranks["Gemma 2"], ranks["Qwen2"]} == {1, 2}, numbers))
    return Finding(
        name="The leading families",
        claim="Gemma 2 and Qwen2 lead for every student (mean AP of a family's teachers).",
        cases=tuple(cases),
        note="Gemma 2 and Qwen2.5 do: the text's Qwen2 must mean Qwen2.5.",
        source="section 3.3",
        tables=(7,),
    )


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
        name="Larger Models' Paradox: the five pairs that the text names",
        claim="The smaller teaches better (of Gemma 2: for almost all students).",
        cases=cases,
        source="section 3.3, finding 1",
        tables=(7,),
    )


def _every_pair() -> Finding:
    found = outcomes.larger_models_paradox(exact_performance())
    pairs = size_comparisons()
    # Two runs' difference has twice the variance of one; twice its deviation is the usual yardstick.
    margin = 2 * (2 * TABLE_8_DEVIATION.average**2).sqrt()
    losses = [pair.differences[_MEASURED] for pair in pairs if _MEASURED in pair.worse_for]
    return replace(
        found,
        source="section 3.3, finding 1 ('universal, evidenced across multiple model families')",
        tables=(7,),
        note=(
            f"{found.note} For three or more students the larger is worse in "
            f"{sum(len(pair.worse_for) >= 3 for pair in pairs)} pairs. The named pairs were chosen after "
            f"the fact. For {_MEASURED}, with a spread of {TABLE_8_DEVIATION.average} between samples "
            f"(table 8), {sum(-loss > margin for loss in losses)} of {len(losses)} losses exceed "
            f"{margin:.2f}, twice the deviation of a difference."
        ),
    )


def _larger_student() -> Finding:
    return Finding(
        name="Larger Models' Paradox: Llama-3.1-8B as the student",
        claim="The paradox persists with Qwen2.5 and Llama 3.1 as teachers (by either average).",
        cases=tuple(_larger_student_cases()),
        note=(
            "As printed is the mean of LC, WR and AH; as defined that of LC and AH. Gemma 2 shows no paradox "
            "here, and its 9B and 27B are 1.0 apart at most."
        ),
        source="appendix B.2",
        tables=(6,),
    )


def _larger_student_cases() -> Iterator[Case]:
    """Yield the pairs of which one average or both say that the larger is worse, then Gemma 2's."""
    printed, defined = (
        outcomes.size_comparisons({"": {str(row.teacher): average(row) for row in TABLE_6}})
        for average in (lambda row: row.average or Decimal(), defined_average)
    )
    for one, other in zip(printed, defined, strict=True):
        as_printed, as_defined = one.differences[""], other.differences[""]
        if min(as_printed, as_defined) < 0 or one.family == "Gemma 2":
            yield Case(
                f"{one.smaller} over {one.larger}",
                max(as_printed, as_defined) < 0,
                f"larger less smaller: {signed(as_printed)} as printed, {signed(as_defined)} as defined",
                claimed=one.family != "Gemma 2",
            )


def _family_help() -> Finding:
    found = outcomes.family_effect(exact_performance())
    return replace(
        found,
        cases=tuple(replace(case, claimed=case.where != _MEASURED) for case in found.cases),
        note=(
            "Relative only: Qwen2-1.5B is best taught by other families. Llama-3.1-Minitron-4B is pruned "
            "from Llama 3.1, which the text leaves out; Llama-3.2-3B has no relative among the teachers."
        ),
        source="section 3.3, finding 2",
        tables=(7,),
    )


def _own_version() -> Finding:
    larger = {TABLE_6[0].student: {str(row.teacher): defined_average(row) for row in TABLE_6}}
    found = outcomes.own_version({**exact_performance(), **larger})
    return replace(
        found,
        claim="It is the best teacher (the text names Gemma 2-2B as a prime example).",
        cases=tuple(replace(case, claimed=case.where == "Gemma 2-2B") for case in found.cases),
        source="section 3.3, finding 2",
        tables=(6, 7),
    )


def _by_score(rows: tuple[BenchmarkRow, ...]) -> Mapping[str, Outcomes]:
    """Return the outcomes of tables 2 and 3 by each score, AP as defined."""
    scores: Mapping[str, Callable[[BenchmarkRow], Decimal]] = {
        "AP": defined_average,
        "LC": lambda row: row.alpaca_lc,
        "WR": lambda row: row.alpaca_wr,
        "AH": lambda row: row.arena_hard,
    }
    return {
        name: {
            student: {
                f"{row.teacher}{_METHODS.get(row.method or '', '')}": score(row)
                for row in rows
                if row.student == student
            }
            for student in dict.fromkeys(row.student for row in rows)
        }
        for name, score in scores.items()
    }


def _open_against_closed() -> Finding:
    by_score = [outcomes.open_against_closed(scores) for scores in _by_score(TABLE_2).values()]
    cases = zip(*(found.cases for found in by_score), strict=True)
    return replace(
        by_score[0],
        claim="Every open teacher does better than GPT-4 (by every score).",
        cases=tuple(replace(same[0], holds=all(case.holds for case in same)) for same in cases),
        note="One student and one closed teacher, over other instructions (Mix-100K) than elsewhere.",
        source="section 3.3, finding 3",
        tables=(2,),
    )


def _of_table_3(compute: Callable[[Outcomes], Finding]) -> Finding:
    """Return one of the two findings on sampling with a case for each score; only AP counts as claimed."""
    by_score = {name: compute(scores) for name, scores in _by_score(TABLE_3).items()}
    cases = [
        replace(case, where=f"{case.where}, {name}", claimed=name == "AP")
        for same in zip(*(found.cases for found in by_score.values()), strict=True)
        for name, case in zip(by_score, same, strict=True)
    ]
    return replace(by_score["AP"], cases=tuple(cases), tables=(3,))


def _sampling() -> Finding:
    return replace(
        _of_table_3(outcomes.sampling),
        claim="Sampling (at temperature 0.8) gives better data than greedy decoding.",
        note=(
            "The gains in AP are a little less than half of AP's standard deviation between samples of "
            f"instructions ({deviation([defined_average(row) for row in TABLE_8]):.2f}, from table 8, which "
            f"prints that of another average: {TABLE_8_DEVIATION.average})."
        ),
        source="section 3.3, finding 4",
    )


def _best_of_n() -> Finding:
    return replace(
        _of_table_3(outcomes.best_of_n),
        name="Best of five by a reward model",
        claim="The best of five responses teach slightly better than one sample; the worst, worse.",
        note="The choice matters more downwards: the worst cost 1.6 to 1.7 AP, the best gain 0.2 to 0.7.",
        source="section 3.3, finding 5",
    )


def _robustness() -> Finding:
    by_definition = [defined_average(row) for row in TABLE_8]
    variation = 100 * deviation(by_definition) / mean(by_definition)
    printed = [row.average for row in TABLE_8 if row.average is not None]
    computed = 100 * TABLE_8_DEVIATION.average / TABLE_8_MEAN.average
    spread = 100 * (max(printed) - min(printed)) / TABLE_8_MEAN.average
    return Finding(
        name="Another sample of instructions",
        claim="The average performance varies by only 2.89%.",
        cases=(
            Case(
                "standard deviation over mean",
                round(computed, 2) == TABLE_8_VARIATION,
                f"{computed:.2f}%",
            ),
            Case("range over mean, four samples", spread <= TABLE_8_VARIATION, f"{spread:.1f}%"),
        ),
        note=(
            "The 2.89% are a coefficient of variation, of the mean of LC, WR and AH; by AP as defined it is "
            f"{variation:.2f}%."
        ),
        source="appendix B.3",
        tables=(8,),
    )
