"""Where a reasoning trace ends and the answer begins: `<think> ... </think>` and its kin."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from preceptor.types import Response

_MARKS = {
    "<think>": "</think>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
"""What begins and ends a trace of Qwen, EXAONE, Seed, Magistral, Kimi, Sky-T1, Command and gpt-oss."""

_STARTS = tuple({mark[0] for pair in _MARKS.items() for mark in pair})
_CHANNEL_END = "<|end|><|start|>assistant"
_ENDS = "|".join(map(re.escape, _MARKS.values()))
_BEGIN = re.compile("|".join(map(re.escape, _MARKS)))
_END = re.compile(_ENDS)
_FIRST = re.compile(rf"\s*({_BEGIN.pattern})")
OPENING = re.compile(rf"\s*(?:{_BEGIN.pattern})\s*")
OPENING_AT_END = re.compile(rf"\s*(?:{_BEGIN.pattern})\s*$")
CLOSING = re.compile(rf"\s*(?:{_ENDS})\s*")
EMPTY_THOUGHT = re.compile(rf"\s*(?:{_BEGIN.pattern})\s*(?:{_ENDS})\s*")
_LONE_END = re.compile(rf"^[ \t]*(?:{_ENDS})[ \t]*$", re.MULTILINE)

_ANALYSIS = "<|channel|>analysis<|message|>"
_IN_CHANNELS = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")
_CHANNEL = re.compile(
    r"<\|channel\|>(?P<name>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<said>.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
_FLAT = re.compile(r"analysis(?=\S)(.*?)assistant(?:commentary.*?assistant)?final(.*)", re.DOTALL)
"""Channels of which a decoder left the control tokens out."""

UNFINISHED = "unfinished reasoning"
"""Why a response that is a trace without an end has no answer."""


def with_reasoning(reasoning: str, answer: str, *, ended: bool = False) -> str:
    """Return an answer behind its reasoning, in marks that are cut at when it is read.

    A trace without an answer has no end, unless it is said to have `ended`.
    """
    if not reasoning:
        return answer
    opened = f"<think>\n{reasoning.replace('</think>', '</ think>')}"
    return f"{opened}\n</think>\n\n{answer}" if answer or ended else opened


def from_channels(text: str) -> str:
    """Return what gpt-oss writes in channels as an answer behind its reasoning in marks, others as given."""
    if not _IN_CHANNELS.match(text):
        flat = _FLAT.fullmatch(text) if text.startswith("analysis") else None
        return with_reasoning(flat[1], flat[2]) if flat else text
    thought: list[str] = []
    said: list[str] = []
    for part in _CHANNEL.finditer(text):
        to = f"{part['to'].strip()} " if "to=" in part["to"] else ""
        (thought if part["name"] == "analysis" else said).append(to + part["said"])
    return with_reasoning("\n\n".join(thought), "\n\n".join(said))


def answered(response: Response) -> Response:
    """Return a response as whoever judges the answer reads it: without the trace, its calls as text.

    One that is a trace without an end has an empty text.
    """
    text = without_reasoning(response.text or "")
    if text == response.text and not response.tool_calls:
        return response
    return replace(response, text=response.message._replace(content=text).text, tool_calls="")


def begins_reasoning(prompt: str) -> bool:
    """Tell whether a rendered prompt ends with the beginning of a reasoning trace."""
    return prompt.rstrip().endswith(tuple(_MARKS))


class Parts(NamedTuple):
    """A text in four, which join to it: what opens its trace, the trace, what closes it, and the answer.

    White space around the trace is of the marks. Without a trace all but the answer are empty; of one that
    never ends, what closes it and the answer are.
    """

    opening: str
    trace: str
    closing: str
    answer: str


def parts_of(text: str, *, opened: bool = False) -> Parts:
    """Return the parts of a text; `opened` as in `without_reasoning`, for a text that has an end mark."""
    start = _answer_from(text, opened=opened and _END.search(text) is not None)
    if start == 0:
        return Parts("", "", "", text)
    head = text if start is None else text[:start]
    begin, ends = _FIRST.match(head), list(_END.finditer(head)) if start is not None else []
    first = begin.end() if begin else 0
    trace = head[first : ends[-1].start() if ends else len(head)].removesuffix(_CHANNEL_END).strip()
    at = head.index(trace, first)
    answer = text[len(head) :].lstrip()
    return Parts(text[:at], trace, text[at + len(trace) : len(text) - len(answer)], answer)


def family_marks(template: str) -> tuple[str, str] | None:
    """Return the marks that the source of a chat template names, None where it names none."""
    return next(((one, end) for one, end in _MARKS.items() if one in template), None)


def empty_thought(prompt: str) -> str:
    """Return what closes at once the trace that a rendered prompt has begun."""
    begun = prompt.rstrip()
    mark = next(end for begin, end in _MARKS.items() if begun.endswith(begin))
    return f"\n\n{mark}\n\n".removeprefix(prompt[len(begun) :])


def without_reasoning(text: str, *, opened: bool = False) -> str:
    """Return the answer without the reasoning traces before it.

    `opened` says that the chat template opens the first trace itself. Where that is not known, an end mark on
    a line of its own, before any begin mark, counts too. A trace that never ends leaves nothing.
    """
    return _answer(text, opened=opened) or ""


def has_reasoning(text: str) -> bool:
    """Tell whether a text shows a reasoning trace, by a mark that begins it or one that ends one."""
    # Nearly every text is spared the search for each of the marks.
    for start in _STARTS:
        if start in text:
            break
    else:
        return False
    return bool(_FIRST.match(text)) or any(end in text for end in _MARKS.values())


def is_unfinished(text: str, *, opened: bool = False) -> bool:
    """Tell whether a text is a reasoning trace that never ends."""
    return _answer(text, opened=opened) is None


def _answer(text: str, *, opened: bool) -> str | None:
    if opened and "<|channel|>" in text:
        text, opened = _ANALYSIS + text, False
    text = from_channels(text)
    start = _answer_from(text, opened=opened)
    if start is None:
        return None
    return text[start:].lstrip() if start else text


def _answer_from(text: str, *, opened: bool) -> int | None:
    """Return where the answer begins; None where a trace never ends."""
    start = 0
    if not opened and not has_reasoning(
        text
    ):  # nearly every text: spare it the search line by line
        return 0
    if opened or not _FIRST.match(text):
        end = (_END if opened else _LONE_END).search(text)
        if end is None or (not opened and _BEGIN.search(text, 0, end.start())):
            return None if opened else 0
        start = end.end()
    while begin := _FIRST.match(text, start):
        mark = _MARKS[begin[1]]
        end_at = text.find(mark, begin.end())
        if end_at < 0:
            return None
        start = end_at + len(mark)
    return start
