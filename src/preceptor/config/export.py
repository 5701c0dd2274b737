"""What `export` writes of a study: which responses, and in which form."""

from typing import Literal

from pydantic import Field, model_validator

from preceptor.config.base import Rule
from preceptor.config.curation import Equal, Exclusion

Layout = Literal["messages", "alpaca", "sharegpt"]
Format = Literal["jsonl", "parquet"]


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
    equal: Equal = Field(
        "rows",
        description="What every teacher's data set would have as many of: rows, or target tokens, to within "
        "a response: of a longer teacher fewer instructions, in the order drawn.",
    )
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
        if self.equal == "tokens" and (self.each or self.pairs or self.every_sample):
            raise ValueError(
                "equal = 'tokens' is for the data set of one teacher, with one response to an instruction: "
                "leave out each, pairs and every_sample, or equal"
            )
        return self
