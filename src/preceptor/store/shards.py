"""The machinery of a partition: immutable shards under one identity, appended, merged, read, compacted.

A shard has a unique name and appears whole or not at all, and rows are idempotent under their
16-byte key. So writers never conflict and need no lock, a killed run loses at most the batch it had not yet
appended, and readers merge whatever shards they find. Which columns a row has is for `store`.
"""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preceptor.errors import RowError, StoreError
from preceptor.store.batches import Batches
from preceptor.store.claims import Claims, Holder
from preceptor.store.directory import Folder, read_card
from preceptor.store.identity import Identity, plain
from preceptor.store.shard_file import UnfitShardError, encoded, is_shard, stamp_of, verify
from preceptor.types import KEY_BYTES

Kind = Literal["scores", "responses"]

KEY_TYPE = pa.binary(KEY_BYTES)
"""How a key is stored."""

LISTED = "key has lists"  # not an identifier, so no stored column can bear this name
"""The column, never stored, that marks the rows with list columns."""

Row = TypeVar("Row")

_LOGGER = logging.getLogger(__name__)
_SMALL_SHARD_BYTES = 32 * 2**20
_MERGED_SHARD_BYTES = 128 * 2**20


class Check(NamedTuple):
    """What verifying a partition found: `unfit` gives the reason by the shard's name."""

    shards: int
    unfit: dict[str, str]
    set_aside: tuple[str, ...]


