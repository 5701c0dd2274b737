"""One race of a study: for one student and one source of rewards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from preceptor.ranking.places import Stability
from preceptor.ranking.race.race import Race
from preceptor.ranking.race.result import Racer
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.plan import StudentPlan
    from preceptor.pipeline.race_measures import Measured


@dataclass
class Entry:
    """The race for one student and source of rewards."""

    planned: StudentPlan
    race: Race
    last: Measured
    racers: dict[str, Racer] = field(default_factory=dict)
    warnings: list[Warning] = field(default_factory=list)
    otherwise: dict[str, Stability] = field(default_factory=dict)
    """The last look of each teacher, read otherwise."""

    @property
    def running(self) -> tuple[str, ...]:
        """Who is still asked and scored: nobody once the race is decided."""
        return () if self.race.ending else self.race.running

    def look(self, found: Measured, *, rows: int, before: int) -> None:
        """Look at what was measured, and keep where each teacher stands."""
        metric, self.last = self.race.metric, found
        common, places = found.common(metric.needs)
        fresh = int((places >= before).sum())
        look = self.race.look(common, rows=rows, fresh=fresh, places=places)
        for name, value in look.values.items():
            beaten_by = look.dropped.get(name)
            self.racers[name] = Racer(name, value, rows, look.n, look.behind.get(name), beaten_by)
        if (stability := found.stability(metric)) is not None:
            self.otherwise |= dict.fromkeys(look.values, stability)
        # Of those who left before, what stood there.
        gone = [one for one in self.warnings if one.teachers]
        kept = [one for one in gone if look.values.keys().isdisjoint(one.teachers)]
        new = found.warnings_beside(common, metric)
        self.warnings = list(dict.fromkeys([*kept, *new]))

    def overtaken(self, chosen: str) -> Iterator[Warning]:
        """Yield who left and was ahead of the chosen teacher at its last look, read otherwise."""
        sign = 1 if self.race.metric.higher_is_better else -1
        ahead: dict[str, list[str]] = {}
        for name, stability in self.otherwise.items():
            one = self.racers[name]
            for variant in stability.variants if one.beaten_by and name != chosen else ():
                if sign * (variant.values[name] - variant.values[chosen]) > 0:
                    ahead.setdefault(variant.name, []).append(f"{name} (after {one.rows:,})")
        if ahead:
            parts = [f"{', '.join(names)} under {variant}" for variant, names in ahead.items()]
            text = (
                f"Ahead of {chosen} when they left, after so many prompts: {'; '.join(parts)}. Only one "
                "reading is raced."
            )
            yield Warning("winner-changes", text)
