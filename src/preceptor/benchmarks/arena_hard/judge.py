"""Arena-Hard v0.1 with any judge: games with a written judgement, or a choice between two letters.

The one idea: the protocol asks for two games a prompt, the order swapped, in which the judge works out its
own answer and ends in one of five verdicts. A judge too small for that, or a reward model, is asked only
which answer is better; its games count by probability, and the result says so.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from preceptor.benchmarks.answer_files import Answers
from preceptor.benchmarks.arena_hard.files import judged_battles
from preceptor.benchmarks.arena_hard.score import GAMES, VERDICTS, PromptBattles, verdict_in
from preceptor.benchmarks.cached_chat import CachedChat, Cost, Told
from preceptor.benchmarks.comparisons import (
    Comparison,
    Outcome,
    both_orders,
    comparisons,
    first_place_share,
    held,
    missing_reasons,
    require_complete,
)
from preceptor.benchmarks.judge_prompts import GAME_AGAIN, GAME_PROMPT, Pair, PairPrompt
from preceptor.benchmarks.judgement_rows import Row
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.benchmarks.questions import QuestionSet
from preceptor.benchmarks.verdicts import Judged
from preceptor.engines.base import ChatRequest, Failure
from preceptor.errors import StudyError
from preceptor.scorers.judge import Judge
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.types import Message

JUDGEMENT_TOKENS = 4096
"""Tokens a judgement may have, as published."""

_NO_VERDICT = "without one verdict in the judge's text"


class Game(NamedTuple):
    """One game: what the judge wrote, its verdict on A (shown first) and B, or None and why."""

    prompt: str
    judgement: str | None
    verdict: str | None
    why: str | None


class GameJudge:
    """A served chat model that writes judgements; temperature 0, one retry where it states no verdict.

    Raises:
        StudyError: the model is run in this process, where no long judgements are written.
    """

    def __init__(self, model: Judge, prompt: PairPrompt = GAME_PROMPT) -> None:
        if model.endpoint is None:
            raise StudyError(
                f"'{model.table.model}' runs in this process, which only chooses between letters. "
                "Judge Arena-Hard by choice, or serve the model and give its URL."
            )
        self.model, self.prompt = model, prompt
        self._asked = CachedChat(
            lambda: model.chat,
            self.identity(),
            who=f"The judge '{model.table.model}'",
            where=model.endpoint,
            flush="each",
        )

    @property
    def name(self) -> str:
        """The model, and whose prompt it is asked by."""
        return f"{self.model.table.model} ({self.prompt.name})"

    def identity(self) -> Identity:
        """Return the identity of the model, the whole prompt and the words of the retry."""
        return Identity.of(
            {
                "judge": "games",
                "prompt": self.prompt.text,
                "prompt_by": "preceptor" if self.prompt == GAME_PROMPT else "the user",
                "again": GAME_AGAIN,
                "verdicts": list(VERDICTS),
                **self.model.model_spec(),
            }
        )

    def request(self, pair: Pair) -> ChatRequest:
        """Return what the judge is asked about one game."""
        return self._request(self.prompt.messages(pair))

    def _request(self, messages: tuple[Message, ...]) -> ChatRequest:
        table = self.model.table
        return ChatRequest(messages, max_tokens=table.max_tokens, seed=table.seed)

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return what judging these games would take, retries not counted."""
        at = self.model.endpoint
        prices = (None, None) if at is None else (at.price_in, at.price_out)
        return self._asked.cost(list(map(self.request, pairs)), store, prices)

    def games(self, pairs: Sequence[Pair], store: Store, told: Told | None = None) -> list[Game]:
        """Return each game, in order, asking for what is not stored.

        Raises:
            ModelError: the judge cannot be asked; what was answered is stored.
        """
        requests = list(map(self.request, pairs))
        first = self._asked.ask(requests, store, told)
        again = {
            place: self._once_more(requests[place], answer.text)
            for place, answer in enumerate(first)
            if not isinstance(answer, Failure) and not _stated(answer.text)
        }
        second = dict(zip(again, self._asked.ask(list(again.values()), store), strict=True))
        return [
            self._game(requests[place], (answer, second[place]) if place in second else (answer,))
            for place, answer in enumerate(first)
        ]

    def _once_more(self, request: ChatRequest, said: str) -> ChatRequest:
        # An empty turn is refused by some endpoints.
        turns = (Message("assistant", said or "..."), Message("user", GAME_AGAIN))
        return self._request(request.messages + turns)

    def _game(self, request: ChatRequest, answers: Sequence[object]) -> Game:
        prompt = request.messages[-1].content
        failure = next((one for one in answers if isinstance(one, Failure)), None)
        if failure is not None:
            return Game(prompt, None, None, f"unanswered: {failure.kind}")
        text = "\n".join(str(getattr(one, "text", "")) for one in answers)
        verdict = verdict_in(text)
        return Game(prompt, text, verdict, None if verdict else _NO_VERDICT)


