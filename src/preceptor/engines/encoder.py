"""From a conversation and a response to token ids, with the boundary between them exactly known.

A rendered template is tokenised once, without adding special tokens, so that there is exactly one
beginning-of-sequence token. The response's ids are those that follow the prompt's; where a token would span
both, they are tokenised apart. Text that instructions or responses contain is data: where it spells a special
token it is tokenised as plain text.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from preceptor.engines.templates import PROBE, ChatTemplate
from preceptor.errors import ModelError
from preceptor.types import Message

BOUNDARY = "tokenised apart where a token would span prompt and response"
"""Part of what names stored numbers: how the two are told apart in ids."""

_MARK = "\u2402response\u2403"
"""Stands for a response where the text around it is wanted."""

_SPACE = "\u2003"
_MARKED = re.compile(f"({_SPACE}?)\u2402([0-9]+)\u2403({_SPACE}?)")
"""The place of a message in a rendered template; the white space around it shows what a template trims."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    all_special_tokens: list[str]
    added_tokens_decoder: Mapping[int, Any]
    is_fast: bool

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise a text."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Return the tokens that are matched as whole texts."""
        ...


class EncodedPair(NamedTuple):
    """The ids of a prompt and of the response that follows it; `truncated`: the response was cut."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    truncated: bool


class Encoder:
    """Turns conversations and responses into ids under one template.

    `max_length` bounds prompt and response together, in tokens; the response is cut at its end.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        max_length: int,
        end_of_turn: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        context = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else None
        self.begin = context
        found = context if context is not None else tokenizer.eos_token_id
        if found is None:
            raise ModelError("The tokenizer has neither a beginning nor an end token.")
        self.context: int = found
        self.special_ids = frozenset(
            {found, *(at for at, one in tokenizer.added_tokens_decoder.items() if one.special)}
        )
        """Ids of the tokens that stand for no text."""
        self._ending = self._ids(template.end_of_turn) if end_of_turn else ()
        self._control = _control_tokens(tokenizer, template)

    def encode(self, messages: Sequence[Message], text: str) -> EncodedPair:
        """Return the ids of the prompt and of the response.

        The response's ids may be empty when the prompt leaves it no room. Both conditional and
        unconditional passes use these same response ids. ModelError where the template refuses.
        """
        prompt_text = self.template.render(messages)
        if self._spells_special(messages, text):
            prompt, response = self._encode_guarded(messages), self._plain_ids(text)
        elif (joined := self._joined(prompt_text, text)) is not None:
            whole, shared = joined
            prompt, response = whole[:shared], whole[shared:]
        else:
            prompt, response = self._ids(prompt_text), self._ids(text)
        prompt = self._with_one_beginning(prompt)
        response += self._ending
        room = max(0, self.max_length - len(prompt))
        return EncodedPair(prompt, response[:room], truncated=len(response) > room)

    def pieces(self, messages: Sequence[Message], text: str) -> tuple[str, ...]:
        """Return the response's text as its tokens cut it: one piece for each of its ids in `encode`.

        Those that end the turn, and the cut at `max_length`, are left out of account. The pieces join to the
        text; a token that is only the rest of a character has an empty one. Nothing where the tokenizer
        cannot say what its tokens stand for.
        """
        if not self.tokenizer.is_fast:
            return ()
        if self._spells_special(messages, text):
            pieces = [
                piece
                for start, stop in itertools.pairwise(self._plain_edges(text))
                for piece in _tiles(text[start:stop], self._stops(text[start:stop]))
            ]
        else:
            prompt = self.template.render(messages)
            if (joined := self._joined(prompt, text)) is None:
                pieces = _tiles(text, self._stops(text))
            else:
                stops = self._stops(prompt + text)[joined[1] :]
                pieces = _tiles(prompt + text, stops, start=len(prompt))
        return tuple(pieces) if "".join(pieces) == text else ()

    def encode_conversation(self, messages: Sequence[Message], text: str) -> EncodedPair:
        """Return the ids of the conversation with the response as its finished last turn.

        `prompt` is what comes before the response's text, `response` the rest, the turn's ending included.
        Where both exceed `max_length` the text is cut and the ending kept, because a reward model looks at
        the ending. The response is empty when the prompt leaves no room. ModelError where the template
        refuses.
        """
        turns = (*messages, Message("assistant", text))
        marked = (*messages, Message("assistant", _MARK))
        before, _, after = self.template.render(marked, generation=False).rpartition(_MARK)
        if self._spells_special(messages, text):
            whole = self._encode_guarded(turns, generation=False)
            shared = _common_prefix(self._encode_guarded(marked, generation=False), whole)
        else:
            whole = self._ids(self.template.render(turns, generation=False))
            shared = _common_prefix(self._ids(before), whole)
        prompt, response = self._with_one_beginning(whole[:shared]), whole[shared:]
        room = self.max_length - len(prompt)
        if len(response) <= room:
            return EncodedPair(prompt, response, truncated=False)
        ending = self._ids(after)
        if room <= len(ending):
            return EncodedPair(prompt, (), truncated=True)
        return EncodedPair(prompt, response[: room - len(ending)] + ending, truncated=True)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _joined(self, prompt: str, text: str) -> tuple[tuple[int, ...], int] | None:
        """Return the ids of both texts together, and how many are the prompt's; None where one spans both.

        GPT-2 cuts two line feeds in two before a word: both still belong to the prompt. A response that
        begins with a line feed can share a token with the template's own, though no model is ever asked to
        write that: it is given the prompt's ids and goes on from there.
        """
        alone, whole = self._ids(prompt), self._ids(prompt + text)
        if whole[: len(alone)] == alone:
            return whole, len(alone)
        if not self.tokenizer.is_fast:
            return None
        stops = self._stops(prompt + text)
        return (whole, sum(n <= len(prompt) for n in stops)) if len(prompt) in stops else None

    def _stops(self, text: str) -> list[int]:
        """Return where in the text each of its tokens ends; only fast tokenizers know."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [stop for _, stop in encoded["offset_mapping"]]

    def _plain_ids(self, text: str) -> tuple[int, ...]:
        """Tokenise text that spells control tokens so that none of them arises: cut each in two."""
        return tuple(
            id_
            for start, stop in itertools.pairwise(self._plain_edges(text))
            for id_ in self._ids(text[start:stop])
        )

    def _plain_edges(self, text: str) -> list[int]:
        """Return where a text begins and ends, and between them where control tokens are cut."""
        cuts = {
            found.start() + 1
            for token in self._control
            for found in re.finditer(re.escape(token), text)
        }
        return [0, *sorted(cuts), len(text)] if text else []

    def _with_one_beginning(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        if self.begin is None:
            return prompt or (self.context,)
        if prompt[:1] != (self.begin,):
            return (self.begin, *prompt)
        if prompt[1:2] == (self.begin,):
            raise ModelError(
                f"The template '{self.template.name}' renders two beginning-of-sequence tokens. "
                "Choose another with --chat-template."
            )
        return prompt

    def _spells_special(self, messages: Sequence[Message], text: str) -> bool:
        contents = [*(message.content for message in messages), text]
        return any(token in content for content in contents for token in self._control)

    def _encode_guarded(
        self, messages: Sequence[Message], *, generation: bool = True
    ) -> tuple[int, ...]:
        """Tokenise the template's own text and the messages' text apart, the latter as plain text."""
        marked = [
            Message(message.role, f"{_SPACE}\u2402{place}\u2403{_SPACE}")
            for place, message in enumerate(messages)
        ]
        # A template may leave a message out, move it or repeat it: go by the marks that are there.
        parts = _MARKED.split(self.template.render(marked, generation=generation))
        ids: list[int] = list(self._ids(parts[0]))
        for before, place, after, between in zip(*(parts[n::4] for n in range(1, 5)), strict=True):
            text = messages[int(place)].content
            text = text if before else text.lstrip()  # what the template trims is trimmed
            ids.extend(self._plain_ids(text if after else text.rstrip()))
            ids.extend(self._ids(between))
        return tuple(ids)


def _control_tokens(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[str, ...]:
    """Return the token texts that could steer a prompt's structure if data spelled them.

    Some tokenizers do not mark a template's own tokens as special, so those are taken from its rendering.
    Thousands that are reserved steer nothing and would only slow the search.
    """
    rendered = template.render(PROBE)
    structural = {token for token in tokenizer.get_added_vocab() if token in rendered}
    marked = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = {*structural, *marked, *tokenizer.all_special_tokens}
    reserved = re.compile("unused|reserved")
    return tuple(
        sorted(token for token in tokens if len(token.strip()) > 1 and not reserved.search(token))
    )


def _tiles(text: str, stops: Sequence[int], *, start: int = 0) -> list[str]:
    """Return the text from `start` on, cut at these places.

    Space that a tokenizer counts to no token goes with the next one, a character cut in two with its first.
    """
    pieces = []
    for stop in stops:
        stop = max(start, stop)
        pieces.append(text[start:stop])
        start = stop
    return pieces


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length
