"""Every number that cost money, stored once: `<root>/{scores,responses}/<identity>/part-*.parquet`.

The one idea: a shard is immutable, has a unique name and appears whole or not at all, and rows are
idempotent under their 16-byte key. So writers never conflict and need no lock, a killed run loses
at most the batch it had not yet appended, and readers merge whatever shards they find.
`identity.json` beside the shards says in words what made the rows. The store keeps what it is
given, in plain text: never put a secret into a spec, a note or `recorded`.
"""

import errno
import io
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from preceptor.digests import Identity as Identity
from preceptor.digests import plain, write_atomically
from preceptor.errors import StoreError, nearest
from preceptor.types import KEY_BYTES, Score

Kind = Literal["scores", "responses"]

_LOGGER = logging.getLogger(__name__)
_KEY_TYPE = pa.binary(KEY_BYTES)
_LISTED = "key has lists"  # not an identifier, so no stored column can bear this name
_SMALL_SHARD_BYTES = 32 * 2**20
_MERGED_SHARD_BYTES = 128 * 2**20
_ABANDONED_SECONDS = 3600


class Store:
    """A folder of shelves, on this machine or behind any fsspec URL such as `s3://bucket/folder`."""

    def __init__(self, root: str | Path = ".preceptor") -> None:
        """Name the root; nothing is created before the first append.

        Raises:
            StoreError: the root is a file, or its URL needs a package that is not there.
        """
        try:
            files, path = fsspec.core.url_to_fs(str(root))
        except (ImportError, ValueError) as error:
            known = nearest(str(root).split("://")[0], fsspec.available_protocols())
            raise StoreError(
                f"Cannot open the store '{root}': {error}.{known} Use a local folder, or install "
                "the fsspec package that serves this protocol."
            ) from error
        self._folder = _Folder(files, path)
        if self._folder.local and Path(path).is_file():
            raise StoreError(f"The store '{path}' is a file. {_advice(errno.ENOTDIR)}")

    def shelf(
        self, kind: Kind, identity: Identity, *, recorded: Mapping[str, object] | None = None
    ) -> "Shelf":
        """Return the shelf of one identity, which need not exist yet.

        `recorded` (versions, device, batch size) is written beside the spec by the first append and
        is not part of the identity.

        Raises:
            StoreError: the kind is unknown, or the folder says that another spec made its rows.
        """
        if kind not in get_args(Kind):
            raise StoreError(
                f"A store has no shelf '{kind}': expected one of {', '.join(get_args(Kind))}."
                f"{nearest(kind, get_args(Kind))}"
            )
        folder = self._folder.child(kind, identity.digest)
        card = _read_card(folder)
        if card is not None and Identity.of(card["spec"]) != identity:
            raise StoreError(
                f"{folder.path}/identity.json holds another spec than its folder is named for: "
                "it was edited or copied. Move that folder away and run again."
            )
        return Shelf(folder, kind, identity, recorded or {})

    def shelves(self) -> Iterator["Shelf"]:
        """Yield every shelf whose `identity.json` can be read, by kind and digest.

        One that is damaged or belongs to another folder is skipped with a warning.
        """
        for kind in get_args(Kind):
            for digest in self._folder.child(kind).names():
                folder = self._folder.child(kind, digest)
                card = _read_card(folder)
                identity = Identity.of(card["spec"]) if card else None
                if card and identity and identity.digest == digest:
                    yield Shelf(folder, kind, identity, card.get("recorded") or {})
                elif card:
                    _LOGGER.warning(
                        "Skipping %s: its identity.json is of another folder", folder.path
                    )


