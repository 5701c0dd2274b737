"""One student fine-tuned on one teacher's responses: named before it exists, trained once.

Its name follows from student, rows and recipe, so what the store holds of it is found without the model;
weights are loaded only where an answer is missing.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preceptor.config.finetune import Evaluate, Train
from preceptor.config.recipe import Recipe
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.teachers import TeacherPoint
from preceptor.errors import StudyError, require
from preceptor.finetuning.checkpoint import TrainingFolder, fine_tuned_identity
from preceptor.finetuning.dataset import Conversations
from preceptor.finetuning.estimate import estimate_of, require_room
from preceptor.finetuning.finetune import carry_out
from preceptor.finetuning.prepared import Prepared, Sizes, prepare, sizes_of
from preceptor.finetuning.trainer import Moment
from preceptor.pipeline.work import Amount, Progress
from preceptor.store.identity import Identity
from preceptor.teachers.finetuned import TunedStudent
from preceptor.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from preceptor.validation.training_set import TrainingSet


CUT = "a response would be cut at max_length"
"""Why `whole_only` leaves an instruction out."""


def models_folder(runtime: Runtime) -> Path:
    """Return where fine-tuned models lie, `<store>/models`.

    Raises:
        StudyError: the store is not on this machine.
    """
    from fsspec.core import split_protocol

    protocol, path = split_protocol(runtime.store)
    if protocol not in (None, "file", "local"):
        raise StudyError(
            f"The store '{runtime.store}' is not on this machine, and models are trained on a disk. Give "
            "runtime.store a local folder."
        )
    return Path(path).expanduser() / "models"


def require_trainer() -> None:
    """Make sure that students can be fine-tuned here, before anything is paid for.

    Raises:
        MissingPackage: TRL is not installed.
    """
    require("trl", purpose="Fine-tuning a student")


@dataclass(frozen=True)
class StudentSetup:
    """A student about to be fine-tuned: how it is trained and, tuned or not, how it answers."""

    student: Student
    recipe: Recipe
    untuned: LocalTeacher

    @property
    def name(self) -> str:
        """The student's label."""
        return self.student.name

    def training_set(self, training_set: TrainingSet, train: Train) -> TrainingSet:
        """Return what this student is fine-tuned on: only its tokenizer knows what would be cut."""
        if train.whole_only:
            kept = set(training_set.instructions)
            for own in self._sizes(training_set).values():
                kept &= {place for place, size in own.items() if size.whole}
            training_set = training_set.kept(kept, CUT)
        if not training_set.instructions:
            raise StudyError(
                f"No instruction has a response of every teacher within max_length = "
                f"{self.recipe.max_length:,} tokens for {self.name}. Raise it, or leave whole_only out."
            )
        training_set = training_set.first(train.rows)
        if train.equal == "tokens":
            sizes = self._sizes(training_set)
            return training_set.with_equal_tokens(
                {
                    teacher: {place: size.trained for place, size in own.items()}
                    for teacher, own in sizes.items()
                }
            )
        return training_set

    def _sizes(self, training_set: TrainingSet) -> dict[str, dict[int, Sizes]]:
        found = {}
        for teacher in training_set.teachers:
            texts = training_set.texts(teacher)
            sizes = sizes_of(self.untuned.located, list(texts.values()), self.recipe)
            found[teacher] = dict(zip(texts, sizes, strict=True))
        return found


def setup_of(
    student: Student, train: Train, evaluate: Evaluate, *, runtime: Runtime
) -> StudentSetup:
    """Return the student with its recipe, and how it answers; nothing is loaded."""
    recipe = train.recipe(student.chat_template).on(runtime)
    asked = TeacherPoint(
        label=f"{student.name}, untuned",
        model=student.model,
        engine="transformers",
        temperature=evaluate.temperature,
        max_tokens=evaluate.max_tokens,
        revision=student.revision,
        chat_template=recipe.chat_template,
        dtype=recipe.dtype,
    )
    return StudentSetup(student, recipe, LocalTeacher(asked, runtime))


@dataclass(frozen=True)
class FinetuneJob:
    """One student and one teacher's responses; `run` counts the runs over them from 1."""

    setup: StudentSetup
    teacher: str
    conversations: Conversations
    runtime: Runtime
    run: int = 1

    @property
    def name(self) -> str:
        """The label in progress."""
        return f"{self.setup.name} fine-tuned on {self.label}"

    @property
    def label(self) -> str:
        """What its answers are judged as."""
        return self.teacher if self.run == 1 else f"{self.teacher}, run {self.run}"

    @property
    def recipe(self) -> Recipe:
        """The student's recipe with the run's own seed; the first run's is the recipe's."""
        recipe = self.setup.recipe
        return recipe.model_copy(update={"seed": (recipe.seed + self.run - 1) % 2**32})

    @cached_property
    def identity(self) -> Identity:
        """What names the fine-tuned model."""
        rows = self.conversations.digest
        return fine_tuned_identity(self.setup.untuned.located, rows, self.recipe)

    @property
    def folder(self) -> Path:
        """Where the fine-tuned model lies, or will."""
        return models_folder(self.runtime) / self.identity.digest

    def finished(self) -> Mapping[str, Any] | None:
        """Return what is recorded of the finished job; None where the model is not there."""
        return TrainingFolder(self.folder).finished(self.identity)

    def backend(self) -> TunedStudent:
        """Return the fine-tuned student, to be asked; its model must exist only if it is."""
        untuned, digest = self.setup.untuned, self.identity.digest
        return TunedStudent(untuned, name=self.name, tuning=digest, folder=self.folder)

    def prepared(self) -> Prepared:
        """Return rows, tokens and steps of the job."""
        student = self.setup.untuned.located
        return prepare(student, self.conversations, self.recipe, runtime=self.runtime)

    def carry_out(self, progress: Progress) -> None:
        """Train, or go on where an earlier run was stopped; what is finished is left alone.

        Raises:
            StudyError: the disk has no room, or another process is training the same.
            ModelError: the student cannot be trained.
        """
        if self.finished() is not None:
            return
        prepared = self.prepared()
        require_room(estimate_of(prepared, self.conversations.left_out), self.folder)
        total = len(prepared.rows.rows) * prepared.recipe.epochs
        progress.begin(f"{self.name}, rows", 0, Amount(total, total))
        with _alone(self.folder):
            carry_out(prepared, self.folder, watch=_Rows(progress, total))
        progress.end()
        # The trainer holds itself in a circle, and the next model needs its memory.
        gc.collect()


class _Rows:
    """Tells the progress how many rows the steps have gone through."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, moment: Moment) -> None:
        done = round(self._total * moment.step / moment.total)
        self._progress.advance(Amount(done - self._done, done - self._done))
        self._done = done


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process from training in the same folder; a lock goes with its process.

    Raises:
        StudyError: another process is at it.
    """
    if os.name == "nt":  # Windows has no such lock
        yield
        return
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(
                f"Another process is training the model in {folder}. Wait until it is finished, and run "
                "again."
            ) from error
        yield
