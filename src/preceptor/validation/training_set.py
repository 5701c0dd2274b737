"""What students are fine-tuned on: the same instructions for every teacher, answered by each.

Which instructions is settled once, from columns; texts are streamed, one teacher's at a time. The order is
the one in which the study draws what it compares, so more `rows` only add to fewer.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from preceptor.config.finetune import Train
from preceptor.data.gather import Source
from preceptor.data.overlap import OVERLAP, EvaluationQuestions, Overlap, overlap_notes
from preceptor.data.table import ResponseTable
from preceptor.errors import StudyError, nearest
from preceptor.finetuning.dataset import Conversation, Conversations, conversations_of
from preceptor.pipeline.amounts import FirstOf, equal_tokens
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.select import Picked, examples, of_teacher
from preceptor.types import Message, Warning


@dataclass(frozen=True)
class TrainingSet:
    """Instructions to train on, in the order drawn, as places in the response table.

    `left_out` counts by reason the instructions that every teacher answered and that are not trained on;
    `overlaps` says what those share with evaluation questions that were left out for it. Of a teacher in
    `first_of` only so many are trained on, the first.
    """

    source: Source
    table: ResponseTable
    teachers: tuple[str, ...]
    instructions: tuple[int, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    overlaps: tuple[Overlap, ...] = ()
    first_of: Mapping[str, FirstOf] = field(default_factory=dict)

    def of(self, teacher: str) -> tuple[int, ...]:
        """Return the instructions that a student is fine-tuned on with this teacher's responses."""
        first = self.first_of.get(teacher)
        return self.instructions[: first.count] if first else self.instructions

    def with_equal_tokens(self, sizes: Mapping[str, Mapping[int, int]]) -> "TrainingSet":
        """Return the training set of which every teacher gives as many tokens, to within a response.

        Args:
            sizes: teacher -> instruction -> tokens of its response that are trained on.
        """
        held = {
            teacher: [own.get(place, 0) for place in self.instructions]
            for teacher, own in sizes.items()
        }
        return replace(self, first_of=equal_tokens(held))

    def first(self, rows: int | None) -> "TrainingSet":
        """Return the training set of at most so many instructions."""
        return replace(self, instructions=self.instructions[:rows])

    def kept(self, places: Collection[int], reason: str) -> "TrainingSet":
        """Return the training set of these instructions alone; the others are counted under the reason."""
        left = tuple(place for place in self.instructions if place in places)
        counts = {**self.left_out, reason: len(self.instructions) - len(left)}
        return replace(self, instructions=left, left_out={k: v for k, v in counts.items() if v})

    def warnings(self) -> Iterator[Warning]:
        """Yield what must be known of the instructions that overlap with questions."""
        if self.overlaps:
            many = len(self.instructions) + sum(self.left_out.values())
            yield Warning(
                "left-out",
                f"{len(self.overlaps):,} of {many:,} instructions are not trained on, because they overlap "
                f"with evaluation questions. {' '.join(overlap_notes(self.overlaps))}",
            )

    def texts(self, teacher: str) -> dict[int, Conversation]:
        """Return one teacher's conversations by the instruction's place; the first sample of each."""
        rows = of_teacher(self.table, teacher).rows
        places = self.of(teacher)
        rows = rows[np.isin(self.table.instruction[rows], places)]
        place = {self.table.instructions[at].item(): at for at in places}
        return {
            place[one.instruction.id]: (*one.instruction.messages, Message("assistant", one.text))
            for one in examples(self.source, self.table, Picked(rows, {}))
        }

    def conversations(self, teacher: str) -> Conversations:
        """Return what a student is fine-tuned on.

        Raises:
            DataError: nothing of it can be trained on.
        """
        found = conversations_of(self.texts(teacher).values())
        left = len(self.instructions) - len(self.of(teacher))
        beyond = {self.first_of[teacher].why: left} if left else {}
        return replace(found, left_out={**self.left_out, **beyond, **found.left_out})


def training_set_of(
    loaded: LoadedData, train: Train, questions: EvaluationQuestions, *, seed: int
) -> TrainingSet:
    """Return all that could be trained on: what every teacher answered and no question overlaps with.

    Raises:
        StudyError: a teacher is not known, or nothing is left.
    """
    table = loaded.selection.table
    teachers = train.teachers or table.teachers
    unknown = [teacher for teacher in teachers if teacher not in table.teachers]
    if unknown:
        raise StudyError(
            f"[train] names the teacher '{unknown[0]}', which is not compared. Known: "
            f"{', '.join(table.teachers)}.{nearest(unknown[0], table.teachers)}"
        )
    order = table.answered_by(teachers, seed=seed)
    every = TrainingSet(loaded.source, table, tuple(teachers), tuple(order))
    barred = _overlapping(every, questions)
    apart = replace(every.kept(set(order) - set(barred), OVERLAP), overlaps=tuple(barred.values()))
    if not apart.instructions:
        raise StudyError(
            f"Nothing is left to train on once {len(barred):,} instructions that overlap with the "
            f"{len(questions):,} questions are left out. {' '.join(overlap_notes(barred.values()))} Give "
            "evaluate.questions that are held out, or a limit, or more responses; where the words are a "
            "common phrase, raise train.exclude_ngram."
        )
    return apart


def _overlapping(training_set: TrainingSet, questions: EvaluationQuestions) -> dict[int, Overlap]:
    """Return what instructions share with a question, by the instruction's place."""
    table = training_set.table
    waiting = {table.instructions[at].item(): at for at in training_set.instructions}
    found = {}
    for response in training_set.source:
        place = waiting.pop(response.instruction.id, None)
        if place is not None and (overlap := questions.overlap(response.instruction)):
            found[place] = overlap
    return found
