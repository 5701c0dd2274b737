"""AlpacaEval 2: how often a judge prefers one model's answers to the fixed baseline's.

A verdict is a number from 0 to 1 per instruction, the judge's probability that the model wins; the rest is
arithmetic on these numbers. Nothing here calls a judge or reads a file. Source: Dubois et al. 2024
(arXiv 2404.04475) and the benchmark's published procedure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.alpaca_eval.length_control import (
    Calibration,
    JudgedLengths,
    LengthControl,
    LengthWeights,
    bootstrap_control,
    fit_control,
)
from preceptor.benchmarks.base import N_RESAMPLES, BenchmarkResult, estimate_of
from preceptor.benchmarks.comparisons import was_switched
from preceptor.benchmarks.pairwise import first_share
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means

Array = NDArray[np.float64]

INSTRUCTIONS = 805
"""How many instructions the benchmark has."""

BASELINE = "gpt4_1106_preview"
"""The baseline of AlpacaEval 2; difficulties and gamed rows are of verdicts against it."""

MINIMUM = 20
"""Verdicts from which on length control is fitted: resamples of fewer can lack any spread of lengths."""

_OWN_CONTROL = LengthControl(50.0, LengthWeights(0.0, 0.0, 0.0), math.nan)
_FAR = 10


@dataclass(frozen=True)
class Preferences:
    """One model's verdicts against the baseline, at most one per instruction.

    `instructions` are texts, or positions in the benchmark's list where a file gives only these.
    `wins` has shape (instructions,), each in 0..1 with 1 for the model. `lengths` and
    `baseline_lengths` are the answers' characters. `dropped` counts by reason the rows without a
    usable verdict. `judge` and `baseline` are None where the file does not say.
    """

    model: str
    instructions: tuple[str | int, ...]
    wins: Array
    lengths: Array
    baseline_lengths: Array
    judge: str | None = None
    baseline: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str | int, ...]:
        """The instructions."""
        return self.instructions

    @property
    def points(self) -> Array:
        """The wins."""
        return self.wins

    @property
    def weights(self) -> Array:
        """One for each instruction."""
        return np.ones(len(self.wins))


def judged_win(instruction: str, logprobs: Mapping[str, float]) -> float | None:
    """Return the model's share of the win, 0..1, from the judge's one token; None is no verdict.

    The judge names the better of the answers m (shown first) and M; see `first_share`. Which answer was
    shown first follows from the instruction by the published seed.

    Args:
        instruction: its text.
        logprobs: natural log-probability of the judge's likeliest tokens.
    """
    share = first_share(logprobs)
    return share if share is None or was_switched(instruction) else 1 - share


def win_of(preference: float) -> float | None:
    """Return the model's share of a verdict, 0..1, from a stored preference in 1..2.

    A stored 0 is a tie, as published; None for anything else outside 1..2, NaN among it.
    """
    if preference == 0:
        return 0.5
    return preference - 1 if 1 <= preference <= 2 else None


def win_rate(wins: Array) -> float:
    """Return the mean verdict in percent, from wins of shape (instructions,) in 0..1."""
    return 100 * float(np.mean(wins))


def win_rate_error(wins: Array) -> float:
    """Return the win rate's standard error in percent: `100 sd / sqrt(n)`, NaN below two rows."""
    return 100 * float(np.std(wins, ddof=1)) / len(wins) ** 0.5 if len(wins) > 1 else math.nan


