"""Find in a rendered conversation which parts of it an assistant wrote, by signs put into its texts before.

A sign is a character of Unicode's private planes that none of the texts holds. It stands within the white
space around a text, so that a template that trims, splits or quotes the text does so as without it.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from preceptor.engines.reasoning import CLOSING, EMPTY_THOUGHT, parts_of
from preceptor.errors import ModelError
from preceptor.types import Message

CONTEXT, ANSWER, REASONING = 0, 1, 2
"""The groups of tokens: not counted, of an answer, of the reasoning before it."""

Cut = Callable[[str], str]
"""Returns a text with signs in the control tokens that it spells."""

_PLANES = (0xF0000, 0x100000)
_PLACES = 8
_TURNS = 0xFFF0 // _PLACES - 1
_TRACE, _TRACE_END, _TEXT, _TEXT_END, _CALL, _CALL_END, _LAST_CALL, _LAST_CALL_END = range(8)


class Piece(NamedTuple):
    """A part of a rendered conversation and its group; signs of cuts may stand in it."""

    text: str
    group: int


@dataclass(frozen=True)
class Signs:
    """The signs of one conversation. `cut` is put where control tokens are cut in two."""

    plane: int

    @classmethod
    def absent_from(cls, texts: Iterable[str]) -> "Signs":
        """Return signs that none of the texts holds; ModelError where they hold some of every plane."""
        highest = "".join(texts)
        for plane in _PLANES:
            if not re.search(f"[{chr(plane)}-{chr(plane + 0xFFFF)}]", highest):
                return cls(plane)
        raise ModelError("The conversation holds characters of both private planes of Unicode.")

    @property
    def cut(self) -> str:
        """The sign of a cut."""
        return chr(self.plane)

    def mark(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the signs of their places in them."""
        if len(messages) > _TURNS:
            raise ModelError(f"The conversation has {len(messages):,} turns, at most {_TURNS:,}.")
        return [self._marked(place, message) for place, message in enumerate(messages)]

    def _marked(self, place: int, message: Message) -> Message:
        def around(text: str, kind: int) -> str:
            inner = text.strip()
            start = text.find(inner)
            signed = f"{self._sign(place, kind)}{inner}{self._sign(place, kind + 1)}"
            return text[:start] + signed + text[start + len(inner) :] if inner else text

        if message.role != "assistant":
            return message._replace(content=around(message.content, _TEXT))
        opening, trace, closing, answer = parts_of(message.content)
        content = opening + around(trace, _TRACE) + closing + around(answer, _TEXT)
        calls = json.loads(message.tool_calls or "[]")
        for call, kind in zip([*calls[:1], *calls[1:][-1:]], (_CALL, _LAST_CALL), strict=False):
            call["name"] = around(str(call.get("name", "")), kind)
        signed = json.dumps(calls, ensure_ascii=False) if calls else ""
        return message._replace(content=content, tool_calls=signed)

    def _sign(self, place: int, kind: int) -> str:
        return chr(self.plane + (place + 1) * _PLACES + kind)

    def found_in(self, rendered: str) -> "Marked":
        """Return a rendered text without the signs of places, and where each stood first."""
        pieces: list[str] = []
        found: dict[tuple[int, int], int] = {}
        length = start = 0
        signs = re.compile(f"[{chr(self.plane + _PLACES)}-{chr(self.plane + 0xFFFF)}]")
        for sign in signs.finditer(rendered):
            pieces.append(rendered[start : sign.start()])
            length += len(pieces[-1])
            start = sign.end()
            place, kind = divmod(ord(sign[0]) - self.plane - _PLACES, _PLACES)
            found.setdefault((place, kind), length)
        return Marked("".join([*pieces, rendered[start:]]), found)


