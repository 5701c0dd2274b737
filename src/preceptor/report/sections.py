"""What the sections of a page say: the verdict in brief, the overview, how the result was made.

Everything here turns data into short sentences and rows; the templates only place them. Names are kept
apart from the words around them, because they are untrusted.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from preceptor.agreement.bootstrap import FEWEST_FOR_INTERVAL
from preceptor.agreement.table import AgreementTable
from preceptor.ranking.places import TeacherResult, Trust
from preceptor.ranking.record import plain
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import about_order, form_of, p_value, unequal_lengths
from preceptor.ranking.verdict import Claim, limits
from preceptor.report.data import Change, RankingData, Report
from preceptor.report.leaderboard import better
from preceptor.report.wording import (
    ABSENT,
    Piece,
    alike,
    chance,
    named,
    number,
    ordinal,
    row_labels,
)
from preceptor.studies.record import Record

_UNITS = {"loss": " nats per token", "length": " tokens", "information": " nats"}
_MEANINGS = {"reward": "Mean reward", "loss": "The student's loss", "length": "Mean length"}


@dataclass(frozen=True)
class Hope:
    """One teacher's probability of being best, in words and as a share of a bar."""

    teacher: str
    role: str
    words: str
    share: float


@dataclass(frozen=True)
class Brief:
    """The verdict and the four answers below it; `changes` and `why` are read as a list."""

    verdict: tuple[Piece, ...]
    hopes: tuple[Hope, ...]
    beats: str
    why: tuple[str, ...]
    changes: tuple[Change, ...]
    unchanged: str
    stability: str
    cost: str
    cost_notes: tuple[str, ...]
    reward: str


@dataclass(frozen=True)
class Line:
    """A ranking's line in the overview; `doubt` is what is claimed where it is less than the first place."""

    student: str
    reward: str
    winner: str
    p_best: str
    runner_up: str
    doubt: str


@dataclass(frozen=True)
class Setting:
    """A setting by name; `block` says that its value is several lines of JSON."""

    name: str
    text: str
    block: bool


@dataclass(frozen=True)
class RecordLine:
    """What one metric has been worth in one study."""

    metric: str
    study: str
    size: str
    rho: str
    interval: str
    regret: str
    note: str


@dataclass(frozen=True)
class DiversityLine:
    """How alike one teacher's responses are, and over how many."""

    teacher: str
    distinct: str
    bigrams: str
    near: str
    responses: str


@dataclass(frozen=True)
class AgreementLine:
    """How well one metric agrees with the observed order, over all students or in one dimension."""

    metric: str
    better: str
    rho: str
    interval: str
    adjusted: str
    regret: str


def brief(ranked: RankingData) -> Brief:
    """Return a ranking's verdict, and how sure, why, what would change it, and at what cost."""
    ranking = ranked.ranking
    names = [ranking.student, *(result.teacher for result in ranking.teachers)]
    return Brief(
        verdict=named(ranking.verdict().text, names),
        hopes=_hopes(ranking),
        beats=_beats(ranking),
        why=_why(ranking),
        changes=ranked.changes,
        unchanged=_unchanged(ranked),
        stability=" ".join(about_order(ranking)),
        cost=_cost(ranked),
        cost_notes=(*_cost_notes(ranked), *unequal_lengths(ranking)),
        reward=ranking.reward_source or "none, so the order is exploratory",
    )


def overview(report: Report) -> tuple[Line, ...]:
    """Return a line for every ranking."""
    return tuple(_line(one.ranking) for one in report.rankings)


def _line(ranking: Ranking) -> Line:
    best = ranking.teachers[0]
    return Line(
        student=ranking.student,
        reward=ranking.reward_source or "none",
        winner=best.teacher,
        p_best=chance(best.p_best),
        runner_up=ranking.teachers[1].teacher if len(ranking.teachers) > 1 else "",
        doubt="" if (claim := ranking.verdict().claim) is Claim.FIRST else claim.replace("_", " "),
    )


def _hopes(ranking: Ranking) -> tuple[Hope, ...]:
    roles = ("leads", "runner-up")
    pairs = zip(ranking.teachers, roles, strict=False)
    return tuple(Hope(r.teacher, role, chance(r.p_best), r.p_best) for r, role in pairs)


def _beats(ranking: Ranking) -> str:
    if len(ranking.teachers) < 2:
        return ""
    probability = chance(ranking.teachers[1].p_leader_beats)
    return (
        f"The leader is better than the runner-up with probability {probability}. {limits(ranking)}"
    )


def _why(ranking: Ranking) -> tuple[str, ...]:
    """Return the leader's measures that its metric is made of, each with its place among all teachers."""
    needs = ranking.metrics[ranking.by].needs
    return tuple(_placed(ranking, name) for name in needs if name in ranking.teachers[0].estimates)


