"""Rows of the benchmarks' files: objects whose fields are checked before they are used. Files are untrusted.

A file is an array of objects or one object a line; any other shape is an error that names file and place.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from preceptor.errors import DataError
from preceptor.store.files import explained, json_text, lines_text, read_text, write_text

Row = Mapping[str, Any]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def read_rows(path: Path) -> list[Row] | Row:
    """Return a JSON file's rows: an array, one object a line, or a single object as it is.

    Raises:
        DataError: if the file cannot be read, is no JSON, is empty, or a row is no object.
    """
    text = read_text(path)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        # Only line feeds part rows: other line ends of Unicode may stand inside a string.
        lines = enumerate(text.split("\n"), start=1)
        whole = [_line(line, f"'{path}', line {n}") for n, line in lines if line.strip()]
    if not isinstance(whole, list | dict) or not whole:
        raise DataError(f"'{path}' holds no rows: expected objects as JSON or JSON lines.")
    for place, row in enumerate(whole if isinstance(whole, list) else (), start=1):
        if not isinstance(row, dict):
            raise DataError(f"'{path}', row {place} is a {type(row).__name__}: expected an object.")
    return whole


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}.") from error


def text_of(row: Row, field: str, where: str) -> str:
    """Return the text in a field that every row must have.

    Raises:
        DataError: if there is none, or it is empty.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where} has no text in '{field}': expected it in every row.")
    return value


def name_of(row: Row, field: str) -> str | None:
    """Return the name in a field that rows need not have, None where there is none."""
    return str(row[field]) if row.get(field) else None


@dataclass
class ModelRows:
    """What is known of one model while a file of verdicts is read; `dropped` counts by reason."""

    model: str
    judges: set[str | None] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)

    def judge(self, where: str) -> str | None:
        """Return the one judge; DataError where the rows have several."""
        if len(self.judges) > 1:
            names = ", ".join(sorted(map(str, self.judges)))
            raise DataError(
                f"{where}: '{self.model}' was judged by different judges: {names}. Expected one: "
                "keep the rows of one."
            )
        return next(iter(self.judges), None)


def listed(rows: Sequence[Row] | Row) -> Sequence[Row]:
    """Return a file's rows as a list: a file of one line holds a single object."""
    return [rows] if isinstance(rows, Mapping) else rows


def fits(rows: Sequence[Row] | Row, *layouts: Sequence[str]) -> bool:
    """Tell whether the first row has all fields of one of these layouts."""
    fields = listed(rows)[0].keys()
    return any(fields >= set(needed) for needed in layouts)


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as one JSON array, or one object a line where the name ends in `.jsonl`; return the path.

    Folders are made.

    Raises:
        DataError: the file cannot be written.
    """
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, lines_text(rows) if path.suffix == ".jsonl" else json_text(list(rows)))
    return path


def file_name(name: str) -> str:
    """Return a name fit for a file, which differs where the names differ; most stay as they are.

    Names come from files of others: none may leave the folder or be hidden.
    """
    plain = "".join(letter if letter in _PLAIN else "_" for letter in name)[:80]
    if plain and plain == name and not plain.startswith("."):
        return plain
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{plain.lstrip('.') or 'model'}-{digest}"
