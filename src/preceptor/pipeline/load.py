"""Open the data of a study: ask its teachers what the store lacks, read everything once, derive, choose.

What comes out is the table of what is compared, once for each source of rewards. Nothing here knows how a
score is made, nor what a ranking is.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.config.rewards import ColumnReward, ReferenceReward, Reward
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.config.teachers import BestOfN
from preceptor.data.formats import Problem
from preceptor.data.gather import Gathered, Source, gather
from preceptor.data.responses import ResponseSource
from preceptor.data.table import Choice, ResponseTable
from preceptor.errors import DataError, StudyError
from preceptor.pipeline import plan
from preceptor.pipeline.best_of_n import require_derivable, with_derived
from preceptor.pipeline.generate import GenerationJob, respond
from preceptor.pipeline.score import Progress, Step, carry_out
from preceptor.pipeline.sources import (
    GeneratedSource,
    expanded,
    jobs_of,
    questions_of,
    write_responses,
)
from preceptor.ranking.warnings import Warning
from preceptor.scorers.base import Array, InlineScorer, Scorer
from preceptor.store.store import Store
from preceptor.types import NoteKind

logger = logging.getLogger(__name__)

_MANY_COPIES = 0.2
_MANY_CUT = 0.1


@dataclass(frozen=True)
class Opened:
    """The data of a study, read once for one source of rewards: what is compared, what was skipped.

    `reward` is None where there is none; `warnings` belong under the ranking.
    """

    source: Source
    choice: Choice
    reward: Reward | None
    reward_name: str
    skipped: Mapping[str, int]
    problems: Sequence[Problem]
    warnings: Sequence[Warning] = ()


def source_of(study: Study, runtime: Runtime) -> ResponseSource | GeneratedSource:
    """Return where the study's responses come from; no teacher is asked yet.

    Raises:
        DataError: a file cannot be read.
        ModelError: a teacher's model is not found.
    """
    columns = study.data.columns
    rewards = [*study.reward, *(derived.reward for derived in study.best_of_n)]
    named = [reward.column for reward in rewards if isinstance(reward, ColumnReward)]
    numbers = tuple(dict.fromkeys((*columns.number_columns, *named)))
    read = None
    if study.data.responses:
        options = columns.model_copy(update={"number_columns": numbers})
        read = ResponseSource.open(expanded(study.data.responses), options)
    if not study.teachers:
        assert read is not None
        return read
    questions = questions_of(study, read)
    jobs = jobs_of(study, runtime, questions, recorded=recorded(runtime))
    return GeneratedSource(read, questions, jobs)


def find_models(study: Study, runtime: Runtime, *, references: bool) -> None:
    """Find every model that scores will need, and look at the judges' endpoints and keys.

    Raises:
        ModelError: one is not found; StudyError: a metric needs what nothing gives, or a teacher cannot be
            derived.
    """
    require_derivable(study)
    rewards = plan.reward_sources(study, references=references)
    for reward in (*rewards, *(derived.reward for derived in study.best_of_n)):
        plan.read_along(reward)
    for derived in study.best_of_n:
        if derived.kind != "random" and derived.reward is None and None in rewards:
            raise _without_reward(derived)
    scorers: list[Scorer] = []
    for reward, student in product(rewards, study.students or (None,)):
        scorers += plan.for_student(study, runtime, student, reward=reward).scorers
    for derived in study.best_of_n:
        scorers += plan.reward_scorers(derived.reward, runtime)
    for scorer in scorers:
        scorer.identity()
        scorer.preflight()


def ask_teachers(jobs: Sequence[GenerationJob], progress: Progress) -> None:
    """Get the responses that the store lacks, a teacher at a time; a model is freed after its last use."""
    missing = [job.missing() for job in jobs]
    for job, lacking in zip(jobs, missing, strict=True):
        if lacking:
            job.backend.preflight()
    seen: set[str] = set()
    for job, lacking in zip(jobs, missing, strict=True):
        shared = job.partition.identity.digest in seen
        seen.add(job.partition.identity.digest)
        try:
            respond(job, progress, None if shared else lacking)
        finally:
            job.backend.release()


def respond_to_file(study: Study, runtime: Runtime, path: Path, progress: Progress) -> int:
    """Ask the study's teachers, write their responses to `path`, and return how many."""
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} to: make it first.")
    source = source_of(study, runtime)
    assert isinstance(source, GeneratedSource)
    ask_teachers(source.jobs, progress)
    return write_responses(source, path)


