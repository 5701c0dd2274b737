"""What a ranking lets one say: a claim, the teacher it is about, the reasons against more, and a sentence.

One function listens to everything: P, the size of the sample, and every warning by its code. A claim is never
stronger than the weakest of these, and says which it was.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from preceptor.ranking.metrics import METRICS
from preceptor.ranking.places import MIN_PROMPTS, MOST_PROMPTS, Cap, Category, Places, TeacherResult
from preceptor.types import Code, Warning

PROBABLE = 0.8
"""From this P(first) on the leader is probably first; below it there is no clear winner."""

LEVEL = 0.05
"""At most so often is a best teacher of any category named where all are equal."""

_UNCOUNTED = " without their reasoning, of which no counts are known"

LEAST_REGRET = 0.0005
"""A regret of less than this share of the leader's value is not worth a sentence."""

MANY_CUT = 0.05
"""A leader of whose responses more than this share was read to the maximum length alone only leads so far."""

UNFOUNDED = frozenset({"length", "perplexity_gpt2", "ifd_gpt2"})
"""Measures that look neither at the student nor at the quality of responses."""

OF_NO_STUDENT = UNFOUNDED | {"reward"}
"""Measures that are the same whatever the student is."""


class Claim(StrEnum):
    """How much is said of the teacher that comes first."""

    NO_RECOMMENDATION = "no_recommendation"
    NO_CLEAR_WINNER = "no_clear_winner"
    LEADS_SO_FAR = "leads_so_far"
    EQUAL = "equal"
    PROBABLY_FIRST = "probably_first"
    FIRST = "first"


@dataclass(frozen=True)
class Verdict:
    """What may be said of a ranking; `teacher` leads it, `reasons` are why no more is claimed.

    `record` says in one line what the metric that orders has been worth, "" where nobody looked.
    """

    claim: Claim
    teacher: str
    reasons: tuple[Warning, ...]
    text: str
    record: str = ""

    def __str__(self) -> str:
        return self.text


AGAINST: dict[Code, Claim] = {
    "looks-like-noise": Claim.NO_RECOMMENDATION,
    "made-up": Claim.NO_RECOMMENDATION,
    "negative-reward": Claim.NO_RECOMMENDATION,
    "no-reward": Claim.NO_RECOMMENDATION,
    "chosen-by-own-reward": Claim.LEADS_SO_FAR,
    "failures": Claim.LEADS_SO_FAR,
    "missing-scores": Claim.LEADS_SO_FAR,
    "broken-off": Claim.LEADS_SO_FAR,
    "rough-interval": Claim.LEADS_SO_FAR,
    "winner-changes": Claim.LEADS_SO_FAR,
    "metrics-disagree": Claim.LEADS_SO_FAR,
    "one-study": Claim.LEADS_SO_FAR,
    "few-prompts": Claim.LEADS_SO_FAR,
    "skewed": Claim.LEADS_SO_FAR,
    "few-values": Claim.LEADS_SO_FAR,
    "cut-off": Claim.LEADS_SO_FAR,
}
"""The most that may be claimed beside a warning that bears on the leader."""


def verdict_of(ranking: Places) -> Verdict:
    """Return what may be said of the teacher that comes first.

    No winner is named where P(first) is below 0.8, the sample is small, the winner changes with a setting
    that could as well have been chosen, or the leader was chosen by the reward that ranks it. Where metrics
    with a good record name different teachers, that comes first. Nobody is
    recommended where the order rests on no reward, CAR has no meaning, or the leader looks like noise.
    """
    reasons = tuple(_reasons(ranking))
    claim = _claim(ranking, reasons)
    apart = [one.text for one in reasons if one.code == "metrics-disagree"]
    said = (
        [_unrecommended(ranking, reasons)]
        if claim is Claim.NO_RECOMMENDATION
        else [_named(ranking, claim, reasons), *_beside(ranking, claim)]
    )
    record = ranking.trust.record if ranking.trust else ""
    return Verdict(claim, ranking.best.teacher, reasons, " ".join([*apart, *said]), record)


