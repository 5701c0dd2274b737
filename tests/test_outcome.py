"""What the pipeline adds to a ranking: other rewards and templates, failures, prices, what the data hold."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.pipeline import Pipeline
from preceptor.ranking.result import Ranking
from preceptor.ranking.verdict import Claim
from small_study import write_rows
from small_teachers import GRADED, fake, runtime_at, study_with, write_questions

QUESTIONS = [f"Question number {number} about the wide sea?" for number in range(40)]


def rows(**columns: float) -> list[dict[str, Any]]:
    return [
        {
            "instruction": q,
            "output": f"The sea, {place}.",
            **{n: v + place % 2 for n, v in columns.items()},
        }
        for place, q in enumerate(QUESTIONS)
    ]


def rankings(tmp_path: Path, *columns: str, files: list[Path], **more: Any) -> list[Ranking]:
    rewards = [{"kind": "column", "column": name} for name in columns]
    data = {"responses": [str(file) for file in files], **more}
    tables = {"data": data, "reward": rewards, "no_student": True}
    study = checked(Study, tables, where="test")
    return Pipeline(study, Runtime(store=str(tmp_path / "store"), device="cpu")).rankings()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        write_rows(tmp_path / "Qwen2.5-7B-Instruct.jsonl", rows(one=2.0, two=1.0)),
        write_rows(tmp_path / "beta.jsonl", rows(one=1.0, two=2.0)),
    ]


def test_a_winner_that_changes_with_the_rewards_is_named_under_neither(tmp_path, files):
    first, second = rankings(tmp_path, "one", "two", files=files)
    assert (first.best.teacher, second.best.teacher) == ("Qwen2.5-7B-Instruct", "beta")
    for found in (first, second):
        assert found.verdict().claim is Claim.LEADS_SO_FAR
        assert "winner-changes" in [reason.code for reason in found.verdict().reasons]
    assert first.warnings[-1].text == "The winner changes under reward = column 'two' (beta)."


def test_a_first_place_that_is_shared_under_another_reward_is_told_and_names_nobody(tmp_path):
    files = [
        write_rows(tmp_path / "alpha.jsonl", rows(one=2.0, two=1.0)),
        write_rows(tmp_path / "beta.jsonl", rows(one=1.0, two=1.0)),
    ]
    first, _ = rankings(tmp_path, "one", "two", files=files)
    told = "The first place is shared under reward = column 'two' (alpha and beta)."
    assert (first.warnings[-1].text, first.verdict().claim) == (told, Claim.LEADS_SO_FAR)


def test_the_verdict_says_of_how_many_prompts_a_limit_took_some(tmp_path, files):
    (found,) = rankings(tmp_path, "one", files=files, limit=6)
    assert "on 6 of 40 prompts (--limit 6)" in found.verdict().text


def test_empty_answers_count_as_failures_and_missing_rows_do_not(tmp_path, files):
    lossy = rows(one=3.0)[:-10]
    for row in lossy[:6]:
        row["output"] = ""
    files.append(write_rows(tmp_path / "gamma.jsonl", lossy))
    (found,) = rankings(tmp_path, "one", files=files)
    (warning,) = (one for one in found.warnings if one.code == "failures")
    # 6 of its 30 rows; the 10 that are not there may never have been asked for.
    assert (warning.teachers, "'gamma' 20.0%" in warning.text) == (("gamma",), True)
    (variant,) = (v for v in found.stability.variants if v.name == "failures at the lowest reward")
    # Of 30 prompts gamma earned 3 and 4 on 24, and the lowest reward, 1, where it failed. What the others
    # earn is over all 30, 6 of which are compared for nobody.
    assert variant.values["gamma"] == pytest.approx((24 * 3.5 + 6 * 1) / 30)
    assert variant.values["Qwen2.5-7B-Instruct"] == pytest.approx(2.5)
    assert found.best.n == 24


def test_what_rivals_earn_where_a_teacher_failed_is_computed_where_it_is_no_column(tmp_path):
    """alice is right on 30 easy prompts and silent on 10 hard ones; bob is right on 28 easy and all hard."""
    sheets = {
        "alice": ["It is 7." if at < 30 else "" for at in range(40)],
        "bob": ["It is 7." if at >= 2 else "It is 8." for at in range(40)],
    }
    for name, outputs in sheets.items():
        lines = [
            {"instruction": q, "output": text, "reference": {"kind": "numeric", "answer": "7"}}
            for q, text in zip(QUESTIONS, outputs, strict=True)
        ]
        write_rows(tmp_path / f"{name}.jsonl", lines)
    data = {"responses": [str(tmp_path / f"{name}.jsonl") for name in sheets]}
    study = checked(Study, {"data": data, "no_student": True}, where="test")
    pipeline = Pipeline(study, Runtime(store=str(tmp_path / "store"), device="cpu"))
    (found,) = pipeline.rankings()
    assert (found.best.teacher, found.best.n) == ("alice", 30)
    (variant,) = (v for v in found.stability.variants if v.name == "failures at the lowest reward")
    assert variant.values == {"alice": pytest.approx(30 / 40), "bob": pytest.approx(38 / 40)}
    assert found.verdict().claim is not Claim.FIRST


def test_null_rewards_of_one_teacher_are_told_and_cap_the_verdict(tmp_path, files):
    lossy = rows(one=9.0)
    for row in lossy[:2]:
        row["one"] = None
    files.append(write_rows(tmp_path / "gamma.jsonl", lossy))
    (found,) = rankings(tmp_path, "one", files=files)
    (warning,) = (one for one in found.warnings if one.code == "missing-scores")
    assert "'gamma' 5.0%" in warning.text
    assert (found.verdict().claim, found.verdict().teacher) == (Claim.LEADS_SO_FAR, "gamma")
    assert "missing-scores" in [reason.code for reason in found.verdict().reasons]
    (left_out,) = (one.text for one in found.warnings if one.code == "left-out")
    assert left_out.endswith("because a teacher lacks them: 'gamma' 2 (null reward 2).")
    # A limit draws among them too, so that they are told there as well.
    (limited,) = rankings(tmp_path, "one", files=files, limit=39)
    assert limited.best.n < 39
    assert "'gamma'" in next(one.text for one in limited.warnings if one.code == "missing-scores")


@pytest.mark.parametrize(("share", "code"), [(1, "broken-off"), (80, "odd-ending")])
def test_answers_that_a_filter_ended_are_told_and_cap_the_verdict_where_they_are_many(
    tmp_path, files, share, code
):
    ended = [
        {**row, "finish_reason": "content_filter" if place % share == 0 else "stop"}
        for place, row in enumerate(rows(one=9.0) * 2)
    ]
    files.append(write_rows(tmp_path / "gamma.jsonl", ended))
    (found,) = rankings(tmp_path, "one", files=files)
    (warning,) = (one for one in found.warnings if one.code in ("broken-off", "odd-ending"))
    assert (warning.code, warning.teachers) == (code, ("gamma",))
    assert f"'content_filter' ({80 // share})" in warning.text
    assert (found.verdict().claim is Claim.LEADS_SO_FAR) == (code == "broken-off")


def test_a_column_that_looks_like_a_reward_is_the_cheapest_way_to_one(tmp_path):
    columns = [rows(reward=1.0), rows(reward=2.0)]
    files = [write_rows(tmp_path / f"{place}.jsonl", one) for place, one in enumerate(columns)]
    (found,) = rankings(tmp_path, files=files)
    assert found.verdict().claim is Claim.NO_RECOMMENDATION
    (way,) = (one.text for one in found.warnings if one.code == "cheapest-reward")
    words = ["preceptor", "rank", *map(str, files), "--no-student", "--reward-column", "reward"]
    assert shlex.split(way.partition("): ")[2]) == words


@pytest.mark.parametrize("reward", [(), GRADED])
def test_teachers_whose_texts_are_made_up_are_never_recommended(tmp_path, model_folder, reward):
    students = [{"model": str(model_folder), "chat_template": "plain"}]
    tables = {"students": students, "reward": reward}
    study = study_with(write_questions(tmp_path), fake("one"), fake("two"), **tables)
    (found,) = Pipeline(study, runtime_at(tmp_path / "store")).rankings()
    verdict = found.verdict()
    assert verdict.claim is Claim.NO_RECOMMENDATION
    assert re.match(r"Looks like noise: no model|'one' looks like noise", verdict.text)
    made_up = [
        one
        for one in found.warnings
        if "noise: no model wrote the texts of 'one', 'two'" in one.text
    ]
    assert [one.teachers for one in made_up] == [("one", "two")]
    ways = [one.text for one in found.warnings if one.code == "cheapest-reward"]
    assert bool(ways) == (not reward)
    if ways:
        table = tomllib.loads(ways[0].partition("study file: ")[2])
        assert table["reward"] == {"kind": "model", "model": "skywork-v2-0.6b"}


def test_prompts_in_two_unicode_forms_are_told(tmp_path, files):
    composed = [{**row, "instruction": f"Caf\u00e9: {row['instruction']}"} for row in rows(one=2.0)]
    decomposed = [
        {**row, "instruction": f"Cafe\u0301: {row['instruction']}"} for row in rows(one=1.0)
    ]
    files = [
        write_rows(tmp_path / "a.jsonl", [*rows(one=2.0), *composed[:3]]),
        write_rows(tmp_path / "b.jsonl", [*rows(one=1.0), *decomposed[:3]]),
    ]
    (found,) = rankings(tmp_path, "one", files=files)
    (warning,) = (one.text for one in found.warnings if one.code == "prompts-alike")
    assert warning.startswith("3 prompts are written in more than one Unicode form")
