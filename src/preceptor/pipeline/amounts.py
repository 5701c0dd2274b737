"""Fair amounts: every teacher gives as many target tokens, instead of as many rows.

Teachers differ tenfold in length, and a student that learns from as many rows of a longer one learns longer.
Instructions are the same for all, in the order drawn; of longer teachers the last are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.cl100k import count_tokens
from preceptor.engines.local import LocalModel
from preceptor.errors import ModelError, StudyError
from preceptor.pipeline.select import of_teacher
from preceptor.types import Response

if TYPE_CHECKING:
    from preceptor.config.runtime import Runtime
    from preceptor.config.student import Student
    from preceptor.data.overlap import EvaluationQuestions
    from preceptor.data.table import ResponseTable
    from preceptor.engines.encoder import Encoder

NOT_COMMON = "not every teacher answered the instruction"
"""Why a row is left out where amounts are to be equal."""

CL100K = "cl100k_base"
"""The encoding that counts where no student is known, as `length` does."""


@dataclass(frozen=True)
class FirstOf:
    """The first `count` of the instructions, and in words why no more."""

    count: int
    why: str


def equal_tokens(sizes: Mapping[str, Sequence[int] | NDArray[np.int64]]) -> dict[str, FirstOf]:
    """Return of how many instructions each teacher gives as many tokens, to within a response.

    Args:
        sizes: teacher -> target tokens of its response to each instruction, in one order for all.

    Raises:
        StudyError: a teacher gives none.
    """
    held = {teacher: np.cumsum(own) for teacher, own in sizes.items()}
    if without := [teacher for teacher, sums in held.items() if not sums[-1]]:
        raise StudyError(
            f"{', '.join(without)}: no response has a token to train on, since the student's template "
            "refuses them or all overlap with evaluation questions. Leave the teacher or equal out."
        )
    least = min(int(sums[-1]) for sums in held.values())
    found = {}
    for teacher, sums in held.items():
        count = int(np.searchsorted(sums, least, side="right"))
        given = int(sums[:count].max(initial=0))
        why = f"teachers give {least:,} tokens to train on at most, this one {given:,}"
        found[teacher] = FirstOf(count, why)
    return found


@dataclass(frozen=True)
class TargetTokens:
    """Counts the tokens of a response that a student is trained on.

    They are the student's under its chat template, without the context; without a student those of
    `cl100k_base` in the text.
    """

    student: Student | None
    runtime: Runtime

    @cached_property
    def _encoder(self) -> Encoder | None:
        return LocalModel(self.student, self.runtime).encoder if self.student else None

    @property
    def by(self) -> str:
        """What counts, in words."""
        return f"the tokenizer of {self.student.name}" if self.student else CL100K

    def __call__(self, response: Response) -> int:
        """Return the number; 0 where the student's template refuses the conversation.

        Raises:
            ModelError: the student is not found, or has no tokenizer.
        """
        text, asked, encoder = response.text or "", response.instruction, self._encoder
        if encoder is None:
            return count_tokens(text)
        calls = response.tool_calls
        try:
            return len(
                encoder.encode(asked.messages, text, tools=asked.tools, calls=calls).response
            )
        except ModelError:
            return 0


def sizes_of(
    source: Iterable[Response],
    table: ResponseTable,
    places: Sequence[int],
    *,
    count: TargetTokens,
    barred: EvaluationQuestions | None,
) -> dict[str, NDArray[np.int64]]:
    """Return by teacher the target tokens of its first sample for each of these instructions.

    What overlaps with barred questions counts nothing, because it is not trained on.
    """
    column = {place: at for at, place in enumerate(places)}
    found = {teacher: np.zeros(len(places), np.int64) for teacher in table.teachers}
    waiting: dict[bytes, list[tuple[str, int]]] = {}
    for teacher in table.teachers:
        for row in of_teacher(table, teacher).rows.tolist():
            if (at := column.get(int(table.instruction[row]))) is not None:
                waiting.setdefault(table.keys[row].item(), []).append((teacher, at))
    for response in source:
        if response.text is None or response.key not in waiting:
            continue
        overlaps = barred is not None and barred.overlap(response.instruction)
        size = 0 if overlaps else count(response)
        for teacher, at in waiting.pop(response.key):
            found[teacher][at] = size
    return found
