"""Read the responses of several teachers from whatever files, folders or data sets users have.

A `ResponseSource` holds no texts. Opening it looks at the first rows of each file to
settle their layout; every iteration reads the files again, one row (or batch of rows) at a time.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

from preceptor.config.data import ReadOptions
from preceptor.data.batch_output import is_output, joined, requests_beside
from preceptor.data.formats import READERS, Columns, Journal, Problem, hub_rows, saved_rows
from preceptor.data.layouts import Layout
from preceptor.data.references import alike
from preceptor.data.roles import Row, shown
from preceptor.data.schema import Reading
from preceptor.data.settle import NotRecognised, settle
from preceptor.data.streams import PACKED
from preceptor.errors import DataError, counted, nearest
from preceptor.types import Instruction, Response

logger = logging.getLogger(__name__)

_SNIFFED_ROWS = 100
_NAMED = 5
_NO_OPTIONS = ReadOptions()
_HUB_PREFIX = re.compile(r"^hf:/{1,2}datasets/")
_HUB_NAME = re.compile(r"^[\w-][\w.-]*/[\w-][\w.-]*$")


_Reader = Callable[[Journal, Columns], Iterator[object]]
"""Yields rows, moving the journal along; fetches only the named columns where the format can."""


@dataclass(frozen=True)
class Input:
    """A file or data set to read, and the label of its teacher where the rows name none.

    One that was found in a folder is `among_others`, which need not hold what is looked for.
    """

    path: str
    name: str
    label: str
    label_origin: str
    reader: _Reader
    among_others: bool = False


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: its path, its layout and what is read from it.

    `teacher` says in words how the teacher of a row is known.
    """

    path: str
    layout: str
    teacher: str
    columns: tuple[str, ...]
    _name: str = field(repr=False)
    _reading: Reading = field(repr=False)
    _reader: _Reader = field(repr=False)

    @property
    def rewards(self) -> tuple[str, ...]:
        """The columns of numbers that look like rewards by their names."""
        return self._reading.rewards

    @property
    def id_column(self) -> str:
        """The column of ids that instructions are matched by, empty where they are not."""
        return self._reading.matching.column

    @property
    def place(self) -> Path:
        """Where the file lies, also where its name is no text that can be written."""
        return self._reader.args[0] if isinstance(self._reader, partial) else Path(self.path)

    @property
    def recipe(self) -> str | None:
        """All that decides, with the content of the file, what is read of it.

        None where more does: another file, or a layout of another package.
        """
        layout = type(getattr(self._reading.answers, "__self__", None)).__module__
        how = repr((self.path, self.teacher, self._reading))
        reader = self._reader.func if isinstance(self._reader, partial) else None
        own = reader in READERS.values() and layout == Layout.__module__
        return how if own and " at 0x" not in how else None

    def describe(self) -> str:
        """Return one line for people: name, layout, columns, where teacher and references come from."""
        references = self._reading.references.describe()
        parts = (*self.columns, self.teacher, *([references] if references else ()))
        return f"{self._name}: {self.layout} layout ({', '.join(parts)})"


