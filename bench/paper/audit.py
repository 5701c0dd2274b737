"""Hold the paper's printed numbers against each other: `python bench/paper/audit.py [TABLE]`.

Every number of Xu et al. (NAACL 2025) that follows from other printed numbers is recomputed. A printed number
stands for all numbers that round to it, so a recomputed value can round to the printed one, lie exactly
between two, be out of reach only because its inputs were rounded, or contradict them. Whatever does not
simply agree must stand in `errata.toml`, and every numeric erratum must still be there; the script fails
where either is not so, or where a count of `EXPECTED` has changed. `docs/reference/published.md` says what
was found.
"""

import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Literal

from preceptor.studies.finding import deviation, mean
from preceptor.studies.tables import (
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_8_DEVIATION,
    TABLE_8_MEAN,
    TABLE_8_VARIATION,
    TABLE_9,
    BenchmarkRow,
)

Kind = Literal["inconsistent", "rounded inputs", "half digit", "definition", "wording"]


@dataclass(frozen=True)
class Erratum:
    """One place where the paper disagrees with itself.

    `kind` is "inconsistent" (no rounding explains it), "rounded inputs" (rounding can), "half digit" (the
    recomputed number lies exactly between two, either is right), "definition" (a number is not what the
    text calls it) or "wording". `row` and `column` are as printed; a row of text names its section. `printed`
    and `recomputed` are text, with every digit.
    """

    kind: Kind
    table: int
    row: str
    column: str
    printed: str
    recomputed: str
    explanation: str


ERRATA: tuple[Erratum, ...] = tuple(
    Erratum(**fields)
    for fields in tomllib.loads(
        Path(__file__).with_name("errata.toml").read_text(encoding="utf-8")
    )["erratum"]
)
"""Every erratum: contradictions first, then definitions and wording, then rounding."""

TEACHERS_RANKED = 19
"""n behind tables 4 and 9: the teachers of table 7."""

_SCORES = ("alpaca_lc", "alpaca_wr", "arena_hard")
_NAMES = {"alpaca_lc": "LC", "alpaca_wr": "WR", "arena_hard": "AH", "average": "AP"}


class Agreement(StrEnum):
    """How a recomputed number agrees with the printed one.

    `EQUAL`: it rounds to it. `HALF`: it lies exactly between two last digits, one of them the printed, and
    its inputs are rounded, so either is right. `ROUNDED`: inputs that print the same could give it.
    `DIFFERENT`: none could.
    """

    EQUAL = "equal"
    HALF = "half digit"
    ROUNDED = "rounded inputs"
    DIFFERENT = "inconsistent"


@dataclass(frozen=True)
class Check:
    """One printed number beside the same number recomputed by `formula`, not rounded."""

    table: int
    row: str
    column: str
    printed: Decimal
    recomputed: Decimal
    formula: str
    agreement: Agreement


def last_digit(printed: Decimal) -> Decimal:
    """Return what 1 in the last printed digit is worth: 0.01 for 13.70."""
    return Decimal((0, (1,), int(printed.as_tuple().exponent)))


def agreement(printed: Decimal, recomputed: Decimal, *, slack: Decimal) -> Agreement:
    """Return how the numbers agree, where the rounding of inputs can move the recomputed by `slack`."""
    gap, half = abs(printed - recomputed), last_digit(printed) / 2
    if gap < half:
        return Agreement.EQUAL
    if gap == half:
        return Agreement.HALF
    return Agreement.ROUNDED if gap <= half + slack else Agreement.DIFFERENT


def shown(check: Check) -> str:
    """Return the recomputed number with the printed digits and, where it has more, up to three more."""
    unit = last_digit(check.printed)
    coarse, fine = check.recomputed.quantize(unit), check.recomputed.quantize(unit / 1000)
    return f"{coarse if coarse == fine else fine.normalize():f}"


def rank_difference_sum(rho: Decimal, n: int) -> Decimal:
    """Return the sum of squared rank differences that a rho of `n` untied teachers means (eq. 2)."""
    return (1 - rho) * n * (n * n - 1) / 6


