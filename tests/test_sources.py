"""The responses of asked teachers: what is asked of whom, what is shared, and what raising a number costs."""

from pathlib import Path
from typing import Any

import pytest

from chat_server import serving
from preceptor.config.data import ReadOptions
from preceptor.errors import DataError, ModelError, StudyError
from preceptor.pipeline.sources import source_of
from preceptor.types import Response
from small_study import preceptor, write_rows
from small_teachers import (
    GRADED,
    asked_in,
    backend,
    drawn,
    fake,
    job,
    jobs,
    partitions,
    runtime_at,
    served,
    study_with,
    texts_in,
    write_questions,
)

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_study_that_ran_asks_nothing_again(questions: Path, store: Path):
    study = study_with(questions, drawn(), fake("two"))
    assert asked_in(study, runtime_at(store)) == {"one": 18, "two": 6}
    assert asked_in(study, runtime_at(store)) == {"one": 0, "two": 0}


def test_a_renamed_teacher_costs_nothing(questions: Path, store: Path):
    asked_in(study_with(questions, drawn()), runtime_at(store))
    renamed = study_with(questions, drawn(label="another"))
    assert asked_in(renamed, runtime_at(store)) == {"another": 0}


def test_more_samples_cost_only_the_further_ones(questions: Path, store: Path):
    asked_in(study_with(questions, drawn(samples=2)), runtime_at(store))
    before = texts_in(store)
    assert asked_in(study_with(questions, drawn(samples=5)), runtime_at(store)) == {"one": 18}
    assert before.items() <= texts_in(store).items()
    assert asked_in(study_with(questions, drawn(samples=3)), runtime_at(store)) == {"one": 0}


def test_a_larger_limit_costs_only_the_further_instructions(tmp_path: Path, store: Path):
    questions = write_questions(tmp_path, 20)
    few = study_with(questions, drawn(), data={"limit": 4})
    many = study_with(questions, drawn(), data={"limit": 10})
    assert asked_in(few, runtime_at(store)) == {"one": 12}
    assert asked_in(many, runtime_at(store)) == {"one": 18}
    assert asked_in(few, runtime_at(store)) == {"one": 0}


def test_more_instructions_in_the_file_cost_only_the_further_ones(tmp_path: Path, store: Path):
    asked_in(study_with(write_questions(tmp_path, 6), drawn()), runtime_at(store))
    study = study_with(write_questions(tmp_path, 8), drawn())
    assert asked_in(study, runtime_at(store)) == {"one": 6}


def test_another_machine_costs_nothing(questions: Path, store: Path):
    study = study_with(questions, served())
    with serving() as told:
        assert asked_in(study, runtime_at(store, told)) == {"served": 6}
    with serving() as told:
        other = runtime_at(
            store,
            told,
            concurrency=2,
            timeout_s=9,
            requests_per_minute=600,
            price_in=1,
            price_out=2,
        )
        assert asked_in(study, other.model_copy(update={"batch_size": 3})) == {"served": 0}
    assert told.requests == []


def test_where_and_how_fast_a_local_teacher_runs_changes_no_identity(
    questions: Path, store: Path, model_folder: Path
):
    study = study_with(questions, {"model": str(model_folder), "dtype": "float32"})
    runtime = runtime_at(store)
    other = runtime.model_copy(update={"batch_size": 3, "device": "cuda", "max_batch_tokens": 5})
    assert backend(study, runtime).identity() == backend(study, other).identity()


@pytest.mark.parametrize("change", [{"seed": 5}, {"top_p": 0.5}, {"label": "greedy"}])
def test_greedy_texts_are_shared_whatever_the_seed_or_top_p(
    questions: Path, store: Path, change: dict[str, Any]
):
    asked_in(study_with(questions, fake()), runtime_at(store))
    (again,) = asked_in(study_with(questions, fake(**change)), runtime_at(store)).values()
    assert again == 0


