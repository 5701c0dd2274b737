"""Pick the responses a data set is made of: one teacher's, or for each instruction the best by a score.

What is picked are rows of the table, of which the texts are streamed afterwards. Scores of
single responses are formed from what the store holds of each, or computed where it holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preceptor.config.base import Rule
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.data.gather import Source
from preceptor.data.table import ResponseTable
from preceptor.errors import StudyError, nearest
from preceptor.export.writer import Example, Pair
from preceptor.ranking.metrics import (
    TRANSFORMS,
    AverageReward,
    CompatibilityAdjustedReward,
    Metric,
    PersonalisedSynthesis,
    within_instruction,
)
from preceptor.scorers.base import Array
from preceptor.types import Response

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class Picked:
    """Rows of a response table, and numbers (rows,) that belong to each; NaN is no data."""

    rows: NDArray[np.intp]
    numbers: Mapping[str, Array]

    def where(self, kept: NDArray[np.bool_]) -> Picked:
        """Return the rows that are kept."""
        numbers = {name: values[kept] for name, values in self.numbers.items()}
        return Picked(self.rows[kept], numbers)


def of_teacher(table: ResponseTable, teacher: str, *, every_sample: bool = False) -> Picked:
    """Return all responses of one teacher, the first sample of each instruction unless `every_sample`.

    Raises:
        StudyError: there is no such teacher.
    """
    if teacher not in table.teachers:
        known = ", ".join(f"'{name}'" for name in table.teachers)
        raise StudyError(
            f"No teacher '{teacher}'. Known: {known}.{nearest(teacher, table.teachers)}"
        )
    of = table.teacher == table.teachers.index(teacher)
    rows = np.flatnonzero(of if every_sample else of & (table.order_within() == 0))
    given = {name: values[rows] for name, values in table.values.items()}
    return Picked(rows, given)


@dataclass(frozen=True)
class Scored:
    """Every sample of every teacher that was scored, with its numbers.

    `rows` index the response table; `score` is what is picked by, higher is better.
    """

    table: ResponseTable
    rows: NDArray[np.intp]
    numbers: Mapping[str, Array]
    score: Array

    def best(self) -> Picked:
        """Return the response with the highest score for each instruction that has one."""
        return self._at(self._order()[1])

    def pairs(self, *, margin: float = 0.0) -> tuple[Picked, Picked]:
        """Return the responses with the highest and the lowest score, apart by more than `margin`.

        An instruction whose responses are less apart gives no pair.
        """
        last, first = self._order()
        apart = self.score[first] - self.score[last] > margin
        return self._at(first[apart]), self._at(last[apart])

    def _order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the places of the worst and of the best response of each instruction.

        Of equal scores the earlier teacher's earlier sample goes first, at both ends.
        """
        usable = np.flatnonzero(np.isfinite(self.score))
        rows = self.rows[usable]
        of, teacher, sample = (
            column[rows]
            for column in (self.table.instruction, self.table.teacher, self.table.sample)
        )
        ends = []
        for key in (self.score[usable], -self.score[usable]):
            order = np.lexsort((sample, teacher, key, of))
            _, first = np.unique(of[order], return_index=True)
            ends.append(usable[order[first]])
        return ends[0], ends[1]

    def _at(self, places: NDArray[np.intp]) -> Picked:
        numbers = {name: values[places] for name, values in self.numbers.items()}
        return Picked(self.rows[places], numbers)


def scored(pipeline: Pipeline, data: LoadedData, student: Student | None, rule: Rule) -> Scored:
    """Return every response to the instructions compared with the score that the rule gives it.

    What has no score yet is computed and stored. `car` is `r / (1 + beta * l)` of one response (paper, eq. 3
    with single values for means), after the study's reward transform; `persyn` is arXiv 2510.10925's.

    Raises:
        StudyError: there is no reward, or no student where the rule needs one, or CAR of a negative reward.
    """
    if data.reward is None:
        raise StudyError(
            f"Responses cannot be picked by {rule} without rewards: give the study a [reward]."
        )
    if student is None and rule != "reward":
        raise StudyError(f"Responses cannot be picked by {rule} without a student: name one.")
    study, table, rows = pipeline.study, data.selection.table, data.selection.rows
    metric = metric_of(rule, study)
    alone = pipeline.of(study.model_copy(update={"metrics": (metric,), "by": None}))
    _, steps = alone.plan(data, student)
    numbers = {name: values[rows] for name, values in table.values.items()}
    for step, columns in zip(steps, alone.score(steps), strict=True):
        numbers |= step.scorer.derive({name: columns[name] for name in step.scorer.columns})
    numbers = {
        name: numbers[name] for name in ("reward", "loss", "tokens", "length") if name in numbers
    }
    score = score_of(metric, numbers, table.instruction[rows], study.ranking.transform)
    return Scored(table, rows, numbers | {rule: score}, score)


