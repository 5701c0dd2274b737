"""Print what a study would take, and what its data are: teachers, tokens, time, money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from preceptor.errors import counted
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.sources import StudySource
from preceptor.ranking.table import printable
from preceptor.ranking.verdict import several
from preceptor.report.terminal import print_lines

if TYPE_CHECKING:
    from preceptor.pipeline.estimate import (
        CostEstimate,
        FeeEstimate,
        GenerationEstimate,
        StepEstimate,
    )
    from preceptor.pipeline.scale import Times
    from preceptor.ranking.race.options import RaceOptions


_SHOWN = 12
_CHARACTERS_PER_TOKEN = 4


def described(source: StudySource) -> list[str]:
    """Return how each file is read and who is asked; many alike share a line."""
    return [*_few(read_as(source), "files"), *_few(asked_of(source), "teachers")]


def read_as(source: StudySource) -> list[str]:
    """Return how each file is read."""
    return [file.describe() for file in source.files]


def asked_of(source: StudySource) -> list[str]:
    """Return what each teacher is asked."""
    return [
        f"{job.name}: {job.backend.teacher.described()}, "
        f"{counted(len(job.instructions), 'instruction')}, under {job.identity.digest}"
        for job in source.jobs
    ]


def rewards_of(data: Sequence[LoadedData]) -> list[str]:
    """Return where rewards come from."""
    return [f"reward: {opened.reward_name}" for opened in data]


def _few(lines: list[str], what: str) -> list[str]:
    hidden = len(lines) - _SHOWN
    return lines if hidden <= 1 else [*lines[:_SHOWN], f"... and {hidden} more {what}"]


def print_estimate(console: Console, estimate: CostEstimate) -> None:
    """Print what a study would take."""
    print_lines(console, described(estimate.source))
    if estimate.data:
        selection = estimate.data[0].selection
        teachers, taken = len(selection.table.teachers), selection.complete
        asked = len(selection.table.instructions)
        print_lines(console, rewards_of(estimate.data))
        print_lines(
            console,
            [f"{counted(teachers, 'teacher')}, {taken} of {asked} instructions compared"],
        )
    if estimate.generation:
        _print_generation(console, estimate.generation)
    lines = [
        f"{step.student}, {step.step}: {step.stored:,} stored, {step.missing.responses:,} to compute "
        f"(about {step.missing.characters / _CHARACTERS_PER_TOKEN:,.0f} tokens) under {step.identity}"
        for step in estimate.steps
    ]
    lines += [_fee_line(one) for one in estimate.fees if one.responses]
    lines += [line for step in estimate.steps for line in _time_lines(step)]
    warnings = dict.fromkeys(one.text for opened in estimate.data for one in opened.warnings)
    for line in [*lines, *warnings]:
        console.print(printable(line), highlight=False, markup=False)
    if not estimate.data:
        print_lines(console, [job.advice for job in estimate.source.jobs if job.advice])
    if estimate.race is not None:
        print_lines(console, [_race_line(estimate, estimate.race)])
    if estimate.later:
        console.print(
            f"Then, on the responses: {'; '.join(printable(step) for step in estimate.later)}. "
            "Plan again when they are there.",
            highlight=False,
            markup=False,
        )


def _time_lines(step: StepEstimate) -> list[str]:
    """Return how long a step takes on one device and on many, or what is lacking to say it."""
    work = step.work
    if work is None:
        return []
    head = f"{step.student}, {step.step}: {work.tokens:,} tokens ({work.basis})"
    if step.speed is None:
        return [
            f"{head}. Time is not known without a speed: give [runtime.tokens_per_second] "
            f"'{work.model}' = tokens that one worker scores in a second, or measure it with --measure."
        ]
    rate = f"{step.speed.tokens_per_second:,.0f} tokens a second and worker, {step.speed.basis}"
    return [f"{head}; {rate}:", *(f"  {_on_devices(one)}" for one in step.times), f"  {_LINEAR}"]


def _on_devices(one: Times) -> str:
    """Return what a step takes on so many devices."""
    said = f"{counted(one.devices, 'device')}, {counted(one.workers, 'worker')}"
    if one.seconds is None:
        return f"{said}: fewer devices than a worker takes"
    idle = one.workers - one.busy
    said += f" ({idle} idle: instructions are not shared)" if idle else ""
    money = "no price (price_per_hour)" if one.money is None else f"{one.money:,.2f} USD"
    return f"{said}: {worded_time(one.seconds)}, {money}"


_LINEAR = (
    "All workers are taken to be busy to the end, models loaded: whole instructions are handed out."
)


def _fee_line(fee: FeeEstimate) -> str:
    """Return what a judge takes for what it lacks."""
    money = "no price" if fee.money is None else f"at most {fee.money:,.2f} USD"
    return (
        f"{fee.payee}: {counted(fee.responses, 'response')} to judge, about {fee.prompt_tokens:,} "
        f"tokens of prompts "
        f"and at most {fee.tokens:,} of answers: {money}."
    )


def _race_line(estimate: CostEstimate, race: RaceOptions) -> str:
    """Return what a race takes at most, and what the same takes in full."""
    asked = {job.name for job in estimate.source.jobs if job.backend.paid}
    paid = {one.teacher: one.money for one in estimate.generation if one.teacher in asked}
    paid |= {one.payee: one.money for one in estimate.fees if one.responses}
    money = [one for one in paid.values() if one is not None]
    lacking = [name for name, one in paid.items() if one is None]
    full = sum(money)
    in_full = f"about {full:,.2f} USD" if money else "all of the above"
    if money and lacking:
        in_full += f", without {several(lacking, 'and')}, for want of a price"
    caps = [f"{race.tokens:,} tokens"] if race.tokens is not None else []
    caps += [f"{race.hours:g} hours"] if race.hours is not None else []
    if race.money is not None:
        caps.append(f"{min(race.money, full) if money else race.money:,.2f} USD")
    most = f"at most {' or '.join(caps)}, whichever is reached first" if caps else "at most as much"
    return f"Race: {most}, and less where teachers leave early. In full: {in_full}."


def _print_generation(console: Console, generation: Sequence[GenerationEstimate]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("teacher", overflow="fold")
    for heading in ("stored", "to generate", "prompt tokens", "tokens", "at most", "time", "USD"):
        table.add_column(heading, justify="right")
    for one in generation:
        amounts = [one.prompt_tokens, one.tokens, one.most_tokens]
        cells = [*(f"{amount:,}" for amount in amounts), worded_time(one.seconds), _money(one)]
        table.add_row(
            f"{printable(one.teacher)} ({one.sampling})",
            f"{one.stored:,}",
            f"{one.missing:,}",
            *(cells if one.missing else [""] * len(cells)),
        )
    console.print(table)
    for basis in dict.fromkeys(one.basis for one in generation if one.basis):
        names = ", ".join(printable(one.teacher) for one in generation if one.basis == basis)
        print_lines(console, [f"{names}: {basis}."])


def worded_time(seconds: float | None) -> str:
    """Return seconds in words; unknown for None."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _money(one: GenerationEstimate) -> str:
    if one.money is None or one.most_money is None:
        return "no price"
    return f"{one.money:.2f} (at most {one.most_money:.2f})"
