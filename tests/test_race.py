"""Races through the real line: files and a loopback endpoint, one store, the decisions of `Race` by hand."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from preceptor import api
from preceptor.config.export import Export
from preceptor.config.rewards import ColumnReward
from preceptor.config.student import Student
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.estimate import estimate
from preceptor.pipeline.export import export
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.race import race
from preceptor.pipeline.race_measures import race_rows
from preceptor.pipeline.work import Amount, Silent
from preceptor.ranking.measurements import Common
from preceptor.ranking.race.look import Look
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.race import Race
from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.race.sequences import looks
from preceptor.ranking.verdict import Claim
from preceptor.report.estimate import print_estimate
from race_teachers import JUDGE, JUDGE_PRICES, JUDGE_TOKENS, asking, price_of, teachers
from small_study import preceptor, write_rows
from small_teachers import stored_twice

RIGHT = {"amber": 0.9, "birch": 0.55, "cedar": 0.45, "dill": 0.2}
"""The share of right answers of each teacher."""

RULE = {"kind": "contains", "answer": "yes"}
"""A reward that must be computed, so that nothing but lengths is known beforehand."""


def responses(folder: Path, prompts: int = 200, **without: range) -> list[Path]:
    """Write teachers that are right ever less often; at some prompts a teacher has an empty output."""
    hard = np.random.default_rng(7).normal(0, 0.15, prompts)
    files = []
    for place, (name, right) in enumerate(RIGHT.items()):
        own = np.random.default_rng(place)
        said = own.random(prompts) < right + hard
        rows = [
            {
                "instruction": f"What is number {at} good for?",
                "output": ""
                if at in without.get(name, ())
                else " ".join(["yes" if yes else "no", *["word"] * int(own.integers(1, 9))]),
                "marks": float(yes),
                "others": float(own.random() < 0.5 + 0.1 * place),
            }
            for at, yes in enumerate(said.tolist())
        ]
        files.append(write_rows(folder / f"{name}.jsonl", rows))
    return files


def raced(files: list[Path], store: Path, **options: Any) -> RaceResult:
    options = {"rule": RULE, "no_student": True, **options}
    given = {"race": True, **options, "store": str(store), "device": "cpu", "progress": False}
    return api.rank(files, **given)


def decisions(looks: Sequence[Look]) -> object:
    """Return what was decided at each look, and the values it rests on."""
    return [
        (
            look.rows,
            look.n,
            look.leader,
            look.dropped,
            {n: round(v, 9) for n, v in look.values.items()},
        )
        for look in looks
    ]


def by_hand(files: list[Path], store: Path, **options: Any) -> Race:
    """Feed the measures of a full ranking to a race, for whoever runs."""
    given = {"rule": RULE, "no_student": True, "store": str(store), "device": "cpu", "by": "reward"}
    study, runtime = api.study_of(files, **given)
    line = Pipeline(study, runtime)
    (data,) = line.load()
    planned, steps = line.plan(data, None)
    found = line.rank(data, planned, steps).measurements()
    (metric,) = [one for one in planned.metrics if one.kind == "reward"]
    places = race_rows(data.selection.table, 0)[data.selection.taken]
    order, total = np.argsort(places), len(data.selection.table.instructions)
    lengths = found.values["length"][:, order]
    whole = len(places) == total and not np.isnan(lengths).any()
    known = {"length": lengths} if whole else {}
    race = Race(metric, found.teachers, total, RaceOptions(**options), known)
    before = 0
    for rows in looks(race.options.start, total):
        at = [found.teachers.index(name) for name in race.running]
        columns = order[places[order] < rows]
        reward = found.values["reward"][np.ix_(at, columns)]
        kept = ~np.isnan(reward).any(axis=0)
        common = Common(int(kept.sum()), {"reward": reward[:, kept]}, {}, (), ())
        seen = places[columns][kept]
        race.look(common, rows=rows, fresh=int((seen >= before).sum()), places=seen)
        before = rows
        if race.ending:
            break
    return race


@pytest.mark.parametrize("missing", [{}, {"cedar": range(0, 60), "dill": range(50, 90)}])
def test_a_race_decides_as_the_measures_of_a_full_ranking_do(
    tmp_path: Path, missing: dict[str, range]
):
    files = responses(tmp_path, **missing)
    found = raced(files, tmp_path / "raced", start=30)
    fed = by_hand(files, tmp_path / "full", start=30)
    assert decisions(found.looks) == decisions(fed.looks)
    assert found.ending == fed.ending == "best"
    assert found.leader.teacher == "amber"
    assert found.full.responses >= 600 and found.spent.responses < 0.7 * found.full.responses
    assert all(one.beaten_by for one in found.racers[1:])
    assert found.verdict().claim is Claim.FIRST
    assert found.verdict().text.startswith(
        "amber is the best teacher by reward for prompts like these: with 95% confidence, whenever the "
        "race stopped (asymptotic)."
    )
    text = str(found)
    assert (
        "P(" not in text
        and "was selected as the leader" in text
        and max(map(len, text.split("\n"))) <= 80
    )
    assert RaceResult.from_json(found.to_json()) == found


def test_equal_teachers_end_a_race_and_the_cheapest_is_recommended(tmp_path: Path):
    files = responses(tmp_path)
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    longer = [{**row, "output": row["output"] + " and so on and on"} for row in rows]
    twin = write_rows(tmp_path / "also.jsonl", longer)
    found = raced([twin, *files], tmp_path / "store", start=30, tolerance=0.1)
    assert found.ending == "equal"
    assert {one.teacher for one in found.left} == {"amber", "also"}
    choice, why = found.choice
    assert (choice.teacher, why) == ("amber", "tokens")
    assert found.verdict().claim is Claim.EQUAL
    assert "because its responses are the shortest" in found.verdict().text


def test_who_was_ahead_by_another_reading_when_it_left_keeps_the_winner_from_being_named(
    tmp_path: Path,
):
    """At equal lengths the other teacher is better: the first is right where it is long."""
    rng = np.random.default_rng(3)
    files = []
    for name, words, at_one in (("long", 40, 0.8), ("short", 8, 0.55)):
        lengths = rng.integers(words // 2, words, size=400)
        rows = [
            {
                "instruction": f"What is number {at} good for?",
                "output": " ".join(["word"] * int(length)),
                "marks": float(rng.random() < at_one * length / words * 1.3),
            }
            for at, length in enumerate(lengths.tolist())
        ]
        files.append(write_rows(tmp_path / f"{name}.jsonl", rows))
    found = raced(files, tmp_path / "store", rule=None, reward_column="marks", by="reward")
    assert found.ending == "best" and found.verdict().claim is Claim.LEADS_SO_FAR
    (told,) = [one.text for one in found.warnings if one.code == "winner-changes"]
    loser = found.racers[1]
    assert f"{loser.teacher} (after {loser.rows:,}) under" in told


def test_a_leader_with_failures_only_leads(tmp_path: Path):
    found = raced(responses(tmp_path, amber=range(0, 40)), tmp_path / "store", start=30)
    assert found.ending == "best" and found.verdict().claim is Claim.LEADS_SO_FAR
    assert "empty or refused" in found.verdict().text


def test_an_order_without_rewards_recommends_nobody(tmp_path: Path):
    found = raced(responses(tmp_path), tmp_path / "store", start=30, rule=None, metrics=["length"])
    assert found.verdict().claim is Claim.NO_RECOMMENDATION


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reward_transform": "minmax"}, "race with 'sigmoid' or 'raw'"),
        ({"race": None, "tolerance": 0.1}, "tolerance is given without a race"),
        ({"money": 3.0}, "no teacher that is asked has a price"),
        ({"race": {"confidence": 2}}, "less than 1"),
        (
            {"method": "betting", "rule": None, "metrics": ["length"]},
            "Betting is for reward and car",
        ),
        (
            {"no_student": False, "student": "gpt2", "metrics": ["persyn"]},
            "changes when one leaves the race",
        ),
    ],
)
def test_what_no_race_can_be_run_by_is_refused(tmp_path: Path, options: dict[str, Any], said: str):
    files = responses(tmp_path, 20)
    with pytest.raises(StudyError, match=said):
        raced(files, tmp_path / "store", **options)


@pytest.mark.usefixtures("one_thread", "private_cache")
def test_races_by_several_rewards_for_several_students_share_rows(
    tmp_path: Path, model_folder: Path
):
    files = responses(tmp_path, 60)
    tiny = str(model_folder)
    study, runtime = api.study_of(
        files,
        students=[tiny, Student(model=tiny, label="second")],
        rule=RULE,
        race=True,
        start=30,
        store=str(tmp_path / "store"),
        device="cpu",
    )
    rewards = (*study.reward, ColumnReward(column="others"))
    study = study.model_copy(update={"reward": rewards})
    found = race(Pipeline(study, runtime))
    assert [(one.student, one.reward) for one in found] == [
        (student.name, reward.name) for student in study.students for reward in rewards
    ]
    assert len({str(one.spent) for one in found}) == 1
    for place, reward in enumerate(rewards):
        single = study.model_copy(update={"reward": (reward,), "students": study.students[:1]})
        (alone,) = race(Pipeline(single, runtime))
        assert decisions(found[place].looks) == decisions(alone.looks)
        assert found[place].by == "car" and found[place].spent.responses >= alone.spent.responses
    assert found[0].leader.teacher == "amber" != found[1].leader.teacher
    (told,) = [one.text for one in found[0].warnings if one.code == "winner-changes"]
    assert told.startswith(f"Who is chosen changes: {found[1].leader.teacher} under reward")


@pytest.mark.parametrize("budget", [{"tokens": 720}, {"hours": 1e-9}])
def test_a_budget_ends_a_race_and_the_verdict_names_who_is_left(
    tmp_path: Path, budget: dict[str, Any]
):
    sure = {"start": 30, "confidence": 0.99999}
    found = raced(responses(tmp_path), tmp_path / "store", **sure, **budget)
    assert found.ending == "budget" and found.spent.tokens <= 720
    assert found.verdict().claim is Claim.NO_CLEAR_WINNER
    assert "the budget is spent" in found.verdict().text and "by up to" in found.verdict().text


class Interrupted(Silent):
    """A progress that ends the run like Ctrl-C once so many responses were stored."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, done: Amount) -> None:
        """Count what was stored."""
        self.left -= done.responses
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_budget_in_money_needs_the_price_of_every_teacher_that_is_asked(tmp_path: Path):
    with teachers() as told:
        study, runtime = asking(tmp_path, told.url, money=1.0)
        first, *others = study.teachers
        free = first.model_copy(update={"price_in": None, "price_out": None})
        study = study.model_copy(update={"teachers": (*others, free)})
        with pytest.raises(StudyError, match="'amber' has no price: give price_in and price_out"):
            race(Pipeline(study, runtime))
        assert not told.requests