def claim_in(ranking: Places, category: Category) -> tuple[Claim, tuple[str, ...]]:
    """Return what may be said of the teacher that leads a category, and in clauses why no more.

    Never more than of a ranking's leader: nobody is named where nobody is recommended, and what would keep a
    teacher from being named first of all keeps it from being named here.
    """
    if category.best is None or verdict_of(ranking).claim is Claim.NO_RECOMMENDATION:
        return Claim.NO_RECOMMENDATION, ()
    if category.p_adjusted is None or category.p_adjusted > LEVEL:
        return Claim.NO_CLEAR_WINNER, ()
    teacher, close = category.best, {category.best, category.rival or ""}
    bearing = [one for one in ranking.warnings if _bears(one, ranking, teacher, close)]
    clauses = map(shortly, [*bearing, *_cut(ranking[teacher])])
    against = tuple(dict.fromkeys([*category.against, *clauses]))
    return (Claim.LEADS_SO_FAR if against else Claim.FIRST), against


def percent(probability: float) -> str:
    """Return a probability as whole percent; a finite number of draws never shows 0% or 100%."""
    if probability > 0.99:
        return "over 99%"
    if probability < 0.01:
        return "under 1%"
    return f"{probability:.0%}"


def limits(ranking: Places) -> str:
    """Return in one line what P does not cover."""
    needs = ranking.metrics[ranking.by].needs
    open_ = ["prompts of another kind"]
    if "reward" in needs or "reward_share" in needs:
        open_.insert(0, "the error of the rewards")
    if ranking.by in METRICS:
        open_.append(f"how well {ranking.by} foretells fine-tuning")
    covered = "which prompts were drawn"
    if ranking.settings.get("run_deviation") is not None:
        covered += " and which runs were made"
    elif ranking.settings.get("runs") == 1:
        open_.append("another run of fine-tuning")
    return f"P covers {covered}, and nothing else: not {', nor '.join(open_)}."


def _reasons(ranking: Places) -> Iterator[Warning]:
    """Yield what bears on the leader and keeps the claim down, the gravest first."""
    best = ranking.best
    if len(ranking) == 1:
        yield Warning("nothing-to-compare", "there is one teacher")
    close = {*ranking.order[:2], *ranking.evidence.contenders}
    found = [one for one in ranking.warnings if _bears(one, ranking, best.teacher, close)]
    yield from sorted(found, key=lambda one: list(AGAINST).index(one.code))
    if _rests_on(ranking, UNFOUNDED) and not found:
        yield Warning("no-reward", "neither the base model nor a reward was looked at")
    if ranking.stability is not None and (parts := ranking.stability.against()):
        yield Warning("winner-changes", "; ".join(parts))
    if (cap := ranking.evidence.cap) is not None:
        yield Warning(cap, CAPS[cap].format(n=best.n, effective=ranking.evidence.effective_n))
    yield from _cut(best)


def _cut(result: TeacherResult) -> Iterator[Warning]:
    if result.truncated > MANY_CUT * result.n:
        yield Warning("cut-off", f"{result.truncated} of its responses were cut", (result.teacher,))


def _bears(warning: Warning, ranking: Places, teacher: str, close: Set[str]) -> bool:
    """Tell whether a warning keeps down what is claimed of a teacher: by its kind, and whom it is about.

    `close` are it and its nearest rivals.
    """
    if warning.code == "negative-reward":
        return ranking.by == "car"
    # A lead is as rough as either of its ends.
    about = close if warning.code == "rough-interval" else {teacher}
    return warning.code in AGAINST and (not warning.teachers or bool(about & {*warning.teachers}))


