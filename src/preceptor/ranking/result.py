"""What a ranking says: places, evidence and verdict, and their forms as records, JSON and HTML.

The one idea: a `Ranking` is plain data that was computed once; everything here only words it. The
verdict is honest about doubt: it names one teacher only where the bootstrap does.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from preceptor.errors import MissingPackage
from preceptor.ranking.warnings import Warning
from preceptor.types import Estimate

if TYPE_CHECKING:
    import pandas

FIXED_FIELDS = ("reward", "loss", "car", "car_low", "car_high")
"""Fields that every record has, None where there is no data, because scripts read them by name."""

CLEAR = 0.95
"""From this P(best) on the verdict states the winner; from PROBABLE on it says probably."""

PROBABLE = 0.8
"""Below this P(best) there is no clear winner."""

COVERED = 0.9
"""Without a clear winner, candidates are named until their P(best) add up to this."""


@dataclass(frozen=True)
class TeacherResult:
    """One teacher's place, and the evidence for it.

    `rank` 1 is best; teachers that tie share the better rank. `estimates` holds every measure and
    metric. `p_rank[k]` is the probability of rank k + 1. `p_leader_beats` is the probability that
    the first teacher of the ranking is better than this one, None for the first itself. `dropped`
    counts by reason what kept this teacher out of instructions.
    """

    teacher: str
    rank: int
    n: int
    estimates: Mapping[str, Estimate]
    p_rank: tuple[float, ...]
    p_leader_beats: float | None
    dropped: Mapping[str, int]
    truncated: int

    @property
    def p_best(self) -> float:
        """The probability of being the best teacher; ties are split equally."""
        return self.p_rank[0]


@dataclass(frozen=True)
class OrderVariant:
    """CAR's order under another beta or reward transform, against that under the chosen one."""

    name: str
    winners: tuple[str, ...]
    same_winner: bool
    same_order: bool
    swapped_pairs: int


@dataclass(frozen=True)
class Stability:
    """Whether CAR's order survives another beta or another reward transform, one at a time."""

    variants: tuple[OrderVariant, ...]
    pairs: int

    def describe(self) -> str:
        """Return one sentence that names the variants under which winner or order change."""
        turned = [variant.name for variant in self.variants if not variant.same_winner]
        moved = [v.name for v in self.variants if v.same_winner and not v.same_order]
        if not turned and not moved:
            return f"The order by car is the same under all {len(self.variants)} variants."
        parts = [f"the winner changes under {', '.join(turned)}"] if turned else []
        parts += [f"the order below the winner changes under {', '.join(moved)}"] if moved else []
        return f"By car, {' and '.join(parts)}."


