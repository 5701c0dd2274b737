"""A ranking's words follow its numbers, and its records keep the field names that scripts read."""

import json
import sys
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pandas
import pytest

from preceptor.errors import DataError, MissingPackage, StudyError
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import CompatibilityAdjustedReward
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.places import (
    Evidence,
    FormedMetric,
    OrderVariant,
    Stability,
    TeacherResult,
)
from preceptor.ranking.rank import rank
from preceptor.ranking.result import Ranking
from preceptor.ranking.table import table_lines, unequal_lengths
from preceptor.ranking.verdict import Claim, limits
from preceptor.types import Estimate, Warning


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
    named = p_best[0] > 0.95
    evidence = Evidence(named, None, 100.0, tuple(names[: 1 if named else len(p_best)]), 0.001, 40)
    fields = {
        "student": "S", "by": "car", "metrics": {"car": CAR, "reward": FormedMetric(("reward",))},
        "instructions": 120,
        "teachers": teachers, "settings": {}, "warnings": (), "stability": None,
        "evidence": evidence,
    }  # fmt: skip
    return Ranking(**(fields | more))


def test_a_clear_verdict_names_the_first_its_p_and_what_the_leader_risks():
    found = ranking(0.97, 0.03).verdict()
    assert (found.claim, found.teacher, found.reasons) == (Claim.FIRST, "A", ())
    assert found.text == (
        "A is first by car for S: P(first by car) 97% on 100 of 120 prompts. "
        "Taking it may cost 0.001 of car, 1.0% (expected regret)."
    )


def test_a_likely_verdict_says_probably_and_who_is_not_told_apart():
    found = ranking(0.85, 0.15).verdict()
    assert found.claim is Claim.PROBABLY_FIRST
    assert found.text == (
        "A is probably first by car for S: P(first by car) 85% on 100 of 120 prompts. "
        "The first may also be B. Taking it may cost 0.001 of car, 1.0% (expected regret). "
        "About 40 more prompts to 2 teachers would settle it."
    )


def test_a_low_p_names_the_candidates_instead():
    found = ranking(0.55, 0.40, 0.05).verdict()
    assert (found.claim, found.teacher) == (Claim.NO_CLEAR_WINNER, "A")
    assert found.text.startswith(
        "No clear winner by car for S: A, B or C. A leads, P(first by car) 55% on 100 of 120 prompts."
    )


def test_teachers_that_share_the_first_place_do_not_lead_each_other():
    tied = (result("A", 1, 0.5, None), result("B", 1, 0.5, 0.5))
    found = ranking(0.5, 0.5, teachers=tied).verdict()
    assert found.claim is Claim.NO_CLEAR_WINNER
    assert "A and B share the first place" in found.text
    assert "leads" not in found.text


def test_many_candidates_are_counted_not_listed():
    assert "A, B, C or 3 others" in ranking(0.2, 0.16, 0.16, 0.16, 0.16, 0.16).verdict().text


def test_a_finite_number_of_draws_never_shows_certainty():
    assert "P(first by car) over 99%" in ranking(1.0, 0.0).verdict().text


def test_an_order_by_reward_alone_is_for_no_student():
    assert ranking(0.97, 0.03, by="reward").verdict().text.startswith("A is first by reward: P(")


def test_one_teacher_alone_is_never_called_the_best():
    found = ranking(1.0).verdict()
    assert (found.claim, found.text) == (
        Claim.NO_RECOMMENDATION, "A is the only teacher for S: nothing to compare.",
    )  # fmt: skip


def test_a_limit_is_said_beside_what_the_data_hold():
    limited = ranking(0.97, 0.03, settings={"limit": 120, "instructions_in_data": 805})
    assert "on 100 of 805 prompts (--limit 120)" in limited.verdict().text


@pytest.mark.parametrize(
    ("prices", "money"),
    [
        ({}, ""),
        ({"A": 2.0, "B": 3.0}, ", under 0.01 USD"),
        ({"B": 3000.0}, ", at least 0.60 USD"),
    ],
)
def test_more_prompts_are_priced_where_prices_are_known(prices, money):
    # 40 prompts to two teachers of 5 tokens each: 200 tokens a teacher, at 3,000 a million 0.60.
    tokens = Estimate(5.0, 4.0, 6.0, 100)
    one = ranking(0.85, 0.15, settings={"prices": prices})
    told = replace(
        one,
        teachers=tuple(
            replace(t, estimates={**t.estimates, "tokens": tokens}) for t in one.teachers
        ),
    )
    assert told.verdict().text.endswith(
        f"About 40 more prompts to 2 teachers would settle it, about 400 response tokens{money}."
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generated_tokens": {"A": 50.0, "B": 10.0}, "traces": 9}, "about 2,400 response tokens."),
        (
            {"generated_tokens": {"A": 50.0}, "traces": 9, "reading": {"reasoning": "cut"}},
            "about 2,200 response tokens without their reasoning, of which no counts are known.",
        ),
        ({"traces": 9, "reading": {"reasoning": "keep"}}, "about 400 response tokens."),
    ],
)
def test_what_was_generated_counts_with_its_reasoning_or_the_reasoning_is_said_to_be_left_out(
    settings: dict[str, object], said: str
):
    tokens = Estimate(5.0, 4.0, 6.0, 100)
    one = ranking(0.85, 0.15, settings=settings)
    for result in one.teachers:
        result.estimates["tokens"] = tokens
    assert one.verdict().text.endswith(f"would settle it, {said}")


