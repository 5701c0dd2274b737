"""What validation would take: rows, steps, minutes, answers, verdicts, money, disk.

Nothing is trained, asked or paid for to find out. Speeds are those that the store has measured, unknown
without; tokens are counted on a few hundred rows and scaled up.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from preceptor.benchmarks.cached_chat import Cost
from preceptor.config.recipe import steps_of, warmup_caution
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.finetuning.estimate import disk_of
from preceptor.finetuning.weights import Size, size_of
from preceptor.pipeline.estimate import GenerationEstimate, estimate_generation
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.load import LoadedData
from preceptor.store.store import Store
from preceptor.validation.finetune_job import (
    FinetuneJob,
    StudentSetup,
    models_folder,
)
from preceptor.validation.questions import BenchmarkTask, EvaluationSet

if TYPE_CHECKING:
    from preceptor.validation.validate import Validation


logger = logging.getLogger(__name__)

COUNTED = 256
"""Rows whose tokens are counted."""


@dataclass(frozen=True)
class FinetuneEstimate:
    """One fine-tune job: what is trained on, and the answers that follow. `seconds` is None where unknown.

    `done` says that nothing is to be trained: the model is there, or all its answers are.
    """

    student: str
    teacher: str
    run: int
    model: str
    rows: int
    tokens: int
    steps: int
    seconds: float | None
    done: bool
    asked: GenerationEstimate
    left_out: Mapping[str, int]
    warning: str | None


@dataclass(frozen=True)
class ValidationEstimate:
    """The whole validation. While responses are missing `finetune_jobs` is empty and `disk` unknown.

    `teachers` are the names known so far, `runs` the fine-tunings on each. `untuned` are the base models to
    run. `verdicts` has the judge's name and cost by student and task. `disk` is the most bytes that models
    and checkpoints take at once; `models` is where.
    """

    students: int
    teachers: Sequence[str]
    runs: int
    questions: int
    finetune_jobs: Sequence[FinetuneEstimate]
    untuned: Sequence[GenerationEstimate]
    verdicts: Sequence[tuple[str, Cost]]
    disk: int | None
    models: Path


def validation_estimate(validation: Validation, data: Sequence[LoadedData]) -> ValidationEstimate:
    """Return what validation would take once the data are ranked; `data` is empty while responses lack.

    Raises:
        PreceptorError: the study cannot be validated as it is.
    """
    parts = [
        _Student(validation, [validation.setup(student, one) for one in validation.dimensions])
        for student in validation.study.students
    ]
    planned = [part.finetune_jobs(data[0]) if data else [] for part in parts]
    found = [part.estimates(own) for part, own in zip(parts, planned, strict=True)]
    untuned = [
        validation.job(setup.untuned, dimension)
        for part in parts
        for dimension, setup in part.asked
        if dimension.untuned_answers
    ]
    known = list(dict.fromkeys(finetune_job.teacher for finetune_job in planned[0]))
    teachers = known or named_teachers(validation.study)
    return ValidationEstimate(
        students=len(parts),
        teachers=teachers,
        runs=validation.train.seeds,
        questions=len(validation.instructions),
        finetune_jobs=[one for own in found for one in own],
        untuned=estimate_generation(untuned, validation.runtime),
        verdicts=[
            cost
            for part, own in zip(parts, planned, strict=True)
            for cost in part.verdicts(own, teachers)
        ],
        disk=sum(part.disk(own) for part, own in zip(parts, found, strict=True)) if data else None,
        models=models_folder(validation.runtime),
    )


def named_teachers(study: Study) -> list[str]:
    """Return the teachers that the study names itself; those in files are known when these are read."""
    asked = [point.name for teacher in study.teachers for point in teacher.points()]
    assert study.train is not None
    return list(study.train.teachers) or [
        *asked,
        *(one.name for one in study.best_of_n),
    ]


@dataclass(frozen=True)
class _Student:
    """One student's part; `setups` are how it answers in each dimension."""

    validation: Validation
    setups: Sequence[StudentSetup]

    @property
    def setup(self) -> StudentSetup:
        """How it is trained, which is the same in all dimensions."""
        return self.setups[0]

    @property
    def asked(self) -> list[tuple[EvaluationSet, StudentSetup]]:
        """The dimensions, with how it answers there."""
        return list(zip(self.validation.dimensions, self.setups, strict=True))

    def finetune_jobs(self, loaded: LoadedData) -> list[FinetuneJob]:
        training_set = self.validation.training_set(loaded)
        return list(self.validation.finetune_jobs(self.setup, training_set))

    def estimates(self, finetune_jobs: Sequence[FinetuneJob]) -> list[FinetuneEstimate]:
        pace = training_pace(self.validation.runtime, dict(self.setup.untuned.located.identity))
        return [self._estimate(finetune_job, pace) for finetune_job in finetune_jobs]

    def _estimate(self, finetune_job: FinetuneJob, pace: float | None) -> FinetuneEstimate:
        recipe, rows = self.setup.recipe, finetune_job.conversations.rows
        some = replace(finetune_job.conversations, rows=rows[:COUNTED])
        counted = replace(finetune_job, conversations=some).prepared().rows
        tokens = round(counted.tokens * len(rows) / len(some.rows))
        asked = _together(
            estimate_generation(
                [
                    self.validation.job(replace(finetune_job, setup=setup).backend(), dimension)
                    for dimension, setup in self.asked
                ],
                self.validation.runtime,
            )
        )
        steps = steps_of(recipe, len(rows))
        return FinetuneEstimate(
            student=self.setup.name,
            teacher=finetune_job.teacher,
            run=finetune_job.run,
            model=finetune_job.identity.digest,
            rows=len(rows),
            tokens=tokens,
            steps=steps.total,
            seconds=tokens * recipe.epochs / pace if pace else None,
            done=not asked.missing or finetune_job.finished() is not None,
            asked=asked,
            left_out=finetune_job.conversations.left_out,
            warning=warmup_caution(steps),
        )

    def disk(self, finetune_jobs: Sequence[FinetuneEstimate]) -> int:
        """Return the bytes of all models to come, and of the checkpoints of one at a time."""
        missing = [one for one in finetune_jobs if not one.done]
        if not missing:
            return 0
        recipe = self.setup.recipe
        size = size_of(self.setup.untuned.located, recipe)
        most = max(steps_of(recipe, one.rows) for one in missing)
        return disk_of(recipe, size, steps=most) + (len(missing) - 1) * _model_bytes(
            size, recipe.dtype
        )

    def verdicts(
        self, finetune_jobs: Sequence[FinetuneJob], teachers: Sequence[str]
    ) -> list[tuple[str, Cost]]:
        """Return what judging would take; an answer that is missing is stood in for by its length."""
        return [
            cost
            for dimension, setup in self.asked
            for cost in self._verdicts(
                [replace(one, setup=setup) for one in finetune_jobs], teachers, dimension, setup
            )
        ]

    def _verdicts(
        self,
        finetune_jobs: Sequence[FinetuneJob],
        teachers: Sequence[str],
        dimension: EvaluationSet,
        setup: StudentSetup,
    ) -> list[tuple[str, Cost]]:
        base = self.validation.job(setup.untuned, dimension)
        asked = {one.label: self.validation.job(one.backend(), dimension) for one in finetune_jobs}
        runs = range(1, self.validation.train.seeds + 1)
        names = asked or [f"{name}, run {run}" for name in teachers for run in runs]
        texts = {name: self._texts(name, asked.get(name, base)) for name in names}
        untuned = self._texts("untuned", base) if dimension.untuned_answers else {}
        store = Store(self.validation.runtime.store)
        return [
            (task.judge.name, self._cost(task, texts, untuned, store)) for task in dimension.tasks
        ]

    def _cost(
        self,
        task: BenchmarkTask,
        texts: Mapping[str, Mapping[bytes, str]],
        untuned: Mapping[bytes, str],
        store: Store,
    ) -> Cost:
        base = self.setup.untuned.teacher.name
        questions = task.questions
        if task.awaits_baseline:
            questions = questions.against(questions.answers_of(base, untuned))
        answers = [task.questions.answers_of(name, held) for name, held in texts.items()]
        return task.benchmark.cost(answers, questions, task.judge, store)

    def _texts(self, name: str, job: GenerationJob) -> dict[bytes, str]:
        (found,) = estimate_generation([job], self.validation.runtime)
        expected = round(found.tokens / found.missing) if found.missing else 0
        stood_in = f"{name}:" + " word" * expected
        texts = dict.fromkeys((one.given_id for one in job.instructions), stood_in)
        given = {one.instruction: one.text for one in job.generations() if one.text is not None}
        return texts | given


