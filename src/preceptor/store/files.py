"""Whole files: read with one wording of errors, written so that they appear whole or not at all.

A writer fills a temporary file (`tmp-*`) beside the target, makes it durable, and renames it. The name says
which process fills it, so that what a killed one left is known from what a living one needs. Nothing here
knows what the files are for.
"""

import csv
import errno
import hashlib
import io
import json
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from preceptor.errors import DataError, PreceptorError, nearest

TEMPORARY = "tmp-"
"""How the names of files begin that a killed writer may leave."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula to carry out."""

_FOREIGN_LIFE_S = 86_400.0


def temporary_name() -> str:
    """Return a new name that says which process on which machine writes the file."""
    return f"{TEMPORARY}{_machine()}-{_process(os.getpid())}-{uuid.uuid4().hex}"


def is_abandoned(name: str, *, age: float) -> bool:
    """Tell whether a temporary file belongs to no living writer.

    A process of this machine is looked at. One of another machine cannot be: its file is abandoned when the
    newest file of the folder is more than a day younger. `age` says by how many seconds, from times of the
    file system, so that a wrong clock here removes nothing.
    """
    died = has_died(name)
    return age > _FOREIGN_LIFE_S if died is None else died


def abandoned(folder: Path, prefix: str = "") -> list[Path]:
    """Return what processes that live no longer left in a folder; `prefix` stands before temporary names."""
    times = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime
    newest = max(times.values(), default=0.0)
    beginning = prefix + TEMPORARY
    return [
        path
        for path, time in times.items()
        if path.name.startswith(beginning)
        and is_abandoned(path.name.removeprefix(prefix), age=newest - time)
    ]


def has_died(name: str) -> bool | None:
    """Tell whether the process of a temporary file has ended; None where that cannot be seen from here."""
    parts = name.removeprefix(TEMPORARY).split("-")
    # On Windows a signal to look for a process would end it.
    if os.name != "nt" and len(parts) == 4 and parts[0] == _machine() and parts[1].isdigit():
        return _started(int(parts[1])) != parts[2]
    return None


@lru_cache(1)
def _machine() -> str:
    """Return what all processes that this one can see share: the machine, its boot, its process namespace."""
    known = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            known.append(os.readlink(path) if "/ns/" in path else Path(path).read_text())
    return hashlib.blake2b("\n".join(known).encode(), digest_size=8).hexdigest()


@lru_cache(1)
def _process(number: int) -> str:
    """Return a process's number and start; looking it up takes milliseconds on a busy machine."""
    return f"{number}-{_started(number)}"


def _started(process: int) -> str:
    """Return when a process started, in ticks since the machine did; nothing where none has this number."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:  # no Linux: that it lives must do
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "lives"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; what was written there takes the place of `path` when the block ends.

    Missing folders are made. It is durable when the block has ended, and gone if the block fails.

    Raises:
        OSError: the disk refuses.
    """
    folder = path.parent
    make_folder(folder)
    temporary = folder / temporary_name()
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably; OSError where the disk refuses."""
    created = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in created:
        _sync_folder(made.parent)


def write_at_once(path: Path, data: bytes) -> None:
    """Make the file appear whole or not at all; it survives this process, not a loss of power."""
    make_folder(path.parent)
    temporary = path.parent / temporary_name()
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Make the file appear whole or not at all, in place of any other, durable when this returns.

    Raises:
        OSError: the disk refuses; nothing is left behind.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def explained(action: str, path: object, error: type[PreceptorError] = DataError) -> Iterator[None]:
    """Turn what the disk or a decoder raises into an error that names the file."""
    try:
        yield
    except UnicodeDecodeError as cause:
        raise error(f"Cannot {action} '{path}': it is not UTF-8 text. Save it as UTF-8.") from cause
    except OSError as cause:
        said = cause.strerror or cause
        raise error(
            f"Cannot {action} '{path}': {said}. {_remedy(cause, Path(str(path)))}"
        ) from cause


def _remedy(cause: OSError, path: Path) -> str:
    """Say what to do about a user's file that cannot be opened."""
    match cause.errno:
        case errno.ENOENT if path.parent.is_dir():
            return f"Check the name.{nearest(path.name, os.listdir(path.parent))}"
        case errno.ENOENT:
            return f"There is no folder '{path.parent}': make it first, or check the path."
        case errno.EISDIR:
            return "It is a folder: name a file."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "Change its permissions, or name another."
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free space, or name another place."
    return "Check the path and the disk."


def require_place(path: str | Path) -> None:
    """Check, before the work for it is done, that a user's file has a folder to be written to.

    Raises:
        DataError: there is no such folder, or a folder has this name.
    """
    target = Path(path)
    with explained("write", path):
        if not target.resolve().parent.is_dir():  # more likely misspelt than wished for
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def write_text(path: str | Path, text: str) -> None:
    """Write a user's file as UTF-8, without keys; what is no file, such as a device, is written to as it is.

    A half of a surrogate pair, which UTF-8 has not, becomes its escape, as JSON spells it.

    Raises:
        DataError: it cannot be written.
    """
    from preceptor.config.secrets import without_keys

    data = without_keys(text).encode("utf-8", "backslashreplace")
    require_place(path)
    with explained("write", path):
        target = Path(path).resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            write_atomically(target, data)


def write_json(path: str | Path, value: object) -> None:
    """Write `json_text`; DataError where the file cannot be written."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """Return the value as indented JSON, decimals as numbers; ValueError for one that is not finite."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=float) + "\n"


def lines_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as JSON, one object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> str:
    """Return rows as CSV, None as nothing; the columns are those of all rows in order of appearance.

    A text that begins like a formula gets an apostrophe, which `read_csv` takes off again.
    """
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    writer.writerows({name: _as_cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _as_cell(value: object) -> object:
    """Return a text that a spreadsheet would take for a formula with an apostrophe before it (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _of_cell(cell: str) -> str:
    """Return a cell without the apostrophe of `_as_cell`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def number_in(value: str | float) -> float:
    """Return a number, also one in a text.

    Raises:
        ValueError: for a text that only Python takes for a number, as 1_000 or digits of other scripts.
        OverflowError: for an integer beyond every float.
    """
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError
    return float(value)


def read_text(path: str | Path, error: type[PreceptorError] = DataError) -> str:
    """Return a file's UTF-8 text, without a byte order mark.

    Raises:
        error: it cannot be read or is not UTF-8.
    """
    with explained("read", path, error):
        return Path(path).read_bytes().decode("utf-8-sig")


def read_json(path: str | Path, error: type[PreceptorError] = DataError) -> Any:
    """Return the value of a JSON file.

    Raises:
        error: it cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path, error))
    except (ValueError, RecursionError) as cause:
        raise error(f"'{path}' is not JSON: {cause!s:.100}.") from cause


def read_csv(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the cells of each row that is not empty, headings first.

    Raises:
        DataError: the file cannot be read or is not CSV.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [_of_cell(cell) for cell in cells]
    except csv.Error as cause:
        raise DataError(f"'{path}' is not CSV: line {reader.line_num}: {cause}.") from cause


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):  # mounts that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
