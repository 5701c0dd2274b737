"""Judges of two answers, and the first of them: a chat model that names the better one by a letter.

A comparison is a share from 0 to 1: how far the judge prefers the answer shown first. What gives no share
says why, and is never half a win.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from preceptor.benchmarks.cached_chat import (
    NO_LOG_PROBABILITIES,
    Answer,
    CachedChat,
    Cost,
    OnProgress,
)
from preceptor.benchmarks.judge_prompts import CHOICE_PROMPT, LABELS, Pair, PairPrompt
from preceptor.config.finetune import ChatJudge
from preceptor.config.judges import PRESETS
from preceptor.config.reward_models import repository_of
from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.engines.base import ChatRequest, Failure
from preceptor.engines.control_tokens import tell_of_cuts
from preceptor.errors import ModelError
from preceptor.scorers.judge import Judge, LocalJudge
from preceptor.store.identity import Identity
from preceptor.store.store import Store

logger = logging.getLogger(__name__)

JudgeKind = Literal["letter", "written", "reward", "refusal", "rules"]
"""How a judge decides: by a letter's probability, a written judgement, two rewards, whether one answer
refuses, or no model at all."""

ALTERNATIVES = 5
"""Likeliest tokens asked for, as in AlpacaEval 2: a label beyond them has no probability."""

NO_LABEL = "without a label in the judge's answer"
"""Why an answer gives no share."""

_RUNTIME = Runtime()
_PROBE = Pair("What is the capital of France?", "Paris.", "A banana is a fruit.")


class Compared(NamedTuple):
    """How far the answer shown first is preferred, 0..1, or None and why; and what the judge answered.

    Of a written judgement `prompt` is what was asked, and `verdict` its verdict on A (shown first) and B.
    """

    share: float | None
    why: str | None = None
    answer: Answer | None = None
    prompt: str | None = None
    verdict: str | None = None


class PairJudge(Protocol):
    """Whatever can compare two answers to a question; derive from it to have the defaults.

    `symmetric` says that the order of the answers cannot matter, so one order is enough; `swap_positions`
    that pairs are shown in both orders even where the benchmark shows one.
    """

    kind: ClassVar[JudgeKind]
    symmetric: ClassVar[bool] = False
    swap_positions: bool = True

    @property
    def name(self) -> str:
        """The label in tables and files."""
        ...

    def identity(self) -> Identity:
        """Return what bears on the verdicts: model, prompt, reading."""
        ...

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return what comparing these would take; what is stored costs nothing."""
        ...

    def compare(
        self, pairs: Sequence[Pair], store: Store, progress: OnProgress | None = None
    ) -> list[Compared]:
        """Return a comparison for each pair, in order."""
        ...

    def preflight(self) -> None:
        """Find the model, its address and key, and ask nothing; ModelError where one cannot be used."""
        self.identity()

    def require_independent(self, made_by: Sequence[Identity | str]) -> None:
        """Make sure that the judge is not what made the prediction it is to check.

        Args:
            made_by: the scorers behind the prediction: identities, or where only a ranking is at hand the
                names in its settings (`Ranking.reward_source`).

        Raises:
            StudyError: it is.
        """
        return None

    def probe(self, store: Store) -> None:
        """Ask one easy question, once ever, and see that the answer can be read; ModelError if not."""
        return None

    def release(self) -> None:
        """Free the memory of a model that runs in this process."""
        return None


