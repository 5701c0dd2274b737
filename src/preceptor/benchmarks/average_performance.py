"""Average performance (AP): the paper's one number for a tuned student, and the table it stands in.

The one idea: AP is the mean of AlpacaEval 2's length-controlled win rate and Arena-Hard's score (Xu et
al. 2025, section 3.2). The two benchmarks ask different prompts, so their draws are independent and
AP's interval is that of the mean of both. A total over too few verdicts is withheld, not guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from preceptor.benchmarks.alpaca_eval.score import AlpacaEvalResult
from preceptor.benchmarks.arena_hard.score import ArenaHardResult
from preceptor.errors import StudyError, nearest
from preceptor.ranking.bootstrap import percentile_interval
from preceptor.types import Estimate

TOLERATED = 0.01
"""The share of a benchmark's verdicts that may be missing before AP is withheld."""


@dataclass(frozen=True)
class StudentResult:
    """One tuned student's benchmarks, those that there are, under the name the user gives it.

    `average` is None where a benchmark, length control or more than 1% of the verdicts is missing;
    `cautions` then say which.
    """

    name: str
    alpaca_eval: AlpacaEvalResult | None
    arena_hard: ArenaHardResult | None
    average: Estimate | None
    cautions: tuple[str, ...]

    def to_record(self) -> dict[str, object]:
        """Return the results as one flat dictionary, in percent; None is no data.

        The fields are AP, LC, WR and AH with the ends of their intervals as `<field>_low` and
        `<field>_high`, then the judges and what is missing.
        """
        alpaca, arena = self.alpaca_eval, self.arena_hard
        estimates = {
            "AP": self.average,
            "LC": alpaca and alpaca.length_controlled,
            "WR": alpaca and alpaca.win_rate,
            "AH": arena and arena.score,
        }
        record: dict[str, object] = {}
        for field, estimate in estimates.items():
            record[field] = estimate and estimate.value
            record[f"{field}_low"] = estimate and estimate.low
            record[f"{field}_high"] = estimate and estimate.high
        return record | {
            "alpaca_eval_n": alpaca and alpaca.n,
            "alpaca_eval_judge": alpaca and alpaca.judge,
            "WR_standard_error": alpaca and alpaca.standard_error
            if alpaca and alpaca.n > 1
            else None,
            "arena_hard_n": arena and arena.n,
            "arena_hard_judge": arena and arena.judge,
            "AH_published_low": arena and arena.published_low,
            "AH_published_high": arena and arena.published_high,
        }


def average_performance(
    alpaca_eval: AlpacaEvalResult | None, arena_hard: ArenaHardResult | None
) -> Estimate | None:
    """Return AP in percent with its 95% interval, or None where `why_no_average` says why.

    `n` counts the prompts of both benchmarks.
    """
    if alpaca_eval is None or arena_hard is None or why_no_average(alpaca_eval, arena_hard):
        return None
    controlled, rates = alpaca_eval.length_controlled, alpaca_eval.controlled_draws
    if controlled is None or rates is None:
        return None
    low, high = percentile_interval((rates + arena_hard.draws) / 2)
    value = (controlled.value + arena_hard.score.value) / 2
    return Estimate(value, float(low), float(high), alpaca_eval.n + arena_hard.n)


def why_no_average(
    alpaca_eval: AlpacaEvalResult | None, arena_hard: ArenaHardResult | None
) -> str | None:
    """Return what stands in the way of AP and what to do about it; None where nothing does."""
    if alpaca_eval is None:
        return "No AP: there are no AlpacaEval 2 verdicts."
    if arena_hard is None:
        return "No AP: there are no Arena-Hard verdicts."
    if alpaca_eval.length_controlled is None:
        return "No AP: there is no length-controlled win rate."
    for benchmark, result in (("AlpacaEval 2", alpaca_eval), ("Arena-Hard", arena_hard)):
        if result.missing > TOLERATED:
            return (
                f"No AP: {result.missing:.1%} of {benchmark}'s verdicts are missing, and at most "
                f"{TOLERATED:.0%} may be. Judge what is missing."
            )
    return None


class _Named(Protocol):
    @property
    def model(self) -> str: ...


_Result = TypeVar("_Result", bound=_Named)


def student_results(
    alpaca_eval: Sequence[AlpacaEvalResult],
    arena_hard: Sequence[ArenaHardResult],
    names: Mapping[str, str] | None = None,
) -> list[StudentResult]:
    """Return one result for each student, best first by AP, then those without one by LC or score.

    Args:
        alpaca_eval: results by the model names of their files.
        arena_hard: likewise.
        names: what to call a model; so the two benchmarks' names of one student can be made equal.
            Models not named keep their name.

    Raises:
        StudyError: if two models of one benchmark would have one name, or `names` names a model that
            is in neither.
    """
    names = names or {}
    known = [*(one.model for one in alpaca_eval), *(one.model for one in arena_hard)]
    unknown = [model for model in names if model not in known]
    if unknown:
        raise StudyError(
            f"No judgement is of the model '{unknown[0]}'. There are: "
            f"{', '.join(dict.fromkeys(known))}.{nearest(unknown[0], known)}"
        )
    by_alpaca, by_arena = _by_name(alpaca_eval, names), _by_name(arena_hard, names)
    results = [
        _student_result(name, by_alpaca.get(name), by_arena.get(name))
        for name in dict.fromkeys((*by_alpaca, *by_arena))
    ]
    return sorted(results, key=_goodness, reverse=True)


def _by_name(results: Sequence[_Result], names: Mapping[str, str]) -> dict[str, _Result]:
    named: dict[str, _Result] = {}
    for result in results:
        name = names.get(result.model, result.model)
        if name in named:
            raise StudyError(
                f"The models '{named[name].model}' and '{result.model}' of one benchmark would both "
                f"be called '{name}': give them different names."
            )
        named[name] = result
    return named


def _student_result(
    name: str, alpaca_eval: AlpacaEvalResult | None, arena_hard: ArenaHardResult | None
) -> StudentResult:
    cautions = [
        *(alpaca_eval.cautions if alpaca_eval else ()),
        *(arena_hard.cautions if arena_hard else ()),
    ]
    why = why_no_average(alpaca_eval, arena_hard)
    # That a benchmark was not run shows in the table; only what blocks AP with both there is news.
    if why and alpaca_eval and arena_hard:
        cautions.append(why)
    average = average_performance(alpaca_eval, arena_hard)
    return StudentResult(name, alpaca_eval, arena_hard, average, tuple(cautions))


def _goodness(result: StudentResult) -> tuple[bool, float]:
    if result.average is not None:
        return True, result.average.value
    alpaca, arena = result.alpaca_eval, result.arena_hard
    if alpaca is not None:
        return False, (alpaca.length_controlled or alpaca.win_rate).value
    return False, arena.score.value if arena is not None else 0.0


def judge_cautions(results: Sequence[StudentResult]) -> list[str]:
    """Return a caution for each benchmark whose results come from different judges."""
    said = []
    judges = {
        "AlpacaEval 2": {r.alpaca_eval.judge for r in results if r.alpaca_eval},
        "Arena-Hard": {r.arena_hard.judge for r in results if r.arena_hard},
    }
    for benchmark, named in judges.items():
        if len(named) > 1:
            listed = ", ".join(sorted(name or "not stated" for name in named))
            said.append(f"{benchmark} has different judges: {listed}. Do not compare across them.")
    return said