class Shards:
    """The rows that one identity made, whatever their columns; subclasses say which.

    Any number of processes may append, read and compact at once. Rows with the same key are read as
    one: a row with values beats a row with a note, then a row with list columns beats one without,
    then the earlier shard wins; a column that the winner lacks is taken from the next.
    """

    def __init__(
        self, folder: Folder, kind: Kind, identity: Identity, recorded: Mapping[str, object]
    ) -> None:
        self.kind = kind
        self.identity = identity
        self.recorded = recorded
        self._folder = folder
        self._verified: set[str] = set()
        self._own: set[str] = set()

    @staticmethod
    def _one_each(table: pa.Table) -> pa.Table:
        """Return one row per key of these rows."""
        return merged(table)

    def _append_rows(
        self, rows: Sequence[Row], table: Callable[[Sequence[Row]], pa.Table], durable: bool
    ) -> str:
        """Store rows by way of `table`, which raises RowError for some; return the shard's name."""
        if not rows:
            return ""
        try:
            whole_table = table(rows)
        except RowError:
            if storable := [row for row in rows if _is_storable(row, table)]:
                self._append(table(storable), durable=True)
            raise
        return self._append(whole_table, durable=durable)

    def _append(self, table: pa.Table, *, durable: bool) -> str:
        # Behind a network a look costs as much as the append: what this object wrote stands beside a card.
        if (self._folder.local or not self._own) and read_card(self._folder) is None:
            self.write_card()
        name = self._put(self._one_each(table), stamp=f"{time.time_ns():020d}", durable=durable)
        self._own.add(name)
        return name

    def drop(self, names: Sequence[str]) -> None:
        """Remove shards whose rows are in another one, which is durable."""
        self._folder.delete(*names)

    def claims(self) -> Claims:
        """Return the claims that this process can make on parts of what is missing."""
        return self._folder.claims()

    def batches(self) -> Batches:
        """Return the batches that a provider has in work for this partition."""
        return Batches(self._folder)

    def in_work(self) -> set[Holder]:
        """Return the processes that hold claims here."""
        return self._folder.holders()

    def keys(self, seen: set[str] | None = None) -> NDArray[np.void]:
        """Return the distinct stored keys as a `V16` array; its `tolist()` gives `bytes`.

        With `seen`, only of shards that neither this object wrote nor `seen` names, as it does afterwards.
        """
        tables = self._collect(lambda file: file.read(columns=["key"]), seen)
        return as_numpy(concatenated(tables)["key"].unique())

    def forget_notes(self) -> int:
        """Remove the rows that only say why there is nothing, and return of how many keys.

        What they stand for is asked for again. The other rows are durable before their old shard goes.
        A compaction at the same time may bring notes back in a merged shard: hence the repetition.
        """
        began = f"part-{time.time_ns():020d}"
        forgotten: set[bytes] = set()
        found = True
        while found:
            noted = [self._without_notes(name) for name in self._shards() if name < began]
            found = any(noted)
            forgotten.update(*noted)
        return len(forgotten)

    def _without_notes(self, name: str) -> list[bytes]:
        """Replace one shard by one without notes; return the keys that had them."""
        with self._folder.explained("read", name), suppress(FileNotFoundError):
            table = self._load(name, read_rows)
            noted = None if table is None else table.filter(table["note"].is_valid())
            if table is None or not noted:
                return []
            if len(noted) < len(table):
                self._put(table.filter(table["note"].is_null()), stamp=stamp_of(name))
            self._folder.delete(name)
            keys: list[bytes] = noted["key"].to_pylist()
            return keys
        return []

    def compact(self) -> None:
        """Merge small shards, one row per key, and remove what killed writers left behind.

        The merged shard is durable before its sources are deleted, and only shards that were read
        whole are deleted; so every row is always in some shard, whoever else appends or compacts.
        """
        self._folder.sweep()
        batches: dict[int, list[str]] = {}
        total = 0
        for name in self._shards():
            size = self._folder.size(name)
            if 0 < size < _SMALL_SHARD_BYTES:
                batches.setdefault(total // _MERGED_SHARD_BYTES, []).append(name)
                total += size
        for batch in batches.values():
            self._merge(batch)

    def _merge(self, names: Sequence[str]) -> None:
        """Replace these shards by one; those that are gone or damaged are left as they are.

        Where a source is gone when the merged shard stands, somebody else has replaced it, perhaps without
        its notes: then the merged shard, which would bring back what was removed, goes again.
        """
        tables: dict[str, pa.Table] = {}
        for name in names:
            with self._folder.explained("read", name), suppress(FileNotFoundError):
                table = self._load(name, read_rows)
                if table is not None:
                    tables[name] = table
        if len(tables) < 2:
            return
        # The first source's stamp keeps its rows first among equals, so that no number changes.
        stamp = stamp_of(min(tables))
        rows = self._one_each(concatenated(list(tables.values())))
        put, data = self._encoded(rows, stamp=stamp)
        self._folder.keep(put, data)
        self._folder.delete(*(tables if tables.keys() <= set(self._shards()) else (put,)))

    def _put(self, table: pa.Table, *, stamp: str, durable: bool = True) -> str:
        name, data = self._encoded(table, stamp=stamp)
        self._folder.put(name, data, durable=durable)
        return name

    def _encoded(self, table: pa.Table, *, stamp: str) -> tuple[str, bytes]:
        return encoded(table.drop_columns([LISTED]), self.identity.canonical, stamp=stamp)

    def write_card(self) -> None:
        """Write `identity.json`: in words what made the rows, and what was recorded beside it."""
        card = {
            "kind": self.kind,
            "identity": self.identity.digest,
            "spec": self.identity.spec,
            "recorded": plain(self.recorded, "recorded"),
        }
        self._folder.put("identity.json", (json.dumps(card, indent=2) + "\n").encode())

    def require_shared(self) -> None:
        """Check that this is the folder in which another process, the driver of this one, wrote the card.

        Raises:
            StoreError: it is not: the store of this machine is another one.
        """
        if read_card(self._folder) is None:
            raise StoreError(
                f"{platform.node()} does not see the store at {self._folder.path}: expected a folder that "
                "all machines share, or an address as s3://bucket/folder."
            )

    def _shards(self) -> list[str]:
        return [name for name in self._folder.names() if is_shard(name)]

    def _collect(
        self, read: Callable[[pq.ParquetFile], pa.Table], seen: set[str] | None = None
    ) -> list[pa.Table]:
        """Read every shard once; return them in the order of their names."""
        return [table for _, table in sorted(self._stream(read, seen), key=lambda found: found[0])]

    def _stream(
        self, read: Callable[[pq.ParquetFile], pa.Table], seen: set[str] | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield the name and rows of every shard that is not `seen` yet, once.

        A listing is no snapshot: a compaction may delete a shard after it was listed, or while the
        listing runs, so that neither source nor merged shard is in it. Hence a second look at
        least, and another after every pass that lost a shard. Rows already read stay valid.
        """
        known = set[str]() if seen is None else seen
        known |= set() if seen is None else self._own
        passes, lost = 0, False
        while passes < 2 or lost:
            passes, lost = passes + 1, False
            for name in self._folder.ahead(name for name in self._shards() if name not in known):
                known.add(name)
                with self._folder.explained("read", name):
                    try:
                        table = self._load(name, read)
                    except FileNotFoundError:
                        lost = True
                        continue
                if table is not None:
                    yield name, table

    def _load(self, name: str, read: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table | None:
        """Read one shard, verified once; None, with a warning, where it is set aside."""
        try:
            with self._folder.open(name) as handle:
                if name not in self._verified:
                    verify(name, handle, self.identity.canonical)
                    self._verified.add(name)
                handle.seek(0)
                return read(pq.ParquetFile(handle, page_checksum_verification=True))
        except UnfitShardError as error:
            self._set_aside(name, error)
            return None
        except ValueError as error:
            raise StoreError(
                f"The shard {self._folder.path}/{name} changed while it was read: {error}. Run again."
            ) from error

    def _set_aside(self, name: str, error: UnfitShardError) -> None:
        """Rename a shard so that its rows are missing for everyone, and computed or asked for again."""
        aside = f"{error.label}-{name}"
        with suppress(StoreError):  # a store that may only be read: the shard is skipped every time
            self._folder.rename(name, aside)
        _LOGGER.warning(
            "Set aside the %s shard %s/%s: %s. What it held is computed or asked for again",
            *(error.label, self._folder.path, name, error),
        )

    def check(self, *, repair: bool = False) -> "Check":
        """Verify every byte of every shard; `repair` also sets aside what fails and sweeps left-overs.

        Raises:
            StoreError: a shard of a newer version, or the disk refuses.
        """
        unfit: dict[str, str] = {}
        for name in self._shards():
            with self._folder.explained("read", name), suppress(FileNotFoundError):
                try:
                    with self._folder.open(name) as handle:
                        verify(name, handle, self.identity.canonical)
                except UnfitShardError as error:
                    unfit[name] = f"{error.label}: {error}"
                    if repair:
                        self._set_aside(name, error)
        if repair:
            self._folder.sweep()
            if read_card(self._folder) is None:
                self.write_card()
        return Check(len(self._shards()), unfit, self.set_aside())

    def set_aside(self) -> tuple[str, ...]:
        """Return the names of the files that were set aside as damaged or foreign."""
        return tuple(name for name in self._folder.names() if is_shard(name.partition("-")[2]))

    def size(self) -> int:
        """Return the bytes of all shards."""
        return sum(self._folder.size(name) for name in self._shards())

    def last_written(self) -> float | None:
        """Return when the newest rows were stored, in seconds since 1970; None where there are none."""
        stamps = [int(stamp_of(name)) for name in self._shards()]
        return max(stamps) / 1e9 if stamps else None

    def delete(self, *, only_set_aside: bool = False) -> None:
        """Remove the partition for good, or only the damaged shards that were set aside."""
        self._folder.delete(*(self.set_aside() if only_set_aside else self._folder.names()))
        if not only_set_aside:
            self._folder.delete_folder()


def _is_storable(row: Row, table: Callable[[Sequence[Row]], pa.Table]) -> bool:
    try:
        table([row])
    except RowError:
        return False
    return True


def read_rows(
    file: pq.ParquetFile, names: Sequence[str] | None = None, *, lists: str | None = None
) -> pa.Table:
    """Read the key, the note and the named columns (default: all), and mark the rows with lists.

    With `lists`, only that column counts for the mark.
    """
    schema = file.schema_arrow
    listed = [f.name for f in schema if pa.types.is_list(f.type) and lists in (None, f.name)]
    wanted = [f.name for f in schema if names is None or f.name in ("key", "note", *names)]
    return marked(file.read(columns=wanted), [_presence(file, name) for name in listed])


def _presence(file: pq.ParquetFile, name: str) -> NDArray[np.bool_]:
    """Say which rows have this list column, without holding its lists in memory."""
    leaf = file.schema_arrow.get_field_index(name)
    groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    counts = [group.column(leaf).statistics for group in groups]
    if all(count is not None and count.null_count == 0 for count in counts):
        return np.ones(file.metadata.num_rows, np.bool_)
    batches = file.iter_batches(batch_size=8192, columns=[name])
    return np.concatenate([valid(batch.column(0)) for batch in batches])


def marked(table: pa.Table, presences: Sequence[NDArray[np.bool_]]) -> pa.Table:
    """Return the table with the mark of the rows that hold lists, each presence (rows,)."""
    mark = np.logical_or.reduce([np.zeros(len(table), np.bool_), *presences])
    return table.append_column(LISTED, pa.array(mark))


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several shards; StoreError where they disagree on a column."""
    nothing = pa.schema([("key", KEY_TYPE), ("note", pa.string()), (LISTED, pa.bool_())])
    try:
        return pa.concat_tables([nothing.empty_table(), *tables], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(
            f"Shards of one identity disagree on a column: {error}. A measure is a number or a "
            "list, never both: rename it in the scorer and move this partition away."
        ) from error


def first_of_each(table: pa.Table) -> pa.Table:
    """Return one whole row per key, in the order of first appearance: the first without a note, if any."""
    groups = whole(table["key"]).dictionary_encode()
    count = len(groups.dictionary)
    if count == len(table):
        return table
    # Worst row first: where a place is assigned twice, the last assignment stays.
    order = np.argsort(valid(table["note"]), kind="stable")[::-1]
    best = np.empty(count, np.int64)
    best[groups.indices.to_numpy()[order]] = order
    return table.take(pa.array(best))


def merged(table: pa.Table) -> pa.Table:
    """Return one row per key, in the order of first appearance; rows with lists are asked first."""
    groups = whole(table["key"]).dictionary_encode()
    count = len(groups.dictionary)
    if count == len(table):
        return table
    group = groups.indices.to_numpy()
    # Worst row first: where a place is assigned twice, the last assignment stays.
    order = np.argsort(~np.asarray(table[LISTED]), kind="stable")[::-1]
    columns = {}
    for name in table.column_names:
        rows = order[valid(table[name])[order]]
        best = np.full(count, -1)
        best[group[rows]] = rows
        columns[name] = whole(table[name]).take(pa.array(best, mask=best < 0))
    valued = np.zeros(count, np.bool_)
    valued[group[~valid(table["note"])]] = True
    columns["note"] = pc.if_else(pa.array(valued), None, columns["note"])
    return pa.table(columns)


def valid(column: Any) -> NDArray[np.bool_]:
    """Return which rows of a column are not null."""
    return np.asarray(column.is_valid())


def whole(column: Any) -> pa.Array:
    """Return a column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def as_numpy(column: Any) -> NDArray[np.void]:
    """Return a column of keys as a `V16` array that shares its memory."""
    array = whole(column)
    skipped = array.offset * KEY_BYTES
    return np.frombuffer(array.buffers()[1] or b"", f"V{KEY_BYTES}", len(array), skipped)


def as_arrow(keys: NDArray[np.void] | Sequence[bytes]) -> pa.Array:
    """Return keys as a column; StoreError where one has not 16 bytes."""
    if isinstance(keys, np.ndarray) and keys.dtype.str in ("|V16", "|S16"):
        data = pa.py_buffer(np.ascontiguousarray(keys))
        return pa.FixedSizeBinaryArray.from_buffers(KEY_TYPE, len(keys), [None, data])
    try:
        return pa.array(keys, KEY_TYPE)
    except (TypeError, ValueError) as error:
        raise StoreError(f"Not a key: {error}. Expected {KEY_BYTES} bytes each.") from error


def as_words(column: pa.Array) -> NDArray[np.object_]:
    """Return an object array that holds every distinct string once."""
    encoded = column.dictionary_encode()
    words: NDArray[np.object_] = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    places: NDArray[np.int32] = encoded.indices.fill_null(len(words) - 1).to_numpy()
    return words[places]
