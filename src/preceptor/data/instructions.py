"""Read instructions from whatever files, folders or data sets users have, and write a set of them.

What `ResponseSource` reads as the instruction of a row is what `PromptSource` reads of
it, so that both know it by the same id; responses are left alone and need not be there.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from preceptor.config.data import ReadOptions
from preceptor.data.formats import Columns, Journal
from preceptor.data.responses import (
    FilesRead,
    Input,
    SourceFile,
    checked_alike,
    find_inputs,
    first_rows,
    recognised_of,
    tell_problems,
)
from preceptor.data.roles import Row, Unreadable, shown
from preceptor.data.schema import Reading
from preceptor.data.settle import settle_instructions
from preceptor.data.turns import Report
from preceptor.errors import StudyError
from preceptor.store.files import explained, replacing
from preceptor.types import Instruction, Message

logger = logging.getLogger(__name__)

Turns = Literal["first", "last"]
"""Which turn of the user a conversation asks to answer: its first, or its last with all before."""

WRITTEN_FIELDS = (
    "task_category",
    "category",
    "input_quality",
    "quality",
    "difficulty",
    "language",
)
"""The fields that are written beside an instruction wherever a row has them."""

_NO_OPTIONS = ReadOptions()
_OWN_COLUMNS = ("id", "instruction", "messages", "tools", "source", "reference")
_ROWS_AT_ONCE = 10_000
_DEEPEST = 8  # levels of nested columns
_Reader = Callable[[Journal, Columns], Iterator[object]]


@dataclass(frozen=True)
class Prompt:
    """An instruction, its checkable answer if it has one, and what its row says about it.

    `fields` are the row's other plain columns: strings, numbers, booleans and nulls (not finite
    numbers are null), dotted where nested. `source` is the name of the file, folder or data set.
    """

    instruction: Instruction
    reference: Mapping[str, object] | None
    fields: Mapping[str, object]
    source: str


class PromptSource(FilesRead):
    """The instructions in a set of files; each iteration reads the files anew, one row at a time.

    Rows that cannot be read are skipped and kept as `problems`. Repeated instructions are all given.
    """

    def __init__(self, files: Sequence[SourceFile], turns: Turns = "last") -> None:
        super().__init__(files)
        self.turns = turns

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Path],
        options: ReadOptions = _NO_OPTIONS,
        *,
        turns: Turns = "last",
    ) -> Self:
        """Look at the first rows of each file and settle how to read it.

        Every layout of responses is read, and instructions alone: a text column (instruction,
        prompt, question or text, with or without an input), or conversations that end with the
        user. In the files of one whose first rows hold an assistant's last turn, an instruction is
        all that comes before the last such turn, as `ResponseSource` has it.

        Args:
            paths: files, folders and Hub data sets, as in `ResponseSource.open`.
            options: overrides for what is not recognised.
            turns: "last" takes the whole context up to the last turn of the user, "first" the
                system turn and the first turn of the user (which gives a longer conversation
                another id than `ResponseSource` does).

        Raises:
            DataError: a file is missing, empty or unreadable, holds no known column of instructions,
                or a column named in the options is not there.
            StudyError: `turns` is neither.
        """
        if turns not in ("first", "last"):
            raise StudyError(f"turns is '{turns}': expected first or last.")
        inputs = find_inputs(paths, options.split)
        for label, count in Counter(found.label for found in inputs).items():
            if count > 1:
                logger.info("%d files count as one source: %s", count, label)
        return cls(checked_alike(recognised_of(inputs, partial(_sniff, options=options))), turns)

    def __iter__(self) -> Iterator[Prompt]:
        """Yield every instruction of every file in order.

        Raises:
            DataError: a file breaks off, or none of its rows can be read.
        """
        for file, journal in self._opened():
            reading, readable = file._reading, False
            left_out = frozenset(reading.columns)
            for row in file._reader(journal, reading.top_columns):
                try:
                    prompt = self._prompt(reading, row, left_out, journal.note)
                except Unreadable as problem:
                    journal.note(str(problem))
                    continue
                readable = True
                yield prompt
            tell_problems(journal, readable=readable)

    def _prompt(
        self, reading: Reading, row: object, left_out: frozenset[str], report: Report
    ) -> Prompt:
        """Return the prompt of a row; Unreadable where there is none."""
        if not isinstance(row, dict):
            raise Unreadable(f"the row is {shown(row)}, expected an object with named columns")
        (answer,) = reading.answers(row, report)
        instruction = reading.instruction(answer)
        if self.turns == "first":
            instruction = _first_turn(instruction)
        reference = reading.references.of(row, report)
        fields = _plain_fields(row, left_out)
        if reference is not None:
            name = reading.references.column or ""
            fields = {key: value for key, value in fields.items() if not _is_within(key, name)}
        return Prompt(instruction, reference, fields, reading.label)


def _sniff(found: Input, options: ReadOptions) -> SourceFile:
    rows = first_rows(found)
    reading = settle_instructions(rows, options, where=found.path, label=found.label)
    source = f"source '{found.label}' from the {found.label_origin}"
    plain = {name for row in rows for name, value in row.items() if not isinstance(value, list)}
    reader = partial(_with_columns, found.reader, frozenset(plain))
    columns, name = reading.columns, found.name
    return SourceFile(found.path, reading.layout, source, columns, name, reading, reader)


def _with_columns(
    reader: _Reader, plain: frozenset[str], journal: Journal, columns: Columns
) -> Iterator[object]:
    """Read the plain columns beside those of the layout; long lists are not fetched for nothing."""
    return reader(journal, None if columns is None else columns | plain)


def _first_turn(instruction: Instruction) -> Instruction:
    """Return the system turn and the first turn of the user."""
    messages = instruction.messages
    first = next(message for message in messages if message.role == "user")
    if not first.content:
        raise Unreadable("the first turn of the user is empty")
    system = messages[:1] if messages[0].role in ("system", "developer") else ()
    return replace(instruction, messages=(*system, first))


def _plain_fields(
    row: Row, left_out: frozenset[str] = frozenset(), *, depth: int = 0
) -> dict[str, object]:
    """Return the strings, numbers, booleans and nulls of a row, dotted where nested."""
    fields: dict[str, object] = {}
    for name, value in row.items():
        if name in left_out:
            continue
        if isinstance(value, str) or value is None:
            fields[name] = value
        elif isinstance(value, float):
            fields[name] = value if math.isfinite(value) else None
        elif isinstance(value, int):
            fields[name] = value
        elif isinstance(value, dict) and depth < _DEEPEST:
            for inner, part in _plain_fields(value, depth=depth + 1).items():
                if (dotted := f"{name}.{inner}") not in left_out:
                    fields[dotted] = part
    return fields


def _is_within(key: str, column: str) -> bool:
    return key == column or key.startswith(f"{column}.")


def write_prompts(prompts: Iterable[Prompt], path: Path, *, fields: Sequence[str] = ()) -> int:
    """Write prompts for `PromptSource` to read back with the same ids; return how many.

    A row has `id` (what it is matched by, else hexadecimal), `instruction` (a text) or `messages` (where
    there is a system turn or several turns, or a call), `tools`, `source`, `reference` where there is one,
    and of the fields those of `WRITTEN_FIELDS` and the ones named. JSON Lines keep a field's type; Parquet
    has texts only, and references as JSON. The file appears whole or not at all; any other of its name is
    replaced.

    Raises:
        StudyError: the name ends in neither .jsonl nor .parquet.
        DataError: the file cannot be written.
    """
    names = [name for name in dict.fromkeys((*WRITTEN_FIELDS, *fields)) if name not in _OWN_COLUMNS]
    write = {".jsonl": _write_lines, ".parquet": _write_parquet}.get(path.suffix)
    if write is None:
        raise StudyError(f"'{path}' ends in neither .jsonl nor .parquet: name it so.")
    with explained("write", path), replacing(path) as temporary:
        return write(prompts, temporary, names)


def _write_lines(prompts: Iterable[Prompt], path: Path, names: Sequence[str]) -> int:
    count = 0
    with path.open("x", encoding="utf-8") as file:
        for prompt in prompts:
            record = _record(prompt, names)
            present = {name: value for name, value in record.items() if value is not None}
            file.write(json.dumps(present, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(prompts: Iterable[Prompt], path: Path, names: Sequence[str]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([(name, pa.string()) for name in Message._fields])
    own = {name: pa.string() for name in _OWN_COLUMNS} | {"messages": pa.list_(turn)}
    schema = pa.schema([*own.items(), *((name, pa.string()) for name in names)])
    count, remaining = 0, iter(prompts)
    with pq.ParquetWriter(path, schema) as file:
        while rows := [_texts(_record(one, names)) for one in islice(remaining, _ROWS_AT_ONCE)]:
            file.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _record(prompt: Prompt, names: Sequence[str]) -> dict[str, Any]:
    """Return the row of a prompt; None stands for what it has not."""
    messages = prompt.instruction.messages
    alone = len(messages) == 1
    # What only some turns have is left out of the others.
    turns = [
        {name: part for name, part in turn._asdict().items() if part or name == "content"}
        for turn in messages
    ]
    return {
        "id": prompt.instruction.match or prompt.instruction.id.hex(),
        "instruction": prompt.instruction.text if alone else None,
        "messages": None if alone else turns,
        "tools": prompt.instruction.tools or None,
        "source": prompt.source,
        "reference": None if prompt.reference is None else dict(prompt.reference),
        **{name: prompt.fields.get(name) for name in names},
    }


def _texts(record: dict[str, Any]) -> dict[str, Any]:
    """Return the row with a text in place of every number, boolean and reference."""
    return {
        name: value if value is None or name == "messages" else _text(value)
        for name, value in record.items()
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
