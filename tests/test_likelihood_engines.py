"""A likelihood engine is chosen by the student's `engine`; what it does not give is refused in time."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from plugin_package import EXTENSIONS, install
from preceptor.config.rewards import RewardModelTable
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.errors import PreceptorError, StudyError
from preceptor.pipeline.plan import for_student
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.scorers.reward_model import RewardModel
from preceptor.store.store import Store
from preceptor.types import Instruction, Response, Score


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that registers the engine `loss-only`."""
    shutil.copy(EXTENSIONS / "loss_only.py", tmp_path)
    install(tmp_path, "loss-only", "loss_only", {"likelihood_engines": {"loss-only": "LossOnly"}})
    monkeypatch.syspath_prepend(str(tmp_path))


def study(model: str, engine: str, *metrics: str) -> Study:
    return Study.model_validate(
        {
            "data": {"responses": ["answers.jsonl"]},
            "students": [{"model": model, "engine": engine}],
            "metrics": [{"kind": kind} for kind in metrics],
        }
    )


def planned_metrics(of: Study) -> set[str]:
    return {m.kind for m in for_student(of, Runtime(), of.students[0], reward=None).metrics}


@pytest.mark.usefixtures("package")
def test_a_metric_that_the_engine_cannot_give_is_refused_when_the_run_is_planned() -> None:
    with pytest.raises(StudyError, match=r"'rsr'.* engine 'loss-only' .*'base'.* gives loss"):
        planned_metrics(study("base", "loss-only", "rsr"))
    assert planned_metrics(study("base", "loss-only", "perplexity")) == {"perplexity"}


@pytest.mark.usefixtures("package")
def test_metrics_by_default_are_those_that_the_engine_gives() -> None:
    every, some = (planned_metrics(study("base", name)) for name in ("transformers", "loss-only"))
    assert every - some == {"rsr"}


@pytest.mark.usefixtures("package")
def test_an_engine_of_another_package_gives_measures_under_an_identity_of_its_own(
    model_folder: Path,
) -> None:
    by_default = StudentModel(Student(model=str(model_folder)), Runtime(device="cpu"))
    student = StudentModel(
        Student(model=str(model_folder), engine="loss-only"), Runtime(device="cpu")
    )
    scorer = LikelihoodScorer(student)
    instruction = Instruction.from_text("What is two plus two?")
    (batch,) = scorer.score([Response("a", instruction, "Four")])
    (score,) = batch
    assert scorer.columns == ("tokens", "nll", "truncated")
    assert scorer.measures == ("tokens", "loss", "perplexity")
    assert set(score.values) == set(scorer.columns)
    assert score.values["nll"] == score.values["tokens"]
    assert scorer.identity() != LikelihoodScorer(by_default).identity()
    assert (student.spec()["engine"], by_default.spec()["engine"]) == ("loss-only", "transformers")
    engine: Any = type(student.likelihood)
    before = engine.released
    student.release()
    assert engine.released == before + 1


def test_an_unknown_engine_is_named_with_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"'transformer'.*transformers"):
        planned_metrics(study("base", "transformer"))


@pytest.mark.parametrize("metric", ["g_norm", "grace"])
def test_gradients_are_refused_where_the_model_runs_elsewhere(metric: str) -> None:
    with pytest.raises(
        StudyError, match=rf"'{metric}'.* engine 'served' .* gives loss, token_rank"
    ):
        planned_metrics(study("base", "served", metric))
    assert planned_metrics(study("base", "transformers", metric)) == {metric}


def test_what_a_server_computed_is_known_by_the_same_on_any_machine(model_folder: Path) -> None:
    model = str(model_folder)
    machines = (Runtime(device="cpu"), Runtime(device="cuda"))
    students = [StudentModel(Student(model=model, engine="served"), one) for one in machines]
    table = RewardModelTable(model=model, engine="served")
    rewards = [RewardModel(table, one) for one in machines]
    assert {one.spec()["dtype"] for one in students} == {"auto"}
    assert rewards[0].identity() == rewards[1].identity()


def test_what_a_server_computed_does_not_choose_the_data_type_here(
    model_folder: Path, tmp_path: Path
) -> None:
    runtime = Runtime(device="cpu", store=str(tmp_path))
    table = Student(model=str(model_folder), engine="served")
    there = LikelihoodScorer(StudentModel(table, runtime)).identity()
    Store(tmp_path).scores(there).append([Score(bytes(16), {"nll": 1.0})])
    here = StudentModel(table.model_copy(update={"engine": "transformers"}), runtime)
    assert here.dtype == "float32"


@pytest.mark.parametrize("said", ["vllm", "served"])
def test_what_an_engine_lacks_is_said_before_anything_is_paid_for(
    said: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else name)
    model = str(model_folder)
    found = {"vllm": "preceptor.vllm.", "served": "Nothing says where"}[said]
    with pytest.raises(PreceptorError, match=found):
        LikelihoodScorer(StudentModel(Student(model=model, engine=said))).preflight()
    if said == "served":
        with pytest.raises(StudyError, match=found):
            RewardModel(RewardModelTable(model=model, engine="served")).preflight()