def _stated(text: str) -> bool:
    return any(f"[[{verdict}]]" in text for verdict in VERDICTS)


def game_pairs(asked: Sequence[Comparison]) -> list[Pair]:
    """Return two games for each contest; in the first the baseline's answer is A."""
    return [
        pair
        for one in asked
        for pair in (
            Pair(one.question, one.baseline, one.answer),
            Pair(one.question, one.answer, one.baseline),
        )
    ]


def judge_arena_hard(
    answers: Sequence[Answers],
    questions: QuestionSet,
    judge: PairJudge | GameJudge,
    store: Store,
    *,
    told: Told | None = None,
) -> Judged:
    """Return the battles of every model, asking for the games that are not stored.

    Args:
        answers: one for each model.
        questions: what is asked, and the baseline's answers.
        judge: one that writes judgements, or one that only chooses.
        store: where verdicts are kept.
        told: called with the progress.

    Raises:
        StudyError: more than 1% of a model's games have no verdict; what was answered is stored.
        DataError: answers, questions and baseline do not belong together.
        ModelError: the judge cannot be asked.
    """
    asked = comparisons(answers, questions.baseline, questions.questions)
    if isinstance(judge, GameJudge):
        return _by_games(asked, questions, judge, store, told)
    outcomes = held(asked, judge, store, orders=both_orders, told=told)
    battles, first = [], {}
    for one in answers:
        own = [outcome for outcome in outcomes if outcome.comparison.model == one.model]
        count = len(questions.questions)
        reasons = missing_reasons(own, one.model, count)
        require_complete(reasons, model=one.model, questions=count)
        battles.append(_chosen(own, reasons, baseline=questions.baseline.model, judge=judge.name))
        first[one.model] = first_place_share(own)
    return Judged(
        benchmark="arena_hard",
        baseline=questions.baseline.model,
        judge=judge.identity(),
        judge_name=battles[0].judge or judge.name,
        battles=tuple(battles),
        first_place=first,
    )


def _chosen(
    outcomes: Sequence[Outcome], reasons: Counter[str], *, baseline: str, judge: str
) -> PromptBattles:
    """Return battles of which each game is won by its probability; both games stand for one prompt."""
    judged = [(one.comparison.question_id, one.win) for one in outcomes if one.win is not None]
    wins = np.array([win for _, win in judged], dtype=np.float64)
    return PromptBattles(
        outcomes[0].comparison.model,
        baseline,
        tuple(name for name, _ in judged),
        won=GAMES * wins,
        tied=np.zeros(len(wins)),
        lost=GAMES * (1 - wins),
        verdicts=GAMES * len(wins),
        judge=f"{judge} by choice",
        dropped=dict(reasons),
    )


def _by_games(
    asked: Sequence[Comparison],
    questions: QuestionSet,
    judge: GameJudge,
    store: Store,
    told: Told | None,
) -> Judged:
    games = judge.games(game_pairs(asked), store, told)
    rows = judgement_rows(asked, games, judge=judge.name)
    count = GAMES * len(questions.questions)
    for model in dict.fromkeys(one.model for one in asked):
        own = [g for place, g in enumerate(games) if asked[place // GAMES].model == model]
        reasons = Counter(game.why or "" for game in own if game.verdict is None)
        if count > len(own):
            reasons["without an answer"] = count - len(own)
        require_complete(reasons, model=model, questions=count)
    baseline = questions.baseline.model
    return Judged(
        benchmark="arena_hard",
        baseline=baseline,
        judge=judge.identity(),
        judge_name=judge.name,
        battles=tuple(judged_battles(rows, "the judge's verdicts", baseline=baseline)),
        rows=tuple(rows),
    )


def judgement_rows(asked: Sequence[Comparison], games: Sequence[Game], *, judge: str) -> list[Row]:
    """Return one row per contest with its two games, as Arena-Hard's own tool writes them."""
    return [
        {
            "question_id": comparison.question_id,
            "model": comparison.model,
            "judge": judge,
            "games": [
                {"user_prompt": game.prompt, "judgment": game.judgement, "score": game.verdict}
                for game in games[GAMES * place : GAMES * (place + 1)]
            ],
        }
        for place, comparison in enumerate(asked)
    ]
