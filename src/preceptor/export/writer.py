"""Write chosen responses as data sets that training tools read as they are, and publish them.

Rows pass to a temporary file while their columns are gathered, and the data get the same columns in every
row, since loaders stumble over a column that appears late. A folder is a whole data set exactly when it
holds `preceptor.json`, which is put there last. JSON is written here and not by `datasets`, whose writer
rounds numbers to ten digits.
"""

import json
import logging
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from preceptor.config.export import Format, Layout
from preceptor.config.secrets import without_secrets
from preceptor.errors import DataError, StoreError, nearest
from preceptor.export.card import (
    CARD_NAME,
    FACTS_NAME,
    Card,
    TeacherUse,
    Written,
    card_text,
    facts,
)
from preceptor.export.layouts import (
    KINDS,
    SHAPES,
    Entry,
    Example,
    Pair,
    Row,
    example_entry,
    features,
    pair_entry,
)
from preceptor.store.files import (
    TEMPORARY,
    abandoned,
    replacing,
    temporary_name,
    write_atomically,
)

__all__ = [
    "Card",
    "Example",
    "Pair",
    "TeacherUse",
    "Written",
    "push",
    "write_examples",
    "write_pairs",
]

_LOGGER = logging.getLogger(__name__)


_ROW_GROUP = 1000
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_EMPTY: Mapping[str, Any] = {"history": []}  # the columns whose "nothing" is not null


def write_examples(
    examples: Iterable[Example | str],
    folder: Path,
    *,
    layout: Layout,
    format: Format,
    card: Card,
    overwrite: bool = False,
) -> Written:
    """Write responses as a data set for supervised fine-tuning: `train.*`, a card, and its facts.

    A text in place of an example says why one is left out; it is counted.
    Texts are written as they stand; blank ones are counted and left out, as are, in `alpaca`,
    conversations whose turns do not alternate. Numbers that are missing or not finite become null.
    Memory does not grow with the number of examples. `overwrite` replaces the files of these names
    in a folder that holds something, and touches no other.

    Raises:
        DataError: the layout or format is unknown, the folder holds something, nothing is left to
            write (then nothing is left behind), or a number is named as a column of a layout.
        StoreError: the disk refuses.
    """
    shape = _known(layout, SHAPES, what="layout")
    entries = (one if isinstance(one, str) else example_entry(one, shape) for one in examples)
    return _write(entries, _Target(Path(folder), layout, format, overwrite), card)


def write_pairs(
    pairs: Iterable[Pair | str],
    folder: Path,
    *,
    format: Format,
    card: Card,
    overwrite: bool = False,
) -> Written:
    """Write pairs in TRL's conversational preference format: prompt, chosen, rejected.

    Pairs with a blank text, or the same text twice, are counted and left out. All else is as in
    `write_examples`.

    Raises:
        DataError: as in `write_examples`.
        StoreError: the disk refuses.
    """
    entries = (one if isinstance(one, str) else pair_entry(one) for one in pairs)
    return _write(entries, _Target(Path(folder), "pairs", format, overwrite), card)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless it may be overwritten.

    Raises:
        DataError: it holds something. StoreError: it cannot be read.
    """
    with _disk(folder):
        names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    held = [name for name in names if not name.startswith(TEMPORARY)]  # of a writer that was killed
    if held and not overwrite:
        raise DataError(
            f"{folder} holds {', '.join(held[:5])}{' and more' if len(held) > 5 else ''}: expected "
            "an empty folder. Choose another, or ask to overwrite it (--overwrite)."
        )


def require_token() -> str:
    """Return the token of `HF_TOKEN`; DataError where it is not set."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise DataError("HF_TOKEN is not set. Make a token with the right to write, and set it.")
    return token


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload a written data set to the Hub as `owner/name` and return its address.

    Only the files of the data set are sent. The token is that of `HF_TOKEN`, never a saved one. A
    repository that exists stays as it is, so `private` refuses one that is public.

    Raises:
        DataError: the folder is no whole data set, there is no token, the Hub refuses the name or
            the token or cannot be reached, or the repository is public against the wish.
    """
    from huggingface_hub import HfApi

    if not (Path(folder) / FACTS_NAME).is_file():
        raise DataError(f"{folder} holds no {FACTS_NAME}: expected a written data set. Write it.")
    token = require_token()
    hub = HfApi(token=token)
    with _answers(repository):
        hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if private and not hub.repo_info(repository, repo_type="dataset").private:
            raise DataError(f"'{repository}' is public. Ask for private=False, or name another.")
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="dataset",
            allow_patterns=[CARD_NAME, FACTS_NAME, *map(_data_name, _WRITERS)],
            commit_message="Add the data set",
        )
    return f"{hub.endpoint}/datasets/{repository}"


@contextmanager
def _answers(repository: str) -> Iterator[None]:
    """Turn what the Hub or the network says no to into an error that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The parent is that of the HTTP client's own errors, whichever client this version uses.
    network: Any = HfHubHTTPError.__bases__[0]
    try:
        yield
    except HFValidationError as error:
        raise DataError(
            f"'{repository}' is no name of a data set: {error} Use owner/name."
        ) from error
    except HfHubHTTPError as error:
        raise DataError(_refusal(repository, error)) from error
    except (network, OSError) as error:
        raise DataError(
            f"The Hub cannot be reached ({type(error).__name__}: {error}). Check the network and "
            "HF_ENDPOINT, and push again: what is there already is not sent twice."
        ) from error


def _refusal(repository: str, error: Any) -> str:
    status = error.response.status_code
    refusal = (
        f"The Hub refuses to write '{repository}' ({status}: {error.server_message or error})."
    )
    if status in (401, 403, 404):
        return f"{refusal} Check that HF_TOKEN is valid and may write to this owner's data sets."
    return f"{refusal} Check the name and the card, or try again later."