def _placed(ranking: Ranking, name: str) -> str:
    values = [_value(result, name) for result in ranking.teachers]
    mine, direction = values[0], better(ranking, name)
    known = [value for value in values if math.isfinite(value)]
    ahead = sum(value > mine if direction == "higher" else value < mine for value in known)
    end = {"higher": " highest", "lower": " lowest"}.get(direction, "")
    place = "" if not end else f"{'' if ahead == 0 else ordinal(ahead + 1)}{end}".strip()
    words = f", {place} of {len(known)}" if place else ""
    title = _MEANINGS.get(name, name)
    return f"{title} {number(mine)}{_UNITS.get(name, '')}{words}"


def _value(result: TeacherResult, name: str) -> float:
    estimate = result.estimates.get(name)
    return math.nan if estimate is None else estimate.value


def _unchanged(ranked: RankingData) -> str:
    if ranked.changes:
        rest = len(ranked.tried) - len(ranked.changes)
        if rest == 1:
            return "The one other setting that was tried keeps the winner."
        return f"{rest} other settings that were tried keep the winner." if rest > 0 else ""
    if not ranked.tried:
        return "No other settings were tried."
    return f"Nothing that was tried: the same teacher wins under {', '.join(ranked.tried)}."


def _cost(ranked: RankingData) -> str:
    tokens = ranked.tokens.get(ranked.ranking.teachers[0].teacher)
    return "Not known" if tokens is None else f"{tokens:,.0f} tokens per response"


def _cost_notes(ranked: RankingData) -> tuple[str, ...]:
    if not ranked.tokens:
        return ("No token counts were kept.",)
    teachers = [result.teacher for result in ranked.ranking.teachers]
    notes = []
    if len(teachers) > 1 and teachers[1] in ranked.tokens:
        notes.append(f"Runner-up {ranked.tokens[teachers[1]]:,.0f}")
    known = [tokens for name in teachers if (tokens := ranked.tokens.get(name)) is not None]
    if len(known) > 2:
        notes.append(f"all teachers {sum(known) / len(known):,.0f} on average")
    return (f"{', '.join(notes)}." if notes else "", "By the student's tokenizer.")


def settings_of(settings: Mapping[str, object]) -> tuple[Setting, ...]:
    """Return settings one by one, what is nested as indented JSON; what is unset is left out."""
    found = []
    for name, raw in settings.items():
        value = plain(raw)
        if value is None or value == [] or value == {}:
            continue
        if isinstance(value, Mapping) or (
            isinstance(value, Sequence) and not isinstance(value, str)
        ):
            text = json.dumps(value, ensure_ascii=False, indent=1)
            found.append(Setting(name, text, True))
        else:
            found.append(Setting(name, str(value), False))
    return tuple(found)


def record_lines(trust: Trust | None) -> tuple[RecordLine, ...]:
    """Return the record of every metric formed, and of teachers' records, on this kind of data."""
    records = [Record(**one) for one in trust.records] if trust else []
    form = form_of(one.regret for one in records if one.regret is not None)
    return tuple(_record_line(one, form) for one in records)


def _record_line(one: Record, form: Callable[[float], str]) -> RecordLine:
    notes = {
        "chosen on this study": one.in_sample,
        f"read by {one.reader}": bool(one.reader),
        "interval by formula": one.printed,
    }
    return RecordLine(
        metric=one.metric,
        study=one.study,
        size=f"{one.teachers} x {one.students}",
        rho=f"{one.rho:.2f}",
        interval="none" if one.low is None else f"{one.low:.2f} to {one.high:.2f}",
        regret="" if one.regret is None else form(one.regret),
        note="; ".join(note for note, holds in notes.items() if holds),
    )


def diversity_lines(ranking: Ranking) -> tuple[DiversityLine, ...]:
    """Return every teacher's diversity, in the order of the ranking; nothing where nobody looked."""
    seen = [one.distinct_2 for one in ranking.diversity.values() if one.distinct_2 is not None]
    distinct = alike(form_of(seen))
    return tuple(
        DiversityLine(
            teacher=name,
            distinct=distinct(one.distinct_2),
            bigrams=f"{one.bigrams:,}",
            near=ABSENT if one.near_duplicates is None else f"{one.near_duplicates:.1%}",
            responses=f"{one.responses:,}",
        )
        for name in ranking.order
        if (one := ranking.diversity.get(name)) is not None
    )


def agreement_lines(table: AgreementTable) -> tuple[AgreementLine, ...]:
    """Return every metric's mean agreement over the students, or each by itself where none has a meaning."""
    named = row_labels(table)
    rho, regret = alike("{:.3f}".format), alike(form_of(one.regret for one in table.summary))
    return tuple(
        AgreementLine(
            metric=one.column
            if one.student is None
            else f"{one.column}: {named.get(one.student, one.student)}",
            better="higher" if table.comparison.column(one.column).higher_is_better else "lower",
            rho=rho(one.rho),
            interval=f"{rho(one.ends.low)} to {rho(one.ends.high)}"
            if math.isfinite(one.ends.low)
            else f"none below {FEWEST_FOR_INTERVAL} teachers",
            adjusted=p_value(one.permutation.adjusted)
            if math.isfinite(one.permutation.adjusted)
            else "none",
            regret=regret(one.regret),
        )
        for one in table.summary
    )
