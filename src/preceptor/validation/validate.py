"""The whole loop: generate, score, rank; then train, respond, judge, rank; and agree.

The one idea: every stage asks the store first, so the line below is the same whether everything is still to
be done, the last run was killed in the middle of it, or nothing is left to do.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from preceptor.agreement.orders import student_key
from preceptor.benchmarks.alpaca_eval.length_control import Calibration
from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.cached_chat import Told
from preceptor.benchmarks.judging import judge_answers
from preceptor.benchmarks.verdicts import Judged
from preceptor.config.base import Runtime
from preceptor.config.finetune import Evaluate, Train
from preceptor.config.study import Student, Study
from preceptor.errors import StudyError
from preceptor.pipeline.generate import GenerationJob, respond
from preceptor.pipeline.load import Opened, open_data, recorded
from preceptor.pipeline.rank import rank_opened
from preceptor.pipeline.score import Amount, Progress, Silent
from preceptor.ranking.result import Ranking
from preceptor.store.store import Store
from preceptor.teachers.base import without_thoughts
from preceptor.teachers.local import LocalTeacher
from preceptor.validation.finetune_job import (
    Pupil,
    Tuning,
    models_folder,
    pupil_of,
    require_trainer,
)
from preceptor.validation.observed import calibration_of, observed_order
from preceptor.validation.questions import Exam, Paper, exam_of, release, try_out
from preceptor.validation.result import AnswerFigures, TunedFigures, ValidationResult, agreement_of
from preceptor.validation.training_set import Lessons, lessons_of

logger = logging.getLogger(__name__)

_FEW_ENDED = 0.5


@dataclass(frozen=True)
class Loop:
    """A study that is put to the proof, with all that could be refused found and checked."""

    study: Study
    runtime: Runtime
    train: Train
    evaluate: Evaluate
    exam: Exam
    calibration: Calibration | None
    progress: Progress

    @classmethod
    def open(cls, study: Study, runtime: Runtime, progress: Progress | None = None) -> "Loop":
        """Find questions, baseline, judge and trainer; nobody is asked.

        Raises:
            PreceptorError: the loop cannot be gone through as the study has it.
        """
        if study.train is None or study.evaluate is None:
            raise StudyError(
                "The study has no [train] and [evaluate]: a prediction is put to the proof with both."
            )
        require_trainer()
        models_folder(runtime)
        keys = [student_key(student.name) for student in study.students]
        if twice := [s.name for s in study.students if keys.count(student_key(s.name)) > 1]:
            raise StudyError(
                f"Agreement takes {' and '.join(twice)} for one student: leave one out."
            )
        exam, calibration = exam_of(study, runtime), calibration_of(study.evaluate)
        shown = progress or Silent()
        return cls(study, runtime, study.train, study.evaluate, exam, calibration, shown)

    def result(self) -> ValidationResult:
        """Go through the whole loop; only what the store lacks is computed."""
        data = open_data(self.study, self.runtime, self.progress)
        predicted = list(rank_opened(data, self.study, self.runtime, self.progress))
        return self.proven(data, predicted)

    def proven(self, data: Sequence[Opened], predicted: Sequence[Ranking]) -> ValidationResult:
        """Return the prediction with its proof: train, respond, judge, rank, agree.

        Raises:
            PreceptorError: a stage fails; what was done before it is stored.
        """
        lessons = self.lessons(data[0])
        try_out([paper.judge for paper in self.exam.papers], Store(self.runtime.store))
        proofs = [self._observed(student, lessons) for student in self.study.students]
        observed = tuple(proof.ranking for proof in proofs)
        options = self.study.ranking
        return ValidationResult(
            predicted=tuple(predicted),
            observed=observed,
            tuned=tuple(figures for proof in proofs for figures in proof.tuned),
            untuned={p.ranking.student: p.untuned for p in proofs if p.untuned is not None},
            agreement=agreement_of(predicted, observed, draws=options.draws, seed=options.seed),
        )

    def lessons(self, opened: Opened) -> Lessons:
        """Return what could be trained on; the first source of rewards decides on derived teachers."""
        seed = self.study.ranking.seed
        return lessons_of(opened, self.train, self.exam.texts, seed=seed)

    def pupil(self, student: Student) -> Pupil:
        """Return a student with its recipe, and how it answers."""
        return pupil_of(student, self.train, self.evaluate, runtime=self.runtime)

    def job(self, backend: LocalTeacher) -> GenerationJob:
        """Return the questions to a student, and where its answers are kept."""
        store = Store(self.runtime.store)
        partition = store.responses(backend.identity(), recorded=recorded(self.runtime))
        return GenerationJob(backend, partition, self.exam.instructions)

    def _observed(self, student: Student, lessons: Lessons) -> "_Proof":
        """Tune one student on each teacher, have all answers judged, and rank the teachers."""
        pupil = self.pupil(student)
        own = pupil.lessons(lessons, self.train)
        texts: dict[str, Mapping[bytes, str]] = {}
        figures = []
        for teacher in own.teachers:
            tuning = Tuning(pupil, teacher, own.conversations(teacher), self.runtime)
            job = self.job(tuning.backend())
            if job.missing():
                tuning.carry_out(self.progress)
            texts[teacher], answered = self._answered(job)
            figures.append(_figures(tuning, own, answered))
        untuned: Mapping[bytes, str] = {}
        before = None
        if self.exam.untuned_answers:
            untuned, before = self._answered(self.job(pupil.untuned))
        judged = [self._judged(paper, texts, untuned, pupil.untuned) for paper in self.exam.papers]
        release(paper.judge for paper in self.exam.papers)
        ranking = observed_order(
            judged,
            self.evaluate,
            student=pupil.name,
            calibration=self.calibration,
            options=self.study.ranking,
        )
        told = (*ranking.warnings, *_cautions(judged, figures, self.evaluate))
        return _Proof(replace(ranking, warnings=told), tuple(figures), before)

    def _answered(self, job: GenerationJob) -> tuple[dict[bytes, str], AnswerFigures]:
        """Get a student's answers, by the instructions' ids; its model is freed."""
        try:
            respond(job, self.progress)
        finally:
            job.backend.release()
        given = [one for one in job.generations() if one.text is not None]
        opened = bool(given) and job.backend.opens_thoughts
        texts = {one.instruction: without_thoughts(one.text or "", opened=opened) for one in given}
        tokens = [one.tokens for one in given if one.tokens is not None]
        return texts, AnswerFigures(
            answers=len(given),
            ended=_mean([one.finish_reason == "stop" for one in given]),
            tokens=_mean(tokens),
            characters=_mean([len(text) for text in texts.values()]),
        )

    def _judged(
        self,
        paper: Paper,
        texts: Mapping[str, Mapping[bytes, str]],
        untuned: Mapping[bytes, str],
        base: LocalTeacher,
    ) -> Judged:
        questions = paper.against(paper.answers_of(base.options.name, untuned))
        answers: list[Answers] = [paper.answers_of(name, held) for name, held in texts.items()]
        of = questions.benchmark if self.evaluate.benchmarks else "questions"
        with _told(f"judge answers to {of}", self.progress) as told:
            store = Store(self.runtime.store)
            return judge_answers(
                answers, questions, paper.judge, store, orders=paper.orders, told=told
            )


def loop(study: Study, runtime: Runtime, progress: Progress | None = None) -> ValidationResult:
    """Go through a study from its teachers to the proof of the prediction; see `Loop`.

    Raises:
        PreceptorError: a stage cannot be gone through; what was done before is stored.
    """
    return Loop.open(study, runtime, progress).result()


@dataclass(frozen=True)
class _Proof:
    """What was observed of one student."""

    ranking: Ranking
    tuned: tuple[TunedFigures, ...]
    untuned: AnswerFigures | None


def _figures(tuning: Tuning, lessons: Lessons, answered: AnswerFigures) -> TunedFigures:
    held = tuning.finished() or {}
    return TunedFigures(
        student=tuning.pupil.name,
        teacher=tuning.teacher,
        model=tuning.identity.digest,
        rows=held.get("rows", len(tuning.conversations.rows)),
        left_out={
            **lessons.left_out,
            **tuning.conversations.left_out,
            **held.get("left_out", {}),
        },
        steps=held.get("steps"),
        first_loss=held.get("first_loss"),
        last_loss=held.get("last_loss"),
        answered=answered,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _cautions(
    judged: Sequence[Judged], figures: Sequence[TunedFigures], evaluate: Evaluate
) -> Iterator[str]:
    """Yield what must be known of the judge and of the answers."""
    for paper in judged:
        said = paper.cautions()
        # Questions of one's own have no published rates to compare with.
        yield from said[1:] if evaluate.questions else said
    for one in figures:
        ended = one.answered.ended
        if ended is not None and ended < _FEW_ENDED:
            yield (
                f"Tuned on '{one.teacher}', {one.student} ended {ended:.0%} of its answers itself; the rest "
                f"were cut off at {evaluate.max_tokens:,} tokens (max_tokens)."
            )


@contextmanager
def _told(step: str, progress: Progress) -> Iterator[Told]:
    """Show a judge's requests as a step."""
    done_before: list[int] = []

    def told(done: int, of: int) -> None:
        if not done_before:
            progress.begin(step, done, Amount(of - done, of - done))
        else:
            progress.advance(Amount(done - done_before[-1], done - done_before[-1]))
        done_before.append(done)

    yield told
    if done_before:
        progress.end()
