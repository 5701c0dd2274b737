"""Rows of JSON files: objects whose fields are looked over before they are used.

The one idea: a file is an array of objects or one object a line, and any other shape is an error that
names the file and the place. Files are untrusted text.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.errors import DataError
from preceptor.store.files import read_text

Row = Mapping[str, Any]


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
