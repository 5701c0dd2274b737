"""Turns of a conversation as data sets write them: names of roles, calls of tools, parts of a content."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from preceptor.data.json_text import parsed
from preceptor.engines.reasoning import from_channels, with_reasoning, without_reasoning

Row = Mapping[str, object]

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Where servers and data sets put the trace before an answer, beside its text; the first that is set."""

TOOL_COLUMNS = ("tools", "functions")
"""Columns that hold the schemas of the tools that may be called."""

_CALL = "call"
_NAMES = {
    "system": "system",
    "developer": "developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt model bot chatbot ai bard bing claude",
    "tool": "tool function observation ipython environment tool_response tool_result tool_output "
    "function_response function_result function_output",
    _CALL: "function_call tool_call",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_INDEX = re.compile(r"-?[0-9]{1,9}")
_TEXTS = ("text", "output_text", "input_text")
_THOUGHTS = ("thinking", "reasoning")


class Unreadable(Exception):
    """Why a row, or one answer in it, gives no response; reported, never a crash."""


class Turn(NamedTuple):
    """A turn as it stands in a row; without a text `content` is None. The other fields are a `Message`'s."""

    role: str
    content: str | None
    tool_calls: str = ""
    name: str = ""


def look_up(row: Row, name: str) -> object:
    """Return the value under a column name, dotted where nested; None where there is none.

    A whole number indexes a list, a negative one from its end.
    """
    if name in row:
        return row[name]
    if "." not in name:
        return None
    head, _, rest = name.partition(".")
    inner = row.get(head)
    while isinstance(inner, list) and _INDEX.fullmatch(index := rest.partition(".")[0]):
        if not -len(inner) <= int(index) < len(inner):
            return None
        inner, rest = inner[int(index)], rest.partition(".")[2]
        if not rest:
            return inner
    return look_up(inner, rest) if isinstance(inner, dict) else None


def shown(value: object) -> str:
    """Return a value as messages show it: shortened, with its type; "missing" for None."""
    return "missing" if value is None else f"{value!r:.40} ({type(value).__name__})"


def turns_of(value: object, column: str) -> list[Turn]:
    """Return the turns of a conversation, {from, value} and {role, content} alike.

    A turn that only calls (ShareGPT's `function_call`) is one with the assistant's turn before it.

    Raises:
        Unreadable: the value is no conversation, or holds what is no text.
    """
    if not isinstance(value, list):
        raise Unreadable(f"'{column}' is {shown(value)}, expected a list of turns")
    turns: list[Turn] = []
    called: dict[str, str] = {}
    for one in value:
        if not isinstance(one, dict):
            raise Unreadable(f"'{column}' holds {shown(one)}, expected turns of role and content")
        role = _role(one, column)
        if role == _CALL:
            _add_call(turns, one, column)
        elif role == "assistant":
            turns.append(_said(one, column, called))
        else:
            turns.append(_given(one, role, column, called))
    return turns


def _role(turn: Row, column: str) -> str:
    named = turn.get("role") or turn.get("from")
    if isinstance(named, str):
        role = _ROLES.get(named) or _ROLES.get(named.strip().lower().replace("-", "_"))
        if role is not None:
            return role
    known = ", ".join(name for name in _NAMES if name != _CALL)
    raise Unreadable(
        f"'{column}' has a turn of {named!r:.40}; known roles: {known}, and their usual names"
    )


def _held(turn: Row) -> object:
    content = turn.get("content")
    return turn.get("value") if content is None else content


def _said(turn: Row, column: str, called: dict[str, str]) -> Turn:
    """Return an assistant's turn, its reasoning in marks; `called` keeps what its calls' ids stand for."""
    content = content_of(_held(turn), column)
    reasoning = reasoning_in(turn)
    name = "tool_calls" if turn.get("tool_calls") else "function_call"
    listed = turn.get(name)
    calls = calls_of(listed, f"{column}.{name}") if listed else ""
    if isinstance(listed, list) and calls:
        ids = [str(one.get("id")) for one in listed]
        names = [call["name"] for call in json.loads(calls)]
        called |= zip(ids, names, strict=True)
    content = marked(content, reasoning, called=bool(calls))
    return Turn("assistant", "" if calls and content is None else content, calls)


def _given(turn: Row, role: str, column: str, called: Mapping[str, str]) -> Turn:
    """Return a turn that nobody answers for: a user's, a system's, or what a tool gave."""
    held = _held(turn)
    if role != "tool":
        return Turn(role, content_of(held, column))
    if isinstance(held, dict) or (isinstance(held, list) and not is_parts(held)):
        held = canonical(held)
    name = turn.get("name") or called.get(str(turn.get("tool_call_id")))
    return Turn("tool", content_of(held, column), "", name if isinstance(name, str) else "")


def _add_call(turns: list[Turn], turn: Row, column: str) -> None:
    """Add a turn that is a call; what names no function is a text like another."""
    text = content_of(_held(turn), column)
    try:
        calls = calls_of(text, column)
    except Unreadable:
        calls = ""
    if not calls:
        turns.append(Turn("assistant", text))
    elif turns and turns[-1].role == "assistant":
        before = json.loads(turns[-1].tool_calls or "[]")
        turns[-1] = turns[-1]._replace(tool_calls=canonical([*before, *json.loads(calls)]))
    else:
        turns.append(Turn("assistant", "", calls))


def reasoning_in(row: Row, names: Iterable[str] = REASONING_FIELDS) -> str:
    """Return the trace that stands beside a text, empty for none."""
    for name in names:
        found = row.get(name)
        if isinstance(found, str) and found.strip():
            return found
    return ""


def marked(text: str | None, reasoning: str, *, called: bool = False) -> str | None:
    """Return a text with its reasoning in marks before it, unless it has a trace of its own.

    A trace after which neither a text nor a call (`called`) came has no end.
    """
    if text is not None:
        text = from_channels(text)
    if not reasoning or (text and without_reasoning(text) != text):
        return text
    return with_reasoning(reasoning, text or "", ended=called)


def is_conversation(value: object) -> bool:
    """Tell a list of turns from a list of content parts."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def is_parts(value: object) -> bool:
    """Tell whether a value is a list of content parts."""
    return isinstance(value, list) and all(isinstance(one, dict) and "type" in one for one in value)


def content_of(value: object, column: str) -> str | None:
    """Return a text as it stands, the parts of a list joined behind their thoughts, or None for null.

    Raises:
        Unreadable: it is something else, or holds a part that is neither, such as an image.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise Unreadable(f"'{column}' is {shown(value)}, expected a string")
    texts, thoughts = [], []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in _THOUGHTS:
            thoughts += _words(part, column)
        else:
            what = f" ({kind!r:.40})" if isinstance(kind, str) else ""
            raise Unreadable(f"'{column}' is a list with parts that are not text{what}")
    return with_reasoning("\n\n".join(thoughts), "".join(texts))


def _words(part: Row, column: str) -> list[str]:
    """Return the words of a thought, which may be parts themselves (`summary`, or a list of texts)."""
    held = next((part[name] for name in ("thinking", "text", "summary") if part.get(name)), [])
    words = [
        one.get("text") if isinstance(one, dict) else one
        for one in (held if isinstance(held, list) else [held])
    ]
    if not all(isinstance(word, str) for word in words):
        raise Unreadable(f"'{column}' has a thought that holds no text")
    return [word for word in words if isinstance(word, str)]


def calls_of(value: object, column: str) -> str:
    """Return calls of tools as canonical JSON of a list of {arguments, name}, empty for none.

    Read are OpenAI's lists and its older single `function_call`, {name, arguments} alike, each also as a
    JSON text; arguments are an object or the JSON text of one.

    Raises:
        Unreadable: a call names no function.
    """
    calls = [_call(one, column) for one in _listed(value, column)]
    return canonical(calls) if calls else ""


def _call(value: object, column: str) -> dict[str, object]:
    held = value.get("function", value) if isinstance(value, dict) else None
    name = held.get("name") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(name, str) or not name:
        raise Unreadable(f"'{column}' has a call that names no function: {shown(value)}")
    arguments = held.get("arguments", held.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = parsed(arguments.encode("utf-8", "replace")) if arguments.strip() else {}
        except ValueError:
            return {"name": name, "arguments": arguments}  # as the model wrote it
        return {"name": name, "arguments": arguments}
    return {"name": name, "arguments": _without_nulls(arguments) if arguments else {}}


def tools_of(row: Row, names: Sequence[str] = TOOL_COLUMNS) -> str:
    """Return the schemas of a row's tools as canonical JSON, empty where no column of these holds any.

    Raises:
        Unreadable: a column holds what begins like JSON and is none.
    """
    for name in names:
        value = row.get(name)
        if not value or (isinstance(value, str) and value.lstrip()[:1] not in ("[", "{")):
            continue
        tools = _listed(value, name)
        if tools and all(isinstance(one, dict) and _is_schema(one) for one in tools):
            return canonical([_without_nulls(one) for one in tools])
    return ""


def _is_schema(tool: Row) -> bool:
    held = tool.get("function", tool)
    return isinstance(held, dict) and isinstance(held.get("name", held.get("type")), str)


def _listed(value: object, column: str) -> list[object]:
    if isinstance(value, str):
        try:
            value = parsed(value.encode("utf-8", "replace")) if value.strip() else []
        except ValueError as reason:
            raise Unreadable(f"'{column}' is no JSON: {reason}") from reason
    return value if isinstance(value, list) else [] if value is None else [value]


def _without_nulls(value: object) -> object:
    """Return a value without the nulls that Parquet puts for fields that other rows have."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def canonical(value: object) -> str:
    """Return the JSON of a value in its one form: sorted keys, no spaces."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
        )
    except (RecursionError, ValueError, TypeError) as reason:
        raise Unreadable(f"a tool's data cannot be written as JSON: {reason}") from reason
