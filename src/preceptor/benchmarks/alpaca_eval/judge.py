"""AlpacaEval 2 with any judge: from models' answers to verdicts, and to the project's own annotation rows.

The one idea: the verdicts are written down as annotation rows first and then read by the same reader as
published ones, so that nothing is scored that could not be handed on.
"""

from collections.abc import Sequence

from preceptor.benchmarks.alpaca_eval.files import annotated_preferences
from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.cached_chat import Answer, Told
from preceptor.benchmarks.comparisons import (
    Orders,
    Outcome,
    both_orders,
    comparisons,
    first_place_share,
    held,
    missing_reasons,
    published_order,
    require_complete,
)
from preceptor.benchmarks.judgement_rows import Row
from preceptor.benchmarks.pairwise import ChoiceJudge, PairJudge
from preceptor.benchmarks.questions import QuestionSet
from preceptor.benchmarks.verdicts import Judged
from preceptor.store.store import Store


def usual_orders(judge: PairJudge) -> Orders:
    """Return the benchmark's one order for a served chat model, and both orders for any other judge.

    Small local judges like a place more than an answer: only both orders cancel that.
    """
    served = isinstance(judge, ChoiceJudge) and judge.model.endpoint is not None
    return published_order if served else both_orders


def judge_alpaca_eval(
    answers: Sequence[Answers],
    questions: QuestionSet,
    judge: PairJudge,
    store: Store,
    *,
    orders: Orders | None = None,
    told: Told | None = None,
) -> Judged:
    """Return the verdicts on every model, asking for those that are not stored.

    Args:
        answers: one for each model.
        questions: what is asked, and the baseline's answers.
        judge: who is asked.
        store: where verdicts are kept.
        orders: which orders are shown; by default as `usual_orders`.
        told: called with the progress.

    Raises:
        StudyError: more than 1% of a model's verdicts are missing; what was answered is stored.
        DataError: answers, questions and baseline do not belong together.
        ModelError: the judge cannot be asked.
    """
    orders = orders or usual_orders(judge)
    asked = comparisons(answers, questions.baseline, questions.questions)
    outcomes = held(asked, judge, store, orders=orders, told=told)
    for one in answers:
        count = len(questions.questions)
        reasons = missing_reasons(outcomes, one.model, count)
        require_complete(reasons, model=one.model, questions=count)
    name = judge_name(judge, orders)
    rows = annotation_rows(outcomes, baseline=questions.baseline.model, judge=name)
    return Judged(
        benchmark="alpaca_eval",
        baseline=questions.baseline.model,
        judge=judge.identity(),
        judge_name=name,
        preferences=tuple(annotated_preferences(rows, "the judge's verdicts")),
        rows=tuple(rows),
        first_place={
            one.model: first_place_share([o for o in outcomes if o.comparison.model == one.model])
            for one in answers
        },
    )


def judge_name(judge: PairJudge, orders: Orders) -> str:
    """Return the judge's name, and that both orders were asked where they were."""
    return judge.name + (" in both orders" if orders is both_orders and not judge.symmetric else "")


def annotation_rows(outcomes: Sequence[Outcome], *, baseline: str, judge: str) -> list[Row]:
    """Return one row per contest, as the `alpaca_eval` package writes them.

    `output_1` is the baseline's. `preference` is in 1..2, null without a verdict. `raw_completion` holds the
    judge's token and log-probabilities where a single order was asked: from two no single one follows.
    """
    return [
        {
            "instruction": one.comparison.question,
            "output_1": one.comparison.baseline,
            "generator_1": baseline,
            "output_2": one.comparison.answer,
            "generator_2": one.comparison.model,
            "annotator": judge,
            "preference": None if one.win is None else 1 + one.win,
            "price_per_example": None,
            "time_per_example": None,
            "raw_completion": _raw_completion(one),
        }
        for one in outcomes
    ]


def _raw_completion(outcome: Outcome) -> Row | None:
    games = [game.answer for game in outcome.games.values()]
    if len(games) != 1 or games[0] is None:
        return None
    return _as_completion(games[0])


def _as_completion(answer: Answer) -> Row:
    """Return an answer in the form of an OpenAI choice, as the package keeps it."""
    ranked = [{"token": token, "logprob": share, "bytes": None} for token, share in answer.likely]
    written = dict(answer.likely).get(answer.text, -9999.0)
    first = {"token": answer.text, "logprob": written, "bytes": None, "top_logprobs": ranked}
    return {
        "finish_reason": answer.finish_reason,
        "index": 0,
        "logprobs": {"content": [first]} if ranked else None,
        "message": {"content": answer.text, "role": "assistant"},
        "text": answer.text,
        "total_tokens": (answer.prompt_tokens or 0) + (answer.tokens or 0) or None,
    }
