"""What a report shows of a ranking beyond the ranking itself: curves, distributions, examples.

Plain frozen data between what gathers it from the store (`run/ranked.py`) and what draws it (`report/`),
neither of which knows the other. Teachers come in the ranking's order, best first; texts are as models wrote
them and must be escaped by whoever shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.agreement.table import AgreementTable
from preceptor.ranking.result import Ranking
from preceptor.validation.dimensions import DimensionTable

if TYPE_CHECKING:
    from preceptor.ranking.sensitivity import BetaSweep


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """One measure's distribution over instructions, a row for each teacher.

    `edges` (bins + 1,) are shared by all teachers so that they compare; `counts` has shape (teachers,
    bins), its first and last bin holding what lies outside; `quantiles` (teachers, 5) are the 5th, 25th,
    50th, 75th and 95th percentile, NaN where a teacher has none.
    """

    measure: str
    edges: Array
    counts: Array
    quantiles: Array


Role = Literal["context", "answer", "reasoning", "cut"]


@dataclass(frozen=True)
class ShownToken:
    """A token's id, text and role; `loss` in nats and `rank` from 1, None where none is stored."""

    id: int
    text: str
    role: Role
    loss: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Answer:
    """One teacher's response as it is shown. `text` is None where there is none, and `note` says why.

    `scores` are its measures (reward, loss, length...), None for no data. `tokens` are the response's under
    the student's chat template, as `preceptor tokens` has them, where token statistics were kept; `context`
    is what stands before them there, its beginning cut where it is long. `left_out` counts characters cut
    from the end to keep the page small, `trace` those of reasoning at the beginning of `text`.
    """

    teacher: str
    text: str | None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    tokens: tuple[ShownToken, ...] = ()
    left_out: int = 0
    note: str | None = None
    trace: int = 0
    context: str = ""


@dataclass(frozen=True)
class Example:
    """One instruction with all teachers' answers side by side.

    `disagreement` is how far the teachers are apart on it, for sorting, larger is further: the standard
    deviation over teachers of their responses' own CAR (of the loss, where CAR was not formed) in units of
    that over all teachers and instructions. `left_out` counts characters cut from the instruction's end.
    """

    instruction: str
    category: str | None
    disagreement: float
    answers: tuple[Answer, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Change:
    """What would change the answer: under `condition` the winner is `winner` rather than today's.

    Where several `tie` for the first place, `winner` names them all.
    """

    condition: str
    winner: str
    tie: bool = False

    @property
    def does(self) -> str:
        """The verb of a sentence about the winner."""
        return "tie" if self.tie else "wins"


@dataclass(frozen=True)
class RankingData:
    """One ranking and what stands behind it.

    `families` and `sizes` (billions of parameters, None where unknown) are by teacher. `changes` are the
    settings that were tried under which another teacher wins; `tried` names all that were. `examples` are
    the most disagreed-upon first, of `examples_of` instructions compared. `tokens` is each teacher's mean
    number of tokens per response, by the student's tokenizer, where known.
    """

    ranking: Ranking
    families: Mapping[str, str]
    sizes: Mapping[str, float | None]
    sweep: BetaSweep | None = None
    distributions: tuple[Distribution, ...] = ()
    changes: tuple[Change, ...] = ()
    tried: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    examples_of: int = 0
    tokens: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything one page shows. `command` and `study_file` (TOML text) say how to make it again.

    `versions` are the packages that made the numbers. `outcome` says in words where `agreement`'s observed
    order comes from, `conclusions` whether the predictions held. `dimensions` has a table for each student
    where several were observed.
    """

    rankings: tuple[RankingData, ...]
    title: str
    command: str
    study_file: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    agreement: AgreementTable | None = None
    outcome: str | None = None
    conclusions: tuple[str, ...] = ()
    dimensions: tuple[DimensionTable, ...] = ()
