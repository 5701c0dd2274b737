"""Putting predicted and observed orders side by side: the same teachers, one row for each student.

A prediction for one of the observed students is judged on that student alone; a prediction for any other
student is a proxy and is judged on all of them. Every column then has the same students and teachers, so
differences are paired; whatever that leaves out is reported, never dropped silently.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from preceptor.agreement.correlation import Array, leave_one_out_prior
from preceptor.agreement.orders import Observed, Prediction, student_key
from preceptor.config.catalogue import SHIPPED, Catalogue
from preceptor.errors import StudyError, counted, nearest
from preceptor.ranking.metrics import METRICS

FEWEST = 3
"""Below this many teachers there is no order to speak of."""

_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Column:
    """One way to predict the order: a metric by one source, or a baseline.

    `values` is (students, teachers) as found; `predicted` is the same with higher for better. `title`
    is unique in its table.
    """

    title: str
    metric: str
    higher_is_better: bool
    values: Array
    baseline: bool = False

    @property
    def predicted(self) -> Array:
        """The values with the sign turned where lower is better."""
        return self.values if self.higher_is_better else -self.values


@dataclass(frozen=True)
class Comparison:
    """Predicted and observed orders over the same students and teachers.

    `observed` is (students, teachers), higher is better. `left_out` says what was left out and why.
    `transformed` says that some rewards had already passed a transform. `averaged` is False where rows are
    of several dimensions, whose mean says nothing of any.
    """

    students: tuple[str, ...]
    teachers: tuple[str, ...]
    observed: Array
    columns: tuple[Column, ...]
    left_out: tuple[str, ...]
    transformed: bool = False
    catalogue: Catalogue = SHIPPED
    averaged: bool = True

    @property
    def families(self) -> tuple[str, ...]:
        """Each teacher's family by the catalogue; an unknown teacher is a family of its own."""
        return tuple(self.catalogue.family(teacher) for teacher in self.teachers)

    def column(self, name: str) -> Column:
        """Return the first column of this title or metric.

        Raises:
            StudyError: naming the columns there are.
        """
        for column in self.columns:
            if name in (column.title, column.metric):
                return column
        titles = [column.title for column in self.columns]
        raise StudyError(
            f"No column is called '{name}'; there are {', '.join(titles)}.{nearest(name, titles)}"
        )


def compare(
    predictions: Sequence[Prediction],
    observed: Observed,
    *,
    metrics: Sequence[str] = (),
    students: Sequence[str] = (),
    directions: Mapping[str, bool] | None = None,
    catalogue: Catalogue = SHIPPED,
) -> Comparison:
    """Return the comparison of all metrics with all students that the predictions allow.

    Args:
        predictions: see `orders.read_predictions`.
        observed: student -> teacher -> what was observed, higher is better.
        metrics: restrict the columns to these; else all with a declared direction.
        students: restrict the rows to these observed students.
        directions: for columns that are no metric of ours, whether higher is better.
        catalogue: what is known of teachers' families and sizes.

    Raises:
        StudyError: for names that are unknown, a direction that contradicts a metric's own, two
            predictions of the same thing, or fewer than 3 teachers or no student in common.
    """
    known = _directions(directions or {})
    left_out: list[str] = []
    names = _chosen_metrics(predictions, metrics, known, left_out)
    wanted = _chosen_students(students, observed)
    sources = _sources(predictions, names, observed)
    rows = [
        s
        for s in wanted
        if all(student_key(s) in found or "" in found for found in sources.values())
    ]
    if not rows:
        raise StudyError(
            "No observed student has a prediction in every column: agree the files one at a time, or "
            "restrict the columns with --metric."
        )
    if len(rows) < len(wanted):
        left = [student for student in wanted if student not in rows]
        left_out.append(f"Students without a prediction in every column: {', '.join(left)}.")
    judged = {"", *map(student_key, rows)}
    sources = {
        key: {student: one for student, one in found.items() if student in judged}
        for key, found in sources.items()
    }
    teachers = _common_teachers(sources, rows, observed, left_out)
    columns = _columns(sources, rows, teachers, known)
    named = {column.metric for column in columns}
    baselines = _baselines(rows, teachers, observed, left_out, catalogue=catalogue)
    columns += [baseline for baseline in baselines if baseline.metric not in named]
    return Comparison(
        students=tuple(rows),
        teachers=tuple(teachers),
        observed=_table(observed, rows, teachers),
        columns=tuple(columns),
        left_out=tuple(left_out),
        transformed=any(prediction.transformed for prediction in predictions),
        catalogue=catalogue,
    )


def row_name(student: str, dimension: str) -> str:
    """Return how a student's row in one dimension is called."""
    return f"{student}, {dimension}" if dimension else student


