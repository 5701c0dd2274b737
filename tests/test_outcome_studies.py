"""Outcome studies: the shipped tables, their record and checks, compatibility, and a user's own outcomes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from preceptor.agreement.correlation import leave_one_out_prior
from preceptor.errors import StudyError
from preceptor.studies import study as studies
from preceptor.studies.check import checks, over_teachers
from preceptor.studies.choice import choices
from preceptor.studies.compatibility import compatibility, interaction, study_findings
from preceptor.studies.own import OwnStudies
from preceptor.studies.record import computed, has_good_record, of, records
from small_study import preceptor

DATA = Path(studies.__file__).with_name("data")


def column(name: str) -> np.ndarray:
    """Return a column of rsr2026 as (students, teachers), read without the package."""
    with (DATA / "rsr2026.csv").open() as lines:
        next(lines)
        rows = list(csv.DictReader(lines))
    return np.array([float(row[name]) for row in rows]).reshape(5, 11)


def mean_rho(predicted: np.ndarray) -> float:
    pairs = zip(predicted, column("score"), strict=True)
    return float(np.mean([stats.spearmanr(*pair).statistic for pair in pairs]))


@pytest.mark.parametrize(
    ("name", "teachers", "students", "marks"),
    [
        ("xu2024", 19, 5, ()),
        ("rsr2026", 11, 5, ()),
        ("struggle2025", 4, 10, ()),
        ("openthoughts2026", 5, 1, ("second-hand", "orders only")),
        ("terminallego2026", 4, 2, ("second-hand", "orders only")),
        ("polyglot2026", 10, 15, ("negative control",)),
    ],
)
def test_a_shipped_study_is_whole(name: str, teachers: int, students: int, marks: tuple[str, ...]):
    one = studies.study(name)
    assert (len(one.teachers), len(one.students), one.marks) == (teachers, students, marks)
    assert all(len(row) == teachers for row in one.outcomes.values())
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 30_000


def test_every_printed_number_that_can_be_recomputed_is():
    found = checks()
    assert all(one.holds for one in found), found
    rsr = next(one for one in found if "avg_rank_clipped" in one.what)
    assert (rsr.count, rsr.allowed) == (55, 0.01)
    ratio = column("avg_rank_clipped") / column("avg_surprisal")
    assert rsr.difference == pytest.approx(np.abs(ratio - column("rsr")).max())


def test_the_record_that_is_shipped_is_what_the_tables_give():
    assert tuple(computed()) == records()


def test_the_mean_rhos_of_rsr2026_are_those_of_an_independent_computation():
    loss, quality, length = (
        column(name) for name in ("avg_surprisal", "llm_judged_quality", "avg_token_length")
    )
    expected = {
        "prior": mean_rho(leave_one_out_prior(column("score"))),
        "rsr": mean_rho(-column("rsr")),
        "car": mean_rho(quality / (1 + 3 * loss)),
        "information": mean_rho(loss * length),
        "likelihood": mean_rho(-loss),
    }
    found = {one.metric: one for one in over_teachers("rsr2026")}
    for metric, rho in expected.items():
        assert found[metric].rho == pytest.approx(rho, abs=6e-4)
        low, high = found[metric].low, found[metric].high
        assert low is not None and high is not None and low < rho < high
    rounded = {metric: round(found[metric].rho, 3) for metric in expected}
    assert rounded == {
        "prior": 0.890,
        "rsr": 0.847,
        "car": 0.571,
        "information": 0.565,
        "likelihood": 0.509,
    }


def test_what_was_chosen_on_a_study_is_marked_and_signs_flip_between_kinds():
    assert {(one.metric, one.study) for one in records() if one.in_sample} == {
        ("car", "xu2024"),
        ("information", "xu2024"),
        ("rsr", "rsr2026"),
    }
    assert of("rsr", "chat")[0].rho < -0.7 < 0 < 0.8 < of("rsr", "reasoning")[0].rho
    assert of("car", "agent") == ()
    good = {
        m for m in ("car", "reward", "length", "information", "rsr") if has_good_record(m, "chat")
    }
    assert good == {"car", "reward"}
    assert has_good_record("rsr", "reasoning") and not has_good_record("car", "reasoning")


def test_levels_and_multiples_are_no_interaction_and_a_turned_order_is():
    merit, rng = np.arange(8.0), np.random.default_rng(0)
    plain = np.array([5 + merit, 1 + 3 * merit, 9 + 0.5 * merit])
    assert interaction(plain).deviation == pytest.approx(0, abs=1e-9)
    noisy = plain + rng.normal(scale=0.3, size=plain.shape)
    seen = interaction(noisy, 0.3, runs=4)
    assert seen.p_value is not None and seen.p_value > 0.05
    turned = noisy.copy()
    turned[1] = turned[1, ::-1]
    seen = interaction(turned, 0.3, runs=4)
    assert seen.p_value is not None and seen.p_value < 0.01
    assert interaction(turned).p_value is None


def test_noise_alone_is_called_interaction_in_few_cases():
    rng = np.random.default_rng(1)
    merit = np.linspace(0, 5, 9)
    drawn = (interaction(rng.normal(merit, 1.0, (4, 9)), 1.0).p_value for _ in range(60))
    assert sum(p is not None and p < 0.05 for p in drawn) <= 6


def test_the_negative_control_is_noise_and_what_cannot_be_tested_is_told():
    control = compatibility(studies.study("polyglot2026"))
    assert control is not None and "cannot be told from noise" in control.note
    paradox = study_findings(studies.study("polyglot2026"))[0].note
    assert "Of 28 losses 2 exceed 0.0339, twice" in paradox  # 2 * 2**0.5 * 0.012
    rsr = compatibility(studies.study("rsr2026"))
    assert rsr is not None and "cannot be tested" in rsr.note and "0.890 [0.41, 0.99]" in rsr.note
    assert compatibility(studies.study("openthoughts2026")) is None


def test_what_each_favourite_costs_a_student_is_the_gap_to_its_best_teacher():
    found = {(one.study, one.student, one.reader): one for one in choices()}
    one = found["rsr2026", "Qwen-3-14B", ""]
    score, loss = column("score")[0], column("avg_surprisal")[0]
    car = column("llm_judged_quality")[0] / (1 + 3 * loss)
    assert one.default == "rsr" and one.regrets["rsr"] == 0
    assert one.regrets["car"] == pytest.approx(score.max() - score[car.argmax()])
    assert one.regrets["loss"] == pytest.approx(score.max() - score[loss.argmin()])
    assert one.regrets["chance"] == pytest.approx((score.max() - score).mean())
    assert {one.default for one in found.values()} == {"rsr", "information", ""}
    assert not {"polyglot2026", "terminallego2026"} & {study for study, *_ in found}
    shown = preceptor("studies", "record", "--by-student").output
    assert "rsr2026: points lost by taking each favourite (default: rsr)" in shown


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "Mine.csv"
    path.write_text("teacher,student,score\na,s,1\nb,s,2\nc,s,3\na,t,2\nb,t,1\nc,t,3\n")
    return path


def test_own_outcomes_join_and_leave(mine: Path):
    added = preceptor("studies", "add", mine, "--kind", "reasoning", "--noise", "0.5")
    assert added.exit_code == 0, added.output
    assert "mine" in preceptor("studies").output
    one = OwnStudies(".preceptor").find("mine")
    assert (one.kind, one.noise, one.marks) == ("reasoning", 0.5, ("your own",))
    shown = json.loads(preceptor("studies", "show", "mine", "--json", "-").output)
    assert shown["outcomes"]["t"] == {"a": 2.0, "b": 1.0, "c": 3.0}
    Path("p.csv").write_text("teacher,car\na,1\nb,2\nc,3\n")
    agreed = preceptor("agreement", "p.csv", "--observed", "mine", "--json", "-")
    means = {one["column"]: one["rho"] for one in json.loads(agreed.output)["means"]}
    assert means["car"] == pytest.approx(0.75)
    assert preceptor("studies", "remove", "mine").exit_code == 0
    assert OwnStudies(".preceptor").names() == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "Mine.csv", "--kind", "chat", "--name", "xu2024"], "cannot name a study"),
        (["add", "Mine.csv", "--kind", "chat", "--name", "../up"], "cannot name a study"),
        (["remove", "xu2024"], "No study of yours"),
        (["show", "rsr2062"], "Did you mean 'rsr2026'?"),
    ],
)
def test_a_name_that_cannot_be_is_refused(mine: Path, words: list[str], said: str):
    result = preceptor("studies", *words)
    assert result.exit_code == 1 and said in " ".join(result.output.split())
    assert not Path(".preceptor").exists()


def test_a_damaged_file_of_own_outcomes_is_named(mine: Path):
    OwnStudies(".preceptor").add("mine", str(mine), kind="chat")
    Path(".preceptor/studies/mine.json").write_text(
        '{"kind": "chat", "outcomes": {"s": {"a": "x"}}}'
    )
    with pytest.raises(StudyError, match=r"mine.json: 1 wrong field"):
        OwnStudies(".preceptor").find("mine")


def test_a_study_that_prints_measures_is_its_own_prediction():
    result = preceptor("agreement", "rsr2026", "--metric", "rsr", "--json", "-")
    assert result.exit_code == 0, result.output
    held = json.loads(result.output)
    assert next(round(one["rho"], 3) for one in held["means"]) == 0.847
    assert preceptor("agreement", "struggle2025").exit_code == 1
