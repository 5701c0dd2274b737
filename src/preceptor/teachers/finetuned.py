"""A student that answers: untuned as it is, or with the weights it got in a tuning.

A tuned student is known by its tuning (student, rows, recipe, template) and not by its files,
so what it answered stays known before the model exists and after it was deleted.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from preceptor.engines.models import LocatedModel
from preceptor.teachers.local import LocalTeacher


class TunedStudent(LocalTeacher):
    """The untuned student with other weights: template, tokenizer, precision and sampling are its own.

    Args:
        untuned: the student before the tuning, and how it is asked.
        name: the label of the tuned one.
        tuning: digest of what was trained; part of the identity.
        folder: the tuned model's, which must exist only when something is to be answered.
    """

    def __init__(self, untuned: LocalTeacher, *, name: str, tuning: str, folder: Path) -> None:
        super().__init__(untuned.teacher.model_copy(update={"label": name}), untuned.runtime)
        self._untuned, self._tuning, self._folder = untuned, tuning, folder

    @cached_property
    def located(self) -> LocatedModel:
        """The student's tokenizer and config, and the weights of the tuning."""
        return replace(
            self._untuned.located,
            name=self.teacher.name,
            source=str(self._folder),
            revision=None,
            identity={"tuned": self._tuning},
            content=None,
        )

    def fastest_pace(self, batch: int) -> float | None:
        """Return the untuned student's: the weights are as many, and may not be there yet."""
        return self._untuned.fastest_pace(batch)
