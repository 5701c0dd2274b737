"""Reading predicted and observed orders of teachers from files.

Whatever the file, an order is a mapping from teacher to number, by metric and student. A teacher the
catalogue knows goes by its label there, so that a Hub id, a short name and the paper's Model ID meet; any
other goes by its exact name. Files are untrusted: only names and finite numbers leave here, and a number that
is missing is None, never 0.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from preceptor.config.catalogue import SHIPPED
from preceptor.errors import DataError, nearest
from preceptor.ranking.metrics import METRICS
from preceptor.ranking.schema import require_version
from preceptor.store.files import number_in, read_csv, read_json

Observed = Mapping[str, Mapping[str, float]]
"""Student -> teacher -> what was observed; higher is better."""

ANY_STUDENT = "any student"
"""Whom a prediction is for that names no student, as rankings without one also say."""

_Value = TypeVar("_Value")

_NOTHING = {"", "na", "n/a", "nan", "none", "null", "-"}

_PLACES = {"rank", "n", "p_best", "p_leader_beats", "truncated"}
"""Numbers of a ranking's records that say how it came out and are no predictions of their own."""

_STUDENTS = {"llama31minitron4bwidthbase": "llama31minitron4b"}
"""Students that the paper calls by a shorter name (section 3.2)."""


@dataclass(frozen=True)
class Prediction:
    """What one file says of one student's teachers, by one source of rewards.

    `values` is teacher -> measure or metric -> number, None where the file has no number. `rewards` is
    the source of the rewards in words, None where nothing says it. `transformed` says that the rewards
    have already passed a transform other than raw.
    """

    student: str
    file: str
    values: Mapping[str, Mapping[str, float | None]]
    rewards: str | None = None
    transformed: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column with a number for some teacher, those of registered metrics first."""
        found = {
            name for row in self.values.values() for name, value in row.items() if value is not None
        }
        known = [name for name in METRICS if name in found]
        return (*known, *sorted(found.difference(known)))


def student_key(name: str) -> str:
    """Return what two spellings of one student share: google/gemma-2-2b is the paper's Gemma 2-2B."""
    plain = re.sub(r"[\W_]", "", name.strip().rstrip("/").rpartition("/")[2].casefold())
    return _STUDENTS.get(plain, plain)


def read_predictions(path: str) -> list[Prediction]:
    """Return the predictions of a JSON file of rankings, or of a CSV file with a column `teacher`.

    The CSV may have the columns `student` and `reward_source`, as `preceptor rank --csv` writes them;
    every other column holds numbers. Columns that only place a teacher, such as its rank or the ends of
    an interval, are left out.

    Raises:
        DataError: for a file that cannot be read, holds no teacher, names one twice, or holds a text or
            an infinite number where a number is expected.
    """
    if _is_json(path):
        return [_of_ranking(ranking, path) for ranking in _rankings(path)]
    groups: dict[tuple[str, str | None], dict[str, Mapping[str, float | None]]] = {}
    for line, row in _rows(path, needs=("teacher",)):
        student = row.pop("student", "").strip() or ANY_STUDENT
        rewards = row.pop("reward_source", "").strip() or None
        teacher = row.pop("teacher")
        where = f"{path}, line {line}"
        _put(groups.setdefault((student, rewards), {}), teacher, _numbers(row, where), where=where)
    return [Prediction(student, path, rows, rewards) for (student, rewards), rows in groups.items()]


def read_observed(path: str, dimension: str | None = None) -> dict[str, dict[str, float]]:
    """Return the observed orders of a CSV `teacher, student, AP` (or `score`), or of a JSON of rankings.

    In the JSON each ranking gives the values it is ordered by, those of a metric for which lower is
    better with the sign turned. Headings may be in any case.

    Args:
        path: the file.
        dimension: which of several is read; a CSV names them in a column `dimension`, rankings in their
            settings. A file of one alone needs none.

    Raises:
        DataError: as for `read_predictions`; or if a value is missing, a ranking is ordered by what has no
            declared direction, the file has several dimensions and none is named, or not the one named.
    """
    outcomes = list(_outcomes(path))
    named = list(dict.fromkeys(one.dimension for one in outcomes))
    if dimension is None and len(named) > 1:
        raise DataError(
            f"'{path}' has outcomes of {len(named)} dimensions, {_listed(named)}, which are no one order. "
            "Name the one to read: --dimension NAME."
        )
    if dimension is not None and dimension not in named:
        there = (
            f"it has {_listed(named)}.{nearest(dimension, named)}" if any(named) else "it has none."
        )
        raise DataError(f"'{path}' has no dimension {dimension!r:.80}: {there}")
    observed: dict[str, dict[str, float]] = {}
    for where, student, teacher, value, own in outcomes:
        if dimension not in (None, own):
            continue
        if value is None:
            raise DataError(
                f"{where}: there is no observed value of {teacher!r:.80} for {student!r:.80}. "
                "Leave the row out."
            )
        _put(observed.setdefault(student, {}), teacher, value, where=where)
    return observed


def _listed(dimensions: Iterable[str]) -> str:
    return ", ".join(f"{one!r:.80}" if one else "one without a name" for one in dimensions)


