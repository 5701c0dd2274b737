"""The observed order of fine-tuned students: judges' verdicts as a ranking like any predicted one.

Models are compared on the same questions, resampled together, so P(best) and the intervals are paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from preceptor.benchmarks.average_performance import StudentResult
from preceptor.benchmarks.base import Array, Verdicts
from preceptor.errors import StudyError
from preceptor.ranking.inference import scores_of_draws
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import FormedMetric
from preceptor.ranking.rank import (
    Measurements,
    Ranking,
    place_teachers,
    rank,
)
from preceptor.ranking.warnings import Warning


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

    Judge and baseline stand in the settings.

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
    keys = sorted({key for one in judged for key in one.keys}, key=str)
    place = {key: at for at, key in enumerate(keys)}
    win = np.full((len(judged), len(keys)), math.nan)
    weights = np.full_like(win, math.nan)
    for row, one in enumerate(judged):
        at = [place[key] for key in one.keys]
        win[row, at], weights[row, at] = one.points, one.weights
    weighted = bool((np.nan_to_num(weights, nan=1.0) != 1).any())
    return rank(
        Measurements(
            teachers=tuple((names or {}).get(one.model, one.model) for one in judged),
            instructions=len(keys),
            values={"win": win},
            denominators={"win": weights} if weighted else {},
        ),
        student=student,
        metrics=[WinRate()],
        settings={**(settings or {}), "judge": judge, "baseline": baseline},
        options=options,
    )


def _one(named: set[str | None], what: str) -> str | None:
    if len(named) > 1:
        listed = ", ".join(sorted(str(name) for name in named))
        raise StudyError(
            f"The verdicts come from more than one {what}: {listed}. Verdicts of different ones are "
            "never compared: judge all models alike."
        )
    return named.pop()


def ranking_of_results(
    results: Sequence[StudentResult], *, student: str, settings: Mapping[str, object]
) -> Ranking:
    """Return results of benchmarks as a ranking by AP, or by the first measure that all have.

    Intervals and P(best) are those of the benchmarks' own draws.

    Args:
        results: one for each teacher, under the teacher's name.
        student: the label of the student that was fine-tuned.
        settings: passed through.

    Raises:
        StudyError: no measure is known of all.
    """
    names = [name for name in results[0].estimates if all(name in one.estimates for one in results)]
    if not names:
        raise StudyError(
            f"There is no benchmark that all of {', '.join(r.name for r in results)} have a result of. "
            "Judge all alike."
        )
    draws = np.stack([one.draws[names[0]] for one in results], axis=1)
    point = np.array([one.estimates[names[0]].value for one in results])
    n = min(one.estimates[names[0]].n for one in results)
    teachers, evidence = place_teachers(
        scores_of_draws([one.name for one in results], point, draws, n=n),
        {name: [one.estimates[name] for one in results] for name in names},
        by=names[0],
        higher_is_better=True,
        options=RankingOptions(),
    )
    texts = (text for one in results for text in one.warnings)
    return Ranking(
        student=student,
        by=names[0],
        metrics={name: FormedMetric((name,)) for name in names},
        instructions=max(one.n for one in teachers),
        teachers=tuple(teachers),
        settings=dict(settings),
        warnings=tuple(Warning("benchmark", text) for text in dict.fromkeys(texts)),
        stability=None,
        evidence=evidence,
    )
