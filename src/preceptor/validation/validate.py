"""Validation: rank teachers, then fine-tune on each, answer, judge, rank what came of it, and compare.

Every stage asks the store first, so the code is the same whether everything is still to be done, the last run
was killed in the middle, or nothing is left to do.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from preceptor.agreement.orders import student_key
from preceptor.benchmarks.average_performance import student_results
from preceptor.benchmarks.base import Judged
from preceptor.benchmarks.checked import Checked
from preceptor.benchmarks.observed import observed_ranking, ranking_of_results
from preceptor.config.finetune import OWN, Evaluate, Train
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.data.overlap import EvaluationQuestions
from preceptor.engines.reasoning import without_reasoning
from preceptor.errors import StudyError
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.work import Progress, Silent, recorded
from preceptor.ranking.result import Ranking
from preceptor.store.store import Store
from preceptor.teachers.base import TeacherBackend
from preceptor.teachers.local import LocalTeacher
from preceptor.types import Instruction, Warning
from preceptor.validation.finetune_job import (
    FinetuneJob,
    StudentSetup,
    models_folder,
    require_trainer,
    setup_of,
)
from preceptor.validation.questions import (
    BenchmarkTask,
    EvaluationSet,
    as_step,
    evaluation_sets_of,
)
from preceptor.validation.result import (
    AnswerFigures,
    FinetunedFigures,
    ValidationResult,
    agreement_of,
    mean_of,
    row_of,
)
from preceptor.validation.training_set import TrainingSet, training_set_of

logger = logging.getLogger(__name__)

_FEW_ENDED = 0.5


@dataclass(frozen=True)
class Validation:
    """A study whose prediction is validated, with all that could be refused found and checked."""

    study: Study
    runtime: Runtime
    train: Train
    dimensions: Sequence[EvaluationSet]
    progress: Progress

    @classmethod
    def open(cls, study: Study, runtime: Runtime, progress: Progress | None = None) -> "Validation":
        """Find questions, baseline, judge and trainer; nobody is asked.

        Raises:
            PreceptorError: the study cannot be validated as it is.
        """
        if study.train is None or not study.evaluate:
            raise StudyError("The study has no [train] and [evaluate]: validation needs both.")
        require_trainer()
        models_folder(runtime)
        keys = [student_key(student.name) for student in study.students]
        if twice := [s.name for s in study.students if keys.count(student_key(s.name)) > 1]:
            raise StudyError(
                f"Agreement takes {' and '.join(twice)} for one student: leave one out."
            )
        dimensions = evaluation_sets_of(study, runtime)
        return cls(study, runtime, study.train, dimensions, progress or Silent())

    def result(self) -> ValidationResult:
        """Run the whole validation; only what the store lacks is computed."""
        pipeline = Pipeline(self.study, self.runtime, self.progress)
        data = pipeline.load()
        return self.validated(data, [outcome.ranking for outcome in pipeline.outcomes(data)])

    def validated(
        self, data: Sequence[LoadedData], predicted: Sequence[Ranking]
    ) -> ValidationResult:
        """Return the prediction with what was observed: train, generate, judge, rank, compare.

        Raises:
            PreceptorError: a stage fails; what was done before it is stored.
        """
        training_set = self.training_set(data[0])
        # A judge that cannot be read is found before the first training.
        for task in (task for one in self.dimensions for task in one.tasks):
            task.judge.probe(Store(self.runtime.store))
            task.judge.release()
        outcomes = [
            self._observed(student, training_set, dimension)
            for dimension in self.dimensions
            for student in self.study.students
        ]
        observed = tuple(outcome.ranking for outcome in outcomes)
        options = self.study.ranking
        return ValidationResult(
            predicted=tuple(predicted),
            observed=observed,
            finetuned=tuple(figures for outcome in outcomes for figures in outcome.finetuned),
            untuned={row_of(p.ranking): p.untuned for p in outcomes if p.untuned is not None},
            agreement=agreement_of(
                predicted, observed, draws=options.n_resamples, seed=options.seed
            ),
        )

    def training_set(self, loaded: LoadedData) -> TrainingSet:
        """Return what could be trained on; the first source of rewards decides on best-of-N teachers."""
        asked = EvaluationQuestions(self.instructions, self.train.exclude_ngram)
        return training_set_of(loaded, self.train, asked, seed=self.study.ranking.seed)

    @property
    def instructions(self) -> list[Instruction]:
        """Every different instruction that is asked in any dimension."""
        asked = (instruction for one in self.dimensions for instruction in one.instructions)
        return list({instruction.id: instruction for instruction in asked}.values())

    def setup(self, student: Student, dimension: EvaluationSet) -> StudentSetup:
        """Return a student with its recipe, and how it answers."""
        return setup_of(student, self.train, dimension.evaluate, runtime=self.runtime)

    def job(self, backend: LocalTeacher, dimension: EvaluationSet) -> GenerationJob:
        """Return the questions to a student, and where its answers are kept."""
        asked = dimension.instructions
        answering: TeacherBackend = backend
        for task in dimension.tasks:
            answering = task.benchmark.answering(backend, asked, self.runtime)
        partition = Store(self.runtime.store).responses(
            answering.identity(), recorded=recorded(self.runtime, backend.teacher.name)
        )
        return GenerationJob(answering, partition, asked)

    def finetune_jobs(
        self, setup: StudentSetup, training_set: TrainingSet
    ) -> Iterator[FinetuneJob]:
        """Yield every run of a student on every teacher's responses."""
        own = setup.training_set(training_set, self.train)
        for teacher in own.teachers:
            rows = own.conversations(teacher)
            for run in range(1, self.train.seeds + 1):
                yield FinetuneJob(setup, teacher, rows, self.runtime, run)

    def _observed(
        self, student: Student, training_set: TrainingSet, dimension: EvaluationSet
    ) -> "_Observed":
        """Fine-tune one student on each teacher, have all answers judged, and rank the teachers."""
        setup = self.setup(student, dimension)
        texts: dict[str, Mapping[bytes, str]] = {}
        figures = []
        teachers = {}
        for finetune_job in self.finetune_jobs(setup, training_set):
            job = self.job(finetune_job.backend(), dimension)
            if job.missing():
                finetune_job.carry_out(self.progress)
            texts[finetune_job.label], answered = self._answered(job, writes=dimension.writes)
            teachers[finetune_job.label] = finetune_job.teacher
            figures.append(_figures(finetune_job, answered, self._named(dimension)))
        untuned: Mapping[bytes, str] = {}
        before = None
        if dimension.untuned_answers:
            untuned, before = self._answered(self.job(setup.untuned, dimension))
        judged = [self._judged(task, texts, untuned, setup.untuned) for task in dimension.tasks]
        for task in dimension.tasks:
            task.judge.release()
        ranking = self._order(judged, setup.name, teachers, dimension)
        warnings = (
            *ranking.warnings,
            *training_set.warnings(),
            *_warnings(judged, figures, dimension.evaluate),
        )
        if name := self._named(dimension):
            ranking = replace(ranking, settings={**ranking.settings, "dimension": name})
        return _Observed(replace(ranking, warnings=warnings), tuple(figures), before)

    def _named(self, dimension: EvaluationSet) -> str:
        """Return the dimension's name, empty where there is one alone."""
        return dimension.evaluate.label if len(self.dimensions) > 1 else ""

    def _order(
        self,
        judged: Sequence[Judged],
        student: str,
        teachers: Mapping[str, str],
        dimension: EvaluationSet,
    ) -> Ranking:
        """Return the observed order: by AP or a benchmark's own measure against its own baseline.

        Against any other baseline it is by the win rate. `teachers` are those of the judged models.
        """
        tasks, options = dimension.tasks, self.study.ranking
        if dimension.evaluate.held_against != OWN:
            ((task, one),) = zip(tasks, judged, strict=True)
            settings: dict[str, object] = {
                "benchmark": task.benchmark.title,
                "runs": self.train.seeds,
            }
            if dimension.evaluate.questions:
                settings["questions"] = list(dimension.evaluate.questions)
            return observed_ranking(
                one.verdicts, student=student, names=teachers, settings=settings, options=options
            )
        scored = [
            task.benchmark.score(one.verdicts, seed=options.seed)
            for task, one in zip(tasks, judged, strict=True)
        ]
        ranking = ranking_of_results(
            student_results([result for one in scored for result in one.results]),
            student=student,
            names=teachers,
            checked=[v for one in judged for v in one.verdicts if isinstance(v, Checked)],
            settings={
                "runs": self.train.seeds,
                "benchmark": " and ".join(one.benchmark for one in judged),
                "judge": "; ".join(dict.fromkeys(one.judge_name for one in judged)),
                "baseline": "; ".join(one.baseline for one in judged),
                "seed": options.seed,
            },
        )
        texts = dict.fromkeys(text for one in scored for text in one.warnings)
        return replace(
            ranking, warnings=(*ranking.warnings, *(Warning("benchmark", text) for text in texts))
        )

    def _answered(
        self, job: GenerationJob, *, writes: bool = True
    ) -> tuple[dict[bytes, str], AnswerFigures]:
        """Get a student's answers, by the instructions' `given_id`; its model is freed.

        Where it does not write them itself, nothing is known of how they end, or how long they are.
        """
        try:
            job.run(self.progress)
        finally:
            job.backend.release()
        given = [one for one in job.generations() if one.text is not None]
        if not writes:
            scores = {one.instruction: one.text or "" for one in given}
            return scores, AnswerFigures(len(given), None, None, None)
        opened = bool(given) and job.backend.opens_reasoning
        texts = {one.instruction: without_reasoning(one.text or "", opened=opened) for one in given}
        tokens = [one.tokens for one in given if one.tokens is not None]
        return texts, AnswerFigures(
            answers=len(given),
            ended=mean_of([one.finish_reason == "stop" for one in given]),
            tokens=mean_of(tokens),
            characters=mean_of([len(text) for text in texts.values()]),
        )

    def _judged(
        self,
        task: BenchmarkTask,
        texts: Mapping[str, Mapping[bytes, str]],
        untuned: Mapping[bytes, str],
        base: LocalTeacher,
    ) -> Judged:
        asked = task.questions
        if task.awaits_baseline:
            asked = asked.against(asked.answers_of(base.teacher.name, untuned))
        answers = [asked.answers_of(name, held) for name, held in texts.items()]
        with as_step(f"judge answers to {task.benchmark.title}", self.progress) as advance:
            store = Store(self.runtime.store)
            return task.benchmark.judge(answers, asked, task.judge, store, advance)


