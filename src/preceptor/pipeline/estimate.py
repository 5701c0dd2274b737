"""What a study would take, found out without computing, asking or paying for anything.

Expected tokens, time and money rest on what the store already holds, and say so; where it holds nothing, on
this machine's speed and on a stated assumption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from preceptor.config.base import Machine
from preceptor.config.study import Study
from preceptor.data.gather import Source
from preceptor.pipeline import plan
from preceptor.pipeline.generate import Inquiry
from preceptor.pipeline.load import Opened, find_models, open_data, source_of
from preceptor.pipeline.rank import steps_of, students_of
from preceptor.pipeline.score import Amount, Silent, amount_of
from preceptor.pipeline.sources import GeneratedSource
from preceptor.store.store import Costs, ResponseShelf, Store
from preceptor.teachers.base import Ask, Responder
from preceptor.teachers.local import LocalTeacher
from preceptor.teachers.served import ServedTeacher

ASSUMED_TOKENS = 500
"""Tokens of a response where nothing is stored; a teacher's `max_tokens` bounds it."""

_CHARACTERS_PER_TOKEN = 4
_ENOUGH = 5


@dataclass(frozen=True)
class StepOutlook:
    """What one step of scoring would take."""

    student: str
    step: str
    identity: str
    stored: int
    missing: Amount


@dataclass(frozen=True)
class AskOutlook:
    """What one teacher's missing responses would take.

    `prompt_tokens` and `tokens` are expected totals, `most_tokens` the bound by `max_tokens`; `seconds` and
    `money` (in the currency of the endpoint's prices) are None where unknown. `basis` says what the figures
    rest on.
    """

    teacher: str
    sampling: str
    identity: str
    stored: int
    missing: int
    prompt_tokens: int
    tokens: int
    most_tokens: int
    seconds: float | None
    money: float | None
    most_money: float | None
    basis: str


@dataclass(frozen=True)
class Outlook:
    """The whole: teachers to ask, and steps of scoring.

    While responses are missing `data` is empty, and `later` names the steps that will follow on them.
    """

    source: Source
    data: Sequence[Opened]
    asks: Sequence[AskOutlook]
    steps: Sequence[StepOutlook]
    later: Sequence[str]


def outlook(study: Study, machine: Machine) -> Outlook:
    """Return what running the study would take.

    Raises:
        PreceptorError: the study cannot be run as it stands.
    """
    source = source_of(study, machine)
    asks: list[AskOutlook] = []
    if isinstance(source, GeneratedSource):
        asks = asks_of(source.inquiries, machine)
        references = bool(source.questions.references)
        find_models(study, machine, references=references)
        if any(ask.missing for ask in asks):
            return Outlook(source, (), asks, (), _later(study, machine, references=references))
    data = open_data(study, machine, Silent(), source=source, paying=False)
    return Outlook(source, data, asks, _steps(data, study, machine), ())


def _later(study: Study, machine: Machine, *, references: bool) -> list[str]:
    """Return the steps that follow once the responses are there."""
    found: dict[str, None] = {}
    rewards = plan.reward_sources(study, references=references)
    for reward, student in product(rewards, students_of(study)):
        planned = plan.for_student(study, machine, student, reward=reward)
        found |= dict.fromkeys(f"{planned.name}, {scorer.name}" for scorer in planned.scorers)
    return list(found)


def _steps(data: Sequence[Opened], study: Study, machine: Machine) -> list[StepOutlook]:
    found: dict[tuple[str, str], StepOutlook] = {}
    for opened, student in product(data, students_of(study)):
        planned, steps = steps_of(opened, study, machine, student)
        for step in steps:
            identity = step.shelf.identity.digest
            if (planned.name, identity) in found:
                continue
            missing = step.missing(step.stored())
            texts = next(step.texts(missing), [])
            stored = len(opened.choice.distinct) - len(missing)
            work = amount_of(texts, missing=len(missing))
            found[planned.name, identity] = StepOutlook(
                planned.name, step.name, identity, stored, work
            )
    return list(found.values())


