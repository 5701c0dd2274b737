"""What a chat template reads of a conversation beyond roles and texts, found by trying it.

Templates differ in how they take tool calls (arguments as an object or as JSON text), tool turns, schemas and
reasoning. What one has no place for is written as text, as Hermes and Qwen do: calls in `<tool_call>`, what a
tool gave as the user's turn in `<tool_response>`, schemas in the system's turn in `<tools>`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preceptor.engines.reasoning import family_marks, parts_of
from preceptor.errors import ModelError
from preceptor.types import Message

Turn = dict[str, Any]
Tools = list[dict[str, Any]] | None
Render = Callable[[list[Turn], Tools], str]
"""Renders turns and schemas in the form that templates take, ready for an answer; ModelError if refused."""

_NAME, _VALUE, _RESULT = "probing_name", "PROBINGVALUE", "PROBINGRESULT"
TOOL_PROBE = (
    Message("user", "INSTRUCTION"),
    Message("assistant", "", json.dumps([{"arguments": {"key": _VALUE}, "name": _NAME}])),
    Message("tool", _RESULT, name=_NAME),
)
"""A conversation that shows what a template writes around calls and what tools give."""

_SCHEMA: Tools = [
    {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "Tell.",
            "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
        },
    }
]


@dataclass(frozen=True)
class Shape:
    """What a template reads.

    `bare` is the content of a turn of calls that has none: "", or None where only turns without content are
    taken for calls (their text is left out then).
    `trace` is the key under which it takes reasoning, "" where that stands in the content in `marks` (the
    template's own; None where it names none).
    """

    developer: bool = False
    tools: bool = False
    calls: Literal["object", "text", "none"] = "none"
    bare: Literal[""] | None = ""
    results: bool = False
    trace: str = ""
    marks: tuple[str, str] | None = None

    def turns(self, messages: Sequence[Message], tools: str) -> tuple[list[Turn], Tools]:
        """Return a conversation and its schemas as the template takes them."""
        schemas = [_wrapped(one) for one in json.loads(tools)] if tools else None
        folded = self._folded(messages)
        if schemas and not self.tools:
            folded, schemas = _with_system(folded, _instructed(schemas)), None
        ids = _Ids()
        return [self._turn(one, ids) for one in folded], schemas

    def with_calls_as_text(self, message: Message) -> Message:
        """Return a turn whose calls stand in its text where the template has no place for them."""
        if self.calls != "none" or not message.tool_calls:
            return message
        parts = parts_of(message.content)
        written = [f"<tool_call>\n{_json(c)}\n</tool_call>" for c in json.loads(message.tool_calls)]
        text = "\n".join(filter(None, [parts.answer, *written]))
        return Message(message.role, "".join(parts[:3]) + text)

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        found: list[Message] = []
        answered = False  # the last turn found is, or ends with, what a tool gave
        for message in messages:
            if message.role == "developer" and not self.developer:
                message = message._replace(role="system")
            message = self.with_calls_as_text(message)
            folds = message.role == "tool" and not self.results
            if folds:
                message = Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
            joins = message.role == "system" or (message.role == "user" and (folds or answered))
            if joins and found and found[-1].role == message.role:
                between = "\n" if folds else "\n\n"
                found[-1] = Message(message.role, f"{found[-1].content}{between}{message.content}")
            else:
                found.append(message)
            answered = folds
        return found

    def _turn(self, message: Message, ids: "_Ids") -> Turn:
        turn: Turn = {"role": message.role, "content": message.content}
        if message.role == "assistant":
            turn |= self._reasoned(message.content)
        if message.tool_calls:
            calls = json.loads(message.tool_calls)
            turn["tool_calls"] = [self._call(one, ids.called()) for one in calls]
            turn["content"] = turn["content"] if self.bare is not None else None
        if message.role == "tool":
            turn |= {"tool_call_id": ids.answered()} | (
                {"name": message.name} if message.name else {}
            )
        return turn

    def _reasoned(self, content: str) -> Turn:
        """Return the content, and the reasoning in it where the template takes it."""
        parts = parts_of(content)
        if not parts.opening and not parts.closing:
            return {}
        if self.trace:
            return {"content": parts.answer} | ({self.trace: parts.trace} if parts.trace else {})
        if self.marks is None or self.marks[0] in parts.opening or not parts.closing:
            return {}
        before, after = self.marks
        return {"content": f"{before}\n{parts.trace}\n{after}\n\n{parts.answer}"}

    def _call(self, call: dict[str, Any], id_: str) -> Turn:
        arguments = call.get("arguments", {})
        if self.calls == "text" and not isinstance(arguments, str):
            arguments = _json(arguments)
        function = {"name": call.get("name", ""), "arguments": arguments}
        return {"type": "function", "id": id_, "function": function}


class _Ids:
    """Names for calls, nine letters and digits as Mistral's templates demand, and whose answer comes next."""

    def __init__(self) -> None:
        self._calls = self._answers = 0

    def called(self) -> str:
        self._calls += 1
        return f"call{self._calls:05d}"

    def answered(self) -> str:
        self._answers += 1
        return f"call{min(self._answers, max(1, self._calls)):05d}"


def shape_of(source: str, render: Render) -> Shape:
    """Return what the template of this source reads, found by rendering small conversations with it."""
    calls: Literal["object", "text", "none"] = "none"
    bare: Literal[""] | None = ""
    for form, content in _FORMS:
        text = _tried(render, TOOL_PROBE[:2], Shape(calls=form, bare=content, results=True))
        if _NAME in text and _VALUE in text and f"'{_VALUE}'" not in text:
            calls, bare = form, content
            break
    shape = Shape(calls=calls, bare=bare, results=True)
    shown = "tool" in source and _RESULT in _tried(render, TOOL_PROBE, shape)
    splits = "</think>" in source
    keys = (key for key in ("reasoning_content", "thinking") if key in source and not splits)
    return Shape(
        developer="developer" in source,
        tools="tools" in source and _NAME in _tried(render, TOOL_PROBE[:1], Shape(), _SCHEMA),
        calls=calls,
        bare=bare,
        results=shown,
        trace=next(keys, ""),
        marks=family_marks(source),
    )


_FORMS: tuple[tuple[Literal["object", "text"], Literal[""] | None], ...] = (
    ("object", ""),
    ("text", ""),
    ("object", None),
    ("text", None),
)


def _tried(render: Render, messages: Sequence[Message], shape: Shape, tools: Tools = None) -> str:
    try:
        return render(shape.turns(messages, "")[0], tools)
    except ModelError:
        return ""


def _wrapped(schema: object) -> dict[str, Any]:
    """Return a schema as templates take it; some data have the function alone."""
    if isinstance(schema, dict) and ("function" in schema or "name" not in schema):
        return schema
    return {"type": "function", "function": schema}


def _instructed(schemas: Iterable[object]) -> str:
    lines = "\n".join(map(_json, schemas))
    return (
        f"These functions may be called:\n<tools>\n{lines}\n</tools>\n"
        'A call is written as:\n<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'
    )


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0].role == "system":
        return [Message("system", f"{messages[0].content}\n\n{text}"), *messages[1:]]
    return [Message("system", text), *messages]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
