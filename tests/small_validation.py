"""Small loops for tests: three teachers in files, a tiny student, questions of its own, a tiny judge.

Nothing is made up but the weights: the student is trained, answers, and is judged by a model in this process.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.work import Amount, Silent
from preceptor.validation.result import ValidationResult
from preceptor.validation.validate import validate
from small_study import write_rows, write_teachers

TRAIN: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "epochs": 2,
    "batch_size": 4,
    "rows": 8,
    "warmup_steps": 1,
    "max_length": 128,
    "save_steps": 1,
    "gradient_checkpointing": False,
}


def write_questions(folder: Path, count: int = 4) -> Path:
    """Write questions that no teacher was asked."""
    rows = [{"instruction": f"Is the sea number {number} wide?"} for number in range(count)]
    return write_rows(folder / "questions.jsonl", rows)


def tables(
    folder: Path, model: Path, *, teachers: int = 3, questions: int = 4, **more: Any
) -> dict[str, Any]:
    """Return a study's tables: everything is written to `folder`; `more` replaces whole tables."""
    files = write_teachers(folder / "teachers", teachers=teachers, instructions=12)
    prompt = folder / "prompt.txt"
    prompt.write_text("{instruction}\n{output_1}\n{output_2}\n", encoding="utf-8")  # a tiny context
    judge = {"model": str(model), "chat_template": "chatml", "prompt": str(prompt)}
    given: dict[str, Any] = {
        "data": {"responses": [str(file) for file in files]},
        "students": [{"model": str(model), "chat_template": "gemma", "max_length": 256}],
        "reward": {"kind": "column", "column": "reward"},
        "ranking": {"n_resamples": 200},
        "train": dict(TRAIN),
        "evaluate": {
            "questions": str(write_questions(folder, questions)),
            "max_tokens": 6,
            "judge": {"kind": "chat", **judge},
        },
    }
    return given | more


def study_of(given: Mapping[str, Any]) -> Study:
    """Return the study that the tables make."""
    return checked(Study, given, where="here")


def runtime_at(store: Path) -> Runtime:
    """Return this machine's CPU with this store."""
    return Runtime(store=str(store), device="cpu", batch_size=2)


def write_study(path: Path, given: Mapping[str, Any], store: Path) -> Path:
    """Write the tables as a study file; TOML takes JSON's strings, numbers and arrays as they are."""
    lines = []
    for name, table in ({**given, "runtime": runtime_at(store).model_dump()}).items():
        lines += _lines(name, table)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _lines(name: str, table: Any) -> list[str]:
    if isinstance(table, list):
        return [line for one in table for line in (f"[[{name}]]", *_fields(one))]
    nested = {key: value for key, value in table.items() if isinstance(value, dict) and value}
    plain = {key: value for key, value in table.items() if key not in nested}
    found = [f"[{name}]", *_fields(plain)]
    for key, value in nested.items():
        found += _lines(f"{name}.{key}", value)
    return found


def _fields(table: Mapping[str, Any]) -> list[str]:
    kept = {key: value for key, value in table.items() if value is not None and value != {}}
    return [f"{key} = {_value(value)}" for key, value in kept.items()]


def _value(value: Any) -> str:
    return f"{{ {', '.join(_fields(value))} }}" if isinstance(value, dict) else json.dumps(value)


class Counting(Silent):
    """A progress that counts what was computed, by the name of the step."""

    def __init__(self) -> None:
        self.missing: dict[str, int] = {}

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Add what is missing."""
        self.missing[step] = self.missing.get(step, 0) + missing.responses

    @property
    def computed(self) -> dict[str, int]:
        """The steps in which anything was computed."""
        return {step: count for step, count in self.missing.items() if count}


def gone_through(given: Mapping[str, Any], store: Path) -> tuple[ValidationResult, Counting]:
    """Validate, and tell what was computed."""
    told = Counting()
    return validate(study_of(given), runtime_at(store), told), told
