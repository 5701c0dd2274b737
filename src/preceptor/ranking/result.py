"""A ranking as users hold it: its places, and the forms it takes in print, notebooks, JSON and charts.

How it reads is in `verdict` and `table`, its JSON in `record`.
"""

import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from preceptor.errors import require
from preceptor.ranking import record, table
from preceptor.ranking.places import Places
from preceptor.ranking.verdict import Claim, Verdict, claim_in, verdict_of

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Ranking(Places):
    """Teachers from best to worst for one student by one metric; computed once, plain data.

    `print` shows the table, a notebook shows it in HTML, `ranking["name"]` is one teacher's result.
    """

    def __repr__(self) -> str:
        return f"<Ranking of {len(self)} teachers for {self.student} by {self.by}: {self.best.teacher} leads>"

    def __str__(self) -> str:
        return table.plain_text(self)

    def _repr_html_(self) -> str:
        return table.html_table(self)

    def verdict(self) -> Verdict:
        """Return what may be said of the first teacher: a claim, why no more is claimed, and it in words."""
        return verdict_of(self)

    def category_winners(self) -> dict[str, str]:
        """Return the best teacher by category, where one may be named with several categories looked at."""
        named = (one for one in self.categories if claim_in(self, one)[0] is Claim.FIRST)
        return {str(one.name): str(one.best) for one in named}

    def to_records(self) -> list[dict[str, object]]:
        """Return one flat dictionary per teacher, best first, all with the same fields.

        The fields are teacher, rank, n, p_best, every measure, and for every metric its value and
        the ends of its 95% interval as `<metric>_low` and `<metric>_high`. None is no data.
        """
        return [record.flat(self, result) for result in self.teachers]

    def to_dict(self) -> dict[str, object]:
        """Return the whole ranking as plain values fit for JSON: no NaN, no arrays."""
        return record.written(self)

    def to_json(self) -> str:
        """Return the whole ranking as JSON; `from_json` gives an equal one."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Ranking":
        """Return the ranking of `to_json`, or of a file of `preceptor rank --json` that holds one.

        Raises:
            DataError: the text is no ranking, or holds several.
        """
        return cls(**record.read(text))

    def to_frame(self) -> "pandas.DataFrame":
        """Return the records as a data frame, one row per teacher, best first.

        Raises:
            MissingPackage: if pandas is not installed.
        """
        require("pandas", purpose="A data frame")
        import pandas

        return pandas.DataFrame(self.to_records())

    def to_html(self) -> str:
        """Return a page that opens offline: verdict, leaderboard and charts of what the ranking holds.

        Distributions and responses side by side need the store: `preceptor report` shows them.
        """
        return str(_drawing().page_of(self))

    def plot(self, chart: str = "leaderboard") -> Any:
        """Return a chart of the ranking, an `altair.Chart` that a notebook shows and `save` writes.

        Args:
            chart: leaderboard, risk, size, or one of another package.

        Raises:
            MissingPackage: if altair is not installed.
            StudyError: the ranking does not hold what the chart shows, or no chart has this name.
        """
        return _drawing().chart_of(self, chart)


def _drawing() -> Any:
    # The one way upwards: pages and charts stand above this room, which knows nothing of them. The module is
    # named like an entry point and imported when a picture is asked for (docs/explanation/design.md).
    return import_module("preceptor.report.views")
