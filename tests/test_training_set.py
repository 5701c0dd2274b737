"""What students are fine-tuned on: the same instructions for every teacher, nested, whole where asked for."""

from pathlib import Path
from typing import Any

import pytest

from preceptor.config.study import Study
from preceptor.data.overlap import EvaluationQuestions
from preceptor.errors import StudyError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.types import Instruction
from preceptor.validation.finetune_job import FinetuneJob, StudentSetup, setup_of
from preceptor.validation.training_set import TrainingSet, training_set_of
from small_study import rows_of, write_rows
from small_validation import TRAIN, runtime_at, study_of, tables

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def given(tmp_path: Path, model_folder: Path) -> dict[str, Any]:
    return tables(tmp_path, model_folder)


def asked(*questions: str) -> EvaluationQuestions:
    return EvaluationQuestions(map(Instruction.from_text, questions), 8)


def training_set(study: Study, store: Path, questions: tuple[str, ...] = ()) -> TrainingSet:
    assert study.train is not None
    data = Pipeline(study, runtime_at(store)).load()
    return training_set_of(data[0], study.train, asked(*questions), seed=study.ranking.seed)


def setup(study: Study, store: Path) -> StudentSetup:
    assert study.train is not None
    return setup_of(study.students[0], study.train, study.evaluate[0], runtime=runtime_at(store))


def test_all_teachers_train_on_the_same_instructions_each_with_its_own_texts(given, tmp_path: Path):
    found = training_set(study_of(given), tmp_path).first(5)
    texts = {teacher: found.texts(teacher) for teacher in found.teachers}
    assert {frozenset(one) for one in texts.values()} == {frozenset(found.instructions)}
    written = {row["instruction"]: row["output"] for row in rows_of(1, 12)}
    for question, answer in texts["beta"].values():
        assert written[question.content] == answer.content


def test_more_rows_only_add(given, tmp_path: Path):
    found = training_set(study_of(given), tmp_path)
    few, more = found.first(3).instructions, found.first(7).instructions
    assert more[:3] == few
    assert found.first(None).instructions == found.instructions


def test_what_is_compared_under_a_limit_is_trained_on_first(given, tmp_path: Path):
    given["data"]["limit"] = 4
    study = study_of(given)
    data = Pipeline(study, runtime_at(tmp_path)).load()
    assert study.train is not None
    found = training_set_of(data[0], study.train, asked(), seed=study.ranking.seed)
    assert len(found.instructions) == 12
    assert sorted(found.first(4).instructions) == data[0].selection.taken.tolist()


def test_an_instruction_that_one_teacher_has_not_answered_is_left_to_none(given, tmp_path: Path):
    (tmp_path / "teachers" / "gamma.jsonl").unlink()
    write_rows(tmp_path / "teachers" / "gamma.jsonl", rows_of(2, 12)[:9])
    assert len(training_set(study_of(given), tmp_path).instructions) == 9
    given["train"] = {**TRAIN, "teachers": ["beta", "alpha"]}
    found = training_set(study_of(given), tmp_path)
    assert (found.teachers, len(found.instructions)) == (("beta", "alpha"), 12)


def test_a_misspelled_teacher_is_told_of(given, tmp_path: Path):
    given["train"] = {**TRAIN, "teachers": ["beta", "alhpa"]}
    with pytest.raises(StudyError, match=r"names the teacher 'alhpa'.*Did you mean 'alpha'"):
        training_set(study_of(given), tmp_path)


def test_questions_that_leave_nothing_are_refused(given, tmp_path: Path):
    same = tuple(f"what is number {number} good for?" for number in range(12))
    with pytest.raises(StudyError, match="Nothing is left to train on once 12 instructions that"):
        training_set(study_of(given), tmp_path, same)
    assert len(training_set(study_of(given), tmp_path, same[1:]).instructions) == 1


def test_whole_only_leaves_out_for_all_what_would_be_cut_for_one(given, tmp_path: Path):
    long = rows_of(2, 12)
    for row in long[:7]:
        row["output"] = "the sea is wide and deep " * 30
    write_rows(tmp_path / "teachers" / "gamma.jsonl", long)
    cut = {row["instruction"] for row in long[:7]}
    given["train"] = {**TRAIN, "whole_only": True, "rows": 4}
    study = study_of(given)
    found = setup(study, tmp_path).training_set(training_set(study, tmp_path), study.train)
    assert len(found.instructions) == 4
    assert found.left_out == {"a response would be cut at max_length": 7}
    asked = {turns[0].content for turns in found.texts("alpha").values()}
    assert asked.isdisjoint(cut)
    given["train"]["max_length"] = 8
    study = study_of(given)
    with pytest.raises(StudyError, match="No instruction has a response of every teacher within"):
        setup(study, tmp_path).training_set(training_set(study, tmp_path), study.train)


def test_every_teacher_gives_as_many_tokens_to_within_a_response(given, tmp_path: Path):
    long = rows_of(2, 12)
    for row in long:
        row["output"] = "the sea is wide and deep " * 4
    write_rows(tmp_path / "teachers" / "gamma.jsonl", long)
    given["train"] = {**TRAIN, "rows": 10, "equal": "tokens"}
    study = study_of(given)
    own = setup(study, tmp_path)
    found = own.training_set(training_set(study, tmp_path), study.train)
    assert own.training_set(training_set(study, tmp_path), study.train).first_of == found.first_of
    held = {}
    for teacher in found.teachers:
        rows = found.conversations(teacher)
        job = FinetuneJob(own, teacher, rows, runtime_at(tmp_path))
        held[teacher] = job.prepared().rows.trained_tokens
        assert set(found.texts(teacher)) == set(found.instructions[: len(rows.rows)])
        assert sum(rows.left_out.values()) == 10 - len(rows.rows)
    tersest = max(held, key=lambda teacher: held[teacher])
    assert len(found.of(tersest)) == 10 > len(found.of("gamma"))
    longest = max(len(row["output"]) for row in long)  # in characters, so no fewer than its tokens
    assert all(held[tersest] - longest < tokens for tokens in held.values())
    given["train"]["equal"] = "rows"
    study = study_of(given)
    rows_alike = own.training_set(training_set(study, tmp_path), study.train)
    assert {len(rows_alike.of(teacher)) for teacher in found.teachers} == {10}