def test_no_number_of_prompts_settles_a_gap_of_nothing():
    endless = Evidence(False, None, 100.0, ("A", "B"), 0.0, None)
    said = ranking(0.85, 0.15, evidence=endless).verdict().text
    assert said.endswith("More prompts would hardly settle it: over 100,000, or any number.")


def test_a_leader_told_apart_on_few_prompts_is_compared_with_all_again_and_a_regret_of_nothing_is_not_told():
    capped = Evidence(False, "few-prompts", 24.0, ("A",), 1e-6, 6)
    said = ranking(0.99, 0.01, evidence=capped).verdict().text
    assert said.endswith("are fewer than 30. About 6 more prompts to 2 teachers would settle it.")


TURNED = OrderVariant("beta = 0", ("B",), False, False, 1, {"A": 1.0, "B": 2.0})
TIED = OrderVariant("beta = 5", ("A", "B"), False, False, 0, {"A": 1.0, "B": 1.0})
MOVED = OrderVariant("beta = 10", ("A",), True, False, 1, {"A": 2.0, "B": 1.0})
SAME = OrderVariant("beta = 3", ("A",), True, True, 0, {"A": 2.0, "B": 1.0})


def told(code: str, *teachers: str) -> dict[str, object]:
    return {"warnings": (Warning(code, "w", teachers),)}


@pytest.mark.parametrize(
    ("more", "claim", "codes"),
    [
        (told("chosen-by-own-reward", "A"), "leads_so_far", ["chosen-by-own-reward"]),
        (told("chosen-by-own-reward", "B"), "first", []),
        (told("cut-off", "A"), "leads_so_far", ["cut-off"]),
        (told("failures", "A"), "leads_so_far", ["failures"]),
        (told("failures", "B"), "first", []),
        (told("looks-like-noise", "A"), "no_recommendation", ["looks-like-noise"]),
        (told("looks-like-noise", "B"), "first", []),
        (told("negative-reward", "B"), "no_recommendation", ["negative-reward"]),
        (told("winner-changes"), "leads_so_far", ["winner-changes"]),
        (told("no-reward"), "no_recommendation", ["no-reward"]),
        (told("copies"), "first", []),
        ({"stability": Stability("car", ("A",), (TURNED,), 1)}, "leads_so_far", ["winner-changes"]),
        ({"stability": Stability("car", ("A",), (TIED,), 1)}, "leads_so_far", ["winner-changes"]),
        ({"stability": Stability("car", ("A",), (MOVED, SAME), 1)}, "first", []),
        (told("missing-scores"), "leads_so_far", ["missing-scores"]),
        (told("broken-off", "A"), "leads_so_far", ["broken-off"]),
        (told("rough-interval", "B"), "leads_so_far", ["rough-interval"]),
    ],
)
def test_the_claim_is_never_stronger_than_the_weakest_reason(more, claim, codes):
    found = ranking(0.99, 0.01, **more).verdict()
    assert (found.claim, found.teacher) == (claim, "A")
    assert [reason.code for reason in found.reasons] == codes


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        ("few-prompts", "100 prompts are fewer than 30"),
        ("skewed", "100 prompts are worth 12"),
        ("few-values", "nearly all responses have the same value"),
    ],
)
def test_a_sample_that_is_too_small_names_no_winner_whatever_p_says(cap, said):
    found = ranking(0.99, 0.01, evidence=Evidence(False, cap, 12.0, ("A",), 0.0, 0)).verdict()
    assert (found.claim, [reason.code for reason in found.reasons]) == ("leads_so_far", [cap])
    assert f"No winner is named: {said}" in found.text or said in found.text


def test_a_first_place_that_is_shared_otherwise_is_the_reason_in_words():
    text = ranking(0.99, 0.01, stability=Stability("car", ("A",), (TIED, TURNED), 1)).verdict().text
    assert (
        "No winner is named: the winner changes under beta = 0 (B); the first place is shared under "
        "beta = 5 (A and B)." in text
    )


def test_the_interval_of_a_rival_that_is_far_behind_does_not_bear_on_the_leader():
    rough = Warning("rough-interval", "w", ("C",))
    assert ranking(0.99, 0.01, 0.0, warnings=(rough,)).verdict().claim is Claim.FIRST


def test_a_leader_whose_responses_were_cut_only_leads():
    one = ranking(0.99, 0.01)
    cut = replace(one, teachers=(replace(one.best, truncated=11), *one.teachers[1:]))
    assert (cut.verdict().claim, cut.verdict().reasons[0].code) == ("leads_so_far", "cut-off")


def test_noise_comes_before_everything_else():
    both = (
        Warning("no-reward", "Exploratory."),
        Warning("looks-like-noise", "'A' looks like noise.", ("A",)),
    )
    text = ranking(0.99, 0.01, warnings=both, by="car").verdict().text
    assert text == "'A' looks like noise. A comes first by car all the same; nobody is recommended."


