"""What a claim looks like once it is computed, and how its numbers are worded.

A claim is about several students, pairs or columns, and is true or false of each. So a finding is a list of
cases, and the exceptions that a sentence leaves out are the cases that do not hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Case:
    """One case of a claim: where, whether the claim holds there, and the numbers that show it.

    `claimed` is False where the text does not speak of it, though the same computation applies.
    """

    where: str
    holds: bool
    numbers: str
    claimed: bool = True


@dataclass(frozen=True)
class Finding:
    """A claim and every case of it, recomputed from outcomes.

    `note` is what the cases do not say. Of the paper's claims `source` is where it stands, and `tables`
    where the numbers are.
    """

    name: str
    claim: str
    cases: tuple[Case, ...]
    note: str = ""
    source: str = ""
    tables: tuple[int, ...] = ()

    @property
    def held(self) -> int:
        """In how many of the claimed cases the claim holds."""
        return sum(case.holds for case in self.claimed)

    @property
    def claimed(self) -> tuple[Case, ...]:
        """The cases that the text speaks of."""
        return tuple(case for case in self.cases if case.claimed)

    @property
    def exceptions(self) -> tuple[Case, ...]:
        """The claimed cases in which it does not hold."""
        return tuple(case for case in self.claimed if not case.holds)

    @property
    def beyond(self) -> tuple[Case, ...]:
        """The cases that the text does not speak of."""
        return tuple(case for case in self.cases if not case.claimed)


def place(values: Mapping[str, Decimal], name: str) -> int:
    """Return the rank of a name by its value: 1 is the highest, and a tie shares the better rank."""
    return 1 + sum(value > values[name] for value in values.values())


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"


def signed(change: Decimal) -> str:
    """Return a difference with its sign, to the third decimal where it has one."""
    return f"{change:+.2f}" if change == change.quantize(Decimal("0.01")) else f"{change:+.3f}"


def shown(score: Decimal) -> str:
    """Return a score as printed, of long decimals four digits."""
    return f"{score}" if len(score.as_tuple().digits) <= 5 else f"{score:.4g}"


def named(names: Sequence[str]) -> str:
    """Return the names as a list in a sentence: 'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def mean(values: Sequence[Decimal]) -> Decimal:
    """Return the mean of a non-empty sequence, exact but for a division that does not end."""
    return sum(values, Decimal()) / len(values)


def deviation(values: Sequence[Decimal]) -> Decimal:
    """Return the standard deviation of a sample of at least two, over n - 1."""
    centre = mean(values)
    squares = sum(((value - centre) ** 2 for value in values), Decimal())
    return (squares / (len(values) - 1)).sqrt()
