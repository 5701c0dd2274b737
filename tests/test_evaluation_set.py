"""The evaluation set is found before anything is paid for, and is the same for every student and teacher."""

from pathlib import Path
from typing import Any

import pytest

from preceptor.benchmarks.judges import judge_of
from preceptor.benchmarks.registry import benchmark_named
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.errors import DataError, ModelError, StudyError
from preceptor.types import Instruction, Message
from preceptor.validation.questions import EvaluationSet, evaluation_sets_of
from small_study import write_rows
from small_validation import runtime_at, study_of, tables

pytestmark = pytest.mark.usefixtures("private_cache")


def evaluation_set(folder: Path, model: Path, **evaluate: Any) -> EvaluationSet:
    given = tables(folder, model)
    given["evaluate"] |= evaluate
    (found,) = evaluation_sets_of(study_of(given), runtime_at(folder / "store"))
    return found


def test_questions_of_ones_own_are_known_by_their_text_once_each(
    tmp_path: Path, model_folder: Path
):
    rows = [{"instruction": text} for text in ("One?", "Two?", "One?")]
    path = write_rows(tmp_path / "own.jsonl", rows)
    (task,) = evaluation_set(tmp_path, model_folder, questions=str(path)).tasks
    assert task.questions.texts == {"One?": "One?", "Two?": "Two?"}
    assert task.questions.instructions["Two?"] == Instruction.from_text("Two?")


def test_a_conversation_is_put_whole_and_shown_to_the_judge_by_its_roles(
    tmp_path: Path, model_folder: Path
):
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "More")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path = write_rows(tmp_path / "own.jsonl", [row])
    (task,) = evaluation_set(tmp_path, model_folder, questions=str(path)).tasks
    shown = "[user]\nHi\n\n[assistant]\nHello\n\n[user]\nMore"
    assert list(task.questions.texts) == [shown]
    assert task.questions.instructions[shown].messages == tuple(Message(*turn) for turn in turns)


def test_a_limit_is_nested(tmp_path: Path, model_folder: Path):
    of_two = evaluation_set(tmp_path, model_folder, limit=2).tasks[0].questions.instructions.keys()
    of_three = (
        evaluation_set(tmp_path, model_folder, limit=3).tasks[0].questions.instructions.keys()
    )
    assert (len(of_two), len(of_three)) == (2, 3)
    assert of_two < of_three


def test_a_file_of_answers_is_a_baseline_and_bounds_the_questions(
    tmp_path: Path, model_folder: Path
):
    asked = "Is the sea number 1 wide?"
    rows = [{"instruction": asked, "output": "Yes.", "generator": "sage"}]
    path = write_rows(tmp_path / "sage.jsonl", rows)
    found = evaluation_set(tmp_path, model_folder, baseline=str(path))
    assert not found.untuned_answers
    (task,) = found.tasks
    against = task.questions.against(task.questions.answers_of("untuned", {}))
    assert (against.baseline.model, list(against.texts)) == ("sage", [asked])


def test_a_baseline_of_other_questions_is_refused(tmp_path: Path, model_folder: Path):
    rows = [{"instruction": "Else?", "output": "Yes.", "generator": "sage"}]
    path = write_rows(tmp_path / "sage.jsonl", rows)
    with pytest.raises(DataError, match="answers none of the questions"):
        evaluation_set(tmp_path, model_folder, baseline=str(path))


def test_an_untuned_student_that_answers_nothing_is_no_baseline(tmp_path: Path, model_folder: Path):
    found = evaluation_set(tmp_path, model_folder)
    assert found.untuned_answers
    (task,) = found.tasks
    with pytest.raises(DataError, match="answered none of the 4 questions"):
        task.questions.against(task.questions.answers_of("untuned", {}))


def test_a_missing_judge_is_told_of_before_anything_is_asked(tmp_path: Path, model_folder: Path):
    judge = {"kind": "chat", "model": str(tmp_path / "nowhere")}
    with pytest.raises(ModelError, match="nowhere"):
        evaluation_set(tmp_path, model_folder, judge=judge)
    with pytest.raises(StudyError, match="Nothing says where 'served' is served"):
        evaluation_set(
            tmp_path, model_folder, judge={"kind": "chat", "model": "served", "engine": "openai"}
        )


def test_games_are_written_by_served_models_in_arena_hard_alone(tmp_path: Path, model_folder: Path):
    where = {"endpoints": {"served": {"url": "http://127.0.0.1:1/v1"}}}
    runtime = checked(Runtime, where, where="here")
    given = tables(tmp_path, model_folder)
    given["evaluate"]["judge"] = {"kind": "chat", "model": "served", "engine": "openai"}
    (evaluate,) = study_of(given).evaluate
    kinds = {name: benchmark_named(name).judge_kinds for name in ("arena_hard", "alpaca_eval")}
    judges = {name: judge_of(evaluate.judge, runtime, own).kind for name, own in kinds.items()}
    assert judges == {"arena_hard": "written", "alpaca_eval": "letter"}
    by_letter = evaluate.judge.model_copy(update={"verdict_by_letter": True})
    assert judge_of(by_letter, runtime, kinds["arena_hard"]).kind == "letter"
