"""OpenAI's batch output: answers by `custom_id`, whose questions stand in the file that was handed in.

Each row becomes a conversation, what was asked and what was answered, in the layout `messages`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.data.formats import READERS, Columns, Journal
from preceptor.data.layouts import QUESTION_COLUMNS
from preceptor.data.matching import ID_COLUMNS
from preceptor.data.roles import Row, look_up
from preceptor.errors import DataError, PreceptorError

Reader = Callable[[Journal, Columns], Iterator[object]]

_ID = "custom_id"
_MOST_NEIGHBOURS = 200


def is_output(rows: Sequence[Row]) -> bool:
    """Tell whether rows are batch output: an id and a response each, which a failed request has not."""
    return all(_ID in row and "response" in row for row in rows) and any(
        isinstance(look_up(row, "response.body"), dict) for row in rows
    )


def is_input(row: object) -> bool:
    """Tell whether a row is one of a batch that was handed in."""
    return isinstance(row, dict) and _ID in row and isinstance(row.get("body"), dict)


def requests_beside(path: Path) -> Path:
    """Return the file beside batch output that holds what was asked.

    Raises:
        DataError: there is none.
    """
    answered = {row.get(_ID) for row in _head(path, 20) if isinstance(row, dict)}
    others = sorted(one for one in path.parent.iterdir() if one != path and one.suffixes)
    for other in others[:_MOST_NEIGHBOURS]:
        if "".join(other.suffixes[-2:]) in READERS or other.suffix in READERS:
            first = next(iter(_head(other, 1)), None)
            if is_input(first) and answered & {row[_ID] for row in _every(other) if is_input(row)}:
                return other
    raise DataError(
        f"{path} is the output of a batch, which holds answers and no prompts. Put the file that was handed "
        "in beside it (rows of custom_id and body), or name it with --requests."
    )


def joined(reader: Reader, requests: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read batch output as conversations; an answer to what was never asked is a problem of its row."""
    asked = dict(filter(None, map(_request, _every(requests))))
    if not asked:
        raise DataError(
            f"{requests} holds no requests of a batch (rows of custom_id and body), nor instructions by id."
        )
    for row in reader(journal, None):
        if not isinstance(row, dict) or str(row.get(_ID)) not in asked:
            journal.note(f"its custom_id is not among the requests in {requests.name}")
            continue
        yield _conversation(row, asked[str(row[_ID])])


def _request(row: object) -> tuple[str, Mapping[str, Any]] | None:
    """Return the id and the body of a request; an instruction with an id (the custom_id) is one too."""
    if not isinstance(row, dict):
        return None
    name = next((row[one] for one in (_ID, *ID_COLUMNS) if row.get(one) is not None), None)
    text = next((row[one] for one in QUESTION_COLUMNS if row.get(one)), None)
    body = row if row.get("messages") or text is None else {"input": text}
    body = row["body"] if is_input(row) else body
    return None if name is None else (str(name), body)


def _every(path: Path) -> Iterator[Any]:
    ending = next(one for one in sorted(READERS, key=len, reverse=True) if path.name.endswith(one))
    return READERS[ending](path, Journal(str(path)), None)


def _head(path: Path, rows: int) -> list[object]:
    try:
        return [row for row, _ in zip(_every(path), range(rows), strict=False)]
    except (PreceptorError, StopIteration):
        return []


def _conversation(row: Row, asked: Mapping[str, Any]) -> Row:
    """Return what was asked and answered as a row of messages."""
    body = look_up(row, "response.body")
    found = body if isinstance(body, dict) else {}
    answer: object
    if isinstance(found.get("output"), list):
        answer, ending = _of_output(found["output"]), look_up(found, "incomplete_details.reason")
    else:
        answer, ending = (
            look_up(found, "choices.0.message"),
            look_up(found, "choices.0.finish_reason"),
        )
    return {
        _ID: row.get(_ID),
        "model": found.get("model") or asked.get("model"),
        "messages": [*_asked(asked), *([answer] if isinstance(answer, dict) else [])],
        "tools": asked.get("tools"),
        "finish_reason": ending,
    }


def _asked(body: Mapping[str, Any]) -> list[object]:
    """Return the turns of a request, to /v1/chat/completions as to /v1/responses."""
    if isinstance(body.get("messages"), list):
        return list(body["messages"])
    given = body.get("input")
    system = body.get("instructions")
    turns = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    return [
        *turns,
        *([{"role": "user", "content": given}] if isinstance(given, str) else given or []),
    ]


def _of_output(items: Sequence[object]) -> dict[str, object]:
    """Return the output of /v1/responses as one turn: its thoughts, texts and calls."""
    parts: list[object] = []
    calls: list[object] = []
    for item in items:
        if not isinstance(item, dict):
            continue
        if item.get("type") == "function_call":
            calls.append({"name": item.get("name"), "arguments": item.get("arguments")})
        elif item.get("type") == "reasoning" and item.get("summary"):
            parts.append(item)
        elif item.get("type") == "message":
            content = item.get("content")
            parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
    return {"role": "assistant", "content": parts or None, "tool_calls": calls or None}
