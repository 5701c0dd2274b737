"""How a race is run and when it stops. Nothing here loads NumPy: printing help must not wait for it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RaceOptions(BaseModel):
    """How a race is run and when it stops: the table `[race]` of a study file."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Probability that the best teacher is never dropped."
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Teachers whose metric is within this share of the best are equal; the cheapest of "
        "them is recommended.",
    )
    start: int = Field(50, ge=20, description="Instructions before the first look.")
    target: Literal["population", "pool"] = Field(
        "population",
        description="Best for prompts like these (population), or on these very prompts (pool).",
    )
    method: Literal["asymptotic", "betting"] = Field(
        "asymptotic",
        description="Bounds: asymptotic, for any metric; or betting, exact at every size, for rewards "
        "within 0 to 1 and losses of at most max_loss.",
    )
    max_loss: float | None = Field(
        None, gt=0, description="Bound on the loss, for betting; a larger loss counts as this."
    )
    tokens: int | None = Field(
        None, gt=0, description="Stop when so many tokens were scored, with those that judges took."
    )
    money: float | None = Field(
        None, gt=0, description="Stop when so much was paid, to teachers and judges."
    )
    hours: float | None = Field(None, gt=0, description="Stop after so many hours.")