def metric_of(rule: Rule, study: Study) -> Metric:
    """Return the metric by which single responses are picked, as the study has it."""
    if rule == "reward":
        return AverageReward()
    kinds = {metric.kind: metric for metric in study.metrics}
    if rule == "persyn":
        return kinds.get("persyn", PersonalisedSynthesis())
    return kinds.get("car", CompatibilityAdjustedReward(beta=study.beta))


def score_of(
    metric: Metric, numbers: Mapping[str, Array], of: NDArray[np.int32], transform: str
) -> Array:
    """Return what single responses (rows,) are picked by, `of` their instructions; higher is better.

    Raises:
        StudyError: CAR of a negative reward.
    """
    reward = numbers["reward"]
    if isinstance(metric, CompatibilityAdjustedReward):
        used = TRANSFORMS[transform](reward)
        if (used[np.isfinite(used)] < 0).any():
            raise StudyError(
                f"CAR of single responses is meaningless where rewards are negative (the lowest is "
                f"{np.nanmin(used):.3g}): a higher loss would raise it. Give --reward-transform sigmoid or "
                "shift-min, or pick by persyn."
            )
        return np.asarray(metric(used, numbers["loss"]))
    if isinstance(metric, PersonalisedSynthesis):
        quality, learnable = _spanned(reward, of), _spanned(-numbers["loss"], of)
        return np.asarray(metric(quality, learnable))
    return reward


def _spanned(values: Array, of: NDArray[np.int32]) -> Array:
    """Scale to 0..1 among the responses to each instruction, those without a value left out."""
    spanned = np.full(len(values), np.nan)
    order = np.argsort(of, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
        finite = places[np.isfinite(values[places])]
        if len(finite):
            spanned[finite] = within_instruction(values[finite][:, None])[:, 0]
    return spanned


def examples(source: Source, table: ResponseTable, picked: Picked) -> Iterator[Example]:
    """Yield the picked responses with their texts, in the order of the data; a repeated text once."""
    waiting = {table.keys[row].item(): place for place, row in enumerate(picked.rows.tolist())}
    for response in source:
        if response.text is not None and response.key in waiting:
            place = waiting.pop(response.key)
            row = picked.rows[place]
            yield Example(
                instruction=response.instruction,
                text=response.text,
                teacher=table.teachers[table.teacher[row]],
                sample=int(table.sample[row]),
                numbers={name: float(values[place]) for name, values in picked.numbers.items()},
                tool_calls=response.tool_calls,
            )


def pairs(source: Source, table: ResponseTable, chosen: Picked, rejected: Picked) -> Iterator[Pair]:
    """Yield the picked pairs with their texts, once both have been met."""
    sides = (chosen, rejected)
    waiting: dict[bytes, list[tuple[int, int]]] = {}
    for side, picked in enumerate(sides):
        for place, row in enumerate(picked.rows.tolist()):
            waiting.setdefault(table.keys[row].item(), []).append((place, side))
    met: dict[int, dict[int, Response]] = {}
    for response in source:
        if response.text is None:
            continue
        for place, side in waiting.pop(response.key, ()):
            met.setdefault(place, {})[side] = response
            if len(met[place]) == len(sides):
                yield _pair(table, sides, place, met.pop(place))


def _pair(
    table: ResponseTable, sides: tuple[Picked, Picked], place: int, met: Mapping[int, Response]
) -> Pair:
    teachers = [table.teachers[table.teacher[side.rows[place]]] for side in sides]
    numbers = {
        f"{word}_{name}": float(values[place])
        for word, side in zip(("chosen", "rejected"), sides, strict=True)
        for name, values in side.numbers.items()
    }
    return Pair(
        instruction=met[0].instruction,
        chosen=met[0].text or "",
        rejected=met[1].text or "",
        chosen_teacher=teachers[0],
        rejected_teacher=teachers[1],
        numbers=numbers,
        alike=met[0].instruction.content_id == met[1].instruction.content_id,
        tool_calls=met[0].tool_calls or met[1].tool_calls,
    )
