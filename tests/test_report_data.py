"""What stands behind a ranking covers just what was ranked, and costs nothing to gather again."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.pipeline.outcome import Outcome
from preceptor.report.data import RankingData
from preceptor.report.gather import ranking_data_of
from small_outcomes import outcomes_of, scored
from small_study import rows_of, write_rows, write_teachers
from small_teachers import GRADED, drawn, fake, runtime_at, study_with, write_questions

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def ranked(outcomes: Sequence[Outcome]) -> RankingData:
    (found,) = ranking_data_of(outcomes)
    return found


def by_reward(files: Sequence[Path], store: Path, **options: Any) -> RankingData:
    return ranked(scored(files, store, reward_column="reward", **options))


def plain(value: object) -> object:
    """Return frozen data as what `==` compares, arrays as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def test_the_sweep_goes_through_the_ranking_teacher_by_teacher(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=3, instructions=12)
    options = {"students": [str(model_folder)], "beta": 0.3, "reward_transform": "sigmoid"}
    found = by_reward(files, store, **options)
    assert found.sweep is not None
    row = found.sweep.betas.index(0.3)
    for place, result in enumerate(found.ranking.teachers):
        told = result.estimates["car"]
        at = row, place
        seen = found.sweep.values[at], found.sweep.low[at], found.sweep.high[at]
        assert seen == pytest.approx((told.value, told.low, told.high), abs=1e-12)
        assert found.sweep.p_best[at] == pytest.approx(result.p_best, abs=1e-12)
        assert found.sweep.ranks[at] == result.rank
        assert found.tokens[result.teacher] == result.estimates["tokens"].value


def test_gathering_twice_gives_the_same_and_computes_nothing(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=2, instructions=8)
    options = {"students": [str(model_folder)], "keep_tokens": True}
    outcomes = scored(files, store, reward_column="reward", **options)
    first = plain(ranking_data_of(outcomes))
    assert plain(ranking_data_of(outcomes)) == first
    again = scored(files, store, reward_column="reward", **options)
    assert plain(ranking_data_of(again)) == first
    assert again[0].plan.student is not None
    assert "likelihood" not in vars(again[0].plan.student)


def test_what_not_everybody_has_is_in_nothing_that_is_shown(tmp_path: Path, store: Path):
    rows = rows_of(1, 12)
    rows[3]["reward"] = None
    files = [
        write_rows(tmp_path / "alpha.jsonl", rows_of(0, 12)),
        write_rows(tmp_path / "beta.jsonl", rows),
    ]
    found = by_reward(files, store)
    assert found.examples_of == len(found.examples) == 11
    assert rows[3]["instruction"] not in {one.instruction for one in found.examples}
    for distribution in found.distributions:
        assert distribution.counts.sum(axis=1).tolist() == [11, 11]
        for place, result in enumerate(found.ranking.teachers):
            low, *_, high = distribution.quantiles[place]
            assert low <= result.estimates[distribution.measure].value <= high


def test_without_rewards_there_is_no_sweep_and_the_rest_stands(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=2, instructions=20)
    found = ranked(scored(files, store, students=[str(model_folder)]))
    assert found.sweep is None
    assert [distribution.measure for distribution in found.distributions][:2] == ["loss", "length"]
    assert found.tried == ("the first 10 of 20 instructions alone",)
    assert len(found.examples) == 20


def test_by_reward_alone_no_beta_is_tried(tmp_path: Path, store: Path, model_folder: Path):
    files = write_teachers(tmp_path, teachers=2, instructions=6)
    found = by_reward(files, store, students=[str(model_folder)], by="reward")
    assert found.sweep is not None
    assert not any(name.startswith("beta") for name in found.tried)


def test_betas_and_transforms_that_are_not_today_s_are_tried_and_those_that_turn_it_told(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=3, instructions=6)
    found = by_reward(files, store, students=[str(model_folder)], beta=2.0)
    assert "beta = 0" in found.tried
    assert "beta = 2" not in found.tried
    assert {"transform = sigmoid", "transform = minmax"} <= set(found.tried)
    assert "transform = raw" not in found.tried
    stability = found.ranking.stability
    assert stability is not None
    turned = {variant.name for variant in stability.variants if not variant.same_winner}
    assert {change.condition for change in found.changes} == turned


