"""Judge models' answers to a benchmark: one call, whichever benchmark and whoever judges.

The one idea: what it would take is told first and asks nothing; then only what is not stored is asked.
"""

from collections.abc import Sequence

from preceptor.benchmarks.alpaca_eval.judge import judge_alpaca_eval, usual_orders
from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.arena_hard.judge import GameJudge, game_pairs, judge_arena_hard
from preceptor.benchmarks.cached_chat import Cost, Told
from preceptor.benchmarks.comparisons import Orders, both_orders, comparisons, pairs_of
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.benchmarks.questions import QuestionSet
from preceptor.benchmarks.verdicts import Judged
from preceptor.errors import StudyError
from preceptor.store.store import Store

AnyJudge = PairJudge | GameJudge
"""Who can judge: only Arena-Hard is judged by games."""


def judging_cost(
    answers: Sequence[Answers],
    questions: QuestionSet,
    judge: AnyJudge,
    store: Store,
    *,
    orders: Orders | None = None,
) -> Cost:
    """Return what `judge_answers` would take, without asking anything."""
    asked = comparisons(answers, questions.baseline, questions.questions)
    if isinstance(judge, GameJudge):
        return judge.cost(game_pairs(asked), store)
    if questions.benchmark == "arena_hard":
        orders = both_orders
    return judge.cost(pairs_of(asked, judge, orders or usual_orders(judge)), store)


def judge_answers(
    answers: Sequence[Answers],
    questions: QuestionSet,
    judge: AnyJudge,
    store: Store,
    *,
    orders: Orders | None = None,
    told: Told | None = None,
) -> Judged:
    """Return the judge's verdicts on every model against the baseline of the questions.

    Args:
        answers: one for each model, of the questions' benchmark.
        questions: what is asked, and the baseline's answers.
        judge: who is asked.
        store: where every answer of the judge is kept as it comes.
        orders: which orders AlpacaEval's judge is shown; see `usual_orders`.
        told: called with how many requests are done, and of how many.

    Raises:
        StudyError: the judge cannot judge this benchmark, or more than 1% of the verdicts are missing.
        DataError: answers, questions and baseline do not belong together.
        ModelError: the judge cannot be asked; what was answered is stored.
    """
    strange = [one.model for one in answers if one.benchmark != questions.benchmark]
    if strange:
        raise StudyError(
            f"The answers of '{strange[0]}' are of another benchmark than the questions "
            f"({questions.benchmark}): judge each benchmark by itself."
        )
    if questions.benchmark == "arena_hard":
        return judge_arena_hard(answers, questions, judge, store, told=told)
    if isinstance(judge, GameJudge):
        raise StudyError("AlpacaEval is judged by a choice of two letters: give a ChoiceJudge.")
    return judge_alpaca_eval(answers, questions, judge, store, orders=orders, told=told)
