"""From a conversation and a response to token ids, with the boundary between them exactly known.

A rendered template is tokenised once, without adding special tokens, so that there is exactly one
beginning-of-sequence token. The response's ids are those that follow the prompt's; where a token would span
both, they are tokenised apart. Text that instructions or responses contain is data: where it spells a special
token it is tokenised as plain text.
"""

import itertools
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from preceptor.config.student import Reading
from preceptor.engines.draft import Conversation, Draft, Drafter
from preceptor.engines.marked import ANSWER, CONTEXT, Piece
from preceptor.engines.template_shape import TOOL_PROBE
from preceptor.engines.templates import PROBE, ChatTemplate
from preceptor.errors import ModelError
from preceptor.types import Message

BOUNDARY = (
    "tokenised apart where a token would span prompt and response; "
    "control tokens in data are cut where they stand"
)
"""Part of what names stored numbers: how texts become ids."""

_MARK = "\u2402response\u2403"
"""Stands for a response where the text around it is wanted."""

_READING = Reading()


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
    """The ids of a prompt and of the response that follows it; `truncated`: the response was cut.

    `groups` has the group of each of the response's ids (`marked.ANSWER` and its kin), None where all are of
    the answer. `left_out` is what the template leaves out of turns that count: the place and what.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    truncated: bool
    groups: tuple[int, ...] | None = None
    left_out: tuple[tuple[int, str], ...] = ()

    @property
    def counted(self) -> tuple[bool, ...] | None:
        """Which of the response's ids count; None where all do."""
        if self.groups is None or CONTEXT not in self.groups:
            return None
        return tuple(group != CONTEXT for group in self.groups)


class Token(NamedTuple):
    """A token of a rendered conversation: its id, the text it stands for, its group.

    One that is only the rest of a character, or that is no part of the rendered text, has an empty text.
    """

    id: int
    text: str
    group: int


