"""Likelihoods from a server that tells the log-probabilities of a given prompt: vLLM's, or one that echoes.

Prompt and response go as our own token ids, so that the text that is scored is the text that any other
engine scores. What comes back is checked token by token; a server with another tokenizer, or whose numbers
are not those of the prompt, is refused when the engine is loaded.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import (
    NOTHING,
    Completion,
    Extra,
    Failure,
    Measured,
    Numbers,
    TokenizedPair,
)
from preceptor.engines.chat.prompts import PromptClient, Told, asked_of
from preceptor.engines.chat.watch import Watch
from preceptor.engines.chat.wire import as_object, printable
from preceptor.engines.loading import load_tokenizer
from preceptor.engines.models import LocatedModel
from preceptor.errors import ModelError

_LOGGER = logging.getLogger(__name__)
_PROBE = "The quick brown fox jumps over 13 lazy dogs; then it sleeps, and 7 of them do not."
_MOST_BETWEEN_BATCHES = 0.2
"""Nats that a token's log-probability may differ by with what shares a batch, in bfloat16."""
_ROUNDED = 1e-3
_LEAST = -9999.0
"""What vLLM writes for a probability of zero, which JSON cannot hold the logarithm of."""

Columns = Mapping[str, Numbers]


class ServedLikelihood:
    """Loss and rank from vLLM's `prompt_logprobs`; a token's rank counts those at least as likely."""

    served = True
    measures: ClassVar[tuple[str, ...]] = ("nll", "rank")
    asks: ClassVar[Mapping[str, object]] = {
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "add_special_tokens": False,
    }

    @classmethod
    def preflight(cls, student: Student, runtime: Runtime) -> None:
        """Check that something says where the student is served, and the key; nothing is asked."""
        PromptClient(runtime.endpoint(student.model), student.model, cls.asks)

    @classmethod
    def load(cls, located: LocatedModel, student: Student, runtime: Runtime) -> Self:
        """Return the engine, once the server that `runtime.endpoints` names has shown what it tells.

        Raises:
            StudyError: nothing says where the student is served.
            ModelError: the server cannot be reached, reads texts otherwise, or tells other numbers.
        """
        engine = cls(PromptClient(runtime.endpoint(student.model), student.model, cls.asks))
        ids = load_tokenizer(located).encode(_PROBE, add_special_tokens=False)
        engine._require_same_tokens(tuple(ids))
        engine._require_numbers_of_prompt(tuple(ids))
        engine._watch.answered()
        return engine

    def __init__(self, client: PromptClient) -> None:
        self._client = client
        self._watch = Watch(
            f"The server of '{client.model}'",
            client.endpoint,
            lambda: client.complete(asked_of(_PROBE)),
        )

    def release(self) -> None:
        """Do nothing: the model is the server's."""

    def measure(
        self, pairs: Sequence[TokenizedPair], extra: Extra = NOTHING
    ) -> Iterator[list[Measured]]:
        """Yield each pair's columns as they come; what was not answered is left out and asked again.

        A pair that the server refuses, or whose answer does not hold its numbers, has NaN.

        Raises:
            ModelError: the server answers no longer.
        """
        asked = [asked_of((*pair.prompt, *pair.response)) for pair in pairs]
        batch: list[Measured] = []
        for found in self._client.complete_all(asked):
            try:
                columns = self._columns(pairs[found.index], found.outcome)
            except ModelError:
                yield batch
                raise
            if columns is not None:
                batch.append(Measured(found.index, columns))
            if batch and not found.more:
                yield batch
                batch = []
        if batch:
            yield batch

    def _columns(self, pair: TokenizedPair, outcome: Completion | Failure) -> Columns | None:
        ids = (*pair.prompt, *pair.response)
        if isinstance(outcome, Failure):
            note = self._watch.note(outcome)
            _LOGGER.warning("no numbers of a response: %s, %s", outcome.kind, outcome.detail)
            if note is None:
                return None
        elif isinstance(outcome, Told):
            self._watch.answered()
            found = self.numbers(outcome.of_prompt, ids, len(pair.prompt))
            if found is not None:
                return found
            _LOGGER.warning("%s answered without the numbers of a prompt", self._client.model)
        nothing = np.full(len(pair.response), np.nan, np.float32)
        return dict.fromkeys(self.measures, nothing)

    @staticmethod
    def numbers(choice: Mapping[str, Any], ids: Sequence[int], start: int) -> Columns | None:
        """Return the columns of the tokens from `start` on; None where an answer is not of these ids."""
        entries = choice.get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(ids):
            return None
        found = [
            as_object(as_object(entry).get(str(token)))
            for token, entry in zip(ids[start:], entries[start:], strict=True)
        ]
        ranks = [one.get("rank") for one in found]
        nll = _losses([one.get("logprob") for one in found])
        if nll is None or not all(type(rank) is int and 0 < rank < 2**31 for rank in ranks):
            return None
        return {"nll": nll, "rank": np.array(ranks, np.float32)}

    def _require_same_tokens(self, ids: tuple[int, ...]) -> None:
        """Have the server read a text, and hold the ids that it finds against ours."""
        if self.numbers(self._told(_PROBE), ids, 1) is None:
            raise ModelError(
                f"The server of '{self._client.model}' reads a text as other tokens than the student's own "
                f"tokenizer, or tells no prompt_logprobs. Serve the student's own model "
                "with vLLM, or name the engine that the server can do (served, echo)."
            )

    def _require_numbers_of_prompt(self, ids: tuple[int, ...]) -> None:
        """Ask for two prompts that begin alike: the numbers there must not depend on what follows."""
        half = len(ids) // 2
        asked = (ids, (*ids[:half], *reversed(ids[half:])))
        one, other = (self.numbers(self._told(prompt), prompt, 1) for prompt in asked)
        alike = (
            one is not None
            and other is not None
            and np.allclose(
                one["nll"][: half - 1], other["nll"][: half - 1], atol=_MOST_BETWEEN_BATCHES
            )
            and len(set(one["nll"].tolist())) > half
        )
        if not alike:
            raise ModelError(
                f"What the server of '{self._client.model}' tells of a prompt's tokens depends on what "
                "follows them, or is the same for all: these are not their log-probabilities."
            )

    def _told(self, prompt: str | tuple[int, ...]) -> Mapping[str, Any]:
        outcome = self._client.complete(asked_of(prompt))
        if isinstance(outcome, Told):
            return outcome.of_prompt
        detail = printable(outcome.detail) if isinstance(outcome, Failure) else "no answer"
        raise ModelError(
            f"The server of '{self._client.model}' does not tell a prompt's log-probabilities: {detail}"
        )