def open_data(
    study: Study,
    runtime: Runtime,
    progress: Progress,
    *,
    source: Source | None = None,
    paying: bool = True,
) -> list[Opened]:
    """Return the study's data for each source of rewards, read without keeping its texts.

    They are read once for all rewards that must be computed, and once for each that is read along. Where
    `paying` is false, no teacher is asked, and a derived teacher whose rewards are missing is left out.

    Raises:
        DataError: the data cannot be read.
        StudyError: too few instructions are common to all teachers.
    """
    found_source = source or source_of(study, runtime)
    if isinstance(found_source, GeneratedSource) and paying:
        # A misspelled student must be told of before an hour of generation, not after it.
        find_models(study, runtime, references=bool(found_source.questions.references))
        ask_teachers(found_source.jobs, progress)
    opening = _Opening(study, runtime, progress, found_source, paying)
    references = not study.reward and opening.plainly.table.has_references
    plain: Opened | None = None
    found = []
    rewards = plan.reward_sources(study, references=references)
    for reward, name in zip(rewards, plan.labels(rewards), strict=True):
        scorer = plan.read_along(reward)
        if scorer is None and plain is not None and not study.best_of_n:
            found.append(replace(plain, reward=reward, reward_name=name))
            continue
        found.append(opening.opened(scorer, reward, name))
        if scorer is None:
            plain = found[-1]
    return found


class _Unpaid(Exception):
    """So many rewards are missing, and nothing may be computed."""


@dataclass(frozen=True)
class _Opening:
    """What opening the data for any source of rewards needs."""

    study: Study
    runtime: Runtime
    progress: Progress
    source: Source
    paying: bool

    def opened(self, scorer: InlineScorer | None, reward: Reward | None, name: str) -> Opened:
        gathered = self._gathered(scorer) if scorer else self.plainly
        table = gathered.table
        if isinstance(reward, ReferenceReward):
            table = table.with_references()
        warnings = [*_never_answered(self.source), *_copies(table), *_cut_off(self.source, table)]
        for derived in self.study.best_of_n:
            try:
                table = with_derived(table, derived, _Rewards(self, reward))
            except _Unpaid as unpaid:
                said = f"'{derived.name}' will be chosen when {unpaid} more rewards are there."
                warnings.append(Warning("not-chosen-yet", said))
                continue
            warnings += _inflated(derived, reward)
        choice = table.chosen(
            self.study.data.limit,
            seed=self.study.ranking.seed,
            min_coverage=self.study.ranking.min_coverage,
        )
        return Opened(
            self.source, choice, reward, name, gathered.skipped, gathered.problems, warnings
        )

    @cached_property
    def plainly(self) -> Gathered:
        """The data without rewards that are read along, gathered once."""
        return self._gathered(None)

    def _gathered(self, scorer: InlineScorer | None) -> Gathered:
        if not isinstance(self.source, GeneratedSource):
            return gather(self.source, scorer)
        asked = [instruction.id for instruction in self.source.questions.instructions]
        try:
            return gather(self.source, scorer, asked=asked)
        except DataError as error:
            if warnings := _never_answered(self.source):
                raise DataError(f"{error} {' '.join(map(str, warnings))}") from error
            raise


@dataclass(frozen=True)
class _Rewards:
    """Gives the rewards by which samples are chosen; those that are missing are computed and stored."""

    opening: _Opening
    reward: Reward | None

    def __call__(self, derived: BestOfN, table: ResponseTable, rows: NDArray[np.intp]) -> Array:
        chosen_by = derived.reward or self.reward
        if chosen_by is None:
            raise _without_reward(derived)
        along = plan.read_along(chosen_by)
        if along is not None and derived.reward is None:
            return table.values["reward"][rows]
        if along is not None:
            return self._read_along(along, table, rows)
        (scorer,) = plan.reward_scorers(chosen_by, self.opening.runtime)
        step = step_of(scorer, self.opening.runtime, self.opening.source, _all_of(table, rows))
        lacking = len(step.missing(step.stored()))
        if lacking and not self.opening.paying:
            raise _Unpaid(f"{lacking:,}")
        columns = carry_out(step, self.opening.progress)
        scorer.resource.release()
        return np.asarray(scorer.derive({name: columns[name] for name in scorer.columns})["reward"])

    def _read_along(
        self, scorer: InlineScorer, table: ResponseTable, rows: NDArray[np.intp]
    ) -> Array:
        """Return another reward that is read along with the data, matched by content."""
        other = gather(self.opening.source, scorer).table
        known = dict(zip(other.keys.tolist(), other.values["reward"].tolist(), strict=True))
        return np.array([known.get(key, np.nan) for key in table.keys[rows].tolist()])


