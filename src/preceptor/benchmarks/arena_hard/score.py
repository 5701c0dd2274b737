"""Arena-Hard: how a model fares against one baseline over the prompts of an edition, two games each.

Against a single baseline the Bradley-Terry fit has a closed form, the share of points won, where a verdict
with `>>` counts as three battles and a tie as half a point for each. The games of a prompt hang together, so
the interval resamples prompts, not battles. Source: Li et al. 2024 (arXiv 2406.11939) and the benchmark's
published scoring. Nothing here calls a judge or reads a file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.base import N_RESAMPLES, BenchmarkResult, estimate_of
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means, percentile_interval

Array = NDArray[np.float64]

GAMES = 2
"""Games per prompt, the order of the answers swapped in the second."""

MUCH_BETTER = 3
"""How many battles a verdict with `>>` counts for."""


@dataclass(frozen=True)
class Edition:
    """One edition of the benchmark, or one category of it that is scored by itself.

    `measure` names its score, `folder` holds its files in the benchmark's data set, `prompts` is how many it
    has. `baseline` answers every prompt. `id_field` names a prompt in its files. An edition with a
    `category` takes only the rows of it, and leaves out a prompt one of whose games has no verdict, as its
    own tool does.
    """

    name: str
    title: str
    measure: str
    folder: str
    prompts: int
    baseline: str
    id_field: str
    category: str | None = None


V01 = Edition(
    name="arena_hard",
    title="Arena-Hard v0.1",
    measure="AH",
    folder="data/arena-hard-v0.1",
    prompts=500,
    baseline="gpt-4-0314",
    id_field="question_id",
)
"""The edition of the paper (arXiv 2406.11939)."""


class Battles(NamedTuple):
    """Weighted battles that the model won, tied or lost."""

    won: float
    tied: float
    lost: float


_FOR_THE_SECOND = {
    "A>>B": Battles(0, 0, MUCH_BETTER),
    "A>B": Battles(0, 0, 1),
    "A=B": Battles(0, 1, 0),
    "B>A": Battles(1, 0, 0),
    "B>>A": Battles(MUCH_BETTER, 0, 0),
}


@dataclass(frozen=True)
class PromptBattles:
    """One model's weighted battles against the baseline, by prompt.

    `won`, `tied` and `lost` have shape (prompts,), whole numbers, and every prompt has a battle.
    `verdicts` counts the games behind them, None where the file holds only battles. `dropped` counts
    by reason what gave no battle. `judge` is None where the file does not say.
    """

    model: str
    baseline: str
    prompts: tuple[str, ...]
    won: Array
    tied: Array
    lost: Array
    verdicts: int | None = None
    judge: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The prompts."""
        return self.prompts

    @property
    def points(self) -> Array:
        """Battles won, a tie as half."""
        return self.won + self.tied / 2

    @property
    def weights(self) -> Array:
        """All battles."""
        return self.won + self.tied + self.lost


def battles_of(verdict: str, *, model_first: bool) -> Battles:
    """Return the weighted battles of one game, from the model's side.

    Args:
        verdict: one of `SHARES` of the judge that writes.
        model_first: whether the model's answer was A; in the first game of a prompt it is B.
    """
    won, tied, lost = _FOR_THE_SECOND[verdict]
    return Battles(lost, tied, won) if model_first else Battles(won, tied, lost)


def arena_hard_score(won: Array, tied: Array, lost: Array) -> float:
    """Return `100 (W + T / 2) / (W + T + L)`, the Bradley-Terry win rate over the baseline.

    With one opponent the likelihood's maximum has this form: the fitted probability of winning is
    the share of points. NaN without a battle.

    Args:
        won: weighted battles by prompt, any shape; likewise `tied` and `lost`.
        tied: a tie is half a point for each.
        lost: as `won`.
    """
    battles = float(won.sum() + tied.sum() + lost.sum())
    return 100 * float(won.sum() + tied.sum() / 2) / battles if battles else math.nan


