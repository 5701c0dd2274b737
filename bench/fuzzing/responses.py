"""Files of responses and instructions in every format and layout, changed somewhere; what must be read.

What must be read is worked out here from the file's own bytes, by Python's parsers and a plain reading of the
rules: rows that were left alone as they were, a changed value as it stands or its row refused, nothing else.
"""

import gzip
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing import mutate
from fuzzing.campaign import Wrong
from preceptor.config.data import ReadOptions
from preceptor.data.instructions import PromptSource
from preceptor.data.responses import ResponseSource
from preceptor.errors import PreceptorError

Seen = tuple[str, tuple[tuple[str, str], ...], str | None, str]
"""Teacher, turns, text, and the reward as it prints."""

Expected = list[Seen] | None
"""The responses of a row; None where it may give anything or nothing."""

_LONE = re.compile("[\ud800-\udfff]")
FAR = "nobody asked for it"
_CUT = 300  # levels of nesting up to which a row must be read


@dataclass(frozen=True)
class Layout:
    """How rows of one layout are made; flat ones have the columns that hold question, answer and teacher."""

    make: Callable[[int, str, str, str, float], dict[str, Any]]
    flat: tuple[str, str, str] | None = None
    system: bool = False


def _turns(kind: tuple[str, str], *pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [dict(zip(kind, pair, strict=True)) for pair in pairs]


LAYOUTS = {
    "alpaca-eval": Layout(
        lambda n, q, a, t, r: {"instruction": q, "output": a, "generator": t, "reward": r},
        ("instruction", "output", "generator"),
    ),
    "prompt-completion": Layout(
        lambda n, q, a, t, r: {"prompt": q, "response": a, "model": t, "reward": r},
        ("prompt", "response", "model"),
    ),
    "alpaca": Layout(
        lambda n, q, a, t, r: {
            "instruction": q,
            "input": "",
            "output": a,
            "generator": t,
            "reward": r,
        },
        ("instruction", "output", "generator"),
    ),
    "messages": Layout(
        lambda n, q, a, t, r: {
            "messages": _turns(
                ("role", "content"), ("system", "Be."), ("user", q), ("assistant", a)
            ),
            "model": t,
            "reward": r,
        },
        system=True,
    ),
    "sharegpt": Layout(
        lambda n, q, a, t, r: {
            "conversations": _turns(("from", "value"), ("system", "Be."), ("human", q), ("gpt", a)),
            "model": t,
            "reward": r,
        },
        system=True,
    ),
    "ultrafeedback": Layout(
        lambda n, q, a, t, r: {
            "instruction": q,
            "completions": [{"model": t, "response": a, "reward": r}],
        },
    ),
}


@dataclass
class File:
    """A file as it was made: rows, where its bytes lie, and what a reader of Python makes of it."""

    layout: str
    rows: list[dict[str, Any]]
    ending: str
    text: str = ""
    delimiter: str = ","
    changed: set[int] = field(default_factory=set)
    ends: list[int] = field(default_factory=list)
    may_be_refused: bool = False

    @property
    def kind(self) -> str:
        """The format without its packing."""
        return self.ending.split(".")[1]


def original(file: File, place: int) -> list[Seen]:
    """Return what a row that was left alone says."""
    layout = LAYOUTS[file.layout]
    question, answer, teacher, reward = _parts(place)
    system = (("system", "Be."),) if layout.system else ()
    return [(teacher, (*system, ("user", question)), answer, str(reward))]


def _parts(place: int) -> tuple[str, str, str, float]:
    return (
        f"Frage {place}: was hei\u00dft \u00e9?",
        f"Antwort {place} \u732b\n\u00fc",
        "ab"[place % 2],
        place / 4 + 1,
    )


def made(chance: Random) -> File:
    """Return an untouched file of some layout and format."""
    layout = chance.choice(list(LAYOUTS))
    flat = LAYOUTS[layout].flat is not None
    kinds = (".jsonl", ".ndjson", ".json", ".parquet", *((".csv", ".tsv") if flat else ()))
    ending = chance.choice(kinds)
    if ending != ".parquet":
        ending += chance.choice(("", "", "", ".gz", ".zst"))
    rows = [LAYOUTS[layout].make(n, *_parts(n)) for n in range(chance.randrange(3, 12))]
    file = File(layout, rows, ending)
    file.delimiter = (
        "\t" if file.kind == "tsv" else chance.choice(",;|\t") if file.kind == "csv" else ","
    )
    return file


def put_values(file: File, chance: Random) -> None:
    """Change a value of one or two rows, or add or leave out a column there."""
    objects = file.kind in ("json", "jsonl", "ndjson")
    for _ in range(chance.randint(1, 2)):
        place = chance.randrange(len(file.rows))
        row = file.rows[place]
        file.changed.add(place)
        new = mutate.value(chance) if objects else chance.choice(mutate.TEXTS)
        turns = row.get("messages") or row.get("conversations")
        match chance.randrange(6):
            case 0:
                row[f"more {chance.choice(mutate.TEXTS)[:20]}"] = new
            case 1 if objects:
                row.pop(chance.choice(list(row)))
            case 2 if objects:
                file.rows[place] = new
                return
            case 3 if isinstance(turns, list):
                turn = chance.choice(turns)
                turn[chance.choice(list(turn))] = new
            case _:
                column = chance.choice(list(row))
                if not objects and not isinstance(row[column], str):
                    new = (
                        chance.choice((None, 0.0, -1e308, math.nan)) if column == "reward" else None
                    )
                row[column] = new


def written(file: File, chance: Random) -> bytes:
    """Return the file's bytes before packing."""
    if file.kind == "parquet":
        return _parquet(file, chance)
    if file.kind in ("csv", "tsv"):
        names = list(dict.fromkeys(name for row in file.rows for name in row))
        end = chance.choice(("\n", "\r\n"))
        lines = [names, *([row.get(name) for name in names] for row in file.rows)]
        parts = [file.delimiter.join(map(_cell, line)) + end for line in lines]
        file.text = "".join(parts)
        file.ends = list(accumulate(len(part.encode("utf-8", "surrogatepass")) for part in parts))
        file.may_be_refused = any(is_no_text(name) for name in names)
    elif file.kind == "json" and chance.random() < 0.7:
        whole: Any = file.rows if chance.random() < 0.7 else {"data": file.rows, "version": 1}
        file.text = mutate.dumped(
            whole, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, 1))
        )
    else:
        escaped = chance.random() < 0.5
        file.text = "".join(mutate.dumped(row, ensure_ascii=escaped) + "\n" for row in file.rows)
    return file.text.encode("utf-8", "surrogatepass")


