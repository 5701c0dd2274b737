"""What stays loaded between the looks of a race, and what makes room."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.kept import Kept
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.race import race
from preceptor.pipeline.work import Progress, Silent, in_process
from preceptor.store.identity import Identity
from small_teachers import write_questions


@dataclass
class Model:
    """A resource that knows whether it is loaded; as work it loads itself."""

    name: str
    memory: int
    missing: int = 1
    loaded: list[str] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return Identity({"name": self.name})

    @property
    def resource(self) -> "Model":
        return self

    def lacking(self) -> int:
        return self.missing

    def preflight(self) -> None:
        return None

    def run(self, progress: Progress) -> None:
        if self.name not in self.loaded:
            self.loaded.append(self.name)

    def release(self) -> None:
        self.loaded.remove(self.name)


def test_what_was_used_longest_ago_makes_room_and_the_rest_stays():
    loaded: list[str] = []
    sizes = {"a": 4, "b": 3, "c": 2, "huge": 99}
    models = {name: Model(name, size, loaded=loaded) for name, size in sizes.items()}
    done = Model("done", 99, missing=0, loaded=loaded)
    kept = Kept(in_process, 9)

    def after(*names: str) -> list[str]:
        for name in names:
            kept(done if name == "done" else models[name], Silent())
        return sorted(loaded)

    assert after("a", "b", "c", "done") == ["a", "b", "c"]
    models["d"] = Model("d", 3, loaded=loaded)
    assert after("a", "d") == ["a", "c", "d"]
    assert after("huge") == ["huge"]
    assert after("b") == ["b"]
    kept.release()
    assert loaded == []


class Loaded(Silent):
    """A progress that takes down at each look how many teachers are loaded."""

    def __init__(self) -> None:
        self.line: Pipeline | None = None
        self.found: list[int] = []

    def say(self, lines: object) -> None:
        """Look at the teachers."""
        assert self.line is not None
        self.found.append(sum("chat" in vars(job.backend) for job in self.line.source.jobs))


@pytest.mark.usefixtures("one_thread", "private_cache")
def test_teachers_run_here_stay_loaded_between_looks_and_are_freed_at_the_end(
    tmp_path: Path, model_folder: Path
):
    common = {"model": str(model_folder), "engine": "transformers", "max_tokens": 3}
    given = {
        "data": {"instructions": str(write_questions(tmp_path, 24))},
        "teachers": [{**common, "label": "one"}, {**common, "label": "two", "system": "Be brief."}],
        "no_student": True,
        "reward": {"kind": "rule", "rule": {"kind": "contains", "answer": "e"}},
        "by": "reward",
        "race": {"start": 20, "confidence": 0.9999},
    }
    runtime = checked(Runtime, {"store": str(tmp_path / "s"), "device": "cpu"}, where="here")
    seen = Loaded()
    seen.line = Pipeline(checked(Study, given, where="here"), runtime, seen)
    race(seen.line)
    assert seen.found == [2, 2, 2]
    assert not any("chat" in vars(job.backend) for job in seen.line.source.jobs)
