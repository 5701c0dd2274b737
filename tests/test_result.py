"""A ranking's words follow its numbers, and its records keep the field names that scripts read."""

import json
import sys
from pathlib import PurePosixPath

import numpy as np
import pandas
import pytest

from preceptor.errors import DataError, MissingPackage, StudyError
from preceptor.ranking.places import FormedMetric, OrderVariant, Stability, TeacherResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.warnings import Warning
from preceptor.types import Estimate


def result(teacher: str, rank: int, p_best: float, beaten: float | None) -> TeacherResult:
    estimate = Estimate(0.5, 0.4, 0.6, 100)
    return TeacherResult(
        teacher=teacher,
        rank=rank,
        n=100,
        estimates={"reward": estimate, "entropy": estimate, "car": Estimate(0.1, 0.05, 0.2, 100)},
        p_rank=(p_best, 1 - p_best),
        p_leader_beats=beaten,
        dropped={"empty": 3},
        truncated=4,
    )


CAR = FormedMetric(("reward", "loss"))


def ranking(*p_best: float, names: str = "ABCDEFG", beaten: float = 0.97, **more) -> Ranking:
    teachers = tuple(
        result(names[place], place + 1, p, beaten if place else None)
        for place, p in enumerate(p_best)
    )
    fields = {
        "student": "S", "by": "car", "metrics": {"car": CAR, "reward": FormedMetric(("reward",))},
        "instructions": 120,
        "teachers": teachers, "settings": {}, "warnings": (), "stability": None,
    }  # fmt: skip
    return Ranking(**(fields | more))


def test_a_clear_verdict_names_winner_basis_and_runner_up():
    assert ranking(0.97, 0.03).verdict() == (
        "A is the best teacher for S, P(best) 97% by car over 100 of 120 instructions. "
        "It beats the runner-up B with probability 97%."
    )


def test_a_likely_verdict_says_probably():
    assert ranking(0.85, 0.15).verdict().startswith("A is probably the best teacher")


def test_a_low_p_best_names_the_candidates_instead():
    assert ranking(0.55, 0.40, 0.05).verdict() == (
        "No clear winner for S: A or B (by car over 100 of 120 instructions). "
        "A leads with P(best) 55%."
    )


def test_a_leader_that_is_best_less_often_than_another_is_not_told_alone():
    verdict = ranking(0.30, 0.33, 0.37).verdict()
    assert verdict.endswith(
        "A leads with P(best) 30%, though C is best in more of the draws (37%)."
    )
    assert ranking(0.5, 0.5).verdict().endswith("A leads with P(best) 50%.")


def test_candidates_are_those_likeliest_to_be_best_not_those_next_in_order():
    assert "S: A or C (" in ranking(0.55, 0.05, 0.40).verdict()


def test_many_candidates_are_counted_not_listed():
    assert "A, B, C or 3 others" in ranking(0.2, 0.16, 0.16, 0.16, 0.16, 0.16).verdict()


def test_a_finite_number_of_draws_never_shows_certainty():
    assert "P(best) over 99%" in ranking(1.0, 0.0).verdict()


def test_an_order_by_reward_alone_is_for_no_student():
    assert ranking(0.97, 0.03, by="reward").verdict() == (
        "A is the best teacher, P(best) 97% by reward over 100 of 120 instructions. It beats the runner-up "
        "B with probability 97%. This order looks at no base model; one by car does."
    )
    unclear = ranking(0.55, 0.45, by="reward").verdict()
    assert unclear.startswith("No clear winner: A or B (by reward")
    assert unclear.endswith("This order looks at no base model; one by car does.")


def test_one_teacher_alone_has_nothing_to_be_compared_with():
    assert ranking(1.0).verdict() == "A is the only teacher for S: nothing to compare."


def test_records_hold_measures_and_intervals_of_metrics_only():
    assert ranking(0.97, 0.03).to_records()[0] == {
        "teacher": "A", "rank": 1, "n": 100, "p_best": 0.97, "reward": 0.5, "reward_low": 0.4,
        "reward_high": 0.6, "loss": None, "car": 0.1, "car_low": 0.05, "car_high": 0.2,
        "entropy": 0.5,
    }  # fmt: skip


def test_the_dictionary_is_strict_json_whatever_the_settings_hold():
    settings = {
        "nan": float("nan"), "array": np.array([1.0, np.inf]), "count": np.int64(3),
        "path": PurePosixPath("a/b"), "nested": {1: ("x", None, True)},
    }  # fmt: skip
    stability = Stability((OrderVariant("beta = 0", ("A",), True, True, 0),), pairs=1)
    warned = (Warning("copies", "w"),)
    whole = ranking(0.97, 0.03, settings=settings, stability=stability, warnings=warned).to_dict()
    back = json.loads(json.dumps(whole, allow_nan=False))
    assert back == whole
    assert back["settings"] == {
        "nan": None, "array": [1.0, None], "count": 3, "path": "a/b",
        "nested": {"1": ["x", None, True]},
    }  # fmt: skip
    assert list(back) == [
        "student", "by", "metrics", "instructions", "teachers", "settings", "verdict", "warnings",
        "stability",
    ]  # fmt: skip
    assert back["teachers"][1]["dropped"] == {"empty": 3}
    assert back["teachers"][1]["truncated"] == 4
    assert back["teachers"][0]["p_leader_beats"] is None
    assert back["stability"]["variants"][0]["winners"] == ["A"]


