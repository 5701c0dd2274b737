"""A reward model as a judge of two answers.

The one idea: the difference of two rewards is the logit that the model was trained with (Bradley & Terry), so
`sigmoid(r_first - r_second)` is its probability that the first is better. The rewards are those that rank
teachers, hence the refusal to let a model check its own prediction.
"""

import math
from collections.abc import Sequence

import numpy as np

from preceptor.benchmarks.cached_chat import Cost, Told
from preceptor.benchmarks.judge_prompts import Pair
from preceptor.benchmarks.pairwise import Compared, PairJudge
from preceptor.errors import StudyError
from preceptor.scorers.reward_model import RewardModel
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.types import Instruction, Response


class RewardJudge:
    """A reward model as a judge of pairs: `P(first) = sigmoid(r_first - r_second)`; order cannot matter.

    Its rewards are those of `rank --reward-model`, and are shared with it in the store. Such a judge says
    nothing about a prediction that its own rewards made: see `require_independent`.
    """

    symmetric = True

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

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return how many rewards are missing; nothing is paid for."""
        texts = _responses(pairs)
        known = set(store.scores(self.scorer.identity()).keys().tolist())
        missing = sum(key not in known for key in texts)
        return Cost(missing, len(texts) - missing, 0, 0, None)

    def compare(
        self, pairs: Sequence[Pair], store: Store, told: Told | None = None
    ) -> list[Compared]:
        """Return a comparison for each pair, scoring what is not stored."""
        texts = _responses(pairs)
        partition = store.scores(self.scorer.identity())
        known = set(partition.keys().tolist())
        lacking = [response for key, response in texts.items() if key not in known]
        done = len(texts) - len(lacking)
        for batch in self.scorer.score(lacking) if lacking else ():
            partition.append(batch)
            done += len(batch)
            if told is not None:
                told(done, len(texts))
        if lacking:
            partition.compact()
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


def require_independent(judge: PairJudge, made_by: Sequence[Identity | str]) -> None:
    """Make sure that the judge is not what made the prediction it is to check.

    Args:
        judge: who judges.
        made_by: the scorers behind the prediction: identities, or where only a ranking is at hand the
            names in its settings (`Ranking.reward_source`).

    Raises:
        StudyError: the judge's reward model is among them.
    """
    if not isinstance(judge, RewardJudge):
        return
    scorer = judge.scorer
    if scorer.identity() in made_by or scorer.located.name in made_by:
        raise StudyError(
            f"The reward model '{scorer.located.name}' made the prediction that it would "
            "check: it would agree with itself. Judge with another model."
        )
