"""Where a reasoning trace ends and the answer begins: `<think> ... </think>` and its kin."""

import re

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

_ENDS = "|".join(map(re.escape, _MARKS.values()))
_BEGIN = re.compile("|".join(map(re.escape, _MARKS)))
_END = re.compile(_ENDS)
_FIRST = re.compile(rf"\s*({_BEGIN.pattern})")
_LONE_END = re.compile(rf"^[ \t]*(?:{_ENDS})[ \t]*$", re.MULTILINE)

UNFINISHED = "unfinished reasoning"
"""Why a response that is a trace without an end has no answer."""


def with_reasoning(reasoning: str, answer: str) -> str:
    """Return an answer behind its reasoning, in marks that are cut at when it is read."""
    if not reasoning:
        return answer
    return f"<think>\n{reasoning.replace('</think>', '</ think>')}\n</think>\n\n{answer}"


def begins_reasoning(prompt: str) -> bool:
    """Tell whether a rendered prompt ends with the beginning of a reasoning trace."""
    return prompt.rstrip().endswith(tuple(_MARKS))


def without_reasoning(text: str, *, opened: bool = False) -> str:
    """Return the answer without the reasoning traces before it.

    `opened` says that the chat template opens the first trace itself. Where that is not known, an end mark on
    a line of its own, before any begin mark, counts too. A trace that never ends leaves nothing.
    """
    start = _answer_from(text, opened=opened)
    if start is None:
        return ""
    return text[start:].lstrip() if start else text


def has_reasoning(text: str) -> bool:
    """Tell whether a text shows a reasoning trace, by a mark that begins it or one that ends one."""
    return bool(_FIRST.match(text)) or any(end in text for end in _MARKS.values())


def is_unfinished(text: str, *, opened: bool = False) -> bool:
    """Tell whether a text is a reasoning trace that never ends."""
    return _answer_from(text, opened=opened) is None


def _answer_from(text: str, *, opened: bool) -> int | None:
    """Return where the answer begins; None where a trace never ends."""
    start = 0
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
