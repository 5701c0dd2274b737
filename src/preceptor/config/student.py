"""The base models to rank for, `[[students]]`, and how their loss is read, `[reading]`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from preceptor.config.base import ModelTable, Table


class Student(ModelTable):
    """A base model, and how it reads a response."""

    label: str | None = Field(None, min_length=1, description="What tables call it.")

    engine: str = Field(
        "transformers",
        description="What measures likelihoods: transformers; vllm or served (vLLM's server): loss and "
        "rank; echo (a server that echoes): loss; or an engine that another package adds.",
    )

    @property
    def name(self) -> str:
        """The label in tables: as given, else the Hub id or the last part of a path."""
        return self.label or super().name


class Reading(Table):
    """How the paper's L (eq. 3) is read; see docs/reference/metrics.md."""

    conditioning: Literal["conditional", "unconditional"] = Field(
        "conditional", description="Whether the loss is conditional on the instruction."
    )
    reduction: Literal["token-mean", "sequence-sum", "corpus-token-mean"] = Field(
        "token-mean", description="How token losses become the loss of a teacher."
    )
    include_end_of_turn: bool = Field(
        False, description="Count the token that ends the turn as part of the response."
    )

    turns: Literal["last", "all"] = Field(
        "last",
        description="Which of the assistant's turns count: the last, or all of them in one pass.",
    )
    reasoning: Literal["keep", "cut", "apart"] = Field(
        "keep",
        description="What of a reasoning trace counts: all, nothing (the answer is read without it), or all "
        "with measures of trace and answer apart.",
    )

    @property
    def is_plain(self) -> bool:
        """Whether the loss is the conditional mean over the tokens of a response."""
        return (self.conditioning, self.reduction) == ("conditional", "token-mean")


def distinct(students: Sequence[Student]) -> tuple[Student, ...]:
    """Return the students with labels where folders share their last names: as many parts as it takes."""
    found = list(students)
    for name in {student.name for student in students}:
        alike = [place for place, one in enumerate(students) if one.name == name and not one.label]
        paths = [Path(os.path.abspath(students[place].model)) for place in alike]
        if len(set(paths)) < 2 or not all(os.path.exists(students[place].model) for place in alike):
            continue
        for parts in range(2, max(len(path.parts) for path in paths)):
            labels = ["/".join(path.parts[-parts:]) for path in paths]
            if len(set(labels)) == len(set(paths)):
                break
        for place, label in zip(alike, labels, strict=True):
            found[place] = students[place].model_copy(update={"label": label})
    return tuple(found)