def asks_of(inquiries: Sequence[Inquiry], machine: Machine) -> list[AskOutlook]:
    """Return what each teacher would take; what two labels share is asked for under the first."""
    others = _mean_tokens(machine)
    claimed: dict[str, set[bytes]] = {}
    asks = []
    for inquiry in inquiries:
        lacking = inquiry.missing()
        taken = claimed.setdefault(inquiry.shelf.identity.digest, set())
        missing = [ask for ask in lacking if ask.key not in taken]
        taken.update(ask.key for ask in missing)
        stored = len(inquiry.wanted()) - len(lacking)
        asks.append(_ask(inquiry, missing, machine, stored=stored, others=others))
    return asks


def _ask(
    inquiry: Inquiry, missing: Sequence[Ask], machine: Machine, *, stored: int, others: float
) -> AskOutlook:
    responder = inquiry.responder
    sampling = responder.options.sampling
    own = inquiry.shelf.costs()
    tokens, basis = _expected(own, others, most=sampling.max_tokens)
    prompts = _prompt_tokens(missing, own, responder)
    pace, how = _pace(own, responder, machine) if missing else (None, "")
    total = round(tokens * len(missing))
    most = sampling.max_tokens * len(missing)
    return AskOutlook(
        teacher=inquiry.name,
        sampling=sampling.described(),
        identity=inquiry.shelf.identity.digest,
        stored=stored,
        missing=len(missing),
        prompt_tokens=prompts,
        tokens=total,
        most_tokens=most,
        seconds=total / pace if pace else None,
        money=_money(responder, prompts, total),
        most_money=_money(responder, prompts, most),
        basis="; ".join(part for part in (basis, how) if part and missing),
    )


def _expected(own: Costs, others: float, *, most: int) -> tuple[float, str]:
    """Return the tokens to expect of a response, and what that rests on."""
    if own.responses >= _ENOUGH and math.isfinite(own.tokens):
        return own.tokens, f"length by {own.responses:,} stored responses of this teacher"
    if math.isfinite(others):
        return min(others, most), "length by other teachers' stored responses"
    return min(ASSUMED_TOKENS, most), f"length assumed: {min(ASSUMED_TOKENS, most)} tokens"


def _mean_tokens(machine: Machine) -> float:
    """Return the mean length of all responses in the store; NaN where there are too few."""
    shelves = Store(machine.store).shelves()
    costs = [shelf.costs() for shelf in shelves if isinstance(shelf, ResponseShelf)]
    known = [one for one in costs if one.responses >= _ENOUGH and math.isfinite(one.tokens)]
    if not known:
        return math.nan
    return float(np.average([c.tokens for c in known], weights=[c.responses for c in known]))


def _prompt_tokens(missing: Sequence[Ask], own: Costs, responder: Responder) -> int:
    options = responder.options
    shared = options.sampling.samples_per_request
    # One of the samples of each request: they share its prompt.
    asked = {(ask.instruction.id, ask.sample // shared): ask.instruction for ask in missing}
    if own.responses >= _ENOUGH and math.isfinite(own.prompt_tokens):
        return round(own.prompt_tokens * len(asked))
    characters = sum(
        len(options.system) + sum(len(message.content) for message in instruction.messages)
        for instruction in asked.values()
    )
    return round(characters / _CHARACTERS_PER_TOKEN)


def _pace(own: Costs, responder: Responder, machine: Machine) -> tuple[float | None, str]:
    """Return tokens a second, and what that rests on."""
    if own.responses >= _ENOUGH and math.isfinite(own.tokens_per_second):
        return own.tokens_per_second, "time by their speed"
    pace = responder.fastest_pace(machine.batch) if isinstance(responder, LocalTeacher) else None
    return pace, "time at the machine's limit, so at least" if pace else ""


def _money(responder: Responder, prompts: int, tokens: int) -> float | None:
    if not isinstance(responder, ServedTeacher):
        return None
    price_in, price_out = responder.endpoint.price_in, responder.endpoint.price_out
    if price_in is None or price_out is None:
        return None
    return (prompts * price_in + tokens * price_out) / 1e6