def evaluate_alpaca_eval(
    preferences: Preferences,
    calibration: Calibration | None,
    *,
    draws: int = N_RESAMPLES,
    seed: int = 0,
) -> BenchmarkResult:
    """Return one model's win rate, length-controlled win rate and their intervals.

    Rows are put in order of their instructions first, so models judged on the same instructions see
    the same resamples, whatever the order of their files. A model whose every verdict is a tie at
    equal length is the baseline itself: its controlled rate is 50 by construction, as published.

    Args:
        preferences: the verdicts, at least one.
        calibration: None leaves length control out, as do fewer than 20 verdicts.
        draws: resamples of the instructions.
        seed: of the resampling.

    Raises:
        StudyError: if there is no verdict, an instruction is unknown to the calibration, or lengths
            have no spread.
    """
    judged = _in_order(preferences)
    n = len(judged.wins)
    means = bootstrap_means(judged.wins[None], draws=draws, rng=np.random.default_rng(seed))
    found = {"WR": (win_rate(judged.wins), 100 * means[:, 0])}
    control = None
    if calibration is not None and n >= MINIMUM:
        control, controlled = _controlled(judged, calibration, draws=draws, seed=seed)
        found = {"LC": (control.rate, controlled), **found}
    return BenchmarkResult(
        benchmark="alpaca_eval",
        model=judged.model,
        judge=judged.judge,
        n=n,
        missing=max(0.0, 1 - n / INSTRUCTIONS),
        measures={name: estimate_of(value, drawn, n=n) for name, (value, drawn) in found.items()},
        draws={name: drawn for name, (_, drawn) in found.items()},
        facts={"WR_standard_error": win_rate_error(judged.wins) if n > 1 else None},
        warnings=tuple(_warnings(judged, control)),
    )


def _in_order(preferences: Preferences) -> Preferences:
    keys = preferences.instructions
    if not keys:
        left_out = ", ".join(f"{count} {why}" for why, count in preferences.dropped.items())
        raise StudyError(
            f"'{preferences.model}' has no usable verdict: expected {INSTRUCTIONS}, left out "
            f"{left_out or 'nothing'}. Judge its answers first."
        )
    order = sorted(range(len(keys)), key=lambda place: (isinstance(keys[place], str), keys[place]))
    return replace(
        preferences,
        instructions=tuple(keys[place] for place in order),
        wins=preferences.wins[order],
        lengths=preferences.lengths[order],
        baseline_lengths=preferences.baseline_lengths[order],
    )


def _controlled(
    judged: Preferences, calibration: Calibration, *, draws: int, seed: int
) -> tuple[LengthControl, Array]:
    """Return the fitted control and its draws, shape (draws,)."""
    rows = JudgedLengths(
        judged.wins, judged.lengths, judged.baseline_lengths, _difficulty(judged, calibration)
    )
    if np.array_equal(rows.lengths, rows.baseline_lengths) and np.all(rows.wins == 0.5):
        return _OWN_CONTROL, np.full(draws, _OWN_CONTROL.rate)
    control = fit_control(rows, calibration)
    rng = np.random.default_rng(seed)
    return control, bootstrap_control(rows, calibration, control, draws=draws, rng=rng)


def _difficulty(judged: Preferences, calibration: Calibration) -> Array:
    """Return gamma of each row, found by its instruction and never by its place in the file."""
    known = calibration.difficulty
    unknown = [key for key in judged.instructions if key not in known]
    if unknown:
        raise StudyError(
            f"{len(unknown)} of {len(judged.instructions)} instructions judged for "
            f"'{judged.model}' are not among the benchmark's {len(calibration.difficulty) // 2}, "
            f"the first: {str(unknown[0])[:80]!r}. Length control needs AlpacaEval's own "
            "instructions: check that the judgements and the instructions belong together."
        )
    return np.array([known[key] for key in judged.instructions])


def _warnings(judged: Preferences, control: LengthControl | None) -> list[str]:
    found = []
    n = len(judged.wins)
    if n != INSTRUCTIONS:
        found.append(f"{n} of AlpacaEval 2's {INSTRUCTIONS} instructions have a verdict.")
    if n < MINIMUM:
        found.append(f"No length control: it needs at least {MINIMUM} verdicts, there are {n}.")
    if judged.baseline not in (None, BASELINE):
        found.append(
            f"The baseline of AlpacaEval 2 is {BASELINE}, here it is {judged.baseline}: nothing "
            "compares with published rates, and length control is calibrated for another."
        )
    if judged.dropped:
        counted = ", ".join(f"{count} {why}" for why, count in judged.dropped.items())
        found.append(f"Left out of AlpacaEval 2: {counted}.")
    if control is not None and abs(control.rate - win_rate(judged.wins)) > _FAR:
        moved = control.rate - win_rate(judged.wins)
        found.append(f"Length control moves the win rate by {moved:+.1f} points.")
    return found