class _Outcome(NamedTuple):
    """What was observed, and the dimension, empty where none is named."""

    where: str
    student: str
    teacher: str
    value: float | None
    dimension: str


def _outcomes(path: str) -> Iterator[_Outcome]:
    """Yield everything observed."""
    if not _is_json(path):
        for line, row in _rows(path, needs=("teacher", "student", "ap")):
            where = f"{path}, line {line}"
            value = _number(row["ap"], where, "ap")
            dimension = row.get("dimension", "").strip()
            yield _Outcome(where, row["student"].strip(), row["teacher"], value, dimension)
        return
    for ranking in _rankings(path):
        by = str(ranking.get("by"))
        sign = _sign(ranking, by, path)
        settings = ranking.get("settings")
        named = settings.get("dimension") if isinstance(settings, Mapping) else None
        for name, record in _of_ranking(ranking, path).values.items():
            value = record.get(by)
            signed = None if value is None else sign * value
            yield _Outcome(path, str(ranking["student"]), name, signed, str(named or ""))


def _sign(ranking: Mapping[str, object], by: str, path: str) -> int:
    formed = ranking.get("metrics")
    declared = formed.get(by) if isinstance(formed, Mapping) else None
    if isinstance(declared, Mapping):
        return 1 if declared.get("higher_is_better") else -1
    if by in METRICS:
        return 1 if METRICS[by].higher_is_better else -1
    raise DataError(
        f"'{path}' orders teachers by {by!r:.80}, of which no direction is declared. Write the outcomes as "
        "CSV: teacher, student, AP, where higher is better."
    )


def _is_json(path: str) -> bool:
    return Path(path).suffix.casefold() == ".json"


def _rankings(path: str) -> list[Mapping[str, object]]:
    """Return the rankings of a JSON file: one, or a list."""
    held = read_json(path)
    rankings = held if isinstance(held, list) else [held]
    for ranking in rankings:
        if isinstance(ranking, dict):
            require_version(ranking, f"'{path}'")
        teachers = ranking.get("teachers") if isinstance(ranking, dict) else None
        if not isinstance(teachers, list) or not isinstance(ranking.get("student"), str):
            raise DataError(
                f"'{path}' holds no rankings: expected a list of objects with a student and a list of "
                "teachers, as `preceptor rank --json` writes it."
            )
    return rankings


def _of_ranking(ranking: Mapping[str, object], path: str) -> Prediction:
    rows: dict[str, Mapping[str, float | None]] = {}
    teachers = ranking["teachers"]
    assert isinstance(teachers, list)
    for record in teachers:
        if not isinstance(record, dict) or not isinstance(record.get("teacher"), str):
            raise DataError(f"'{path}' holds a teacher without a name: {record!r:.80}.")
        plain = {name: v for name, v in record.items() if not isinstance(v, dict | list | str)}
        _put(rows, record["teacher"], _numbers(plain, path), where=path)
    settings = ranking.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    rewards = settings.get("reward")
    return Prediction(
        student=str(ranking["student"]),
        file=path,
        values=rows,
        rewards=None if rewards is None else str(rewards),
        transformed=settings.get("transform", "raw") != "raw",
    )


def _rows(path: str, *, needs: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line and row of a CSV file, its headings stripped and those of `needs` in lower case."""
    lines = read_csv(path)
    headings = [heading.strip() for heading in next(lines, (0, []))[1]]
    names = {"teacher", "student", *needs, *(["dimension"] if "ap" in needs else [])}
    headings = [h.casefold() if h.casefold() in names else h for h in headings]
    if "ap" in needs and "ap" not in headings:
        headings = ["ap" if h.casefold() == "score" else h for h in headings]
    missing = [name for name in needs if name not in headings]
    if missing or len(set(headings)) < len(headings):
        wrong = f"has no column '{missing[0]}'" if missing else "has two columns of one name"
        seen = f"its columns are {', '.join(headings)!r:.200}" if any(headings) else "it is empty"
        raise DataError(f"'{path}' {wrong}; {seen}. It needs {', '.join(needs)}.")
    for number, cells in lines:
        cells += [""] * (len(headings) - len(cells))
        yield number, dict(zip(headings, cells, strict=False))


def _numbers(row: Mapping[str, object], where: str) -> dict[str, float | None]:
    """Return the numbers of a row, without those that only place its teacher."""
    return {
        name: _number(value, where, name) for name, value in row.items() if not _is_place(name, row)
    }


def _is_place(name: str, row: Iterable[str]) -> bool:
    column, _, end = name.rpartition("_")
    return name in _PLACES or (end in {"low", "high"} and column in row)


def _number(value: object, where: str, name: str) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().casefold() in _NOTHING):
        return None
    try:
        number = number_in(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise DataError(
            f"{where}: {name!r:.60} is {value!r:.60}; expected a finite number, or nothing."
        )
    return number


def _put(rows: dict[str, _Value], name: str, value: _Value, *, where: str) -> None:
    teacher = SHIPPED.label(name)
    if not teacher or teacher in rows:
        problem = (
            f"names {teacher!r:.80} twice for one student"
            if teacher
            else "has a row without a teacher"
        )
        raise DataError(f"{where} {problem}. Keep one row for each teacher and student.")
    rows[teacher] = value
