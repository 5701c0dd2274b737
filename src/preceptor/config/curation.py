"""Which instructions are chosen: the options of `preceptor instructions`."""

from typing import Literal

from pydantic import Field

from preceptor.config.base import Table, Texts

NGRAM_HELP = (
    "So many words in a row that also stand in an evaluation question leave an instruction out; a shorter "
    "question must be the same as a whole. 8 as open-r1, 13 as GPT-3."
)

Equal = Literal["rows", "tokens"]
"""What every teacher gives as many of to train on."""


class Where(Table):
    """A filter: the first of these columns that a row has must hold one of these values.

    Values are compared as text without regard to case; booleans are "true" and "false". A null is
    dropped; a row without any of the columns is kept, and the report counts it.
    """

    columns: tuple[str, ...] = Field(description="Names of the column, in the order of preference.")
    values: tuple[str, ...] = Field(description="What it may hold.")

    @property
    def reason(self) -> str:
        """What the report says of the rows it drops."""
        return f"other {self.columns[-1]}"

    @property
    def name(self) -> str:
        """The columns in words."""
        return " or ".join(self.columns)


class Exclusion(Table):
    """Which evaluation questions instructions must not overlap with."""

    exclude: Texts = Field(
        (),
        description="File, folder or Hub data set of evaluation questions: leave out what shares words with "
        "one of them.",
    )
    exclude_ngram: int = Field(8, ge=1, description=NGRAM_HELP)


class Curation(Exclusion):
    """What to keep of a set of instructions, and how much of it."""

    count: int | None = Field(None, ge=1, description="Draw N in all. Default: keep all.")
    per_source: int | None = Field(None, ge=1, description="Draw at most N from each source.")
    seed: int = Field(0, ge=-(2**63), lt=2**63, description="Orders the draw.")
    min_characters: int = Field(1, description="Fewest characters of a conversation.")
    max_characters: int | None = Field(None, ge=1, description="Most characters of a conversation.")
    where: tuple[Where, ...] = Field(
        (),
        description="Keep rows whose column has this value, or one of several.",
    )
    near_duplicates: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Of instructions this much alike (Jaccard similarity of word 3-grams, estimated from "
        "128 hashes) keep one; 0 keeps all.",
    )
