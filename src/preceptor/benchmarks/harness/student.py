"""A fine-tuned student before the harness: what it is asked are documents, what it answers are their scores.

To the runner it is a teacher that answers all questions as one batch, so scores are stored whole or not at
all, under the model's name, and a study that was ended goes on where it was.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from preceptor.benchmarks.harness.benchmark import Harness
from preceptor.benchmarks.harness.run import evaluated
from preceptor.config.runtime import Runtime
from preceptor.engines.base import ChatModel, ChatRequest, Completion, Failure, Finished
from preceptor.store.identity import Identity
from preceptor.teachers.base import TeacherBackend
from preceptor.teachers.local import LocalTeacher
from preceptor.types import Instruction


class MeasuredStudent(TeacherBackend):
    """One model that the harness measures; `asked` are all documents that it is measured on."""

    part = 1

    def __init__(
        self,
        student: LocalTeacher,
        benchmark: Harness,
        asked: Iterable[Instruction],
        runtime: Runtime,
    ) -> None:
        # A score is some token long, whatever the student may write elsewhere.
        self.teacher = student.teacher.model_copy(update={"max_tokens": 1, "temperature": 0.0})
        self._student, self._benchmark, self._runtime = student, benchmark, runtime
        self._asked = tuple(asked)
        self.batch = len(self._asked)

    @cached_property
    def chat(self) -> ChatModel:
        """The harness with the model, which it loads for itself."""
        model = Path(str(self._student.located.source))
        return _HarnessChat(model, self._benchmark, self._asked, self._runtime)

    def identity(self) -> Identity:
        """Return the identity of the scores."""
        dtype = self._runtime.resolved_dtype("auto")
        return self._benchmark.identity(self._student.located.identity, self._asked, dtype=dtype)

    def release(self) -> None:
        """Nothing is held between runs."""
        self.__dict__.pop("chat", None)


class _HarnessChat(ChatModel):
    def __init__(
        self, model: Path, benchmark: Harness, asked: Sequence[Instruction], runtime: Runtime
    ) -> None:
        self._model, self._benchmark, self._runtime = model, benchmark, runtime
        self._asked = asked

    @cached_property
    def _scores(self) -> Mapping[tuple[str, int], float]:
        """The scores of all documents by task and place: examples depend on which are asked together."""
        documents = self._benchmark.documents
        samples: dict[str, list[int]] = {}
        for task, at in sorted(documents[one.messages[0].content] for one in self._asked):
            samples.setdefault(task, []).append(at)
        options = self._benchmark.options
        found = evaluated(self._model, list(samples), options, self._runtime, samples=samples)
        return {(task, at): score for task, at, score in self._benchmark.read_scores(found)}

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return one document's score."""
        place = self._benchmark.documents.get(request.messages[0].content)
        score = None if place is None else self._scores.get(place)
        if score is None:
            return Failure("empty answer", "lm-eval gave no number")
        return Completion(repr(score))

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every document's score; the harness goes through all of them once."""
        asked = list(requests)
        for index, request in enumerate(asked):
            yield Finished(index, self.complete(request), more=index + 1 < len(asked))
