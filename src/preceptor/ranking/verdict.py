"""What a ranking says in one or two sentences: who is best and how sure that is, or that nobody is.

It names one teacher only where the bootstrap does, and recommends none where neither the student nor the
quality of responses was looked at.
"""

from preceptor.ranking.places import Places

CLEAR = 0.95
"""From this P(best) on the verdict states the winner; from PROBABLE on it says probably."""

PROBABLE = 0.8
"""Below this P(best) there is no clear winner."""

COVERED = 0.9
"""Without a clear winner, candidates are named until their P(best) add up to this."""

UNFOUNDED = frozenset({"length", "perplexity_gpt2", "ifd_gpt2"})
"""Measures that look neither at the student nor at the quality of responses."""

_OF_NO_STUDENT = UNFOUNDED | {"reward"}
"""Measures that are the same whatever the student is."""


def verdict(ranking: Places) -> str:
    """Return which teacher is best and how sure that is.

    Below a P(best) of 0.8 it says that there is no clear winner and names the candidates: the fewest
    teachers whose P(best) add up to 0.9, the leader among them. A student is named only where the order
    looks at one.
    """
    best = ranking.best
    basis = f"by {ranking.by} over {best.n} of {ranking.instructions} instructions"
    if len(ranking.teachers) == 1:
        return f"{best.teacher} is the only teacher for {ranking.student}: nothing to compare."
    if _rests_on(ranking, UNFOUNDED):
        return (
            f"The teachers are ordered {basis}, {best.teacher} first. This is no recommendation: "
            f"{ranking.by} looks neither at the base model nor at the quality of the responses. "
            "Give a student or a source of rewards."
        )
    whose, limits = f" for {ranking.student}", ""
    if _rests_on(ranking, _OF_NO_STUDENT):
        whose, limits = "", " This order looks at no base model; one by car does."
    if best.p_best < PROBABLE:
        return (
            f"No clear winner{whose}: {_candidates(ranking)} ({basis}). "
            f"{best.teacher} leads with P(best) {percent(best.p_best)}{_rival(ranking)}.{limits}"
        )
    second = ranking.teachers[1]
    sure = "is" if best.p_best >= CLEAR else "is probably"
    return (
        f"{best.teacher} {sure} the best teacher{whose}, P(best) "
        f"{percent(best.p_best)} {basis}. It beats the runner-up {second.teacher} with "
        f"probability {percent(second.p_leader_beats or 0.0)}.{limits}"
    )


def percent(probability: float) -> str:
    """Return a probability as whole percent; a finite number of draws never shows 0% or 100%."""
    if probability > 0.99:
        return "over 99%"
    if probability < 0.01:
        return "under 1%"
    return f"{probability:.0%}"


def _rests_on(ranking: Places, measures: frozenset[str]) -> bool:
    """Tell whether what orders is made of these measures alone."""
    needs = ranking.metrics[ranking.by].needs
    return bool(needs) and measures.issuperset(needs)


def _rival(ranking: Places) -> str:
    """Return who is the best in more draws than the leader: wide intervals can do that."""
    rival = max(ranking.teachers, key=lambda result: result.p_best)
    shares = [percent(result.p_best) for result in (rival, ranking.best)]
    if shares[0] == shares[1]:
        return ""
    return f", though {rival.teacher} is best in more of the draws ({shares[0]})"


def _candidates(ranking: Places) -> str:
    best, *others = ranking.teachers
    names, covered = [best.teacher], best.p_best
    for result in sorted(others, key=lambda result: -result.p_best):
        if covered >= COVERED and len(names) > 1:
            break
        names.append(result.teacher)
        covered += result.p_best
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} others"]
    return f"{', '.join(names[:-1])} or {names[-1]}"
