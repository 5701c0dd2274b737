"""Comparisons: a model's answer against the baseline's, shown to the judge in one order or in both.

A win is the mean over the orders asked. A comparison that lacks one of its orders has no win, because half of
it would carry the judge's preference for a place. Equal answers are half a win each and are not asked.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from preceptor.benchmarks.judge_prompts import Pair
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.engines.reasoning import without_reasoning
from preceptor.errors import DataError, StudyError

if TYPE_CHECKING:
    from preceptor.benchmarks.cached_chat import OnProgress
    from preceptor.benchmarks.pairwise import Compared, PairJudge
    from preceptor.store.store import Store


Orders = Callable[[str], tuple[bool, ...]]
"""Which orders to ask for a question: True shows the model's answer first."""

TOLERATED = 0.01
"""The share of a benchmark's verdicts that may be missing before a total is refused."""


def both_orders(_question: str) -> tuple[bool, ...]:
    """Ask with the baseline's answer first, then with the model's."""
    return (False, True)


def drawn_order(question: str) -> tuple[bool, ...]:
    """Ask once, in the order that AlpacaEval's seed gives for this question."""
    return (was_switched(question),)


def was_switched(question: str) -> bool:
    """Return whether AlpacaEval shows the model's answer, not the baseline's, to the judge first."""
    # Another generator would give another order: this one is part of the published benchmark.
    seed = f"is_switched_outputs{question}0".encode("utf-8", "surrogatepass")
    return random.Random(seed).choices([False, True])[0]


def orders_of(judge: PairJudge) -> Orders:
    """Return both orders where the judge needs them or they are asked for, else the drawn one."""
    return both_orders if judge.swap_positions else drawn_order


class Comparison(NamedTuple):
    """One model's answer to a question, and the baseline's."""

    model: str
    question_id: str
    question: str
    answer: str
    baseline: str


Decided = tuple[Comparison, float]
"""A comparison, and the model's share of the win in 0..1 by a trusted judge."""


@dataclass(frozen=True)
class Outcome:
    """What came of a comparison: the model's share of the win in 0..1, or None and why.

    `games` holds the comparison of each order asked, True where the model's answer was shown first.
    """

    comparison: Comparison
    win: float | None
    why: str | None
    games: Mapping[bool, Compared]


def comparisons(answers: Sequence[Answers], asked: QuestionSet) -> list[Comparison]:
    """Return a comparison for every model and every question that it and the baseline answered.

    What is compared are the answers after reasoning traces; a trace that never ends leaves an empty one.

    Raises:
        StudyError: the answers are of another benchmark.
        DataError: the baseline lacks an answer, or a model has none at all.
    """
    questions, baseline = asked.texts, asked.baseline
    others = [one.model for one in answers if one.benchmark != asked.benchmark]
    if others:
        raise StudyError(
            f"The answers of '{others[0]}' are of another benchmark than the questions "
            f"({asked.benchmark}): judge each benchmark by itself."
        )
    lacking = [name for name in questions if name not in baseline.texts]
    if lacking:
        raise DataError(
            f"The baseline '{baseline.model}' has no answer to {len(lacking)} of {len(questions)} "
            f"questions, the first: {questions[lacking[0]][:80]!r}. Give its whole answers."
        )
    for one in answers:
        if not set(one.texts) & set(questions):
            raise DataError(
                f"'{one.model}' answers none of the {len(questions)} questions. Check that answers, "
                "questions and baseline belong together."
            )
    return [
        Comparison(
            one.model, name, text, *map(without_reasoning, (one.texts[name], baseline.texts[name]))
        )
        for one in answers
        for name, text in questions.items()
        if name in one.texts
    ]


def pairs_of(
    asked: Sequence[Comparison], judge: PairJudge, orders: Orders, *, equal: bool = False
) -> list[Pair]:
    """Return the pairs that the judge must compare; equal answers only where `equal` asks for them."""
    return [pair for one in asked for _, pair in _games(one, judge, orders, equal)]


def compared(
    asked: Sequence[Comparison],
    judge: PairJudge,
    store: Store,
    *,
    orders: Orders,
    equal: bool = False,
    progress: OnProgress | None = None,
) -> list[Outcome]:
    """Return the outcome of each comparison, in order, asking the judge for what is not stored.

    Raises:
        ModelError: the judge cannot be asked; what was answered is stored.
    """
    games = [_games(one, judge, orders, equal) for one in asked]
    answers = iter(judge.compare([pair for own in games for _, pair in own], store, progress))
    return [
        _outcome(comparison, {model_first: next(answers) for model_first, _ in own})
        for comparison, own in zip(asked, games, strict=True)
    ]


def _games(
    comparison: Comparison, judge: PairJudge, orders: Orders, equal: bool
) -> list[tuple[bool, Pair]]:
    question, mine, theirs = comparison.question, comparison.answer, comparison.baseline
    if mine == theirs and not equal:
        return []
    shown = orders(question)[:1] if judge.symmetric else orders(question)
    return [
        (first, Pair(question, mine, theirs) if first else Pair(question, theirs, mine))
        for first in shown
    ]


def _outcome(comparison: Comparison, games: Mapping[bool, Compared]) -> Outcome:
    if not games:
        return Outcome(comparison, 0.5, None, games)
    wins = [
        None if one.share is None else one.share if model_first else 1 - one.share
        for model_first, one in games.items()
    ]
    known = [win for win in wins if win is not None]
    if len(known) < len(wins):
        why = next(one.why for one in games.values() if one.share is None)
        return Outcome(comparison, None, why, games)
    return Outcome(comparison, sum(known) / len(known), None, games)


def missing_reasons(outcomes: Sequence[Outcome], model: str, questions: int) -> Counter[str]:
    """Return how many of a model's questions have no win, by reason."""
    own = [one for one in outcomes if one.comparison.model == model]
    reasons = Counter(one.why or "" for one in own if one.win is None)
    if questions > len(own):
        reasons["without an answer"] = questions - len(own)
    return reasons


def require_complete(reasons: Mapping[str, int], *, model: str, questions: int) -> None:
    """Refuse a total over too few verdicts.

    Raises:
        StudyError: more than 1% of the questions have none.
    """
    missing = sum(reasons.values())
    if missing > TOLERATED * questions:
        counted = ", ".join(f"{count} {why}" for why, count in reasons.items())
        raise StudyError(
            f"{missing} of {questions} verdicts on '{model}' are missing ({counted}): at most "
            f"{TOLERATED:.0%} may be. What was answered is stored: run again to ask for the rest, or "
            "complete the answers."
        )


def first_place_share(outcomes: Sequence[Outcome]) -> float | None:
    """Return how far the judge prefers whatever is shown first, 0..1; 0.5 is no preference for a place.

    Only comparisons asked in both orders count, where each answer stood first once; None without any.
    """
    shares = [
        game.share
        for one in outcomes
        if one.win is not None and len(one.games) > 1
        for game in one.games.values()
        if game.share is not None
    ]
    return float(np.mean(shares)) if shares else None