def validate(study: Study, runtime: Runtime, progress: Progress | None = None) -> ValidationResult:
    """Carry out a study from its teachers to the validation of the prediction; see `Validation`.

    Raises:
        PreceptorError: a stage cannot be gone through; what was done before is stored.
    """
    return Validation.open(study, runtime, progress).result()


@dataclass(frozen=True)
class _Observed:
    """What was observed of one student."""

    ranking: Ranking
    finetuned: tuple[FinetunedFigures, ...]
    untuned: AnswerFigures | None


def _figures(
    finetune_job: FinetuneJob, answered: AnswerFigures, dimension: str
) -> FinetunedFigures:
    held = finetune_job.finished() or {}
    return FinetunedFigures(
        student=finetune_job.setup.name,
        teacher=finetune_job.teacher,
        run=finetune_job.run,
        model=finetune_job.identity.digest,
        rows=held.get("rows", len(finetune_job.conversations.rows)),
        left_out={**finetune_job.conversations.left_out, **held.get("left_out", {})},
        steps=held.get("steps"),
        first_loss=held.get("first_loss"),
        last_loss=held.get("last_loss"),
        answered=answered,
        dimension=dimension,
    )


def _warnings(
    judged: Sequence[Judged], figures: Sequence[FinetunedFigures], evaluate: Evaluate
) -> Iterator[Warning]:
    """Yield what must be known of the judge and of the answers."""
    for verdicts in judged:
        yield from verdicts.warnings()
    for one in figures:
        ended = one.answered.ended
        if ended is not None and ended < _FEW_ENDED:
            yield Warning(
                "cut-off",
                f"Fine-tuned on '{one.teacher}', {one.student} ended {ended:.0%} of its answers itself; "
                f"the rest were cut off at {evaluate.max_tokens:,} tokens (max_tokens).",
            )
