"""Likelihoods from a server that tells the log-probabilities of a given prompt: vLLM's, or one that echoes.

Prompt and response go as our own token ids, so that the text that is scored is the text that any other
engine scores. What comes back is checked token by token; a server with another tokenizer, or whose numbers
are not those of the prompt or no log-probabilities, is refused when the engine is loaded.
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
from preceptor.engines.models import LocatedModel, context_length, vocabulary_of
from preceptor.engines.vllm_likelihood import bytes_of_token
from preceptor.errors import ModelError
from preceptor.types import NoteKind

_LOGGER = logging.getLogger(__name__)
_PROBE = "The quick brown fox jumps over 13 lazy dogs; then it sleeps, and 7 of them do not."
_MOST_BETWEEN_BATCHES = 0.2
"""Nats that a token's log-probability may differ by with what shares a batch, in bfloat16."""
_ROUNDED = 1e-3
_LEAST = -9999.0
"""What vLLM writes for a probability of zero, which JSON cannot hold the logarithm of."""
_ELSEWHERE = (
    "vLLM's server does, by prompt_logprobs; llama.cpp's and most hosted services do not. Serve the student "
    "with vLLM, or have it measured in this process (engine = 'transformers')."
)

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
    tries: ClassVar[Mapping[str, object]] = {**asks, "prompt_logprobs": 1}
    """What it is asked when it is tried: for the likeliest token of each place too."""

    @classmethod
    def preflight(cls, student: Student, runtime: Runtime) -> None:
        """Check that something says where the student is served, and the key; nothing is asked."""
        PromptClient(runtime.endpoint(student.model), student.model, cls.asks)

    @staticmethod
    def memory_note(located: LocatedModel, _runtime: Runtime) -> str:
        """Say what bounds the memory of log-probabilities, for plans."""
        each = bytes_of_token(located) / 1e6
        return f"its server takes {each:.1f} MB for each of its --max-num-batched-tokens"

    @classmethod
    def load(cls, located: LocatedModel, student: Student, runtime: Runtime) -> Self:
        """Return the engine, once the server that `runtime.endpoints` names has shown what it tells.

        Raises:
            StudyError: nothing says where the student is served.
            ModelError: the server cannot be reached, reads texts otherwise, or tells other numbers.
        """
        tokenizer = load_tokenizer(located)
        ids = tuple(tokenizer.encode(_PROBE, add_special_tokens=False))
        lengths = [one for one in (student.max_length, context_length(located)) if one]
        engine = cls(
            *(
                PromptClient(runtime.endpoint(student.model), student.model, asks)
                for asks in (cls.asks, cls.tries)
            ),
            probe=ids,
            vocabulary=max(len(tokenizer), vocabulary_of(located) or 0),
            longest=min(lengths, default=None),
        )
        engine._try()
        engine._watch.works()
        return engine

    def __init__(
        self,
        client: PromptClient,
        trying: PromptClient,
        *,
        probe: tuple[int, ...],
        vocabulary: int,
        longest: int | None = None,
    ) -> None:
        """`probe` are our ids of the text by which a server is tried.

        `longest` is how many tokens the student reads at most.
        """
        self._client, self._trying = client, trying
        self._probe, self._vocabulary, self._longest = probe, vocabulary, longest
        self._shown: Numbers | None = None
        self._interruptions = 0
        self._heard: set[str] = set()
        self._tried: set[str] = set()
        self._context = client.context()
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

        A pair that the server refuses has NaN and a note, and so has one that fills the context and leaves no
        room for the token that is always answered. One whose answer does not hold its numbers has NaN.

        Raises:
            ModelError: the server answers no longer, or takes fewer tokens than the student and these pairs.
        """
        fits, unfit = self._divided(pairs)
        if unfit:
            note = NoteKind.NO_ROOM.note("for the token that the server always answers")
            yield [Measured(index, self._nothing(pairs[index]), note=note) for index in unfit]
        asked = [asked_of((*pairs[index].prompt, *pairs[index].response)) for index in fits]
        batch: list[Measured] = []
        for found in self._client.complete_all(asked):
            try:
                measured = self._measured(fits[found.index], pairs, found.outcome)
            except ModelError:
                yield batch
                raise
            if measured is not None:
                batch.append(measured)
            if batch and not found.more:
                yield batch
                batch = []
        if batch:
            yield batch

    def _divided(self, pairs: Sequence[TokenizedPair]) -> tuple[list[int], list[int]]:
        """Return the places of the pairs to ask for, and of those for which no server has room.

        Raises:
            ModelError: it is this server that has no room, and the student reads more.
        """
        lengths = [len(pair.prompt) + len(pair.response) for pair in pairs]
        context = math.inf if self._context is None else self._context
        fits = [index for index, length in enumerate(lengths) if length < context]
        unfit = [index for index, length in enumerate(lengths) if length >= context]
        if unfit and (self._longest is None or self._longest > context):
            raise ModelError(
                f"The server of '{self._client.model}' takes {context:,} tokens (its max_model_len), one of "
                f"them for an answer, and {len(unfit):,} of {len(pairs):,} responses have more with their "
                f"prompts, up to {max(lengths):,}. Start it with --max-model-len {max(lengths) + 1} or "
                f"more, or have the student read fewer (max_length = {context - 1})."
            )
        return fits, unfit

    def _measured(
        self, index: int, pairs: Sequence[TokenizedPair], outcome: Completion | Failure
    ) -> Measured | None:
        pair, note = pairs[index], ""
        if isinstance(outcome, Failure):
            found = self._watch.note(outcome)
            _LOGGER.warning("no numbers of a response: %s, %s", outcome.kind, outcome.detail)
            if found is None:
                return None
            note = found
        elif isinstance(outcome, Told):
            ids = (*pair.prompt, *pair.response)
            columns = self.numbers(outcome.of_prompt, ids, len(pair.prompt))
            # A note is final: before one is made the server shows that it is the row that it is of.
            if (
                columns is None
                or outcome.fingerprint not in self._tried
                or self._client.interruptions > self._interruptions
            ):
                self._try()
            self._watch.answered()
            if columns is not None:
                return Measured(index, columns)
            _LOGGER.warning("%s answered without the numbers of a prompt", self._client.model)
        return Measured(index, self._nothing(pair), note=note)

    def _nothing(self, pair: TokenizedPair) -> Columns:
        return dict.fromkeys(self.measures, np.full(len(pair.response), np.nan, np.float32))

    def _try(self) -> None:
        """Have the server show that it can be asked: at first, and once it may have been started again.

        It may where it could not be reached for a while, or its fingerprint is another: with another model
        or other settings.
        """
        self._interruptions = self._client.interruptions
        self._heard.clear()
        self._require_same_tokens(self._probe)
        shown = self._require_numbers_of_prompt(self._probe)
        if self._shown is not None and not _alike(shown, self._shown):
            raise ModelError(
                f"The server of '{self._client.model}' tells other numbers of the same text than before: it "
                "was started again, with another model or other settings. Start it as it was, and run again."
            )
        self._shown = shown
        self._tried |= self._heard

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

    @staticmethod
    def likeliest(choice: Mapping[str, Any]) -> list[list[object]]:
        """Return what is told of some tokens of each place, the likeliest of all among them."""
        return [
            [as_object(told).get("logprob") for told in as_object(entry).values()]
            for entry in choice["prompt_logprobs"][1:]
        ]

    def _require_same_tokens(self, ids: tuple[int, ...]) -> None:
        """Have the server read a text, and hold the ids that it finds against ours."""
        entries = self._told(_PROBE).get("prompt_logprobs")
        if not isinstance(entries, list):
            raise self._lacks("without the prompt_logprobs that it is asked for")
        told = [set(as_object(entry)) for entry in entries[1:]]
        if len(entries) != len(ids) or not all(
            str(token) in of for token, of in zip(ids[1:], told, strict=True)
        ):
            raise ModelError(
                f"The server of '{self._client.model}' reads a text as other tokens than the student's own "
                "tokenizer. Serve the student's own model."
            )

    def _lacks(self, how: str) -> ModelError:
        return ModelError(
            f"The server of '{self._client.model}' answers {how}: it does not tell the log-probabilities of "
            f"a given text. {_ELSEWHERE}"
        )

    def _require_numbers_of_prompt(self, ids: tuple[int, ...]) -> Numbers:
        """Ask for two prompts that begin alike: the numbers there must not depend on what follows.

        And they must be such as log-probabilities over the vocabulary can be. Return those of `ids`.
        """
        half = len(ids) // 2
        asked = (ids, (*ids[:half], *reversed(ids[half:])))
        told = [self._told(prompt) for prompt in asked]
        one, other = (self.numbers(*each, 1) for each in zip(told, asked, strict=True))
        if one is None or other is None:
            raise self._tells_no_shares()
        start, again = (each["nll"][: half - 1] for each in (one, other))
        same = len(set(one["nll"].tolist())) <= half
        if same or not _alike(start, again):
            raise ModelError(
                f"What the server of '{self._client.model}' tells of a prompt's tokens depends on what "
                "follows them, or is the same for all: these are not their log-probabilities."
            )
        if not all(_are_shares(place, self._vocabulary) for place in self.likeliest(told[0])):
            raise self._tells_no_shares()
        return one["nll"]

    def _tells_no_shares(self) -> ModelError:
        return ModelError(
            f"What the server of '{self._client.model}' tells of a prompt's tokens are not the logarithms of "
            "probabilities, which sum to one. vLLM tells logits where it is started with --logprobs-mode "
            "raw_logits or processed_logits: start it without."
        )

    def _told(self, prompt: str | tuple[int, ...]) -> Mapping[str, Any]:
        outcome = self._trying.complete(asked_of(prompt))
        if isinstance(outcome, Told):
            self._heard.add(outcome.fingerprint)
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
    tries: ClassVar[Mapping[str, object]] = asks

    @staticmethod
    def numbers(choice: Mapping[str, Any], ids: Sequence[int], start: int) -> Columns | None:
        """Return the losses from `start` on; None where there are not as many as ids, or one more."""
        values = as_object(choice.get("logprobs")).get("token_logprobs")
        if not isinstance(values, list) or len(values) - len(ids) not in (0, 1):
            return None
        nll = _losses(values[start : len(ids)])
        return None if nll is None else {"nll": nll}

    @staticmethod
    def likeliest(choice: Mapping[str, Any]) -> list[list[object]]:
        """Return what is told of some tokens of each place, where a server says so much."""
        places = as_object(choice.get("logprobs")).get("top_logprobs")
        told = places[1:] if isinstance(places, list) else []
        return [list(place.values()) for place in told if isinstance(place, Mapping)]

    def _require_same_tokens(self, ids: tuple[int, ...]) -> None:
        """Have the server spell our ids."""
        tokens = as_object(self._told(ids).get("logprobs")).get("tokens")
        if not isinstance(tokens, list) or len(tokens) < len(ids):
            raise self._lacks("without the echo that it is asked for")
        spelled = "".join(map(str, tokens[: len(ids)]))
        if spelled.strip() != _PROBE:
            raise ModelError(
                f"The server of '{self._client.model}' spells the student's tokens as "
                f"'{printable(spelled)}': expected '{_PROBE}'. It has another tokenizer."
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


def _alike(one: Numbers, other: Numbers) -> bool:
    """Tell whether losses of the same tokens are the same but for rounding."""
    return np.allclose(one, other, rtol=0, atol=_MOST_BETWEEN_BATCHES)


def _are_shares(values: Sequence[object], vocabulary: int) -> bool:
    """Tell whether these can be log-probabilities of some tokens, the likeliest of all among them.

    The likeliest of n tokens has at least the share 1 / n.
    """
    losses = _losses(values)
    if losses is None or not len(losses):
        return False
    return bool(
        np.exp(-losses).sum() <= 1 + _ROUNDED and losses.min() <= math.log(vocabulary) + _ROUNDED
    )
