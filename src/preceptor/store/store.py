"""Every number and text that cost money, stored once: `<root>/{scores,responses}/<identity>/part-*.parquet`.

Rows are known by their content, so nothing is paid for twice. `identity.json` beside the shards
says in words what made the rows. The store keeps what it is given, in plain text: never put a secret into a
spec, a note or `recorded`.
"""

import errno
import logging
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple, get_args

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from preceptor.config.secrets import shown_address
from preceptor.errors import RowError, StoreError, nearest
from preceptor.store.directory import Folder, advice, read_card
from preceptor.store.identity import Identity as Identity
from preceptor.store.lookup import Found, Wanted
from preceptor.store.shard_file import is_shard, spec_of
from preceptor.store.shards import (
    KEY_TYPE,
    LISTED,
    Kind,
    Shards,
    as_arrow,
    as_numpy,
    as_words,
    concatenated,
    first_of_each,
    marked,
    merged,
    read_rows,
    valid,
    whole,
)
from preceptor.types import KEY_BYTES, Generation, Score

_LOGGER = logging.getLogger(__name__)
_LIST_ROWS = 1024
_PASSWORD = re.compile(r"[^/]*:[^/]*@")
_MOST_TOKENS = 2**40
"""More tokens than any response has: a count above it, which an endpoint may claim, is no count."""

_RESPONSE_SCHEMA = pa.schema(
    {
        "key": KEY_TYPE,
        "note": pa.string(),
        "instruction": KEY_TYPE,
        "sample": pa.int32(),
        "text": pa.string(),
        "finish_reason": pa.string(),
        "tokens": pa.int64(),
        "prompt_tokens": pa.int64(),
        "seconds": pa.float64(),
    }
)


class Store:
    """A folder of partitions, on this machine or behind any fsspec URL such as `s3://bucket/folder`."""

    def __init__(self, root: str | Path = ".preceptor") -> None:
        """Name the root; nothing is created before the first append.

        Raises:
            StoreError: the root is a file, its URL needs a package that is not there, or it holds a password.
        """
        self._folder = _folder_at(str(root))

    def beside(self, name: str) -> Folder:
        """Return a folder for what a user keeps with the store that is neither scores nor responses."""
        return self._folder.child(name)

    def scores(
        self, identity: Identity, *, recorded: Mapping[str, object] | None = None
    ) -> "ScorePartition":
        """Return the scores of one identity, which need not exist yet.

        `recorded` (versions, device, batch size) is written beside the spec by the first append and
        is not part of the identity.

        Raises:
            StoreError: the folder says that another spec made its rows.
        """
        return ScorePartition(
            self._folder_of("scores", identity), "scores", identity, recorded or {}
        )

    def responses(
        self, identity: Identity, *, recorded: Mapping[str, object] | None = None
    ) -> "ResponsePartition":
        """Return the responses of one teacher's identity; see `scores`."""
        folder = self._folder_of("responses", identity)
        return ResponsePartition(folder, "responses", identity, recorded or {})

    def _folder_of(self, kind: Kind, identity: Identity) -> Folder:
        folder = self._folder.child(kind, identity.digest)
        card = read_card(folder)
        if card is not None and Identity.of(card["spec"]) != identity:
            raise StoreError(
                f"{folder.path}/identity.json holds another spec than its folder is named for: "
                "it was edited or copied. Move that folder away and run again."
            )
        return folder

    def partitions(self) -> Iterator["ScorePartition | ResponsePartition"]:
        """Yield every partition, by kind and digest.

        An `identity.json` that is lost or damaged is written again from what the shards say; one that belongs
        to another folder is skipped with a warning.
        """
        for kind in get_args(Kind):
            for digest in self._folder.child(kind).names():
                folder = self._folder.child(kind, digest)
                card = read_card(folder) or _recovered(folder, kind, digest)
                identity = Identity.of(card["spec"]) if card else None
                if card and identity and identity.digest == digest:
                    partition = ScorePartition if kind == "scores" else ResponsePartition
                    yield partition(folder, kind, identity, card.get("recorded") or {})
                elif card:
                    _LOGGER.warning(
                        "Skipping %s: its identity.json is of another folder", folder.path
                    )

    def costs(self) -> list["Costs"]:
        """Return what the responses of each teacher took so far."""
        return [one.costs() for one in self.partitions() if isinstance(one, ResponsePartition)]


