"""Validation over tiny real models: it finishes, is never paid for twice, and survives kills anywhere."""

import fcntl
import html
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from preceptor.agreement.orders import read_observed
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError
from preceptor.store.store import Store
from preceptor.validation.result import ValidationResult
from preceptor.validation.validate import Validation
from small_study import preceptor, start, write_rows
from small_validation import TRAIN, gone_through, study_of, tables, write_study

PATIENCE = 300.0


class Done(NamedTuple):
    """A validation that was gone through without disturbance."""

    tables: dict[str, Any]
    store: Path
    result: ValidationResult
    computed: dict[str, int]


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own for all tests here, and one thread, as the processes have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PRECEPTOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def twice(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same with a second run per teacher, begun from a store that holds the first."""
    store = shutil.copytree(done.store, tmp_path_factory.mktemp("twice") / "store")
    given = {**done.tables, "train": {**done.tables["train"], "seeds": 2}}
    result, told = gone_through(given, store)
    return Done(given, store, result, told.computed)


@pytest.fixture(scope="module")
def done(quiet: None, tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Done:
    folder = tmp_path_factory.mktemp("validation")
    given = tables(folder, model_folder, questions=6, train={**TRAIN, "epochs": 3, "batch_size": 2})
    result, told = gone_through(given, folder / "store")
    return Done(given, folder / "store", result, told.computed)


def test_the_loop_closes_from_prediction_to_agreement(done: Done):
    (predicted,), (observed,) = done.result.predicted, done.result.observed
    teachers = {"alpha", "beta", "gamma"}
    assert {one.teacher for one in predicted.teachers} == teachers
    assert {one.teacher for one in observed.teachers} == teachers
    assert (predicted.by, observed.by) == ("car", "win_rate")
    for one in observed.teachers:
        estimate = one.estimates["win_rate"]
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 100
        assert estimate.n == 6
    table = done.result.agreement
    assert table is not None
    assert table.comparison.teachers == tuple(one.teacher for one in observed.teachers)
    assert "car" in {column.metric for column in table.comparison.columns}
    assert done.result.sentences()[0].startswith("tiny-llama: car put ")


def test_every_fine_tuning_has_trained_on_the_same_number_of_rows_and_learnt(done: Done):
    for one in done.result.finetuned:
        assert (one.rows, one.steps) == (8, 12)  # 8 rows by 2, three times
        assert one.first_loss is not None and one.last_loss is not None
        assert one.last_loss < one.first_loss
        assert one.answered.answers == 6
        assert one.answered.ended is not None
    assert done.result.untuned["tiny-llama"].answers == 6


def test_the_untuned_student_is_the_baseline_under_the_same_template(done: Done):
    assert done.result.observed[0].settings["baseline"] == "tiny-llama, untuned"
    specs = [partition.identity.spec for partition in Store(done.store).partitions()]
    answering = [spec for spec in specs if "max_tokens" in spec and "judge" not in spec]
    assert len(answering) == 4
    assert len({json.dumps(spec["template"]) for spec in answering}) == 1
    assert sum("tuned" in spec["model"] for spec in answering) == 3


def test_a_second_run_computes_nothing_even_once_the_models_are_deleted(done: Done):
    again, told = gone_through(done.tables, done.store)
    assert told.computed == {}
    assert again.to_dict() == done.result.to_dict()
    moved = done.store / "models"
    shutil.move(moved, done.store / "elsewhere")
    try:
        again, told = gone_through(done.tables, done.store)
    finally:
        shutil.move(done.store / "elsewhere", moved)
    assert told.computed == {}
    assert again.observed == done.result.observed


def test_another_teacher_costs_only_its_own_fine_tuning(
    done: Done, tmp_path: Path, model_folder: Path
):
    more = tables(tmp_path, model_folder, teachers=4, questions=6, train=done.tables["train"])
    store = shutil.copytree(done.store, tmp_path / "store")
    _, told = gone_through(more, store)
    assert {step: count for step, count in told.computed.items() if "fine-tuned on" in step} == {
        "tiny-llama fine-tuned on delta, rows": 24,
        "tiny-llama fine-tuned on delta responds": 6,
    }
    assert "tiny-llama, untuned responds" not in told.computed
    assert (
        told.computed["judge answers to questions of the study"] == 12
    )  # six questions in both orders


def test_a_second_run_per_teacher_is_all_that_is_computed_and_outcomes_are_means(
    done: Done, twice: Done
):
    questions = "judge answers to questions of the study"
    # In both orders; an answer that both runs gave is judged once.
    assert 0 < twice.computed[questions] <= 3 * 6 * 2
    assert set(twice.computed) - {questions} == {
        f"tiny-llama fine-tuned on {name}, run 2{what}"
        for name in ("alpha", "beta", "gamma")
        for what in (", rows", " responds")
    }
    assert [one.run for one in twice.result.finetuned] == [1, 2] * 3
    assert len({one.model for one in twice.result.finetuned}) == 6
    # The second run alone is the study with the next seed, and is there already.
    given = {**done.tables, "train": {**done.tables["train"], "seed": 1}}
    second, told = gone_through(given, twice.store)
    assert told.computed == {}
    for one in twice.result.observed[0]:
        runs = [result.observed[0][one.teacher] for result in (done.result, second)]
        values = [run.estimates["win_rate"].value for run in runs]
        assert one.estimates["win_rate"].value == pytest.approx(sum(values) / 2)
    (said,) = twice.result.sentences()
    assert "means over 2 runs per teacher" in said and "one run" not in said
    rows = twice.result.observed_records()
    assert [row["teacher"] for row in rows] == list(twice.result.observed[0].order)


def test_the_command_writes_what_agree_reads(done: Done, tmp_path: Path):
    study = write_study(tmp_path / "study.toml", done.tables, done.store)
    output, observed = tmp_path / "all.json", tmp_path / "observed.csv"
    page = tmp_path / "page.html"
    shown = preceptor("run", study, "--json", output, "--csv", observed, "--html", page)
    assert "this study's own evaluation" in html.unescape(page.read_text(encoding="utf-8"))
    assert shown.exit_code == 0, shown.output
    assert "Observed: " in shown.stdout
    assert "neither confirms nor refutes" in " ".join(shown.stdout.split())
    assert json.loads(output.read_text()) == json.loads(json.dumps(done.result.to_dict()))
    found = read_observed(str(observed))
    ranking = done.result.observed[0]
    assert found == {
        "tiny-llama": {
            one.teacher: pytest.approx(one.estimates["win_rate"].value) for one in ranking.teachers
        }
    }


def test_instructions_that_are_among_the_questions_are_not_trained_on(
    tmp_path: Path, model_folder: Path
):
    given = tables(
        tmp_path, model_folder, train={**TRAIN, "rows": None, "teachers": ["beta", "alpha"]}
    )
    asked = [f"  what is  NUMBER {number} good for?" for number in range(10)]
    write_rows(tmp_path / "questions.jsonl", [{"instruction": text} for text in asked])
    result, _ = gone_through(given, tmp_path / "store")
    assert [one.teacher for one in result.finetuned] == ["beta", "alpha"]
    for one in result.finetuned:
        assert one.rows == 2  # of twelve
        assert one.left_out == {"in evaluation questions": 10}
    (said,) = [one.text for one in result.observed[0].warnings if one.code == "left-out"]
    assert said.startswith("10 of 12 instructions are not trained on")
    assert result.agreement is None
    assert result.sentences() == [
        "2 teachers have no order to agree on: fine-tune on 3 or more to hold a prediction against."
    ]


def test_two_processes_never_train_the_same_model_at_once(done: Done, tmp_path: Path):
    store = tmp_path / "store"
    (store / "models").mkdir(parents=True)
    with (store / "models" / f"{done.result.finetuned[0].model}.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="Another process is training"):
            gone_through(done.tables, store)
    assert not list((store / "models").glob("*/training/checkpoints"))


def test_a_store_that_is_not_on_this_machine_is_refused_before_anything(done: Done):
    runtime = Runtime(store="memory://far", device="cpu")
    with pytest.raises(StudyError, match=r"memory://far.*is not on this machine"):
        Validation.open(study_of(done.tables), runtime)


def test_a_study_without_the_tables_has_nothing_to_prove(done: Done):
    study = study_of({**done.tables, "train": None, "evaluate": None})
    with pytest.raises(StudyError, match=r"no \[train\] and \[evaluate\]"):
        Validation.open(study, Runtime())


def assert_same(found: Any, expected: Any, at: str = "result") -> None:
    """Check that two results are equal; batches differ after a kill, and rounding with them."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), at
        for name, value in expected.items():
            assert_same(found[name], value, f"{at}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), at
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{at}[{place}]")
    else:
        near = isinstance(expected, float)
        assert found == (pytest.approx(expected, rel=1e-9, abs=1e-9) if near else expected), at


Told = Callable[[str], bool]


def when_it_says(words: str) -> Told:
    return lambda line: words in line


def when_there_is(store: Path, pattern: str) -> Told:
    """Wait, from the first training on, until such a file is there."""

    def struck(line: str) -> bool:
        if "rows: " not in line:
            return False
        deadline = time.monotonic() + PATIENCE
        while not any(store.glob(pattern)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return True

    return struck


def kill(process: "subprocess.Popen[str]", told: Told) -> bool:
    """Read what the process says, and kill it at the first line that is told; whether one was."""
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if told(line):
                process.send_signal(signal.SIGKILL)
                return True
    return False


def test_a_loop_killed_at_every_stage_and_inside_resumes_to_the_same_result(
    done: Done, twice: Done, tmp_path: Path
):
    store, output = tmp_path / "store", tmp_path / "result.json"
    study = write_study(tmp_path / "study.toml", twice.tables, store)
    strikes = [
        when_it_says("likelihood: "),
        # Two checkpoints are kept at a time, so a slow look must be content with a later one.
        when_there_is(store, "models/*/training/checkpoints/checkpoint-[3-9]/whole"),
        when_it_says("fine-tuned on beta, run 2 responds"),
        when_it_says("judge answers"),
    ]
    for place, strike in enumerate(strikes):
        assert kill(start("run", study), strike), f"strike {place} met nothing"
    process = start("run", study, "--json", output)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    # Everything before the last strike was kept.
    assert "fine-tuned on gamma, rows" not in said
    assert "likelihood: 36 stored, 0 to compute" in said
    assert "untuned responds: 6 stored, 0 to compute" in said
    assert_same(json.loads(output.read_text()), json.loads(json.dumps(twice.result.to_dict())))
    _, told = gone_through(twice.tables, store)
    assert told.computed == {}