def test_judges_are_counted_and_their_price_is_needed_like_a_teachers(tmp_path: Path):
    prices = dict(zip(("price_in", "price_out"), JUDGE_PRICES, strict=True))
    with teachers() as told:
        (found,) = race(Pipeline(*asking(tmp_path, told.url, judge=prices)))
        judged = [one for one in told.requests if one["model"] == JUDGE]
        assert found.leader.teacher == "amber" and found.spent.responses < found.full.responses
        assert found.spent.money == pytest.approx(price_of(told.requests))
        assert found.spent.judge_money == pytest.approx(price_of(judged))
        assert found.spent.judge_tokens == len(judged) * sum(JUDGE_TOKENS)
        paid = len(told.requests)
        # A race that goes on from what is stored counts the same; without a price it says what it leaves out.
        (free,) = race(Pipeline(*asking(tmp_path, told.url, judge={})))
        assert len(told.requests) == paid
        assert free.spent.money == pytest.approx(price_of(told.requests) - price_of(judged))
        assert free.spent.unpriced == ("judge judge",)
        assert "USD (without judge judge, for want of a price)" in " ".join(str(free).split())
        assert f"({found.spent.judge_money:,.4g} of it for judges)" in " ".join(str(found).split())
        with pytest.raises(StudyError, match="the judge judge has no price"):
            race(Pipeline(*asking(tmp_path, told.url, judge={}, money=1.0)))
        most = found.spent.money * 0.75
        (short,) = race(Pipeline(*asking(tmp_path, told.url, judge=prices, money=most)))
        assert short.ending == "budget" and short.spent.money <= most
    assert RaceResult.from_json(free.to_json()) == free


