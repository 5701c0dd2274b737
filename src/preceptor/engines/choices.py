"""A chat model run in this process that answers with one of a few short texts, such as a scale's numbers.

Nothing need be written to know how likely each choice is. One pass over the prompt gives the
distribution of the next token; only a choice that takes two tokens, such as 10, costs a short second pass.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from preceptor.engines.base import (
    Alternative,
    ChatRequest,
    Completion,
    Failure,
    Finished,
    Position,
)
from preceptor.engines.encoder import Encoder
from preceptor.errors import ModelError

if TYPE_CHECKING:
    import torch

_SPACES = " \u0120\u2581"
"""How vocabularies write a space at the start of a token: byte-level BPE and SentencePiece."""


class TransformersChoices:
    """A loaded `AutoModelForCausalLM` that answers with the likeliest of `ChatRequest.choices`.

    The answer is the likeliest token where that is none of the choices. Temperature and seed do not matter.
    """

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self.model = model.eval()
        self.encoder = encoder
        self.tokenizer: Any = encoder.tokenizer
        self.device = next(model.parameters()).device

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield the outcomes in order."""
        for index, request in enumerate(requests):
            yield Finished(index, self.complete(request))

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the choice and the probabilities of all; too long a prompt is a refused request."""
        try:
            prompt = self.encoder.encode(request.messages, "").prompt
        except ModelError as error:
            return Failure("refused request", str(error)[:200])
        if len(prompt) >= self.encoder.max_length:
            seen = f"the prompt has {len(prompt)} tokens, expected fewer than {self.encoder.max_length}"
            return Failure("refused request", seen)
        shares, text = self._shares(prompt, request.choices)
        if any(text.strip() in (choice, choice[:1]) for choice in shares):
            text = max(shares, key=lambda choice: shares[choice])
        ranked = tuple(Alternative(choice, share) for choice, share in shares.items())
        return Completion(text, "stop", (Position(text, ranked),), tokens=1)

    def _shares(
        self, prompt: tuple[int, ...], choices: Sequence[str]
    ) -> tuple[dict[str, float], str]:
        """Return the log-probability of each choice, and the text of the likeliest token."""
        known, memory = self._next(prompt)
        shares = {
            choice: float(known[self._pieces[choice]].logsumexp(0))
            for choice in choices
            if choice in self._pieces
        }
        for choice in choices:
            first, rest = choice[:1], choice[1:]
            if choice in shares or first not in self._pieces or rest not in self._plain:
                continue
            # The likelier of the spellings with and without a space stands for both.
            ids = self._pieces[first]
            start = ids[int(known[ids].argmax())]
            tail = float(self._next((*prompt, start), memory)[0][self._plain[rest]])
            whole = float(known[ids].logsumexp(0))
            shares[choice] = whole + tail
            if first in shares:
                shares[first] = whole + math.log1p(-min(math.exp(tail), 1.0 - 1e-12))
        return shares, str(self.tokenizer.decode([int(known.argmax())]))

    def _next(self, ids: tuple[int, ...], memory: Any = None) -> "tuple[torch.Tensor, Any]":
        """Return the log-probabilities of the next token, (vocabulary,), and the model's memory.

        With the memory of all ids but the last, only the last is run.
        """
        import torch

        row = torch.tensor([ids if memory is None else ids[-1:]], device=self.device)
        with torch.inference_mode():
            output = self.model(
                input_ids=row, past_key_values=memory, use_cache=True, logits_to_keep=1
            )
            known = output.logits[0, -1].float().log_softmax(-1).cpu()
        return known, getattr(output, "past_key_values", None)

    @cached_property
    def _plain(self) -> dict[str, int]:
        """The short tokens of the vocabulary by their text, as written inside a word."""
        vocabulary: Mapping[str, int] = self.tokenizer.get_vocab()
        return {piece: token for piece, token in vocabulary.items() if len(piece) <= 4}

    @cached_property
    def _pieces(self) -> dict[str, list[int]]:
        """The tokens that spell a short text, with or without a space before it."""
        pieces: dict[str, list[int]] = {}
        for piece, token in sorted(self._plain.items()):
            pieces.setdefault(piece.lstrip(_SPACES), []).append(token)
        return pieces