class _Laid(NamedTuple):
    """A draft in ids; `groups` and `texts` are of the response, the texts only where they were made."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    groups: tuple[int, ...]
    texts: tuple[str, ...] = ()
    prompt_texts: tuple[str, ...] = ()


class Encoder:
    """Turns conversations and responses into ids under one template.

    `max_length` bounds prompt and response together, in tokens; the response is cut at its end. `reading`
    says which turns are the response, and what of them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        max_length: int,
        reading: Reading = _READING,
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
        self._ending = self._ids(template.end_of_turn) if reading.include_end_of_turn else ()
        self._control = _control_tokens(tokenizer, template)
        self._drafter = Drafter(template, reading, self._cut)

    def encode(
        self, messages: Sequence[Message], text: str, *, tools: str = "", calls: str = ""
    ) -> EncodedPair:
        """Return the ids of the prompt and of the response: `text` and the tool calls after it.

        Where all turns of assistants count, the response begins with the first of them. Its ids may be empty
        when the prompt leaves it no room. Both conditional and unconditional passes use these same response
        ids. ModelError where the template refuses.
        """
        draft = self._draft(messages, text, tools, calls)
        laid = self._laid_out(draft)
        prompt, ending = self._with_one_beginning(laid.prompt), self._ending_of(draft)
        response, groups = laid.response + ending, laid.groups + (ANSWER,) * len(ending)
        room = max(0, self.max_length - len(prompt))
        return EncodedPair(
            prompt,
            response[:room],
            truncated=len(response) > room,
            groups=None if set(groups) <= {ANSWER} else groups[:room],
            left_out=draft.left_out,
        )

    def tokens(
        self, messages: Sequence[Message], text: str, *, tools: str = "", calls: str = ""
    ) -> tuple[list[Token], list[Token]]:
        """Return the tokens of prompt and response as `encode` has them, but for the cut at `max_length`."""
        draft = self._draft(messages, text, tools, calls)
        laid = self._laid_out(draft, shown=True)
        added = len(self._with_one_beginning(laid.prompt)) - len(laid.prompt)
        prompt = zip(laid.prompt, laid.prompt_texts, strict=True)
        response = map(Token, laid.response, laid.texts, laid.groups)
        spelt = itertools.chain([self.template.end_of_turn], itertools.repeat(""))
        ending = map(Token, self._ending_of(draft), spelt, itertools.repeat(ANSWER))
        return (
            [
                *[Token(self.context, "", CONTEXT)] * added,
                *(Token(*one, CONTEXT) for one in prompt),
            ],
            [*response, *ending],
        )

    def _draft(self, messages: Sequence[Message], text: str, tools: str, calls: str) -> Draft:
        return self._drafter.draft(Conversation(messages, Message("assistant", text, calls), tools))

    def _ending_of(self, draft: Draft) -> tuple[int, ...]:
        return () if draft.ended else self._ending

    def _laid_out(self, draft: Draft, *, shown: bool = False) -> _Laid:
        """Return a draft's ids; their texts too where they are `shown` or needed to tell groups apart."""
        first = next((n for n, one in enumerate(draft.pieces) if one.group), len(draft.pieces))
        prompt = "".join(piece.text for piece in draft.pieces[:first])
        pieces = draft.pieces[first:]
        text, groups = "".join(piece.text for piece in pieces), {piece.group for piece in pieces}
        steered = bool(draft.cut) and draft.cut in prompt + text
        if steered or CONTEXT in groups or (len(groups) > 1 and not self.tokenizer.is_fast):
            chunks = self._chunks(prompt, pieces, draft.cut)
            bare = [Piece(self._bare(one.text, draft.cut), one.group) for one in pieces]
            return self._told_apart(chunks, self._bare(prompt, draft.cut), bare)
        joined = self._joined(prompt, text)
        if shown or len(groups) > 1:
            chunks = [prompt + text] if joined else [prompt, text]
            return self._told_apart(chunks, prompt, pieces, shared=joined and joined[1])
        whole, shared = joined or (self._ids(prompt) + self._ids(text), len(self._ids(prompt)))
        return _Laid(whole[:shared], whole[shared:], (*groups,) * (len(whole) - shared))

    def _chunks(self, prompt: str, pieces: Sequence[Piece], cut: str) -> list[str]:
        """Return the whole text in parts that are tokenised apart: at cuts, and where a token would span.

        A token may span reasoning and answer; it may not span what counts and what does not.
        """
        groups = [CONTEXT, *(piece.group for piece in pieces)]
        texts = [prompt, *(piece.text for piece in pieces)]
        ends = list(itertools.accumulate(len(self._bare(text, cut)) for text in texts))[:-1]
        hard = {
            end
            for end, (one, next_) in zip(ends, itertools.pairwise(groups), strict=True)
            if CONTEXT in (one, next_) and one != next_
        }
        signed = "".join(texts)
        whole = self._bare(signed, cut)
        if whole != signed:
            found = itertools.accumulate(map(len, signed.split(cut)))
            edges = {*hard, *found}
        elif self.tokenizer.is_fast:
            edges = hard.difference(self._tokens(whole)[1])
        else:
            edges = {*ends}
        parts = itertools.pairwise(sorted({0, *edges, len(whole)}))
        return [whole[start:stop] for start, stop in parts]

    def _told_apart(
        self,
        chunks: Sequence[str],
        prompt: str,
        pieces: Sequence[Piece],
        *,
        shared: int | None = None,
    ) -> _Laid:
        """Return the ids of chunks, which join to prompt and pieces; the prompt has the first `shared`.

        A token is of the group of its first character.
        """
        ids: list[int] = []
        stops: list[int] = []
        at = 0
        for chunk in chunks:
            own, ends = self._tokens(chunk)
            ids += own
            stops += [at + end for end in ends]
            at += len(chunk)
        count = sum(stop <= len(prompt) for stop in stops) if shared is None else shared
        whole = "".join(chunks)
        texts = _tiles(whole, stops[count:], start=len(prompt))
        bounds = list(itertools.accumulate(len(piece.text) for piece in pieces))
        starts = itertools.accumulate(map(len, texts), initial=0)
        firsts = (start if text else start - 1 for start, text in zip(starts, texts, strict=False))
        groups = (pieces[bisect_right(bounds, max(0, first))].group for first in firsts)
        return _Laid(
            tuple(ids[:count]),
            tuple(ids[count:]),
            tuple(groups),
            tuple(texts),
            tuple(_tiles(whole, stops[:count])),
        )

    @staticmethod
    def _bare(text: str, cut: str) -> str:
        return text.replace(cut, "") if cut else text

    def encode_conversation(
        self, messages: Sequence[Message], text: str, *, tools: str = ""
    ) -> EncodedPair:
        """Return the ids of the conversation with the response as its finished last turn.

        `prompt` is what comes before the response's text, `response` the rest, the turn's ending included.
        Where both exceed `max_length` the text is cut and the ending kept, because a reward model looks at
        the ending. The response is empty when the prompt leaves no room. ModelError where the template
        refuses.
        """
        given = Conversation(messages, Message("assistant", text), tools)
        given, cut = self._drafter.guarded(given)
        before, whole = (
            self.template.render((*given.messages, last), tools=given.tools, generation=False)
            for last in (Message("assistant", _MARK), given.answer)
        )
        before, _, after = before.rpartition(_MARK)
        ids = self._cut_ids(whole, cut)
        shared = _common_prefix(self._cut_ids(before, cut), ids)
        prompt, response = self._with_one_beginning(ids[:shared]), ids[shared:]
        room = self.max_length - len(prompt)
        if len(response) <= room:
            return EncodedPair(prompt, response, truncated=False)
        ending = self._ids(after)
        if room <= len(ending):
            return EncodedPair(prompt, (), truncated=True)
        return EncodedPair(prompt, response[: room - len(ending)] + ending, truncated=True)

    def _cut_ids(self, text: str, cut: str) -> tuple[int, ...]:
        parts = text.split(cut) if cut else [text]
        return tuple(itertools.chain.from_iterable(map(self._ids, parts)))

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
        stops = self._tokens(prompt + text)[1]
        return (whole, sum(n <= len(prompt) for n in stops)) if len(prompt) in stops else None

    def _tokens(self, text: str) -> tuple[Sequence[int], list[int]]:
        """Return a text's ids, and where each ends; a tokenizer that is not fast says all end with it."""
        if not self.tokenizer.is_fast:
            ids = self._ids(text)
            return ids, [len(text)] * len(ids)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], [stop for _, stop in encoded["offset_mapping"]]

    def _plain_ids(self, text: str) -> tuple[int, ...]:
        """Tokenise text that spells control tokens so that none of them arises: cut each in two."""
        return tuple(
            id_
            for start, stop in itertools.pairwise(_edges(text, self._control))
            for id_ in self._ids(text[start:stop])
        )

    def _cut(self, text: str, sign: str, *, tools: bool = False) -> str:
        """Return a text with a sign in each control token that it spells (see `draft.Cut`)."""
        control = self._around_tools if tools else self._control
        if not any(token in text for token in control):
            return text
        edges = itertools.pairwise(_edges(text, control))
        return sign.join(text[start:stop] for start, stop in edges)

    @cached_property
    def _around_tools(self) -> tuple[str, ...]:
        """The control tokens with those that the template writes around calls and what tools give."""
        return (*self._control, *_structural(self.tokenizer, self.template.render(TOOL_PROBE)))

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


def _edges(text: str, control: Sequence[str]) -> list[int]:
    """Return where a text begins and ends, and between them where control tokens are cut in two."""
    cuts = {found.start() + 1 for token in control for found in re.finditer(re.escape(token), text)}
    return [0, *sorted(cuts), len(text)] if text else []


def _structural(tokenizer: Tokenizer, rendered: str) -> set[str]:
    return {token for token in tokenizer.get_added_vocab() if token in rendered}


def _control_tokens(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[str, ...]:
    """Return the token texts that could steer a prompt's structure if data spelled them.

    Some tokenizers do not mark a template's own tokens as special, so those are taken from its rendering.
    Thousands that are reserved steer nothing and would only slow the search.
    """
    structural = _structural(tokenizer, template.render(PROBE))
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
