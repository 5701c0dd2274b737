"""What a plan says of validation, checked by hand; and that it trains, asks and stores nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from preceptor.config.base import checked
from preceptor.config.recipe import Recipe, steps_of
from preceptor.config.runtime import Runtime
from preceptor.pipeline.estimate import estimate
from preceptor.validation.estimate import ValidationEstimate, training_pace, validation_estimate
from preceptor.validation.validate import Validation
from small_study import preceptor
from small_teachers import fake
from small_validation import TRAIN, runtime_at, study_of, tables, write_study

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


def planned(given: dict[str, Any], runtime: Runtime) -> ValidationEstimate:
    study = study_of(given)
    return validation_estimate(Validation.open(study, runtime), estimate(study, runtime).data)


def test_rows_steps_answers_and_disk_are_counted_and_nothing_is_stored(
    tmp_path: Path, model_folder: Path
):
    found = planned(tables(tmp_path, model_folder), runtime_at(tmp_path / "store"))
    assert [one.teacher for one in found.finetune_jobs] == ["alpha", "beta", "gamma"]
    for one in found.finetune_jobs:
        assert (one.rows, one.steps, one.asked.missing, one.done) == (8, 4, 4, False)
        assert one.steps == steps_of(Recipe(batch_size=4), 8).total
        assert one.seconds is None
        assert one.tokens > 8 * 10
    (untuned,) = found.untuned
    assert (untuned.missing, untuned.most_tokens) == (4, 4 * 6)
    ((_, cost),) = found.verdicts
    # Three students by four questions in both orders, and a local judge has no price.
    assert (cost.requests, cost.stored, cost.price) == (24, 0, None)

    model = sum(path.stat().st_size for path in model_folder.glob("*.safetensors"))
    # Three models, and three checkpoints of weights and two moments.
    assert 0.9 * 12 * model < found.disk < 1.1 * 12 * model
    assert not (tmp_path / "store").exists()


def test_every_run_is_counted_before_and_after_responses_are_there(
    tmp_path: Path, model_folder: Path
):
    given = tables(tmp_path, model_folder, train={**TRAIN, "seeds": 3})
    found = planned(given, runtime_at(tmp_path / "store"))
    once = planned({**given, "train": TRAIN}, runtime_at(tmp_path / "store"))
    assert (len(found.teachers), found.runs, len(found.finetune_jobs)) == (3, 3, 9)
    assert len({one.model for one in found.finetune_jobs}) == 9
    ((_, cost),), ((_, single),) = found.verdicts, once.verdicts
    assert cost.requests == 3 * single.requests
    assert found.disk is not None and once.disk is not None and found.disk > once.disk
    study, runtime = study_of(given), runtime_at(tmp_path / "store")
    ((_, unread),) = validation_estimate(Validation.open(study, runtime), []).verdicts
    assert unread.requests == 0  # files' teachers are unknown before they are read


def test_a_served_judge_has_a_price_before_the_first_answer_is_there(
    tmp_path: Path, model_folder: Path
):
    where = {"url": "http://127.0.0.1:1/v1", "price_in": 1.0, "price_out": 4.0}
    runtime = checked(
        Runtime,
        {**runtime_at(tmp_path / "store").model_dump(), "endpoints": {"served": where}},
        where="",
    )
    given = tables(tmp_path, model_folder)
    given["evaluate"]["judge"] = {"kind": "chat", "model": "served", "engine": "openai"}
    ((_, cost),) = planned(given, runtime).verdicts
    assert cost.requests == 12  # one order each, as the benchmark has it
    assert cost.price == pytest.approx((cost.prompt_tokens + 4 * cost.answer_tokens) / 1e6)
    assert cost.prompt_tokens > 12 * 10


def test_before_the_teachers_have_answered_the_verdicts_are_counted_all_the_same(
    tmp_path: Path, model_folder: Path
):
    given = tables(tmp_path, model_folder)
    given["data"] = {"instructions": given["evaluate"]["questions"], "limit": 3}
    given["teachers"] = [fake(name) for name in ("one", "two", "three")]
    given["reward"] = ()
    found = planned(given, runtime_at(tmp_path / "store"))
    assert (found.finetune_jobs, found.disk) == ([], None)
    assert list(found.teachers) == ["one", "two", "three"]
    assert found.verdicts[0][1].requests == 24


def test_the_speed_is_that_of_the_students_finished_fine_tunings(tmp_path: Path):
    runtime = runtime_at(tmp_path)
    student = {"folder_sha256": "0"}
    assert training_pace(runtime, student) is None
    for name, whose, tokens in (("a", student, 100), ("b", student, 50), ("c", {}, 7)):
        folder = tmp_path / "models" / name / "training"
        folder.mkdir(parents=True)
        spec = {"student": whose, "recipe": {"epochs": 2}}
        (folder / "identity.json").write_text(json.dumps({"spec": spec}))
        (folder / "finished.json").write_text(json.dumps({"tokens": tokens, "seconds": 10.0}))
    assert training_pace(runtime, student) == pytest.approx(2 * 150 / 20)
    # One that was gone on with: 9 of its 10 steps were taken by a process whose seconds are not known.
    record = {"tokens": 1000, "seconds": 20.0, "steps": 10, "steps_before": 9}
    (tmp_path / "models" / "b" / "training" / "finished.json").write_text(json.dumps(record))
    assert training_pace(runtime, student) == pytest.approx(2 * (100 + 100) / 30)
    record["steps_before"] = 10
    (tmp_path / "models" / "b" / "training" / "finished.json").write_text(json.dumps(record))
    assert training_pace(runtime, student) == pytest.approx(2 * 100 / 10)


def test_the_command_prints_what_validation_would_take(tmp_path: Path, model_folder: Path):
    given = tables(tmp_path, model_folder, train={**TRAIN, "rows": None, "warmup_steps": 100})
    study = write_study(tmp_path / "study.toml", given, tmp_path / "store")
    shown = preceptor("plan", study)
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.stdout.split())
    assert "Then validation: 3 fine-tune jobs, 4 questions to each student." in said
    assert "its speed is unknown" in said
    assert "24 requests, 0 stored" in said
    assert "The warm-up takes 100 steps and the training has 6" in said
    assert not (tmp_path / "store").exists()