def side_by_side(dimensions: Mapping[str, Comparison]) -> Comparison:
    """Return comparisons of the same predictions with several dimensions as one.

    There is a row for each student in each. Columns that not all of them have are left out, and teachers
    must be the same.
    """
    first = next(iter(dimensions.values()))
    if len(dimensions) == 1:
        return first
    found = list(dimensions.values())
    titles = [{column.title: column for column in one.columns} for one in found]
    shared = [column for column in first.columns if all(column.title in own for own in titles)]
    return replace(
        first,
        students=tuple(row_name(s, name) for name, one in dimensions.items() for s in one.students),
        observed=np.concatenate(
            [one.observed[:, [one.teachers.index(t) for t in first.teachers]] for one in found]
        ),
        columns=tuple(_stacked(column, found, titles, first.teachers) for column in shared),
        left_out=tuple(dict.fromkeys(note for one in found for note in one.left_out)),
        averaged=False,
    )


def _stacked(
    column: Column,
    found: Sequence[Comparison],
    titles: Sequence[Mapping[str, Column]],
    teachers: Sequence[str],
) -> Column:
    """Return a column with the rows of all comparisons, its teachers in this order."""
    parts = [
        own[column.title].values[:, [one.teachers.index(teacher) for teacher in teachers]]
        for one, own in zip(found, titles, strict=True)
    ]
    return replace(column, values=np.concatenate(parts))


def _directions(given: Mapping[str, bool]) -> dict[str, bool]:
    known = {name: metric.higher_is_better for name, metric in METRICS.items()}
    for name, higher in given.items():
        if known.get(name, higher) != higher:
            declared = "higher" if known[name] else "lower"
            raise StudyError(
                f"{declared.capitalize()} is better for '{name}' by declaration, and a direction is never "
                f"chosen to suit an outcome. With the other direction rho only changes its sign."
            )
    return known | dict(given)


def _chosen_metrics(
    predictions: Sequence[Prediction],
    asked: Sequence[str],
    known: Mapping[str, bool],
    left_out: list[str],
) -> list[str]:
    """Return the columns to judge, and note those without a known direction."""
    found = list(dict.fromkeys(name for prediction in predictions for name in prediction.columns))
    for name in asked:
        if name not in found:
            raise StudyError(
                f"No prediction has a column '{name}'; there are {', '.join(found) or 'none'}."
                f"{nearest(name, found)}"
            )
        if name not in known:
            raise StudyError(
                f"No direction of '{name}' is declared: give --higher-is-better {name} or "
                f"--lower-is-better {name} before you look at the outcome."
            )
    usable = [name for name in found if name in known]
    if not usable:
        raise StudyError(
            f"The predictions have no metric; their columns are {', '.join(found) or 'none'}. Name those "
            "to judge with --higher-is-better or --lower-is-better."
        )
    unused = [name for name in found if name not in known]
    if unused and not asked:
        left_out.append(
            "No direction declared (--higher-is-better, --lower-is-better), so not judged: "
            f"{', '.join(unused)}."
        )
    # The likelihood is minus the loss: one order twice.
    plain = [name for name in usable if name != "likelihood" or "loss" not in usable]
    return list(dict.fromkeys(asked)) or plain


def _chosen_students(asked: Sequence[str], observed: Observed) -> list[str]:
    by_key = {student_key(student): student for student in observed}
    for name in asked:
        if student_key(name) not in by_key:
            raise StudyError(
                f"'{name}' is not an observed student; they are {', '.join(observed)}."
                f"{nearest(name, observed)}"
            )
    return list(dict.fromkeys(by_key[student_key(name)] for name in asked)) or list(observed)


def _sources(
    predictions: Iterable[Prediction], names: Sequence[str], observed: Observed
) -> dict[_Key, dict[str, Prediction]]:
    """Return, by metric and where it is from, the prediction for each student; "" is every student.

    The key is metric, proxy student or nothing, source of rewards, and a proxy's file.
    """
    keys = {student_key(student) for student in observed}
    sources: dict[_Key, dict[str, Prediction]] = {}
    for prediction in predictions:
        student = student_key(prediction.student)
        own = student in keys
        for name in names:
            if name not in prediction.columns:
                continue
            origin = ("", "") if own else (prediction.student, prediction.file)
            key = (name, origin[0], prediction.rewards or "", origin[1])
            found = sources.setdefault(key, {})
            other = found.get(student if own else "")
            if other is not None:
                raise StudyError(
                    f"'{other.file}' and '{prediction.file}' both predict {prediction.student!r:.80} by "
                    f"'{name}'. Give one of them."
                )
            found[student if own else ""] = prediction
    return sources


