"""The responses of a study that asks its teachers: those in files, and those the store holds.

The one idea: once asked, a teacher is a source of responses like a file. Instructions are held in memory,
because they are the prompts; responses are streamed from the store, in every pass anew.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.config.teachers import TeacherPoint
from preceptor.data.formats import Problem
from preceptor.data.instructions import PromptSource
from preceptor.data.responses import ResponseSource, SourceFile
from preceptor.data.schema import category_of
from preceptor.data.table import drawn
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.generate import GenerationJob
from preceptor.store.files import explained, replacing
from preceptor.store.store import Store
from preceptor.teachers.base import TeacherBackend
from preceptor.teachers.fake import FakeTeacher
from preceptor.teachers.local import LocalTeacher
from preceptor.teachers.served import ServedTeacher
from preceptor.types import Instruction, Response

Reference = Mapping[str, object] | None


@dataclass(frozen=True)
class Questions:
    """What the teachers are asked, with the checkable answers and categories where the data have them.

    `skipped` counts rows of each file that could not be read.
    """

    instructions: Sequence[Instruction]
    references: Mapping[bytes, Reference]
    files: Sequence[SourceFile]
    problems: Sequence[Problem]
    skipped: Mapping[str, int]
    categories: Mapping[bytes, str] = field(default_factory=dict)


class GeneratedSource:
    """Responses in files, where the study has any, and then those of its teachers from the store."""

    def __init__(
        self, read: ResponseSource | None, questions: Questions, jobs: Sequence[GenerationJob]
    ) -> None:
        self.read = read
        self.questions = questions
        self.jobs = jobs

    @property
    def files(self) -> Sequence[SourceFile]:
        """The files of responses, and those of the instructions where they are others."""
        return (*(self.read.files if self.read else ()), *self.questions.files)

    @property
    def problems(self) -> Sequence[Problem]:
        """What could not be read."""
        return (*(self.read.problems if self.read else ()), *self.questions.problems)

    @property
    def problem_counts(self) -> Mapping[str, int]:
        """How many rows of each file could not be read."""
        return {**(self.read.problem_counts if self.read else {}), **self.questions.skipped}

    def __iter__(self) -> Iterator[Response]:
        """Yield every response to the instructions that are asked.

        Raises:
            StudyError: a file has a teacher of the same name as one that is asked.
        """
        names = {job.name for job in self.jobs}
        asked = {instruction.id for instruction in self.questions.instructions}
        for response in self.read or ():
            if response.instruction.id not in asked:
                continue
            if response.teacher in names:
                raise StudyError(
                    f"The files hold responses of '{response.teacher}', and [[teachers]] asks one of that "
                    "name: its texts would pass for samples of the other. Give it another name."
                )
            yield response
        for job in self.jobs:
            yield from self._answers(job)

    def specs(self) -> dict[str, object]:
        """Return each asked teacher's identity in full, by its label."""
        return {
            job.name: {
                "identity": job.partition.identity.digest,
                "spec": job.partition.identity.spec,
            }
            for job in self.jobs
        }

    def _answers(self, job: GenerationJob) -> Iterator[Response]:
        by_id = {instruction.id: instruction for instruction in job.instructions}
        for given in job.generations():
            yield Response(
                teacher=job.name,
                instruction=by_id[given.instruction],
                text=job.backend.response_in(given.text or ""),
                sample=given.sample,
                finish_reason=given.finish_reason,
                reference=self.questions.references.get(given.instruction),
                category=self.questions.categories.get(given.instruction),
            )


def questions_of(study: Study, read: ResponseSource | None) -> Questions:
    """Return what the teachers are asked: as many as the limit, in the order that the seed draws.

    Raises:
        DataError: the data cannot be read, or hold no instructions.
    """
    source: PromptSource | ResponseSource
    if study.data.instructions:
        paths = expanded(study.data.instructions)
        source = PromptSource.open(paths, study.data.columns)
    else:
        assert read is not None
        source = read
    asked: dict[bytes, Instruction] = {}
    references: dict[bytes, Reference] = {}
    categories: dict[bytes, str] = {}
    for row in source:
        asked.setdefault(row.instruction.id, row.instruction)
        if row.reference is not None:
            references.setdefault(row.instruction.id, row.reference)
        category = row.category if isinstance(row, Response) else category_of(row.fields)
        if category is not None:
            categories.setdefault(row.instruction.id, category)
    if not asked:
        raise DataError(
            "The data hold no instructions to ask the teachers. Check data.instructions."
        )
    ids = list(asked)
    instructions = [asked[ids[at]] for at in drawn(ids, study.ranking.seed)[: study.data.limit]]
    if source is read:
        return Questions(instructions, references, (), (), {}, categories)
    problems, counts = tuple(source.problems), dict(source.problem_counts)
    return Questions(instructions, references, source.files, problems, counts, categories)


def jobs_of(
    study: Study, runtime: Runtime, questions: Questions, *, recorded: Mapping[str, object]
) -> list[GenerationJob]:
    """Return one inquiry for each teacher and point of its grid; nothing is loaded or asked yet.

    Raises:
        ModelError: a model is not found, or an endpoint's address or key cannot be used.
        StudyError: nothing says where a model is served.
    """
    store = Store(runtime.store)
    found = []
    for teacher in study.teachers:
        for point in teacher.points():
            backend = _backend(point, runtime)
            partition = store.responses(backend.identity(), recorded=recorded)
            found.append(GenerationJob(backend, partition, questions.instructions))
    return found


def _backend(teacher: TeacherPoint, runtime: Runtime) -> TeacherBackend:
    if teacher.engine == "fake":
        return FakeTeacher(teacher)
    if teacher.engine == "openai":
        return ServedTeacher(teacher, runtime.endpoint(teacher.model))
    return LocalTeacher(teacher, runtime)


def write_responses(source: GeneratedSource, path: Path) -> int:
    """Write the responses of the teachers that are asked as JSON Lines; return how many.

    A row has `prompt` (a text, or messages), `completion`, `model` (the teacher's label), `sample`, and
    `finish_reason`, `reference` and `category` where there are any. The file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    count = 0
    with explained("write", path), replacing(path) as temporary, temporary.open("xb") as file:
        for response in source:
            line = json.dumps(_row(response), ensure_ascii=False, default=str)
            file.write(line.encode("utf-8", "replace") + b"\n")
            count += 1
    return count


def _row(response: Response) -> dict[str, object]:
    messages = response.instruction.messages
    alone = len(messages) == 1 and messages[0].role == "user"
    row = {
        "prompt": messages[0].content if alone else [m._asdict() for m in messages],
        "completion": response.text,
        "model": response.teacher,
        "sample": response.sample,
        "finish_reason": response.finish_reason,
        "reference": response.reference,
        "category": response.category,
    }
    return {name: value for name, value in row.items() if value is not None}


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the paths with patterns such as `responses/*.jsonl` replaced by the files they match."""
    found = [sorted(glob(path)) if has_magic(path) else [path] for path in paths]
    return [name for path, names in zip(paths, found, strict=True) for name in names or [path]]
