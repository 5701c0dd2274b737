"""The nine tables of the paper as typed rows, exactly as printed.

A printed number is a Decimal, so that its digits, trailing zeros included, are part of the
fact and anything computed from it is exact. The numbers stand in `tables.toml` beside this module; table 1
is the catalogue of teachers. Source: Xu et al., "Stronger Models are Not Always Stronger Teachers for
Instruction Tuning" (NAACL 2025).
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from preceptor.config.catalogue import SHIPPED
from preceptor.errors import StudyError
from preceptor.studies import outcomes
from preceptor.studies.finding import mean

TITLES: Mapping[int, str] = MappingProxyType(
    {
        1: "the twenty response generators",
        2: "GPT-4 against open models as teachers of Llama-3.1-Minitron-4B",
        3: "reject sampling from Gemma-2-9b-it",
        4: "Spearman's rho between each metric's order and the order by AP",
        5: "hyper-parameters of fine-tuning",
        6: "eleven teachers of a larger student, Llama-3.1-8B",
        7: "nineteen teachers of five students",
        8: "four samples of 80K instructions for Llama-3.1-Minitron-4B",
        9: "Spearman's rho of CAR with two reward models",
    }
)
"""What each table is about, in our words, by its number."""

Measure = Literal["alpaca_lc", "alpaca_wr", "arena_hard"]


@dataclass(frozen=True)
class Generator:
    """A row of table 1: a teacher by its Model ID, its family, month and billions of parameters.

    `size` is None for GPT-4, whose row prints a dash.
    """

    label: str
    family: str
    released: str
    size: float | None


@dataclass(frozen=True)
class BenchmarkRow:
    """A row of tables 2, 3, 6, 7 or 8: a student fine-tuned on one teacher's responses, and its scores.

    `label` is the row's name as printed (of table 7 the column's, of table 3 the base model's), `student`
    and `teacher` are table 7's base model and table 1's Model ID that it means; table 8 names no teacher.
    `method` is table 3's. Scores are percentages, higher is better: `alpaca_lc` and `alpaca_wr` of
    AlpacaEval 2, `arena_hard` a win rate. `average` is the printed AP; table 7 prints none.
    """

    table: int
    label: str
    student: str
    teacher: str | None
    alpaca_lc: Decimal
    alpaca_wr: Decimal
    arena_hard: Decimal
    average: Decimal | None = None
    method: str | None = None

    @property
    def name(self) -> str:
        """What the row is called in errata and checks: its label and, in table 3, the method."""
        return f"{self.label}, {self.method}" if self.method else self.label


@dataclass(frozen=True)
class Correlation:
    """A cell of table 4 or 9: Spearman's rho of one metric for one student, in -1..1.

    `label` and `heading` are as printed, `student` and `metric` what they mean here; `student` is None in
    table 4's row of averages.
    """

    table: int
    label: str
    heading: str
    student: str | None
    metric: str
    rho: Decimal


@dataclass(frozen=True)
class Setting:
    """A row of table 5: a hyper-parameter and its value, both as printed (2e-5 in digits)."""

    name: str
    value: str


@dataclass(frozen=True)
class Summary:
    """A row of averages or of standard deviations under table 8, by its columns."""

    label: str
    alpaca_lc: Decimal
    alpaca_wr: Decimal
    arena_hard: Decimal
    average: Decimal


Row = Generator | BenchmarkRow | Correlation | Setting | Summary

_FACTS: Mapping[str, Any] = tomllib.loads(
    Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"), parse_float=Decimal
)


def _teacher(label: str) -> str:
    return str(_FACTS["teachers"].get(label, label))


def _student(label: str) -> str:
    return str(_FACTS["students"].get(label, label))


def _by_teacher(number: int) -> Iterator[BenchmarkRow]:
    """Yield the rows of table 2 or 6, which have one student."""
    table = _FACTS[f"table_{number}"]
    for label, *scores in table["rows"]:
        yield BenchmarkRow(number, label, table["student"], _teacher(label), *scores)


def _by_method() -> Iterator[BenchmarkRow]:
    """Yield the rows of table 3, which has one teacher."""
    table = _FACTS["table_3"]
    for label, method, lc, wr, arena_hard, average in table["rows"]:
        student, teacher = _student(label), table["teacher"]
        yield BenchmarkRow(3, label, student, teacher, lc, wr, arena_hard, average, method)


def _by_student() -> Iterator[BenchmarkRow]:
    """Yield the cells of table 7, student by student, the three scores of a cell together."""
    columns = _FACTS["table_7"]["columns"]
    for block in _FACTS["table_7"]["students"]:
        scores = zip(block["alpaca_lc"], block["alpaca_wr"], block["arena_hard"], strict=True)
        for (label, teacher), row in zip(columns, scores, strict=True):
            yield BenchmarkRow(7, label, block["student"], teacher, *row)


def _by_sample() -> Iterator[BenchmarkRow]:
    """Yield the four runs of table 8."""
    table = _FACTS["table_8"]
    for label, *scores in table["rows"]:
        yield BenchmarkRow(8, label, table["student"], None, *scores)


def _correlations(number: int) -> Iterator[Correlation]:
    """Yield the cells of table 4 or 9, row by row."""
    table = _FACTS[f"table_{number}"]
    for label, *values in table["rows"]:
        student = None if label == "Average" else _student(label)
        for (heading, metric), rho in zip(table["metrics"], values, strict=True):
            yield Correlation(number, label, heading, student, metric, rho)


TABLE_1: tuple[Generator, ...] = tuple(
    Generator(entry.label, entry.family, entry.released, entry.parameters)
    for entry in SHIPPED.entries
    if entry.in_paper
)
"""The twenty teachers, relatives together from the smallest to the largest."""

TABLE_2: tuple[BenchmarkRow, ...] = tuple(_by_teacher(2))
"""Seven teachers of Llama-3.1-Minitron-4B over the instructions Mix-100K."""

TABLE_3: tuple[BenchmarkRow, ...] = tuple(_by_method())
"""Four ways of sampling Gemma-2-9b-it, for two students."""

TABLE_4: tuple[Correlation, ...] = tuple(_correlations(4))
"""Nine metrics for five students, and the row of averages."""

TABLE_5: tuple[Setting, ...] = tuple(Setting(*row) for row in _FACTS["table_5"]["rows"])
"""The recipe of fine-tuning."""

TABLE_6: tuple[BenchmarkRow, ...] = tuple(_by_teacher(6))
"""Eleven teachers of Llama-3.1-8B."""

TABLE_7: tuple[BenchmarkRow, ...] = tuple(_by_student())
"""Nineteen teachers (GPT-4 is missing) of five students: 95 cells of three scores."""

TABLE_8: tuple[BenchmarkRow, ...] = tuple(_by_sample())
"""Four runs that differ in the sample of instructions."""

TABLE_8_MEAN = Summary(*_FACTS["table_8"]["mean"])
"""Table 8's row of averages."""

