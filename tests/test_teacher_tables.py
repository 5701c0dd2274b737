"""The tables [[teachers]] and [[best_of_n]]: what they accept, refuse and default to."""

from typing import Any

import pytest

from preceptor.config.base import checked
from preceptor.config.study import Study
from preceptor.config.teachers import BestOfN, Teacher
from preceptor.errors import StudyError


def teacher(**fields: Any) -> Teacher:
    return checked(Teacher, {"model": "org/one", **fields}, where="here")


def derived(**fields: Any) -> BestOfN:
    return checked(BestOfN, {"kind": "best", "of": "one", **fields}, where="here")


def study(*teachers: dict[str, Any], **tables: Any) -> Study:
    given = {"data": {"instructions": "questions.jsonl"}, "teachers": teachers, **tables}
    return checked(Study, given, where="here")


def labels(table: Teacher) -> list[str]:
    return [point.name for point in table.points()]


def test_a_teacher_is_greedy_with_one_response_unless_told_otherwise():
    # Xu et al. 2025, section 3.2: greedy decoding, at most 2,048 tokens.
    (point,) = teacher().points()
    assert (point.temperature, point.top_p, point.max_tokens, point.samples) == (0.0, 1.0, 2048, 1)
    assert point.described() == "greedy"
    assert point.engine == "transformers"


def test_a_grid_is_one_teacher_for_each_point_labelled_by_what_varies():
    grid = teacher(label="one", temperature=[0.3, 0.8], top_p=[0.5, 0.95], samples=2)
    assert labels(grid) == [
        "one T=0.3 p=0.5",
        "one T=0.3 p=0.95",
        "one T=0.8 p=0.5",
        "one T=0.8 p=0.95",
    ]
    settings = [(p.temperature, p.top_p) for p in grid.points()]
    assert settings == [(0.3, 0.5), (0.3, 0.95), (0.8, 0.5), (0.8, 0.95)]
    assert labels(teacher(label="one", temperature=[0.3, 1], top_p=0.5)) == ["one T=0.3", "one T=1"]
    assert labels(teacher(label="one", temperature=0.7, top_p=[0.5, 1])) == ["one p=0.5", "one p=1"]
    assert labels(teacher(label="one", temperature=[0.3], top_p=0.5)) == ["one"]


def test_a_point_named_twice_is_one_teacher():
    assert labels(teacher(label="one", temperature=[0.3, 0.8, 0.3])) == ["one T=0.3", "one T=0.8"]


@pytest.mark.parametrize("field", ["temperature", "top_p"])
def test_a_grid_without_points_is_refused(field: str):
    with pytest.raises(StudyError, match="list of temperature or top_p is empty"):
        teacher(**{field: []})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": -0.1}, "temperature = -0.1: expected 0 to 5"),
        ({"temperature": [0.5, 5.5]}, "temperature = 5.5"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p = 0.0: expected above 0"),
        ({"top_p": 1.01}, "top_p = 1.01"),
        ({"samples": 2}, "2 samples at temperature 0 are 2 copies"),
        ({"samples": 4, "temperature": [0.0, 0.8]}, "4 samples at temperature 0 are 4 copies"),
        ({"samples": 0}, "samples"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["###", ""]}, "a stop text is empty"),
        ({"stop": list("abcde")}, "stop"),
        ({"seed": -1}, "seed"),
        ({"samples_per_request": 2}, "samples_per_request is for engine = 'openai'"),
        ({"api": "completions"}, "api = 'completions' is for engine = 'openai'"),
        ({"api": "completions", "engine": "openai"}, "name one of gemma"),
        ({"engine": "sglang"}, "engine"),
        ({"tempreature": 0.5}, "tempreature"),
    ],
)
def test_a_teacher_that_contradicts_itself_is_refused_when_it_is_read(
    fields: dict[str, Any], said: str
):
    with pytest.raises(StudyError) as error:
        teacher(**fields)
    assert said in str(error.value)


def test_a_model_that_only_its_maker_serves_is_not_run_here():
    with pytest.raises(StudyError, match=r"only served by its maker.*engine = 'openai'"):
        teacher(model="gpt-4")


def test_a_short_name_of_the_catalogue_stands_for_its_hub_id():
    short = teacher(model="gemma-2-9b-it")
    assert short.located == "google/gemma-2-9b-it"
    assert short.name == "gemma-2-9b-it"
    (point,) = short.points()
    assert point.model == "google/gemma-2-9b-it"


def test_a_served_model_keeps_the_name_it_is_served_by():
    assert teacher(model="gemma-2-9b-it", engine="openai").located == "gemma-2-9b-it"


def test_a_derived_teacher_says_in_its_name_what_it_is():
    assert derived().name == "one best-of-all"
    assert derived(kind="worst", n=5).name == "one worst-of-5"
    assert derived(kind="random", n=2, label="any").name == "any"
    assert derived(of=["one", "two"]).name == "best of one, two"
    routed = derived(kind="routed", of="*")
    assert routed.name == routed.among(["one", "two"]).name == "routed of all"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": 1}, "n"),
        ({"kind": "median"}, "kind"),
        ({"kind": "random", "reward": {"kind": "column", "column": "r"}}, "needs no reward"),
        ({"reward": {"kind": "columns"}}, "reward"),
        ({"kind": "random", "by": "car"}, "needs no reward and no by"),
        ({"kind": "routed"}, "chooses among teachers: name several"),
        ({"of": []}, "of"),
    ],
)
def test_a_derived_teacher_that_cannot_be_is_refused(fields: dict[str, Any], said: str):
    with pytest.raises(StudyError) as error:
        derived(**fields)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("one", "tables", "said"),
    [
        ({"kind": "best", "by": "car"}, {"no_student": True}, "for one student: the study has 0"),
        ({"kind": "routed"}, {"no_student": True, "race": {}}, "another teacher at every look"),
    ],
)
def test_a_mixture_that_depends_on_what_the_study_lacks_or_changes_is_refused(
    one: dict[str, Any], tables: dict[str, Any], said: str
):
    teachers = ({"model": "org/one"}, {"model": "org/two"})
    with pytest.raises(StudyError, match=said):
        study(*teachers, best_of_n=[{"of": "*", **one}], **tables)


def test_two_teachers_of_one_name_are_refused():
    with pytest.raises(StudyError, match="two teachers are named 'org/one'"):
        study({"model": "org/one"}, {"model": "org/one", "temperature": 0.5})
    with pytest.raises(StudyError, match="two teachers are named 'two'"):
        study(
            {"model": "org/one", "temperature": 0.5, "samples": 2},
            {"model": "org/two", "label": "two"},
            best_of_n=[{"kind": "best", "of": "org/one", "label": "two"}],
        )


def test_a_study_needs_something_to_ask_and_someone_to_answer():
    with pytest.raises(StudyError, match="nothing to ask the teachers"):
        checked(Study, {"data": {}, "teachers": [{"model": "org/one"}]}, where="here")
    with pytest.raises(StudyError, match=r"no \[\[teachers\]\] to ask them"):
        study(data={"instructions": "questions.jsonl", "responses": "answers.jsonl"})
    with pytest.raises(StudyError, match="nothing to compare"):
        checked(Study, {"data": {}}, where="here")