class _Target(NamedTuple):
    folder: Path
    layout: str
    format: str
    overwrite: bool


class _Tally:
    """What is known of the rows once all have passed."""

    def __init__(self) -> None:
        self.rows = 0
        self.names: dict[str, None] = {}
        self.uniform = True
        self.taken: dict[str, Counter[str]] = {}
        self.skipped: Counter[str] = Counter()
        self.replaced = 0
        self.tokens = 0.0

    def line(self, entry: Entry) -> bytes:
        """Return the entry's row as a line of JSON, and count it."""
        try:
            raw = orjson.dumps(entry.row, option=orjson.OPT_APPEND_NEWLINE)
            row = entry.row
        except orjson.JSONEncodeError:
            text, replaced = _LONE_SURROGATE.subn(
                "\ufffd", json.dumps(entry.row, ensure_ascii=False)
            )
            raw, row = text.encode() + b"\n", orjson.loads(text)
            self.replaced += replaced
        self.uniform &= self.rows == 0 or list(row) == list(self.names)
        self.names |= dict.fromkeys(row)
        self.rows += 1
        for role, teacher in entry.teachers.items():
            self.taken.setdefault(role, Counter())[teacher] += 1
        self.tokens += math.nan if row.get("tokens") is None else row["tokens"]
        return raw

    def columns(self) -> dict[str, str]:
        """Return every column's kind: those of the layout in their order, then the numbers."""
        columns = {name: kind for name, kind in KINDS.items() if name in self.names}
        return columns | {name: "float64" for name in self.names if name not in KINDS}

    def written(self, target: _Target, columns: Mapping[str, str]) -> Written:
        """Return the data set that these rows are."""
        return Written(
            data=target.folder / _data_name(target.format),
            layout=target.layout,
            columns=columns,
            rows=self.rows,
            taken=self.taken,
            skipped=dict(self.skipped),
            replaced_characters=self.replaced,
            tokens=round(self.tokens) if math.isfinite(self.tokens) else None,
        )


def _write(entries: Iterator[Entry | str], target: _Target, card: Card) -> Written:
    writer = _known(target.format, _WRITERS, what="format")
    folder = target.folder
    with _workplace(folder, overwrite=target.overwrite) as (spool, draft):
        tally = _spooled(entries, spool)
        if not tally.rows:
            seen = ", ".join(f"{count:,} {why}" for why, count in tally.skipped.items())
            raise DataError(f"Nothing to write to {folder}: no rows{seen and f' ({seen})'}.")
        columns = tally.columns()
        with _disk(folder):
            if target.format == "jsonl" and tally.uniform:
                spool.replace(draft)
            else:
                writer(_rows(spool, columns), draft, columns)
        written = tally.written(target, columns)
        with _disk(folder):
            _put_in_place(draft, written, card)
    _LOGGER.info("Wrote %d rows to %s", written.rows, written.data)
    return written


def _data_name(format: str) -> str:
    return f"train.{format}"


def _known(name: str, known: Mapping[str, Any], *, what: str) -> Any:
    if name not in known:
        raise DataError(f"No {what} '{name}'. Known: {', '.join(known)}.{nearest(name, known)}")
    return known[name]


def _spooled(entries: Iterator[Entry | str], spool: Path) -> _Tally:
    """Write every row to a temporary file as it comes, and return what they add up to."""
    tally = _Tally()
    with _disk(spool.parent):
        handle = spool.open("xb")
    try:
        for entry in entries:
            if isinstance(entry, str):
                tally.skipped[entry] += 1
                continue
            line = tally.line(entry)
            with _disk(spool.parent):
                handle.write(line)
        with _disk(spool.parent):
            handle.flush()
    finally:
        with suppress(OSError):
            handle.close()
    return tally


def _rows(spool: Path, columns: Iterable[str]) -> Iterator[Row]:
    """Read the rows again, each with every column."""
    with spool.open("rb") as lines:
        for line in lines:
            row = orjson.loads(line)
            yield {name: row.get(name, _EMPTY.get(name)) for name in columns}


def _write_jsonl(rows: Iterator[Row], draft: Path, columns: Mapping[str, str]) -> None:
    with draft.open("xb") as handle:
        for row in rows:
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _write_parquet(rows: Iterator[Row], draft: Path, columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features(columns).arrow_schema
    with pq.ParquetWriter(draft, schema) as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


_WRITERS: Mapping[str, Callable[[Iterator[Row], Path, Mapping[str, str]], None]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def _put_in_place(draft: Path, written: Written, card: Card) -> None:
    """Give every file its name; between the first step and the last the folder says it is not whole."""
    data, readme, mark = written.files
    mark.unlink(missing_ok=True)
    with replacing(data) as temporary:
        draft.replace(temporary)
    for format in _WRITERS:
        if _data_name(format) != data.name:
            (written.folder / _data_name(format)).unlink(missing_ok=True)
    write_atomically(readme, without_secrets(card_text(card, written)).encode())
    write_atomically(mark, without_secrets(facts(card, written)).encode())


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Cannot write a data set to {folder}: {error}. Check the path, its rights and the "
            "space left, or choose another folder."
        ) from error


@contextmanager
def _workplace(folder: Path, *, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """Give two temporary paths in the folder; what was made is gone again if the writing fails."""
    require_free(folder, overwrite=overwrite)
    with _disk(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for left in abandoned(folder):
            shutil.rmtree(left, ignore_errors=True)
        place = folder / temporary_name()
        place.mkdir()
        try:
            yield place / "rows", place / "data"
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except BaseException:
        with suppress(OSError):  # a folder that holds something stays
            for path in made:
                path.rmdir()
        raise
