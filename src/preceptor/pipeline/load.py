"""Read the data of a study once, derive teachers from samples, and select what is compared.

What comes out is the table of what is compared, once for each source of rewards. Nothing here knows how a
score is made, nor what a ranking is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from preceptor.config.rewards import Reward
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.config.teachers import BestOfN
from preceptor.data.formats import Problem
from preceptor.data.selection import Selection, TooFewInCommon, select
from preceptor.data.table import Gathered, ResponseTable
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.best_of_n import with_best_of_n, without_reward
from preceptor.pipeline.names import names_alike
from preceptor.pipeline.plan import labels, likelihood_of
from preceptor.pipeline.response_warnings import (
    copies,
    cut_off,
    made_up,
    matched_samples,
    never_answered,
    odd_endings,
    own_reward,
    prompts_alike,
    unadvised,
    unfinished,
)
from preceptor.pipeline.score import Step, Stored, carry_out, step_of
from preceptor.pipeline.select import metric_of, score_of
from preceptor.pipeline.silence import without_silent
from preceptor.pipeline.sources import Scope, StudySource, how_to_match
from preceptor.pipeline.work import Executor, Progress
from preceptor.scorers.base import Array, Scorer
from preceptor.scorers.rewards import reward_scorers
from preceptor.types import Warning


@dataclass(frozen=True)
class LoadedData:
    """The data of a study for one source of rewards: what is compared, what was skipped.

    `reward` is None where there is none; `warnings` belong under the ranking; `chosen_by` are the rewards by
    which best-of-N teachers were made, with their columns.
    """

    source: StudySource
    selection: Selection
    reward: Reward | None
    reward_name: str
    skipped: Mapping[str, int]
    problems: Sequence[Problem]
    warnings: Sequence[Warning] = ()
    chosen_by: Sequence[tuple[Step, Stored]] = ()


class _Unpaid(Exception):
    """So many rewards are missing, and nothing may be computed."""


@dataclass(frozen=True)
class Loader:
    """Reads the data for any source of rewards; the texts are not kept.

    Where `spend` is false nothing is computed: a best-of-N teacher whose rewards are missing is left out.
    """

    study: Study
    runtime: Runtime
    source: StudySource
    scope: Scope
    progress: Progress
    execute: Executor
    spend: bool

    @cached_property
    def plain(self) -> Gathered:
        """The data without rewards that stand in a column, gathered once.

        Raises:
            DataError: they cannot be read, or hold no responses.
        """
        return self._gathered(None)

    def data(self, rewards: Sequence[Reward | None]) -> list[LoadedData]:
        """Return the data for each source of rewards; rows are read once for all that must be computed.

        Raises:
            DataError: the data cannot be read.
            StudyError: too few instructions are common to all teachers.
        """
        return [
            self._loaded(reward, name)
            for reward, name in zip(rewards, labels(rewards), strict=True)
        ]

    def _loaded(self, reward: Reward | None, name: str) -> LoadedData:
        column = reward.column if reward is not None else None
        gathered = self.plain if column is None else self._gathered(column)
        table = gathered.table
        self.study.require_allowed(table.teachers)
        if reward is not None and reward.kind == "reference":
            table = table.with_references()
        warnings = [
            *made_up(self.source.jobs),
            *unadvised(self.source.jobs),
            *never_answered(self.source.jobs),
            *copies(table),
            *cut_off(self.source.jobs, table),
            *unfinished(self.source.jobs, table),
            *odd_endings(table),
            *names_alike(table.teachers),
            *prompts_alike(gathered.alike),
            *matched_samples(gathered.matched, self.study.data.columns.match),
        ]
        if self.scope.limit is not None:
            table = table.first(self.scope.limit, seed=self.study.ranking.seed)
        rewards, whole = _Values(self, reward, []), table.teachers
        for best_of_n in (one.among(whole) for one in self.study.best_of_n):
            if self.scope.teachers is not None and best_of_n.name not in self.scope.teachers:
                continue
            try:
                table = with_best_of_n(table, best_of_n, rewards)
            except _Unpaid as unpaid:
                text = f"'{best_of_n.name}' will be chosen when {unpaid} are there."
                warnings.append(Warning("not-chosen-yet", text))
                continue
            warnings += own_reward(best_of_n, reward)
        table, mute = without_silent(table)
        warnings += mute
        return LoadedData(
            self.source,
            self._selected(table),
            reward,
            name,
            gathered.skipped,
            gathered.problems,
            warnings,
            rewards.computed,
        )

    def _selected(self, table: ResponseTable) -> Selection:
        if self.scope.teachers is not None:
            table = table.with_teachers(self.scope.teachers)
        options, data = self.study.ranking, self.study.data
        try:
            return select(table, data.limit, seed=options.seed, min_coverage=options.min_coverage)
        except TooFewInCommon as error:
            raise StudyError(f"{error} {how_to_match(data, error.common)}") from error

    def _gathered(self, column: str | None) -> Gathered:
        try:
            return self.source.gathered(column)
        except DataError as error:
            if warnings := never_answered(self.source.jobs):
                raise DataError(f"{error} {' '.join(map(str, warnings))}") from error
            raise


@dataclass(frozen=True)
class _Values:
    """Gives the values by which samples are chosen; scores that are missing are computed and stored."""

    loader: Loader
    reward: Reward | None
    computed: list[tuple[Step, Stored]]

    def __call__(self, best_of_n: BestOfN, table: ResponseTable, rows: NDArray[np.intp]) -> Array:
        rewards = self._rewards(best_of_n, table, rows)
        study = self.loader.study
        if best_of_n.by == "reward":
            return rewards
        scorer = likelihood_of(study, self.loader.runtime)
        losses = self._carried_out(scorer, table, rows, "scores")[2]["loss"]
        numbers = {"reward": rewards, "loss": losses}
        metric = metric_of(best_of_n.by, study)
        return score_of(metric, numbers, table.instruction[rows], study.ranking.transform)

    def _rewards(self, best_of_n: BestOfN, table: ResponseTable, rows: NDArray[np.intp]) -> Array:
        chosen_by = best_of_n.reward or self.reward
        if chosen_by is None:
            raise without_reward(best_of_n)
        column = chosen_by.column
        if column is not None and best_of_n.reward is None:
            return table.values["reward"][rows]
        if column is not None:
            return self._of_column(column, table, rows)
        (scorer,) = reward_scorers(chosen_by, self.loader.runtime)
        step, columns, measures = self._carried_out(scorer, table, rows, "rewards")
        self.computed.append((step, columns))
        return measures["reward"]

    def _carried_out(
        self, scorer: Scorer, table: ResponseTable, rows: NDArray[np.intp], noun: str
    ) -> tuple[Step, Stored, Mapping[str, Array]]:
        """Return the step over these rows, its columns, and the measures made of them."""
        step = step_of(scorer, self.loader.runtime, self.loader.source, all_of(table, rows))
        lacking = step.lacking()
        if lacking and not self.loader.spend:
            raise _Unpaid(f"{lacking:,} more {noun}")
        if lacking:
            step.preflight()
        try:
            columns = carry_out(step, self.loader.progress, self.loader.execute)
        finally:
            step.resource.release()
        return step, columns, scorer.derive({name: columns[name] for name in scorer.columns})

    def _of_column(self, column: str, table: ResponseTable, rows: NDArray[np.intp]) -> Array:
        """Return rewards in another column of the data, matched by content."""
        other = self.loader.source.gathered(column).table
        known = dict(zip(other.keys.tolist(), other.values["reward"].tolist(), strict=True))
        return np.array([known.get(key, np.nan) for key in table.keys[rows].tolist()])


def all_of(table: ResponseTable, rows: NDArray[np.intp]) -> Selection:
    """Return these rows of a response table as what a step is about."""
    taken = np.unique(table.instruction[rows]).astype(np.intp)
    return Selection(table, rows, taken, len(taken))