def _folder_at(root: str) -> Folder:
    """Return the folder of a path or URL; see `Store`."""
    scheme, _, rest = root.rpartition("://")
    if scheme and (_PASSWORD.match(rest) or has_magic(rest)):
        raise StoreError(
            f"The store '{shown_address(root)}' holds a password or one of *?[]: expected neither. "
            "Credentials come from the environment or the provider's own files alone."
        )
    protocol, colon, place = root.partition(":")
    if not scheme and colon and protocol in fsspec.available_protocols():
        raise StoreError(
            f"The store '{root}' would be a folder here: expected {protocol}://{place.lstrip('/')}. "
            f"Give both slashes, or ./{root} for that folder."
        )
    try:
        files, path = fsspec.core.url_to_fs(
            root, **({"use_listings_cache": False} if scheme else {})
        )
    except (ImportError, ValueError) as error:
        known = nearest(scheme, fsspec.available_protocols())
        raise StoreError(
            f"Cannot open the store '{root}': {error}.{known} Use a local folder, or install the fsspec "
            "package that serves this protocol: `pip install 'preceptor[s3]'` for s3://."
        ) from error
    if not isinstance(files, LocalFileSystem):
        from preceptor.store.remote import RemoteFolder

        return RemoteFolder(files, path)
    if Path(path).is_file():
        raise StoreError(f"The store '{path}' is a file. {advice(errno.ENOTDIR)}")
    return Folder(files, path)


def _recovered(folder: Folder, kind: Kind, digest: str) -> dict[str, Any] | None:
    """Write a lost `identity.json` again from a shard; None where no shard says what made its rows."""
    for name in filter(is_shard, folder.names()):
        spec = None
        with (
            folder.explained("read", name),
            suppress(FileNotFoundError),
            folder.open(name) as handle,
        ):
            spec = spec_of(handle)
        if spec is not None and Identity(spec).digest == digest:
            with suppress(StoreError):  # a store that may only be read
                Shards(folder, kind, Identity(spec), {}).write_card()
            return {"spec": Identity(spec).spec}
    return None


