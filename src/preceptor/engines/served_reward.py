"""Rewards from a reward model behind vLLM's server: `/classify`, asked for the score itself.

Conversations go as our own token ids. A server that squashes scores whatever it is asked (a sigmoid) is
refused when the first are wanted: its numbers would rank otherwise under CAR.
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


class ServedReward:
    """The scores of conversations under the reward model that `endpoint` serves as `model`."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        # vLLM's own functions stand beside the part of the address that is OpenAI's.
        root = endpoint.model_copy(update={"url": endpoint.url.rstrip("/").removesuffix("/v1")})
        self._plain, self._squashed = (
            PromptClient(root, model, asks, function="classify", names=("input", "data"))
            for asks in (_PLAIN, _SQUASHED)
        )
        self._watch = Watch(
            f"The server of '{model}'", root, lambda: self._plain.complete(asked_of("Four."))
        )

    def require_scores(self, pair: TokenizedPair) -> None:
        """Try the server on one conversation.

        Raises:
            ModelError: it cannot be reached, gives no single score, or squashes scores although asked not to.
        """
        request = asked_of((*pair.prompt, *pair.response))
        plain, squashed = (one.complete(request) for one in (self._plain, self._squashed))
        score, share = (_score(one) for one in (plain, squashed))
        model = self._plain.model
        if not isinstance(plain, Told) or math.isnan(score):
            said = getattr(plain, "detail", "no single number")
            raise ModelError(f"The server of '{model}' gives no reward by /classify: {said}")
        if score == share and 0 <= score <= 1:
            raise ModelError(
                f"The server of '{model}' squashes scores although it is asked not to (use_activation = "
                "false): a share is no reward. Serve it with a newer vLLM, or without an activation."
            )
        self._watch.answered()

    def score(self, conversations: Sequence[TokenizedPair]) -> Iterator[list[Rewarded]]:
        """Yield scores as they come, NaN where there is none; what was not answered is left out.

        Raises:
            ModelError: the server answers no longer.
        """
        requests = [asked_of((*one.prompt, *one.response)) for one in conversations]
        for found in self._plain.complete_all(requests):
            outcome = found.outcome
            if isinstance(outcome, Failure):
                note = self._watch.note(outcome)
                _LOGGER.warning("no reward of a response: %s, %s", outcome.kind, outcome.detail)
                if note is None:
                    continue
            else:
                self._watch.answered()
            yield [Rewarded(found.index, _score(outcome))]


def _score(outcome: object) -> float:
    """Return the one number that was told; NaN where there is not exactly one."""
    found = outcome.of_prompt.get("probs") if isinstance(outcome, Told) else None
    if isinstance(found, list) and len(found) == 1 and type(found[0]) in (int, float):
        return float(found[0])
    return math.nan