def test_a_teacher_without_a_price_is_named_beside_the_money(tmp_path: Path):
    with teachers() as told:
        study, runtime = asking(tmp_path, told.url)
        first, *others = study.teachers
        free = first.model_copy(update={"price_in": None, "price_out": None})
        study = study.model_copy(update={"teachers": (*others, free)})
        (found,) = race(Pipeline(study, runtime))
        assert found.spent.unpriced == found.full.unpriced == ("amber",)
        paid = [one for one in told.requests if one["model"] != "amber"]
        assert found.spent.money == pytest.approx(price_of(paid))
        assert "(without amber, for want of a price)" in " ".join(str(found).split())


def test_a_race_that_asks_goes_on_after_interrupts_to_the_same_decisions_and_pays_once(
    tmp_path: Path,
):
    with teachers() as told:
        (whole,) = race(Pipeline(*asking(tmp_path, told.url, store="whole")))
        paid = len(told.requests)
        assert whole.leader.teacher == "amber" and whole.ending == "best"
        assert whole.spent.responses == paid < 0.6 * whole.full.responses
        assert whole.full.responses == 4 * 150
        assert whole.spent.money == pytest.approx(price_of(told.requests))
        told.requests.clear()
        for after in (11, 33, 14):
            with pytest.raises(KeyboardInterrupt):
                race(Pipeline(*asking(tmp_path, told.url), Interrupted(after)))
        (resumed,) = race(Pipeline(*asking(tmp_path, told.url)))
        # What was on its way when the run ended may have been answered and is not there to be counted.
        asked = [(one["model"], one["messages"][-1]["content"]) for one in told.requests]
        assert len(set(asked)) == paid
        assert not stored_twice(tmp_path / "store")
    assert decisions(resumed.looks) == decisions(whole.looks)
    assert resumed.spent.money == whole.spent.money


