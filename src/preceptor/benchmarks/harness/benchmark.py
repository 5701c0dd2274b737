"""Knowledge, mathematics and the like: tasks of `lm-eval` as a benchmark.

The harness is given whole models, because many of its tasks weigh choices by likelihood and ask for no text.
What it says of a document stands where an answer would: a number, stored under the model and the question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from preceptor.benchmarks.checked import CheckedBenchmark, Marks, Points
from preceptor.benchmarks.harness.run import found_tasks, is_number, reason_of
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.config.ability import AbilityOptions
from preceptor.errors import DataError, StudyError, require
from preceptor.store.identity import Identity
from preceptor.types import Instruction, Message

if TYPE_CHECKING:
    from preceptor.config.runtime import Runtime
    from preceptor.teachers.base import TeacherBackend
    from preceptor.teachers.local import LocalTeacher

NAME = "lm-eval"


@dataclass(frozen=True)
class Harness(CheckedBenchmark):
    """Tasks of `lm-eval`; every question counts the same, whichever task it is of.

    `metric` names what scores a document, by default the first that a task lists. It must lie in 0..1.
    """

    name: ClassVar[str] = NAME
    title: ClassVar[str] = "lm-eval"
    measures: ClassVar[Mapping[str, str]] = {"LM": "mean score of the questions of its tasks"}
    checker: ClassVar[str] = NAME
    writes: ClassVar[bool] = False

    tasks: tuple[str, ...] = ()
    options: AbilityOptions = field(default_factory=AbilityOptions)
    metric: str | None = None

    @cached_property
    def _named(self) -> Mapping[str, Mapping[str, Any]]:
        return found_tasks(self.tasks, self.options)

    @property
    def found(self) -> Mapping[str, Any]:
        """The tasks to run by the harness's names; a group has several."""
        return {name: task for own in self._named.values() for name, task in own.items()}

    @cached_property
    def documents(self) -> Mapping[str, tuple[str, int]]:
        """The task and place of each question by its id."""
        return {key: place for key, (place, _) in self._listed.items()}

    @cached_property
    def _listed(self) -> Mapping[str, tuple[tuple[str, int], Instruction]]:
        listed: dict[str, tuple[tuple[str, int], Instruction]] = {}
        for name, task in self.found.items():
            try:
                for at, document in enumerate(task.eval_docs):
                    key = f"{name} {_digest(document)}"
                    # The task is part of the question: two may ask in the same words for other answers.
                    turns = (Message("system", key), Message("user", _asked(task, document)))
                    listed.setdefault(key, ((name, at), Instruction(turns)))
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"Cannot read the documents of the task '{name}' of lm-eval: {reason_of(error)} Look at "
                    "its data, or leave it out."
                ) from error
        if not listed:
            raise DataError(f"{', '.join(self.tasks)} of lm-eval hold no documents. Name others.")
        return listed

    def preflight(self) -> None:
        """Refuse, before anything is trained, what could not be measured afterwards.

        Raises:
            MissingPackage: `lm-eval` is not installed.
            StudyError: a task cannot be run, or has no score of every document.
        """
        require("lm_eval", purpose="The benchmark lm-eval")
        for name, task in self.found.items():
            if getattr(task, "UNSAFE_CODE", False) or getattr(task.config, "unsafe_code", False):
                raise StudyError(
                    f"The task '{name}' runs code that a model writes, which is not done here. Leave it out."
                )
            self._metric_of(name)

    def question_set(self) -> QuestionSet:
        """Return the documents of all tasks as questions."""
        asked = {key: one for key, (_, one) in self._listed.items()}
        return QuestionSet(self.name, asked, Answers(self.name, "", {}))

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return at most `limit` documents of each task or group as it was named."""
        every, drawn = self.question_set(), dict[str, Instruction]()
        for own in self._named.values():
            asked = {k: one for k, one in every.instructions.items() if self.documents[k][0] in own}
            drawn |= replace(every, instructions=asked).drawn(limit).instructions
        return replace(every, instructions=drawn)

    def answering(
        self, student: LocalTeacher, asked: Sequence[Instruction], runtime: Runtime
    ) -> TeacherBackend:
        """Return what measures the student on these documents."""
        from preceptor.benchmarks.harness.student import MeasuredStudent

        return MeasuredStudent(student, self, asked, runtime)

    def marks(self, texts: Mapping[str, str]) -> Mapping[str, Marks]:
        """Return what the harness said of each document."""
        return {key: {"LM": Points(float(text))} for key, text in texts.items()}

    def notes(self, judge: str | None = None) -> list[str]:
        """Return what is pooled, and that a limit or other examples make other numbers."""
        counted = ", ".join(f"{name} by {self._metric_of(name)}" for name in self.found)
        shots = self.options.num_fewshot
        said = "as each task says" if shots is None else str(shots)
        return [
            f"Scored by lm-eval: {counted}; examples before a question: {said}. Every question counts the "
            "same. Rates over some of a task's questions do not compare with published ones."
        ]

    def identity(
        self, model: Mapping[str, object], asked: Sequence[Instruction], *, dtype: str
    ) -> Identity:
        """Return the identity of a model's scores: tasks, their examples, and which are asked together."""
        # Examples are drawn from one stream for all documents, so which are asked bears on each.
        asked_ids = b"".join(sorted(one.given_id for one in asked))
        return Identity.of(
            {
                "engine": NAME,
                "version": version(NAME),
                "model": dict(model),
                "dtype": dtype,
                "tasks": dict(self._digests),
                "metrics": {name: self._metric_of(name) for name in self.found},
                "questions": _hash(asked_ids),
                "num_fewshot": self.options.num_fewshot,
                "chat_template": self.options.chat_template,
                "seed": self.options.seed,
            }
        )

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        """What tasks are known by: their settings, and the documents that examples are drawn from.

        Of their metadata the version alone, which their authors raise when scores change: functions of
        settings are known by name.
        """
        found = {}
        for name, task in self.found.items():
            config = dict(task.dump_config())
            config["metadata"] = (config.get("metadata") or {}).get("version")
            shots = self.options.num_fewshot
            shots = config.get("num_fewshot") if shots is None else shots
            drawn = list(task.fewshot_docs()) if shots else []
            found[name] = _hash(_plain([config, drawn]).encode("utf-8", "surrogatepass"))
        return found

    def read_scores(self, found: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
        """Yield task, place and score of the documents in a result of the harness.

        A document without a number is left out.

        Raises:
            StudyError: a score lies outside 0..1.
        """
        for name, samples in found.get("samples", {}).items():
            wanted, _, filtered = self._metric_of(name).partition(",")
            seen: set[int] = set()
            for sample in samples:
                value, at = sample.get(wanted), int(sample["doc_id"])
                if at in seen or (filtered and sample.get("filter", "none") != filtered):
                    continue
                if not is_number(value):
                    continue
                if not 0 <= float(value) <= 1:
                    raise StudyError(
                        f"The metric '{wanted}' of the task '{name}' is {value:g} for a document: expected "
                        "0..1. Name another in `metric`, or leave the task out."
                    )
                seen.add(at)
                yield name, at, float(value)

    def _metric_of(self, name: str) -> str:
        """Return what scores a document of a task, with its filter where one is named."""
        task = self.found[name]
        better = dict(task.higher_is_better())
        if not better:
            raise StudyError(f"The task '{name}' of lm-eval names no metric. Leave it out.")
        metric = self.metric or next(iter(better))
        plain = metric.partition(",")[0]
        if plain not in better:
            raise StudyError(
                f"The task '{name}' has no metric '{plain}': it has {', '.join(better)}. Name one of them "
                "in `metric`."
            )
        if not better[plain]:
            raise StudyError(
                f"Of the metric '{plain}' of the task '{name}' lower is better, and a dimension needs a "
                f"score: it has {', '.join(better)}. Name another in `metric`, or leave the task out."
            )
        return metric


def _asked(task: Any, document: Any) -> str:
    """Return a document's question in words, empty where the harness has none."""
    text = task.doc_to_text(document)
    return text if isinstance(text, str) and text.strip() else _plain(document)


def _digest(document: Any) -> str:
    return _hash(_plain(document).encode("utf-8", "surrogatepass"))


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_named)


def _named(value: Any) -> str:
    """Return a function or other object by its name, without its address."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