class Shelf:
    """All rows that one identity made. Get one from `Store.shelf` or `Store.shelves`.

    Any number of processes may append, read and compact at once. Rows with the same key are read as
    one: a row with values beats a row with a note, then a row with list columns beats one without,
    then the earlier shard wins; a column that the winner lacks is taken from the next.
    """

    def __init__(
        self, folder: "_Folder", kind: Kind, identity: Identity, recorded: Mapping[str, object]
    ) -> None:
        self.kind = kind
        self.identity = identity
        self.recorded = recorded
        self._folder = folder

    def append(self, rows: Sequence[Score]) -> None:
        """Store the rows as one new shard; when this returns they survive a crash.

        No rows, no shard. Scalars are kept as float64, lists as lists of float32.

        Raises:
            StoreError: a scalar is NaN or infinite, a row has both or neither of values and a note,
                a key is not 16 bytes, a column name is no identifier, or the disk refuses.
        """
        if not rows:
            return
        table = _merged(_table(rows))
        if _read_card(self._folder) is None:
            self._write_card()
        self._put(table, stamp=f"{time.time_ns():020d}")

    def keys(self, *, having: str | None = None) -> NDArray[np.void]:
        """Return the distinct stored keys as a `V16` array; its `tolist()` gives `bytes`.

        With `having`, only keys for which nothing is left to compute when that list column is
        wanted: those that have it, and those whose note says that they have no score.
        """
        if having is None:
            tables = self._collect(lambda file: file.read(columns=["key"]))
            return _as_numpy(_concatenated(tables)["key"].unique())
        tables = self._collect(lambda file: _read_rows(file, (), lists=having))
        rows = _merged(_concatenated(tables))
        return _as_numpy(rows.filter(pc.or_(rows[_LISTED], rows["note"].is_valid()))["key"])

    def columns(
        self, keys: NDArray[np.void] | Sequence[bytes], names: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Return one array per name, aligned with `keys`, and the notes under `note`.

        Keys may repeat. Scalars are float64 with NaN for no data (unknown key or name, null); list
        columns are object arrays of float32 arrays or None; notes are strings or None. The arrays
        may be read-only. Time and memory grow with the shelf, whose other columns are not read.

        Raises:
            StoreError: a key is not 16 bytes, or shards disagree on whether a column is a list.
        """
        wanted = _as_arrow(keys)
        for name in names:
            _check_name(name)
        tables = self._collect(lambda file: _read_rows(file, names))
        rows = _merged(_concatenated(tables)).combine_chunks()
        index = pc.index_in(wanted, value_set=_whole(rows["key"]))
        present = [name for name in names if name in rows.column_names]
        found = {name: _whole(rows[name]).take(index) for name in present}
        nothing = pa.nulls(len(wanted), pa.float64())
        values = {name: found.get(name, nothing).to_numpy(zero_copy_only=False) for name in names}
        return values | {"note": _as_words(_whole(rows["note"]).take(index))}

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
        """Replace these shards by one; those that are gone or damaged are left as they are."""
        tables: dict[str, pa.Table] = {}
        for name in names:
            with self._folder.explained("read", name), suppress(FileNotFoundError):
                table = self._load(name, _read_rows)
                if table is not None:
                    tables[name] = table
        if len(tables) < 2:
            return
        # The first source's stamp keeps its rows first among equals, so that no number changes.
        stamp = min(tables).removesuffix(".parquet").split("-")[1]
        self._put(_merged(_concatenated(list(tables.values()))), stamp=stamp)
        for name in tables:
            self._folder.delete(name)

    def _put(self, table: pa.Table, *, stamp: str) -> None:
        sink = io.BytesIO()
        how = {"compression": "zstd", "use_dictionary": ["note"], "write_page_checksum": True}
        pq.write_table(table.drop_columns([_LISTED]), sink, **how)
        self._folder.put(f"part-{stamp}-{uuid.uuid4().hex}.parquet", sink.getvalue())

    def _write_card(self) -> None:
        card = {
            "kind": self.kind,
            "identity": self.identity.digest,
            "spec": self.identity.spec,
            "recorded": plain(self.recorded, "recorded"),
        }
        self._folder.put("identity.json", (json.dumps(card, indent=2) + "\n").encode())

    def _shards(self) -> list[str]:
        names = self._folder.names()
        return [name for name in names if name.startswith("part-") and name.endswith(".parquet")]

    def _collect(self, read: Callable[[pq.ParquetFile], pa.Table]) -> list[pa.Table]:
        """Read every shard once, in the order of their names.

        A listing is no snapshot: a compaction may delete a shard after it was listed, or while the
        listing runs, so that neither source nor merged shard is in it. Hence a second look at
        least, and another after every pass that lost a shard. Rows already read stay valid.
        """
        tables: dict[str, pa.Table | None] = {}
        passes, lost = 0, False
        while passes < 2 or lost:
            passes, lost = passes + 1, False
            for name in self._shards():
                if name in tables:
                    continue
                tables[name] = None
                with self._folder.explained("read", name):
                    try:
                        tables[name] = self._load(name, read)
                    except FileNotFoundError:
                        lost = True
        return [table for _, table in sorted(tables.items()) if table is not None]

    def _load(self, name: str, read: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table | None:
        """Read one shard; None, with a warning, where its bytes are damaged."""
        with self._folder.open(name) as handle:
            try:
                table = read(pq.ParquetFile(handle, page_checksum_verification=True))
                if "key" not in table.column_names:
                    raise ValueError("it has no column 'key'")
                return table
            except (ValueError, OSError) as error:
                # Arrow reports damage as a plain OSError without number; a disk's error has one.
                if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
                    raise
                _LOGGER.warning("Skipping damaged shard %s/%s: %s", self._folder.path, name, error)
                return None


class _Folder:
    """One folder of a local or remote file system, with errors that say what to do."""

    def __init__(self, files: Any, path: str) -> None:
        self.local = isinstance(files, LocalFileSystem)
        self._files = files
        self.path = path.rstrip("/")

    def child(self, *names: str) -> "_Folder":
        return _Folder(self._files, "/".join([self.path, *names]))

    def open(self, name: str) -> Any:
        return self._files.open(f"{self.path}/{name}", "rb")

    @contextmanager
    def explained(self, action: str, name: str = "") -> Iterator[None]:
        """Turn what the file system raises into a StoreError."""
        try:
            yield
        except Exception as error:
            # Remote back ends raise errors of their own packages, such as missing credentials.
            if self.local and not isinstance(error, OSError):
                raise
            what = _advice(getattr(error, "errno", None))
            raise StoreError(f"Cannot {action} {self.path}/{name}: {error}. {what}") from error

    def names(self) -> list[str]:
        """Return the names in the folder, sorted; none where it does not exist."""
        with self.explained("list"):
            self._files.invalidate_cache(self.path)
            try:
                paths = self._files.ls(self.path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def size(self, name: str) -> int:
        """Return the file's bytes; 0 where it is gone."""
        with self.explained("read", name), suppress(FileNotFoundError):
            return int(self._files.size(f"{self.path}/{name}"))
        return 0

    def put(self, name: str, data: bytes) -> None:
        """Make the file appear whole or not at all, and durable."""
        with self.explained("write", name):
            if self.local:
                write_atomically(Path(self.path, name), data)
            else:
                self._files.pipe_file(f"{self.path}/{name}", data)

    def delete(self, name: str) -> None:
        with self.explained("delete", name), suppress(FileNotFoundError):
            self._files.rm_file(f"{self.path}/{name}")

    def sweep(self) -> None:
        """Remove temporary files too old to belong to a living writer; only local ones exist."""
        oldest = time.time() - _ABANDONED_SECONDS
        for name in self.names() if self.local else []:
            path = Path(self.path, name)
            with self.explained("delete", name), suppress(FileNotFoundError):
                if name.startswith("tmp-") and path.stat().st_mtime < oldest:
                    path.unlink()


def _advice(number: int | None) -> str:
    """Say what to do about an error of the operating system."""
    match number:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free space or choose another place with --store; rows stored before are safe."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "Change its permissions or choose a place you may write to with --store."
        case errno.ENOTDIR | errno.EEXIST:
            return "Expected a folder: move the file away or choose another place with --store."
    return "Check the disk or the connection and run again; rows stored before are safe."


def _read_card(folder: _Folder) -> dict[str, Any] | None:
    """Return the folder's `identity.json`; None where absent or (warned of) damaged."""
    with folder.explained("read", "identity.json"):
        try:
            with folder.open("identity.json") as handle:
                card: dict[str, Any] = json.loads(handle.read())
            if isinstance(card["spec"], dict):
                return card
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError):  # damaged, or JSON of another shape
            pass
    _LOGGER.warning("%s/identity.json is damaged; the next append writes it again", folder.path)
    return None


