"""Rankings in a terminal, the verdict first.

Everything that comes from data or models is printed as plain text: control characters are made visible
and nothing is read as markup.
"""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from preceptor.config.reward_models import RewardPreset
from preceptor.ranking.race import table as racing
from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import beneath, footnotes, printable, table_lines
from preceptor.types import Warning


def print_ranking(console: Console, ranking: Ranking) -> None:
    """Print the verdict, the table, what was left out, stability, and warnings."""
    console.print()
    console.print(Text(printable(ranking.verdict().text), style="bold"))
    for line in beneath(ranking):
        console.print(Text(printable(line), style="dim"))
    console.print()
    heading, rule, *rows = table_lines(ranking, width=console.width)
    for place, line in enumerate((heading, rule, *rows)):
        style = "bold" if line is heading or place == 2 else ""
        console.print(Text(line, style=style, no_wrap=True))
    console.print()
    _print_below(console, footnotes(ranking), ranking.warnings)


def print_race(console: Console, race: RaceResult) -> None:
    """Print the verdict of a race, a line for each teacher, what it took, and warnings."""
    console.print()
    console.print(Text(printable(race.verdict().text), style="bold"))
    if race.reward:
        console.print(Text(f"Rewards: {printable(race.reward)}.", style="dim"))
    if race.trust:
        console.print(Text(printable(race.trust.record), style="dim"))
    console.print()
    for line in racing.table_lines(race, width=console.width):
        console.print(Text(line, no_wrap=True))
    console.print()
    _print_below(console, racing.footnotes(race), race.warnings)


def _print_below(console: Console, lines: Sequence[str], warnings: Sequence[Warning]) -> None:
    for line in lines:
        console.print(Padding(Text(printable(line), style="dim"), (0, 0, 0, 1)))
    for warning in warnings:
        text = Text("Warning: ", style="yellow bold") + Text(
            printable(warning.text), style="yellow"
        )
        console.print(Padding(text, (0, 0, 0, 1)))
    console.print()


def print_orders(console: Console, rankings: Sequence[Ranking]) -> None:
    """Print, for a student ranked under several sources of rewards, each teacher's place under each."""
    for student in dict.fromkeys(ranking.student for ranking in rankings):
        orders = [ranking for ranking in rankings if ranking.student == student]
        if len(orders) < 2:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(f"places for {printable(student)}")
        places = []
        for ranking in orders:
            table.add_column(printable(str(ranking.settings.get("reward"))), justify="right")
            places.append({result.teacher: str(result.rank) for result in ranking.teachers})
        for teacher in places[0]:
            table.add_row(printable(teacher), *(place.get(teacher, "") for place in places))
        console.print(table)
        console.print()


def print_reward_models(console: Console, presets: Mapping[str, RewardPreset]) -> None:
    """Print reward models with what must be known before loading one."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("name", "model", "size", "context", "score", "licence and notes"):
        right = heading in ("size", "context")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "model")
    for name, preset in presets.items():
        table.add_row(
            name,
            preset.model,
            f"{preset.billions:g}B",
            f"{preset.context:,}",
            preset.scale,
            f"{preset.licence}; {preset.note}" if preset.note else preset.licence,
        )
    console.print(table)
    console.print(
        Text(
            "A logit is unbounded, often negative, and only its differences mean something: see "
            "--reward-transform.",
            style="dim",
        )
    )


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Print plain lines, dimmed."""
    for line in lines:
        console.print(Text(printable(line), style="dim"), soft_wrap=True)
