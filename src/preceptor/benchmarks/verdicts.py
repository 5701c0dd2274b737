"""What a judge's verdicts on one benchmark are, whoever judged: fit to be scored, ranked and written.

The one idea: tuned students ranked by their verdicts are a `Ranking` like any other, so an observed order and
a predicted one are compared as equals. Models are compared on the same questions, paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from preceptor.benchmarks.alpaca_eval.score import Preferences
from preceptor.benchmarks.arena_hard.score import PromptBattles
from preceptor.benchmarks.judgement_rows import Row
from preceptor.config.finetune import Benchmark
from preceptor.errors import StudyError
from preceptor.ranking.metrics import Array
from preceptor.ranking.rank import Measurements, Ranking, RankingOptions, rank
from preceptor.ranking.warnings import Warning
from preceptor.store.identity import Identity


@dataclass(frozen=True)
class Judged:
    """One judge's verdicts on models' answers to one benchmark, against one baseline.

    `preferences` are AlpacaEval's, `battles` Arena-Hard's; the other is empty. `rows` are the verdicts as the
    project's own tool writes them, empty where its file cannot hold them. `first_place` says by model how
    far the judge prefers whatever is shown first, 0..1 (0.5 is no bias), None where that is not known.
    """

    benchmark: Benchmark
    baseline: str
    judge: Identity
    judge_name: str
    preferences: tuple[Preferences, ...] = ()
    battles: tuple[PromptBattles, ...] = ()
    rows: tuple[Row, ...] = ()
    first_place: Mapping[str, float | None] = field(default_factory=dict)

    def cautions(self) -> list[Warning]:
        """Return what must be known of the judge: whose prompt, and how it likes a place."""
        said = [
            Warning(
                "another-judge",
                f"Judged by {self.judge_name}, not by the benchmark's own judge and prompt: rates do not "
                "compare with published ones.",
            )
        ]
        for model, share in self.first_place.items():
            if share is not None and abs(share - 0.5) > FAR:
                said.append(
                    Warning(
                        "position-bias",
                        f"On '{model}' the judge prefers whatever stands first with a share of "
                        f"{share:.0%}: both orders cancel the bias in the mean, and leave little signal.",
                    )
                )
        return said


FAR = 0.1
"""A liking for the first place beyond this is told."""


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
    judged: Sequence[Preferences | PromptBattles],
    *,
    student: str,
    names: Mapping[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
    options: RankingOptions | None = None,
) -> Ranking:
    """Return the observed order of tuned students, of the same type as a predicted one.

    All models are compared on the questions that have a verdict on each, resampled together; so P(best) and
    the intervals are paired. The judge is stamped into the settings.

    Args:
        judged: verdicts of one benchmark, one for each model, ready or from `judge_answers`.
        student: the base model that was tuned.
        names: the teacher by whose responses a model was tuned; models not named keep their name.
        settings: what else to pass through.
        options: draws, seed and minimum coverage.

    Raises:
        StudyError: there is nothing to rank, judges or baselines are mixed, or too few questions are common.
    """
    if not judged:
        raise StudyError("There are no verdicts to rank: judge the students' answers first.")
    judge, baseline = _one(judged, "judge"), _one(judged, "baseline")
    keys = sorted({key for one in judged for key in _keys(one)}, key=str)
    place = {key: at for at, key in enumerate(keys)}
    win = np.full((len(judged), len(keys)), math.nan)
    battles = np.full_like(win, math.nan)
    for row, one in enumerate(judged):
        at = [place[key] for key in _keys(one)]
        win[row, at], battles[row, at] = _points(one)
    weighted = isinstance(judged[0], PromptBattles)
    return rank(
        Measurements(
            teachers=tuple((names or {}).get(one.model, one.model) for one in judged),
            instructions=len(keys),
            values={"win": win},
            denominators={"win": battles} if weighted else {},
        ),
        student=student,
        metrics=[WinRate()],
        settings={
            **(settings or {}),
            "benchmark": "Arena-Hard v0.1" if weighted else "AlpacaEval 2",
            "judge": judge,
            "baseline": baseline,
        },
        options=options,
    )


def _one(judged: Sequence[Preferences | PromptBattles], what: str) -> str | None:
    named = {getattr(one, what) for one in judged}
    if len(named) > 1:
        listed = ", ".join(sorted(str(name) for name in named))
        raise StudyError(
            f"The verdicts come from more than one {what}: {listed}. Verdicts of different ones are "
            "never compared: judge all models alike."
        )
    found: str | None = named.pop()
    return found


def _keys(one: Preferences | PromptBattles) -> Sequence[str | int]:
    return one.instructions if isinstance(one, Preferences) else one.prompts


def _points(one: Preferences | PromptBattles) -> tuple[Array, Array]:
    """Return the points of each question and out of how many."""
    if isinstance(one, Preferences):
        return one.wins, np.ones(len(one.wins))
    return one.won + one.tied / 2, one.won + one.tied + one.lost
