"""The observed order of fine-tuned students: judges' verdicts as a ranking like any predicted one.

Models are compared on the same questions, resampled together, so P(first) and the intervals are paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.average_performance import StudentResult
from preceptor.benchmarks.base import Array, Verdicts, estimate_of
from preceptor.benchmarks.checked import Checked
from preceptor.benchmarks.runs import further_questions, over_runs
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means
from preceptor.ranking.inference import scores_of, scores_of_draws
from preceptor.ranking.measurements import common_instructions
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import FormedMetric
from preceptor.ranking.placing import better_of_two, estimates_of, place_teachers
from preceptor.ranking.quantities import Quantity, formed, measured
from preceptor.ranking.rank import Measurements, Ranking, rank
from preceptor.types import Warning


@dataclass(frozen=True)
class WinRate:
    """Mean verdict against the baseline in percent: AlpacaEval's win rate, Arena-Hard's score."""

    needs: ClassVar[tuple[str, ...]] = ("win",)
    higher_is_better: ClassVar[bool] = True
    kind: str = "win_rate"

    def __call__(self, win: Array) -> Array:
        """Return the rate for mean wins of any shape."""
        return 100 * win


def observed_ranking(
    judged: Sequence[Verdicts],
    *,
    student: str,
    names: Mapping[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
    options: RankingOptions | None = None,
) -> Ranking:
    """Return the order by win rate, on the questions that have a verdict on every model.

    Judge and baseline stand in the settings. Models of one teacher are its runs, of which the mean counts
    (`over_runs`).

    Args:
        judged: verdicts of one benchmark, one entry for each model.
        student: the base model that was fine-tuned.
        names: the teacher by whose responses a model was fine-tuned; models not named keep their name.
        settings: what else to pass through, such as the benchmark.
        options: draws, seed and minimum coverage.

    Raises:
        StudyError: there is nothing to rank, judges or baselines are mixed, or too few questions are common.
    """
    if not judged:
        raise StudyError("There are no verdicts to rank: judge the students' answers first.")
    judge = _one({one.judge for one in judged}, "judge")
    baseline = _one({one.baseline for one in judged}, "baseline")
    settings = {**(settings or {}), "judge": judge, "baseline": baseline}
    options = options or RankingOptions()
    wins, teachers = _measured(judged), [(names or {}).get(one.model, one.model) for one in judged]
    if len(set(teachers)) == len(teachers):
        named = replace(wins, teachers=tuple(teachers))
        return rank(named, student=student, metrics=[WinRate()], settings=settings, options=options)
    n, point, draws = _rates(wins, options)
    runs = {WinRate.kind: _Runs(teachers, point, draws, [n] * len(teachers))}
    return _ranked(runs, student=student, settings=settings | {"seed": options.seed})


def _measured(judged: Sequence[Verdicts]) -> Measurements:
    """Return the wins of every model on every question, with what each could have won."""
    keys = sorted({key for one in judged for key in one.keys}, key=str)
    place = {key: at for at, key in enumerate(keys)}
    win = np.full((len(judged), len(keys)), math.nan)
    weights = np.full_like(win, math.nan)
    for row, one in enumerate(judged):
        at = [place[key] for key in one.keys]
        win[row, at], weights[row, at] = one.points, one.weights
    weighted = bool((np.nan_to_num(weights, nan=1.0) != 1).any())
    return Measurements(
        teachers=tuple(one.model for one in judged),
        instructions=len(keys),
        values={"win": win},
        denominators={"win": weights} if weighted else {},
    )


def _rates(wins: Measurements, options: RankingOptions) -> tuple[int, Array, Array]:
    """Return the questions in common, and each model's win rate with its draws, in percent."""
    common = common_instructions(wins, ["win"], min_coverage=options.min_coverage)
    won = common.values["win"]
    both = np.stack([won, common.denominators.get("win", np.ones_like(won))])
    rng = np.random.default_rng(options.seed)
    means = bootstrap_means(both.reshape(-1, common.n), draws=options.n_resamples, rng=rng)
    above, below = np.split(means, 2, axis=1)
    return common.n, 100 * both[0].sum(axis=1) / both[1].sum(axis=1), 100 * above / below


def _one(named: set[str | None], what: str) -> str | None:
    if len(named) > 1:
        listed = ", ".join(sorted(str(name) for name in named))
        raise StudyError(
            f"The verdicts come from more than one {what}: {listed}. Verdicts of different ones are "
            "never compared: judge all models alike."
        )
    return named.pop()


