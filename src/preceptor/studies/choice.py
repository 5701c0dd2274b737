"""What the default would have cost: regret for each student, beside every other metric, the prior and chance.

The default is chosen by the kind of data alone, by a rule that was written down before this was formed
(docs/explanation/studies.md). Whether something of a metric had been chosen on the outcomes, its record says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from preceptor.agreement.compare import Comparison
from preceptor.agreement.correlation import Array, top_one_regret
from preceptor.ranking.metrics import METRICS
from preceptor.ranking.rank import ORDER_BY
from preceptor.studies.prior import held_out
from preceptor.studies.record import PRIOR, comparison_of, prior_comparison
from preceptor.studies.study import OutcomeStudy, shipped

CHANCE, COMBINED = "chance", "combined"


@dataclass(frozen=True)
class Choice:
    """Points that one student of one study loses by taking each favourite, by metric; 0 is the best.

    `default` is the metric that orders by default on the study's kind of data, "" where it was not
    measured; `reader` is the student that stood in for the study's own. `chance` is a teacher taken at
    random, `combined` the prior and the default together, with weights of other students and families.
    """

    study: str
    student: str
    reader: str
    default: str
    regrets: dict[str, float]


def choices() -> Iterator[Choice]:
    """Yield every student of every shipped study whose scores are known; a control teaches nothing."""
    for one in shipped():
        if one.control or one.orders_only:
            continue
        if one.predictions:
            comparison = comparison_of(one)
            for reader in _readers(comparison):
                yield from _of(one, comparison, reader)
        elif (alone := prior_comparison(one)) is not None:
            yield from _of(one, alone, "")


def _readers(comparison: Comparison) -> tuple[str, ...]:
    """Return the students that stood in, "" where the study's own were read."""
    found = dict.fromkeys(_reader(column.title) for column in comparison.columns)
    return tuple(name for name in found if name) or ("",)


def _reader(title: str) -> str:
    return title.partition(" (")[2].rstrip(")")


def _of(one: OutcomeStudy, comparison: Comparison, reader: str) -> Iterator[Choice]:
    columns = {
        column.metric: column
        for column in comparison.columns
        if column.metric in (*METRICS, PRIOR) and _reader(column.title) in ("", reader)
    }
    default = next((name for name in ORDER_BY[one.kind] if name in columns), "")
    both = held_out(comparison, columns[default].title) if default else ()
    for row, student in enumerate(comparison.students):
        observed: Array = comparison.observed[row]
        regrets = {
            name: top_one_regret(column.predicted[row], observed).points
            for name, column in columns.items()
        }
        regrets |= {COMBINED: both[row].regrets[2]} if both else {}
        regrets[CHANCE] = float(observed.max() - observed.mean())
        yield Choice(one.name, student, reader, default, regrets)
