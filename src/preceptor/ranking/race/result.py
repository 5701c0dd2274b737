"""A race as users hold it: who won or who is equal, what each look showed, what it took."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from preceptor.errors import DataError, StudyError, nearest
from preceptor.ranking.places import FormedMetric, Trust
from preceptor.ranking.race.look import Ending, Look
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.record import plain
from preceptor.ranking.schema import require_version, versioned
from preceptor.types import Estimate, Warning

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from preceptor.ranking.verdict import Verdict


@dataclass(frozen=True)
class Amounts:
    """What a race takes: responses, their tokens, money and seconds; None where not known.

    `judge_tokens` are those of judges' requests and answers, `judge_money` is the part of `money` that they
    cost. `unpriced` names teachers and judges that are paid and are not in the money.
    """

    responses: int
    tokens: int
    money: float | None = None
    seconds: float | None = None
    judge_tokens: int | None = None
    judge_money: float | None = None
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Racer:
    """One teacher of a race.

    `value` is its metric at its last look, on `n` of the `rows` instructions it was scored on; `behind` by
    how much it was behind the leader there (positive whatever the metric's direction), with bounds that hold
    at every look; None for the leader. `beaten_by` is who beat it after these rows, None where it is left.
    `tokens` are those of a response on average, `price` is money for a million of them.
    """

    teacher: str
    value: float
    rows: int
    n: int
    behind: Estimate | None = None
    beaten_by: str | None = None
    tokens: float | None = None
    price: float | None = None
    licence: str | None = None
    free_to_train: bool = False

    @property
    def cost(self) -> float | None:
        """What a response costs on average."""
        known = self.tokens is not None and self.price is not None
        return self.tokens * self.price / 1e6 if known else None  # type: ignore[operator]


@dataclass(frozen=True, repr=False)
class RaceResult:
    """A race that has ended, for one student by one metric.

    `racers` are who is left, the leader first, and then who was dropped, the last first. `rows` is how many
    instructions there are in all. `costs` has what all races of the study had taken at each look, `full` what
    scoring everything takes.
    """

    student: str
    reward: str | None
    by: str
    metric: FormedMetric
    options: RaceOptions
    ending: Ending
    rows: int
    racers: tuple[Racer, ...]
    looks: tuple[Look, ...]
    costs: tuple[Amounts, ...]
    full: Amounts
    settings: Mapping[str, object]
    warnings: tuple[Warning, ...] = ()
    trust: Trust | None = None

    @property
    def leader(self) -> Racer:
        """Who leads at the end, however unsure that is: see `verdict`."""
        return self.racers[0]

    @property
    def left(self) -> tuple[Racer, ...]:
        """Who was not beaten, the leader first."""
        return tuple(one for one in self.racers if one.beaten_by is None)

    @property
    def choice(self) -> tuple[Racer, str | None]:
        """Who is recommended, and by what where several are equal: price, tokens or licence.

        Of equal teachers the cheapest: the lowest cost of a response where all prices are known, then the
        fewest tokens, then a licence that lets students be trained freely.
        """
        if self.ending != "equal":
            return self.leader, None
        priced = all(one.cost is not None for one in self.left)
        counted = all(one.tokens is not None for one in self.left)

        def keys(one: Racer) -> tuple[float, float, bool]:
            return (
                one.cost if priced and one.cost is not None else 0.0,
                one.tokens if counted and one.tokens is not None else 0.0,
                not one.free_to_train,
            )

        first, second = sorted(self.left, key=keys)[:2]
        pairs = zip(("price", "tokens", "licence"), keys(first), keys(second), strict=True)
        return first, next((name for name, one, other in pairs if one != other), None)

    @property
    def spent(self) -> Amounts:
        """What all races of the study took."""
        return self.costs[-1]

    def __getitem__(self, teacher: str) -> Racer:
        """Return one teacher; StudyError for a name that did not race."""
        for one in self.racers:
            if one.teacher == teacher:
                return one
        names = [one.teacher for one in self.racers]
        raise StudyError(
            f"No teacher of this race is called '{teacher}'; raced have {', '.join(names)}."
            f"{nearest(teacher, names)}"
        )

    def __repr__(self) -> str:
        return (
            f"<Race of {len(self.racers)} teachers for {self.student} by {self.by}, ended by "
            f"{self.ending}: {self.leader.teacher} leads>"
        )

    def __str__(self) -> str:
        from preceptor.ranking.race.table import plain_text

        return plain_text(self)

    def verdict(self) -> "Verdict":
        """Return what may be said: a claim, why no more is claimed, and it in words."""
        from preceptor.ranking.race.verdict import verdict_of

        return verdict_of(self)

    def to_records(self) -> list[dict[str, object]]:
        """Return one flat dictionary per teacher, in order; None is no data, or no bound."""
        return [
            {
                "teacher": one.teacher,
                "left": one.beaten_by is None,
                "beaten_by": one.beaten_by,
                "rows": one.rows,
                "n": one.n,
                self.by: plain(one.value),
                **{
                    name: one.behind and plain(getattr(one.behind, part))
                    for name, part in (
                        ("behind", "value"),
                        ("behind_low", "low"),
                        ("behind_high", "high"),
                    )
                },
                "tokens": one.tokens,
                "price": one.price,
                "licence": one.licence,
            }
            for one in self.racers
        ]

    def to_dict(self) -> dict[str, object]:
        """Return the whole race as plain values fit for JSON; a bound that is not there is None."""
        fields = {**asdict(self), "options": self.options.model_dump()}
        extra = {"recommended": self.choice[0].teacher, "verdict": asdict(self.verdict())}
        return versioned({name: plain(value) for name, value in (fields | extra).items()})

    def to_json(self) -> str:
        """Return the whole race as JSON; `from_json` gives an equal one."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "RaceResult":
        """Return the race of `to_json`, or of a file of `preceptor rank --race --json` that holds one.

        Raises:
            DataError: the text is no race, or holds several.
        """
        try:
            found = json.loads(text)
            (found,) = found if isinstance(found, list) else [found]
            require_version(found, "The JSON")
            for one in (*found["racers"], *(b for look in found["looks"] for b in _behind(look))):
                _bounded(one.get("behind", one))
            fields = {name: value for name, value in found.items() if name not in _SAID}
            return _reader().validate_python(fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"The JSON is no race as this version writes it ({type(error).__name__}: {error}). Write it "
                "again with `to_json` or `preceptor rank --race --json`."
            ) from error


_SAID = ("schema_version", "verdict", "recommended")
"""Fields of the JSON that are none of the race's."""


def _behind(look: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(look["behind"].values())


def _bounded(estimate: dict[str, Any] | None) -> None:
    """Put an infinite number for a bound that is not there."""
    for name, none in (("low", -math.inf), ("high", math.inf)):
        if estimate is not None and estimate[name] is None:
            estimate[name] = none


@cache
def _reader() -> "TypeAdapter[RaceResult]":
    from pydantic import TypeAdapter

    return TypeAdapter(RaceResult)