class ScorePartition(Shards):
    """All scores that one identity made. Get one from `Store.scores` or `Store.partitions`."""

    def append(self, rows: Sequence[Score], *, durable: bool = True) -> str:
        """Store the rows as one new shard, and return its name; when this returns they survive a crash.

        Unless `durable`, they survive the end of this process and not a loss of power. No rows, no shard.
        Scalars are kept as float64, lists as lists of float32. A row that cannot be
        stored takes none of the others along: they are stored before the error is raised.

        Raises:
            RowError: a scalar is NaN or infinite, a row has both or neither of values and a note,
                a key is not 16 bytes, or a column name is no identifier.
            StoreError: the disk refuses.
        """
        return self._append_rows(rows, _table, durable)

    def complete(
        self, names: Sequence[str], *, listed: str | None = None, seen: set[str] | None = None
    ) -> NDArray[np.void]:
        """Return the keys for which nothing is left to compute when these columns are wanted.

        Those are the ones that have all numbers `names` and the list column `listed`, and those whose note
        says that they have no score. `seen` is that of `keys`.
        """
        tables = self._collect(lambda file: read_rows(file, names, lists=listed or ""), seen)
        if not tables:  # PyArrow's first array imports pandas, which a first look need not wait for
            return np.zeros(0, f"V{KEY_BYTES}")
        rows = merged(concatenated(tables))
        whole_rows = np.ones(len(rows), np.bool_) if listed is None else np.asarray(rows[LISTED])
        for name in names:
            whole_rows &= valid(rows[name]) if name in rows.column_names else False
        return as_numpy(rows.filter(pa.array(whole_rows | valid(rows["note"])))["key"])

    def columns(
        self, keys: NDArray[np.void] | Sequence[bytes] | Wanted, names: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Return one array per name, aligned with `keys`, and the notes under `note`.

        Keys may repeat; `Wanted` are those that are looked up in several partitions. Scalars are float64 with
        NaN for no data (unknown key or name, null); list columns are object arrays of float32 arrays or None;
        notes are strings or None. The arrays may be read-only. Time grows with the partition, whose other
        columns are not read; memory with the keys, for lists with the partition.

        Raises:
            StoreError: a key is not 16 bytes, or shards disagree on whether a column is a list.
        """
        wanted = keys if isinstance(keys, Wanted) else Wanted(as_numpy(as_arrow(keys)))
        for name in names:
            _check_name(name)
        found = self._scalars(wanted, names)
        return self._whole_columns(as_arrow(wanted.keys), names) if found is None else found

    def _scalars(self, wanted: Wanted, names: Sequence[str]) -> dict[str, NDArray[Any]] | None:
        """Return columns of numbers, read a shard at a time.

        None where one is no number, or where a shard came late that is older than one already read.
        """
        found, last = Found(wanted, names), ""
        for shard, table in self._stream(lambda file: read_rows(file, names)):
            scalar = all(
                table[name].type == pa.float64() for name in names if name in table.column_names
            )
            if shard < last or not scalar:
                return None
            last = shard
            found.add(table, as_numpy(table["key"]), np.asarray(table[LISTED]))
        return found.columns()

    def _whole_columns(self, wanted: pa.Array, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return columns of any kind, with all rows in memory at once."""
        tables = self._collect(lambda file: read_rows(file, names))
        rows = merged(concatenated(tables)).combine_chunks()
        index = pc.index_in(wanted, value_set=whole(rows["key"]))
        present = [name for name in names if name in rows.column_names]
        found = {name: whole(rows[name]).take(index) for name in present}
        nothing = pa.nulls(len(wanted), pa.float64())
        values = {name: found.get(name, nothing).to_numpy(zero_copy_only=False) for name in names}
        return values | {"note": as_words(whole(rows["note"]).take(index))}

    def lists(
        self, keys: NDArray[np.void] | Sequence[bytes], name: str
    ) -> dict[bytes, NDArray[np.float32]]:
        """Return a list column for those of these keys that have it.

        Unlike `columns`, memory grows with the keys and not with the partition: fit for a few of many.
        """
        _check_name(name)
        wanted = as_arrow(keys)

        def found(file: pq.ParquetFile) -> pa.Table:
            nothing = file.schema_arrow.empty_table()
            if name not in nothing.column_names:
                return nothing
            batches = file.iter_batches(_LIST_ROWS, columns=["key", name])
            kept = [
                pa.Table.from_batches([batch]).filter(
                    pc.and_(pc.is_in(batch["key"], value_set=wanted), batch[name].is_valid())
                )
                for batch in batches
            ]
            return pa.concat_tables([nothing.select(["key", name]), *kept])

        values: dict[bytes, NDArray[np.float32]] = {}
        for table in self._collect(found):
            if name in table.column_names:
                for key, numbers in zip(table["key"].to_pylist(), table[name], strict=True):
                    values.setdefault(key, np.asarray(numbers.values, np.float32))
        return values


class Costs(NamedTuple):
    """What stored responses took: how many, mean tokens of answer and prompt, and tokens a second.

    NaN where nothing was counted.
    """

    responses: int
    tokens: float
    prompt_tokens: float
    tokens_per_second: float


class ResponsePartition(Shards):
    """All responses that one teacher, sampled one way, gave. Get one from `Store.responses`.

    Of several rows with one key the first with a text is read, whole.
    """

    @staticmethod
    def _one_each(table: pa.Table) -> pa.Table:
        """Return one row per key; unlike a score, a response is never put together from several."""
        return first_of_each(table)

    def append(self, rows: Sequence[Generation], *, durable: bool = True) -> str:
        """Store the rows as one new shard; see `ScorePartition.append`.

        Half of a surrogate pair, which Parquet cannot hold, becomes a question mark, and a count beyond 64
        bits no count. A row that cannot be stored takes none of the others along.

        Raises:
            RowError: a row has both or neither of text and note, or a key is not 16 bytes.
            StoreError: the disk refuses.
        """
        return self._append_rows(rows, _response_table, durable)

    def each(self, wanted: Container[bytes] | None = None) -> Iterator[Generation]:
        """Yield the stored responses that have a text, once each, a shard in memory at a time.

        `wanted` holds the keys to yield; None is all.
        """
        seen: set[bytes] = set()
        for _, table in self._stream(_read_known):
            for record in table.filter(table["text"].is_valid()).to_pylist():
                key = record.pop("key")
                if key not in seen and (wanted is None or key in wanted):
                    seen.add(key)
                    yield Generation(**record)

    def notes(self) -> dict[bytes, str]:
        """Return why a key has no text and will not be asked again."""
        tables = self._collect(lambda file: read_rows(file, ()))
        rows = first_of_each(concatenated(tables))
        noted = rows.filter(rows["note"].is_valid())
        return dict(zip(noted["key"].to_pylist(), noted["note"].to_pylist(), strict=True))

    def costs(self) -> Costs:
        """Return what the responses so far took."""
        names = ("tokens", "prompt_tokens", "seconds")
        tables = self._collect(lambda file: read_rows(file, names))
        rows = first_of_each(concatenated(tables))
        rows = rows.filter(rows["note"].is_null())
        if not len(rows):
            return Costs(0, math.nan, math.nan, math.nan)
        tokens, asked, seconds = (
            np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False))
            for name in names
        )
        timed = np.isfinite(tokens) & np.isfinite(seconds)
        spent = float(seconds[timed].sum())
        rate = float(tokens[timed].sum()) / spent if spent else math.nan
        return Costs(len(rows), _mean(tokens), _mean(asked), rate)


