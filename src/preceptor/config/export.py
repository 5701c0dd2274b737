"""What `export` writes of a study: which responses, and in which form."""

from typing import Literal

from pydantic import Field, model_validator

from preceptor.config.curation import Exclusion

Layout = Literal["messages", "alpaca", "sharegpt"]
Format = Literal["jsonl", "parquet"]
Rule = Literal["reward", "car", "persyn"]
"""A score of single responses."""


class Export(Exclusion):
    """Which responses of a study to write; without a teacher and a rule, those of the best teacher."""

    layout: Layout = Field("messages", description="Layout of the rows.")
    format: Format = Field("jsonl", description="Format of the file.")
    complete: bool = Field(
        False, description="After a race: ask its winner for all other instructions too."
    )
    teacher: str | None = Field(
        None, description="Whose responses to take. Default: the best of the ranking."
    )
    each: Rule | None = Field(
        None,
        description="Take the best response to each instruction instead, by this score of single responses.",
    )
    pairs: bool = Field(
        False, description="Write the best and the worst response, for preference tuning."
    )
    margin: float = Field(
        0.0, ge=0, description="Only pairs whose scores are further apart, in units of the score."
    )
    student: str | None = Field(None, description="For whom, where the study has several students.")
    reward: str | None = Field(None, description="By which reward, where the study has several.")
    every_sample: bool = Field(False, description="Take all samples of the teacher.")
    overwrite: bool = Field(False, description="Replace what was exported there before.")

    @model_validator(mode="after")
    def _one_choice(self) -> "Export":
        if self.teacher and (self.each or self.pairs):
            raise ValueError(
                f"the teacher '{self.teacher}' is named, and responses are to be picked for each "
                "instruction: choose one of the two"
            )
        if self.margin and not self.pairs:
            raise ValueError("a margin is given without pairs: ask for pairs, or leave it out")
        return self