class ChatPairJudge(PairJudge):
    """What judges that are chat models share."""

    def __init__(self, model: Judge, *, swap_positions: bool = False) -> None:
        self.model = model
        by_batch = model.endpoint is not None and model.endpoint.batch_api
        # Small local models prefer a place more than an answer: only both orders cancel that.
        self.swap_positions = swap_positions or model.endpoint is None
        self._cached = CachedChat(
            lambda partition: model.batches_in(partition) if by_batch else model.chat,
            self.identity(),
            who=f"The judge '{model.table.model}'",
            where=model.endpoint or "this process",
            flush=model.flush,
        )

    @abstractmethod
    def request(self, pair: Pair) -> ChatRequest:
        """Return what the judge is asked about one pair."""

    def requests(self, pairs: Sequence[Pair]) -> list[ChatRequest]:
        """Return what the judge is asked about each pair, and log what its texts have that is cut apart."""
        tell_of_cuts(dict.fromkeys(text for pair in pairs for text in pair), self.name)
        return list(map(self.request, pairs))

    def preflight(self) -> None:
        """Check address and key, or find the model; nothing is asked."""
        self.identity()
        self.model.preflight()

    def release(self) -> None:
        """Free the model's memory."""
        self.model.release()

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return what comparing these would take, probe and second questions not counted."""
        at = self.model.endpoint
        prices = (None, None) if at is None else at.prices
        return self._cached.cost(list(map(self.request, pairs)), store, prices)


class ChoiceJudge(ChatPairJudge):
    """A chat model that names the better of the answers m (shown first) and M with one token.

    Source: AlpacaEval 2's protocol (arXiv 2404.04475). The share is `P(m) / (P(m) + P(M))`. With `written`
    it is 1 or 0 by the letter written, for endpoints that return no log-probabilities.
    """

    kind: ClassVar[JudgeKind] = "letter"

    def __init__(
        self,
        model: Judge,
        prompt: PairPrompt = CHOICE_PROMPT,
        *,
        written: bool = False,
        swap_positions: bool = False,
    ) -> None:
        self.prompt, self.written = prompt, written
        super().__init__(model, swap_positions=swap_positions)

    @property
    def name(self) -> str:
        """The model, and whose prompt it is asked by."""
        return f"{self.model.label} ({self.prompt.name}{', written' * self.written})"

    def identity(self) -> Identity:
        """Return the identity of the model, the whole prompt and how its answer is read."""
        return Identity.of(
            {
                "judge": "choice",
                "prompt": self.prompt.text,
                "prompt_by": "preceptor" if self.prompt == CHOICE_PROMPT else "the user",
                "labels": list(LABELS),
                "alternatives": 0 if self.written else ALTERNATIVES,
                **self.model.model_spec(),
            }
        )

    def request(self, pair: Pair) -> ChatRequest:
        """Return what the judge is asked about one pair."""
        return ChatRequest(
            self.prompt.messages(pair),
            max_tokens=self.model.table.max_tokens,
            temperature=self.model.table.temperature,
            seed=self.model.table.seed,
            alternatives=0 if self.written else ALTERNATIVES,
            choices=LABELS,
        )

    def probe(self, store: Store) -> None:
        """Ask about one easy pair, once ever, and see that the answer can be read.

        Raises:
            ModelError: the judge cannot be asked, returns no log-probabilities, or names neither label.
        """
        (answer,) = self._cached.complete([self.request(_PROBE)], store)
        who = f"The judge '{self.model.table.model}'"
        if answer is NO_LOG_PROBABILITIES:
            raise ModelError(
                f"{who} returns no log-probabilities. Ask an endpoint that does, or take the letter "
                "it writes with --no-logprobs: each verdict is then 0 or 1 in place of a share."
            )
        if isinstance(answer, Failure):
            raise ModelError(f"{who} gave no answer ({answer.kind}: {answer.detail}). Try again.")
        if _share(answer, written=self.written).share is None:
            seen = ", ".join(repr(text) for text, _ in answer.likely) or repr(answer.text[:40])
            raise ModelError(
                f"{who} answers neither m nor M to an easy question; it says {seen}. A model that "
                "writes a reasoning trace, or another prompt, needs another kind of judge."
            )
        if not self.written and {"m", "M"} - {text for text, _ in answer.likely}:
            logger.warning(
                "%s: only one label is among the %d likeliest tokens", who, len(answer.likely)
            )

    def compare(
        self, pairs: Sequence[Pair], store: Store, progress: OnProgress | None = None
    ) -> list[Compared]:
        """Return a comparison for each pair, in order, asking for what is not stored.

        Raises:
            ModelError: as `probe`, or the endpoint is down; what was answered is stored.
        """
        requests = self.requests(pairs)
        if len(self._cached.stored(requests, store)) < len(set(pairs)):
            self.probe(store)
        outcomes = self._cached.complete(requests, store, progress)
        return [
            Compared(None, f"unanswered: {outcome.kind}")
            if isinstance(outcome, Failure)
            else _share(outcome, written=self.written)
            for outcome in outcomes
        ]


def _share(answer: Answer, *, written: bool) -> Compared:
    if written:
        letter = answer.text.strip()
        share = {LABELS[0]: 1.0, LABELS[1]: 0.0}.get(letter)
    else:
        share = first_share(dict(answer.likely))
    return Compared(share, NO_LABEL if share is None else None, answer)


def first_share(likely: Mapping[str, float]) -> float | None:
    """Return `P(m) / (P(m) + P(M))` from log-probabilities; a label that is absent has none.

    None where both are absent.
    """
    first, second = (math.exp(likely[label]) if label in likely else 0.0 for label in LABELS)
    return first / (first + second) if first + second else None


def served_model(
    model: str,
    endpoint: Endpoint,
    *,
    max_tokens: int = 1,
    log_probabilities: bool = True,
    **asked: Any,
) -> Judge:
    """Return the chat model served there, fit to compare answers; `asked` are temperature and request."""
    table = JudgeReward(model=model, max_tokens=max_tokens, logprobs=log_probabilities, **asked)
    return Judge(table, endpoint)


def local_model(judge: ChatJudge, runtime: Runtime = _RUNTIME) -> LocalJudge:
    """Return a model run in this process, fit for a `ChoiceJudge`."""
    table = JudgeReward(
        model=repository_of(
            judge.located,
            PRESETS,
            kind="judge",
            otherwise=", or with --judge-url the name as served",
        ),
        revision=judge.revision,
        engine="transformers",
        chat_template=judge.chat_template,
        max_length=judge.max_length,
        dtype=judge.dtype,
        max_tokens=1,
    )
    return LocalJudge(table, runtime)