def _check_name(name: str) -> None:
    if not name.isidentifier() or name in ("key", "note"):
        raise StoreError(
            f"'{name}' cannot name a stored column: expected letters, digits and underscores, and "
            "neither 'key' nor 'note'. Rename the measure."
        )


def _table(rows: Sequence[Score]) -> pa.Table:
    """Return the rows as written, plus the mark of those with lists."""
    for row in rows:
        if len(row.key) != KEY_BYTES:
            raise StoreError(f"The key {row.key.hex()} has {len(row.key)} bytes: expected 16.")
        if bool(row.values) == (row.note is not None):
            seen = "both values and a note" if row.values else "neither values nor a note"
            raise StoreError(f"The score of {row.key.hex()} has {seen}: give exactly one of them.")
    # A note may quote a text with a broken character, which Parquet cannot hold.
    notes = [row.note and row.note.encode("utf-8", "replace").decode() for row in rows]
    columns = {
        "key": pa.array([row.key for row in rows], _KEY_TYPE),
        "note": pa.array(notes, pa.string()),
    }
    names = sorted({name for row in rows for name in row.values})
    columns |= {name: _column(name, rows) for name in names}
    lists = [column for column in columns.values() if pa.types.is_list(column.type)]
    return _marked(pa.table(columns), [_valid(column) for column in lists])


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
        raise StoreError(
            f"The column '{name}' holds a value that is neither a number nor a list of numbers, or "
            f"both kinds ({error}). Fix the scorer."
        ) from error
    place = pc.index(pc.is_finite(column), False).as_py()
    if place >= 0:
        raise StoreError(
            f"The score of {rows[place].key.hex()} has {name} = {values[place]}: expected a finite "
            "number. The scorer must return a note instead."
        )
    return column