def guarded(message: Message, own: Cut, foreign: Cut, *, opened: bool = False) -> Message:
    """Return a message of which every text is cut, but the marks around an assistant's reasoning.

    `own` is for what an assistant says, `foreign` for all else.
    """
    if message.role == "assistant":
        opening, trace, closing, answer = parts_of(message.content, opened=opened)
        content = opening + own(trace) + closing + own(answer)
    else:
        content = foreign(message.content)
    calls = guarded_json(message.tool_calls, foreign)
    return Message(message.role, content, calls, foreign(message.name))


def guarded_json(text: str, cut: Cut) -> str:
    """Return JSON of which every text, also of names, is cut."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return cut(value)
        if isinstance(value, list):
            return [walk(one) for one in value]
        if isinstance(value, dict):
            return {cut(name): walk(one) for name, one in value.items()}
        return value

    return json.dumps(walk(json.loads(text)), ensure_ascii=False) if text else ""


class Bounds(NamedTuple):
    """What bounds an assistant's turn in a template.

    `header` is what stands right before an answer, `endings` are the texts that end a turn; with
    `counts_ending` they count.
    """

    header: str
    endings: Sequence[str]
    counts_ending: bool = False


class Marked(NamedTuple):
    """A rendered conversation, and the places of signs in it by turn and kind."""

    text: str
    found: Mapping[tuple[int, int], int]

    def spans(self, place: int, bounds: Bounds) -> list[tuple[int, int, int]]:
        """Return where the assistant's turn at a place stands: starts, stops and groups, each from the last.

        Nothing where the template leaves the turn out.
        """
        own = {kind: at for (turn, kind), at in self.found.items() if turn == place}
        if not own:
            return []
        first, last = min(own.values()), max(own.values())
        others = [at for (turn, _), at in self.found.items() if turn != place]
        before = max((at for at in others if at <= first), default=0)
        after = min((at for at in others if at >= last), default=len(self.text))
        header = self.text.rfind(bounds.header, before, first) if bounds.header else -1
        start = first if header < 0 else header + len(bounds.header)
        stop = self._stop(last, after, bounds)
        if _TRACE in own:
            split = self._after_trace(own, stop)
            return [(start, split, REASONING), (split, stop, ANSWER)]
        lead = self._lead(start, first, called=own.get(_CALL) == first)
        return [(start, lead, CONTEXT), (lead, stop, ANSWER)]

    def _lead(self, start: int, first: int, *, called: bool) -> int:
        """Return where the answer begins after what the template writes before it, as a channel's name."""
        empty = EMPTY_THOUGHT.match(self.text, start, first)
        start = empty.end() if empty else start
        return start if called or self.text[start:first].isspace() else first

    def _stop(self, last: int, after: int, bounds: Bounds) -> int:
        ends = [
            (at, at + len(ending) * bounds.counts_ending)
            for ending in bounds.endings
            if (at := self.text.find(ending, last, after)) >= 0
        ]
        return min(ends)[1] if ends else last

    def _after_trace(self, own: Mapping[int, int], stop: int) -> int:
        end = own[_TRACE_END]
        following = min((at for at in own.values() if at > end), default=stop)
        if own.get(_TEXT) == following:
            return following
        closing = CLOSING.match(self.text, end, following)
        return closing.end() if closing else end

    def left_out(self, messages: Sequence[Message]) -> list[tuple[int, str]]:
        """Return what of assistants' turns is not there: the turn's place, and what of it."""
        names = {_TRACE: "reasoning", _TEXT: "text", _CALL: "calls", _LAST_CALL: "further calls"}
        kinds = [
            (place, kind)
            for place, message in enumerate(messages)
            if message.role == "assistant"
            for kind in _given(message)
        ]
        return [(place, names[kind]) for place, kind in kinds if (place, kind) not in self.found]


def _given(message: Message) -> list[int]:
    _, trace, _, answer = parts_of(message.content)
    calls = json.loads(message.tool_calls or "[]")
    held = {_TRACE: trace.strip(), _TEXT: answer.strip(), _CALL: calls, _LAST_CALL: calls[1:]}
    return [kind for kind, text in held.items() if text]