def is_no_text(cell: object) -> bool:
    """Tell whether a cell cannot be UTF-8, or holds the one code point that marks what is not."""
    return isinstance(cell, str) and bool(_LONE.search(cell) or "\uffff" in cell)


def of_csv(file: File, row: dict[str, Any], label: str) -> Expected:
    """Return what a row of a CSV file must give, where all is text."""
    known = (*(LAYOUTS[file.layout].flat or ()), "reward", "input")
    if any(is_no_text(row.get(name)) for name in known):
        return []
    return _expected(file, {name: None if v is None else str(v) for name, v in row.items()}, label)


def intact(file: File, data: bytes, found: bytes) -> list[Expected]:
    """Return what a changed CSV file must give at least: its rows before the first change."""
    same = next(
        (n for n, (a, b) in enumerate(zip(data, found, strict=False)) if a != b), len(found)
    )
    whole = sum(end <= same for end in file.ends) - 1  # the header is no row
    return [*(original(file, place) for place in range(max(0, whole))), None]


def _cell(value: Any) -> str:
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def _parquet(file: File, chance: Random) -> bytes:
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in file.rows for name in row):
        columns[_storable(name)] = pa.array([_storable(row.get(name)) for row in file.rows])
    many = pa.array([2**40] * len(file.rows))
    far = {
        "date": many.cast(pa.timestamp("s")).cast(pa.date64()),
        "time": many.cast(pa.duration("s")),
        "zone": many.cast(pa.timestamp("us", "Moon/Mare")),
        "bytes": pa.array([b"\xff\xfe\x00"] * len(many)),
        "decimal": many.cast(pa.decimal128(38, 10)),
        "nothing": pa.nulls(len(many)),
    }
    if chance.random() < 0.4:
        columns[FAR] = far[chance.choice(list(far))]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression=chance.choice(("snappy", "zstd", "none")))
    return bytes(sink.getvalue())


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _storable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_storable(part) for part in value]
    return _LONE.sub("?", value) if isinstance(value, str) else value


def packed(data: bytes, ending: str) -> bytes:
    """Return the bytes as the ending says that they are packed."""
    if ending.endswith(".gz"):
        return gzip.compress(data, 1)
    return bytes(pa.Codec("zstd").compress(data)) if ending.endswith(".zst") else data


def unpacked(data: bytes, ending: str) -> bytes | None:
    """Return what is packed, None where it cannot be unpacked."""
    try:
        if ending.endswith(".gz"):
            return gzip.decompress(data)
        if ending.endswith(".zst"):
            return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
    except (OSError, EOFError, ValueError, pa.ArrowException, __import__("zlib").error):
        return None
    return data


def expectations(file: File, data: bytes, label: str) -> list[Expected] | None:
    """Return what each row of these bytes must give; None where the file may be refused as a whole."""
    if file.kind == "parquet":
        try:
            held = pq.ParquetFile(pa.BufferReader(data))
            names = [name for name in held.schema_arrow.names if name != FAR]
            rows = held.read(columns=names).to_pylist()
        except Exception:
            return None
    elif file.kind == "json":
        rows = _json_rows(data)
    else:
        rows = [
            _parsed(line)
            for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
            if line.strip()
        ]
    if rows is None:
        return None
    return [_expected(file, row, label) for row in rows]


