"""A ranking as plain values: flat records for tables, and JSON that is read back into an equal ranking."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from preceptor.errors import DataError
from preceptor.ranking.diversity import Diversity
from preceptor.ranking.places import (
    Category,
    Evidence,
    FormedMetric,
    OrderVariant,
    Places,
    Stability,
    TeacherResult,
    Trust,
)
from preceptor.ranking.schema import require_version, versioned
from preceptor.ranking.verdict import claim_in, verdict_of
from preceptor.types import Estimate, Warning

FIXED_FIELDS = ("reward", "loss", "car", "car_low", "car_high")
"""Fields that every record has, None where there is no data, because scripts read them by name."""


def flat(ranking: Places, result: TeacherResult) -> dict[str, object]:
    """Return one teacher's record; see `Ranking.to_records`."""
    record: dict[str, object] = {"teacher": result.teacher, "rank": result.rank, "n": result.n}
    record |= dict.fromkeys(FIXED_FIELDS)
    record["p_best"] = result.p_best
    for name, estimate in result.estimates.items():
        record[name] = estimate.value
        if name in ranking.metrics:
            record[f"{name}_low"] = estimate.low
            record[f"{name}_high"] = estimate.high
    return record


def written(ranking: Places) -> dict[str, object]:
    """Return the whole ranking as plain values; see `Ranking.to_dict`."""
    teachers = [
        flat(ranking, result)
        | {
            "p_rank": list(result.p_rank),
            "p_leader_beats": result.p_leader_beats,
            "behind": result.behind and asdict(result.behind),
            "p_value": result.p_value,
            "discordant": result.discordant and list(result.discordant),
            "dropped": dict(result.dropped),
            "truncated": result.truncated,
            "estimates": {name: asdict(one) for name, one in result.estimates.items()},
        }
        for result in ranking.teachers
    ]
    whole = {
        "student": ranking.student,
        "by": ranking.by,
        "metrics": {name: asdict(metric) for name, metric in ranking.metrics.items()},
        "instructions": ranking.instructions,
        "teachers": teachers,
        "settings": ranking.settings,
        "verdict": asdict(verdict_of(ranking)),
        "warnings": [asdict(warning) for warning in ranking.warnings],
        "stability": ranking.stability and asdict(ranking.stability),
        "evidence": asdict(ranking.evidence),
        "trust": ranking.trust and asdict(ranking.trust),
        "categories": [
            asdict(one) | {"claim": claim_in(ranking, one)[0]} for one in ranking.categories
        ],
        "diversity": {name: asdict(one) for name, one in ranking.diversity.items()},
    }
    return versioned({name: plain(value) for name, value in whole.items()})


def read(text: str) -> dict[str, Any]:
    """Return the fields of the ranking in a JSON text; see `Ranking.from_json`."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"This is no JSON ({error}): {text[:60]!r}. Give the text itself."
        ) from error
    if isinstance(found, list):
        if len(found) != 1:
            raise DataError(f"The JSON holds {len(found)} rankings: give the text of one of them.")
        (found,) = found
    if isinstance(found, dict):
        require_version(found, "The JSON")
    try:
        return _fields(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The JSON is no ranking as this version writes it ({type(error).__name__}: {error}). "
            "Write it again with `to_json` or `preceptor rank --json`."
        ) from error


def _fields(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: found[name] for name in ("student", "by", "instructions", "settings")},
        "metrics": {
            name: FormedMetric(tuple(one["needs"]), one["higher_is_better"])
            for name, one in found["metrics"].items()
        },
        "teachers": tuple(map(_result, found["teachers"])),
        "warnings": tuple(
            Warning(one["code"], one["text"], tuple(one["teachers"])) for one in found["warnings"]
        ),
        "stability": found["stability"] and _stability(**found["stability"]),
        "evidence": _evidence(**found["evidence"]),
        "trust": found["trust"] and _trust(**found["trust"]),
        "categories": tuple(_category(**one) for one in found["categories"]),
        "diversity": {name: Diversity(**one) for name, one in found.get("diversity", {}).items()},
    }


def _stability(
    by: str, winners: Sequence[str], variants: Sequence[Mapping[str, Any]], pairs: int
) -> Stability:
    kept = (OrderVariant(**{**one, "winners": tuple(one["winners"])}) for one in variants)
    return Stability(by, tuple(winners), tuple(kept), pairs)


def _evidence(contenders: Sequence[str], **rest: Any) -> Evidence:
    return Evidence(contenders=tuple(contenders), **rest)


def _trust(records: Sequence[Mapping[str, Any]], combined: Sequence[str], **rest: Any) -> Trust:
    return Trust(records=tuple(records), combined=tuple(combined), **rest)


def _category(
    claim: str, means: Mapping[str, Mapping[str, Any]], against: Sequence[str], **rest: Any
) -> Category:
    known = {
        teacher: {name: _estimate(**one) for name, one in of.items()}
        for teacher, of in means.items()
    }
    return Category(means=known, against=tuple(against), **rest)


def _result(found: Mapping[str, Any]) -> TeacherResult:
    return TeacherResult(
        teacher=found["teacher"],
        rank=found["rank"],
        n=found["n"],
        estimates={name: _estimate(**one) for name, one in found["estimates"].items()},
        p_rank=tuple(found["p_rank"]),
        p_leader_beats=found["p_leader_beats"],
        dropped=found["dropped"],
        truncated=found["truncated"],
        behind=found["behind"] and _estimate(**found["behind"]),
        p_value=found["p_value"],
        discordant=found["discordant"] and tuple(found["discordant"]),
    )


def _estimate(value: float | None, low: float | None, high: float | None, n: int) -> Estimate:
    known = [math.nan if one is None else one for one in (value, low, high)]
    return Estimate(known[0], known[1], known[2], n)


def plain(value: object) -> object:
    """Return the value made of what JSON knows: not-finite numbers become None, the rest text."""
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset | np.ndarray):
        return [plain(part) for part in value]
    return str(value)
