"""What a study would take, found out without computing, requesting or paying for anything.

Expected tokens, time and money rest on what the store already holds, and say so; where it holds nothing, on
this machine's speed and on a stated assumption.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.errors import StudyError, nearest
from preceptor.pipeline import plan
from preceptor.pipeline.generate import GenerationJob, characters_of
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.scale import Speed, Times, Work, measured, stated, times
from preceptor.pipeline.score import Step, Stored, amount_of
from preceptor.pipeline.sources import StudySource
from preceptor.pipeline.work import Amount
from preceptor.ranking.race.options import RaceOptions
from preceptor.scorers.base import Fee, Scorer
from preceptor.store.store import Costs, Store
from preceptor.teachers.base import GenerationRequest, TeacherBackend
from preceptor.types import Response

ASSUMED_TOKENS = 500
"""Tokens of a response where nothing is stored; a teacher's `max_tokens` bounds it."""

_CHARACTERS_PER_TOKEN = 4
_ENOUGH = 5


@dataclass(frozen=True)
class StepEstimate:
    """What one step of scoring would take; `work` and `times` where a model runs and something is missing."""

    student: str
    step: str
    identity: str
    stored: int
    missing: Amount
    work: Work | None = None
    speed: Speed | None = None
    times: Sequence[Times] = ()


@dataclass(frozen=True)
class GenerationEstimate:
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
class FeeEstimate:
    """What a scorer that is paid by the token would take for the responses that it lacks.

    `prompt_tokens` are expected, `tokens` the most that it may answer; `money` is None without a price.
    """

    payee: str
    responses: int
    prompt_tokens: int
    tokens: int
    money: float | None

    @classmethod
    def of(cls, fee: Fee, responses: int, characters: float) -> "FeeEstimate":
        """Return what so many responses take; `characters` are those of their texts and conversations."""
        asked = round((characters + fee.overhead * responses) / _CHARACTERS_PER_TOKEN)
        most = fee.most * responses
        return cls(fee.payee, responses, asked, most, fee.money(asked, most))


@dataclass(frozen=True)
class CostEstimate:
    """The whole: responses to generate, and steps of scoring.

    While responses are missing `data` is empty, and `later` names the steps that will follow on them. `fees`
    are those of judges. A `race` takes this at most, or its budget where that is less.
    """

    source: StudySource
    data: Sequence[LoadedData]
    generation: Sequence[GenerationEstimate]
    steps: Sequence[StepEstimate]
    later: Sequence[str]
    fees: Sequence[FeeEstimate] = ()
    race: RaceOptions | None = None


def estimate(study: Study, runtime: Runtime, *, measure: bool = False) -> CostEstimate:
    """Return what running the study would take; to `measure` speeds that are not stated loads models.

    Raises:
        PreceptorError: the study cannot be run as it stands.
    """
    _require_models(study, runtime)
    pipeline = Pipeline(study, runtime)
    source = pipeline.source
    generation = estimate_generation(source.jobs, runtime)
    if any(one.missing for one in generation):
        references = bool(source.questions.references)
        for scorer in plan.every_scorer(study, runtime, references=references):
            scorer.preflight()
        later, scorers = _later(pipeline, references=references)
        fees = _fees(source, scorers, generation)
        return CostEstimate(source, (), generation, (), later, fees, study.race)
    data = pipeline.load(spend=False)
    steps, fees = _steps(pipeline, data, measure=measure)
    return CostEstimate(source, data, generation, steps, (), fees, study.race)


def _require_models(study: Study, runtime: Runtime) -> None:
    """Refuse a speed of a model that the study does not name, which would be of no use to anyone."""
    known = sorted(_models(study.model_dump()))
    for name in runtime.tokens_per_second:
        if name not in known:
            raise StudyError(
                f"[runtime.tokens_per_second] has '{name}', which is no model of the study: expected one of "
                f"{', '.join(known) or 'none'}.{nearest(name, known)}"
            )


def _models(value: object) -> set[str]:
    """Return what stands under `model` anywhere within the tables of a study."""
    if isinstance(value, Mapping):
        named = {value["model"]} if isinstance(value.get("model"), str) else set()
        return named.union(*map(_models, value.values()))
    return set[str]().union(*map(_models, value)) if isinstance(value, list | tuple) else set()