def fits_untied(rho: Decimal, n: int) -> bool:
    """Return whether some order of `n` untied teachers has a rho that rounds to the printed one.

    The sum of squared rank differences is then an even integer: it has the parity of the sum of the
    differences, which is zero.
    """
    nearest = _nearest_even(rank_difference_sum(rho, n))
    found = 1 - nearest * 6 / (n * (n * n - 1))
    return agreement(rho, found, slack=Decimal()) in (Agreement.EQUAL, Agreement.HALF)


def _nearest_even(value: Decimal) -> Decimal:
    return 2 * (value / 2).to_integral_value()


def _mean_check(
    place: tuple[int, str, str], printed: Decimal, inputs: Sequence[Decimal], formula: str
) -> Check:
    recomputed = mean(inputs)
    slack = mean([last_digit(value) / 2 for value in inputs])
    return Check(*place, printed, recomputed, formula, agreement(printed, recomputed, slack=slack))


def _averages() -> Iterator[Check]:
    """Check the AP of tables 2 and 3 by its definition, of tables 6 and 8 as the mean of three."""
    for row in (*TABLE_2, *TABLE_3, *TABLE_6, *TABLE_8):
        if row.average is None:
            continue
        two = row.table in (2, 3)
        inputs = (
            [row.alpaca_lc, row.arena_hard] if two else [getattr(row, name) for name in _SCORES]
        )
        formula = "mean of LC and AH" if two else "mean of LC, WR and AH"
        yield _mean_check((row.table, row.name, "AP"), row.average, inputs, formula)


def _samples() -> Iterator[Check]:
    """Check the summary under table 8: means, sample deviations and the caption's percentage."""
    for name, column in _NAMES.items():
        values = [getattr(row, name) for row in TABLE_8]
        place = (8, TABLE_8_MEAN.label, column)
        yield _mean_check(place, getattr(TABLE_8_MEAN, name), values, "mean of the four runs")
    for name, column in _NAMES.items():
        values = [getattr(row, name) for row in TABLE_8]
        yield _exact(
            (8, TABLE_8_DEVIATION.label, column),
            getattr(TABLE_8_DEVIATION, name),
            deviation(values),
            "standard deviation of the four runs, over n - 1",
        )
    variation = 100 * TABLE_8_DEVIATION.average / TABLE_8_MEAN.average
    formula = "standard deviation / average: a coefficient of variation"
    yield _exact((8, "caption", "AP"), TABLE_8_VARIATION, variation, formula)


def _exact(
    place: tuple[int, str, str], printed: Decimal, recomputed: Decimal, formula: str
) -> Check:
    """Return a check whose inputs are taken as exact."""
    found = agreement(printed, recomputed, slack=Decimal())
    return Check(*place, printed, recomputed, formula, found)


def _integers() -> Iterator[Check]:
    """Check that every rho of tables 4 and 9 comes from an even sum of squared rank differences."""
    n = TEACHERS_RANKED
    for cell in (*TABLE_4, *TABLE_9):
        if cell.student is not None:
            total = _nearest_even(rank_difference_sum(cell.rho, n))
            formula = f"1 - {total}/{n * (n * n - 1) // 6}"
            recomputed = 1 - total * 6 / (n * (n * n - 1))
            yield _exact((cell.table, cell.label, cell.heading), cell.rho, recomputed, formula)


def _mean_correlations() -> Iterator[Check]:
    """Check the last row of table 4 from the cells above it."""
    for cell in TABLE_4:
        if cell.student is None:
            above = [one.rho for one in TABLE_4 if one.metric == cell.metric and one.student]
            place = (4, cell.label, cell.heading)
            yield _mean_check(place, cell.rho, above, "mean of the five printed above")


