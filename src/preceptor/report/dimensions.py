"""Teachers by dimension, in a terminal and as what a page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from preceptor.ranking.table import printable
from preceptor.validation.dimensions import DimensionTable, Placed


@dataclass(frozen=True)
class DimensionView:
    """A table of a page: a row of values and intervals for each teacher, and what is said below it."""

    student: str
    measures: Mapping[str, str]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


def dimension_views(tables: Sequence[DimensionTable]) -> tuple[DimensionView, ...]:
    """Return the tables as a page shows them."""
    return tuple(
        DimensionView(
            student=table.student,
            measures=table.measures,
            rows=tuple(
                (teacher, tuple(map(_cell, own.values()))) for teacher, own in table.places.items()
            ),
            sentences=tuple(table.sentences()),
            notes=table.notes,
        )
        for table in tables
    )


def _cell(placed: Placed) -> tuple[str, str]:
    """Return value and place, and the interval."""
    one = placed.estimate
    return f"{one.value:.1f} ({placed.rank})", f"[{one.low:.1f}, {one.high:.1f}]"


def print_dimensions(console: Console, table: DimensionTable) -> None:
    """Print teachers by dimension, and where the order changes."""
    console.print()
    console.print(Text(f"Teachers by dimension, for {printable(table.student)}", style="bold"))
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("fine-tuned on", overflow="fold")
    for name in table.measures:
        grid.add_column(Text(printable(name)), justify="right", overflow="fold")
    for teacher, own in table.places.items():
        cells = [Text("\n".join(_cell(one))) for one in own.values()]
        grid.add_row(Text(printable(teacher)), *cells)
    console.print(grid)
    measures = "; ".join(f"{name}: {measure}" for name, measure in table.measures.items())
    legend = (
        f"{measures}. In parentheses the place, below it the 95% interval. Higher is better; points of one "
        "dimension are not points of another, and nothing is averaged over them."
    )
    console.print(Padding(Text(printable(legend), "dim"), (0, 0, 0, 1)))
    for sentence in table.sentences():
        console.print(Padding(Text(printable(sentence)), (0, 0, 0, 1)))