def test_a_grid_asks_for_each_point_and_greedy_ones_are_one(questions: Path, store: Path):
    grid = study_with(questions, fake(temperature=[0.0, 0.8], top_p=[0.9, 1.0]))
    asked = asked_in(grid, runtime_at(store))
    # Greedy texts know no nucleus: one point.
    assert asked == {"one T=0": 6, "one T=0.8 p=0.9": 6, "one T=0.8 p=1": 6}
    assert len(partitions(store)) == 3


def test_the_answers_come_with_instruction_sample_and_reference(tmp_path: Path, store: Path):
    rows = [
        {"instruction": "What is two plus two?", "reference": {"kind": "numeric", "answer": 4}},
        {"instruction": "What is two plus three?", "reference": {"kind": "numeric", "answer": 5}},
    ]
    study = study_with(write_rows(tmp_path / "questions.jsonl", rows), drawn(label="first"))
    asked_in(study, runtime_at(store))
    source = source_of(study, runtime_at(store))
    answers: list[Response] = list(source)
    assert {(one.teacher, one.sample) for one in answers} == {("first", n) for n in range(3)}
    assert len(answers) == 6
    given = {one.instruction.text: one.reference for one in answers}
    assert given == {row["instruction"]: row["reference"] for row in rows}
    texts = {
        (one.instruction, one.sample): one.text
        for one in job(study, runtime_at(store)).generations()
    }
    assert {(one.instruction.id, one.sample): one.text for one in answers} == texts


def test_an_instruction_that_stands_twice_is_asked_once(tmp_path: Path, store: Path):
    rows = [{"instruction": text} for text in ("One?", "Two?", "One?")]
    study = study_with(write_rows(tmp_path / "questions.jsonl", rows), drawn())
    assert asked_in(study, runtime_at(store)) == {"one": 6}


def test_teachers_in_files_and_asked_ones_are_compared_on_the_instructions_of_the_files(
    tmp_path: Path, store: Path
):
    rows = [{"instruction": f"What is number {n} good for?", "output": "A " * 9} for n in range(6)]
    file = write_rows(tmp_path / "alpha.jsonl", rows)
    study = study_with(file, drawn(), data={"instructions": [], "responses": [str(file)]})
    assert asked_in(study, runtime_at(store)) == {"one": 18}
    found = {one.teacher for one in source_of(study, runtime_at(store))}
    assert found == {"alpha", "one"}


def test_a_file_with_a_teacher_of_the_same_name_is_refused(tmp_path: Path, store: Path):
    rows = [{"instruction": f"What is number {n} good for?", "output": "A " * 9} for n in range(6)]
    file = write_rows(tmp_path / "one.jsonl", rows)
    study = study_with(file, drawn(), data={"instructions": [], "responses": [str(file)]})
    with pytest.raises(StudyError, match=r"responses of 'one'.*Give it another name"):
        asked_in(study, runtime_at(store))


def test_data_without_instructions_are_refused(tmp_path: Path, store: Path):
    file = write_rows(tmp_path / "questions.jsonl", [])
    with pytest.raises(DataError):
        asked_in(study_with(file, drawn()), runtime_at(store))


def test_a_model_that_nothing_says_where_to_ask_is_refused(questions: Path, store: Path):
    study = study_with(questions, served())
    with pytest.raises(StudyError, match="Nothing says where 'served' is served"):
        jobs(study, runtime_at(store))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"students": [{"model": "./no-such-student"}]}, "no-such-student"),
        ({"reward": {"kind": "model", "model": "./no-such-reward"}}, "no-such-reward"),
        ({"reward": {"kind": "judge", "model": "nobody"}}, "Nothing says where 'nobody' is served"),
        ({"metrics": [{"kind": "car"}]}, "loss"),
    ],
)
def test_what_cannot_be_scored_is_told_of_before_any_teacher_is_asked(
    questions: Path, store: Path, tables: dict[str, Any], said: str
):
    study = study_with(questions, served(), **{"reward": GRADED, **tables})
    with serving() as told, pytest.raises((ModelError, StudyError)) as error:
        asked_in(study, runtime_at(store, told))
    assert said in str(error.value)
    assert told.requests == []