def _shared() -> Iterator[Check]:
    """Check what two tables print of the same thing: 4 and 9, and greedy decoding in 3 and 7."""
    earlier = {(cell.student, cell.metric): cell.rho for cell in TABLE_4}
    for cell in TABLE_9:
        if (cell.student, cell.metric) in earlier:
            same = earlier[cell.student, cell.metric]
            yield _exact((9, cell.label, cell.heading), cell.rho, same, "as in table 4")
    detailed = {(row.student, row.teacher): row for row in TABLE_7}
    for row in TABLE_3:
        if row.method == "Greedy":
            same_row = detailed[row.student, row.teacher]
            for name in _SCORES:
                printed, same = getattr(row, name), getattr(same_row, name)
                yield _exact((3, row.name, _NAMES[name]), printed, same, "as in table 7")


def _counts() -> Iterator[Check]:
    """Check the counts: table 1's title, the families of the text, table 7's columns, the batch."""
    names = {generator.family for generator in TABLE_1}
    yield _exact((1, "title", "generators"), Decimal(20), Decimal(len(TABLE_1)), "rows")
    yield _exact((1, "section 3.2", "families"), Decimal(7), Decimal(len(names)), "families")
    tested = {row.teacher for row in TABLE_7}
    columns = Decimal(len(tested))
    yield _exact((7, "columns", "teachers"), Decimal(TEACHERS_RANKED), columns, "columns")
    recipe = {setting.name: setting.value for setting in TABLE_5}
    devices, size, steps = (
        Decimal(recipe[name])
        for name in ("Number of Devices", "Per-device Batch Size", "Gradient Accumulation Steps")
    )
    printed = Decimal(recipe["Effective Batch Size"])
    formula = "devices x batch x accumulation"
    yield _exact((5, "Effective Batch Size", "Value"), printed, devices * size * steps, formula)


def checks() -> tuple[Check, ...]:
    """Return every check, by table."""
    found = [
        *_counts(),
        *_averages(),
        *_samples(),
        *_mean_correlations(),
        *_integers(),
        *_shared(),
    ]
    return tuple(sorted(found, key=lambda check: check.table))


def faults(found: Sequence[Check], errata: Sequence[Erratum] = ERRATA) -> list[str]:
    """Return what must not be: disagreements that no erratum explains, and errata without one."""
    explained = {
        (one.kind, one.table, one.row, one.column, one.printed, one.recomputed)
        for one in errata
        if one.kind in set(Agreement)
    }
    seen = {
        (one.agreement.value, one.table, one.row, one.column, f"{one.printed}", shown(one))
        for one in found
        if one.agreement is not Agreement.EQUAL
    }
    return [
        f"{why} Table {table}, {row}, {column}: {kind}, printed {printed}, recomputed {recomputed}."
        for why, which in (
            ("No erratum explains this.", seen - explained),
            ("An erratum tells of what is not there.", explained - seen),
        )
        for kind, table, row, column, printed, recomputed in sorted(which)
    ]


def tally(found: Iterable[Check]) -> Mapping[int, Counter[Agreement]]:
    """Return how many checks of each table agree in each way."""
    counts: dict[int, Counter[Agreement]] = {}
    for check in found:
        counts.setdefault(check.table, Counter())[check.agreement] += 1
    return counts


def rounding_rules(found: Iterable[Check]) -> Mapping[str, int]:
    """Return how many of the half-digit cells each rule of rounding prints as the paper does."""
    rules = {"up": ROUND_HALF_UP, "to even": ROUND_HALF_EVEN, "down": ROUND_HALF_DOWN}
    halves = [check for check in found if check.agreement is Agreement.HALF]
    return {
        rule: sum(
            check.recomputed.quantize(last_digit(check.printed), rounding=way) == check.printed
            for check in halves
        )
        for rule, way in rules.items()
    }


def as_defined(row: BenchmarkRow) -> Agreement:
    """Return how a row's printed AP agrees with section 3.2's definition.

    Tables 6 and 8 average something else; `checks` holds them to that.
    """
    assert row.average is not None
    inputs = [row.alpaca_lc, row.arena_hard]
    return _mean_check(
        (row.table, row.name, "AP"), row.average, inputs, "mean of LC and AH"
    ).agreement