_BAD = object()


def _parsed(raw: bytes) -> Any:
    """Return what Python makes of JSON, `_BAD` where it is none."""
    try:
        return json.loads(raw.decode(), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return _BAD


def _json_rows(data: bytes) -> list[Any] | None:
    lines = [line for line in data.split(b"\n") if line.strip()]
    if len(lines) > 1 and isinstance(_parsed(lines[0]), dict):
        return [_parsed(line) for line in lines]
    whole = _parsed(data.removeprefix(b"\xef\xbb\xbf"))
    if whole is _BAD:
        return None
    whole = whole.get("data", whole) if isinstance(whole, dict) else whole
    return whole if isinstance(whole, list) else [whole]


def _expected(file: File, row: Any, label: str) -> Expected:
    """Return what a row must give: as it was made, or by the rules of a flat layout."""
    if row is _BAD or not isinstance(row, dict):
        return []
    columns = LAYOUTS[file.layout].flat
    if columns is None or _depth(row) > _CUT:
        for place in range(len(file.rows)):
            if place not in file.changed and row == LAYOUTS[file.layout].make(
                place, *_parts(place)
            ):
                return original(file, place)
        return None
    question, answer, teacher = (row.get(name) for name in columns)
    if not isinstance(question, str) or not question.strip() or not isinstance(answer, str | None):
        # Lists may be turns or parts of a text: they are compared where a layout has them.
        return None if isinstance(question, list) or isinstance(answer, list) else []
    exact = range(-(2**63), 2**64) if isinstance(teacher, int) else range(-(2**63) + 1, 2**63)
    if isinstance(teacher, float | int) and not exact.start <= teacher < exact.stop:
        return []  # such numbers are rounded
    named = label if teacher is None or not str(teacher).strip() else _plain(str(teacher))
    more = row.get("input") if file.layout == "alpaca" else None
    if not isinstance(more, str | None):
        return []
    question = f"{question}\n\n{more}" if more and more.strip() else question
    turns = (("user", _plain(question).replace("\r\n", "\n")),)
    return [(named, turns, None if answer is None else _plain(answer), _reward(row.get("reward")))]


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _plain(text: str) -> str:
    return _LONE.sub("\ufffd", text)


def _reward(value: Any) -> str:
    """Return how the number of a reward prints: None for nothing or what is not finite, nan for no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "None"
    try:
        if isinstance(value, str) and ("_" in value or not value.isascii()):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return "nan"
    return str(number) if math.isfinite(number) else "None"


def seen(source: ResponseSource) -> list[Seen]:
    """Return what was read, as it is compared."""
    return [
        (
            one.teacher,
            tuple(turn.parts for turn in one.instruction.messages),
            one.text,
            str(one.columns.get("reward")),
        )
        for one in source
    ]


def compare(found: Sequence[Seen], wanted: Sequence[Expected]) -> None:
    """Check that what was read is what the rows hold, in order; None may give anything."""
    place, free = 0, False
    for expected in wanted:
        if expected is None:
            free = True
            continue
        for one in expected:
            at = next((n for n in range(place, len(found)) if found[n] == one), None)
            if at is None:
                raise Wrong(f"lost {one!s:.300}; read {found[place : place + 1]!s:.300}")
            if at > place and not free:
                raise Wrong(f"read {found[place]!s:.300}, which is not there; before {one!s:.200}")
            place, free = at + 1, False
    if place < len(found) and not free:
        raise Wrong(f"read {found[place]!s:.300}, which is not there, at the end")


def check_file(path: Path, file: File, wanted: list[Expected] | None, chance: Random) -> str:
    """Read a file and compare; where None is wanted it may be refused."""
    try:
        source = ResponseSource.open([path], ReadOptions(number_columns=("reward",)))
        found = seen(source)
    except PreceptorError as refused:
        texts = [one[2] for expected in wanted or () for one in expected or ()]
        if any(texts) and not file.may_be_refused and "has a column 'reward'" not in str(refused):
            raise Wrong(f"refused whole: {refused!s:.400}") from refused
        raise
    if wanted is not None:
        compare(found, wanted)
        unread = sum(expected == [] for expected in wanted)
        if sum(source.problem_counts.values()) < unread:
            raise Wrong(f"{unread} rows give nothing and {source.problem_counts} are told")
    if chance.random() < 0.2 and file.kind not in ("csv", "tsv"):  # which reads more columns
        prompts = {
            tuple(turn.parts for turn in one.instruction.messages)
            for one in PromptSource.open([path])
        }
        lacking = {turns for _, turns, _, _ in found} - prompts
        if lacking:
            raise Wrong(f"not among the instructions: {min(lacking)!s:.300}")
    return f"{file.layout} {file.ending}"