def test_a_judge_without_its_key_is_told_of_before_any_teacher_is_asked(
    questions: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    judge = {"kind": "judge", "model": "far"}
    derived = {"kind": "best", "of": "one"}
    far = {"url": "https://far.invalid/v1", "api_key_env": "NO_SUCH_KEY"}
    for tables in (
        {"reward": judge},
        {"reward": GRADED, "best_of_n": [{**derived, "reward": judge}]},
    ):
        study = study_with(questions, drawn(), **tables)
        runtime = runtime_at(store)
        runtime.endpoints["far"] = (
            type(runtime).model_validate({"endpoints": {"far": far}}).endpoints["far"]
        )
        with pytest.raises(ModelError, match="NO_SUCH_KEY is not set"):
            asked_in(study, runtime)
        assert texts_in(store) == {}


@pytest.mark.parametrize(
    ("derived", "said"),
    [
        ({"kind": "best", "of": "oen"}, "Did you mean 'one'?"),
        ({"kind": "best", "of": "two"}, "one response to each instruction"),
    ],
)
def test_a_derived_teacher_that_cannot_be_is_told_of_before_any_teacher_is_asked(
    questions: Path, store: Path, derived: dict[str, Any], said: str
):
    study = study_with(questions, drawn(), fake("two"), reward=GRADED, best_of_n=[derived])
    with pytest.raises(StudyError) as error:
        asked_in(study, runtime_at(store))
    assert said in str(error.value)
    assert texts_in(store) == {}


def test_the_settings_say_who_was_asked_and_how_many_answers_were_cut(tmp_path: Path, store: Path):
    file = tmp_path / "study.toml"
    file.write_text(f"""
        no_student = true
        data.instructions = ["{write_questions(tmp_path)}"]
        reward = {{ kind = "rule", rule = {{ kind = "contains", answer = "step" }} }}
        [[teachers]]
        model = "one"
        engine = "fake"
        max_tokens = 6
        [[teachers]]
        model = "two"
        engine = "fake"
        [runtime]
        store = "{store}"
        device = "cpu"
    """)
    result = preceptor("run", file, "--json", tmp_path / "got.json")
    assert result.exit_code == 0, result.output
    import json

    ((ranking),) = json.loads((tmp_path / "got.json").read_text())
    teachers = ranking["settings"]["teachers"]
    assert {name: one["spec"]["model"] for name, one in teachers.items()} == {
        "one": "one",
        "two": "two",
    }
    assert {one["identity"] for one in teachers.values()} == {
        s.identity.digest for s in partitions(store)
    }
    cut = sum(len((text or "").split()) == 6 for text in texts_in(store).values())
    assert cut >= 5
    assert ranking["settings"]["cut_by_generator"] == {"one": cut}


@pytest.mark.parametrize("column", ["category", "meta.kind"])
def test_the_categories_of_the_instructions_reach_the_asked_teachers_responses(
    tmp_path: Path, store: Path, column: str
):
    names = ["sums", "letters", None]
    head, _, inner = column.partition(".")
    rows = [
        {"instruction": f"Question {n}?", head: {inner: name} if inner else name}
        for n, name in enumerate(names)
    ]
    study = study_with(write_rows(tmp_path / "questions.jsonl", rows), fake(), fake("two"))
    columns = ReadOptions(by_column=column if inner else None)
    study = study.model_copy(update={"data": study.data.model_copy(update={"columns": columns})})
    asked_in(study, runtime_at(store))
    source = source_of(study, runtime_at(store))
    seen = {(one.instruction.text, one.category) for one in source}
    assert seen == {(f"Question {n}?", name) for n, name in enumerate(names)}
