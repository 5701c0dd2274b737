"""Read the rows of a file or data set, whatever its format, one row or batch at a time.

A reader is a generator that moves a `Journal` along as it yields, so that whoever
meets a problem with a row can say where it is. What the columns mean is for `layouts`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from preceptor.errors import DataError, nearest

_DETAILED_PROBLEMS = 20  # of each file; all are counted
_BATCH_ROWS = 512
_CSV_BLOCK_BYTES = 1 << 24  # a row must fit into a block
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Columns = frozenset[str] | None
"""The columns to fetch where the format can choose; None for all."""


@dataclass(frozen=True)
class Problem:
    """A row, or a part of one, that could not be read.

    `line` counts from 1: the line of a JSON Lines file, else (`unit` is "row") the row, counting
    the header of a CSV file.
    """

    path: str
    line: int
    message: str
    unit: str = "row"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.line}: {self.message}"


class Journal:
    """Where a reader is in a file, and what it could not read there.

    `line` counts as in `Problem`; `count` is of all problems, `problems` the first twenty.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.unit = "row"
        self.line = 0
        self.count = 0
        self.problems: list[Problem] = []

    def note(self, message: str) -> None:
        """Record a problem of the current line."""
        self.count += 1
        if len(self.problems) < _DETAILED_PROBLEMS:
            self.problems.append(Problem(self.path, self.line, message, self.unit))


@contextmanager
def _failures(journal: Journal) -> Iterator[None]:
    """Turn what breaks a whole file into an error that names the file and how far it was read."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, NotImplementedError) as reason:
        if isinstance(reason, UnicodeDecodeError):
            journal.line = reason.object.count(b"\n", 0, reason.start) + 1
        journal.line = getattr(reason, "lineno", journal.line)
        raise DataError(
            f"{journal.path} cannot be read beyond {journal.unit} {journal.line}: {_why(reason)}. "
            "Repair the file, or leave it out."
        ) from reason


def _open_bytes(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        # Buffered, because a GzipFile alone looks for line ends in Python.
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(path)))
    return path.open("rb")


def _read_json_lines(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    journal.unit = "line"
    with _failures(journal), _open_bytes(path) as lines:
        for journal.line, line in enumerate(lines, 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                if not line.removeprefix(_BYTE_ORDER_MARK).strip():
                    continue
                try:
                    row = _parse_leniently(line)
                except ValueError as reason:
                    journal.note(_why(reason))
                    continue
            yield row


def _read_json(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read one document, or the JSON Lines that a file of this ending may hold all the same."""
    if _holds_json_lines(path, journal):
        yield from _read_json_lines(path, journal, columns)
        return
    journal.unit = "line"
    with _failures(journal), _open_bytes(path) as file:
        document = _parse(file.read())
    if isinstance(document, dict):
        document = document.get("data", document)
    journal.unit = "row"
    for journal.line, row in enumerate(document if isinstance(document, list) else [document], 1):
        yield row


def _holds_json_lines(path: Path, journal: Journal) -> bool:
    """Tell whether the first line is a whole object and more follows, as in no JSON document."""
    with _failures(journal), _open_bytes(path) as file:
        lines = list(islice((line for line in file if line.strip()), 2))
    if len(lines) < 2 or not lines[0].removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(_parse(lines[0]), dict)
    except ValueError:
        return False


def _parse(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _parse_leniently(raw)


def _parse_leniently(raw: bytes) -> Any:
    """Parse what orjson refuses and others write: NaN (as null), lone surrogates, a BOM."""
    text = raw.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
    try:
        return _without_surrogates(json.loads(text, parse_constant=lambda name: None))
    except RecursionError as reason:
        raise ValueError("nested too deeply") from reason


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(part) for k, part in value.items()}
    return value


def _why(reason: Exception) -> str:
    if isinstance(reason, UnicodeDecodeError):
        return f"not valid UTF-8: byte 0x{reason.object[reason.start]:02x}, {reason.reason}"
    if isinstance(reason, json.JSONDecodeError):
        return f"not valid JSON: {reason}"
    return str(reason)


def _read_parquet(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    import pyarrow.parquet as pq

    with _failures(journal), pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        yield from _batch_rows(file.iter_batches(_BATCH_ROWS, columns=names), journal)


def _read_csv(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read every column as text; an unquoted empty field is null, a quoted one an empty text."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    def skip(row: Any) -> str:
        journal.line = row.number
        journal.note(f"{row.actual_columns} fields, expected {row.expected_columns}")
        unfit.add(row.number)
        return "skip"

    unfit: set[int] = set()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with _failures(journal):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        batches = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=arrow_csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=[name for name in header if name in (columns or header)],
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        yield from _batch_rows(batches, journal, before=1, unfit=unfit)


def _batch_rows(
    batches: Iterable[Any], journal: Journal, *, before: int = 0, unfit: Container[int] = ()
) -> Iterator[object]:
    """Yield the rows of Arrow batches, numbered after those `before` and past the unfit ones."""
    number = before
    for batch in batches:
        for row in _python_rows(batch):
            number += 1
            while number in unfit:
                number += 1
            journal.line = number
            if isinstance(row, UnicodeDecodeError):
                journal.note(_why(row))
            else:
                yield row


def _python_rows(batch: Any) -> Iterator[object]:
    """Yield each row of a batch as an object, or the error where its text is not UTF-8."""
    from pyarrow import ArrowException

    try:
        columns = [_cells(batch.column(at)) for at in range(batch.num_columns)]
    except (UnicodeDecodeError, ArrowException):
        for at in range(batch.num_rows):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except UnicodeDecodeError as reason:
                yield reason
        return
    names = batch.schema.names
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _cells(column: Any) -> list[object]:
    """Return the values of a column; texts go by way of NumPy, several times as fast."""
    from pyarrow import types

    if types.is_string(column.type) or types.is_large_string(column.type):
        return cast("list[object]", column.to_numpy(zero_copy_only=False).tolist())
    return cast("list[object]", column.to_pylist())


def saved_rows(path: Path, split: str, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read what `datasets.save_to_disk` wrote: one data set, or a folder of splits."""
    import datasets

    with _failures(journal):
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                known = f"{', '.join(saved)}.{nearest(split, saved)}"
                raise DataError(f"{path} has no split '{split}'. Its splits: {known}")
            saved = saved[split]
        names = [name for name in saved.column_names if columns is None or name in columns]
        tables = saved.select_columns(names).with_format("arrow").iter(_BATCH_ROWS)
        yield from _batch_rows(tables, journal)


def hub_rows(name: str, split: str, journal: Journal, columns: Columns) -> Iterator[object]:
    """Stream a split of the Hub data set `name`; every column is fetched."""
    import datasets

    with _failures(journal):
        rows = datasets.load_dataset(name, split=split, streaming=True)
        for journal.line, row in enumerate(rows, 1):
            yield row


_JSON_READERS = {".json": _read_json, ".jsonl": _read_json_lines, ".ndjson": _read_json_lines}
READERS: dict[str, Callable[[Path, Journal, Columns], Iterator[object]]] = {
    **_JSON_READERS,
    **{f"{ending}.gz": reader for ending, reader in _JSON_READERS.items()},
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
"""The reader of each file ending: it yields rows, moving the journal along."""
