"""Print what a study would take, and what its data are: teachers, tokens, time, money."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from preceptor.data.gather import Source
from preceptor.pipeline.estimate import AskOutlook, Outlook
from preceptor.pipeline.load import Opened
from preceptor.pipeline.sources import GeneratedSource
from preceptor.report.terminal import print_lines, printable

_SHOWN = 12
_CHARACTERS_PER_TOKEN = 4


def described(source: Source) -> list[str]:
    """Return how each file is read and who is asked; many alike are told of once."""
    lines = _few([file.describe() for file in source.files], "files")
    if isinstance(source, GeneratedSource):
        asked = [
            f"{inquiry.name}: {inquiry.responder.options.sampling.described()}, "
            f"{len(inquiry.instructions):,} instructions, under {inquiry.shelf.identity.digest}"
            for inquiry in source.inquiries
        ]
        lines += _few(asked, "teachers")
    return lines


def rewards_of(data: Sequence[Opened]) -> list[str]:
    """Return where rewards come from."""
    return [f"reward: {opened.reward_name}" for opened in data]


def _few(lines: list[str], what: str) -> list[str]:
    hidden = len(lines) - _SHOWN
    return lines if hidden <= 1 else [*lines[:_SHOWN], f"... and {hidden} more {what}"]


def print_outlook(console: Console, outlook: Outlook) -> None:
    """Print what a study would take."""
    print_lines(console, described(outlook.source))
    if outlook.data:
        choice = outlook.data[0].choice
        teachers, taken = len(choice.roster.teachers), len(choice.taken)
        asked = len(choice.roster.instructions)
        print_lines(console, rewards_of(outlook.data))
        print_lines(console, [f"{teachers} teachers, {taken} of {asked} instructions compared"])
    if outlook.asks:
        _print_asks(console, outlook.asks)
    lines = [
        f"{step.student}, {step.step}: {step.stored:,} stored, {step.missing.responses:,} to compute "
        f"(about {step.missing.characters / _CHARACTERS_PER_TOKEN:,.0f} tokens) under {step.identity}"
        for step in outlook.steps
    ]
    told = dict.fromkeys(sentence for opened in outlook.data for sentence in opened.told)
    for line in [*lines, *told]:
        console.print(printable(line), highlight=False, markup=False)
    if outlook.later:
        console.print(
            f"Then, on the responses: {'; '.join(printable(step) for step in outlook.later)}. "
            "Plan again when they are there.",
            highlight=False,
            markup=False,
        )


def _print_asks(console: Console, asks: Sequence[AskOutlook]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("teacher", overflow="fold")
    for heading in ("stored", "to ask", "prompt tokens", "tokens", "at most", "time", "money"):
        table.add_column(heading, justify="right")
    for ask in asks:
        amounts = [ask.prompt_tokens, ask.tokens, ask.most_tokens]
        cells = [*(f"{amount:,}" for amount in amounts), worded_time(ask.seconds), _money(ask)]
        table.add_row(
            f"{printable(ask.teacher)} ({ask.sampling})",
            f"{ask.stored:,}",
            f"{ask.missing:,}",
            *(cells if ask.missing else [""] * len(cells)),
        )
    console.print(table)
    for basis in dict.fromkeys(ask.basis for ask in asks if ask.basis):
        names = ", ".join(printable(ask.teacher) for ask in asks if ask.basis == basis)
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


def _money(ask: AskOutlook) -> str:
    if ask.money is None or ask.most_money is None:
        return "no price"
    return f"{ask.money:.2f} (at most {ask.most_money:.2f})"
