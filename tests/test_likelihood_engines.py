"""A likelihood engine is chosen by the student's `engine`; what it does not give is refused in time."""

from pathlib import Path

import pytest

from preceptor.config.runtime import Runtime
from preceptor.config.study import Student, Study
from preceptor.errors import StudyError
from preceptor.pipeline.plan import for_student
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import Instruction, Response

ENGINE = '''
from preceptor.engines.base import Measured, TokenStatistics

NAN = float("nan")


class LossOnly:
    """Gives every token a loss of one nat, as a server that knows neither ranks nor entropies."""

    measures = ("loss",)
    released = 0

    @classmethod
    def load(cls, located, student, runtime):
        return cls()

    def measure(self, pairs):
        for index, pair in enumerate(pairs):
            tokens = len(pair.response)
            yield [Measured(index, TokenStatistics(tokens, float(tokens), NAN, NAN))]

    def release(self):
        LossOnly.released += 1
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that registers the engine `loss-only`."""
    (tmp_path / "loss_only_engine.py").write_text(ENGINE)
    info = tmp_path / "loss_only_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loss-only-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[preceptor.likelihood_engines]\nloss-only = loss_only_engine:LossOnly\n"
    )
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
    engine = type(student.likelihood)
    student.release()
    assert engine.released == 1  # type: ignore[attr-defined]


def test_an_unknown_engine_is_named_with_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"'transformer'.*transformers"):
        planned_metrics(study("base", "transformer"))
