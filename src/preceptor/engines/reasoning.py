"""Where a reasoning trace ends and the answer begins: `<think> ... </think>` before the response."""

import re

_BEGIN, _END = "<think>", "</think>"
_LONE_END = re.compile(r"^[ \t]*</think>[ \t]*$", re.MULTILINE)


def begins_reasoning(prompt: str) -> bool:
    """Tell whether a rendered prompt ends with the beginning of a reasoning trace."""
    return prompt.rstrip().endswith(_BEGIN)


def without_reasoning(text: str, *, opened: bool = False) -> str:
    """Return the answer without the reasoning trace before it, up to `</think>`.

    `opened` says that the chat template opens the trace itself. Where that is not known, a `</think>` on a
    line of its own, before any `<think>`, counts too. A trace that never ends leaves nothing.
    """
    if opened or text.lstrip().startswith(_BEGIN):
        return text.partition(_END)[2].lstrip()
    end = _LONE_END.search(text)
    return text[end.end() :].lstrip() if end and _BEGIN not in text[: end.start()] else text


def is_unfinished(text: str) -> bool:
    """Tell whether a text is a reasoning trace that never ends."""
    return text.lstrip().startswith(_BEGIN) and _END not in text
