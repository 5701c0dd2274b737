"""What the proof of a prediction would take: rows, steps, minutes, answers, verdicts, money, disk.

The one idea: nothing is trained, asked or paid for to find out. Speeds are those that the store has measured,
and unknown without; tokens are counted on a few hundred rows and scaled up.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.cached_chat import Cost
from preceptor.benchmarks.judging import judging_cost
from preceptor.config.base import Runtime
from preceptor.config.recipe import steps_of, warmup_caution
from preceptor.config.study import Study
from preceptor.finetuning.estimate import disk_of
from preceptor.finetuning.weights import Size, size_of
from preceptor.pipeline.estimate import GenerationEstimate, asks_of
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.load import Opened
from preceptor.store.store import Store
from preceptor.validation.finetune_job import Pupil, Tuning, models_folder
from preceptor.validation.questions import Paper
from preceptor.validation.validate import Loop

logger = logging.getLogger(__name__)

COUNTED = 256
"""Rows whose tokens are counted."""


@dataclass(frozen=True)
class FinetuneEstimate:
    """One tuning: what is trained on, and the answers that follow. `seconds` is None where unknown.

    `done` says that nothing is to be trained: the model is there, or all its answers are.
    """

    student: str
    teacher: str
    model: str
    rows: int
    tokens: int
    steps: int
    seconds: float | None
    done: bool
    asked: GenerationEstimate
    left_out: Mapping[str, int]
    caution: str | None


@dataclass(frozen=True)
class ValidationEstimate:
    """The whole proof. While responses are missing `tunings` is empty and `disk` unknown.

    `teachers` are the names known so far. `untuned` are the baselines to ask. `verdicts` has the judge's name
    and cost by student and paper. `disk` is the most bytes that models and checkpoints take at once; `models`
    is where.
    """

    students: int
    teachers: Sequence[str]
    questions: int
    tunings: Sequence[FinetuneEstimate]
    untuned: Sequence[GenerationEstimate]
    verdicts: Sequence[tuple[str, Cost]]
    disk: int | None
    models: Path


def validation_estimate(loop: Loop, data: Sequence[Opened]) -> ValidationEstimate:
    """Return what the loop would take once the data are ranked; `data` is empty while responses lack.

    Raises:
        PreceptorError: the loop cannot be gone through as the study has it.
    """
    parts = [_Student(loop, loop.pupil(student)) for student in loop.study.students]
    planned = [part.tunings(data[0]) if data else [] for part in parts]
    found = [part.estimates(own) for part, own in zip(parts, planned, strict=True)]
    untuned = [loop.job(part.pupil.untuned) for part in parts]
    teachers = [tuning.teacher for tuning in planned[0]] or named_teachers(loop.study)
    return ValidationEstimate(
        students=len(parts),
        teachers=teachers,
        questions=len(loop.exam.instructions),
        tunings=[one for own in found for one in own],
        untuned=asks_of(untuned, loop.runtime) if loop.exam.untuned_answers else [],
        verdicts=[
            cost
            for part, own in zip(parts, planned, strict=True)
            for cost in part.verdicts(own, teachers)
        ],
        disk=sum(part.disk(own) for part, own in zip(parts, found, strict=True)) if data else None,
        models=models_folder(loop.runtime),
    )


def named_teachers(study: Study) -> list[str]:
    """Return the teachers that the study names itself; those in files are known when these are read."""
    asked = [point.name for teacher in study.teachers for point in teacher.points()]
    assert study.train is not None
    return list(study.train.teachers) or [*asked, *(derived.name for derived in study.derived)]


@dataclass(frozen=True)
class _Student:
    """One student's part."""

    loop: Loop
    pupil: Pupil

    def tunings(self, opened: Opened) -> list[Tuning]:
        lessons = self.pupil.lessons(self.loop.lessons(opened), self.loop.train)
        found = []
        for name in lessons.teachers:
            own = lessons.conversations(name)
            left_out = {**lessons.left_out, **own.left_out}
            told = replace(own, left_out=left_out)
            found.append(Tuning(self.pupil, name, told, self.loop.runtime))
        return found

    def estimates(self, tunings: Sequence[Tuning]) -> list[FinetuneEstimate]:
        pace = training_pace(self.loop.runtime, dict(self.pupil.untuned.located.identity))
        return [self._estimate(tuning, pace) for tuning in tunings]

    def _estimate(self, tuning: Tuning, pace: float | None) -> FinetuneEstimate:
        recipe, rows = self.pupil.recipe, tuning.conversations.rows
        some = replace(tuning.conversations, rows=rows[:COUNTED])
        counted = replace(tuning, conversations=some).prepared().rows
        tokens = round(counted.tokens * len(rows) / len(some.rows))
        (asked,) = asks_of([self.loop.job(tuning.backend())], self.loop.runtime)
        steps = steps_of(recipe, len(rows))
        return FinetuneEstimate(
            student=self.pupil.name,
            teacher=tuning.teacher,
            model=tuning.identity.digest,
            rows=len(rows),
            tokens=tokens,
            steps=steps.total,
            seconds=tokens * recipe.epochs / pace if pace else None,
            done=not asked.missing or tuning.finished() is not None,
            asked=asked,
            left_out=tuning.conversations.left_out,
            caution=warmup_caution(steps),
        )

    def disk(self, tunings: Sequence[FinetuneEstimate]) -> int:
        """Return the bytes of all models to come, and of the checkpoints of one at a time."""
        missing = [one for one in tunings if not one.done]
        if not missing:
            return 0
        recipe = self.pupil.recipe
        size = size_of(self.pupil.untuned.located, recipe)
        most = max(steps_of(recipe, one.rows) for one in missing)
        return disk_of(recipe, size, steps=most) + (len(missing) - 1) * _model_bytes(
            size, recipe.dtype
        )

    def verdicts(
        self, tunings: Sequence[Tuning], teachers: Sequence[str]
    ) -> list[tuple[str, Cost]]:
        """Return what judging would take; an answer that is missing is stood in for by its length."""
        base = self.loop.job(self.pupil.untuned)
        asked = {one.teacher: self.loop.job(one.backend()) for one in tunings}
        texts = {name: self._texts(name, asked.get(name, base)) for name in teachers}
        untuned = self._texts("untuned", base) if self.loop.exam.untuned_answers else {}
        store = Store(self.loop.runtime.store)
        return [
            (paper.judge.name, self._cost(paper, texts, untuned, store))
            for paper in self.loop.exam.papers
        ]

    def _cost(
        self,
        paper: Paper,
        texts: Mapping[str, Mapping[bytes, str]],
        untuned: Mapping[bytes, str],
        store: Store,
    ) -> Cost:
        questions = paper.against(paper.answers_of(self.pupil.untuned.options.name, untuned))
        answers: list[Answers] = [paper.answers_of(name, held) for name, held in texts.items()]
        return judging_cost(answers, questions, paper.judge, store, orders=paper.orders)

    def _texts(self, name: str, job: GenerationJob) -> dict[bytes, str]:
        (ask,) = asks_of([job], self.loop.runtime)
        expected = round(ask.tokens / ask.missing) if ask.missing else 0
        stood_in = f"{name}:" + " word" * expected
        texts = dict.fromkeys((one.id for one in job.instructions), stood_in)
        given = {one.instruction: one.text for one in job.generations() if one.text is not None}
        return texts | given


def _model_bytes(size: Size, dtype: str) -> int:
    return (2 if dtype == "bfloat16" else 4) * size.parameters


def training_pace(runtime: Runtime, student: Mapping[str, str]) -> float | None:
    """Return the tokens a second of this student's finished tunings in the store; None without any.

    Of a tuning that was gone on with, only the steps of the last process count: its seconds are those.
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