def counts(found: Sequence[Check]) -> Mapping[str, object]:
    """Return what is counted over all checks, as `EXPECTED` has it."""
    rhos = [cell.rho for cell in TABLE_4 if cell.student]
    fitting = {n: sum(fits_untied(rho, n) for rho in rhos) for n in range(15, 24)}
    return {
        "checks by table": {number: sum(kinds.values()) for number, kinds in tally(found).items()},
        "checks by agreement": {
            str(kind): n for kind, n in Counter(c.agreement for c in found).items()
        },
        "half digits as each rule of rounding prints them": dict(rounding_rules(found)),
        "of table 3 rounded down": rounding_rules(c for c in found if c.table == 3)["down"],
        "rho of table 4 that fit n teachers": {
            "19": fitting[19],
            "20": fitting[20],
            "another": max(fits for n, fits in fitting.items() if n != TEACHERS_RANKED),
        },
        "n that fit 0.8555": [n for n in range(15, 24) if fits_untied(Decimal("0.8555"), n)],
        "n that fit 0.1473": [n for n in range(15, 24) if fits_untied(Decimal("0.1473"), n)],
        "AP of tables 6 and 8 as section 3.2 defines it": sorted(
            {str(as_defined(row)) for row in (*TABLE_6, *TABLE_8)}
        ),
        "AP of tables 2 and 3 as section 3.2 defines it": sorted(
            {str(as_defined(row)) for row in (*TABLE_2, *TABLE_3)}
        ),
    }


# 2, 3, 6: an AP each row, 3 also its 6 greedy scores. 4: 45 cells and 9 averages. 8: 4 rows, 4 means, 4
# deviations, the caption. 9: 20 cells, 15 of them also in table 4. 18 fits: 1 - 6 x 140 / 5814 = 0.85552.
EXPECTED: Mapping[str, object] = {
    "checks by table": {1: 2, 2: 7, 3: 14, 4: 54, 5: 1, 6: 11, 7: 1, 8: 13, 9: 35},
    "checks by agreement": {"equal": 122, "half digit": 10, "rounded inputs": 2, "inconsistent": 4},
    "half digits as each rule of rounding prints them": {"up": 4, "to even": 6, "down": 6},
    "of table 3 rounded down": 5,
    "rho of table 4 that fit n teachers": {"19": 43, "20": 9, "another": 9},
    "n that fit 0.8555": [18],
    "n that fit 0.1473": [],
    "AP of tables 6 and 8 as section 3.2 defines it": ["inconsistent"],
    "AP of tables 2 and 3 as section 3.2 defines it": ["equal", "half digit"],
}
"""What was counted when the tables were typed in."""


def report(found: Sequence[Check], errata: Sequence[Erratum]) -> Iterator[str]:
    """Yield how many numbers of each table agree and how, then the errata, each with its reason."""
    yield f"{len(found)} printed numbers recomputed from other printed numbers"
    for number, kinds in tally(found).items():
        yield f"  table {number}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    if errata:
        yield "Where the paper disagrees with itself"
    for one in errata:
        instead = "in fact" if one.kind in ("definition", "wording") else "recomputed"
        where = f"table {one.table}, {one.row}, {one.column}"
        yield f"  {one.kind}: {where}: {one.printed}; {instead} {one.recomputed}"
        yield f"    {one.explanation}"


def main(words: Sequence[str]) -> int:
    """Print the report, of one table where its number is given; return 1 where something is wrong."""
    found = checks()
    wanted = [int(word) for word in words] or range(1, 10)
    shown_checks = [one for one in found if one.table in wanted]
    print("\n".join(report(shown_checks, [one for one in ERRATA if one.table in wanted])))
    seen = counts(found)
    wrong = faults(found) + [
        f"{name}: {seen[name]}, expected {expected}."
        for name, expected in EXPECTED.items()
        if seen[name] != expected
    ]
    print("\n".join(["The tables and the errata disagree:", *wrong]) if wrong else "Passed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
