"""What is compared: the tables `[data]` and `[data.columns]` of a study file."""

from typing import Literal

from pydantic import Field

from preceptor.config.base import Table, Texts

Match = Literal["text", "user-turns", "id"]
"""By what the instructions of several teachers are matched."""


class ReadOptions(Table):
    """What a file's columns mean, where recognition needs overriding; every field is optional.

    Names of columns may be dotted to reach into nested objects (`scores.reward`), and number the parts of
    lists (`response.body.choices.0.message.content`; -1 is the last).
    """

    layout: str = Field(
        "auto",
        description="Layout of the rows: auto, ultrafeedback, magpie, sharegpt, messages, alpaca-eval, "
        "alpaca, prompt-completion, conversation or teacher-columns.",
    )
    instruction_column: str | None = Field(
        None, description="Column with the instruction or the conversation."
    )
    response_column: str | None = Field(None, description="Column with the response.")
    teacher_column: str | None = Field(
        None, description="Column that names the teacher of each row."
    )
    teacher_columns: tuple[str, ...] = Field(
        (), description="Columns that each hold one teacher's responses."
    )
    reference_column: str | None = Field(
        None, description="Column with the checkable answer, for verifiers."
    )
    reference_kind: Literal["auto", "numeric", "math", "choice", "exact", "contains", "none"] = (
        Field(
            "auto",
            description="How plain reference answers are checked; auto decides by the first rows.",
        )
    )
    reasoning_column: str | None = Field(
        None,
        description="Column with the reasoning before each response; by default reasoning_content, "
        "reasoning or thinking. none reads none.",
    )
    match: Match = Field(
        "text",
        description="What makes rows of several teachers answers to one instruction: its text, the user's "
        "turns alone (where each teacher wrote its own earlier turns), or an id.",
    )
    id_column: str | None = Field(
        None,
        description="Column with the id that rows are matched by; by default id, question_id and the like.",
    )
    by_column: str | None = Field(
        None,
        description="Column with the kind of each instruction, for the best teacher of each kind; by default "
        "category or task_category.",
    )
    requests: str | None = Field(
        None,
        description="File of the requests that OpenAI batch output answers; by default found beside it.",
    )
    split: str = Field("train", description="Split to read from a Hub data set or a folder.")
    number_columns: tuple[str, ...] = Field(
        (), description="Numeric columns to carry along, as a reward."
    )


class Data(Table):
    """The responses to compare, or the instructions that teachers are to answer."""

    responses: Texts = Field(
        (), description="Files, folders or Hub data sets with the teachers' responses."
    )
    instructions: Texts = Field(
        (),
        description="Files or Hub data sets with the instructions that the teachers are asked; by default "
        "those of the responses.",
    )
    limit: int | None = Field(
        None,
        ge=2,
        description="Take N instructions, drawn by the seed; a larger N contains a smaller.",
    )
    columns: ReadOptions = Field(
        default_factory=ReadOptions,
        description="What the columns mean, where recognition needs overriding.",
    )
