"""Robustness: the same questions with typos, in another format, and in other words; the score on these.

Questions have references and are written for the project, or the user's file, in which a column `paraphrase`
may hold each in other words. What is compared is paired: a question is resampled with all its forms. The
order is by the score on what is put otherwise and not by the drop: a model that answers nothing has nothing
to lose, and would be first. The change stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from preceptor.benchmarks.accuracy.benchmark import matches, referenced
from preceptor.benchmarks.checked import CheckedBenchmark, Marks, Points, shipped
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.robustness.perturbations import ways_to_ask
from preceptor.data.instructions import Prompt

PLAIN = "plain"


@dataclass(frozen=True)
class Robustness(CheckedBenchmark):
    """Accuracy when questions are put otherwise, and the change; see the module."""

    name: ClassVar[str] = "robustness"
    title: ClassVar[str] = "robustness"
    measures: ClassVar[Mapping[str, str]] = {
        "perturbed": "accuracy on the questions put otherwise, every question counting the same",
        "plain": "accuracy on the questions as they are",
        "change": "points of accuracy gained when questions are put otherwise; a drop is negative",
        "change_typos": "the change with typos",
        "change_format": "the change in another format",
        "change_paraphrase": "the change in other words",
    }
    changes: ClassVar[frozenset[str]] = frozenset(measures) - {"perturbed", PLAIN}

    @cached_property
    def _asked(self) -> Mapping[str, Prompt]:
        return referenced(self.files or (shipped(__package__),))

    def question_set(self) -> QuestionSet:
        """Return the questions as they are; DataError where none has a reference."""
        asked = {key: one.instruction for key, one in self._asked.items()}
        return QuestionSet(self.name, asked, Answers(self.name, "", {}))

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return at most `limit` questions, each in all its forms."""
        drawn = self.question_set().drawn(limit)
        forms = {_id(PLAIN, key): asked for key, asked in drawn.instructions.items()}
        for key in drawn.instructions:
            forms |= {_id(way, key): asked for way, asked in ways_to_ask(self._asked[key])}
        return QuestionSet(self.name, forms, drawn.baseline)

    def marks(self, texts: Mapping[str, str]) -> Mapping[str, Marks]:
        """Return the change of each question whose plain form and some other were answered."""
        forms: dict[str, dict[str, float]] = {}
        for name, text in texts.items():
            way, _, key = name.partition(" ")
            if (right := matches(text, self._asked[key])) is not None:
                forms.setdefault(key, {})[way] = right
        return {key: _marks(own) for key, own in forms.items() if PLAIN in own and len(own) > 1}

    def notes(self, judge: str | None = None) -> list[str]:
        """Return whose questions these are, and that little can be lost by who knows little."""
        few = (
            "The order is by accuracy on questions put otherwise: a model that answers few has little to "
            "lose, so the change alone orders nobody."
        )
        own = f"The {len(self._asked)} questions are written for the project and are no published benchmark."
        return [few] if self.files else [few, own]


def _id(way: str, key: str) -> str:
    return f"{way} {key}"


def _marks(forms: Mapping[str, float]) -> Marks:
    others = {way: right for way, right in forms.items() if way != PLAIN}
    perturbed, plain = sum(others.values()) / len(others), forms[PLAIN]
    means = {"perturbed": perturbed, PLAIN: plain, "change": perturbed - plain}
    by_way = {f"change_{way}": right - plain for way, right in others.items()}
    return {name: Points(value) for name, value in {**means, **by_way}.items()}
