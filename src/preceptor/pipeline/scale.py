"""How long scoring takes on one device and on many, and what it costs, by a speed that is stated or measured.

A speed is of one worker (a device, or `gpus` of them) in the tokens that the scorer counts and the progress
bar shows. No figure is assumed: without a speed there is no time, and without a price no money.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from preceptor.config.runtime import Runtime
from preceptor.pipeline.score import Step
from preceptor.pipeline.work import tokens_of
from preceptor.types import Response

DEVICES = (1, 8, 64)
"""For how many devices a plan says time and money."""

MEASURED_S = 10.0
"""A measurement of speed ends with the batch in which it becomes this long."""


@dataclass(frozen=True)
class Work:
    """What of a step is left: tokens as its scorer counts them, and instructions, which no worker shares.

    `basis` says what the number of tokens rests on.
    """

    model: str
    tokens: int
    instructions: int
    basis: str


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one worker, and what that rests on."""

    tokens_per_second: float
    basis: str


@dataclass(frozen=True)
class Times:
    """What a step takes on so many devices: `busy` of `workers` have something to do.

    `seconds` and `money` (the devices' price for that long) are None where no speed or no price is known, or
    where the devices are fewer than a worker takes.
    """

    devices: int
    workers: int
    busy: int
    seconds: float | None
    money: float | None


def times(work: Work, speed: Speed | None, runtime: Runtime) -> list[Times]:
    """Return time and money for one device and for many.

    All workers are taken to be busy until the end, with models loaded: time falls with their number up to
    the number of instructions, which are the smallest parts that are handed out.
    """
    return [_times(work, speed, runtime, devices) for devices in DEVICES]


def _times(work: Work, speed: Speed | None, runtime: Runtime, devices: int) -> Times:
    each = runtime.gpus or 1
    workers = devices // each
    busy = min(workers, work.instructions)
    if not busy or speed is None:
        return Times(devices, workers, busy, None, None)
    seconds = work.tokens / (speed.tokens_per_second * busy)
    price = runtime.price_per_hour
    money = None if price is None else seconds / 3600 * price * workers * each
    return Times(devices, workers, busy, seconds, money)


def stated(model: str, runtime: Runtime) -> Speed | None:
    """Return the speed that the study file states, None where it states none."""
    speed = runtime.tokens_per_second.get(model)
    return None if speed is None else Speed(speed, "speed as stated")


def measured(step: Step, texts: Sequence[Response], runtime: Runtime) -> Speed | None:
    """Return the speed on this machine by scoring some of these for about `MEASURED_S`; nothing is stored.

    None where there is too little to measure: the first instruction only warms up.
    """
    groups: dict[bytes, list[Response]] = {}
    for response in texts:
        groups.setdefault(response.instruction.given_id, []).append(response)
    first, *rest = groups.values()
    tokens, seconds = 0, 0.0
    try:
        _scored(step, first)
        for start in range(0, len(rest), step.scorer.part):
            part = rest[start : start + step.scorer.part]
            began = time.perf_counter()
            tokens += _scored(step, [response for group in part for response in group])
            seconds += time.perf_counter() - began
            if seconds >= MEASURED_S:
                break
    finally:
        step.resource.release()
    if not tokens or not seconds:
        return None
    where = f"on this machine ({runtime.resolved_device()})"
    return Speed(
        tokens / seconds, f"speed measured {where} over {tokens:,} tokens, {seconds:.1f} s"
    )


def _scored(step: Step, responses: Sequence[Response]) -> int:
    """Score responses, and return the tokens that these took."""
    return sum(tokens_of(batch) for batch in step.scorer.score(responses))