def _common_teachers(
    sources: Mapping[_Key, Mapping[str, Prediction]],
    rows: Sequence[str],
    observed: Observed,
    left_out: list[str],
) -> list[str]:
    """Return the teachers that have a number everywhere, in the observed order, and tell of the rest."""
    seen = list(dict.fromkeys(teacher for student in rows for teacher in observed[student]))
    used = {id(p): p for found in sources.values() for p in found.values()}.values()
    predicted = list(dict.fromkeys(teacher for prediction in used for teacher in prediction.values))
    lacking: dict[str, list[str]] = {}
    for teacher in dict.fromkeys([*seen, *predicted]):
        for reason in _lacks(teacher, sources, rows, observed):
            lacking.setdefault(reason, []).append(teacher)
            break
    left_out += [f"Left out, {reason}: {', '.join(names)}." for reason, names in lacking.items()]
    out = {teacher for names in lacking.values() for teacher in names}
    teachers = [teacher for teacher in seen if teacher not in out]
    if len(teachers) < FEWEST:
        raise StudyError(
            f"Only {counted(len(teachers), 'teacher', 'is')} both predicted and observed; "
            f"{FEWEST} are needed. "
            f"Predicted: {', '.join(predicted)!r:.300}. Observed: {', '.join(seen)!r:.300}."
        )
    return teachers


def _lacks(
    teacher: str,
    sources: Mapping[_Key, Mapping[str, Prediction]],
    rows: Sequence[str],
    observed: Observed,
) -> Iterable[str]:
    """Yield why a teacher cannot be compared, the plainest reason first."""
    if not any(teacher in observed[student] for student in rows):
        yield "predicted but not observed"
    if not any(teacher in p.values for found in sources.values() for p in found.values()):
        yield "observed but not predicted"
    for student in rows:
        if teacher not in observed[student]:
            yield f"not observed for {student}"
    for (name, *_), found in sources.items():
        for prediction in found.values():
            if prediction.values.get(teacher, {}).get(name) is None:
                yield f"no {name} in '{Path(prediction.file).name}'"


def _columns(
    sources: Mapping[_Key, Mapping[str, Prediction]],
    rows: Sequence[str],
    teachers: Sequence[str],
    known: Mapping[str, bool],
) -> list[Column]:
    """Return a column for each source, one for sources that say the same, under titles that differ."""
    distinct: dict[tuple[str, bytes], tuple[_Key, Array]] = {}
    for key, found in sources.items():
        used = [found.get(student_key(student)) or found[""] for student in rows]
        values = np.array(
            [[p.values[teacher][key[0]] for teacher in teachers] for p in used], dtype=float
        )
        distinct.setdefault((key[0], values.tobytes()), (key, values))
    keys = [key for key, _ in distinct.values()]
    return [
        Column(_title(key, keys), key[0], known[key[0]], values)
        for key, values in distinct.values()
    ]


def _title(key: _Key, keys: Sequence[_Key]) -> str:
    """Return the metric's name, with what sets it apart from its other columns."""
    alike = [other for other in keys if other[0] == key[0]]
    details = [
        _short(part, {other[place] for other in alike})
        for place, part in enumerate(key)
        if place and part and any(other[place] != part for other in alike)
    ]
    return f"{key[0]} ({', '.join(details)})" if details else key[0]


def _short(name: str, among: Collection[str]) -> str:
    """Return the last part of a path or Hub id, where that still tells it from the others."""
    last = {other: other.rpartition("/")[2] for other in among}
    return last[name] if len(set(last.values())) == len(among) else name


def _table(observed: Observed, rows: Sequence[str], teachers: Sequence[str]) -> Array:
    return np.array([[observed[student][teacher] for teacher in teachers] for student in rows])


def _baselines(
    rows: Sequence[str],
    teachers: Sequence[str],
    observed: Observed,
    left_out: list[str],
    *,
    catalogue: Catalogue,
) -> list[Column]:
    """Return the order of size and the prior of the other students, where there is something to say."""
    columns = []
    sizes = [catalogue.size(teacher) for teacher in teachers]
    unknown = sorted(t for t, size in zip(teachers, sizes, strict=True) if size is None)
    if unknown:
        left_out.append(f"No baseline of size: the catalogue has none of {', '.join(unknown)}.")
    else:
        row = np.array([sizes] * len(rows), dtype=float)
        columns.append(Column("size", "size", True, row, baseline=True))
    peers = [s for s in observed if all(teacher in observed[s] for teacher in teachers)]
    if len(peers) < 2:
        left_out.append("No prior: it needs observed orders of another student.")
        return columns
    prior = leave_one_out_prior(_table(observed, peers, teachers))
    chosen = prior[[peers.index(student) for student in rows]]
    # Its value is a mean rank, which is better where it is lower.
    return [*columns, Column("prior", "prior", False, -chosen, baseline=True)]
