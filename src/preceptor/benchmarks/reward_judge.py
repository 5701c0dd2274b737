"""A reward model as a judge of two answers.

The difference of two rewards is the logit that the model was trained with (Bradley & Terry 1952), so
`sigmoid(r_first - r_second)` is its probability that the first is better. The rewards are those that rank
teachers, so a model may not check its own prediction.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from preceptor.benchmarks.cached_chat import Cost, OnProgress
from preceptor.benchmarks.judge_prompts import Pair
from preceptor.benchmarks.pairwise import Compared, JudgeKind, PairJudge
from preceptor.errors import StudyError
from preceptor.scorers.reward_model import RewardModel
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.store.writer import StoreWriter
from preceptor.types import Instruction, Response


class RewardJudge(PairJudge):
    """A reward model as a judge of pairs: `P(first) = sigmoid(r_first - r_second)`; order cannot matter.

    Its rewards are those of `rank --reward-model`, and are shared with it in the store. Such a judge says
    nothing about a prediction that its own rewards made.
    """

    kind: ClassVar[JudgeKind] = "reward"
    symmetric: ClassVar[bool] = True

    def __init__(self, scorer: RewardModel) -> None:
        self.scorer = scorer

    @property
    def name(self) -> str:
        """The model, and that it is no chat model."""
        return f"{self.scorer.located.name} (reward model)"

    def identity(self) -> Identity:
        """Return the identity of the model and of the reading of its rewards."""
        spec = self.scorer.identity().spec
        return Identity.of({"judge": "reward model", "share": "sigmoid", "scorer": spec})

    def require_independent(self, made_by: Sequence[Identity | str]) -> None:
        """Refuse to check a prediction that this model's own rewards made; see `PairJudge`."""
        if self.scorer.identity() in made_by or self.scorer.located.name in made_by:
            raise StudyError(
                f"The reward model '{self.scorer.located.name}' made the prediction that it would "
                "check: it would agree with itself. Judge with another model."
            )

    def release(self) -> None:
        """Free the model's memory."""
        self.scorer.release()

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return how many rewards are missing; nothing is paid for."""
        texts = _responses(pairs)
        known = set(store.scores(self.scorer.identity()).keys().tolist())
        missing = sum(key not in known for key in texts)
        return Cost(missing, len(texts) - missing, 0, 0, None)

    def compare(
        self, pairs: Sequence[Pair], store: Store, progress: OnProgress | None = None
    ) -> list[Compared]:
        """Return a comparison for each pair, scoring what is not stored."""
        texts = _responses(pairs)
        partition = store.scores(self.scorer.identity())
        known = set(partition.keys().tolist())
        lacking = [response for key, response in texts.items() if key not in known]
        done = len(texts) - len(lacking)
        with StoreWriter(partition, self.scorer.flush) as writer:
            for batch in self.scorer.score(lacking) if lacking else ():
                writer.add(batch)
                done += len(batch)
                if progress is not None:
                    progress(done, len(texts))
        columns = partition.columns(list(texts), ["score"])
        rewards = dict(zip(texts, columns["score"].tolist(), strict=True))
        return [_by_rewards(*(rewards[key] for key in _keys(pair))) for pair in pairs]


def _keys(pair: Pair) -> tuple[bytes, bytes]:
    question = Instruction.from_text(pair.question)
    return Response("", question, pair.first).key, Response("", question, pair.second).key


def _responses(pairs: Sequence[Pair]) -> dict[bytes, Response]:
    """Return every different answer by its key."""
    found: dict[bytes, Response] = {}
    for pair in pairs:
        question = Instruction.from_text(pair.question)
        for text in (pair.first, pair.second):
            response = Response("", question, text)
            found.setdefault(response.key, response)
    return found


def _by_rewards(first: float, second: float) -> Compared:
    difference = first - second
    if math.isnan(difference):
        return Compared(None, "without a reward")
    return Compared(float(1 / (1 + np.exp(-np.clip(difference, -700, 700)))))
