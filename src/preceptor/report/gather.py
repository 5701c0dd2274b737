"""Gather what stands behind rankings: the one step between scored studies and a report.

An `Outcome` says where its numbers lie; here they are read once more, put in the ranking's order, and summed
up as plain data. Nothing is computed by a model and nothing is paid for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preceptor.data.table import drawn
from preceptor.pipeline.outcome import Outcome
from preceptor.ranking.result import Ranking
from preceptor.ranking.sensitivity import beta_sweep, nested, winners
from preceptor.report.compared import Compared
from preceptor.report.data import Change, RankingData
from preceptor.report.distributions import distributions
from preceptor.report.examples import Chosen, examples_of


def ranking_data_of(outcomes: Sequence[Outcome]) -> tuple[RankingData, ...]:
    """Return each ranking of one run with what stands behind it.

    The measures of one ranking are in memory at a time, and the data are read once for all texts.

    Raises:
        PreceptorError: scores or data can no longer be read.
    """
    drafts = [_without_examples(outcome, outcomes) for outcome in outcomes]
    chosen = [one for _, one in drafts]
    found = examples_of(chosen, outcomes[0].data.source)
    return tuple(
        replace(ranked, examples=examples)
        for (ranked, _), examples in zip(drafts, found, strict=True)
    )


def _without_examples(outcome: Outcome, outcomes: Sequence[Outcome]) -> tuple[RankingData, Chosen]:
    compared, ranking = Compared.of(outcome), outcome.ranking
    options, known = outcome.study.ranking, outcome.study.known
    changes = _Changes(ranking)
    _try_settings(changes, compared)
    _try_fewer(changes, compared)
    _try_rewards(changes, outcome, outcomes)
    ranked = RankingData(
        ranking=ranking,
        families={teacher: known.family(teacher) for teacher in outcome.teachers},
        sizes={teacher: known.size(teacher) for teacher in outcome.teachers},
        sweep=beta_sweep(compared.raw, compared.car, options) if compared.car else None,
        distributions=distributions(compared.used),
        changes=tuple(changes.found),
        tried=tuple(changes.tried),
        examples_of=compared.raw.n,
        tokens={
            result.teacher: result.estimates["tokens"].value
            for result in ranking.teachers
            if "tokens" in result.estimates
        },
    )
    return ranked, Chosen.of(compared)


class _Changes:
    """What was tried to change the answer of a ranking, and what did."""

    def __init__(self, ranking: Ranking) -> None:
        self.today = {result.teacher for result in ranking.teachers if result.rank == 1}
        self.tried: list[str] = []
        self.found: list[Change] = []

    def add(self, condition: str, best: Sequence[str]) -> None:
        """Take down which teachers are best under a condition; none is no answer."""
        if not best:
            return
        self.tried.append(condition)
        if set(best) != self.today:
            self.found.append(Change(condition, " and ".join(best), tie=len(best) > 1))


def _try_settings(changes: _Changes, compared: Compared) -> None:
    """Take down other ways to read the numbers that order: betas, reward transforms, equal lengths."""
    ranking, car = compared.outcome.ranking, compared.car
    own = {f"transform = {compared.outcome.study.ranking.transform}"}
    own |= {f"beta = {car.beta:g}"} if car is not None else set()
    for variant in ranking.stability.variants if ranking.stability else ():
        if variant.name not in own:
            changes.add(variant.name, variant.winners)


def _try_fewer(changes: _Changes, compared: Compared) -> None:
    """Take down the first half, quarter and eighth of the instructions, in the order the seed draws."""
    study, raw = compared.outcome.study, compared.raw
    ids = compared.outcome.data.selection.table.instructions[compared.instructions]
    order: NDArray[np.intp] = drawn(ids.tolist(), study.ranking.seed)
    for part in nested(raw, order):
        best = winners(
            part, compared.metric, transform=study.ranking.transform, teachers=compared.teachers
        )
        changes.add(f"the first {part.n:,} of {raw.n:,} instructions alone", best)


def _try_rewards(changes: _Changes, outcome: Outcome, outcomes: Sequence[Outcome]) -> None:
    """Take down the same student's rankings by other rewards."""
    for other in outcomes:
        if other is not outcome and other.ranking.student == outcome.ranking.student:
            best = [result.teacher for result in other.ranking.teachers if result.rank == 1]
            changes.add(f"another reward ({other.data.reward_name})", best)


def numbers_of(ranking: Ranking) -> Mapping[str, Mapping[str, float | None]]:
    """Return every measure and metric of each teacher, None where it is not finite."""
    return {
        result.teacher: {
            name: estimate.value if np.isfinite(estimate.value) else None
            for name, estimate in result.estimates.items()
        }
        for result in ranking.teachers
    }