def _later(pipeline: Pipeline, *, references: bool) -> tuple[list[str], list[Scorer]]:
    """Return the steps that follow once the responses are there, and their scorers, each once."""
    study, found = pipeline.study, dict[str, None]()
    scorers: dict[str, Scorer] = {}
    rewards = plan.reward_sources(study, references=references)
    for reward, student in product(rewards, pipeline.students):
        planned = plan.for_student(study, pipeline.runtime, student, reward=reward)
        found |= dict.fromkeys(
            f"{planned.name}, {scorer.name}{scorer.memory_note}" for scorer in planned.scorers
        )
        scorers |= {scorer.identity().digest: scorer for scorer in planned.scorers}
    return list(found), list(scorers.values())


def _fees(
    source: StudySource, scorers: Sequence[Scorer], generation: Sequence[GenerationEstimate]
) -> list[FeeEstimate]:
    """Return what is paid by the token once all responses are there, of which none is scored yet."""
    responses = sum(one.stored + one.missing for one in generation)
    missing = sum(one.missing for one in generation)
    answers = sum(one.tokens for one in generation) * responses / max(1, missing)
    asked = [characters_of(one) for one in source.questions.instructions]
    prompts = responses * sum(asked) / max(1, len(asked))
    characters = prompts + answers * _CHARACTERS_PER_TOKEN
    fees = [scorer.fee for scorer in scorers if scorer.fee is not None]
    return [FeeEstimate.of(fee, responses, characters) for fee in fees]


def _steps(
    pipeline: Pipeline, data: Sequence[LoadedData], *, measure: bool
) -> tuple[list[StepEstimate], list[FeeEstimate]]:
    """Return what is to be scored, and what is paid by the token for it, each once."""
    found: dict[tuple[str, str], StepEstimate] = {}
    fees: dict[str, FeeEstimate] = {}
    for one, student in product(data, pipeline.students):
        planned, steps = pipeline.plan(one, student)
        for step in steps:
            identity = step.partition.identity.digest
            if (planned.name, identity) in found:
                continue
            columns = step.stored()
            missing = step.missing(columns)
            texts = next(step.texts(missing), [])
            stored = len(step.keyed.distinct) - len(missing)
            work = amount_of(texts, missing=len(missing))
            if step.scorer.fee is not None:
                prompts = sum(characters_of(one.instruction) for one in texts)
                prompts = round(prompts * len(missing) / max(1, len(texts)))
                fees[identity] = FeeEstimate.of(
                    step.scorer.fee, len(missing), work.characters + prompts
                )
            name = f"{step.name}{step.scorer.memory_note}"
            one_step = StepEstimate(planned.name, name, identity, stored, work)
            if step.scorer.runs and texts:
                one_step = _timed(one_step, step, columns, texts, pipeline.runtime, measure)
            found[planned.name, identity] = one_step
    return list(found.values()), list(fees.values())


def _timed(
    estimated: StepEstimate,
    step: Step,
    columns: Stored,
    texts: Sequence[Response],
    runtime: Runtime,
    measure: bool,
) -> StepEstimate:
    """Return the estimate with its tokens, and with time and money where a speed is known."""
    work = _work(estimated, step, columns, texts)
    speed = stated(work.model, runtime)
    if speed is None and measure:
        speed = measured(step, texts, runtime)
    return replace(estimated, work=work, speed=speed, times=times(work, speed, runtime))


def _work(estimated: StepEstimate, step: Step, columns: Stored, texts: Sequence[Response]) -> Work:
    """Return the tokens that are left: by what is stored of the step, else by characters."""
    model, missing = str(step.scorer.runs), estimated.missing.responses
    share = len(texts) / missing
    instructions = round(len({one.instruction.given_id for one in texts}) / share)
    known = columns.get("tokens", np.zeros(0))
    known = known[np.isfinite(known)]
    if len(known) >= _ENOUGH:
        tokens = round(float(np.mean(known)) * missing)
        return Work(model, tokens, instructions, f"by {len(known):,} stored rows of this step")
    characters = float(estimated.missing.characters)
    if not step.scorer.of_student:  # it counts the conversation, not the response alone
        characters += sum(characters_of(one.instruction) for one in texts) / share
    tokens = round(characters / _CHARACTERS_PER_TOKEN)
    return Work(model, tokens, instructions, f"at {_CHARACTERS_PER_TOKEN} characters each, assumed")


