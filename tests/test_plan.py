"""What a study takes is decided before anything is computed, and `preceptor plan` tells what a run does."""

import json
from pathlib import Path

import pytest

from preceptor import api
from preceptor.config.base import checked
from preceptor.config.rewards import ReferenceReward
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.errors import StudyError
from preceptor.pipeline import plan
from preceptor.scorers.rewards import reward_scorers
from preceptor.scorers.verifier.verifier import Verifier
from small_study import partition_sizes, preceptor, shards, write_teachers

STUDENT = Student(model="a/b")


def study_with(**tables: object) -> Study:
    return checked(Study, {"data": {"responses": ["a.jsonl"]}, **tables}, where="here")


def planned(
    study: Study, *, student: Student | None = STUDENT, rewarded: bool = True
) -> plan.StudentPlan:
    reward = ReferenceReward() if rewarded else None
    return plan.for_student(study, Runtime(device="cpu"), student, reward=reward)


def metrics(of: plan.StudentPlan) -> set[str]:
    return {metric.kind for metric in of.metrics}


def test_every_metric_that_needs_no_further_pass_is_formed_unless_some_are_named():
    found = planned(study_with())
    assert {"car", "reward", "loss", "perplexity", "rsr", "length"} <= metrics(found)
    assert "ifd" not in metrics(found)
    assert [scorer.name for scorer in found.scorers] == ["length", "verifier", "likelihood"]
    assert metrics(planned(study_with(metrics=[{"kind": "ifd"}]))) == {"ifd"}


@pytest.mark.parametrize("metric", ["ifd", "scas"])
def test_what_holds_a_response_against_its_instruction_is_refused_over_all_turns(metric: str):
    study = study_with(metrics=[{"kind": metric}], reading={"turns": "all"})
    with pytest.raises(StudyError, match=f"'{metric}' is not defined over all turns"):
        planned(study)
    assert metric in metrics(planned(study_with(metrics=[{"kind": metric}])))


def test_all_turns_have_no_loss_without_the_instruction():
    study = study_with(reading={"turns": "all", "conditioning": "unconditional"})
    with pytest.raises(StudyError, match="no response without its instruction"):
        planned(study)


def test_without_rewards_no_metric_needs_one():
    assert metrics(planned(study_with(), rewarded=False)).isdisjoint({"car", "reward"})


def test_without_a_student_only_reward_and_length_rank():
    found = planned(study_with(), student=None)
    assert metrics(found) == {"reward", "length"}
    assert found.student is None
    assert [scorer.name for scorer in found.scorers] == ["length", "verifier"]


def test_the_pass_without_instruction_is_planned_only_where_it_is_needed():
    passes = ["length", "likelihood", "likelihood without instruction"]
    ifd = study_with(metrics=[{"kind": "ifd"}])
    assert [scorer.name for scorer in planned(ifd).scorers] == passes
    reading = {"conditioning": "unconditional"}
    car = study_with(metrics=[{"kind": "car"}], reading=reading)
    assert [scorer.name for scorer in planned(car).scorers] == ["length", "verifier", passes[2]]
    both = study_with(metrics=[{"kind": "car"}, {"kind": "rsr"}], reading=reading)
    assert [scorer.name for scorer in planned(both).scorers] == ["length", "verifier", *passes[1:]]


def test_a_metric_by_length_alone_loads_no_model():
    found = planned(study_with(metrics=[{"kind": "length"}]))
    assert [scorer.name for scorer in found.scorers] == ["length"]


def test_a_metric_without_its_measure_is_refused_before_anything_is_computed():
    with pytest.raises(StudyError, match="needs the measure 'reward'"):
        planned(study_with(metrics=[{"kind": "car"}]), rewarded=False)
    with pytest.raises(StudyError, match=r"needs the measure 'loss'.*--student"):
        planned(study_with(metrics=[{"kind": "loss"}]), student=None)


def test_an_order_that_will_not_be_formed_is_refused_with_what_it_needs():
    with pytest.raises(StudyError, match=r"'car' needs the measure 'loss'.*--student"):
        planned(study_with(by="car"), student=None)
    with pytest.raises(StudyError, match=r"Cannot order by 'rewrd'.*Did you mean 'reward'"):
        planned(study_with(by="rewrd"), student=None)
    assert planned(study_with(by="reward"), student=None).metrics


def test_a_named_column_goes_before_references_and_references_before_nothing():
    named = study_with(reward={"kind": "column", "column": "score"})
    (reward,) = plan.reward_sources(named, references=True)
    assert reward.column == "score"
    for study, references in (
        (study_with(), True),
        (study_with(reward={"kind": "reference"}), False),
    ):
        (reward,) = plan.reward_sources(study, references=references)
        assert reward.column is None
        (checker,) = reward_scorers(reward, Runtime(device="cpu"))
        assert isinstance(checker, Verifier) and checker.reads_reference
    assert plan.reward_sources(study_with(), references=False) == (None,)


def toml_of(folder: Path, student: Path, *, instructions: int) -> Path:
    write_teachers(folder / "data", instructions=instructions)
    path = folder / "study.toml"
    path.write_text(
        f'[data]\nresponses = ["{folder}/data/*.jsonl"]\n[[students]]\nmodel = "{student}"\n'
        '[reward]\nkind = "column"\ncolumn = "reward"\n[[metrics]]\nkind = "car"\n[[metrics]]\n'
        f'kind = "ifd"\n[runtime]\nstore = "{folder}/store"\ndevice = "cpu"\n'
    )
    return path


@pytest.mark.usefixtures("private_cache", "one_thread")
def test_a_plan_computes_nothing_and_foretells_what_the_run_computes(
    tmp_path: Path, model_folder: Path
):
    file = toml_of(tmp_path, model_folder, instructions=6)
    shown = preceptor("plan", file)
    assert shown.exit_code == 0, shown.output
    assert not (tmp_path / "store").exists()
    said = " ".join(shown.stdout.split())
    assert "2 teachers, 6 of 6 instructions compared" in said
    for step in ("length", "likelihood", "likelihood without instruction"):
        assert f"tiny-llama, {step}: 0 stored, 12 to compute" in said

    assert preceptor("run", file).exit_code == 0
    assert partition_sizes(tmp_path / "store") == {
        "length": 12,
        "conditional": 12,
        "unconditional": 12,
        "first words": 12,
    }
    before = shards(tmp_path / "store")
    assert "likelihood: 12 stored, 0 to compute (about 0 tokens)" in preceptor("plan", file).stdout

    toml_of(tmp_path, model_folder, instructions=8)  # all texts are other ones
    said = preceptor("plan", file).stdout
    assert "likelihood: 0 stored, 16 to compute" in said
    assert shards(tmp_path / "store") == before


def test_the_estimate_counts_distinct_texts_and_their_characters(tmp_path: Path):
    texts = write_teachers(tmp_path, teachers=1)[0].read_text()
    (tmp_path / "twin.jsonl").write_text(texts)
    files = [tmp_path / "alpha.jsonl", tmp_path / "twin.jsonl"]
    study, runtime = api.study_of(files, no_student=True, store=str(tmp_path / "store"))
    (step,) = api.plan(study, runtime).steps
    assert (step.step, step.stored, step.missing.responses) == ("length", 0, 6)
    characters = sum(len(row["output"]) for row in map(json.loads, texts.splitlines()))
    assert step.missing.characters == characters
