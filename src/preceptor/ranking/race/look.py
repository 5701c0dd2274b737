"""What a race shows at a look, and why it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from preceptor.types import Estimate

Ending = Literal["best", "equal", "budget", "rows"]
"""Why a race ends: one teacher is left, those left are equal, the budget is spent, or all rows are seen."""


@dataclass(frozen=True)
class Look:
    """What a race shows after so many rows, of which `n` could be compared.

    `values` are the metric of each teacher in the race, `behind` by how much each is behind the leader
    (the metric's units, positive whatever the direction), with asymptotic bounds that hold at every look.
    `dropped` names those who leave and who beats them, `equal` those within the tolerance of the best.
    """

    rows: int
    n: int
    leader: str
    values: Mapping[str, float]
    behind: Mapping[str, Estimate]
    dropped: Mapping[str, str]
    equal: tuple[str, ...] = ()