def estimate_generation(
    jobs: Sequence[GenerationJob], runtime: Runtime
) -> list[GenerationEstimate]:
    """Return what each teacher would take; what two labels share is asked for under the first."""
    others = _mean_tokens(runtime)
    claimed: dict[str, set[bytes]] = {}
    generation = []
    for job in jobs:
        lacking = job.missing()
        taken = claimed.setdefault(job.partition.identity.digest, set())
        missing = [request for request in lacking if request.key not in taken]
        taken.update(request.key for request in missing)
        stored = len(job.wanted()) - len(lacking)
        generation.append(_estimate(job, missing, runtime, stored=stored, others=others))
    return generation


def _estimate(
    job: GenerationJob,
    missing: Sequence[GenerationRequest],
    runtime: Runtime,
    *,
    stored: int,
    others: float,
) -> GenerationEstimate:
    backend = job.backend
    teacher = backend.teacher
    own = job.partition.costs()
    tokens, basis = _expected(own, others, most=teacher.max_tokens)
    prompts = _prompt_tokens(missing, own, backend)
    pace, how = (None, backend.terms)
    if missing and not backend.terms:
        pace, how = _pace(own, backend, runtime)
    total = round(tokens * len(missing))
    most = teacher.max_tokens * len(missing)
    return GenerationEstimate(
        teacher=job.name,
        sampling=teacher.described(),
        identity=job.partition.identity.digest,
        stored=stored,
        missing=len(missing),
        prompt_tokens=prompts,
        tokens=total,
        most_tokens=most,
        seconds=total / pace if pace else None,
        money=_money(backend, prompts, total),
        most_money=_money(backend, prompts, most),
        basis="; ".join(part for part in (basis, how) if part and missing),
    )


def _expected(own: Costs, others: float, *, most: int) -> tuple[float, str]:
    """Return the tokens to expect of a response, and what that rests on."""
    if own.responses >= _ENOUGH and math.isfinite(own.tokens):
        return own.tokens, f"length by {own.responses:,} stored responses of this teacher"
    if math.isfinite(others):
        return min(others, most), "length by other teachers' stored responses"
    return min(ASSUMED_TOKENS, most), f"length assumed: {min(ASSUMED_TOKENS, most)} tokens"


def _mean_tokens(runtime: Runtime) -> float:
    """Return the mean length of all responses in the store; NaN where there are too few."""
    costs = Store(runtime.store).costs()
    known = [one for one in costs if one.responses >= _ENOUGH and math.isfinite(one.tokens)]
    if not known:
        return math.nan
    return float(np.average([c.tokens for c in known], weights=[c.responses for c in known]))


def _prompt_tokens(
    missing: Sequence[GenerationRequest], own: Costs, backend: TeacherBackend
) -> int:
    teacher = backend.teacher
    shared = teacher.samples_per_request
    # One of the samples of each request: they share its prompt.
    prompts = {
        (request.instruction.id, request.sample // shared): request.instruction
        for request in missing
    }
    if own.responses >= _ENOUGH and math.isfinite(own.prompt_tokens):
        return round(own.prompt_tokens * len(prompts))
    characters = sum(len(teacher.system) + characters_of(one) for one in prompts.values())
    return round(characters / _CHARACTERS_PER_TOKEN)


def _pace(own: Costs, backend: TeacherBackend, runtime: Runtime) -> tuple[float | None, str]:
    """Return tokens a second, and what that rests on."""
    if own.responses >= _ENOUGH and math.isfinite(own.tokens_per_second):
        return own.tokens_per_second, "time by their speed"
    pace = backend.fastest_pace(runtime.batch_size)
    return pace, "time at the machine's limit, so at least" if pace else ""


def _money(backend: TeacherBackend, prompts: int, tokens: int) -> float | None:
    price_in, price_out = backend.prices
    if price_in is None or price_out is None:
        return None
    return (prompts * price_in + tokens * price_out) / 1e6