def checked_alike(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return files that are read together, with no answer checked in two ways."""
    references = alike([file._reading.references for file in files])
    return [
        replace(file, _reading=replace(file._reading, references=one))
        for file, one in zip(files, references, strict=True)
    ]


class _SampleCounter:
    """Numbers the samples of a teacher for an instruction in the order they are seen."""

    def __init__(self) -> None:
        # By teacher, then instruction id: all that a row leaves in memory.
        self._next: dict[str, dict[bytes, int]] = {}

    def __call__(self, teacher: str, instruction: Instruction, stated: int | None) -> int:
        following = self._next.setdefault(teacher, {})
        seen = following.get(instruction.id, 0)
        sample = seen if stated is None else stated
        following[instruction.id] = max(seen, sample + 1)
        return sample


class FilesRead:
    """Files that each iteration reads anew, and what the latest one could not read of them."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = tuple(files)
        self._journals: list[Journal] = []

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the latest iteration could not read: at most the first 20 of each file."""
        return tuple(problem for journal in self._journals for problem in journal.problems)

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many problems the latest iteration met in each file that has any."""
        return {journal.path: journal.count for journal in self._journals if journal.count}

    def _opened(self) -> Iterator[tuple[SourceFile, Journal]]:
        """Begin an iteration: yield each file with the journal that it fills."""
        journals = self._journals = []
        for file in self.files:
            journals.append(Journal(file.path))
            yield file, journals[-1]


class ResponseSource(FilesRead):
    """The responses in a set of files; each iteration reads the files anew.

    Samples are numbered by a `sample` or `sample_index` column of whole numbers, else by the order
    in which one iteration meets the same teacher and instruction. Rows that cannot be read are
    skipped and kept as `problems`.
    """

    @classmethod
    def open(cls, paths: Sequence[str | Path], options: ReadOptions = _NO_OPTIONS) -> Self:
        """Look at the first rows of each file and settle how to read it.

        Args:
            paths: files (.json, .jsonl, .ndjson, .csv, .tsv, each also .gz and .zst; .parquet, .arrow),
                folders of them or saved by `datasets.save_to_disk`, and Hub data sets (`owner/name` where no
                such path exists, or `hf://datasets/owner/name`). A file given twice is read once.
            options: overrides for what is not recognised.

        Raises:
            DataError: a file is missing, empty or unreadable, its layout is not recognised, or a
                column named in the options is not there.
        """
        inputs = find_inputs(paths, options.split)
        source = cls(checked_alike(recognised_of(inputs, partial(_sniff, options=options))))
        _check_numbers(source.files, options.number_columns)
        _warn_of_shared_names(source.files)
        return source

    def __iter__(self) -> Iterator[Response]:
        """Yield every response of every file in order.

        Raises:
            DataError: a file breaks off, or none of its rows can be read.
        """
        number = _SampleCounter()
        for file, journal in self._opened():
            yield from _responses(file, number, journal)


def _responses(file: SourceFile, number: _SampleCounter, journal: Journal) -> Iterator[Response]:
    reading, readable = file._reading, False
    for row in file._reader(journal, reading.top_columns):
        for response in reading.responses(row, number, report=journal.note):
            readable = True
            yield response
    tell_problems(journal, readable=readable)


_warned: set[tuple[str, int]] = set()


def tell_problems(journal: Journal, *, readable: bool) -> None:
    """Log what a file's journal holds at its end, once however often the file is read.

    Raises:
        DataError: there are problems and nothing was `readable`.
    """
    if journal.count and not readable:
        raise DataError(f"No row of {journal.path} can be read. The first: {journal.problems[0]}.")
    seen = (journal.path, journal.count)
    if journal.count and seen not in _warned:
        _warned.add(seen)
        logger.warning("%s. The first: %s", counted(journal.count, "problem"), journal.problems[0])


def recognised_of(
    inputs: Sequence[Input], sniff: Callable[[Input], SourceFile]
) -> list[SourceFile]:
    """Return the files that are recognised; of a folder the others are named in one line.

    Raises:
        DataError: a file that was named is not recognised, or none of a folder's is.
    """
    files, others, first = [], [], None
    for found in inputs:
        try:
            files.append(sniff(found))
        except NotRecognised as reason:
            if not found.among_others:
                raise
            others.append(found.path)
            first = first or reason
    if first is not None and not files:
        raise first
    if others:
        listed = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        logger.warning(
            "%d files hold nothing that is looked for and are not read: %s", len(others), listed
        )
    return files


def first_rows(found: Input) -> list[Row]:
    """Return the objects among the first 100 rows, by which a layout is settled.

    Raises:
        NotRecognised: there are none.
        DataError: the file cannot be read.
    """
    journal = Journal(found.path)
    sniffed = list(islice(found.reader(journal, None), _SNIFFED_ROWS))
    rows: list[Row] = [row for row in sniffed if isinstance(row, dict)]
    if not rows:
        first = " It is empty."
        if sniffed:
            first = f" The first is {shown(sniffed[0])}, expected an object with named columns."
        if journal.problems:
            first = f" The first: {journal.problems[0]}."
        raise NotRecognised(f"No row of {found.path} can be read.{first}")
    return rows


def _with_requests(found: Input, rows: list[Row], options: ReadOptions) -> tuple[Input, list[Row]]:
    """Return batch output with what was asked, unless a column has it, and anything else as it is."""
    if not is_output(rows) or options.instruction_column:
        return found, rows
    requests = Path(options.requests) if options.requests else requests_beside(Path(found.path))
    found = replace(found, reader=partial(joined, found.reader, requests))
    return found, first_rows(found)


def _sniff(found: Input, options: ReadOptions) -> SourceFile:
    found, rows = _with_requests(found, first_rows(found), options)
    reading = settle(rows, options, where=found.path, label=found.label)
    if reading.teachers:
        teacher = "one teacher per column"
    elif reading.teacher_column:
        teacher = f"teacher from '{reading.teacher_column}'"
    else:
        teacher = f"teacher '{found.label}' from the {found.label_origin}"
    columns, name = (*reading.columns, *reading.beside), found.name
    return SourceFile(found.path, reading.layout, teacher, columns, name, reading, found.reader)


def _check_numbers(files: Sequence[SourceFile], numbers: Sequence[str]) -> None:
    known = {name for file in files for name in file._reading.known}
    for name in numbers:
        if name not in known:
            columns = ", ".join(sorted(known))
            raise DataError(
                f"No file has a column '{name}'. Columns: {columns}.{nearest(name, known)}"
            )
    for file in files:
        if numbers and file._reading.teachers:
            raise DataError(
                f"{file.path} holds several teachers' responses in each row: {', '.join(numbers)} "
                "belongs to none of them. Write one row per response, or leave the numbers out."
            )


def find_inputs(paths: Sequence[str | Path], split: str) -> list[Input]:
    """Return the files and data sets that paths stand for, each once, in order.

    Raises:
        DataError: one does not exist or cannot be read, or there are none.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    inputs = _without_repeats(found for path in given for found in _find(path, split))
    if not inputs:
        raise DataError("No files of responses were given. Name at least one file or folder.")
    return inputs


def _without_repeats(inputs: Iterable[Input]) -> list[Input]:
    kept: dict[str, Input] = {}
    for found in inputs:
        key = found.path if _HUB_PREFIX.match(found.path) else str(Path(found.path).resolve())
        if key in kept:
            logger.warning("%s was given more than once; it is read once.", found.path)
        kept.setdefault(key, found)
    return list(kept.values())


def _warn_of_shared_names(files: Sequence[SourceFile]) -> None:
    """Say so when files of one name would pass for samples of one teacher."""
    for teacher, count in Counter(file.teacher for file in files).items():
        if count > 1 and teacher.endswith("from the file name"):
            logger.warning("%d files count as one teacher: %s", count, teacher)


def _find(given: str | Path, split: str) -> list[Input]:
    """Return what a path stands for: a file, the files of a folder, or a data set."""
    path, text = Path(given), str(given)
    if _HUB_PREFIX.match(text) or (not path.exists() and _is_hub_name(text)):
        name = _HUB_PREFIX.sub("", text).rstrip("/")
        if not _HUB_NAME.match(name):
            raise DataError(f"'{given}' names no Hub data set: expected hf://datasets/owner/name.")
        shown, label = f"hf://datasets/{name}", name.partition("/")[2]
        return [Input(shown, shown, label, "data set's name", partial(hub_rows, name, split))]
    if not path.exists():
        raise _missing(path)
    if not path.is_dir():
        name = shown_path(path.name)
        return [_file_input(path, name[: -len(_ending(path)) or None], "file name")]
    label = shown_path(path.resolve().name)
    if any((path / mark).exists() for mark in ("dataset_dict.json", "state.json")):
        reader = partial(saved_rows, path, split)
        return [Input(str(path), path.name, label, "folder name", reader)]
    files = (_file_input(file, label, "folder name") for file in _files_in(path, split))
    return [replace(file, among_others=True) for file in files]


def _is_hub_name(text: str) -> bool:
    """Tell `owner/name` from a mistyped path: a known ending or an existing folder is a path."""
    path = Path(text)
    return not (path.parent.exists() or _ending(path) in READERS) and bool(_HUB_NAME.match(text))


def _missing(path: Path) -> DataError:
    if not path.parent.is_dir():
        return DataError(f"{path} does not exist, nor does its folder {path.parent}.")
    siblings = sorted(entry.name for entry in path.parent.iterdir())
    known = f"Its folder holds {len(siblings)} other entries."
    return DataError(f"{path} does not exist. {known}{nearest(path.name, siblings)}")


def shown_path(path: str | Path) -> str:
    """Return a path as text that can be written anywhere: bytes that are not UTF-8 are escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _file_input(path: Path, label: str, origin: str) -> Input:
    reader = READERS.get(_ending(path))
    if reader is None:
        raise DataError(f"{path} has no ending that can be read. Known: {', '.join(READERS)}.")
    return Input(shown_path(path), shown_path(path.name), label, origin, partial(reader, path))


def _files_in(folder: Path, split: str) -> list[Path]:
    """Return the readable files below a folder: those of the split, or all where none name one."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if _ending(file) in READERS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder} holds no file that can be read: {', '.join(READERS)}.")
    words = re.compile(rf"(^|[^a-zA-Z0-9]){re.escape(split)}([^a-zA-Z0-9]|$)")
    of_split = [file for file in files if words.search(file.relative_to(folder).as_posix())]
    if not of_split and split != "train":
        raise DataError(f"{folder} holds no file of the split '{split}': {files[0].name}, ...")
    return of_split or files


def _ending(path: Path) -> str:
    """Return the ending that says the format, with that of the packing."""
    name = path.name.lower()
    packed = next(filter(name.endswith, PACKED), "")
    return Path(name.removesuffix(packed)).suffix + packed