def _together(asked: Sequence[GenerationEstimate]) -> GenerationEstimate:
    """Return what the questions of all dimensions would take together."""
    first, seconds = asked[0], [one.seconds for one in asked if one.missing]
    return replace(
        first,
        stored=sum(one.stored for one in asked),
        missing=sum(one.missing for one in asked),
        prompt_tokens=sum(one.prompt_tokens for one in asked),
        tokens=sum(one.tokens for one in asked),
        most_tokens=sum(one.most_tokens for one in asked),
        seconds=None
        if None in seconds
        else math.fsum(filter(None, seconds))
        if seconds
        else first.seconds,
    )


def _model_bytes(size: Size, dtype: str) -> int:
    return (2 if dtype == "bfloat16" else 4) * size.parameters


def training_pace(runtime: Runtime, student: Mapping[str, str]) -> float | None:
    """Return the tokens a second of this student's finished fine-tune jobs in the store; None without any.

    Of a job that was resumed, only the steps of the last process count: its seconds are those.
    """
    tokens, seconds = 0.0, 0.0
    folder = models_folder(runtime)
    for path in sorted(folder.glob("*/training/finished.json")):
        try:
            spec = json.loads((path.parent / "identity.json").read_bytes())["spec"]
            result = json.loads(path.read_bytes())
            if spec["student"] == student:
                share = 1 - result.get("steps_before", 0) / max(1, result.get("steps", 1))
                if share > 0:
                    tokens += share * float(result["tokens"]) * int(spec["recipe"]["epochs"])
                    seconds += float(result["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("Skipping %s, which cannot be read: %s", path, error)
    return tokens / seconds if seconds else None
