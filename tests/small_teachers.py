"""Small studies that ask their teachers: instructions, tables, and what a store then holds.

Rewards are shares of thresholds on the number of words, so that every test can form them by hand.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from chat_server import Told as Server
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.sources import source_of
from preceptor.pipeline.work import Amount, Silent
from preceptor.store.store import ResponsePartition, Store
from preceptor.teachers.base import TeacherBackend
from preceptor.types import Generation
from small_study import write_rows

THRESHOLDS = range(6, 61, 2)
GRADED = {
    "kind": "rule",
    "rule": {
        "kind": "constraints",
        "constraints": [{"name": "words", "at_least": number} for number in THRESHOLDS],
        "partial": True,
    },
}


def graded(text: str) -> float:
    """Return the reward that `GRADED` gives, formed by hand."""
    return sum(len(text.split()) >= number for number in THRESHOLDS) / len(THRESHOLDS)


def write_questions(folder: Path, count: int = 6) -> Path:
    """Write instructions; a larger file holds those of a smaller one."""
    rows = [{"instruction": f"What is number {number} good for?"} for number in range(count)]
    return write_rows(folder / "questions.jsonl", rows)


def study_with(questions: Path, *teachers: Mapping[str, Any], **tables: Any) -> Study:
    """Return a study that asks these teachers."""
    data = {"instructions": str(questions), **tables.pop("data", {})}
    given = {"data": data, "teachers": teachers, **tables}
    given["no_student"] = not tables.get("students")
    return checked(Study, given, where="here")


def fake(model: str = "one", **more: Any) -> dict[str, Any]:
    """Return the table of a teacher that makes its texts up."""
    return {"model": model, "engine": "fake", **more}


def drawn(model: str = "one", **more: Any) -> dict[str, Any]:
    """Return the table of a fake teacher that samples."""
    return fake(model, **{"temperature": 0.8, "samples": 3, **more})


def served(**more: Any) -> dict[str, Any]:
    """Return the table of a teacher that is served as `served`."""
    return {"model": "served", "engine": "openai", "max_tokens": 8, **more}


def runtime_at(store: Path, server: Server | None = None, **endpoint: Any) -> Runtime:
    """Return a machine with this store, and with `served` at the server where there is one."""
    where = {"url": server.url, "timeout_s": 5.0, "patience_s": 2.0} if server else {}
    endpoints = {"served": {**where, **endpoint}} if server else {}
    given = {"store": str(store), "device": "cpu", "endpoints": endpoints}
    return checked(Runtime, given, where="here")


class Asked(Silent):
    """A progress that keeps, by step, how much was stored and how much was missing."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[int, int]] = {}

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Keep it."""
        self.steps[step] = (stored, missing.responses)

    @property
    def missing(self) -> dict[str, int]:
        """The responses that each teacher was asked for."""
        ending = " responds"
        return {
            step.removesuffix(ending): missing
            for step, (_, missing) in self.steps.items()
            if step.endswith(ending)
        }

    @property
    def scored(self) -> int:
        """The scores that were computed."""
        return sum(number for step, (_, number) in self.steps.items() if "responds" not in step)


def asked_in(study: Study, runtime: Runtime) -> dict[str, int]:
    """Run the study and return how many responses each teacher was asked for."""
    told = Asked()
    Pipeline(study, runtime, told).rankings()
    return told.missing


def jobs(study: Study, runtime: Runtime) -> Sequence[GenerationJob]:
    """Return the study's generation jobs; nothing is asked."""
    return source_of(study, runtime).jobs


def job(study: Study, runtime: Runtime) -> GenerationJob:
    """Return the study's only inquiry."""
    (found,) = jobs(study, runtime)
    return found


def backend(study: Study, runtime: Runtime) -> TeacherBackend:
    """Return the study's only responder."""
    return job(study, runtime).backend


def partitions(store: Path) -> list[ResponsePartition]:
    """Return the partitions of responses."""
    return [
        partition
        for partition in Store(store).partitions()
        if isinstance(partition, ResponsePartition)
    ]


def generations(store: Path) -> Iterator[tuple[str, Generation]]:
    """Yield every stored response with the digest of its identity."""
    for partition in partitions(store):
        for given in partition.each():
            yield partition.identity.digest, given


def texts_in(store: Path) -> dict[tuple[str, bytes, int], str | None]:
    """Return every stored text by identity, instruction and sample."""
    return {(digest, one.instruction, one.sample): one.text for digest, one in generations(store)}


def stored_twice(store: Path) -> list[tuple[str, bytes]]:
    """Return the keys of responses that lie in the store more than once, whatever they say."""
    counts = Counter(
        (shard.parent.name, key.as_py())
        for shard in (store / "responses").rglob("part-*.parquet")
        for key in pq.read_table(shard, columns=["key"])["key"]
    )
    return [key for key, count in counts.items() if count > 1]