_SHORT: dict[Code, str] = {
    "chosen-by-own-reward": "it was chosen by the reward that ranks it",
    "cut-off": "many of its responses were cut off",
    "failures": "some of its answers were empty or refused, and their prompts are left out for everyone",
    "missing-scores": "scores that are missing chose the prompts",
    "broken-off": "a filter or an error ended some of its answers",
    "metrics-disagree": "metrics with a good record disagree",
    "one-study": "rsr has a record in one study, on which it was tuned",
    "rough-interval": "its interval or its rival's is rough",
}
"""How a sentence names a warning that stands in full below the table."""


def shortly(reason: Warning) -> str:
    """Return a warning as a clause of a sentence."""
    return _SHORT.get(reason.code) or (reason.text[0].lower() + reason.text[1:]).rstrip(".")


CAPS: dict[Cap, str] = {
    "few-prompts": f"{{n}} prompts are fewer than {MIN_PROMPTS}",
    "skewed": "a few responses decide, so that {n} prompts are worth {effective:.0f}",
    "few-values": "nearly all responses have the same value",
}
"""Why a sample is too small, whatever P says."""


def _claim(ranking: Places, reasons: tuple[Warning, ...]) -> Claim:
    most = [AGAINST.get(reason.code, Claim.NO_RECOMMENDATION) for reason in reasons]
    if Claim.NO_RECOMMENDATION in most:
        return Claim.NO_RECOMMENDATION
    if ranking.best.p_best < PROBABLE:
        return Claim.NO_CLEAR_WINNER
    if most:
        return Claim.LEADS_SO_FAR
    return Claim.FIRST if ranking.evidence.named else Claim.PROBABLY_FIRST


def _basis(ranking: Places) -> str:
    """Return P(first) and what it rests on."""
    best = ranking.best
    limit, whole = ranking.settings.get("limit"), ranking.settings.get("instructions_in_data")
    of = (
        f"{whole} prompts (--limit {limit})"
        if limit and whole
        else f"{ranking.instructions} prompts"
    )
    return f"P(first by {ranking.by}) {percent(best.p_best)} on {best.n} of {of}"


def _whose(ranking: Places) -> str:
    return "" if _rests_on(ranking, OF_NO_STUDENT) else f" for {ranking.student}"


def _rests_on(ranking: Places, measures: frozenset[str]) -> bool:
    """Tell whether what orders is made of these measures alone."""
    needs = ranking.metrics[ranking.by].needs
    return bool(needs) and measures.issuperset(needs)


def _named(ranking: Places, claim: Claim, reasons: tuple[Warning, ...]) -> str:
    """Return the first sentence of a claim about the leader."""
    best, by = ranking.best.teacher, f"by {ranking.by}{_whose(ranking)}"
    if claim is Claim.NO_CLEAR_WINNER:
        among = several(ranking.evidence.contenders or ranking.order, "or")
        tied = [one.teacher for one in ranking if one.rank == 1]
        leads = (
            f"{best} leads" if len(tied) == 1 else f"{several(tied, 'and')} share the first place"
        )
        return f"No clear winner {by}: {among}. {leads}, {_basis(ranking)}."
    if claim is Claim.LEADS_SO_FAR:
        why = "; ".join(dict.fromkeys(map(shortly, reasons)))
        return f"{best} leads so far {by}: {_basis(ranking)}. No winner is named: {why}."
    sure = "is" if claim is Claim.FIRST else "is probably"
    return f"{best} {sure} first {by}: {_basis(ranking)}."


def _unrecommended(ranking: Places, reasons: tuple[Warning, ...]) -> str:
    """Return why nobody is recommended, the gravest reason first."""
    best, first = ranking.best.teacher, reasons[0]
    tied = [one.teacher for one in ranking if one.rank == 1]
    alone = len(tied) == 1
    leads = f"{best} comes first" if alone else f"{several(tied, 'and')} share the first place"
    if first.code == "nothing-to-compare":
        return f"{best} is the only teacher for {ranking.student}: nothing to compare."
    if first.code != "no-reward":
        return f"{first.text} {leads} by {ranking.by} all the same; nobody is recommended."
    if _rests_on(ranking, UNFOUNDED):
        return (
            f"{leads} by {ranking.by} on {ranking.best.n} of {ranking.instructions} prompts. This "
            f"is no recommendation: {ranking.by} looks neither at the base model nor at the quality of the "
            "responses. Give a student or a source of rewards."
        )
    return (
        f"{f'{best} ranks first' if alone else leads} by {ranking.by} (exploratory, no reward)"
        f"{_whose(ranking)}: {_basis(ranking)}. "
        "This is no recommendation."
    )


