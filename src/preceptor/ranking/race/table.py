"""A race as text: the verdict, a line for each teacher, what it took; and a few lines at every look."""

import textwrap
from collections.abc import Iterator, Sequence

from preceptor.errors import counted
from preceptor.ranking.metrics import METRICS
from preceptor.ranking.race.look import Look
from preceptor.ranking.race.result import Amounts, Racer, RaceResult
from preceptor.ranking.race.verdict import percent
from preceptor.ranking.table import Column, aligned, number, printable
from preceptor.ranking.verdict import several
from preceptor.types import Estimate


def plain_text(race: RaceResult, *, width: int = 80) -> str:
    """Return verdict, table, cost and warnings as text of at most so many columns."""
    above = [race.verdict().text, *([f"Rewards: {race.reward}."] if race.reward else [])]
    below = [*footnotes(race), *(f"Warning: {warning}" for warning in race.warnings)]
    return "\n".join(
        [
            *(textwrap.fill(printable(one), width) for one in above),
            "",
            *table_lines(race, width=width),
            "",
            *(textwrap.fill(printable(one), width) for one in below),
        ]
    )


def table_lines(race: RaceResult, *, width: int) -> list[str]:
    """Return the heading, a rule and a line for each teacher; a line holds breaks where a name is folded."""
    return aligned(list(_columns(race)), width=width, folded=1)


def _columns(race: RaceResult) -> Iterator[Column]:
    racers, names = race.racers, [one.teacher for one in race.racers]
    yield Column("", tuple(str(place) for place in range(1, len(racers) + 1)))
    yield Column("teacher", tuple(map(printable, names)), left=True)
    yield Column(printable(race.by), tuple(number(one.value) for one in racers))
    yield Column("behind the leader", tuple(_behind(one) for one in racers))
    yield Column("prompts", tuple(f"{one.rows:,}" for one in racers))
    beaten = [one.beaten_by for one in racers]
    by = ("" if one is None else f"by {names.index(one) + 1}" for one in beaten)
    yield Column("beaten", tuple(by))


def _behind(one: Racer) -> str:
    return "" if one.behind is None else _interval(one.behind)


def _interval(gap: Estimate) -> str:
    return f"{number(gap.value)} [{number(gap.low)}, {number(gap.high)}]"


def footnotes(race: RaceResult) -> list[str]:
    """Return the lines below the table, without the warnings."""
    spent, full = race.spent, race.full
    lines = [
        f"Each teacher's numbers are those of its last look; [bounds] hold at every look together with "
        f"{percent(race)} confidence (asymptotic).",
        f"{race.leader.teacher} was selected as the leader, so that its {race.by} of "
        f"{number(race.leader.value)} is likely to be a little too good.",
        f"Spent: {worded(spent)}; of {worded(full)} for all {race.rows:,} prompts to all teachers.",
    ]
    open_ = ["the error of the rewards"] if "reward" in race.metric.needs else []
    open_ += ["prompts of another kind"] if race.options.target == "population" else []
    open_ += [f"how well {race.by} foretells fine-tuning"] if race.by in METRICS else []
    return [*lines, f"The confidence does not cover {', nor '.join(open_)}."]


def worded(amounts: Amounts) -> str:
    """Return amounts in words, without what is not known."""
    parts = [
        counted(amounts.responses, "response"),
        counted(amounts.tokens, "token"),
    ]
    if amounts.judge_tokens is not None:
        parts.append(f"{amounts.judge_tokens:,} tokens of judges")
    if amounts.money is not None:
        parts.append(_money(amounts, amounts.money))
    if amounts.seconds is not None:
        parts.append(f"{amounts.seconds:,.0f} s")
    return ", ".join(parts)


def _money(amounts: Amounts, money: float) -> str:
    """Return the money in words, with who is not in it."""
    notes = [f"{amounts.judge_money:,.4g} of it for judges"] if amounts.judge_money else []
    if amounts.unpriced:
        notes.append(f"without {several(amounts.unpriced, 'and')}, for want of a price")
    return f"{money:,.4g} USD" + (f" ({'; '.join(notes)})" if notes else "")


def look_lines(look: Look, *, of: int, by: str, took: Amounts, width: int = 80) -> list[str]:
    """Return what is shown at a look: who leads, who is how far behind, who left and why, what it took."""
    names = [name for name in look.values if name not in look.dropped]
    lines = [
        f"{counted(look.rows, 'prompt')}: {len(names)} of {of} remain by {by}; {worded(took)}",
        f"  {look.leader} leads with {number(look.values[look.leader])}",
        *(f"  {name} behind by {_interval(look.behind[name])}" for name in _near(names, look)),
        *(f"  {name} is dropped: {why} is better" for name, why in look.dropped.items()),
    ]
    return [
        part
        for line in lines
        for part in textwrap.wrap(printable(line), width, subsequent_indent="    ")
    ]


def _near(names: Sequence[str], look: Look) -> list[str]:
    rivals = [name for name in names if name != look.leader]
    return sorted(rivals, key=lambda name: look.behind[name].value)