class EchoLikelihood(ServedLikelihood):
    """Loss alone, from a server that echoes a prompt with its log-probabilities (`echo`, `logprobs`)."""

    measures: ClassVar[tuple[str, ...]] = ("nll",)
    asks: ClassVar[Mapping[str, object]] = {
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }

    @staticmethod
    def numbers(choice: Mapping[str, Any], ids: Sequence[int], start: int) -> Columns | None:
        """Return the losses from `start` on; None where there are not as many as ids, or one more."""
        values = as_object(choice.get("logprobs")).get("token_logprobs")
        if not isinstance(values, list) or len(values) - len(ids) not in (0, 1):
            return None
        nll = _losses(values[start : len(ids)])
        return None if nll is None else {"nll": nll}

    def _require_same_tokens(self, ids: tuple[int, ...]) -> None:
        """Have the server spell our ids."""
        tokens = as_object(self._told(ids).get("logprobs")).get("tokens")
        spelled = "".join(map(str, tokens[: len(ids)])) if isinstance(tokens, list) else ""
        if spelled.strip() != _PROBE:
            raise ModelError(
                f"The server of '{self._client.model}' spells the student's tokens as "
                f"'{printable(spelled)}': expected '{_PROBE}'. It has "
                "another tokenizer, or does not echo a prompt of ids."
            )


def _losses(values: Sequence[object]) -> "Numbers | None":
    """Return log-probabilities as losses in nats, infinite for a probability of zero; None if one is none."""
    losses = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not value <= _ROUNDED:  # NaN is refused too
            return None
        losses.append(math.inf if value <= _LEAST else max(0.0, -value))
    return np.array(losses, np.float32)