TABLE_8_DEVIATION = Summary(*_FACTS["table_8"]["deviation"])
"""Table 8's row of standard deviations."""

TABLE_8_VARIATION: Decimal = _FACTS["table_8"]["variation_percent"]
"""The 2.89% of table 8's caption."""

TABLE_9: tuple[Correlation, ...] = tuple(_correlations(9))
"""The average reward and CAR with two reward models, for five students."""

STUDENTS: tuple[str, ...] = tuple(block["student"] for block in _FACTS["table_7"]["students"])
"""The five students, as table 7 names and orders them."""

_TABLES: Mapping[int, tuple[Row, ...]] = {
    1: TABLE_1,
    2: TABLE_2,
    3: TABLE_3,
    4: TABLE_4,
    5: TABLE_5,
    6: TABLE_6,
    7: TABLE_7,
    8: (*TABLE_8, TABLE_8_MEAN, TABLE_8_DEVIATION),
    9: TABLE_9,
}


def table(number: int) -> tuple[Row, ...]:
    """Return all rows of the table with this number, in the printed order.

    Raises:
        StudyError: The paper has no such table.
    """
    if number not in _TABLES:
        raise StudyError(f"The paper has tables 1 to 9, and no table {number}: name one of those.")
    return _TABLES[number]


def families() -> Mapping[str, tuple[str, ...]]:
    """Return table 7's six families and their teachers, from the smallest to the largest."""
    return outcomes.families(str(row.teacher) for row in TABLE_7)


def defined_average(row: BenchmarkRow) -> Decimal:
    """Return AP as section 3.2 defines it, not rounded: the mean of AlpacaEval 2 LC and Arena-Hard."""
    return mean((row.alpaca_lc, row.arena_hard))


def exact_performance() -> Mapping[str, Mapping[str, Decimal]]:
    """Return what `average_performance` does, in exact decimals."""
    return {
        student: {
            str(row.teacher): defined_average(row) for row in TABLE_7 if row.student == student
        }
        for student in STUDENTS
    }


def average_performance() -> Mapping[str, Mapping[str, float]]:
    """Return AP by student (`STUDENTS`) and teacher (table 1's Model ID), recomputed from table 7.

    It is the mean of AlpacaEval 2 LC and Arena-Hard (section 3.2), in percent, not rounded; higher is
    better. Nineteen teachers, without ties; GPT-4 is not among them.
    """
    return {
        student: {teacher: float(value) for teacher, value in by_teacher.items()}
        for student, by_teacher in exact_performance().items()
    }


def metric_correlations() -> Mapping[str, Mapping[str, float]]:
    """Return Spearman's rho by metric (our names) and student (`STUDENTS`), table 4 as printed.

    Higher is better. The printed averages are left out.
    """
    metrics = dict.fromkeys(cell.metric for cell in TABLE_4)
    return {
        metric: {
            cell.student: float(cell.rho)
            for cell in TABLE_4
            if cell.metric == metric and cell.student
        }
        for metric in metrics
    }
