"""Carry a study out from files to rankings.

Read once for the roster, score what the store lacks, put the measures together as columns, rank. Nothing
here knows how a score is made.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from itertools import islice, product
from typing import Any

from numpy.typing import NDArray

from preceptor.instructions import ResponseSource
from preceptor.ranking import rank
from preceptor.results import Ranking
from preceptor.rows import Problem
from preceptor.run import plan
from preceptor.run.assembly import Assembly
from preceptor.run.gather import gather
from preceptor.run.roster import Choice
from preceptor.run.steps import Amount, Progress, Silent, Step, amount_of, carry_out
from preceptor.scorers.base import Scorer
from preceptor.scorers.judge import Judge
from preceptor.scorers.likelihood import LikelihoodScorer
from preceptor.store import Store
from preceptor.study import ColumnReward, Machine, Reward, Student, Study

logger = logging.getLogger(__name__)

_PEEKED = 20


@dataclass(frozen=True)
class Opened:
    """The data of a study, read once for one source of rewards: what is compared, what was skipped.

    `reward` is None where there is none.
    """

    source: ResponseSource
    choice: Choice
    reward: Reward | None
    reward_name: str
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


def open_data(study: Study) -> list[Opened]:
    """Return the study's data for each source of rewards, read without keeping its texts.

    They are read once for all rewards that must be computed, and once for each that is read along.

    Raises:
        DataError: the data cannot be read.
        StudyError: too few instructions are common to all teachers.
    """
    columns = study.data.columns
    named = [reward.column for reward in study.reward if isinstance(reward, ColumnReward)]
    numbers = tuple(dict.fromkeys((*columns.number_columns, *named)))
    source = ResponseSource.open(
        _expanded(study.data.responses), replace(columns, number_columns=numbers)
    )
    references = any(response.reference for response in islice(source, _PEEKED))
    plainly: Opened | None = None
    found = []
    rewards = plan.reward_sources(study, references=references)
    for reward, name in zip(rewards, plan.labels(rewards), strict=True):
        scorer = plan.read_along(reward)
        if scorer is None and plainly is not None:
            found.append(replace(plainly, reward=reward, reward_name=name))
            continue
        found.append(_opened(source, study, scorer, (reward, name)))
        if scorer is None:
            plainly = found[-1]
    return found


def _opened(
    source: ResponseSource, study: Study, scorer: Scorer | None, reward: tuple[Reward | None, str]
) -> Opened:
    gathered = gather(source, scorer)
    choice = gathered.roster.chosen(
        study.data.limit,
        seed=study.ranking.seed,
        minimum_coverage=study.ranking.minimum_coverage,
    )
    return Opened(source, choice, *reward, gathered.skipped, gathered.problems)


def _expanded(paths: Sequence[str]) -> list[str]:
    """Return the paths with patterns such as `responses/*.jsonl` replaced by the files they match."""
    found = [sorted(glob(path)) if has_magic(path) else [path] for path in paths]
    return [name for path, names in zip(paths, found, strict=True) for name in names or [path]]


def outlook(study: Study, machine: Machine) -> tuple[list[Opened], list[StepOutlook]]:
    """Return what running the study would take, without computing anything."""
    data = open_data(study)
    found: dict[tuple[str, str], StepOutlook] = {}
    for opened, student in product(data, _students(study)):
        planned, steps = _steps(opened, study, machine, student)
        for step in steps:
            identity = step.shelf.identity.digest
            if (planned.name, identity) in found:
                continue
            missing = step.missing(step.stored())
            texts = next(step.texts(missing), [])
            stored = len(opened.choice.distinct) - len(missing)
            work = amount_of(texts, missing=len(missing))
            found[planned.name, identity] = StepOutlook(
                planned.name, step.name, identity, stored, work
            )
    return data, list(found.values())


def run(study: Study, machine: Machine, progress: Progress | None = None) -> list[Ranking]:
    """Return one ranking for each student and source of rewards; only what the store lacks is computed.

    Raises:
        PreceptorError: the data, a model or the question do not allow a ranking; what was scored before
            that is stored.
    """
    return list(rank_opened(open_data(study), study, machine, progress))


def rank_opened(
    data: Sequence[Opened], study: Study, machine: Machine, progress: Progress | None = None
) -> Iterator[Ranking]:
    """Yield one ranking for each student and opened data, as each is done; see `run`.

    All models are found, and endpoints' keys looked at, before the first is loaded.
    """
    pairs = list(product(_students(study), data))
    plans = [_steps(opened, study, machine, student) for student, opened in pairs]
    for step in {step.shelf.identity: step for _, steps in plans for step in steps}.values():
        if isinstance(step.scorer, Judge) and len(step.missing(step.stored())):
            step.scorer.require_address()
    for (_, opened), (planned, steps) in zip(pairs, plans, strict=True):
        yield _ranking(opened, study, planned, steps, progress or Silent())


def _students(study: Study) -> Sequence[Student | None]:
    return study.students or (None,)


def _steps(
    opened: Opened, study: Study, machine: Machine, student: Student | None
) -> tuple[plan.StudentPlan, list[Step]]:
    planned = plan.for_student(study, machine, student, reward=opened.reward)
    store = Store(machine.store)
    steps = []
    for scorer in planned.scorers:
        likelihood = isinstance(scorer, LikelihoodScorer)
        shelf = store.scores(scorer.identity(), recorded=_recorded(machine))
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


def _carried_out(steps: Sequence[Step], progress: Progress) -> list[Mapping[str, NDArray[Any]]]:
    """Carry out the steps; a model is freed once no later step of them uses it."""
    columns = []
    for place, step in enumerate(steps):
        columns.append(carry_out(step, progress))
        if not any(_model_of(step) is _model_of(later) for later in steps[place + 1 :]):
            step.scorer.release()
    return columns


def _model_of(step: Step) -> object:
    return step.scorer.student if isinstance(step.scorer, LikelihoodScorer) else step.scorer


def _ranking(
    opened: Opened,
    study: Study,
    planned: plan.StudentPlan,
    steps: Sequence[Step],
    progress: Progress,
) -> Ranking:
    columns = _carried_out(steps, progress)
    assembly = Assembly(opened.choice, study, [metric.kind for metric in planned.metrics])
    measurements = assembly.measurements([step.scorer for step in steps], columns)
    settings = _settings(opened, study, planned) | {
        "scorers": {step.name: _described(step) for step in steps}
    }
    ranking = rank(
        measurements,
        student=planned.name,
        metrics=planned.metrics,
        by=study.by,
        settings=settings,
        options=study.ranking,
    )
    told = (
        *ranking.warnings,
        *assembly.told(),
        *_not_drawn(opened, study),
        *_skipped(opened),
    )
    return replace(ranking, warnings=told)


def _described(step: Step) -> dict[str, object]:
    """Return what made the numbers of a step: the identity under which they lie, in full."""
    identity = step.shelf.identity
    return {"identity": identity.digest, "spec": identity.spec}


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


def _settings(opened: Opened, study: Study, planned: plan.StudentPlan) -> dict[str, object]:
    settings: dict[str, object] = {
        "responses": list(study.data.responses),
        "layouts": [file.describe() for file in opened.source.files],
        "limit": study.data.limit,
        "reward": opened.reward_name,
        "reading": study.reading.model_dump(),
        "skipped_rows": dict(opened.skipped),
        "cut_by_generator": {k: v for k, v in opened.choice.roster.cut.items() if v},
    }
    if planned.student is not None:
        settings["student"] = planned.student.spec()
    if any(kind.endswith(plan.REFERENCE) for kind in (m.kind for m in planned.metrics)):
        settings["reference"] = study.reference.name
    return settings