def test_a_budget_of_money_holds_and_the_winner_completes_the_data_set(tmp_path: Path):
    with teachers() as told:
        study, runtime = asking(tmp_path, told.url, money=0.0085, confidence=0.99999)
        (found,) = race(Pipeline(study, runtime))
        assert found.ending == "budget" and len(found.left) > 1
        assert found.spent.money == pytest.approx(price_of(told.requests))
        assert (found.spent.money or 0) <= 0.0085
        study, runtime = asking(tmp_path, told.url)
        written = export(study, runtime, tmp_path / "few", Export(), Silent())
        (found,) = race(Pipeline(study, runtime))
        assert written.rows == found.leader.rows < 150
        told.requests.clear()
        complete = Export(complete=True)
        written = export(study, runtime, tmp_path / "all", complete, Silent())
        assert written.rows == 150
        assert {one["model"] for one in told.requests} == {"amber"}
        assert len(told.requests) == 150 - found.leader.rows
        card = (tmp_path / "all" / "README.md").read_text()
        assert "amber is the best teacher by reward" in " ".join(card.split())
        plain = study.model_copy(update={"race": None})
        with pytest.raises(StudyError, match="complete is for a study with"):
            export(plain, runtime, tmp_path / "none", complete, Silent())


@pytest.mark.parametrize(("race", "said"), [
    ({}, "Race: at most as much, and less where teachers leave early. In full: about 0.04 USD."),
    ({"money": 0.006, "hours": 2}, "Race: at most 2 hours or 0.01 USD, whichever is reached first"),
    ({"judge": {}}, "In full: about 0.04 USD, without judge judge, for want of a price."),
    ({"judge": {"price_in": 3.0, "price_out": 5.0}}, "judge judge: 600 responses to judge, about "),
])  # fmt: skip
def test_a_plan_says_what_a_race_takes_at_most_and_in_full(
    tmp_path: Path, race: dict[str, Any], said: str
):
    study, runtime = asking(tmp_path, "http://127.0.0.1:1/v1", **race)
    screen = Console(file=io.StringIO(), width=400)
    print_estimate(screen, estimate(study, runtime))
    assert said in screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_command_shows_every_look_and_writes_the_race(tmp_path: Path):
    files = responses(tmp_path)
    written = tmp_path / "race.json"
    words = ["--race", "--start", 30, "--rule", json.dumps(RULE), "--store", tmp_path / "store"]
    page = tmp_path / "race.html"
    outputs = ["--json", written, "--csv", tmp_path / "race.csv", "--html", page]
    result = preceptor("rank", *files, *words, *outputs)
    assert result.exit_code == 0, result.output
    assert "30 prompts: " in result.stderr and "is dropped: amber is better" in result.stderr
    assert "amber is the best teacher by reward" in " ".join(result.stdout.split())
    found = RaceResult.from_json(written.read_text())
    assert found.leader.teacher == "amber"
    assert "race-1-chart-1" in page.read_text() and found.verdict().text[-40:] in page.read_text()
    header, first, *_ = (tmp_path / "race.csv").read_text().splitlines()
    assert header.startswith("student,reward_source,teacher,left") and ",amber,True," in first


def test_a_text_that_is_no_race_is_refused():
    with pytest.raises(DataError, match="no race as this version writes it"):
        RaceResult.from_json('{"student": "s"}')
