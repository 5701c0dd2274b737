"""A report says how to make it again, refuses what is not stored, and holds itself against outcomes."""

import importlib.util
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from preceptor import api
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.toml import study_text
from preceptor.errors import StudyError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.report.build import agreement_of, report_of, stored_outcomes
from small_outcomes import scored
from small_study import shards, write_teachers
from small_teachers import GRADED, drawn, fake, runtime_at, study_with, write_questions

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_report_names_the_students_the_study_and_the_packages(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path)
    study, runtime = api.study_of(
        files, students=[str(model_folder)], reward_column="reward", store=str(store), device="cpu"
    )
    Pipeline(study, runtime).rankings()
    found = report_of(stored_outcomes(study, runtime), runtime, command="preceptor rank")
    assert found.title == "Teachers for tiny-llama"
    assert found.command == "preceptor rank"
    assert found.study_file == study_text(study)
    assert {"preceptor", "torch", "transformers", "tokenizers"} == set(found.versions)
    assert (found.agreement, found.outcome) == (None, None)
    assert len(found.rankings) == 1


def test_versions_are_those_beside_the_scores_not_those_of_today(tmp_path: Path, store: Path):
    outcomes = scored(write_teachers(tmp_path), store, reward_column="reward")
    (step,) = outcomes[0].steps
    (card,) = store.rglob(f"{step.identity.digest}/identity.json")
    text = card.read_text(encoding="utf-8")
    assert '"preceptor": "0.1.0"' in text
    card.write_text(text.replace('"preceptor": "0.1.0"', '"preceptor": "0.0.9"'), encoding="utf-8")
    (_, runtime) = api.study_of(write_teachers(tmp_path), store=str(store))
    found = report_of(outcomes, runtime, command="")
    assert found.versions["preceptor"] == "0.0.9"


def files_study(files: list[Path], store: Path, folder: Path, **options: Any) -> Any:
    given = {"students": [str(folder)], "reward_column": "reward", "device": "cpu", **options}
    return api.study_of(files, store=str(store), **given)


def test_missing_scores_are_listed_and_nothing_is_computed(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=2, instructions=6)
    study, runtime = files_study(files, store, model_folder)
    with pytest.raises(StudyError) as refused:
        stored_outcomes(study, runtime)
    told = str(refused.value)
    assert "12 scores: length, for tiny-llama" in told
    assert "12 scores: likelihood, for tiny-llama" in told
    assert "preceptor run" in told
    assert not shards(store)
    Pipeline(study, runtime).rankings()
    more = write_teachers(tmp_path, teachers=3, instructions=6)
    with pytest.raises(StudyError, match="6 scores: likelihood"):
        stored_outcomes(*files_study(more, store, model_folder))
    (outcome,) = stored_outcomes(study, runtime)
    assert outcome.ranking == Pipeline(study, runtime).rankings()[0]


def test_tokens_that_are_wanted_and_not_stored_are_missing(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path)
    study, runtime = files_study(files, store, model_folder)
    Pipeline(study, runtime).rankings()
    with pytest.raises(StudyError, match="12 scores: likelihood"):
        stored_outcomes(study, runtime.model_copy(update={"keep_tokens": True}))


def test_missing_responses_are_listed_and_nobody_is_asked(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), fake(), fake("two"), reward=GRADED)
    with pytest.raises(StudyError, match="6 responses of one\n  6 responses of two"):
        stored_outcomes(study, runtime_at(store))
    assert not shards(store)
    Pipeline(study, runtime_at(store)).rankings()
    assert len(stored_outcomes(study, runtime_at(store))) == 1


def test_a_derived_teacher_without_the_rewards_that_choose_it_is_missing(
    tmp_path: Path, store: Path
):
    questions = write_questions(tmp_path)
    asked = (drawn(), fake("two"))
    Pipeline(study_with(questions, *asked, reward=GRADED), runtime_at(store)).rankings()
    best = {"kind": "best", "of": "one", "reward": {"kind": "judge", "model": "judge"}}
    study = study_with(questions, *asked, reward=GRADED, best_of_n=[best])
    # Nobody answers there, and nobody is asked.
    endpoints = {"judge": {"url": "http://127.0.0.1:9/v1"}}
    given = {"store": str(store), "device": "cpu", "endpoints": endpoints}
    with pytest.raises(StudyError, match="the rewards by which one best-of-all is chosen"):
        stored_outcomes(study, checked(Runtime, given, where="here"))


OBSERVED = {"tiny-llama": {"alpha": 3.0, "beta": 2.0, "gamma": 1.0}}


def test_observed_orders_are_held_against_every_metric(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=3, instructions=8)
    study, runtime = files_study(files, store, model_folder, n_resamples=50)
    Pipeline(study, runtime).rankings()
    found = report_of(
        stored_outcomes(study, runtime), runtime, command="", observed=OBSERVED, outcome="a.csv"
    )
    assert found.outcome == "a.csv"
    assert found.agreement is not None
    comparison = found.agreement.comparison
    assert comparison.students == ("tiny-llama",)
    assert sorted(comparison.teachers) == ["alpha", "beta", "gamma"]
    assert {"car", "reward", "loss", "length"} <= {one.metric for one in comparison.columns}
    values = dict(zip(comparison.teachers, comparison.column("car").values[0], strict=True))
    for result in found.rankings[0].ranking.teachers:
        assert values[result.teacher] == result.estimates["car"].value


def test_two_teachers_of_one_label_cannot_be_compared_with_outcomes(tmp_path: Path, store: Path):
    files = write_teachers(tmp_path, teachers=2)
    for file, name in zip(files, ("gemma-2-9b-it", "Gemma-2-9b-it"), strict=True):
        file.rename(tmp_path / f"{name}.jsonl")
    named = sorted(tmp_path.glob("*.jsonl"))
    (outcome,) = scored(named, store, reward_column="reward")
    with pytest.raises(StudyError, match="label of its own"):
        agreement_of([outcome.ranking], OBSERVED)


def load_bench() -> Any:
    """Return the measurement script that fills a store without a model."""
    path = Path(__file__).parents[1] / "bench" / "ranking_from_store.py"
    spec = importlib.util.spec_from_file_location("ranking_from_store", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twenty_teachers_on_a_thousand_instructions_are_gathered_in_little_memory(tmp_path: Path):
    load_bench().prepare(tmp_path, 20, 1000)
    files = sorted(tmp_path.glob("teacher-*.jsonl"))
    study, runtime = files_study(files, tmp_path / "store", tmp_path / "tiny")
    (outcome,) = stored_outcomes(study, runtime)
    tracemalloc.start()
    try:
        found = report_of([outcome], runtime, command="")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.rankings[0].examples_of == 1000
    assert len(found.rankings[0].examples) == 60
    # Ten measures of 20,000 responses, read, averaged and put in order, are 5 MB; draws are 40 MB at a time.
    assert peak < 150e6
