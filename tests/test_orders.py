"""Orders are read from rankings and tables under one name for each teacher, and bad files are refused."""

import json
from pathlib import Path

import pytest

from preceptor.agreement.orders import (
    ANY_STUDENT,
    read_observed,
    read_predictions,
    student_key,
)
from preceptor.config.catalogue import SHIPPED
from preceptor.errors import DataError
from preceptor.ranking.places import FormedMetric, TeacherResult
from preceptor.ranking.result import Ranking
from preceptor.types import Estimate


def write(path: Path, text: object) -> str:
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return str(path)


def ranking(*teachers: dict, **fields: object) -> dict:
    return {"student": "google/gemma-2-2b", "by": "car", "teachers": list(teachers), **fields}


def test_a_teacher_goes_by_one_label_whatever_it_is_called():
    for name in ("google/gemma-2-9b-it", "gemma-2-9b-it", " Gemma-2-9B-IT "):
        assert SHIPPED.label(name) == "Gemma-2-9b-it"
    assert SHIPPED.label("my-own-model") == "my-own-model"
    assert (SHIPPED.family("Gemma-2-9b-it"), SHIPPED.size("Gemma-2-9b-it")) == ("Gemma 2", 9)
    assert (SHIPPED.family("my-own-model"), SHIPPED.size("my-own-model")) == ("my-own-model", None)


@pytest.mark.parametrize(
    "hub, paper",
    [
        ("Qwen/Qwen2-1.5B", "Qwen2-1.5B"),
        ("google/gemma-2-2b", "Gemma 2-2B"),
        ("Qwen/Qwen2.5-3B", "Qwen2.5-3B"),
        ("meta-llama/Llama-3.2-3B", "Llama 3.2-3B"),  # table 4 has a space, table 7 a hyphen
        ("nvidia/Llama-3.1-Minitron-4B-Width-Base", "Llama-3.1-Minitron-4B"),  # section 3.2
    ],
)
def test_the_papers_students_meet_their_hub_ids(hub: str, paper: str):
    assert student_key(hub) == student_key(paper)
    assert student_key(hub + "-Instruct") != student_key(paper)


def test_a_ranking_gives_its_numbers_and_none_for_what_it_lacks(tmp_path: Path):
    record = {
        "teacher": "google/gemma-2-9b-it", "rank": 1, "n": 5, "reward": 2.5, "loss": None, "car": None,
        "car_low": None, "car_high": None, "p_best": 1.0, "length": 80, "length_low": 70.0,
        "length_high": 90.0, "entropy": 1.5, "p_rank": [1.0], "p_leader_beats": None, "dropped": {},
        "truncated": 0,
    }  # fmt: skip
    settings = {"reward": "column reward", "transform": "sigmoid"}
    (found,) = read_predictions(write(tmp_path / "a.json", [ranking(record, settings=settings)]))
    expected = {"reward": 2.5, "loss": None, "car": None, "length": 80.0, "entropy": 1.5}
    assert found.values == {"Gemma-2-9b-it": expected}
    assert found.columns == ("reward", "length", "entropy")
    assert (found.student, found.rewards, found.transformed) == (
        "google/gemma-2-2b", "column reward", True,
    )  # fmt: skip
    plain = read_predictions(write(tmp_path / "b.json", ranking(record, settings={"reward": None})))
    assert (plain[0].rewards, plain[0].transformed) == (None, False)


def test_a_csv_gives_a_prediction_for_each_student_and_source(tmp_path: Path):
    text = "\ufeffStudent,reward_source,Teacher,rank,car,car_low,score\n"
    text += "A,x,t,1,0.5,0.4,7\nA,x,u,2,0.25,,\nA,y,t,1,0.1,0,-\n\nB,,t,1,3e-1,0,NaN\n"
    found = read_predictions(write(tmp_path / "a.csv", text))
    assert [(one.student, one.rewards) for one in found] == [("A", "x"), ("A", "y"), ("B", None)]
    assert found[0].values == {"t": {"car": 0.5, "score": 7.0}, "u": {"car": 0.25, "score": None}}
    assert found[2].values == {"t": {"car": 0.3, "score": None}}


def test_a_csv_without_students_is_for_any_student(tmp_path: Path):
    (found,) = read_predictions(write(tmp_path / "a.csv", "teacher,benchmark\nt,12\nu,5\n"))
    assert found.student == ANY_STUDENT
    assert found.columns == ("benchmark",)


def test_observed_orders_are_read_in_any_case_of_the_headings(tmp_path: Path):
    text = "Teacher,STUDENT,AP\ngemma-2-9b-it,A,5.4\nother,A,-1\ngemma-2-9b-it,B,2\n"
    found = read_observed(write(tmp_path / "o.csv", text))
    assert found == {"A": {"Gemma-2-9b-it": 5.4, "other": -1.0}, "B": {"Gemma-2-9b-it": 2.0}}


