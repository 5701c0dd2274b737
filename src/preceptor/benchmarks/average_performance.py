"""Average performance (AP): the paper's one number for a fine-tuned student, and the table it stands in.

AP is the mean of AlpacaEval 2's length-controlled win rate and Arena-Hard's score (Xu et al. 2025, section
3.2). The two benchmarks ask different prompts, so their draws are independent and AP's interval is that of
the mean of both. A total over too few verdicts is withheld, not guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from preceptor.benchmarks.base import Array, BenchmarkResult, estimate_of
from preceptor.benchmarks.comparisons import TOLERATED
from preceptor.benchmarks.registry import benchmark_classes
from preceptor.errors import StudyError, nearest
from preceptor.types import Estimate


@dataclass(frozen=True)
class Average:
    """The mean of one measure of each of several benchmarks, `parts` being (benchmark, measure)."""

    name: str
    parts: tuple[tuple[str, str], ...]

    def obstacle(self, results: Mapping[str, BenchmarkResult]) -> str | None:
        """Return what stands in the way of the mean and what to do about it; None where nothing does."""
        known = benchmark_classes()
        for benchmark, measure in self.parts:
            result, kind = results.get(benchmark), known[benchmark]
            if result is None:
                return f"No {self.name}: there are no {kind.title} verdicts."
            if measure not in result.measures:
                return f"No {self.name}: there is no {kind.measures[measure]}."
        for benchmark, _ in self.parts:
            missing = results[benchmark].missing
            if missing > TOLERATED:
                return (
                    f"No {self.name}: {missing:.1%} of {known[benchmark].title}'s verdicts are missing, "
                    f"and at most {TOLERATED:.0%} may be. Judge what is missing."
                )
        return None

    def formed(self, results: Mapping[str, BenchmarkResult]) -> tuple[Estimate, Array] | None:
        """Return the mean in percent with its 95% interval, and its draws; None where `obstacle` says why.

        `n` counts the prompts of all benchmarks.
        """
        if self.obstacle(results):
            return None
        of = [(results[benchmark], measure) for benchmark, measure in self.parts]
        value = sum(result.measures[measure].value for result, measure in of) / len(of)
        draws: Array = np.mean([result.draws[measure] for result, measure in of], axis=0)
        return estimate_of(value, draws, n=sum(result.n for result, _ in of)), draws


AP = Average("AP", (("alpaca_eval", "LC"), ("arena_hard", "AH")))
"""Average performance, as the paper has it."""


@dataclass(frozen=True)
class StudentResult:
    """One fine-tuned student's results by benchmark, under the name the user gives it.

    `estimates` and `draws` hold AP, where it could be formed, and every measure of the benchmarks, the
    yardsticks first: AP, the first measure of each benchmark, then the others.
    """

    name: str
    results: Mapping[str, BenchmarkResult]
    estimates: Mapping[str, Estimate]
    draws: Mapping[str, Array]
    warnings: tuple[str, ...]

    def to_record(self) -> dict[str, object]:
        """Return the results as one flat dictionary, in percent; None is no data.

        The fields are AP and the measures with the ends of their intervals as `<field>_low` and
        `<field>_high`, then for each benchmark what is counted, the judge, and its further facts.
        """
        known = benchmark_classes()
        wanted = [benchmark for benchmark, _ in AP.parts]
        shown = {name: known[name] for name in known if name in wanted or name in self.results}
        record: dict[str, object] = {}
        for field in (AP.name, *(measure for kind in shown.values() for measure in kind.measures)):
            estimate = self.estimates.get(field)
            record[field] = estimate and estimate.value
            record[f"{field}_low"] = estimate and estimate.low
            record[f"{field}_high"] = estimate and estimate.high
        for name, kind in shown.items():
            result = self.results.get(name)
            record[f"{name}_n"] = result and result.n
            record[f"{name}_judge"] = result and result.judge
            record |= {fact: result and result.facts.get(fact) for fact in kind.facts}
        return record


def student_results(
    results: Sequence[BenchmarkResult], names: Mapping[str, str] | None = None
) -> list[StudentResult]:
    """Return one result for each student, best first by AP, then those without one by their first measure.

    Args:
        results: of any benchmarks, by the model names of their files.
        names: what to call a model; so the names that benchmarks have for one student can be made equal.
            Models not named keep their name.

    Raises:
        StudyError: if two models of one benchmark would have one name, or `names` names a model that
            has no result.
    """
    names = names or {}
    order = list(benchmark_classes())
    results = sorted(results, key=lambda one: order.index(one.benchmark))
    known = [one.model for one in results]
    unknown = [model for model in names if model not in known]
    if unknown:
        raise StudyError(
            f"No judgement is of the model '{unknown[0]}'. There are: "
            f"{', '.join(dict.fromkeys(known))}.{nearest(unknown[0], known)}"
        )
    by_name: dict[str, dict[str, BenchmarkResult]] = {}
    for result in results:
        name = names.get(result.model, result.model)
        own = by_name.setdefault(name, {})
        if result.benchmark in own:
            raise StudyError(
                f"The models '{own[result.benchmark].model}' and '{result.model}' of one benchmark "
                f"would both be called '{name}': give them different names."
            )
        own[result.benchmark] = result
    return sorted(
        (student_result(name, own) for name, own in by_name.items()), key=_goodness, reverse=True
    )


def student_result(name: str, results: Mapping[str, BenchmarkResult]) -> StudentResult:
    """Return one student's results with AP, where it can be formed."""
    warnings = [warning for one in results.values() for warning in one.warnings]
    average = AP.formed(results)
    # That a benchmark was not run shows in the table; what blocks AP with all there is a warning.
    if average is None and all(benchmark in results for benchmark, _ in AP.parts):
        warnings.append(AP.obstacle(results) or "")
    estimates, draws = ({AP.name: average[0]}, {AP.name: average[1]}) if average else ({}, {})
    for measure in measure_order(results):
        for result in results.values():
            if measure in result.measures:
                estimates[measure], draws[measure] = result.measures[measure], result.draws[measure]
    return StudentResult(name, results, estimates, draws, tuple(warnings))


def measure_order(benchmarks: Iterable[str]) -> list[str]:
    """Return AP and the measures of these benchmarks, the first of each before the second of any."""
    known = benchmark_classes()
    columns = zip_longest(*(known[name].measures for name in benchmarks))
    return [AP.name, *(one for column in columns for one in column if one is not None)]


def _goodness(result: StudentResult) -> tuple[bool, float]:
    if AP.name in result.estimates:
        return True, result.estimates[AP.name].value
    measures = (one for of in result.results.values() for one in of.measures.values())
    return False, next(measures).value


def judge_warnings(results: Sequence[BenchmarkResult]) -> list[str]:
    """Return a warning for each benchmark whose results come from different judges."""
    found = []
    for name, kind in benchmark_classes().items():
        judges = {one.judge for one in results if one.benchmark == name}
        if len(judges) > 1:
            listed = ", ".join(sorted(judge or "not stated" for judge in judges))
            found.append(
                f"{kind.title} has different judges: {listed}. Do not compare across them."
            )
    return found
