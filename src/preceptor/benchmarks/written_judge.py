"""A served chat model that writes judgements: its own answer first, then one of five verdicts.

The protocol is Arena-Hard's: temperature 0 (unless the judge's table says otherwise), and one more question
where no verdict is stated.
"""

from collections.abc import Sequence
from typing import ClassVar

from preceptor.benchmarks.cached_chat import Answer, OnProgress
from preceptor.benchmarks.judge_prompts import GAME_AGAIN, GAME_PROMPT, Pair, PairPrompt
from preceptor.benchmarks.pairwise import ChatPairJudge, Compared, JudgeKind
from preceptor.engines.base import ChatRequest, Failure
from preceptor.engines.control_tokens import cut_apart
from preceptor.engines.reasoning import without_reasoning
from preceptor.errors import StudyError
from preceptor.scorers.judge import Judge
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.types import Message

JUDGEMENT_TOKENS = 4096
"""Tokens a judgement may have, as published."""

SHARES = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "B>A": 0.25, "B>>A": 0.0}
"""What a judge can say of the answers A (shown first) and B, and how far it then prefers A."""

_NO_VERDICT = "without one verdict in the judge's text"


def verdict_in(judgement: str) -> str | None:
    """Return the verdict that a judge's text states as `[[A>B]]` and the like.

    None without one, or if it states several that differ. Source: Arena-Hard's own rule.
    """
    stated = {verdict for verdict in SHARES if f"[[{verdict}]]" in judgement}
    return stated.pop() if len(stated) == 1 else None


class WrittenJudge(ChatPairJudge):
    """A served chat model that writes judgements and ends in a verdict.

    Raises:
        StudyError: the model is run in this process, where no long judgements are written.
    """

    kind: ClassVar[JudgeKind] = "written"

    def __init__(self, model: Judge, prompt: PairPrompt = GAME_PROMPT) -> None:
        if model.endpoint is None:
            raise StudyError(
                f"'{model.label}' runs in this process, which only chooses between letters. "
                "Use --verdict-by-letter, or serve the model and give its URL."
            )
        self.prompt = prompt
        super().__init__(model, swap_positions=True)

    @property
    def name(self) -> str:
        """The model, and whose prompt it is asked by."""
        return f"{self.model.label} ({self.prompt.name})"

    def identity(self) -> Identity:
        """Return the identity of the model, the whole prompt and the words of the second question."""
        return Identity.of(
            {
                "judge": "games",
                "prompt": self.prompt.text,
                "prompt_by": "preceptor" if self.prompt == GAME_PROMPT else "the user",
                "again": GAME_AGAIN,
                "verdicts": list(SHARES),
                **self.model.model_spec(),
            }
        )

    def request(self, pair: Pair) -> ChatRequest:
        """Return what the judge is asked about one pair."""
        return self._request(self.prompt.messages(pair))

    def _request(self, messages: tuple[Message, ...]) -> ChatRequest:
        table = self.model.table
        return ChatRequest(
            messages, table.max_tokens, temperature=table.temperature, seed=table.seed
        )

    def compare(
        self, pairs: Sequence[Pair], store: Store, progress: OnProgress | None = None
    ) -> list[Compared]:
        """Return each judgement, in order, asking for what is not stored.

        Raises:
            ModelError: the judge cannot be asked; what was answered is stored.
        """
        requests = self.requests(pairs)
        first = self._cached.complete(requests, store, progress)
        again = {
            place: self._again(requests[place], answer.text)
            for place, answer in enumerate(first)
            if isinstance(answer, Answer) and not _states_any(without_reasoning(answer.text))
        }
        second = dict(zip(again, self._cached.complete(list(again.values()), store), strict=True))
        return [
            _compared(requests[place], [answer, *([second[place]] if place in second else [])])
            for place, answer in enumerate(first)
        ]

    def _again(self, request: ChatRequest, answered: str) -> ChatRequest:
        # An empty turn is refused by some endpoints.
        said = cut_apart(answered) or "..."
        turns = (Message("assistant", said), Message("user", GAME_AGAIN))
        return self._request(request.messages + turns)


def _states_any(text: str) -> bool:
    return any(f"[[{verdict}]]" in text for verdict in SHARES)


def _compared(request: ChatRequest, answers: Sequence[Answer | Failure]) -> Compared:
    prompt = request.messages[-1].content
    texts = []
    for answer in answers:
        if isinstance(answer, Failure):
            return Compared(None, f"unanswered: {answer.kind}", prompt=prompt)
        texts.append(answer.text)
    text = "\n".join(texts)
    verdict = verdict_in("\n".join(map(without_reasoning, texts)))
    if verdict is None:
        return Compared(None, _NO_VERDICT, Answer(text), prompt)
    return Compared(SHARES[verdict], None, Answer(text), prompt, verdict)
