"""The evaluation set: what fine-tuned students are asked, against which baseline, and who judges.

Everything is found, and everything that can be refused is refused, before anything is paid for. The
questions are the same for every student and teacher.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.arena_hard.judge import JUDGEMENT_TOKENS, GameJudge
from preceptor.benchmarks.comparisons import Orders, both_orders
from preceptor.benchmarks.judge_prompts import CHOICE_PROMPT, GAME_PROMPT, read_prompt
from preceptor.benchmarks.judging import AnyJudge
from preceptor.benchmarks.pairwise import ChoiceJudge, local_model, served_model
from preceptor.benchmarks.questions import (
    QuestionSet,
    alpaca_questions,
    arena_questions,
    read_baseline,
)
from preceptor.benchmarks.reward_judge import RewardJudge, require_independent
from preceptor.config.finetune import OWN, STUDENT, Benchmark, ChatJudge, Evaluate
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.instructions import PromptSource
from preceptor.errors import DataError, StudyError
from preceptor.pipeline import plan
from preceptor.pipeline.sources import expanded
from preceptor.scorers.reward_model import RewardModel
from preceptor.store.store import Store
from preceptor.types import Instruction

_NOBODY = "the untuned student"


@dataclass(frozen=True)
class BenchmarkTask:
    """One set of questions: `instructions` by the question's id, as models get them, and its judge.

    `questions.baseline` is empty where the unfine-tuned student is the baseline: see `against`.
    """

    questions: QuestionSet
    instructions: Mapping[str, Instruction]
    judge: AnyJudge
    orders: Orders | None

    def against(self, untuned: Answers) -> QuestionSet:
        """Return the questions with their baseline, which may be these answers of the untuned student.

        Raises:
            DataError: the unfine-tuned student answered nothing.
        """
        kept = self.questions
        if kept.baseline.texts:
            return kept
        answered = {name: text for name, text in kept.questions.items() if name in untuned.texts}
        if not answered:
            raise DataError(
                f"The unfine-tuned student answered none of the {len(kept.questions)} questions, so there is "
                "no baseline. Shorten the questions, or name another baseline."
            )
        return QuestionSet(kept.benchmark, answered, untuned)

    def answers_of(self, model: str, texts: Mapping[bytes, str]) -> Answers:
        """Return a model's answers, given by the instructions' ids; a question without one is left out."""
        found = {
            name: texts[asked.id] for name, asked in self.instructions.items() if asked.id in texts
        }
        return Answers(self.questions.benchmark, model, found)


@dataclass(frozen=True)
class EvaluationSet:
    """All tasks of an evaluation."""

    tasks: Sequence[BenchmarkTask]

    @property
    def instructions(self) -> list[Instruction]:
        """Every different instruction that is asked."""
        asked = (one for task in self.tasks for one in task.instructions.values())
        return list({instruction.id: instruction for instruction in asked}.values())

    @property
    def untuned_answers(self) -> bool:
        """Whether the unfine-tuned student must answer, to be the baseline."""
        return any(not task.questions.baseline.texts for task in self.tasks)

    @property
    def texts(self) -> frozenset[str]:
        """The questions in the form in which `same_text` compares them."""
        return frozenset(same_text(instruction) for instruction in self.instructions)


def same_text(instruction: Instruction) -> str:
    """Return what two spellings of one question share: its last user turn, but for case and spaces."""
    return " ".join(instruction.text.casefold().split())


def evaluation_set_of(study: Study, runtime: Runtime) -> EvaluationSet:
    """Return the evaluation set of a study, asking nobody; published questions are fetched at first use.

    Raises:
        DataError: questions or a baseline cannot be read.
        StudyError: the judge made the prediction, or nothing says where it is served.
        ModelError: the judge is not found, or its key or address cannot be used.
    """
    evaluate = study.evaluate
    assert evaluate is not None
    sets = [_own_questions(evaluate)] if evaluate.questions else _published(evaluate)
    tasks = []
    for questions, instructions in sets:
        drawn = questions.drawn(evaluate.limit)
        kept = {name: instructions[name] for name in drawn.questions}
        judge = judge_of(evaluate, runtime, questions.benchmark)
        _require_usable(judge, study, runtime)
        tasks.append(BenchmarkTask(drawn, kept, judge, _orders(evaluate)))
    return EvaluationSet(tasks)


def _own_questions(evaluate: Evaluate) -> tuple[QuestionSet, dict[str, Instruction]]:
    """Return the questions in files, in the form of AlpacaEval, whose questions are their own ids."""
    source = PromptSource.open(expanded(evaluate.questions))
    found: dict[str, Instruction] = {}
    for prompt in source:
        found.setdefault(_shown(prompt.instruction), prompt.instruction)
    if not found:
        raise DataError(
            f"{', '.join(evaluate.questions)} hold no questions. Check evaluate.questions."
        )
    baseline = Answers("alpaca_eval", _NOBODY, {})
    if evaluate.held_against != STUDENT:
        baseline = read_baseline(evaluate.held_against)
        found = {text: one for text, one in found.items() if text in baseline.texts}
        if not found:
            raise DataError(
                f"The baseline '{evaluate.held_against}' answers none of the questions. Give answers to "
                "the same questions, or baseline = 'student'."
            )
    return QuestionSet("alpaca_eval", {text: text for text in found}, baseline), found


def _shown(instruction: Instruction) -> str:
    """Return a conversation as the judge is shown it: one turn plain, several under their roles."""
    if len(instruction.messages) == 1:
        return instruction.text
    return "\n\n".join(f"[{role}]\n{content}" for role, content in instruction.messages)


def _published(evaluate: Evaluate) -> list[tuple[QuestionSet, dict[str, Instruction]]]:
    held = evaluate.held_against
    given = None if held in (OWN, STUDENT) else read_baseline(held)
    found = []
    for benchmark in evaluate.benchmarks:
        if given is not None and given.benchmark != benchmark:
            raise DataError(
                f"The baseline '{held}' has answers to {given.benchmark}, and {benchmark} is asked."
            )
        questions = _of_benchmark(benchmark, given)
        if held == STUDENT:
            nobody = Answers(benchmark, _NOBODY, {})
            questions = QuestionSet(benchmark, questions.questions, nobody)
        texts = questions.questions.items()
        found.append((questions, {name: Instruction.from_text(text) for name, text in texts}))
    return found


def _of_benchmark(benchmark: Benchmark, baseline: Answers | None) -> QuestionSet:
    if benchmark == "alpaca_eval":
        return alpaca_questions(baseline)
    return arena_questions([], baseline)


def judge_of(evaluate: Evaluate, runtime: Runtime, benchmark: Benchmark) -> AnyJudge:
    """Return who judges: games are written by served models alone, and only in Arena-Hard."""
    table = evaluate.judge
    if not isinstance(table, ChatJudge):
        return RewardJudge(RewardModel(table, runtime))
    if table.engine == "transformers":
        prompt = read_prompt(table.prompt) if table.prompt else CHOICE_PROMPT
        return ChoiceJudge(local_model(table, runtime), prompt)
    endpoint = runtime.endpoint(table.model)
    if benchmark == "arena_hard" and table.logprobs:
        model = served_model(
            table.model, endpoint, max_tokens=JUDGEMENT_TOKENS, log_probabilities=False
        )
        return GameJudge(model, read_prompt(table.prompt) if table.prompt else GAME_PROMPT)
    model = served_model(table.model, endpoint, log_probabilities=table.logprobs)
    prompt = read_prompt(table.prompt) if table.prompt else CHOICE_PROMPT
    return ChoiceJudge(model, prompt, written=not table.logprobs)


def _orders(evaluate: Evaluate) -> Orders | None:
    both = isinstance(evaluate.judge, ChatJudge) and evaluate.judge.swap_positions
    return both_orders if both else None


def _require_usable(judge: AnyJudge, study: Study, runtime: Runtime) -> None:
    judge.identity()
    if isinstance(judge, ChoiceJudge | GameJudge):
        judge.model.preflight()
        return
    made = [s.identity() for reward in study.reward for s in plan.reward_scorers(reward, runtime)]
    require_independent(judge, made)


def try_out(judges: Iterable[AnyJudge], store: Store) -> None:
    """Ask judges that choose one easy question, once ever: better now than after the training.

    Raises:
        ModelError: one cannot be asked, or its answer cannot be read.
    """
    for judge in judges:
        if isinstance(judge, ChoiceJudge):
            judge.probe(store)
            judge.model.release()


def release(judges: Iterable[AnyJudge]) -> None:
    """Free the models of judges that are run in this process."""
    for judge in judges:
        if isinstance(judge, RewardJudge):
            judge.scorer.release()
        elif isinstance(judge, ChoiceJudge | GameJudge):
            judge.model.release()


def require_apart(questions: Collection[str], left: int) -> None:
    """Refuse where the questions leave nothing to train on.

    Raises:
        StudyError: `left` instructions, and so none, remain.
    """
    if not left:
        raise StudyError(
            f"Nothing is left to train on once the {len(questions)} questions are left out of training. "
            "Give evaluate.questions that are held out, or a limit, or more responses."
        )
