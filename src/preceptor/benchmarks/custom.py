"""A study's own questions as a benchmark: no published baseline, judge or rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from preceptor.benchmarks.base import Benchmark
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.errors import DataError
from preceptor.types import Instruction


@dataclass(frozen=True)
class CustomQuestions(Benchmark):
    """Questions by the text that a judge is shown, against any model's answers."""

    name: ClassVar[str] = "custom"
    title: ClassVar[str] = "questions of the study"

    instructions: Mapping[str, Instruction] = field(default_factory=dict)

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return the questions; those that the baseline answered where one is given.

        Raises:
            DataError: the baseline answered none of them.
        """
        nobody = Answers(self.name, "", {})
        if baseline is None:
            return QuestionSet(self.name, self.instructions, nobody).drawn(limit)
        asked = {text: one for text, one in self.instructions.items() if text in baseline.texts}
        if not asked:
            raise DataError(
                f"The baseline '{baseline.model}' answers none of the questions. Give answers to the same "
                "questions, or baseline = 'student'."
            )
        return QuestionSet(self.name, asked, replace(baseline, benchmark=self.name)).drawn(limit)