def bootstrap_prompts(
    won: Array, tied: Array, lost: Array, *, draws: int, rng: np.random.Generator
) -> Array:
    """Return the score in each resample of the prompts, a prompt's battles kept together.

    Args:
        won: weighted battles by prompt, shape (prompts,), each prompt with at least one battle of
            some kind; likewise `tied` and `lost`.
        tied: as `won`.
        lost: as `won`.
        draws: how many resamples.
        rng: advanced by `draws * prompts` integers; equal generators pair the draws of two models.

    Returns:
        Shape (draws,), in percent.
    """
    points = np.stack([won + tied / 2, won + tied + lost])
    means = bootstrap_means(points, draws=draws, rng=rng)
    scores: Array = 100 * means[:, 0] / means[:, 1]
    return scores


def bootstrap_battles(
    won: Array, tied: Array, lost: Array, *, draws: int, rng: np.random.Generator
) -> Array:
    """Return the score in each resample of single weighted battles, the leaderboard's way.

    A verdict with `>>` stands in three rows there, and each row is drawn by itself: the interval is
    too narrow. It is here to compare with published ones.

    Returns:
        Shape (draws,), in percent.
    """
    totals = np.array([won.sum(), tied.sum(), lost.sum()])
    battles = totals.sum()
    counts = rng.multinomial(round(float(battles)), totals / battles, size=draws)
    scores: Array = 100 * (counts[:, 0] + counts[:, 1] / 2) / battles
    return scores


def evaluate_arena_hard(
    battles: PromptBattles, edition: Edition = V01, *, draws: int = N_RESAMPLES, seed: int = 0
) -> BenchmarkResult:
    """Return one model's score with its interval over prompts and the published kind beside it.

    Prompts are put in order first, so models judged on the same prompts see the same resamples.

    Args:
        battles: at least one prompt.
        edition: whose prompts and baseline they should be.
        draws: resamples.
        seed: of the resampling.

    Raises:
        StudyError: if no prompt has a battle.
    """
    n = len(battles.prompts)
    if n == 0:
        raise StudyError(
            f"'{battles.model}' has no battle against '{battles.baseline}': expected "
            f"{edition.prompts} prompts. Judge its answers first."
        )
    order = sorted(range(n), key=battles.prompts.__getitem__)
    counts = battles.won[order], battles.tied[order], battles.lost[order]
    # Streams of their own: with the same numbers, draws of two benchmarks would rise together.
    over_prompts, over_battles = np.random.default_rng(seed).spawn(2)
    scores = bootstrap_prompts(*counts, draws=draws, rng=over_prompts)
    published = percentile_interval(bootstrap_battles(*counts, draws=draws, rng=over_battles))
    return BenchmarkResult(
        benchmark=edition.name,
        model=battles.model,
        judge=battles.judge,
        n=n,
        missing=_missing(battles, edition),
        measures={edition.measure: estimate_of(arena_hard_score(*counts), scores, n=n)},
        draws={edition.measure: scores},
        facts={
            f"{edition.measure}_published_low": float(published.low),
            f"{edition.measure}_published_high": float(published.high),
        },
        warnings=tuple(_warnings(battles, edition)),
    )


def _missing(battles: PromptBattles, edition: Edition) -> float:
    if battles.verdicts is None:
        return max(0.0, 1 - len(battles.prompts) / edition.prompts)
    return max(0.0, 1 - battles.verdicts / (GAMES * edition.prompts))


def _warnings(battles: PromptBattles, edition: Edition) -> list[str]:
    found = []
    if len(battles.prompts) != edition.prompts:
        found.append(
            f"{len(battles.prompts)} of {edition.title}'s {edition.prompts} prompts have a verdict."
        )
    if battles.baseline != edition.baseline:
        found.append(
            f"The baseline of {edition.title} is {edition.baseline}, here it is {battles.baseline}: "
            "nothing compares with published scores."
        )
    if battles.dropped:
        counted = ", ".join(f"{count} {why}" for why, count in battles.dropped.items())
        found.append(f"Left out of {edition.title}: {counted}.")
    return found