def ranking_of_results(
    results: Sequence[StudentResult],
    *,
    student: str,
    settings: Mapping[str, object],
    names: Mapping[str, str] | None = None,
    checked: Sequence[Checked] = (),
) -> Ranking:
    """Return results of benchmarks as a ranking by AP, or by the first measure that all have.

    Intervals and P(first) are those of the benchmarks' own draws, and of the runs where there are several.
    Of checked answers, with one run of each teacher, they are formed question by question: right or wrong is
    compared by McNemar's exact test, and everything as `rank` compares checked responses.

    Args:
        results: one for each fine-tuned model.
        student: the label of the student that was fine-tuned.
        settings: passed through.
        names: the teacher by whose responses a model was fine-tuned; models not named keep their name. Those
            of one teacher are its runs.
        checked: the checked answers behind the results, where there are.

    Raises:
        StudyError: no measure is known of all.
    """
    known = [name for name in results[0].estimates if all(name in one.estimates for one in results)]
    if not known:
        raise StudyError(
            f"There is no benchmark that all of {', '.join(r.name for r in results)} have a result of. "
            "Judge all alike."
        )
    teachers = [(names or {}).get(one.name, one.name) for one in results]
    runs = {
        name: _Runs(
            teachers,
            np.array([one.estimates[name].value for one in results]),
            np.stack([one.draws[name] for one in results], axis=1),
            [one.estimates[name].n for one in results],
        )
        for name in known
    }
    texts = (text for one in results for text in one.warnings)
    warnings = tuple(Warning("benchmark", text) for text in dict.fromkeys(texts))
    alone = len(set(teachers)) == len(teachers)
    first = _by_question(checked, [one.name for one in results]) if alone else None
    return _ranked(runs, student=student, settings=settings, warnings=warnings, first=first)


class _ByQuestion(NamedTuple):
    """The first measure formed question by question, its rows in the order of the teachers."""

    quantity: Quantity
    right: NDArray[np.bool_] | None


def _by_question(checked: Sequence[Checked], models: Sequence[str]) -> _ByQuestion | None:
    """Return the first measure of the questions that all models have; None where they do not weigh alike."""
    by_name = {one.model: one for one in checked}
    if set(by_name) != set(models):
        return None
    common = set[str](checked[0].keys).intersection(*(one.keys for one in checked))
    kept = [by_name[name].on(common) for name in models]
    if len(common) < 2 or any((one.weights != 1).any() for one in kept):
        return None
    used = common_instructions(_measured(kept), ["win"], min_coverage=0.0)
    rate = formed(WinRate(), measured(used))
    return _ByQuestion(rate, better_of_two(used, WinRate(), rate))


class _Runs(NamedTuple):
    """One measure of every run: its teacher, value, draws (draws, runs), and questions."""

    teachers: Sequence[str]
    point: Array
    draws: Array
    n: Sequence[int]


def _ranked(
    runs: Mapping[str, _Runs],
    *,
    student: str,
    settings: Mapping[str, object],
    warnings: tuple[Warning, ...] = (),
    first: _ByQuestion | None = None,
) -> Ranking:
    """Return teachers by the first of these measures, each a mean over runs; see `ranking_of_results`."""
    by = next(iter(runs))
    seed = settings.get("seed")
    means = {
        name: over_runs(
            one.teachers, one.point, one.draws, seed=seed if isinstance(seed, int) else 0
        )
        for name, one in runs.items()
    }
    teachers = means[by].teachers
    scores = scores_of_draws(teachers, means[by].point, means[by].draws, n=min(runs[by].n))
    estimates = {
        name: [
            estimate_of(float(value), drawn, n=min(runs[name].n))
            for value, drawn in zip(one.point, one.draws.T, strict=True)
        ]
        for name, one in means.items()
    }
    if first is not None:
        scores = scores_of(first.quantity, teachers, right=first.right)
        estimates[by] = estimates_of(first.quantity)
    placed, evidence = place_teachers(
        scores,
        estimates,
        by=by,
        higher_is_better=True,
        options=RankingOptions(),
        limits=(-math.inf, math.inf) if first is None else first.quantity.limits,
    )
    deviation = means[by].deviation
    several = {} if deviation is None else {"run_deviation": deviation}
    if several and evidence.more_prompts != 0:
        more = further_questions(placed, means[by], n=min(runs[by].n))
        evidence = replace(evidence, more_prompts=more)
    return Ranking(
        student=student,
        by=by,
        metrics={name: FormedMetric((name,)) for name in runs},
        instructions=max(runs[by].n),
        teachers=tuple(placed),
        settings={**settings, **several},
        warnings=warnings,
        stability=None,
        evidence=evidence,
    )
