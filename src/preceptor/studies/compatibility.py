"""Does the best teacher depend on the student? Each student's best, and a test against noise.

A score is taken for a student's level, plus a teacher's merit times how much that student learns from any
teacher, plus the rest. Levels and multiples leave the order of teachers as it is, so that the rest alone
can make another teacher the best for another student. Where the noise of a run is known, the rest is held
against it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from preceptor.agreement.correlation import Array, midranks
from preceptor.agreement.table import AgreementTable
from preceptor.studies.finding import Case, Finding
from preceptor.studies.outcomes import PARADOX, exact, outcome_findings, size_comparisons
from preceptor.studies.record import prior_comparison
from preceptor.studies.study import OutcomeStudy

_DRAWS = 20_000
_ROUNDS = 200


@dataclass(frozen=True)
class Interaction:
    """What is neither student nor teacher: its deviation in points, on so many degrees of freedom.

    `p_value` is that of so large a rest by noise alone, None where no noise is known.
    """

    deviation: float
    freedom: int
    p_value: float | None


def interaction(
    observed: Array, noise: float | None = None, runs: int = 0, seed: int = 0
) -> Interaction:
    """Return the rest of (students, teachers) scores that levels, merits and multiples leave.

    Merits and multiples are fitted by least squares, which also takes in some noise, so that the test errs
    on the side of noise. `noise` is a score's standard deviation from so many runs, 0 where it is exact.
    """
    rest = float((_rest(observed) ** 2).sum())
    students, teachers = observed.shape
    freedom = (students - 1) * (teachers - 2)
    if not noise or freedom < 1:
        return Interaction(math.sqrt(rest / max(freedom, 1)), freedom, None)
    rng = np.random.default_rng(seed)
    chance = rng.chisquare(freedom, _DRAWS) / freedom
    if runs > 1:
        chance /= rng.chisquare(runs - 1, _DRAWS) / (runs - 1)
    seen = rest / freedom / noise**2
    p_value = float((1 + (chance >= seen).sum()) / (1 + _DRAWS))
    return Interaction(math.sqrt(rest / freedom), freedom, p_value)


def _rest(observed: Array) -> Array:
    """Return what levels and multiples of one merit leave; a multiple below zero would turn the order."""
    centred: Array = observed - observed.mean(axis=1, keepdims=True)
    merit = centred.mean(axis=0)
    for _ in range(_ROUNDS):
        multiples = np.clip(centred @ merit, 0, None) / max(float(merit @ merit), 1e-300)
        merit = multiples @ centred / max(float(multiples @ multiples), 1e-300)
    return centred - np.outer(multiples, merit)


def study_findings(one: OutcomeStudy) -> tuple[Finding, ...]:
    """Return what a study's outcomes say; what they cannot show is left out."""
    found = outcome_findings(one.outcomes, one.catalogue)
    if one.noise and found and found[0].name == PARADOX:
        note = f"{found[0].note} {_beyond_noise(one, one.noise)}"
        found = (replace(found[0], note=note), *found[1:])
    depends = compatibility(one)
    return found if depends is None else (*found, depends)


def _beyond_noise(one: OutcomeStudy, noise: float) -> str:
    """Return how many of the larger teachers' losses are more than two runs differ by."""
    pairs = size_comparisons(exact(one.outcomes), one.catalogue)
    losses = [
        -float(change) for pair in pairs for change in pair.differences.values() if change < 0
    ]
    margin = 2 * math.sqrt(2) * noise
    beyond = sum(loss > margin for loss in losses)
    twice = f"{margin:.3g}, twice the deviation of a difference of two runs"
    return f"Of {len(losses)} losses {beyond} exceed {twice}."


def compatibility(one: OutcomeStudy) -> Finding | None:
    """Return whether the best teacher depends on the student; None for one student or two teachers."""
    comparison = prior_comparison(one)
    if comparison is None:
        return None
    observed, prior = comparison.observed, comparison.columns[0].predicted
    cases = tuple(
        _case(student, comparison.teachers, scores, others, points=not one.orders_only)
        for student, scores, others in zip(comparison.students, observed, prior, strict=True)
    )
    (mean,) = AgreementTable(comparison).means
    interval = (
        f" [{mean.ends.low:.2f}, {mean.ends.high:.2f}]"
        if math.isfinite(mean.ends.low)
        else f" (no interval: {len(comparison.teachers)} teachers)"
    )
    rho = f"{mean.rho:.3f}{interval}"
    note = f"The other students' mean ranks predict a student's order with a mean rho of {rho}."
    return Finding(
        name="Does the best teacher depend on the student?",
        claim="A student's best teacher is not the one that the other students would choose.",
        cases=cases,
        note=f"{note} {'' if one.orders_only else _tested(one, observed)}".rstrip(),
    )


def _case(
    student: str, teachers: tuple[str, ...], scores: Array, others: Array, *, points: bool
) -> Case:
    best, chosen = int(scores.argmax()), int(others.argmax())
    place = int(midranks(scores)[chosen])
    if best == chosen:
        return Case(student, False, f"{teachers[best]}, as for the others")
    behind = f", {scores[best] - scores[chosen]:.3g} behind" if points else ""
    numbers = f"{teachers[best]}; the others' {teachers[chosen]} is number {place}{behind}"
    return Case(student, True, numbers)


def _tested(one: OutcomeStudy, observed: Array) -> str:
    """Return what the rest is, and whether noise explains it."""
    found = interaction(observed, one.noise, one.noise_runs)
    rest = f"What is neither student nor teacher has a deviation of {found.deviation:.3g}"
    if found.p_value is None:
        return (
            f"{rest}: no run is repeated and no noise is known, so it cannot be tested. It is noise "
            "alone where a run varies by as much."
        )
    said = "It cannot be told from noise" if found.p_value > 0.05 else "It is more than noise"
    source = f" ({one.noise_source})" if one.noise_source else ""
    return f"{rest} and a run's is {one.noise:g}{source}. {said}: p = {found.p_value:.2g}."