def test_observed_orders_are_read_from_rankings_with_higher_for_better(tmp_path: Path):
    rows = (
        {"teacher": "t", "loss": 2.0, "reward": 0.7},
        {"teacher": "u", "loss": 1.0, "reward": 0.2},
    )
    path = write(tmp_path / "o.json", [ranking(*rows, by="reward")])
    assert read_observed(path) == {"google/gemma-2-2b": {"t": 0.7, "u": 0.2}}
    path = write(tmp_path / "o.json", [ranking(*rows, by="loss")])
    assert read_observed(path) == {"google/gemma-2-2b": {"t": -2.0, "u": -1.0}}
    with pytest.raises(DataError, match="no direction"):
        read_observed(write(tmp_path / "o.json", ranking(*rows, by="magic")))


@pytest.mark.parametrize(
    "text, said",
    [
        ("teacher,car\nt,1\nT ,2\nt,3\n", "names 't' twice"),
        ("teacher,car\ngemma-2-9b-it,1\ngoogle/gemma-2-9b-it,2\n", "names 'Gemma-2-9b-it' twice"),
        ("teacher,car\nt,high\n", "line 2: 'car' is 'high'"),
        ("teacher,car\nt,inf\n", "expected a finite number"),
        ("teacher,car\nt,1_000\n", "expected a finite number"),
        ("teacher,car\n,1\n", "without a teacher"),
        ("model,car\nt,1\n", "no column 'teacher'"),
        ("teacher,car,car\nt,1,2\n", "two columns of one name"),
        ("", "it is empty. It needs teacher"),
        ("", "no column 'teacher'"),
    ],
)
def test_a_bad_table_is_refused_by_file_and_line(tmp_path: Path, text: str, said: str):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(DataError, match=r"bad\.csv") as caught:
        read_predictions(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[" * 100_000, "3", "[1]", '{"student": "s"}', '{"student": 3, "teachers": []}',
        '{"student": "s", "teachers": [3]}', '{"student": "s", "teachers": [{"teacher": "t", "car": NaN}]}',
        '{"student": "s", "teachers": [{"teacher": "t", "car": true}]}',
        '{"student": "s", "teachers": [{"teacher": "t", "car": 1%s}]}' % ("0" * 400),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_ranking_is_refused(tmp_path: Path, text: str):
    with pytest.raises(DataError):
        read_predictions(write(tmp_path / "bad.json", text))


def test_of_several_dimensions_one_is_read_and_it_must_be_named(tmp_path: Path):
    rows = "t,A,taste,0.7\nu,A,taste,0.2\nt,A,safety,0.1\nu,A,safety,\n"
    path = write(tmp_path / "o.csv", f"teacher,student,Dimension,AP\n{rows}")
    assert read_observed(path, "taste") == {"A": {"t": 0.7, "u": 0.2}}
    with pytest.raises(DataError, match=r"2 dimensions, 'taste', 'safety'.*--dimension NAME"):
        read_observed(path)
    with pytest.raises(DataError, match="no observed value of 'u'"):
        read_observed(path, "safety")
    with pytest.raises(DataError, match=r"no dimension 'safty'.*Did you mean 'safety'"):
        read_observed(path, "safty")
    alone = write(tmp_path / "p.csv", "teacher,student,dimension,AP\nt,A,taste,1\n")
    assert read_observed(alone) == read_observed(alone, "taste") == {"A": {"t": 1.0}}
    plain = write(tmp_path / "q.csv", "teacher,student,AP\nt,A,1\n")
    with pytest.raises(DataError, match="no dimension 'taste': it has none"):
        read_observed(plain, "taste")


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="Cannot read"):
        read_observed(str(tmp_path / "none.csv"))
    (tmp_path / "bytes.csv").write_bytes(b"teacher,student,AP\n\xff\xfe,a,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_observed(str(tmp_path / "bytes.csv"))


def test_an_outcome_that_is_missing_is_refused_and_never_0(tmp_path: Path):
    with pytest.raises(DataError, match="no observed value of 't'"):
        read_observed(write(tmp_path / "o.csv", "teacher,student,AP\nt,A,\n"))


def test_control_characters_do_not_reach_an_error_message(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "bad.csv", "teacher,c\x1b[2Jar\nt,\x1b[31mred\n"))
    assert "\x1b" not in str(caught.value)


def test_an_observed_ranking_by_another_packages_metric_has_its_declared_direction(tmp_path: Path):
    ranking = small_ranking_by_errors()
    path = tmp_path / "observed.json"
    path.write_text(ranking.to_json(), encoding="utf-8")
    assert read_observed(str(path)) == {"S": {"careful": -0.1, "hasty": -0.4}}


def small_ranking_by_errors() -> Ranking:
    results = tuple(
        TeacherResult(name, place, 9, {"errors": Estimate(n, n, n, 9)}, (1.0, 0.0), None, {}, 0)
        for place, (name, n) in enumerate((("careful", 0.1), ("hasty", 0.4)), start=1)
    )
    formed = {"errors": FormedMetric(("errors",), higher_is_better=False)}
    return Ranking("S", "errors", formed, 9, results, {}, (), None)
