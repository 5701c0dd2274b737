"""What a race lets one say: a statement that holds whenever it stopped, or who is left and may be better."""

from collections.abc import Iterator

from preceptor.ranking.places import MIN_PROMPTS
from preceptor.ranking.race.result import Racer, RaceResult
from preceptor.ranking.verdict import (
    AGAINST,
    OF_NO_STUDENT,
    UNFOUNDED,
    Claim,
    Verdict,
    several,
    shortly,
)
from preceptor.types import Warning

_CLAIMS = {
    "best": Claim.FIRST,
    "equal": Claim.EQUAL,
    "budget": Claim.NO_CLEAR_WINNER,
    "rows": Claim.NO_CLEAR_WINNER,
}
_WHY = {
    "budget": "the budget is spent",
    "rows": "all prompts are seen",
}


def verdict_of(race: RaceResult) -> Verdict:
    """Return what may be said of a race that has ended.

    What stands against a ranking's leader stands against a race's: nobody is recommended without a reward, or
    where CAR has no meaning; the leader only leads where many of its answers failed.
    """
    chosen = race.choice[0].teacher
    reasons = tuple(_reasons(race))
    most = [AGAINST.get(one.code, Claim.NO_RECOMMENDATION) for one in reasons]
    claim = _CLAIMS[race.ending]
    record = race.trust.record if race.trust else ""
    if Claim.NO_RECOMMENDATION in most:
        claim = Claim.NO_RECOMMENDATION
        return Verdict(claim, chosen, reasons, _unrecommended(race, reasons[0]), record)
    text = _statement(race)
    if most and claim is not Claim.NO_CLEAR_WINNER:
        claim = Claim.LEADS_SO_FAR
        why = "; ".join(dict.fromkeys(map(shortly, reasons)))
        text = (
            f"{race.leader.teacher} leads so far by {race.by}{_whose(race)} after {_seen(race)}. No winner "
            f"is named: {why}."
        )
    return Verdict(claim, chosen, reasons, text, record)


def sure(race: RaceResult) -> str:
    """Return how sure what a race says is, and of what."""
    bounds = "asymptotic" if race.options.method == "asymptotic" else "exact"
    where = (
        "prompts like these"
        if race.options.target == "population"
        else f"these {race.rows:,} prompts"
    )
    return f"for {where}: with {percent(race)} confidence, whenever the race stopped ({bounds})"


def percent(race: RaceResult) -> str:
    """Return the confidence as percent."""
    return f"{100 * race.options.confidence:.4g}%"


def _reasons(race: RaceResult) -> Iterator[Warning]:
    """Yield what bears on who is chosen and keeps the claim down, the gravest first."""
    chosen = race.choice[0]
    if len(race.racers) == 1:
        yield Warning("nothing-to-compare", "there is one teacher")
    about = {chosen.teacher, race.leader.teacher}
    found = [
        one
        for one in race.warnings
        if one.code in AGAINST and (not one.teachers or about & {*one.teachers})
        if one.code != "negative-reward" or race.by == "car"
    ]
    yield from sorted(found, key=lambda one: list(AGAINST).index(one.code))
    if UNFOUNDED.issuperset(race.metric.needs) and not found:
        yield Warning("no-reward", "neither the base model nor a reward was looked at")
    if chosen.n < MIN_PROMPTS:
        yield Warning("few-prompts", f"{chosen.n} prompts are fewer than {MIN_PROMPTS}")


def _statement(race: RaceResult) -> str:
    by, leader = f"{race.by}{_whose(race)}", race.leader.teacher
    if race.ending == "best":
        return f"{leader} is the best teacher by {by} {sure(race)}. Known after {_seen(race)}."
    names = [one.teacher for one in race.left]
    if race.ending == "equal":
        chosen, why = race.choice
        return (
            f"{several(names, 'and')} are equal by {by}, within {race.options.tolerance:.3g} of the best, "
            f"{sure(race)}. {chosen.teacher} is recommended{_cheapest(chosen, why)}. Known after "
            f"{_seen(race)}."
        )
    return (
        f"No winner by {by}: {several(names, 'or')} {'is' if len(names) == 1 else 'are'} left after "
        f"{_seen(race)}, because {_WHY[race.ending]}. {leader} leads, and may still be behind: "
        f"{_open(race)} ({percent(race)} confidence at every look)."
    )


def _open(race: RaceResult) -> str:
    """Return by how much those who are left may still be better than the leader."""
    value, parts = abs(race.leader.value), []
    for one in race.left[1:]:
        assert one.behind is not None
        most = max(0.0, -one.behind.low)
        share = f" ({most / value:.1%})" if value > 0 and most < float("inf") else ""
        parts.append(f"{one.teacher} by up to {most:.3g}{share}")
    return "; ".join(parts)


def _cheapest(chosen: Racer, why: str | None) -> str:
    if why == "price" and chosen.cost is not None:
        return f" because it costs least ({1000 * chosen.cost:.3g} USD for 1,000 responses)"
    if why == "tokens":
        return f" because its responses are the shortest ({chosen.tokens:,.0f} tokens on average)"
    if why == "licence":
        return f" for its licence ({chosen.licence})"
    return ", the first of them; they cost the same"


def _whose(race: RaceResult) -> str:
    return "" if OF_NO_STUDENT.issuperset(race.metric.needs) else f" for {race.student}"


def _seen(race: RaceResult) -> str:
    return f"{race.leader.rows:,} of {race.rows:,} prompts"


def _unrecommended(race: RaceResult, first: Warning) -> str:
    """Return why nobody is recommended."""
    leader = race.leader.teacher
    if first.code == "nothing-to-compare":
        return f"{leader} is the only teacher for {race.student}: nothing to compare."
    if first.code != "no-reward":
        return (
            f"{first.text} {leader} comes first by {race.by} all the same; nobody is recommended."
        )
    return (
        f"{leader} ranks first by {race.by} (exploratory, no reward){_whose(race)}, after {_seen(race)}. "
        "This is no recommendation."
    )
