"""Where a study's responses come from: files, and teachers whose responses the store holds.

Once asked, a teacher is a source like a file; files alone are a source with nothing to generate. Instructions
are held in memory, because they are the prompts; responses are streamed in every pass anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from types import MappingProxyType

from preceptor.config.data import Data
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.formats import Problem
from preceptor.data.gather import Source, gather
from preceptor.data.instructions import PromptSource
from preceptor.data.matching import Asked
from preceptor.data.responses import ResponseSource, SourceFile
from preceptor.data.schema import category_of
from preceptor.data.selection import Selection
from preceptor.data.table import Gathered, drawn
from preceptor.engines.reasoning import UNFINISHED
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.work import recorded
from preceptor.store.store import Store
from preceptor.teachers.backends import backend_of
from preceptor.types import Instruction, NoteKind, Response

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


@dataclass(frozen=True)
class Scope:
    """Which teachers, and how many instructions at most, a pass over the study covers; None is all of it.

    The instructions are the first in the order that the seed draws, whoever has them. A larger limit so only
    adds to a smaller one, and what was computed before is used again.
    """

    teachers: frozenset[str] | None = None
    limit: int | None = None


ALL = Scope()


class StudySource:
    """Responses in files, where the study has any, and then those of its teachers from the store.

    `jobs` are what is to be generated, none where there are files alone; `chosen` names the teachers of whose
    samples a best-of-N teacher is made.
    """

    def __init__(
        self,
        read: ResponseSource | None,
        questions: Questions | None = None,
        jobs: Sequence[GenerationJob] = (),
        chosen: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self.read = read
        self._gathered: dict[str | None, Gathered] = {}
        self.questions = questions or Questions((), {}, (), (), {})
        self.jobs = jobs
        self.chosen = chosen

    @property
    def passable(self) -> Source:
        """What is gone through: of files alone just these, which several processes can read at once."""
        return self.read if self.read is not None and not self.jobs else self

    @property
    def asked(self) -> list[bytes]:
        """The ids of the instructions that the teachers are asked, which all belong to the comparison."""
        return [instruction.id for instruction in self.questions.instructions]

    def within(self, scope: Scope) -> StudySource:
        """Return the source of the teachers and instructions of a scope alone; files are what they are."""
        if scope == ALL or not self.jobs:
            return self
        questions = replace(self.questions, instructions=self.questions.instructions[: scope.limit])
        asked = set(scope.teachers or ())
        for name, of in reversed(list(self.chosen.items())):
            asked |= set(of) if name in asked else set()
        jobs = [
            replace(job, instructions=questions.instructions)
            for job in self.jobs
            if scope.teachers is None or job.name in asked
        ]
        return StudySource(self.read, questions, jobs, self.chosen)

    def gathered(self, column: str | None) -> Gathered:
        """Return the response table, with the rewards of a column; files alone are read once.

        Raises:
            DataError: they cannot be read, or hold no responses.
        """
        found = self._gathered.get(column) or gather(self.passable, column, asked=self.asked)
        if not self.jobs:
            self._gathered[column] = found
        return found

    def texts_of(self, selection: Selection) -> Iterable[Response]:
        """Return what holds the texts of a few instructions: those kept from reading, else all."""
        ids = selection.table.instructions[selection.taken].tolist()
        kept = (one.first for one in self._gathered.values() if one.first is not None)
        return next((first for first in kept if first.holds(ids)), self)

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
        if self.passable is self.read:
            yield from self.read
            return
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
        """Yield what a teacher said, and without a text what it never will."""
        by_id = {instruction.given_id: instruction for instruction in job.instructions}

        def response(instruction: Instruction, sample: int, **said: str | None) -> Response:
            return Response(
                teacher=job.name,
                instruction=instruction,
                sample=sample,
                text=said.get("text"),
                finish_reason=said.get("ending"),
                reference=self.questions.references.get(instruction.id),
                category=self.questions.categories.get(instruction.id),
                missing=said.get("missing"),
            )

        for given in job.generations():
            text, ending = job.backend.response_in(given.text or ""), given.finish_reason
            missing = UNFINISHED if text is None else None
            instruction = by_id[given.instruction]
            yield response(instruction, given.sample, text=text, ending=ending, missing=missing)
        for (instruction, sample), note in job.unanswered():
            yield response(instruction, sample, missing=str(NoteKind.of(note)))


def require_student(study: Study, source: StudySource) -> None:
    """Refuse to rank for no base model unless that is asked for.

    Raises:
        StudyError: it is not; the message names the columns that could be a reward.
    """
    if study.students or study.no_student:
        return
    names = list(dict.fromkeys(name for file in source.files for name in file.rewards))
    rewards = ""
    if names and not study.reward:
        listed = ", ".join(f"'{name}'" for name in names)
        rewards = (
            f" Columns that look like rewards: {listed}. To use one: --reward-column {names[0]}."
        )
    raise StudyError(
        "No base model is named, and which teacher is best depends on it. Name it with --student MODEL "
        "([[students]] in a study file), or rank for none with --no-student (no_student = true): by "
        f"reward or length alone.{rewards}"
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
    seen = Asked()
    for row in source:
        seen.see(row.instruction)
        asked.setdefault(row.instruction.id, row.instruction)
        if row.reference is not None:
            references.setdefault(row.instruction.id, row.reference)
        named = study.data.columns.by_column
        category = row.category if isinstance(row, Response) else category_of(row.fields, named)
        if category is not None:
            categories.setdefault(row.instruction.id, category)
    seen.require_one_each()
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


def source_of(study: Study, runtime: Runtime) -> StudySource:
    """Return where the study's responses come from; no teacher is asked yet.

    Raises:
        DataError: a file cannot be read.
        ModelError: a teacher's model is not found.
        StudyError: nothing says where a model is served.
    """
    columns = study.data.columns
    rewards = [*study.reward, *(best_of_n.reward for best_of_n in study.best_of_n)]
    named = [
        reward.column for reward in rewards if reward is not None and reward.column is not None
    ]
    numbers = tuple(dict.fromkeys((*columns.number_columns, *named)))
    read = None
    if study.data.responses:
        options = columns.model_copy(update={"number_columns": numbers})
        read = ResponseSource.open(expanded(study.data.responses), options)
    if not study.teachers:
        return StudySource(read)
    questions = questions_of(study, read)
    jobs = jobs_of(study, runtime, questions.instructions)
    names = [job.name for job in jobs]
    chosen = {one.name: one.among(names).of for one in study.best_of_n}
    return StudySource(read, questions, jobs, chosen)


def jobs_of(
    study: Study, runtime: Runtime, instructions: Sequence[Instruction]
) -> list[GenerationJob]:
    """Return a job for each teacher and point of its grid; nothing is loaded or asked yet."""
    backends = [
        backend_of(point, runtime) for teacher in study.teachers for point in teacher.points()
    ]
    store, known = Store(runtime.store), study.known
    return [
        GenerationJob(
            one,
            store.responses(one.identity(), recorded=recorded(runtime, one.teacher.name)),
            instructions,
            one.teacher.unadvised(known.find(one.teacher.name)),
        )
        for one in backends
    ]


def how_to_match(data: Data, common: int) -> str:
    """Say by what instructions are matched, and by what else more of them than `common` would be.

    The files are read once more for each way.
    """
    ways = {
        "text": "their text",
        "user-turns": "what the user says, because each teacher wrote its own earlier turns",
        "id": "an id",
    }
    sentences = [f"Instructions are matched by {ways[data.columns.match].partition(',')[0]}."]
    for way, words in ways.items():
        if not data.responses or way == data.columns.match:
            continue
        options = data.columns.model_copy(update={"match": way})
        try:
            source = ResponseSource.open(expanded(data.responses), options)
            found = gather(source).table.common
        except DataError:
            continue
        if found > common:
            column = f" (the column '{source.files[0].id_column}')" if way == "id" else ""
            sentences.append(
                f"By {words}{column}, {found:,} are common to all: match them so with --match {way}."
            )
    return " ".join(sentences)


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the paths with patterns such as `responses/*.jsonl` replaced by the files they match."""
    found = [sorted(glob(path)) if has_magic(path) else [path] for path in paths]
    return [name for path, names in zip(paths, found, strict=True) for name in names or [path]]
