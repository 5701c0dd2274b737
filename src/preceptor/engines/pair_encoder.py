"""Prompt and response as two segments, as encoders with a head of one label were trained to read them.

Their model cards call `tokenizer(question, answer)` (OpenAssistant's DeBERTa, cross-encoders): the tokenizer
puts its own marks around both texts, and may say of each token which of them it is of.
"""

from collections.abc import Sequence
from typing import Any

from preceptor.engines.encoder import EncodedPair, Encoder
from preceptor.engines.templates import ChatTemplate
from preceptor.errors import ModelError
from preceptor.types import Message


class PairEncoder(Encoder):
    """Turns a conversation and a response into the ids of two segments.

    The prompt's turns are one text (`template`). Special tokens spelled in either text stay text.

    Raises:
        ModelError: the tokenizer has no marks for two segments.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, *, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self._control = tuple(token for token in tokenizer.all_special_tokens if len(token) > 1)
        tried = tokenizer("a", "b")
        ids = tuple(tried["input_ids"])
        segments = list(tried.sequence_ids(0)) if tokenizer.is_fast else []
        first = [place for place, segment in enumerate(segments) if segment == 0]
        second = [place for place, segment in enumerate(segments) if segment == 1]
        if not (first and second and first[-1] + 1 < second[0]):
            raise ModelError(
                "The reward model's tokenizer does not mark two segments. Give its chat_template, such as "
                "'plain', to have prompt and response read as one text."
            )
        self._before, self._after = ids[: first[0]], ids[second[-1] + 1 :]
        self._between = ids[first[-1] + 1 : second[0]]
        self.typed = "token_type_ids" in tried
        """Whether each token is given with the number of its segment."""

    def encode_conversation(
        self, messages: Sequence[Message], text: str, *, tools: str = ""
    ) -> EncodedPair:
        """Return the ids of both segments with their marks; `response` begins with the second's text.

        Where both exceed `max_length` the response is cut and the mark after it kept. It is empty when the
        prompt leaves no room.
        """
        rendered = self.template.render(messages, tools=tools)
        prompt = (*self._before, *self._plain_ids(rendered), *self._between)
        response = self._plain_ids(text)
        room = self.max_length - len(prompt) - len(self._after)
        if room < 1:
            return EncodedPair(prompt, (), truncated=True)
        return EncodedPair(prompt, response[:room] + self._after, truncated=len(response) > room)