def _beside(ranking: Places, claim: Claim) -> Iterator[str]:
    """Yield what stands beside a claim: who else it may be, what the leader risks, what would settle it."""
    found, best = ranking.evidence, ranking.best
    if ranking.by != "car" and any(one.code == "negative-reward" for one in ranking.warnings):
        yield f"CAR has no meaning with these rewards: the order is by {ranking.by}."
    if claim in (Claim.PROBABLY_FIRST, Claim.LEADS_SO_FAR) and len(found.contenders) > 1:
        yield f"The first may also be {several(found.contenders[1:], 'or')}."
    value = abs(best.estimates[ranking.by].value)
    if found.regret > LEAST_REGRET * value:
        share = f", {found.regret / value:.1%}" if value > 0 else ""
        yield f"Taking it may cost {found.regret:.2g} of {ranking.by}{share} (expected regret)."
    if claim is not Claim.FIRST and found.contenders and found.more_prompts != 0:
        yield _settled_by(ranking, found.more_prompts)


def _settled_by(ranking: Places, prompts: int | None) -> str:
    """Return about how many more prompts would settle it, and what their responses would cost."""
    if prompts is None and ranking.best.n < MIN_PROMPTS:
        return "How many more prompts would settle it cannot be said from so few."
    if prompts is None:
        return f"More prompts would hardly settle it: over {MOST_PROMPTS:,}, or any number."
    # One contender alone has still to be told from the others.
    among = ranking.evidence.contenders if len(ranking.evidence.contenders) > 1 else ranking.order
    asked = [one for one in ranking if one.teacher in among]
    name = next((n for n in ("tokens", "length") if n in ranking.best.estimates), None)
    cost = ""
    if name is not None:
        means = {one.teacher: one.estimates[name].value for one in asked}
        known = ranking.settings.get("generated_tokens")
        counted = (
            {t: n for t, n in known.items() if t in means} if isinstance(known, Mapping) else {}
        )
        tokens = {teacher: prompts * mean for teacher, mean in (means | counted).items()}
        traces = (
            "" if len(counted) == len(means) or not _without_traces(ranking, name) else _UNCOUNTED
        )
        cost = (
            f", about {sum(tokens.values()):,.0f} response tokens{traces}{_money(ranking, tokens)}"
        )
    further, whom = _count(prompts, "more prompt"), _count(len(asked), "teacher")
    return f"About {further} to {whom} would settle it{cost}."


def _without_traces(ranking: Places, name: str) -> bool:
    """Tell whether responses have reasoning traces that this measure of their length leaves out."""
    reading = ranking.settings.get("reading")
    cut = isinstance(reading, Mapping) and reading.get("reasoning") == "cut"
    return bool(ranking.settings.get("traces")) and (name == "length" or cut)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _money(ranking: Places, tokens: Mapping[str, float]) -> str:
    """Return what these tokens cost, where prices of a million are known."""
    prices = ranking.settings.get("prices")
    known = {t: prices[t] for t in tokens if t in prices} if isinstance(prices, Mapping) else {}
    if not known:
        return ""
    money = sum(price * tokens[teacher] for teacher, price in known.items()) / 1e6
    amount = f"{money:,.2f}" if money >= 0.01 else "under 0.01"
    return f", {'' if len(known) == len(tokens) else 'at least '}{amount} USD"


def several(names: Sequence[str], joined: str) -> str:
    """Return names in a sentence; of many the first three."""
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} others"]
    return f" {joined} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
