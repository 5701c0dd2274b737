"""A study goes on in the data type its stored numbers have, wherever it is moved to."""

import logging
from pathlib import Path
from typing import Any

import pytest

from preceptor.config.rewards import ModelReward
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines import pace
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.scorers.reward_model import RewardModel
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.types import Score


def student(folder: Path, store: Path, device: str, dtype: str = "auto") -> StudentModel:
    options = Student.model_validate({"model": str(folder), "dtype": dtype})
    return StudentModel(options, Runtime(device=device, store=str(store)))


def store_a_score(model: StudentModel) -> None:
    Store(model.runtime.store).scores(LikelihoodScorer(model).identity()).append(
        [Score(bytes(16), {"tokens": 1.0, "nll": 1.0})]
    )


def test_auto_goes_on_in_the_stored_type_and_says_so(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_cpu = student(model_folder, tmp_path, "cpu")
    assert student(model_folder, tmp_path, "cuda").dtype == "bfloat16"
    store_a_score(on_cpu)
    with caplog.at_level(logging.WARNING):
        moved = student(model_folder, tmp_path, "cuda")
        assert LikelihoodScorer(moved).identity() == LikelihoodScorer(on_cpu).identity()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "runs in float32, as for the numbers in the store" in line
    assert "'auto' would be bfloat16" in line and "--dtype bfloat16" in line


def test_a_type_that_is_asked_for_is_taken_and_then_stays(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store_a_score(student(model_folder, tmp_path, "cpu"))
    asked = student(model_folder, tmp_path, "cuda", "bfloat16")
    store_a_score(asked)
    # Where the store holds both, each device has its own again.
    assert student(model_folder, tmp_path, "cuda").dtype == "bfloat16"
    assert student(model_folder, tmp_path, "cpu").dtype == "float32"
    assert not caplog.records


def test_the_stored_type_is_that_of_the_same_model_alone(
    model_folder: Path, tmp_path: Path
) -> None:
    spec = {"scorer": "reward_model", "model": {"folder_sha256": "other"}, "dtype": "float32"}
    Store(tmp_path).scores(Identity.of(spec)).append([Score(bytes(16), {"score": 1.0})])
    runtime = Runtime(device="cuda", store=str(tmp_path))
    assert RewardModel(ModelReward(model=str(model_folder)), runtime).dtype == "bfloat16"
    store_a_score(student(model_folder, tmp_path, "cpu"))
    assert RewardModel(ModelReward(model=str(model_folder)), runtime).dtype == "float32"


def test_a_model_of_unknown_size_takes_some_memory_and_one_that_is_served_none(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = student(model_folder, tmp_path, "cpu").memory
    assert known == sum(one.nbytes for one in weights_of(model_folder))
    monkeypatch.setattr(pace, "parameters_of", lambda located: None)
    assert student(model_folder, tmp_path, "cpu").memory == 1
    for engine, bytes_of in (("served", 0), ("vllm", 2**63)):
        table = Student(model=str(model_folder), engine=engine)
        assert StudentModel(table, Runtime(device="cpu", store=str(tmp_path))).memory == bytes_of


def weights_of(folder: Path) -> list[Any]:
    from safetensors.numpy import load_file

    return list(load_file(folder / "model.safetensors").values())
