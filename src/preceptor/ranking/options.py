"""How a ranking is formed, and the names of what forms it.

Nothing here loads NumPy: reading a study file and printing help must not wait for it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from preceptor.errors import StudyError, nearest

METRIC_NAMES = (
    "car",
    "reward",
    "loss",
    "perplexity",
    "ifd",
    "length",
    "rsr",
    "likelihood",
    "information",
    "ppl_gpt2",
    "ifd_gpt2",
    "persyn",
    "brier",
    "rank_1",
    "lark_rho",
    "lark",
    "scas",
    "aslec_drop",
    "g_norm",
    "grace",
)
"""The metrics of this package, as `ranking.metrics.METRICS` has them."""

TRANSFORM_NAMES = ("raw", "sigmoid", "shift-min", "minmax")
"""The transforms of rewards, as `ranking.metrics.TRANSFORMS` has them."""


OF_POOL = ("shift-min", "minmax")
"""Those of them that look at all rewards at once."""


class RankingOptions(BaseModel):
    """How a ranking is formed, apart from its metrics: the table `[ranking]` of a study file.

    Raises:
        StudyError: for an unknown transform, fewer than one draw, or a coverage outside 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n_resamples: int = Field(2000, description="Draws behind P(first) and the ranks.")
    seed: int = Field(0, description="Seed of the resamples, and of the limit's draw.")
    transform: str = Field(
        "raw",
        description=f"{', '.join(TRANSFORM_NAMES)}: applied to the rewards of the compared instructions.",
    )
    kind: Literal["auto", "chat", "reasoning", "agent"] = Field(
        "auto",
        description="What the responses are: answers, answers after long reasoning, or actions with tools; "
        "it decides what orders by default. auto reads it off them.",
    )
    min_coverage: float = Field(
        0.5, description="Refuse a ranking on a smaller share of the instructions asked for."
    )

    @model_validator(mode="after")
    def _usable(self) -> "RankingOptions":
        if self.transform not in TRANSFORM_NAMES:
            raise StudyError(
                f"No reward transform is called '{self.transform}'; known are "
                f"{', '.join(TRANSFORM_NAMES)}.{nearest(self.transform, TRANSFORM_NAMES)}"
            )
        if self.n_resamples < 1 or not 0 <= self.min_coverage <= 1:
            raise StudyError(
                f"n_resamples = {self.n_resamples}, min_coverage = {self.min_coverage}: expected "
                "at least 1 resample (2000 is usual) and a coverage of 0 to 1."
            )
        return self