def test_a_winner_of_the_first_instructions_alone_is_told(tmp_path: Path, store: Path):
    # One teacher is better on the instructions drawn first, the other by more on those drawn last.
    first = {str(row["instruction"]) for row in rows_of(0, 40)}
    files = write_teachers(tmp_path, teachers=2, instructions=40)
    (half,) = scored(files, store, reward_column="reward", limit=20)
    choice = half.data.selection
    taken = set(choice.table.instructions[choice.taken].tolist())
    early = {
        response.instruction.text
        for response in half.data.source
        if response.instruction.id in taken
    }
    assert early < first
    for name, rewards in (("alpha", (1.0, 0.0)), ("beta", (0.0, 3.0))):
        rows = [
            {**row, "reward": rewards[row["instruction"] not in early]} for row in rows_of(0, 40)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    found = by_reward(files, store)
    assert found.ranking.teachers[0].teacher == "beta"
    assert [(change.condition, change.winner) for change in found.changes] == [
        ("the first 20 of 40 instructions alone", "alpha"),
        ("the first 10 of 40 instructions alone", "alpha"),
    ]


def test_another_reward_that_prefers_another_teacher_is_told(tmp_path: Path, store: Path):
    rows = [rows_of(place, 6) for place in (0, 1)]
    files = [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [
                {**row, "reward": float(place), "output": "word " * (9 - 5 * place) + str(n)}
                for n, row in enumerate(given)
            ],
        )
        for place, (name, given) in enumerate(zip(("long", "short"), rows, strict=True))
    ]
    rule = {"kind": "constraints", "constraints": [{"name": "words", "at_least": 8}]}
    outcomes = scored(files, store, reward_column="reward", rule=rule)
    column, words = ranking_data_of(outcomes)
    (change,) = column.changes
    assert change.condition.startswith("another reward (rule ")
    assert change.winner == "long"
    assert [one.winner for one in words.changes] == ["short"]
    assert [one.condition for one in words.changes] == ["another reward (column 'reward')"]


def test_teachers_that_tie_are_both_named(tmp_path: Path, store: Path):
    rows = {"one": 1.0, "two": 1.0, "three": 0.5}
    files = [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [{**row, "reward": reward, "output": f"a {n}"} for n, row in enumerate(rows_of(0, 6))],
        )
        for name, reward in rows.items()
    ]
    rule = {"kind": "contains", "answer": "a"}
    by_column, by_rule = ranking_data_of(scored(files, store, reward_column="reward", rule=rule))
    assert {change.winner for change in by_rule.changes} == {"one and two"}
    assert {change.winner for change in by_column.changes} == {"one and three and two"}


def test_categories_of_the_rows_become_means_and_name_the_examples(
    tmp_path: Path, store: Path, model_folder: Path
):
    names = ["sums", "letters"] * 20 + [None, "alone"]
    rows = [
        [{**row, "category": name} for row, name in zip(rows_of(p, 42), names, strict=True)]
        for p in (0, 1)
    ]
    files = [
        write_rows(tmp_path / f"{n}.jsonl", r) for n, r in zip(("alpha", "beta"), rows, strict=True)
    ]
    found = by_reward(files, store, students=[str(model_folder)])
    assert [(one.name, one.n) for one in found.ranking.categories] == [
        ("letters", 20),
        ("sums", 20),
        (None, 2),
    ]
    sums = [row["reward"] for row in rows[1] if row["category"] == "sums"]
    told = found.ranking.categories[1].means["beta"]
    assert told["reward"].value == pytest.approx(np.mean(sums))
    car = told["reward"].value / (1 + 3 * told["loss"].value)
    assert told["car"].value == pytest.approx(car)
    for example in found.examples:
        number = int(example.instruction.split()[3])
        assert example.category == names[number]


def test_families_and_sizes_are_the_catalogue_s_by_label_or_by_the_model_asked(
    tmp_path: Path, store: Path
):
    files = [
        write_rows(tmp_path / f"{name}.jsonl", rows_of(place, 6))
        for place, name in enumerate(("gemma-2-9b-it", "unheard-of"))
    ]
    found = by_reward(files, store)
    assert dict(found.families) == {"gemma-2-9b-it": "Gemma 2", "unheard-of": "unheard-of"}
    assert dict(found.sizes) == {"gemma-2-9b-it": 9, "unheard-of": None}
    grid = drawn("mine", temperature=[0.5, 1.0], label="hot")
    best = {"kind": "best", "of": "ours", "n": 2}
    asked = drawn("gemma-2-2b-it", label="ours")
    study = study_with(write_questions(tmp_path), grid, asked, reward=GRADED, best_of_n=[best])
    found = ranked(outcomes_of(study, runtime_at(tmp_path / "asked")))
    assert found.families["hot T=1"] == found.families["hot T=0.5"] == "mine"
    assert found.families["ours best-of-2"] == found.families["ours"] == "Gemma 2"
    assert found.sizes["ours best-of-2"] == 2


def test_asked_teachers_show_their_texts_too(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), fake(), fake("two"), reward=GRADED)
    found = ranked(outcomes_of(study, runtime_at(store)))
    assert len(found.examples) == 6
    assert all(answer.text for example in found.examples for answer in example.answers)


def test_the_data_are_read_once_for_the_texts_of_all_rankings(tmp_path: Path, store: Path):
    rule = {"kind": "contains", "answer": "the"}
    files = write_teachers(tmp_path, teachers=2, instructions=8)
    outcomes = scored(files, store, reward_column="reward", rule=rule)
    passes = []

    class Counted:
        def __iter__(self) -> Any:
            passes.append(1)
            return iter(outcomes[0].data.source)

    counted = Counted()
    opened = [replace(outcome.data, source=counted) for outcome in outcomes]
    given = [replace(one, data=data) for one, data in zip(outcomes, opened, strict=True)]
    assert plain(ranking_data_of(given)) == plain(ranking_data_of(outcomes))
    assert len(passes) == 1
