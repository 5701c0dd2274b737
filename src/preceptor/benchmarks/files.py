"""Read answers and ready verdicts of any benchmark from files.

A file's benchmark shows in the fields of its rows, never in its name. No model is counted twice. Files are
untrusted text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from preceptor.benchmarks.answers import only
from preceptor.benchmarks.base import Benchmark, Verdicts
from preceptor.benchmarks.questions import Answers
from preceptor.benchmarks.registry import benchmarks
from preceptor.benchmarks.rows import Row, listed, read_rows
from preceptor.errors import DataError, StudyError


class Read(NamedTuple):
    """What files hold: answers that may be judged, and ready verdicts by benchmark, in the order given."""

    answers: list[Answers]
    verdicts: dict[str, list[Verdicts]]


def read_files(
    paths: Sequence[str | Path],
    known: Mapping[str, Benchmark] | None = None,
    *,
    judged_by: Sequence[str] = (),
) -> Read:
    """Return the answers and the verdicts in files, JSON arrays or one object a line.

    A model whose verdicts stand in two files is taken once if they are equal.

    Args:
        paths: the files.
        known: the benchmarks to look for; by default all.
        judged_by: who judged files that name no judge, `FILE=JUDGE` for one of them or `JUDGE` for all.

    Raises:
        DataError: a file cannot be read or recognised, a row is malformed, two files differ on a model, or
            verdicts of two judges could be mixed because files do not say who judged.
    """
    known = benchmarks() if known is None else known
    judges = _judges(judged_by, paths)
    answers: list[Answers] = []
    verdicts: dict[str, list[Verdicts]] = {name: [] for name in known}
    unnamed: dict[str, set[str]] = {name: set() for name in known}
    for path in map(Path, paths):
        rows = read_rows(path)
        found = False
        # One file may hold several benchmarks' rows: all categories of one judge, for example.
        for name, benchmark in known.items():
            own = benchmark.read_answers(listed(rows), str(path))
            ready = benchmark.read(rows, str(path)) if own is None else ()
            answers += own or ()
            for one in ready or ():
                named = _named(one, path, judges)
                unnamed[name] |= {str(path)} if named.judge is None else set()
                _add(verdicts[name], named, path)
            found |= bool(own or ready)
        if not found:
            raise DataError(_unknown(rows, path, known))
    for name, held in verdicts.items():
        beside = any(one.judge for one in held) or any(one.benchmark == name for one in answers)
        if len(unnamed[name]) > 1 or (unnamed[name] and beside):
            raise DataError(_mixed(sorted(unnamed[name]), known[name].title))
    return Read(answers, verdicts)


def _judges(judged_by: Sequence[str], paths: Sequence[str | Path]) -> dict[str | None, str]:
    """Return who judged each file that is named, and under None who judged the others."""
    found: dict[str | None, str] = {}
    for given in judged_by:
        file, _, judge = given.partition("=")
        of = file if file in map(str, paths) else None
        if of in found:
            raise StudyError(f"--judged-by names two judges of {of or 'the same files'}: name one.")
        found[of] = given if of is None else judge
        if not found[of].strip():
            raise StudyError(f"--judged-by is '{given}': expected JUDGE, or FILE=JUDGE.")
    return found


def _named(one: Verdicts, path: Path, judges: Mapping[str | None, str]) -> Verdicts:
    """Return verdicts under the judge that the file names, else the one that was said to have judged it."""
    if one.judge is None:
        judge = judges.get(str(path), judges.get(None))
        return cast(Verdicts, replace(cast(Any, one), judge=judge))
    if (said := judges.get(str(path), one.judge)) != one.judge:
        raise DataError(
            f"'{path}' was judged by '{one.judge}', as it says itself, and not by '{said}'."
        )
    return one


def _mixed(paths: Sequence[str], title: str) -> str:
    files = ", ".join(f"'{path}'" for path in paths)
    return (
        f"{title}: {files} {'do' if len(paths) > 1 else 'does'} not say who judged, and verdicts of two "
        "judges do not compare: the same model came out 5.5 points apart. Say --judged-by JUDGE if one "
        "judged all of them, or --judged-by FILE=JUDGE for each."
    )


def _unknown(rows: Sequence[Row] | Row, path: Path, known: Mapping[str, Benchmark]) -> str:
    fields = list(listed(rows)[0])[:12]
    titles = ", ".join(benchmark.title for benchmark in known.values())
    return (
        f"'{path}' holds neither answers nor judgements known here: its first row has the fields "
        f"{', '.join(fields) or 'none'}. Expected files of {titles}; "
        "docs/how-to/evaluation.md has their fields."
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
