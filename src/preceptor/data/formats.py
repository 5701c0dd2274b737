"""Read the rows of a file or data set, whatever its format, one row or batch at a time.

A reader is a generator that moves a `Journal` along as it yields, so that whoever
meets a problem with a row can say where it is. What the columns mean is for `layouts`.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from preceptor.data.json_text import BYTE_ORDER_MARK, parsed
from preceptor.data.streams import INVALID, PACKED, open_bytes
from preceptor.errors import DataError, PreceptorError, nearest, require
from preceptor.store.activity import activity, quiet_retries, quieten_downloads

LONGEST_LINE = 1 << 26
"""Bytes of a line of JSON Lines; a longer one is a problem of that line."""

LARGEST_DOCUMENT = 1 << 28
"""Bytes of a file that is one JSON document, which must fit into memory many times over."""

LONGEST_GAP = 100_000
"""Lines one after another that hold no row; more are no file of rows."""

_FREELY = 1 << 29
_MOST_TIMES = 200
"""A column of Parquet may unpack to this many times its size, or to 512 MiB."""

_DETAILED_PROBLEMS = 20  # of each file; all are counted
_BATCH_ROWS = 512
_CSV_BLOCK_BYTES = 1 << 24  # a row must fit into a block
_HEADER_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_QUOTED = re.compile('"[^"]*"')

Row = Mapping[str, str | None]

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
    except PreceptorError:
        raise
    except Exception as reason:  # whatever a library makes of a damaged or hostile file
        if isinstance(reason, UnicodeDecodeError):
            journal.line = reason.object.count(b"\n", 0, reason.start) + 1
        journal.line = getattr(reason, "lineno", journal.line)
        raise DataError(
            f"{journal.path} cannot be read beyond {journal.unit} {journal.line}: {_why(reason)}. "
            "Repair the file, or leave it out."
        ) from reason


def _read_json_lines(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    journal.unit, last = "line", 0
    with _failures(journal), open_bytes(path) as file:
        for journal.line, line in enumerate(_lines(file), 1):
            if journal.line - last > LONGEST_GAP:
                raise ValueError(f"the {LONGEST_GAP:,} lines before it hold no row")
            if line.isspace():
                continue
            if len(line) > LONGEST_LINE:
                journal.note(f"the line is longer than {LONGEST_LINE >> 20} MiB")
                continue
            try:
                row = parsed(line)
            except ValueError as reason:
                if line.removeprefix(BYTE_ORDER_MARK).strip():
                    journal.note(_why(reason))
                continue
            last = journal.line
            yield row


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines; of one that is too long a part that is too long as well."""
    for line in iter(partial(file.readline, LONGEST_LINE + 1), b""):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def _read_json(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read one document, or the JSON Lines that a file of this ending may hold all the same."""
    if _holds_json_lines(path, journal):
        yield from _read_json_lines(path, journal, columns)
        return
    journal.unit = "line"
    with _failures(journal), open_bytes(path) as file:
        raw = file.read(LARGEST_DOCUMENT + 1)
        if len(raw) > LARGEST_DOCUMENT:
            raise ValueError(
                f"a document of more than {LARGEST_DOCUMENT >> 20} MiB; write JSON Lines"
            )
        document = parsed(raw)
    if isinstance(document, dict):
        document = document.get("data", document)
    journal.unit = "row"
    for journal.line, row in enumerate(document if isinstance(document, list) else [document], 1):
        yield row


def _holds_json_lines(path: Path, journal: Journal) -> bool:
    """Tell whether the first line is a whole object and more follows, as in no JSON document."""
    with _failures(journal), open_bytes(path) as file:
        first = islice(_lines(file), LONGEST_GAP)
        lines = list(islice((line for line in first if line.strip()), 2))
    if len(lines) < 2 or not lines[0].removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(parsed(lines[0]), dict)
    except ValueError:
        return False


def _why(reason: Exception) -> str:
    if isinstance(reason, UnicodeDecodeError):
        return f"not valid UTF-8: byte 0x{reason.object[reason.start]:02x}, {reason.reason}"
    if isinstance(reason, json.JSONDecodeError):
        return f"not valid JSON: {reason}"
    return str(reason).splitlines()[0] if str(reason) else type(reason).__name__


def _read_parquet(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    import pyarrow.parquet as pq

    with _failures(journal), path.open("rb") as raw, pq.ParquetFile(raw) as file:
        known = file.schema_arrow.names
        _refuse_twins(known)
        names = [name for name in known if columns is None or name in columns]
        _refuse_bombs(file.metadata, names)
        yield from _batch_rows(file.iter_batches(_BATCH_ROWS, columns=names), journal)


def _read_arrow(path: Path, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read Arrow's IPC format, the file as well as the stream (which `datasets` keeps)."""
    import pyarrow as pa

    with _failures(journal), path.open("rb") as raw:
        of_file = raw.read(6) == b"ARROW1"
        raw.seek(0)
        reader = pa.ipc.open_file(raw) if of_file else pa.ipc.open_stream(raw)
        known = reader.schema.names
        _refuse_twins(known)
        names = [name for name in known if columns is None or name in columns]
        batches = map(reader.get_batch, range(reader.num_record_batches)) if of_file else reader
        yield from _batch_rows((_valid(one).select(names) for one in batches), journal)


def _valid(batch: Any) -> Any:
    batch.validate(full=True)  # a damaged one would end the process where it is looked at
    return batch


def _refuse_bombs(held: Any, names: Iterable[str]) -> None:
    every = [held.row_group(at) for at in range(held.num_row_groups)]
    # A damaged account of a column ends the process where pyarrow reads it, so it is asked for where a
    # bomb is possible alone.
    groups = [group for group in every if group.total_byte_size > _FREELY]
    for part in (group.column(at) for group in groups for at in range(group.num_columns)):
        most = max(_FREELY, _MOST_TIMES * part.total_compressed_size)
        if part.total_uncompressed_size > most and part.path_in_schema.partition(".")[0] in names:
            raise ValueError(
                f"'{part.path_in_schema}' unpacks to more than {_MOST_TIMES} times its size"
            )


def _refuse_twins(names: Iterable[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1 and name]
    if twins:
        raise ValueError(
            f"two columns are called '{twins[0]}': rename one of them, or leave it out"
        )


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
    journal.line = 1
    with _failures(journal):
        with open_bytes(path, marked=True) as file:
            header, delimiter = _header(file.read(_HEADER_BYTES), tabs=".tsv" in path.suffixes)
        _refuse_twins(header)
        with open_bytes(path, marked=True) as file:
            batches = arrow_csv.open_csv(
                file,
                read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=arrow_csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(header, pa.string()),
                    include_columns=[n for n in header if n and n in (columns or header)],
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for row in _batch_rows(batches, journal, before=1, unfit=unfit):
                if any(value and INVALID in value for value in cast("Row", row).values()):
                    journal.note("not valid UTF-8")
                else:
                    yield row


def _header(start: bytes, *, tabs: bool) -> tuple[Sequence[str], str]:
    """Return the names of a CSV file's columns and what parts them: the sign that the header has most of."""
    text = start.decode("utf-8-sig", "ignore")  # the last sign may be cut in two
    bare = _QUOTED.sub("", text).partition("\n")[0]
    delimiter = "\t" if tabs else max(_DELIMITERS, key=bare.count)
    header = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
    if wrong := next((name for name in header if INVALID in name), None):
        shown = wrong.replace(INVALID, "?")
        raise ValueError(f"the column '{shown:.80}' is not UTF-8: save the file as UTF-8")
    return header, delimiter


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
    try:
        columns = [_cells(batch.column(at)) for at in range(batch.num_columns)]
    except UnicodeDecodeError as reason:
        if batch.num_rows == 1:
            yield reason
            return
        for at in range(batch.num_rows):
            yield from _python_rows(batch.slice(at, 1))
        return
    names = batch.schema.names
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _cells(column: Any) -> list[object]:
    """Return the values of a column; texts go by way of NumPy, several times as fast.

    Dates beyond Python's years, unknown time zones and the like are given as the type of the column: what
    nobody asked for does no harm, and whoever asked is told what it is.
    """
    from pyarrow import types

    texts = types.is_string(column.type) or types.is_large_string(column.type)
    try:
        found = column.to_numpy(zero_copy_only=False).tolist() if texts else column.to_pylist()
        return cast("list[object]", found)
    except Exception:
        return list(column.to_pylist()) if texts else [column.type] * len(column)


def saved_rows(path: Path, split: str, journal: Journal, columns: Columns) -> Iterator[object]:
    """Read what `datasets.save_to_disk` wrote: one data set, or a folder of splits."""
    require("datasets", purpose="A folder that the package datasets saved")
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
    require("datasets", purpose=f"'{name}', a data set of the Hub,")
    import datasets

    quieten_downloads()
    datasets.disable_progress_bars()
    with _failures(journal):
        try:
            with activity(f"asking the Hub for {name}"), quiet_retries():
                rows = datasets.load_dataset(name, split=split, streaming=True)
        except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
            raise DataError(
                f"'{name}' is neither a path here nor a data set that can be reached on the Hub "
                f"({type(error).__name__}). Check the name, the network, and HF_TOKEN for gated data sets."
            ) from error
        for journal.line, row in enumerate(rows, 1):
            yield row


_TEXTS = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
READERS: dict[str, Callable[[Path, Journal, Columns], Iterator[object]]] = {
    **_TEXTS,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    **{f"{ending}{packed}": _TEXTS[ending] for packed in PACKED for ending in _TEXTS},
}
"""The reader of each file ending: it yields rows, moving the journal along."""
