"""What a race takes: counted from what is stored, so that a race that was killed counts the same again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from preceptor.errors import StudyError
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.score import Step, Stored
from preceptor.pipeline.silence import SILENCE
from preceptor.pipeline.sources import StudySource
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.result import Amounts
from preceptor.scorers.base import USAGE, Fee, Scorer
from preceptor.store.lookup import are_there


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
class _Judging:
    """What one judge took for the responses of a race, each counted once, whoever gave it.

    `told` are those of which the endpoint told the tokens, `asked` and `answered`; the others are taken to be
    like them.
    """

    fee: Fee
    seen: set[bytes] = field(default_factory=set)
    told: int = 0
    asked: float = 0.0
    answered: float = 0.0

    def note(self, step: Step, stored: Stored) -> None:
        """Take down the responses that were judged and are not yet counted."""
        noted = are_there(stored["note"]) & ~np.isin(stored["note"], SILENCE)
        judged = noted | np.isfinite(stored[step.scorer.required[0]])
        columns = (step.keyed.keys, *(stored[name] for name in USAGE), judged)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for key, asked, answered, yes in rows:
            if not yes or key in self.seen:
                continue
            self.seen.add(key)
            if math.isfinite(asked + answered):
                self.told += 1
                self.asked, self.answered = self.asked + asked, self.answered + answered

    @property
    def tokens(self) -> int | None:
        """Those of all requests and answers; None where none was told."""
        told = self.asked + self.answered
        return round(told / self.told * len(self.seen)) if self.told else None

    @property
    def money(self) -> float | None:
        """What they cost; None where there is no price, or no tokens were told."""
        share = len(self.seen) / self.told if self.told else None
        return share and self.fee.money(self.asked * share, self.answered * share)

    @property
    def unknown(self) -> str:
        """Whose money is not known, and why where that is no price."""
        told = self.told or self.fee.money(0, 0) is None
        return self.fee.payee if told else f"{self.fee.payee} (which tells no tokens)"


@dataclass
class Ledger:
    """What all races of a study took until now, each teacher counted once, and the budget.

    Money is what asking costs by the prices of teachers, and judging by those of judges, also where an
    earlier run paid it.
    """

    rows: int
    options: RaceOptions
    costs: list[Amounts] = field(default_factory=list)
    accounts: dict[str, _Account] = field(default_factory=dict)
    judges: dict[str, _Judging] = field(default_factory=dict)
    unpriced: dict[str, None] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def note(self, teacher: str, rows: int, responses: int, tokens: int) -> None:
        """Take down what a teacher's first rows took to score."""
        money = self.accounts[teacher].money if teacher in self.accounts else None
        self.accounts[teacher] = _Account(rows, responses, tokens, money)

    def note_judges(self, scored: Iterable[tuple[Step, Stored]]) -> None:
        """Take down what scorers took that are paid by the token."""
        for step, stored in scored:
            if step.scorer.fee is not None:
                judging = self.judges.setdefault(step.identity.digest, _Judging(step.scorer.fee))
                judging.note(step, stored)

    def close(self, source: StudySource) -> None:
        """Add up a look, with the money for asking whoever was asked.

        Raises:
            StudyError: money is the budget, and a judge does not tell its tokens.
        """
        asked = [job for job in source.jobs if job.name in self.accounts]
        for job in asked:
            self.accounts[job.name].money = paid(job)
            if job.backend.paid and self.accounts[job.name].money is None:
                self.unpriced.setdefault(job.name)
        self.costs.append(self._sum(self.accounts.values()))
        untold = [one.fee.payee for one in self.judges.values() if one.seen and not one.told]
        if self.options.money is not None and untold:
            raise _unpriced(self.options, f"the {untold[0]} does not tell its tokens")

    def allows(self, teachers: Iterable[str], rows: int) -> bool:
        """Tell whether the budget is likely to hold until these teachers have had so many rows."""
        asked = set(teachers)
        after = self._sum(
            one.after(rows) if name in asked else one for name, one in self.accounts.items()
        )
        most = self.options
        return not (
            (most.tokens is not None and after.tokens + (after.judge_tokens or 0) > most.tokens)
            or (most.money is not None and (after.money or 0) > most.money)
            or (most.hours is not None and self._seconds > 3600 * most.hours)
        )

    @property
    def full(self) -> Amounts:
        """What all rows of all teachers take, as far as those seen tell."""
        found = self._sum(one.after(self.rows) for one in self.accounts.values())
        return replace(found, seconds=None)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _sum(self, accounts: Iterable[_Account]) -> Amounts:
        """Add up; what judges take grows with the responses."""
        found = list(accounts)
        responses = sum(one.responses for one in found)
        times = responses / max(1, sum(one.responses for one in self.accounts.values()))
        judges = self.judges.values()
        tokens = [times * one.tokens for one in judges if one.tokens is not None]
        judged = [times * one.money for one in judges if one.money is not None]
        money = [one.money for one in found if one.money is not None]
        unknown = [one.unknown for one in judges if one.money is None]
        return Amounts(
            responses,
            sum(one.tokens for one in found),
            sum(money) + sum(judged) if money or judged else None,
            self._seconds,
            round(sum(tokens)) if tokens else None,
            sum(judged) if judged else None,
            (*self.unpriced, *unknown),
        )


def paid(job: GenerationJob) -> float | None:
    """Return what the job's stored responses cost; None where no price is known."""
    price_in, price_out = job.backend.prices
    if price_in is None or price_out is None:
        return None
    tokens = [(one.prompt_tokens or 0, one.tokens or 0) for one in job.generations()]
    return sum(asked * price_in + given * price_out for asked, given in tokens) / 1e6


def require_prices(source: StudySource, scorers: Iterable[Scorer], options: RaceOptions) -> None:
    """Refuse a budget in money where nothing says what a teacher or a judge costs: it would count as free.

    Raises:
        StudyError: nobody is paid, or one that is has no price.
    """
    if options.money is None:
        return
    fees = [one.fee for one in scorers if one.fee is not None]
    lacking = [f"'{job.name}'" for job in source.jobs if None in job.backend.prices]
    lacking += [f"the {fee.payee}" for fee in fees if fee.money(0, 0) is None]
    if lacking:
        raise _unpriced(options, f"{lacking[0]} has no price")
    if not source.jobs and not fees:
        raise _unpriced(options, "no teacher that is asked has a price")


def _unpriced(options: RaceOptions, why: str) -> StudyError:
    return StudyError(
        f"money = {options.money:g} is the race's budget, and {why}: give price_in and price_out in "
        "[[teachers]] or at its endpoint, or give tokens or hours."
    )