def _read_known(file: pq.ParquetFile) -> pa.Table:
    """Read the columns of a response; others, which a later version may add, are ignored."""
    return file.read(columns=[n for n in file.schema_arrow.names if n in _RESPONSE_SCHEMA.names])


def _response_table(rows: Sequence[Generation]) -> pa.Table:
    """Return responses as written; RowError where one cannot be."""
    for row in rows:
        if (row.text is None) == (row.note is None):
            raise RowError(f"The response {row.key.hex()} needs a text or a note, not both.")
    try:
        table = pa.Table.from_pylist([_record(row) for row in rows], _RESPONSE_SCHEMA)
    except (ValueError, TypeError, OverflowError) as error:
        raise RowError(f"A response cannot be stored: {error}.") from error
    return marked(table, ())


def _record(row: Generation) -> dict[str, object]:
    record = {"key": row.key, **asdict(row)}
    for name in ("tokens", "prompt_tokens"):
        count = record[name]
        if not isinstance(count, int) or not 0 <= count <= _MOST_TOKENS:
            record[name] = None
    for name in ("text", "finish_reason", "note"):
        if record[name] is not None:
            record[name] = str(record[name]).encode("utf-8", "replace").decode()
    return record


def _mean(values: NDArray[np.float64]) -> float:
    counted = values[np.isfinite(values)]
    return float(counted.mean()) if len(counted) else math.nan


def _check_name(name: str) -> None:
    if not name.isidentifier() or name in ("key", "note"):
        raise RowError(
            f"'{name}' cannot name a stored column: expected letters, digits and underscores, and "
            "neither 'key' nor 'note'. Rename the measure."
        )


def _table(rows: Sequence[Score]) -> pa.Table:
    """Return the rows as written, plus the mark of those with lists."""
    for row in rows:
        if len(row.key) != KEY_BYTES:
            raise RowError(f"The key {row.key.hex()} has {len(row.key)} bytes: expected 16.")
        if bool(row.values) == (row.note is not None):
            seen = "both values and a note" if row.values else "neither values nor a note"
            raise RowError(f"The score of {row.key.hex()} has {seen}: give exactly one of them.")
    # A note may quote a text with a broken character, which Parquet cannot hold.
    notes = [row.note and row.note.encode("utf-8", "replace").decode() for row in rows]
    columns = {
        "key": pa.array([row.key for row in rows], KEY_TYPE),
        "note": pa.array(notes, pa.string()),
    }
    names = sorted({name for row in rows for name in row.values})
    columns |= {name: _column(name, rows) for name in names}
    lists = [column for column in columns.values() if pa.types.is_list(column.type)]
    return marked(pa.table(columns), [valid(column) for column in lists])


def _column(name: str, rows: Sequence[Score]) -> pa.Array:
    """Return one column, null where a row lacks it."""
    _check_name(name)
    values = [row.values.get(name) for row in rows]
    try:
        if any(isinstance(value, Sequence | np.ndarray) for value in values):
            lists = [None if value is None else np.asarray(value, np.float32) for value in values]
            return pa.array(lists, pa.list_(pa.float32()))
        column = pa.array(values, pa.float64())
    except (TypeError, ValueError) as error:
        raise RowError(
            f"The column '{name}' holds a value that is neither a number nor a list of numbers, or "
            f"both kinds ({error}). Fix the scorer."
        ) from error
    place = pc.index(pc.is_finite(column), False).as_py()
    if place >= 0:
        raise RowError(
            f"The score of {rows[place].key.hex()} has {name} = {values[place]}: expected a finite "
            "number. The scorer must return a note instead."
        )
    return column
