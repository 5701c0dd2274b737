"""What a race takes: counted from what is stored, so that a race that was killed counts the same again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from preceptor.errors import StudyError
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.sources import StudySource
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.result import Amounts


@dataclass
class _Account:
    """One teacher's: what its first `rows` took."""

    rows: int
    responses: int
    tokens: int
    money: float | None

    def after(self, rows: int) -> _Account:
        """Return what so many rows take, as far as those seen tell."""
        times = rows / self.rows
        money = None if self.money is None else self.money * times
        return _Account(rows, round(self.responses * times), round(self.tokens * times), money)


@dataclass
class Ledger:
    """What all races of a study took until now, each teacher counted once, and the budget.

    Money is what asking costs by the prices of teachers, also where an earlier run paid it.
    """

    rows: int
    options: RaceOptions
    costs: list[Amounts] = field(default_factory=list)
    accounts: dict[str, _Account] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def note(self, teacher: str, rows: int, responses: int, tokens: int) -> None:
        """Take down what a teacher's first rows took to score."""
        money = self.accounts[teacher].money if teacher in self.accounts else None
        self.accounts[teacher] = _Account(rows, responses, tokens, money)

    def close(self, source: StudySource) -> None:
        """Add up a look, with the money for asking whoever was asked."""
        for job in source.jobs:
            if job.name in self.accounts:
                self.accounts[job.name].money = paid(job)
        self.costs.append(self._sum(self.accounts.values()))

    def allows(self, teachers: Iterable[str], rows: int) -> bool:
        """Tell whether the budget is likely to hold until these teachers have had so many rows."""
        asked = set(teachers)
        after = self._sum(
            one.after(rows) if name in asked else one for name, one in self.accounts.items()
        )
        most = self.options
        return not (
            (most.tokens is not None and after.tokens > most.tokens)
            or (most.money is not None and (after.money or 0) > most.money)
            or (most.hours is not None and self._seconds > 3600 * most.hours)
        )

    @property
    def full(self) -> Amounts:
        """What all rows of all teachers take, as far as those seen tell."""
        found = self._sum(one.after(self.rows) for one in self.accounts.values())
        return Amounts(found.responses, found.tokens, found.money)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _sum(self, accounts: Iterable[_Account]) -> Amounts:
        found = list(accounts)
        money = [one.money for one in found if one.money is not None]
        return Amounts(
            sum(one.responses for one in found),
            sum(one.tokens for one in found),
            sum(money) if money else None,
            self._seconds,
        )


def paid(job: GenerationJob) -> float | None:
    """Return what the job's stored responses cost; None where no price is known."""
    price_in, price_out = job.backend.prices
    if price_in is None or price_out is None:
        return None
    tokens = [(one.prompt_tokens or 0, one.tokens or 0) for one in job.generations()]
    return sum(asked * price_in + given * price_out for asked, given in tokens) / 1e6


def require_prices(source: StudySource, options: RaceOptions) -> None:
    """Refuse a budget in money where nothing says what an asked teacher costs: it would count as free.

    Raises:
        StudyError: nobody is asked, or a teacher that is asked has no price.
    """
    lacking = [job.name for job in source.jobs if None in job.backend.prices]
    if options.money is not None and (lacking or not source.jobs):
        who = f"'{lacking[0]}' has no price" if lacking else "no teacher that is asked has a price"
        raise StudyError(
            f"money = {options.money:g} is the race's budget, and {who}: give price_in and price_out in "
            "[[teachers]] or at its endpoint, or give tokens or hours."
        )