def _read_rows(
    file: pq.ParquetFile, names: Sequence[str] | None = None, *, lists: str | None = None
) -> pa.Table:
    """Read the key, the note and the named columns (default: all), and mark the rows with lists.

    With `lists`, only that column counts for the mark.
    """
    schema = file.schema_arrow
    listed = [f.name for f in schema if pa.types.is_list(f.type) and lists in (None, f.name)]
    wanted = [f.name for f in schema if names is None or f.name in ("key", "note", *names)]
    return _marked(file.read(columns=wanted), [_presence(file, name) for name in listed])


def _presence(file: pq.ParquetFile, name: str) -> NDArray[np.bool_]:
    """Say which rows have this list column, without holding its lists in memory."""
    leaf = file.schema_arrow.get_field_index(name)
    groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    counts = [group.column(leaf).statistics for group in groups]
    if all(count is not None and count.null_count == 0 for count in counts):
        return np.ones(file.metadata.num_rows, np.bool_)
    batches = file.iter_batches(batch_size=8192, columns=[name])
    return np.concatenate([_valid(batch.column(0)) for batch in batches])


def _marked(table: pa.Table, presences: Sequence[NDArray[np.bool_]]) -> pa.Table:
    mark = np.logical_or.reduce([np.zeros(len(table), np.bool_), *presences])
    return table.append_column(_LISTED, pa.array(mark))


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    nothing = pa.schema([("key", _KEY_TYPE), ("note", pa.string()), (_LISTED, pa.bool_())])
    try:
        return pa.concat_tables([nothing.empty_table(), *tables], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError(
            f"Shards of one identity disagree on a column: {error}. A measure is a number or a "
            "list, never both: rename it in the scorer and move this shelf away."
        ) from error


def _merged(table: pa.Table) -> pa.Table:
    """Return one row per key, in the order of first appearance; rows with lists are asked first."""
    groups = _whole(table["key"]).dictionary_encode()
    count = len(groups.dictionary)
    if count == len(table):
        return table
    group = groups.indices.to_numpy()
    # Worst row first: where a place is assigned twice, the last assignment stays.
    order = np.argsort(~np.asarray(table[_LISTED]), kind="stable")[::-1]
    columns = {}
    for name in table.column_names:
        rows = order[_valid(table[name])[order]]
        best = np.full(count, -1)
        best[group[rows]] = rows
        columns[name] = _whole(table[name]).take(pa.array(best, mask=best < 0))
    valued = np.zeros(count, np.bool_)
    valued[group[~_valid(table["note"])]] = True
    columns["note"] = pc.if_else(pa.array(valued), None, columns["note"])
    return pa.table(columns)


def _valid(column: Any) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid())


def _whole(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _as_numpy(column: Any) -> NDArray[np.void]:
    array = _whole(column)
    skipped = array.offset * KEY_BYTES
    return np.frombuffer(array.buffers()[1] or b"", f"V{KEY_BYTES}", len(array), skipped)


def _as_arrow(keys: NDArray[np.void] | Sequence[bytes]) -> pa.Array:
    if isinstance(keys, np.ndarray) and keys.dtype.str in ("|V16", "|S16"):
        data = pa.py_buffer(np.ascontiguousarray(keys))
        return pa.FixedSizeBinaryArray.from_buffers(_KEY_TYPE, len(keys), [None, data])
    try:
        return pa.array(keys, _KEY_TYPE)
    except (TypeError, ValueError) as error:
        raise StoreError(f"Not a key: {error}. Expected {KEY_BYTES} bytes each.") from error


def _as_words(column: pa.Array) -> NDArray[np.object_]:
    """Return an object array that holds every distinct string once."""
    encoded = column.dictionary_encode()
    words: NDArray[np.object_] = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    places: NDArray[np.int32] = encoded.indices.fill_null(len(words) - 1).to_numpy()
    return words[places]