def _without_reward(derived: BestOfN) -> StudyError:
    return StudyError(
        f"'{derived.name}' needs a reward to choose by, and the study has none. Give it [best_of_n.reward], "
        "or the study [reward]."
    )


def _all_of(table: ResponseTable, rows: NDArray[np.intp]) -> Choice:
    taken = np.unique(table.instruction[rows]).astype(np.intp)
    return Choice(table, rows, taken, len(taken))


def step_of(scorer: Scorer, runtime: Runtime, source: Source, choice: Choice) -> Step:
    """Return the step that puts a scorer's numbers on these responses."""
    partition = Store(runtime.store).scores(scorer.identity(), recorded=recorded(runtime))
    if scorer.reads_reference:
        choice = choice.by_reference()
    return Step(scorer.name, scorer, partition, source, choice)


def require_addresses(steps: Sequence[Step]) -> None:
    """Look at the endpoints and keys of judges that will be asked, before the first model is loaded."""
    for step in {step.partition.identity: step for step in steps}.values():
        if len(step.missing(step.stored())):
            step.scorer.preflight()


def recorded(runtime: Runtime) -> dict[str, object]:
    """Return what is written beside an identity without being part of it."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, object] = {"device": runtime.resolved_device()}
    for package in ("preceptor", "torch", "transformers", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _never_answered(source: Source) -> list[Warning]:
    """Return a warning for each teacher and kind of refusal, with one example."""
    jobs: Sequence[GenerationJob] = source.jobs if isinstance(source, GeneratedSource) else ()
    warnings = []
    for job in jobs:
        kinds: dict[NoteKind, list[tuple[str, int]]] = {}
        for note, count in job.notes().items():
            kinds.setdefault(NoteKind.of(note), []).append((note, count))
        for notes in kinds.values():
            total = sum(count for _, count in notes)
            such = ", such as" if len(notes) > 1 else ""
            said = f"'{job.name}' gave no response to {total:,} requests{such}: {notes[0][0]}."
            warnings.append(Warning("no-response", said))
    return warnings


def _cut_off(source: Source, table: ResponseTable) -> list[Warning]:
    """Return a warning for each asked teacher of which `max_tokens` cut off many responses."""
    jobs: Sequence[GenerationJob] = source.jobs if isinstance(source, GeneratedSource) else ()
    rows = np.bincount(table.teacher, minlength=len(table.teachers))
    all_of = dict(zip(table.teachers, rows.tolist(), strict=True))
    return [
        Warning(
            "cut-off",
            f"{table.cut[job.name]:,} of {all_of[job.name]:,} responses of '{job.name}' were cut "
            f"off at {job.backend.teacher.max_tokens:,} tokens (max_tokens).",
        )
        for job in jobs
        if job.name in all_of and table.cut[job.name] > _MANY_CUT * all_of[job.name]
    ]


def _copies(table: ResponseTable) -> list[Warning]:
    """Return a warning for each teacher whose samples are often all alike."""
    warnings = []
    for place, teacher in enumerate(table.teachers):
        rows = np.flatnonzero(table.teacher == place)
        several = np.bincount(table.instruction[rows], minlength=len(table.instructions)) > 1
        if not several.any():
            continue
        pairs = zip(table.instruction[rows].tolist(), table.keys[rows].tolist(), strict=True)
        distinct = np.bincount([i for i, _ in set(pairs)], minlength=len(several))
        alike = int((several & (distinct == 1)).sum())
        if alike > _MANY_COPIES * several.sum():
            warnings.append(
                Warning(
                    "copies",
                    f"All samples of '{teacher}' are the same text for {alike} of {int(several.sum())} "
                    "instructions: its temperature is low, or its endpoint ignores seeds.",
                )
            )
    return warnings


def _inflated(derived: BestOfN, reward: Reward | None) -> list[Warning]:
    if derived.kind == "random" or derived.reward not in (None, reward):
        return []
    return [
        Warning(
            "chosen-by-own-reward",
            f"'{derived.name}' was chosen by the reward that ranks it, which overstates how much it differs "
            "from what it was chosen from: choose by another reward ([best_of_n.reward]), as the paper does.",
        )
    ]
