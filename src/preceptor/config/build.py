"""A study and its runtime from options by name, as `preceptor.rank`, `generate` and the command take them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from preceptor.config.base import checked
from preceptor.config.data import ReadOptions
from preceptor.config.keywords import GENERATE, RANK, set_in, sorted_out
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.errors import StudyError
from preceptor.ranking.race.options import RaceOptions

Paths: TypeAlias = str | Path | Sequence[str | Path]
"""One file, folder or Hub data set, or several."""


def study_of(
    responses: Paths,
    *,
    students: Sequence[str | Path | Student] = (),
    reward_column: str | None = None,
    reward_models: Sequence[str] = (),
    **options: Any,
) -> tuple[Study, Runtime]:
    """Return the study and the runtime that these options mean; see `rank`.

    Raises:
        StudyError: an option is unknown, wrong, or beside the point.
    """
    columns = _columns_of(options.pop("columns", None))
    given = sorted_out(RANK, options, where="rank")
    _require_used(given, students=students, reward_models=reward_models)
    dtype = {name: value for name, value in given["student"].items() if name == "dtype"}
    of_study = given["study"]
    if isinstance(of_study.get("reference_model"), str):
        of_study["reference_model"] = {"model": of_study["reference_model"], **dtype}
    elif of_study.get("reference_model", "") is None:
        del of_study["reference_model"]
    rewards: list[object] = [{"kind": "column", "column": reward_column}] if reward_column else []
    rewards += [{"kind": "model", "model": m, **given["model"], **dtype} for m in reward_models]
    if rule := given["rule"].get("rule"):
        rewards.append({"kind": "rule", "rule": _rule(rule)})
    if given["judge"].get("model"):
        rewards.append(_judge_of(given, dtype))
    data = {**given["data"], "responses": _paths(responses), "columns": columns | given["columns"]}
    tables = of_study | {
        "data": data,
        "race": _race_of(given["race"]),
        "students": [_student_of(one, given["student"]) for one in students],
        "reward": rewards,
        "reading": given["reading"],
        "ranking": given["ranking"],
        "metrics": _distinct(of_study.get("metrics", ())),
    }
    runtime = _with_endpoint(given["runtime"], given["judge"].get("model"), given["endpoint"])
    return (checked(Study, tables, where="options"), checked(Runtime, runtime, where="options"))


def generation_of(instructions: Paths, *, teacher: str, **options: Any) -> tuple[Study, Runtime]:
    """Return the study that asks one teacher, and its runtime; see `preceptor.generate`.

    Raises:
        StudyError: an option is unknown, wrong, or beside the point.
    """
    given = sorted_out(GENERATE, options, where="generate")
    served = bool(given["endpoint"].get("url"))
    if (names := set_in(GENERATE["endpoint"], given["endpoint"])) and not served:
        raise StudyError(f"{', '.join(names)} is given without url, the address of the endpoint.")
    fields = {**given["teacher"], "model": teacher}
    tables = {
        "data": {
            **given["data"],
            "instructions": _paths(instructions),
            "columns": given["columns"],
        },
        "teachers": [fields | ({"engine": "openai"} if served else {})],
    }
    runtime = _with_endpoint(given["runtime"], teacher, given["endpoint"])
    return (checked(Study, tables, where="options"), checked(Runtime, runtime, where="options"))


def _race_of(given: Mapping[str, object]) -> object:
    """Return the table of a race, None for none: `race` is a table itself, or says whether to race."""
    fields = {name: value for name, value in given.items() if name != "race" and value is not None}
    race = given.get("race")
    if isinstance(race, RaceOptions):
        race = race.model_dump(exclude_unset=True)
    if isinstance(race, Mapping):
        return {**race, **fields}
    if race:
        return fields
    if names := set_in(RANK["race"], fields):
        raise StudyError(
            f"{', '.join(names)} is given without a race: race too (--race), or leave it out."
        )
    return None


def _require_used(
    given: Mapping[str, Mapping[str, object]],
    *,
    students: Sequence[object],
    reward_models: Sequence[str],
) -> None:
    """Refuse options that nothing would heed: better than an answer to another question."""
    judged = bool(given["judge"].get("model"))
    of_judge = [
        *set_in(RANK["judge"], given["judge"]),
        *set_in(RANK["endpoint"], given["endpoint"]),
    ]
    unheeded = [
        (
            set_in(RANK["model"], given["model"]),
            bool(reward_models),
            "a reward model: name reward_model",
        ),
        (of_judge, judged, "a judge: name the model with judge (--judge)"),
        (
            [name for name in set_in(RANK["student"], given["student"]) if name != "dtype"],
            bool(students),
            "a student: name one",
        ),
    ]
    for names, heeded, lacking in unheeded:
        if names and not heeded:
            raise StudyError(f"{', '.join(names)} is given without {lacking}, or leave it out.")


def _columns_of(columns: ReadOptions | Mapping[str, object] | None) -> dict[str, object]:
    if isinstance(columns, ReadOptions):
        return columns.model_dump(exclude_unset=True)
    if columns is not None and not isinstance(columns, Mapping):
        raise StudyError(
            f"columns is {columns!r:.80}: expected ReadOptions or a table of its fields."
        )
    return dict(columns or {})


def _student_of(
    student: str | Path | Student, fields: Mapping[str, object]
) -> Student | dict[str, object]:
    return student if isinstance(student, Student) else {"model": str(student), **fields}


def _judge_of(
    given: Mapping[str, Mapping[str, object]], dtype: Mapping[str, object]
) -> dict[str, object]:
    """Return the table of the judge; where nothing says where it is served it is run here."""
    fields = {name: value for name, value in given["judge"].items() if value is not None}
    served = given["endpoint"].get("url") or fields["model"] in _mapping(
        given["runtime"].get("endpoints")
    )
    table = {"kind": "judge", "engine": "openai" if served else "transformers", **dtype, **fields}
    if rubric := fields.get("rubric"):
        table["rubric"] = _text_of(str(rubric))
    return table


def _with_endpoint(
    runtime: Mapping[str, object], model: object, endpoint: Mapping[str, object]
) -> dict[str, object]:
    """Return the fields of the runtime, with where the model is served if an address is given."""
    if not endpoint.get("url"):
        return dict(runtime)
    endpoints = {**_mapping(runtime.get("endpoints")), str(model): endpoint}
    return {**runtime, "endpoints": endpoints}


def _mapping(given: object) -> Mapping[str, object]:
    return given if isinstance(given, Mapping) else {}


def _paths(given: Paths) -> list[str]:
    paths = [given] if isinstance(given, str | Path) else given
    if not isinstance(paths, Iterable) or not all(isinstance(one, str | Path) for one in paths):
        raise StudyError(
            f"{given!r:.80} is no path: expected a file, folder or Hub data set, or a list of such."
        )
    return [str(path) for path in paths]


def _rule(given: object) -> object:
    """Return the check, read from JSON where it is a text."""
    if not isinstance(given, str):
        return given
    try:
        rule = json.loads(given)
    except ValueError as error:
        raise StudyError(
            f"The rule is not JSON ({error}): {given:.80}. Expected a check such as "
            '{"kind": "contains", "answer": "Paris"}.'
        ) from error
    if not isinstance(rule, dict):
        raise StudyError(f"The rule is {given:.80}: expected a JSON object with a kind.")
    return rule


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"Cannot read the rubric '{path}': {error}.") from error


def _distinct(metrics: object) -> object:
    if not isinstance(metrics, list | tuple):
        return metrics
    return [metric for place, metric in enumerate(metrics) if metric not in metrics[:place]]
