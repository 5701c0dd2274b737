"""Carry a study out from files to rankings.

Read once for the roster, score what the store lacks, put the measures together as columns, rank. Nothing
here knows how a score is made.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.errors import StudyError
from preceptor.instructions import ResponseSource
from preceptor.measurements import Measurements
from preceptor.ranking import rank
from preceptor.results import Ranking
from preceptor.rows import Problem
from preceptor.run import plan
from preceptor.run.gather import gather
from preceptor.run.roster import Choice
from preceptor.run.steps import Amount, Progress, Silent, Step, amount_of, carry_out
from preceptor.scorers.base import Array, StoredScorer
from preceptor.scorers.likelihood import LikelihoodScorer, instruction_following_difficulty
from preceptor.store import Store
from preceptor.study import ColumnReward, Machine, Student, Study

logger = logging.getLogger(__name__)

_PEEKED = 20
_REASONS = 3


@dataclass(frozen=True)
class Opened:
    """The data of a study, read once: where it came from, what is compared, what was skipped."""

    source: ResponseSource
    choice: Choice
    rewarded: bool
    reward: str
    skipped: Mapping[str, int]
    problems: Sequence[Problem]


@dataclass(frozen=True)
class StepOutlook:
    """What one step of a plan would take."""

    student: str
    step: str
    identity: str
    stored: int
    missing: Amount


def open_data(study: Study) -> Opened:
    """Return the study's data, read once without keeping its texts.

    Raises:
        DataError: the data cannot be read.
        StudyError: too few instructions are common to all teachers.
    """
    columns = study.data.columns
    if isinstance(study.reward, ColumnReward):
        numbers = (*columns.number_columns, study.reward.column)
        columns = replace(columns, number_columns=tuple(dict.fromkeys(numbers)))
    source = ResponseSource.open(_expanded(study.data.responses), columns)
    references = any(response.reference for response in islice(source, _PEEKED))
    scorer = plan.rewards(study, references=references)
    gathered = gather(source, scorer)
    choice = gathered.roster.chosen(
        study.data.limit,
        seed=study.ranking.seed,
        minimum_coverage=study.ranking.minimum_coverage,
    )
    return Opened(
        source,
        choice,
        rewarded=scorer is not None,
        reward=_reward_name(study, references=references),
        skipped=gathered.skipped,
        problems=gathered.problems,
    )


def _expanded(paths: Sequence[str]) -> list[str]:
    """Return the paths with patterns such as `responses/*.jsonl` replaced by the files they match."""
    found = [sorted(glob(path)) if has_magic(path) else [path] for path in paths]
    return [name for path, names in zip(paths, found, strict=True) for name in names or [path]]


def _reward_name(study: Study, *, references: bool) -> str:
    if isinstance(study.reward, ColumnReward):
        return f"column '{study.reward.column}'"
    return "checked against the reference answers" if references or study.reward else "none"


def outlook(study: Study, machine: Machine) -> tuple[Opened, list[StepOutlook]]:
    """Return what running the study would take, without computing anything."""
    opened = open_data(study)
    found = []
    for student in _students(study):
        planned, steps = _steps(opened, study, machine, student)
        for step in steps:
            missing = step.missing(step.stored())
            texts = next(step.texts(missing), [])
            stored = len(opened.choice.distinct) - len(missing)
            work = amount_of(texts, missing=len(missing))
            identity = step.shelf.identity.digest
            found.append(StepOutlook(planned.name, step.name, identity, stored, work))
    return opened, found


def run(study: Study, machine: Machine, progress: Progress | None = None) -> list[Ranking]:
    """Return one ranking for each student; only what the store lacks is computed.

    Raises:
        PreceptorError: the data, a model or the question do not allow a ranking; what was scored before
            that is stored.
    """
    return rank_opened(open_data(study), study, machine, progress)


def rank_opened(
    opened: Opened, study: Study, machine: Machine, progress: Progress | None = None
) -> list[Ranking]:
    """Return one ranking for each student over data that are already open; see `run`."""
    return [
        _rank_for(opened, study, machine, student, progress or Silent())
        for student in _students(study)
    ]


def _students(study: Study) -> Sequence[Student | None]:
    return study.students or (None,)


def _steps(
    opened: Opened, study: Study, machine: Machine, student: Student | None
) -> tuple[plan.StudentPlan, list[Step]]:
    planned = plan.for_student(study, machine, student, rewarded=opened.rewarded)
    store = Store(machine.store)
    steps = []
    for scorer in planned.scorers:
        likelihood = isinstance(scorer, LikelihoodScorer)
        shelf = store.shelf("scores", scorer.identity(), recorded=_recorded(machine))
        having = "token_nll" if likelihood and machine.keep_tokens else None
        steps.append(Step(scorer.name, scorer, shelf, opened.source, opened.choice, having))
    return planned, steps


def _recorded(machine: Machine) -> dict[str, object]:
    from importlib.metadata import PackageNotFoundError, version

    recorded: dict[str, object] = {"device": machine.resolved_device()}
    for package in ("preceptor", "torch", "transformers", "tokenizers"):
        try:
            recorded[package] = version(package)
        except PackageNotFoundError:
            recorded[package] = None
    return recorded


def _rank_for(
    opened: Opened, study: Study, machine: Machine, student: Student | None, progress: Progress
) -> Ranking:
    planned, steps = _steps(opened, study, machine, student)
    columns = [carry_out(step, progress) for step in steps]
    assembly = _Assembly(opened.choice, study)
    measurements = assembly.measurements([step.scorer for step in steps], columns)
    settings = _settings(opened, study, planned)
    ranking = rank(
        measurements,
        student=planned.name,
        metrics=planned.metrics,
        by=study.by,
        settings=settings,
        options=study.ranking,
    )
    told = (*ranking.warnings, *_not_drawn(opened, study), *_skipped(opened))
    return replace(ranking, warnings=told)


def _not_drawn(opened: Opened, study: Study) -> list[str]:
    """Return, where a limit drew instructions, which could not be drawn and why."""
    roster = opened.choice.roster
    reasons = [
        f"'{teacher}' {', '.join(f'{reason} {count}' for reason, count in counts.items())}"
        for teacher, counts in roster.dropped.items()
        if counts
    ]
    if study.data.limit is None or not reasons:
        return []
    return [
        f"The {len(opened.choice.taken)} instructions were drawn from those that every teacher answered, "
        f"of {len(roster.instructions)} in the data. Lacking: {'; '.join(reasons)}."
    ]


def _skipped(opened: Opened) -> list[str]:
    """Return a warning for each file that had rows that could not be read, with the first of them."""
    first = {problem.path: problem for problem in reversed(opened.problems)}
    return [
        f"{count} rows of {path} could not be read and were skipped; the first: {first[path]}."
        for path, count in opened.skipped.items()
        if count
    ]


class _Assembly:
    """Puts stored columns together as measures, (teachers, instructions)."""

    def __init__(self, choice: Choice, study: Study) -> None:
        self.choice = choice
        self.reading = study.reading
        self.notes: dict[int, str] = {}
        self.truncated: dict[str, int] = {}

    def measurements(
        self, scorers: Sequence[StoredScorer], stored: Sequence[Mapping[str, NDArray[Any]]]
    ) -> Measurements:
        """Return the measures of these scorers and of the data, from what is stored of each."""
        roster = self.choice.roster
        rows = {name: column[self.choice.rows] for name, column in roster.values.items()}
        for scorer, columns in zip(scorers, stored, strict=True):
            self._note(columns)
            rows |= scorer.derive({name: columns[name] for name in scorer.columns})
        self._require_scores()
        rows, denominators = self._formed(rows)
        return Measurements(
            teachers=roster.teachers,
            instructions=self.choice.asked,
            values={name: self.choice.averaged(column) for name, column in rows.items()},
            denominators={n: self.choice.averaged(column) for n, column in denominators.items()},
            dropped=self.choice.reasons(self.notes),
            truncated=self.truncated,
        )

    def _require_scores(self) -> None:
        """Refuse a teacher of whom no response has a score, and say why it has none."""
        teacher = self.choice.roster.teacher[self.choice.rows]
        noted = np.bincount(teacher[list(self.notes)], minlength=len(self.choice.roster.teachers))
        bare = np.flatnonzero(noted == np.bincount(teacher, minlength=len(noted))).tolist()
        if not bare:
            return
        names = ", ".join(f"'{self.choice.roster.teachers[place]}'" for place in bare)
        of_bare = [note for row, note in self.notes.items() if teacher[row] in bare]
        reasons = ", ".join(f"{why} ({n:,})" for why, n in Counter(of_bare).most_common(_REASONS))
        raise StudyError(
            f"Not one response of {names} has a score: {reasons}. Non-finite numbers come of damaged "
            "weights or of half precision: fetch the student again or try --dtype float32. Where a "
            "prompt leaves no room, give a larger --max-length. Else leave the teacher out."
        )

    def _note(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take down why rows have no score, and how many were cut."""
        for place in np.flatnonzero(columns["note"] != None).tolist():  # noqa: E711  (elementwise)
            self.notes.setdefault(place, str(columns["note"][place]))
        cut = columns.get("truncated")
        if cut is not None and not self.truncated:
            roster = self.choice.roster
            weights = np.nan_to_num(cut)
            counts = np.bincount(
                roster.teacher[self.choice.rows], weights=weights, minlength=len(roster.teachers)
            )
            self.truncated = dict(zip(roster.teachers, counts.astype(int).tolist(), strict=True))

    def _formed(self, rows: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the rows' measures under the study's reading of the loss, and denominators."""
        conditional, unconditional = rows.get("loss"), rows.pop("loss_unconditional", None)
        sums = {
            "conditional": rows.pop("nll", None),
            "unconditional": rows.pop("nll_unconditional", None),
        }
        if conditional is not None and unconditional is not None:
            rows["ifd"] = instruction_following_difficulty(conditional, unconditional)
        if self.reading.conditioning == "unconditional" and unconditional is not None:
            rows["loss"] = unconditional
        total = sums[self.reading.conditioning]
        if total is None or self.reading.reduction == "token-mean":
            return rows, {}
        tokens = total / rows["loss"]
        rows["loss"] = total
        return rows, {"loss": tokens} if self.reading.reduction == "corpus-token-mean" else {}


def _settings(opened: Opened, study: Study, planned: plan.StudentPlan) -> dict[str, object]:
    settings: dict[str, object] = {
        "responses": list(study.data.responses),
        "layouts": [file.describe() for file in opened.source.files],
        "limit": study.data.limit,
        "reward": opened.reward,
        "reading": study.reading.model_dump(),
        "skipped_rows": dict(opened.skipped),
        "cut_by_generator": {k: v for k, v in opened.choice.roster.cut.items() if v},
    }
    if planned.student is not None:
        settings["student"] = planned.student.spec()
    return settings
