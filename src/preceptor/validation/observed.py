"""The observed order of fine-tuned students: what a judge's verdicts say, as a ranking like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from preceptor.benchmarks.alpaca_eval.calibration import read_calibration
from preceptor.benchmarks.alpaca_eval.length_control import Calibration
from preceptor.benchmarks.alpaca_eval.score import evaluate_alpaca_eval
from preceptor.benchmarks.arena_hard.score import evaluate_arena_hard
from preceptor.benchmarks.average_performance import StudentResult, student_results
from preceptor.benchmarks.verdicts import Judged, observed_ranking
from preceptor.config.finetune import OWN, Evaluate
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import Array, beat_probabilities, rank_probabilities, ranks
from preceptor.ranking.rank import RankingOptions
from preceptor.ranking.result import Ranking, TeacherResult
from preceptor.ranking.warnings import Warning
from preceptor.types import Estimate

YARDSTICKS = ("AP", "LC", "AH", "WR")
"""What orders fine-tuned students in a benchmark: the first of these that all have."""


def calibration_of(evaluate: Evaluate) -> Calibration | None:
    """Return what AlpacaEval's length control needs, where it applies: against its own baseline.

    Raises:
        DataError: it cannot be fetched.
    """
    needed = evaluate.held_against == OWN and "alpaca_eval" in evaluate.benchmarks
    return read_calibration() if needed else None


def observed_order(
    judged: Sequence[Judged],
    evaluate: Evaluate,
    *,
    student: str,
    calibration: Calibration | None,
    options: RankingOptions,
) -> Ranking:
    """Return the order of one student's fine-tune jobs by the verdicts of all its tasks.

    Args:
        judged: verdicts, one entry for each task; models go by their teachers' names.
        evaluate: what was asked, and against whom.
        student: its label.
        calibration: for length control; None leaves it out.
        options: draws, seed and coverage.

    Raises:
        StudyError: there is nothing to rank.
    """
    if evaluate.held_against == OWN:
        seed = options.seed
        alpaca = [
            evaluate_alpaca_eval(one, calibration, seed=seed)
            for task in judged
            for one in task.preferences
        ]
        arena = [evaluate_arena_hard(one, seed=seed) for task in judged for one in task.battles]
        return ranking_of_results(
            student_results(alpaca, arena), student=student, settings=_settings(judged, seed)
        )
    (task,) = judged
    ranking = observed_ranking(task.preferences or task.battles, student=student, options=options)
    if not evaluate.questions:
        return ranking
    # They are put and read as AlpacaEval's are, and are not its own.
    own = {"benchmark": "questions of the study", "questions": list(evaluate.questions)}
    return replace(ranking, settings={**ranking.settings, **own})


def _settings(judged: Sequence[Judged], seed: int) -> dict[str, object]:
    return {
        "benchmark": " and ".join(task.benchmark for task in judged),
        "judge": "; ".join(dict.fromkeys(task.judge_name for task in judged)),
        "baseline": "; ".join(task.baseline for task in judged),
        "seed": seed,
    }


def ranking_of_results(
    results: Sequence[StudentResult], *, student: str, settings: Mapping[str, object]
) -> Ranking:
    """Return results of benchmarks as a ranking by AP, or the first of `YARDSTICKS` that all have.

    Intervals and P(best) are those of the benchmarks' own draws, which are paired over the prompts.

    Args:
        results: one for each teacher, under the teacher's name.
        student: the label of the student that was fine-tuned.
        settings: passed through.

    Raises:
        StudyError: no yardstick is known of all.
    """
    formed = {name: _all_of(results, name) for name in YARDSTICKS}
    known = {name: found for name, found in formed.items() if found is not None}
    if not known:
        raise StudyError(
            f"There is no benchmark that all of {', '.join(r.name for r in results)} have a result of. "
            "Judge all alike."
        )
    by = next(iter(known))
    draws = np.stack([_draws(result, by) for result in results], axis=1)
    point = np.array([estimate.value for estimate in known[by]])
    places, p_rank = ranks(point), rank_probabilities(draws)
    order = sorted(range(len(results)), key=lambda at: (places[at], results[at].name))
    beats = beat_probabilities(draws, order[0])
    teachers = tuple(
        TeacherResult(
            teacher=results[at].name,
            rank=int(places[at]),
            n=known[by][at].n,
            estimates={name: found[at] for name, found in known.items()},
            p_rank=tuple(p_rank[at].tolist()),
            p_leader_beats=float(beats[at]) if at != order[0] else None,
            dropped={},
            truncated=0,
        )
        for at in order
    )
    told = dict.fromkeys(
        Warning("benchmark", caution) for result in results for caution in result.cautions
    )
    asked = max(result.n for result in teachers)
    return Ranking(student, by, tuple(known), asked, teachers, dict(settings), tuple(told), None)


def _all_of(results: Sequence[StudentResult], name: str) -> list[Estimate] | None:
    found = [_estimate(result, name) for result in results]
    known = [estimate for estimate in found if estimate is not None]
    return known if len(known) == len(found) else None


def _estimate(result: StudentResult, name: str) -> Estimate | None:
    alpaca, arena = result.alpaca_eval, result.arena_hard
    if name == "AP":
        return result.average
    if name == "AH":
        return arena.score if arena else None
    if alpaca is None:
        return None
    return alpaca.length_controlled if name == "LC" else alpaca.win_rate


def _draws(result: StudentResult, name: str) -> Array:
    """Return the draws behind an estimate that is there, (draws,)."""
    alpaca, arena = result.alpaca_eval, result.arena_hard
    if name == "AH":
        assert arena is not None
        return arena.draws
    assert alpaca is not None
    if name == "WR":
        return alpaca.win_draws
    assert alpaca.controlled_draws is not None
    if name == "LC":
        return alpaca.controlled_draws
    assert arena is not None
    return (alpaca.controlled_draws + arena.draws) / 2
