"""What came out of the closed loop: outcomes with Wilson's intervals, agreement, races; Markdown too."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.result import Ranking
from preceptor.validation.result import FinetunedFigures, ValidationResult, mean_of

Row = dict[str, Any]
Z = 1.959964


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share of n answers (Wilson 1927)."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def outcomes(result: ValidationResult, benchmark: str) -> list[Row]:
    """Return accuracy in percent by student and teacher, the mean over runs; n are questions, not answers."""
    return [
        {
            "teacher": one.teacher,
            "student": order.student,
            "score": round(one.estimates[order.by].value, 4),
            **_interval(one.estimates[order.by].value, one.n),
            "n": one.n,
            "benchmark": benchmark,
            **_trained(result.finetuned, order.student, one.teacher),
        }
        for order in result.observed
        for one in order.teachers
    ]


def _interval(percent: float, n: int) -> dict[str, float]:
    low, high = wilson(percent / 100, n)
    return {"low": round(100 * low, 2), "high": round(100 * high, 2)}


def _trained(found: Sequence[FinetunedFigures], student: str, teacher: str) -> Row:
    """Return what a student was tuned on, and how it answered, the mean over runs."""
    own = [one for one in found if (one.student, one.teacher) == (student, teacher)]
    return {
        "runs": len(own),
        "rows": own[0].rows,
        "steps": own[0].steps,
        "first_loss": mean_of(one.first_loss for one in own),
        "last_loss": mean_of(one.last_loss for one in own),
        "ended": mean_of(one.answered.ended for one in own),
        "tokens": mean_of(one.answered.tokens for one in own),
    }


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write outcomes as `preceptor studies add` reads them."""
    names = ("teacher", "student", "benchmark", "score", "low", "high", "n", "runs", "rows")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def agreement(result: ValidationResult) -> list[Row]:
    """Return each metric's agreement by student: rho, interval, p, and regret of its choice in points."""
    if result.agreement is None:
        return []
    tuned = {order.student: [one.teacher for one in order.teachers] for order in result.observed}
    picks = {
        (one.student, name): pick(one, name, tuned.get(one.student, []))
        for one in result.predicted
        for name in one.metrics
    }
    declared = {
        column.title: column.higher_is_better for column in result.agreement.comparison.columns
    }
    return [
        {
            **cell.record(),
            "higher_is_better": declared[cell.column],
            "picks": picks.get((str(cell.student), cell.column)),
        }
        for row in result.agreement.cells
        for cell in row
    ]


def pick(ranking: Ranking, metric: str, of: Sequence[str]) -> str:
    """Return which of these teachers a metric puts first, in its declared direction, all that tie."""
    sign = 1 if ranking.metrics[metric].higher_is_better else -1
    known = {
        one.teacher: sign * value
        for one in ranking.teachers
        if one.teacher in of
        and (value := one.estimates[metric].value) is not None
        and math.isfinite(value)
    }
    most = max(known.values(), default=None)
    first = [teacher for teacher, value in known.items() if value == most]
    return ", ".join(first) if len(first) < 3 else f"{len(first)} alike"


def races(found: Iterable[RaceResult], rows: Sequence[Row]) -> list[Row]:
    """Return what each race chose, what that lost against the best in points, and what it read."""
    return [
        {
            "student": one.student,
            "by": one.by,
            "chosen": one.choice[0].teacher,
            "ended_by": one.ending,
            "left": [racer.teacher for racer in one.left],
            "prompts": max(racer.rows for racer in one.racers),
            "of_prompts": one.rows,
            "tokens": one.spent.tokens,
            "of_tokens": one.full.tokens,
            "regret": _regret(rows, one.student, one.choice[0].teacher),
        }
        for one in found
    ]


def _regret(rows: Sequence[Row], student: str, teacher: str) -> float | None:
    scores = {row["teacher"]: row["score"] for row in rows if row["student"] == student}
    return max(scores.values()) - scores[teacher] if teacher in scores else None


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables as they stand in `docs/explanation/closed-loop.md`."""
    for name, part in found["studies"].items():
        yield f"\n**{name}**: accuracy in percent, 95% (Wilson).\n"
        yield from table(
            part["outcomes"],
            (
                "student",
                "teacher",
                "score",
                "low",
                "high",
                "runs",
                "rows",
                "steps",
                "ended",
                "tokens",
            ),
        )
        yield f"\n**{name}**: each metric's order against the observed one.\n"
        yield from table(
            part["agreement"],
            (
                "student",
                "column",
                "higher_is_better",
                "rho",
                "ends_low",
                "ends_high",
                "permutation_p",
                "permutation_p_adjusted",
                "picks",
                "regret",
            ),
        )
        yield f"\n**{name}**: means of every teacher.\n"
        yield from table(part["metrics"], ("student", "teacher", *part["formed"]))
    yield "\n**Races** by CAR.\n"
    yield from table(
        found["races"],
        ("student", "chosen", "ended_by", "prompts", "of_prompts", "tokens", "of_tokens", "regret"),
    )


def table(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """Yield a Markdown table; nothing stands where there is no data."""
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name)) for name in names)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