@dataclass(frozen=True)
class Ranking:
    """Teachers from best to worst for one student by one yardstick.

    `by` is the metric that orders, `metrics` all that were formed. `instructions` were asked for,
    of which each teacher's `n` could be compared. `stability` is None where CAR was not formed.
    """

    student: str
    by: str
    metrics: tuple[str, ...]
    instructions: int
    teachers: tuple[TeacherResult, ...]
    settings: Mapping[str, object]
    warnings: tuple[Warning, ...]
    stability: Stability | None

    @property
    def reward_source(self) -> str | None:
        """Where the rewards came from, in words; None where there were none or nothing says it."""
        source = self.settings.get("reward")
        return None if source is None else str(source)

    def verdict(self) -> str:
        """Return which teacher is best and how sure that is, in one or two sentences.

        Below a P(best) of 0.8 it says that there is no clear winner and names the candidates: the
        fewest teachers whose P(best) add up to 0.9, the leader among them.
        """
        best = self.teachers[0]
        basis = f"by {self.by} over {best.n} of {self.instructions} instructions"
        if len(self.teachers) == 1:
            return f"{best.teacher} is the only teacher for {self.student}: nothing to compare."
        second = self.teachers[1]
        if best.p_best < PROBABLE:
            return (
                f"No clear winner for {self.student}: {self._candidates()} ({basis}). "
                f"{best.teacher} leads with P(best) {_percent(best.p_best)}{self._rival()}."
            )
        sure = "is" if best.p_best >= CLEAR else "is probably"
        return (
            f"{best.teacher} {sure} the best teacher for {self.student}, P(best) "
            f"{_percent(best.p_best)} {basis}. It beats the runner-up {second.teacher} with "
            f"probability {_percent(second.p_leader_beats or 0.0)}."
        )

    def _rival(self) -> str:
        """Return who is the best in more draws than the leader: wide intervals can do that."""
        rival = max(self.teachers, key=lambda result: result.p_best)
        shares = [_percent(result.p_best) for result in (rival, self.teachers[0])]
        if shares[0] == shares[1]:
            return ""
        return f", though {rival.teacher} is best in more of the draws ({shares[0]})"

    def _candidates(self) -> str:
        rest = sorted(self.teachers[1:], key=lambda result: -result.p_best)
        names, covered = [self.teachers[0].teacher], self.teachers[0].p_best
        for result in rest:
            if covered >= 0.9 and len(names) > 1:
                break
            names.append(result.teacher)
            covered += result.p_best
        if len(names) > 4:
            names = [*names[:3], f"{len(names) - 3} others"]
        return f"{', '.join(names[:-1])} or {names[-1]}"

    def to_records(self) -> list[dict[str, object]]:
        """Return one flat dictionary per teacher, best first, all with the same fields.

        The fields are teacher, rank, n, p_best, every measure, and for every metric its value and
        the ends of its 95% interval as `<metric>_low` and `<metric>_high`. None is no data.
        """
        return [self._record(result) for result in self.teachers]

    def _record(self, result: TeacherResult) -> dict[str, object]:
        record: dict[str, object] = {"teacher": result.teacher, "rank": result.rank, "n": result.n}
        record |= dict.fromkeys(FIXED_FIELDS)
        record["p_best"] = result.p_best
        for name, estimate in result.estimates.items():
            record[name] = estimate.value
            if name in self.metrics:
                record[f"{name}_low"] = estimate.low
                record[f"{name}_high"] = estimate.high
        return record

    def to_dict(self) -> dict[str, object]:
        """Return the whole ranking as plain values fit for JSON: no NaN, no arrays."""
        teachers = [
            record
            | {
                "p_rank": list(result.p_rank),
                "p_leader_beats": result.p_leader_beats,
                "dropped": dict(result.dropped),
                "truncated": result.truncated,
            }
            for record, result in zip(self.to_records(), self.teachers, strict=True)
        ]
        whole = {
            "student": self.student,
            "by": self.by,
            "teachers": teachers,
            "settings": self.settings,
            "verdict": self.verdict(),
            "warnings": [asdict(warning) for warning in self.warnings],
            "stability": self.stability and asdict(self.stability),
        }
        return {name: _plain(value) for name, value in whole.items()}

    def to_frame(self) -> "pandas.DataFrame":
        """Return the records as a data frame, one row per teacher, best first.

        Raises:
            MissingPackage: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingPackage("pandas", purpose="A data frame", extra="pandas") from error
        return pandas.DataFrame(self.to_records())

    def _repr_html_(self) -> str:
        """Return the verdict and a table for notebooks; every text is escaped.

        It takes the notebook's own colours, light or dark.
        """
        cell = f'<td style="{_CELL};text-align:{{}}">{{}}</td>'
        rows = []
        for result in self.teachers:
            texts = [str(result.rank), result.teacher, _percent(result.p_best), str(result.n)]
            texts += [_interval(result.estimates[name]) for name in self.metrics]
            sides = ("left" if place == 1 else "right" for place in range(len(texts)))
            cells = (cell.format(s, html.escape(t)) for s, t in zip(sides, texts, strict=True))
            weight = "bold" if result is self.teachers[0] else "normal"
            rows.append(f'<tr style="background:none;font-weight:{weight}">{"".join(cells)}</tr>')
        titles = ("rank", "teacher", "P(best)", "n", *self.metrics)
        head = "".join(
            f'<th style="{_CELL};text-align:{"left" if title == "teacher" else "right"}">'
            f"{html.escape(title)}</th>"
            for title in titles
        )
        notes = "".join(f"<li>{html.escape(warning.text)}</li>" for warning in self.warnings)
        source = f"<p>Rewards: {html.escape(self.reward_source)}.</p>" if self.reward_source else ""
        return (
            f'<div style="font-family:system-ui,sans-serif;overflow-x:auto">'
            f'<p style="font-size:1.15em"><b>{html.escape(self.verdict())}</b></p>{source}'
            f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
            f"<tr>{head}</tr>{''.join(rows)}</table>"
            f"{f'<ul>{notes}</ul>' if notes else ''}</div>"
        )


_CELL = (
    "padding:3px 12px;color:inherit;background:none;border-bottom:1px solid rgba(128,128,128,.35)"
)


def _interval(estimate: Estimate) -> str:
    """Return a value with its interval, a dash where there is no data."""
    if not math.isfinite(estimate.value):
        return "–"  # noqa: RUF001
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


def _percent(probability: float) -> str:
    """Return a probability as whole percent; a finite number of draws never shows 0% or 100%."""
    if probability > 0.99:
        return "over 99%"
    if probability < 0.01:
        return "under 1%"
    return f"{probability:.0%}"


def _plain(value: object) -> object:
    """Return the value made of what JSON knows: not-finite numbers become None, the rest text."""
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset | np.ndarray):
        return [_plain(part) for part in value]
    return str(value)
