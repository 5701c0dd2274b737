"""Rewards from a reward model behind vLLM's server, asked for the score itself.

By `/classify`, else by `/pooling` where the server does not classify. Conversations go as our own token ids,
without padding tokens at their end: vLLM reads the score at the last token, and what the model was trained
with at the last that is not padding. A server that squashes scores whatever it is asked (a sigmoid) is
refused when the first are wanted: its numbers would rank otherwise under CAR. So is one that gives several
numbers, of which nobody says which is the reward.
"""

import logging
import math
from collections.abc import Iterator, Sequence

from preceptor.config.runtime import Endpoint
from preceptor.engines.base import Failure, TokenizedPair
from preceptor.engines.chat.prompts import PromptClient, Told, asked_of
from preceptor.engines.chat.watch import Watch
from preceptor.engines.packed.reward import Rewarded
from preceptor.errors import ModelError

_LOGGER = logging.getLogger(__name__)
_SQUASHED, _PLAIN = (
    {"use_activation": True, "activation": True},
    {
        "use_activation": False,
        "activation": False,
    },
)
"""vLLM's name for the switch, and its name in older versions."""

_FUNCTIONS = ("classify", "pooling")
"""vLLM's functions that tell a classifier's score, in the order in which they are tried.

The first answers `{"data": [{"probs": [score], "num_classes": 1}]}`, the second
`{"data": [{"object": "pooling", "data": [score]}]}`; a pooler of every token gives a list for each there.
"""


class ServedReward:
    """The scores of conversations under the reward model that `endpoint` serves as `model`.

    `padding` is its padding token, where it has one; `longest` how many tokens it reads at most.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        padding: int | None = None,
        longest: int | None = None,
    ) -> None:
        # vLLM's own functions stand beside the part of the address that is OpenAI's.
        self._root = endpoint.model_copy(
            update={"url": endpoint.url.rstrip("/").removesuffix("/v1")}
        )
        self._model, self._padding, self._longest = model, padding, longest
        self._context: int | None = None
        self._ask_by(_FUNCTIONS[0])

    def _ask_by(self, function: str) -> None:
        self._plain, self._squashed = (
            PromptClient(
                self._root,
                self._model,
                asks,
                function=function,
                names=("input", "data"),
                of_openai=False,
            )
            for asks in (_PLAIN, _SQUASHED)
        )
        self._watch = Watch(
            f"The server of '{self._model}'",
            self._root,
            lambda: self._plain.complete(asked_of("Four.")),
        )

    def require_scores(self, pairs: Sequence[TokenizedPair]) -> None:
        """Try the server on a few conversations, and settle by which function it is asked.

        Raises:
            ModelError: it cannot be reached, gives no single score, or squashes scores although asked not to.
        """
        refused = []
        for function in _FUNCTIONS:
            self._ask_by(function)
            failure = self._tried(pairs)
            if failure is None:
                self._watch.works()
                self._context = self._plain.context()
                return
            refused.append(f"by /{function}: {failure.kind}, {failure.detail}")
            if not (failure.of_request or failure.of_settings):
                break
        raise ModelError(f"The server of '{self._model}' gives no reward {'; '.join(refused)}")

    def _tried(self, pairs: Sequence[TokenizedPair]) -> Failure | None:
        """Return why the function in use does not answer; ModelError where what it says is no reward."""
        squashes = True
        for pair in pairs:
            request = asked_of(self._ids(pair))
            plain, squashed = (one.complete(request) for one in (self._plain, self._squashed))
            if isinstance(plain, Failure):
                return plain
            score, share = (_score(one) for one in (plain, squashed))
            if math.isnan(score):
                raise ModelError(
                    f"The server of '{self._model}' gives no reward by /{self._plain.function}: saw "
                    f"{_shape(plain)} for a conversation, expected one number. Serve a reward model "
                    "whose head has one label, read at the last token."
                )
            squashes &= score == share and 0 <= score <= 1
        if squashes:
            raise ModelError(
                f"The server of '{self._model}' squashes scores although it is asked not to (use_activation "
                "= false): a share is no reward. Serve it with a newer vLLM, or without an activation."
            )
        return None

    def score(self, conversations: Sequence[TokenizedPair]) -> Iterator[list[Rewarded]]:
        """Yield scores as they come, NaN where there is none; what was not answered is left out.

        Raises:
            ModelError: the server answers no longer, or takes fewer tokens than the model and these have.
        """
        every = [self._ids(one) for one in conversations]
        self._require_room(list(map(len, every)))
        requests = list(map(asked_of, every))
        for found in self._plain.complete_all(requests):
            outcome = found.outcome
            if isinstance(outcome, Failure):
                note = self._watch.note(outcome)
                _LOGGER.warning("no reward of a response: %s, %s", outcome.kind, outcome.detail)
                if note is not None:
                    yield [Rewarded(found.index, math.nan, note)]
            else:
                self._watch.answered()
                yield [Rewarded(found.index, _score(outcome))]

    def _ids(self, pair: TokenizedPair) -> tuple[int, ...]:
        ids = (*pair.prompt, *pair.response)
        end = len(ids)
        while end > 1 and ids[end - 1] == self._padding:
            end -= 1
        return ids[:end]

    def _require_room(self, lengths: Sequence[int]) -> None:
        """Refuse a server that takes fewer tokens than the model, where a conversation has more."""
        context = self._context
        longer = [length for length in lengths if context is not None and length > context]
        if longer and (self._longest is None or self._longest > (context or 0)):
            raise ModelError(
                f"The server of '{self._model}' takes {context:,} tokens (its max_model_len), and "
                f"{len(longer):,} of {len(lengths):,} conversations have more, up to {max(longer):,}. Start "
                f"it with --max-model-len {max(longer)} or more, or have the reward model read fewer "
                f"(max_length = {context})."
            )


def _score(outcome: object) -> float:
    """Return the one number that was told, alone or in a list of its own; NaN where there is not just one."""
    found = _numbers(outcome)
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, bool) or not isinstance(found, int | float):
        return math.nan
    return float(found)


def _numbers(outcome: object) -> object:
    told = outcome.of_prompt if isinstance(outcome, Told) else {}
    return told.get("probs", told.get("data"))


def _shape(outcome: object) -> str:
    """Return in words what was told in place of a number."""
    found = _numbers(outcome)
    if not isinstance(found, list):
        return "no list of numbers"
    if any(isinstance(one, list) for one in found):
        return f"{len(found):,} lists of numbers (one for each token)"
    return f"{len(found):,} numbers (a vector, or several labels)"
