"""A plan says how long scoring takes on one device and on many by a speed that was given, or says none."""

import json
from pathlib import Path
from typing import Any

import pytest

from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.errors import StudyError
from preceptor.pipeline.estimate import StepEstimate
from preceptor.pipeline.scale import Speed, Work, times
from small_study import preceptor, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

WORK = Work("m", 7_200_000, 100, "counted")


def runtime(tmp_path: Path, **given: Any) -> Runtime:
    return Runtime(device="cpu", store=str(tmp_path / "store"), **given)


def likelihood_of(
    tmp_path: Path, folder: Path, at: Runtime, *, instructions: int = 6, measure: bool = False
) -> StepEstimate:
    files = write_teachers(tmp_path, instructions=instructions)
    study = Study.model_validate(
        {
            "data": {"responses": [str(file) for file in files]},
            "students": [Student(model=str(folder))],
            "reward": {"kind": "column", "column": "reward"},
        }
    )
    steps = api.plan(study, at, measure=measure).steps
    (found,) = [one for one in steps if one.step == "likelihood"]
    assert all(one.work is None for one in steps if one.step == "length")
    return found


def test_time_falls_with_the_devices_and_money_does_not():
    at = Runtime(price_per_hour=2.5)
    found = times(WORK, Speed(1000.0, "stated"), at)
    assert [(one.devices, one.workers, one.seconds, one.money) for one in found] == [
        (1, 1, 7200.0, pytest.approx(5.0)),
        (8, 8, 900.0, pytest.approx(5.0)),
        (64, 64, 112.5, pytest.approx(5.0)),
    ]


def test_a_worker_of_several_devices_needs_them_and_is_paid_for():
    one, eight, most = times(WORK, Speed(1000.0, "stated"), Runtime(gpus=4, price_per_hour=1.0))
    assert (one.workers, one.seconds, one.money) == (0, None, None)
    assert (eight.workers, eight.seconds, eight.money) == (2, 3600.0, pytest.approx(8.0))
    assert (most.workers, most.seconds) == (16, 450.0)


def test_workers_beyond_the_instructions_idle_and_are_paid_for_all_the_same():
    few = Work("m", 3600, 4, "counted")
    *_, most = times(few, Speed(1.0, "stated"), Runtime(price_per_hour=1.0))
    assert (most.workers, most.busy, most.seconds) == (64, 4, 900.0)
    assert most.money == pytest.approx(16.0)


def test_without_a_speed_no_time_is_told(tmp_path: Path, model_folder: Path):
    found = likelihood_of(tmp_path, model_folder, runtime(tmp_path))
    assert found.speed is None
    assert [one.seconds for one in found.times] == [None] * 3


def test_a_stated_speed_is_taken_and_tokens_are_estimated_from_characters(
    tmp_path: Path, model_folder: Path
):
    at = runtime(tmp_path, tokens_per_second={str(model_folder): 10.0})
    found = likelihood_of(tmp_path, model_folder, at)
    assert found.work is not None
    assert found.work.tokens == round(found.missing.characters / 4)
    assert found.work.instructions == 6
    assert found.times[0].seconds == pytest.approx(found.work.tokens / 10)
    assert found.times[0].money is None


def test_tokens_are_those_of_stored_rows_where_there_are_some(tmp_path: Path, model_folder: Path):
    at = runtime(tmp_path, tokens_per_second={str(model_folder): 10.0})
    files = write_teachers(tmp_path, instructions=6)
    api.rank(files, student=str(model_folder), reward_column="reward", store=at.store, device="cpu")
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    with files[0].open("a") as handle:
        handle.write(json.dumps({**rows[0], "output": "the sea is wide"}) + "\n")
    study, _ = api.study_of(files, students=[str(model_folder)], reward_column="reward")
    (found,) = [one for one in api.plan(study, at).steps if one.step == "likelihood"]
    assert (found.stored, found.missing.responses) == (12, 1)
    assert found.work is not None
    assert found.work.basis == "by 12 stored rows of this step"


def test_a_measured_speed_is_this_machines_and_nothing_is_stored(
    tmp_path: Path, model_folder: Path
):
    at = runtime(tmp_path)
    found = likelihood_of(tmp_path, model_folder, at, measure=True)
    assert found.speed is not None
    assert found.speed.tokens_per_second > 0
    assert "measured on this machine (cpu)" in found.speed.basis
    assert not (tmp_path / "store").exists()


def test_the_command_says_what_to_give_or_the_times(tmp_path: Path, model_folder: Path):
    write_teachers(tmp_path, instructions=6)
    file = tmp_path / "study.toml"
    text = (
        f'students = [{{ model = "{model_folder}" }}]\n'
        'data.responses = ["*.jsonl"]\nreward = { kind = "column", column = "reward" }\n'
        '[runtime]\ndevice = "cpu"\nprice_per_hour = 2.0\n'
    )
    file.write_text(text)
    said = " ".join(preceptor("plan", file).stdout.split())
    assert f"give [runtime.tokens_per_second] '{model_folder}' =" in said
    file.write_text(text + f'tokens_per_second = {{ "{model_folder}" = 0.001 }}\n')
    said = " ".join(preceptor("plan", file).stdout.split())
    assert "1 device, 1 worker: " in said
    assert "64 devices, 64 workers (58 idle: instructions are not shared): " in said
    assert " USD" in said


def test_a_speed_of_nothing_is_refused():
    with pytest.raises((StudyError, ValueError), match="greater than 0"):
        Runtime(tokens_per_second={"m": 0.0})


def test_a_speed_of_a_model_that_the_study_lacks_is_refused(tmp_path: Path, model_folder: Path):
    at = runtime(tmp_path, tokens_per_second={f"{model_folder}s": 10.0})
    with pytest.raises(StudyError, match=rf"no model of the study.*Did you mean '{model_folder}'"):
        likelihood_of(tmp_path, model_folder, at)


def test_a_speed_is_that_of_a_model_beside_the_file(tmp_path: Path, model_folder: Path):
    write_teachers(tmp_path, instructions=6)
    (tmp_path / "base").symlink_to(model_folder)
    (tmp_path / "study.toml").write_text(
        'students = [{ model = "./base" }]\ndata.responses = ["*.jsonl"]\n'
        'reward = { kind = "column", column = "reward" }\n'
        '[runtime]\ndevice = "cpu"\ntokens_per_second = { "./base" = 0.001 }\n'
    )
    assert "1 device, 1 worker: " in " ".join(
        preceptor("plan", tmp_path / "study.toml").stdout.split()
    )
