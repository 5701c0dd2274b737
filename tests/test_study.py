"""A study file says everything that bears on the answer, and is refused where it contradicts itself."""

from pathlib import Path

import pytest

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study, StudyFile
from preceptor.errors import StudyError
from preceptor.scorers.likelihood import StudentModel

DATA = {"data": {"responses": ["a.jsonl"]}}


def test_what_is_not_given_has_the_defaults_of_the_command_line(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('[data]\nresponses = ["a.jsonl"]\n')
    file = StudyFile.read(path)
    assert file.study.beta == 3.0
    assert file.study.ranking.n_resamples == 2000
    assert file.study.ranking.min_coverage == 0.5
    assert file.study.reading.reduction == "token-mean"
    assert file.study.reading.conditioning == "conditional"
    assert file.runtime == Runtime()
    assert file.runtime.store == ".preceptor"


def test_the_machine_is_no_part_of_the_study(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('[data]\nresponses = ["a"]\n')
    one = StudyFile.read(path)
    path.write_text(
        '[data]\nresponses = ["a"]\n[runtime]\nmax_batch_tokens = 64\nstore = "elsewhere"\n'
    )
    other = StudyFile.read(path)
    assert one.study == other.study
    assert one.runtime != other.runtime


def test_a_kind_picks_the_reward_and_the_metric():
    tables = {
        **DATA,
        "reward": {"kind": "column", "column": "score"},
        "metrics": [{"kind": "car", "beta": 1.5}, {"kind": "ifd"}],
    }
    study = checked(Study, tables, where="here")
    assert [reward.kind for reward in study.reward] == ["column"]
    assert [metric.kind for metric in study.metrics] == ["car", "ifd"]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "data: Field required"),
        ({"data": {"responses": []}}, "data.responses"),
        (
            {**DATA, "by": "car", "metrics": [{"kind": "ifd"}]},
            "by = 'car' is not among the metrics ifd",
        ),
        ({**DATA, "metrics": [{"kind": "ifd"}, {"kind": "ifd"}]}, "a metric is named twice"),
        ({**DATA, "metrics": [{"kind": "cra"}]}, "'cra'"),
        (
            {**DATA, "metrics": [{"kind": "ifd", "beta": 2.0}]},
            "metrics.0: Metric 'ifd' has no",
        ),
        (
            {**DATA, "students": [{"model": "a/b"}, {"model": "a/b"}]},
            "a student is named twice: a/b, a/b",
        ),
        ({**DATA, "reward": {"kind": "oracle"}}, "'oracle'"),
        ({**DATA, "data": {"responses": ["a"], "limit": 1}}, "data.limit"),
        ({**DATA, "ranking": {"seed": -1}}, "seed = -1: expected 0 to 2**63 - 1"),
        ({**DATA, "ranking": {"n_resamples": 0}}, "n_resamples = 0"),
        ({**DATA, "ranking": {"transform": "sigmoud"}}, "Did you mean 'sigmoid'?"),
        ({**DATA, "reading": {"reduction": "mean"}}, "reading.reduction"),
        ({**DATA, "studnets": []}, "studnets"),
    ],
)
def test_a_contradiction_is_refused_when_the_file_is_read(tables: dict[str, object], said: str):
    with pytest.raises(StudyError) as caught:
        checked(Study, tables, where="here")
    assert said in str(caught.value)


def test_a_missing_study_file_is_named(tmp_path: Path):
    with pytest.raises(StudyError, match=r"Cannot read .*none.toml.*No such file"):
        StudyFile.read(tmp_path / "none.toml")
    with pytest.raises(StudyError, match="Cannot read"):
        StudyFile.read(tmp_path)


def test_a_student_is_shown_by_its_hub_id_or_the_last_part_of_its_path(tmp_path: Path):
    assert Student(model="google/gemma-3-270m").name == "google/gemma-3-270m"
    assert Student(model=str(tmp_path)).name == tmp_path.name


@pytest.mark.parametrize(
    ("device", "asked", "dtype"),
    [
        ("cpu", "auto", "float32"),
        ("cuda:1", "auto", "bfloat16"),
        ("mps", "auto", "bfloat16"),
        ("cuda", "float16", "float16"),
    ],
)
def test_the_dtype_that_auto_means_is_what_the_identity_gets(
    tmp_path: Path, device: str, asked: str, dtype: str
):
    student = Student.model_validate({"model": "a/b", "dtype": asked})
    assert StudentModel(student, Runtime(device=device, store=str(tmp_path))).dtype == dtype


def test_a_hidden_accelerator_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Runtime().resolved_device() in ("cpu", "mps")
    assert Runtime(device="cuda").resolved_device() == "cuda"
