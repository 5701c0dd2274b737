"""Read answers and ready verdicts of any benchmark from files.

A file's benchmark shows in the fields of its rows, never in its name. No model is counted twice. Files are
untrusted text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preceptor.benchmarks.answers import only
from preceptor.benchmarks.base import Benchmark, Verdicts
from preceptor.benchmarks.questions import Answers
from preceptor.benchmarks.registry import benchmarks
from preceptor.benchmarks.rows import Row, listed, read_rows
from preceptor.errors import DataError


class Read(NamedTuple):
    """What files hold: answers that may be judged, and ready verdicts by benchmark, in the order given."""

    answers: list[Answers]
    verdicts: dict[str, list[Verdicts]]


def read_files(paths: Sequence[str | Path], known: Mapping[str, Benchmark] | None = None) -> Read:
    """Return the answers and the verdicts in files, JSON arrays or one object a line.

    A model whose verdicts stand in two files is taken once if they are equal.

    Args:
        paths: the files.
        known: the benchmarks to look for; by default all.

    Raises:
        DataError: a file cannot be read or recognised, a row is malformed, or two files differ on a model.
    """
    known = benchmarks() if known is None else known
    answers: list[Answers] = []
    verdicts: dict[str, list[Verdicts]] = {name: [] for name in known}
    for path in map(Path, paths):
        rows = read_rows(path)
        for name, benchmark in known.items():
            own = benchmark.read_answers(listed(rows), str(path))
            if own is not None:
                answers += own
                break
            ready = benchmark.read(rows, str(path))
            if ready is not None:
                for one in ready:
                    _add(verdicts[name], one, path)
                break
        else:
            raise DataError(_unknown(rows, path, known))
    return Read(answers, verdicts)


def _unknown(rows: Sequence[Row] | Row, path: Path, known: Mapping[str, Benchmark]) -> str:
    fields = list(listed(rows)[0])[:12]
    titles = ", ".join(benchmark.title for benchmark in known.values())
    return (
        f"'{path}' holds neither answers nor judgements known here: its first row has the fields "
        f"{', '.join(fields) or 'none'}. Expected files of {titles}; docs/evaluation.md has their fields."
    )


def read_baseline(path: str | Path, known: Mapping[str, Benchmark] | None = None) -> Answers:
    """Return a baseline's answers from a file of answers, or of verdicts that hold them.

    Raises:
        DataError: the file cannot be read or recognised, or holds several models' answers.
    """
    known = benchmarks() if known is None else known
    rows = listed(read_rows(Path(path)))
    for benchmark in known.values():
        found = benchmark.read_baseline(rows, str(path))
        if found is not None:
            return only(found, str(path))
    raise DataError(_unknown(rows, Path(path), known))


def _add(known: list[Verdicts], one: Verdicts, path: Path) -> None:
    before = next((other for other in known if other.model == one.model), None)
    if before is None:
        known.append(one)
    elif not _equal(before, one):
        raise DataError(
            f"The verdicts on '{one.model}' in '{path}' differ from those of an earlier file: "
            "expected each model once. Leave one of the files out."
        )


def _equal(one: object, other: object) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b) for a, b in pairs
    )
