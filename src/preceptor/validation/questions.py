"""The evaluation set: what fine-tuned students are asked, against which baseline, and who judges.

Everything is found, and everything that can be refused is refused, before anything is paid for. The
questions are the same for every student and teacher.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from preceptor.benchmarks.base import Benchmark
from preceptor.benchmarks.cached_chat import OnProgress
from preceptor.benchmarks.custom import CustomQuestions
from preceptor.benchmarks.files import read_baseline
from preceptor.benchmarks.judges import judge_of
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.benchmarks.questions import Answers, QuestionSet, shown
from preceptor.benchmarks.registry import benchmark_named
from preceptor.config.finetune import OWN, STUDENT, Evaluate
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.instructions import PromptSource
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.sources import expanded
from preceptor.pipeline.work import Amount, Progress
from preceptor.scorers.rewards import reward_scorers
from preceptor.types import Instruction


@dataclass(frozen=True)
class BenchmarkTask:
    """One benchmark's questions and its judge.

    `questions.baseline` is empty where the student before fine-tuning is the baseline, or there is none.
    """

    benchmark: Benchmark
    questions: QuestionSet
    judge: PairJudge

    @property
    def awaits_baseline(self) -> bool:
        """Whether the student must answer before fine-tuning, to be the baseline."""
        return self.benchmark.compares and not self.questions.baseline.texts


@dataclass(frozen=True)
class EvaluationSet:
    """All questions of one dimension, by benchmark, and how they are asked."""

    evaluate: Evaluate
    tasks: Sequence[BenchmarkTask]

    @property
    def instructions(self) -> list[Instruction]:
        """Every different instruction that is asked."""
        asked = (one for task in self.tasks for one in task.questions.instructions.values())
        return list({instruction.id: instruction for instruction in asked}.values())

    @property
    def writes(self) -> bool:
        """Whether what students answer are texts of theirs."""
        return all(task.benchmark.writes for task in self.tasks)

    @property
    def untuned_answers(self) -> bool:
        """Whether the student must answer before fine-tuning, to be the baseline."""
        return any(task.awaits_baseline for task in self.tasks)


def evaluation_sets_of(study: Study, runtime: Runtime) -> list[EvaluationSet]:
    """Return a study's dimensions, asking nobody; published questions are fetched at first use.

    Raises:
        DataError: questions or a baseline cannot be read.
        StudyError: no benchmark has this name, the judge made the prediction, or it is served nowhere.
        ModelError: the judge is not found, or its key or address cannot be used.
    """
    return [_evaluation_set(evaluate, study, runtime) for evaluate in study.evaluate]


def _evaluation_set(evaluate: Evaluate, study: Study, runtime: Runtime) -> EvaluationSet:
    baseline = None
    if evaluate.held_against not in (OWN, STUDENT):
        baseline = read_baseline(evaluate.held_against)
    tasks = []
    for benchmark in _benchmarks(evaluate):
        if not benchmark.compares and evaluate.baseline is not None:
            raise StudyError(
                f"Answers to '{benchmark.name}' are compared with no baseline: leave baseline out."
            )
        questions = _questions(benchmark, evaluate, baseline)
        judge = judge_of(evaluate.judge, runtime, benchmark.judge_kinds)
        judge.preflight()
        if judge.kind == "reward":
            scorers = [s for reward in study.reward for s in reward_scorers(reward, runtime)]
            judge.require_independent([scorer.identity() for scorer in scorers])
        if evaluate.held_against == OWN:
            benchmark.preflight()
        tasks.append(BenchmarkTask(benchmark, questions, judge))
    return EvaluationSet(evaluate, tasks)


def _benchmarks(evaluate: Evaluate) -> list[Benchmark]:
    if evaluate.judge is None or (evaluate.benchmarks and evaluate.questions):
        (name,) = evaluate.benchmarks or ("accuracy",)
        files = tuple(map(str, expanded(evaluate.questions))) if evaluate.questions else ()
        given = {"files": files, "tasks": evaluate.tasks, "metric": evaluate.metric}
        return [benchmark_named(name, {**given, "options": evaluate.harness})]
    if evaluate.benchmarks:
        return [benchmark_named(name) for name in evaluate.benchmarks]
    found: dict[str, Instruction] = {}
    for prompt in PromptSource.open(expanded(evaluate.questions)):
        found.setdefault(shown(prompt.instruction), prompt.instruction)
    if not found:
        raise DataError(
            f"{', '.join(evaluate.questions)} hold no questions. Check evaluate.questions."
        )
    return [CustomQuestions(found)]


def _questions(benchmark: Benchmark, evaluate: Evaluate, baseline: Answers | None) -> QuestionSet:
    if baseline is not None and evaluate.benchmarks and baseline.benchmark != benchmark.name:
        raise DataError(
            f"The baseline '{evaluate.held_against}' has answers to {baseline.benchmark}, and "
            f"{benchmark.name} is asked."
        )
    questions = benchmark.questions(evaluate.limit, baseline=baseline)
    return questions.without_baseline() if evaluate.held_against == STUDENT else questions


@contextmanager
def as_step(step: str, progress: Progress) -> Iterator[OnProgress]:
    """Show a judge's requests as a step of the progress."""
    done_before: list[int] = []

    def advance(done: int, of: int) -> None:
        if not done_before:
            progress.begin(step, done, Amount(of - done, of - done))
        else:
            progress.advance(Amount(done - done_before[-1], done - done_before[-1]))
        done_before.append(done)

    yield advance
    if done_before:
        progress.end()
