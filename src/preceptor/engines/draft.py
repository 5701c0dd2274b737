"""From a conversation and its answer to rendered text in pieces: what is context, answer and reasoning.

An answer follows the rendered prompt as it stands, but where only the template knows how to write it: with
calls, or with reasoning that the template takes apart from the content (gpt-oss' channels). A template that
opens a trace itself is not given a second opening mark; a plain answer follows an empty thought there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import NamedTuple

from preceptor.config.student import Reading
from preceptor.engines.marked import (
    ANSWER,
    CONTEXT,
    REASONING,
    Bounds,
    Marked,
    Piece,
    Signs,
    guarded,
    guarded_json,
)
from preceptor.engines.reasoning import OPENING, OPENING_AT_END, empty_thought, parts_of
from preceptor.engines.template_shape import TOOL_PROBE
from preceptor.engines.templates import PROBE, ChatTemplate
from preceptor.errors import ModelError
from preceptor.types import Message

Cut = Callable[..., str]
"""Returns a text with a sign in each control token that it spells; `tools`: also those around calls."""

_ENDINGS = ("<|call|>", "<|eom_id|>")
"""What ends a turn of calls in templates that end an answer otherwise (gpt-oss, Llama 3)."""


class Conversation(NamedTuple):
    """What is before the answer, the schemas of its tools, and the answer."""

    messages: Sequence[Message]
    answer: Message
    tools: str = ""

    @property
    def texts(self) -> list[str]:
        """Every text that comes from data; JSON as it is."""
        turns = [*self.messages, self.answer]
        return [self.tools, *chain.from_iterable(turn[1:] for turn in turns)]

    @property
    def is_plain(self) -> bool:
        """Whether there are roles and contents alone."""
        return not self.tools and all(turn.plain for turn in [*self.messages, self.answer])


@dataclass(frozen=True)
class Draft:
    """A rendered conversation in pieces. `cut` is the sign in them where control tokens are cut, or "".

    `ended` says that the end of the last turn is there already. `left_out` is what the template leaves out
    of assistants' turns: the turn's place and what of it.
    """

    pieces: tuple[Piece, ...]
    cut: str = ""
    ended: bool = False
    left_out: tuple[tuple[int, str], ...] = ()


class Drafter:
    """Drafts conversations under one template; `cut` is for texts that come from data."""

    def __init__(self, template: ChatTemplate, reading: Reading, cut: Cut) -> None:
        self.template = template
        self.reading = reading
        self._cut = cut
        self._header = cache(self._header_after)

    def draft(self, given: Conversation) -> Draft:
        """Return the conversation's draft, without an answer where that is empty.

        Raises:
            ModelError: the template refuses the conversation, or leaves its answer out.
        """
        opened, cut = self.template.opens_reasoning, self.reading.reasoning == "cut"
        if cut:
            answer = _without_trace(given.answer, opened=opened)
            given = Conversation(list(map(_without_trace, given.messages)), answer, given.tools)
        written, every = self._is_written(given.answer), self.reading.turns == "all"
        signs = self._signs(given, needed=written or every)
        given = self._guarded(given, signs.cut) if signs else given
        pieces, left_out = self._before(given, signs if every else None)
        if written and signs is not None:
            answer_pieces, missing = self._written(given, signs)
        else:
            answer_pieces, missing = self._raw(given.answer), []
        return Draft(
            (*pieces, *self._following(pieces, answer_pieces)),
            signs.cut if signs else "",
            written,
            (*left_out, *missing),
        )

    def guarded(self, given: Conversation) -> tuple[Conversation, str]:
        """Return the conversation with a sign in every control token that data spell, and the sign."""
        signs = self._signs(given)
        return (self._guarded(given, signs.cut), signs.cut) if signs else (given, "")

    def _signs(self, given: Conversation, *, needed: bool = False) -> Signs | None:
        """Return the signs for a conversation, None where none is needed."""
        spelled = any(self._cut(text, "\0") != text for text in given.texts)
        needed = needed or spelled or not given.is_plain
        return Signs.absent_from(given.texts) if needed else None

    def _is_written(self, answer: Message) -> bool:
        """Whether only the template knows how to write this answer."""
        if answer.tool_calls and self.template.shape.calls != "none":
            return True
        return bool(answer.content and self.template.shape.trace)

    def _guarded(self, given: Conversation, sign: str) -> Conversation:
        tools, opened = not given.is_plain, self.template.opens_reasoning

        def own(text: str) -> str:
            return self._cut(text, sign)

        def foreign(text: str) -> str:
            return self._cut(text, sign, tools=tools)

        return Conversation(
            [guarded(message, own, foreign) for message in given.messages],
            guarded(given.answer, own, foreign, opened=opened),
            guarded_json(given.tools, foreign),
        )

    def _before(
        self, given: Conversation, signs: Signs | None
    ) -> tuple[list[Piece], list[tuple[int, str]]]:
        """Return the rendered prompt, with the turns of assistants apart where there are signs."""
        if signs is None:
            return [Piece(self.template.render(given.messages, tools=given.tools), CONTEXT)], []
        rendered = self.template.render(signs.mark(given.messages), tools=given.tools)
        found = signs.found_in(rendered)
        pieces, end = [], 0
        for place, message in enumerate(given.messages):
            spans = self._spans(found, place, given) if message.role == "assistant" else []
            for start, stop, group in spans:
                start = max(start, end)  # whatever a template moves or repeats
                pieces += [
                    Piece(found.text[end:start], CONTEXT),
                    Piece(found.text[start:stop], group),
                ]
                end = max(start, stop)
        return [*pieces, Piece(found.text[end:], CONTEXT)], found.left_out(given.messages)

    def _written(
        self, given: Conversation, signs: Signs
    ) -> tuple[list[Piece], list[tuple[int, str]]]:
        """Return the answer as the template writes it."""
        turns = [*given.messages, given.answer]
        # A call is never the last turn for long, and some templates write it otherwise while it is.
        shown = [*signs.mark(turns), *(TOOL_PROBE[2:] if given.answer.tool_calls else ())]
        found = signs.found_in(self.template.render(shown, tools=given.tools, generation=False))
        place = len(given.messages)
        spans = self._spans(found, place, given)
        if not spans:
            raise ModelError(f"The chat template '{self.template.name}' leaves the answer out.")
        missing = [one for one in found.left_out(turns) if one[0] == place]
        return [Piece(found.text[start:stop], group) for start, stop, group in spans], missing

    def _raw(self, answer: Message) -> list[Piece]:
        """Return the answer as it stands, its calls as text."""
        opened = self.template.opens_reasoning
        opening, trace, closing, _ = parts_of(answer.content, opened=opened)
        head = opening + trace + closing
        # A call ends the trace before it, also one that was never closed.
        text = self.template.shape.with_calls_as_text(answer).content.removeprefix(head)
        before = "" if opened and not trace else head
        return [piece for piece in (Piece(before, REASONING), Piece(text, ANSWER)) if piece.text]

    def _following(self, prompt: Sequence[Piece], answer: list[Piece]) -> list[Piece]:
        """Return the answer as it follows a prompt that may have begun a trace."""
        if not answer or not self.template.opens_reasoning:
            return answer
        if all(piece.group != REASONING for piece in answer):
            return [Piece(empty_thought(prompt[-1].text), CONTEXT), *answer]
        first, *others = answer
        twice = OPENING.match(first.text)
        return [first._replace(text=first.text[twice.end() if twice else 0 :]), *others]

    def _spans(self, found: Marked, place: int, given: Conversation) -> list[tuple[int, int, int]]:
        before = given.messages[place - 1].role if place else ""
        bounds = Bounds(self._header(before), self._endings, self.reading.include_end_of_turn)
        return found.spans(place, bounds)

    def _header_after(self, role: str) -> str:
        """Return what begins an answer after a turn of this role: the last token of structure before it."""
        turns = _BEFORE.get(role, PROBE[:1])
        try:
            after = self.template.render(turns).rpartition(turns[-1].content)[2]
        except ModelError:
            return ""
        opened = OPENING_AT_END.search(after)
        header = after[: opened.start()] if opened else after
        return header[max(0, header.rfind("<"), header.rfind("[")) :]

    @cached_property
    def _endings(self) -> tuple[str, ...]:
        """The texts that end a turn of the assistant."""
        rendered = self.template.render(PROBE)
        after = rendered.rpartition(PROBE[1].content)[2].lstrip()
        history = after[: after.find(">") + 1]
        found = {self.template.end_of_turn, history, self.template.special_tokens["eos_token"]}
        return (*sorted(found - {""}), *_ENDINGS)


_BEFORE = {"tool": TOOL_PROBE, "assistant": PROBE[:2]}


def _without_trace(message: Message, *, opened: bool = False) -> Message:
    if message.role != "assistant":
        return message
    return message._replace(content=parts_of(message.content, opened=opened).answer)
