"""Checkable accuracy: questions with references of the user's, checked as `preceptor rank` checks them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from preceptor.benchmarks.checked import CheckedBenchmark, Marks, Points
from preceptor.benchmarks.questions import Answers, QuestionSet, shown
from preceptor.data.instructions import Prompt, PromptSource
from preceptor.errors import DataError
from preceptor.scorers.verifier.kinds import prepared
from preceptor.scorers.verifier.verifier import NotChecked, verify

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accuracy(CheckedBenchmark):
    """The share of answers that match their reference; questions without one are not asked."""

    name: ClassVar[str] = "accuracy"
    title: ClassVar[str] = "accuracy"
    measures: ClassVar[Mapping[str, str]] = {"ACC": "answers that match their reference"}

    @cached_property
    def _asked(self) -> Mapping[str, Prompt]:
        return referenced(self.files)

    def question_set(self) -> QuestionSet:
        """Return the questions that have a reference; DataError where none has."""
        asked = {key: one.instruction for key, one in self._asked.items()}
        return QuestionSet(self.name, asked, Answers(self.name, "", {}))

    def marks(self, texts: Mapping[str, str]) -> Mapping[str, Marks]:
        """Return whether each answer matches; one that no check comes to an end on is left out."""
        found = {key: matches(text, self._asked[key]) for key, text in texts.items()}
        return {key: {"ACC": Points(one)} for key, one in found.items() if one is not None}


def referenced(files: Sequence[str]) -> dict[str, Prompt]:
    """Return the questions of files that have a reference, by what a judge would be shown.

    Raises:
        DataError: no file is named, one cannot be read, or no row has a reference.
    """
    if not files:
        raise DataError("Nothing is asked: name files of questions with references in 'questions'.")
    found: dict[str, Prompt] = {}
    rows = 0
    for prompt in PromptSource.open(files):
        rows += 1
        if prompt.reference is not None and _usable(prompt.reference):
            found.setdefault(shown(prompt.instruction), prompt)
    if not found:
        raise DataError(
            f"None of {rows} questions in {', '.join(files)} has a reference to check answers against. "
            "Give a column 'reference' or 'answer', or a judge."
        )
    return found


def _usable(reference: Mapping[str, object]) -> bool:
    try:
        prepared(reference)
    except DataError as error:
        logger.warning("A question is left out, whose reference cannot be used: %s", error)
        return False
    return True


def matches(text: str, asked: Prompt) -> float | None:
    """Return what the check of a question says of an answer; None where it came to no end."""
    try:
        return verify(text, asked.reference or {})
    except NotChecked as error:
        logger.warning("An answer is left out: %s", error)
        return None