def test_an_order_without_rewards_is_exploratory_and_no_recommendation():
    text = ranking(0.99, 0.01, warnings=(Warning("no-reward", "w"),)).verdict().text
    assert text == (
        "A ranks first by car (exploratory, no reward) for S: P(first by car) 99% on 100 of 120 prompts. "
        "This is no recommendation."
    )


def test_what_p_leaves_open_is_said_in_one_line():
    assert limits(ranking(0.97, 0.03)) == (
        "P covers which prompts were drawn, and nothing else: not the error of the rewards, nor prompts of "
        "another kind, nor how well car foretells fine-tuning."
    )


@pytest.mark.parametrize(("longer", "said"), [(250.0, ["2.5"]), (190.0, [])])
def test_lengths_that_differ_over_twofold_are_said_to_be_unequal_amounts(
    longer: float, said: list[str]
):
    found = ranking(0.97, 0.03)
    for one, length in zip(found.teachers, (longer, 100.0), strict=True):
        one.estimates["tokens"] = Estimate(length, length, length, 100)
    lines = unequal_lengths(found)
    assert [line.partition(" times")[0] for line in lines] == [
        f"Responses of A are {n}" for n in said
    ]
    assert all("as those of B" in line and "export --equal tokens" in line for line in lines)


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
    stability = Stability("car", ("A",), (SAME,), pairs=1)
    warned = (Warning("copies", "w"),)
    whole = ranking(0.97, 0.03, settings=settings, stability=stability, warnings=warned).to_dict()
    back = json.loads(json.dumps(whole, allow_nan=False))
    assert back == whole
    assert back["settings"] == {
        "nan": None, "array": [1.0, None], "count": 3, "path": "a/b",
        "nested": {"1": ["x", None, True]},
    }  # fmt: skip
    assert list(back) == [
        "schema_version", "student", "by", "metrics", "instructions", "teachers", "settings", "verdict",
        "warnings", "stability", "evidence", "trust", "categories", "diversity",
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
    assert "is first by car" in shown
    assert "0.100 [0.050, 0.200]" in shown


def test_stability_says_what_changes_under_which_variant():
    assert Stability("rsr", ("A",), (SAME,), 3).describe() == (
        "The order by rsr is the same under beta = 3."
    )
    assert Stability("car", ("A",), (SAME, TURNED, TIED, MOVED), 3).describe() == (
        "By car, the winner changes under beta = 0 (B); the first place is shared under beta = 5 (A and B); "
        "the order below the winner changes under beta = 10."
    )


def test_without_student_and_reward_nobody_is_called_the_best():
    by_length = ranking(1.0, 0.0, by="car", metrics={"car": FormedMetric(("length",))})
    assert by_length.verdict().claim is Claim.NO_RECOMMENDATION
    assert by_length.verdict().text == (
        "A comes first by car on 100 of 120 prompts. This is no recommendation: car looks neither at the "
        "base model nor at the quality of the responses. Give a student or a source of rewards."
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
    stability = Stability("car", ("A",), (TURNED,), pairs=1)
    shown = str(
        ranking(
            0.97, 0.03, names=names, stability=stability, warnings=(Warning("copies", "w " * 99),)
        )
    )
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("a-teacher-whose-name")
    assert "0.100 [0.050, 0.200]       0.97   100" in shown
    assert "B\\x1b[31m" in shown
    assert "By car, the winner changes under beta = 0 (B)." in lines
    assert "Warning: w w" in shown


def test_a_printed_table_lines_up_like_the_readmes():
    assert str(ranking(0.97, 0.03)).splitlines()[3:7] == [
        "     teacher     car [95% interval]   P(first)     n   reward",
        " " + 60 * "─",
        " 1   A         0.100 [0.050, 0.200]       0.97   100    0.500",
        " 2   B         0.100 [0.050, 0.200]       0.03   100    0.500",
    ]


def test_json_gives_an_equal_ranking_back():
    stability = Stability("car", ("A",), (SAME,), pairs=1)
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


def test_at_80_columns_cars_ingredients_stay_and_hidden_columns_are_named():
    rng = np.random.default_rng(0)
    names = ("a-teacher-with-a-very-long-name-indeed", "b", "c")
    measured = Measurements(
        teachers=names,
        instructions=40,
        values={"reward": rng.random((3, 40)), "loss": 1 + rng.random((3, 40))}
        | {"length": 50 * rng.random((3, 40))},
    )
    made = rank(
        measured,
        student="s",
        metrics=[CompatibilityAdjustedReward()],
        options=RankingOptions(n_resamples=200),
    )
    narrow, least = (table_lines(made, width=width) for width in (80, 60))
    assert narrow[0].split()[-2:] == ["reward", "loss"]
    assert narrow[-1] == " Not shown, for want of room: length."
    assert max(len(line) for row in narrow for line in row.split("\n")) <= 80
    assert least[-1] == " Not shown, for want of room: reward, loss, length."
    assert not table_lines(made, width=160)[-1].startswith(" Not shown")