def test_the_frame_has_the_records_as_rows():
    frame = ranking(0.97, 0.03).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["teacher"].tolist() == ["A", "B"]
    assert frame["car_high"].tolist() == [0.2, 0.2]


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match="pandas"):
        ranking(0.97, 0.03).to_frame()


def test_html_shows_the_verdict_and_escapes_every_text():
    evil = "<script>alert(1)</script>"
    shown = ranking(
        0.97, 0.03, names=[evil, "B"], student=evil, warnings=(Warning("copies", evil),)
    )._repr_html_()
    assert "<script>" not in shown
    # the teacher's cell, its name in the verdict, the student, and the warning
    assert shown.count("&lt;script&gt;") == 4
    assert "is the best teacher" in shown
    assert "0.1 [0.05, 0.2]" in shown


def test_stability_says_what_changes_under_which_variant():
    same = OrderVariant("beta = 3", ("A",), True, True, 0)
    turned = OrderVariant("beta = 0", ("B",), False, False, 1)
    moved = OrderVariant("beta = 10", ("A",), True, False, 1)
    assert Stability((same,), 3).describe() == "The order by car is the same under all 1 variants."
    assert Stability((same, turned, moved), 3).describe() == (
        "By car, the winner changes under beta = 0 and the order below the winner changes under "
        "beta = 10."
    )


def test_without_student_and_reward_nobody_is_called_the_best():
    by_length = ranking(1.0, 0.0, by="car", metrics={"car": FormedMetric(("length",))})
    assert by_length.verdict() == (
        "The teachers are ordered by car over 100 of 120 instructions, A first. This is no "
        "recommendation: car looks neither at the base model nor at the quality of the responses. "
        "Give a student or a source of rewards."
    )


def test_the_best_the_order_and_one_teacher_are_at_hand():
    three = ranking(0.97, 0.02, 0.01)
    assert three.best.teacher == "A"
    assert three.order == ("A", "B", "C")
    assert three["B"].rank == 2
    assert [result.rank for result in three] == [1, 2, 3]
    assert len(three) == 3
    assert repr(three) == "<Ranking of 3 teachers for S by car: A leads>"


def test_a_teacher_that_is_not_ranked_is_refused_with_the_nearest_name():
    with pytest.raises(
        StudyError, match=r"called 'alfa'; ranked are alpha, beta\. Did you mean 'alpha'"
    ):
        ranking(0.97, 0.03, names=["alpha", "beta"])["alfa"]


def test_printing_shows_the_table_within_eighty_columns():
    names = ["a-teacher-whose-name-is-far-longer-than-any-table-has-room-for" * 2, "B\x1b[31m"]
    stability = Stability((OrderVariant("beta = 0", ("A",), False, True, 0),), pairs=1)
    shown = str(
        ranking(
            0.97, 0.03, names=names, stability=stability, warnings=(Warning("copies", "w " * 99),)
        )
    )
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("a-teacher-whose-name")
    assert "0.100 [0.050, 0.200]      0.97   100" in shown
    assert "B\\x1b[31m" in shown
    assert "By car, the winner changes under beta = 0." in lines
    assert "Warning: w w" in shown


def test_a_printed_table_lines_up_like_the_readmes():
    assert str(ranking(0.97, 0.03)).splitlines()[3:7] == [
        "     teacher     car [95% interval]   P(best)     n   reward",
        " " + 59 * "─",
        " 1   A         0.100 [0.050, 0.200]      0.97   100    0.500",
        " 2   B         0.100 [0.050, 0.200]      0.03   100    0.500",
    ]


def test_json_gives_an_equal_ranking_back():
    stability = Stability((OrderVariant("beta = 0", ("A",), True, True, 0),), pairs=1)
    one = ranking(0.97, 0.03, stability=stability, warnings=(Warning("copies", "w"),))
    assert Ranking.from_json(one.to_json()) == one
    assert Ranking.from_json(f"[{one.to_json()}]") == one


@pytest.mark.parametrize(
    ("text", "said"),
    [("no json", "This is no JSON"), ("[{}, {}]", "holds 2 rankings"), ("{}", "is no ranking")],
)
def test_what_is_no_ranking_is_refused(text: str, said: str):
    with pytest.raises(DataError, match=said):
        Ranking.from_json(text)
