"""`evaluate` with a judge: answers in, a table out; files for the projects' tools; what is refused."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from chat_server import answer, serving
from json_form import check
from preceptor.benchmarks.arena_hard.benchmark import ArenaHard
from preceptor.benchmarks.files import read_baseline, read_files
from preceptor.errors import DataError
from small_study import preceptor, start, write_rows
from test_pairwise import prefers

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")
COUNT = 24
PATIENCE = 60.0


def outputs(model: str) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Question {n}?", "output": f"{model} on {n}", "generator": model}
        for n in range(COUNT)
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "good": write_rows(tmp_path / "good.jsonl", outputs("good")),
        "poor": write_rows(tmp_path / "poor.jsonl", outputs("poor")),
        "base": write_rows(tmp_path / "base.jsonl", outputs("base")),
        "store": tmp_path / "store",
        "written": tmp_path / "written",
    }


def judged(files: dict[str, Path], told: Any, *more: object) -> Any:
    return preceptor(
        "evaluate",
        *[files["good"], files["poor"], "--baseline-answers", files["base"]],
        *["--judge", "served", "--judge-url", told.url, "--store", files["store"], *more],
    )


def test_answers_are_judged_scored_and_never_paid_for_twice(files):
    with serving(otherwise=prefers("good on", 0.9)) as told:
        result = judged(files, told, "--json", "-")
        assert result.exit_code == 0, result.output
        asked = len(told.requests)
        again = judged(files, told, "--json", "-")
        assert len(told.requests) == asked == 2 * COUNT + 1
    assert json.loads(again.stdout) == json.loads(result.stdout)
    found = json.loads(result.stdout)
    better, worse = found["results"]
    assert (better["model"], worse["model"]) == ("good", "poor")
    assert better["WR"] == pytest.approx(90)
    assert worse["LC"] is None
    said = " ".join(found["warnings"])
    assert "calibrated for gpt4_1106_preview alone" in said
    assert "not by the benchmark's own judge and prompt" in said
    assert f"{2 * COUNT} requests, 0 stored" in result.stderr


def test_an_estimate_asks_nothing(files):
    with serving() as told:
        result = judged(files, told, "--estimate", "--price", "10", "30")
        assert told.requests == []
    assert result.exit_code == 0
    assert "48 requests" in result.stderr and "USD" in result.stderr
    assert result.stdout == ""


def test_written_files_are_read_back_to_the_same_numbers(files):
    with serving(otherwise=prefers("good on", 0.8)) as told:
        result = judged(files, told, "--json", "-", "--write-files", files["written"])
    annotations = sorted(files["written"].glob("alpaca_eval/*/annotations.json"))
    assert [path.parent.name for path in annotations] == ["good", "poor"]
    again = preceptor("evaluate", *annotations, "--json", "-")
    rates = [
        {row["model"]: row["WR"] for row in json.loads(one.stdout)["results"]}
        for one in (result, again)
    ]
    assert rates[0] == pytest.approx(rates[1], abs=1e-9)
    (answers,) = read_files(
        [files["written"] / "alpaca_eval" / "good" / "model_outputs.json"]
    ).answers
    assert (answers.model, len(answers.texts)) == ("good", COUNT)


def test_a_limit_draws_the_same_questions_whatever_the_order_of_the_file(files, tmp_path):
    with serving(otherwise=prefers("good on", 0.8)) as told:
        judged(files, told, "--limit", "5")
        asked = len(told.requests)
        rows = outputs("base")[::-1]
        turned = {**files, "base": write_rows(tmp_path / "turned.jsonl", rows)}
        judged(turned, told, "--limit", "5")
        assert len(told.requests) == asked == 11


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "name a judge with --judge MODEL"),
        (["--judge", "no-such"], "No judge is called 'no-such'"),
        (["--judge", "qwen3-4", "--judge-reward-model", "x"], "Name one judge"),
    ],
)
def test_what_cannot_be_judged_is_said(files, given, said):
    result = preceptor(
        "evaluate",
        files["good"],
        "--baseline-answers",
        files["base"],
        "--store",
        files["store"],
        *given,
    )
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())


def test_the_reward_model_behind_a_prediction_may_not_check_it(
    files, tmp_path, make_model, tokenizer
):
    folder = tmp_path / "tiny-reward"
    make_model("llama", labels=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    predicted = tmp_path / "rankings.json"
    predicted.write_text(json.dumps([{"student": "s", "settings": {"reward": "tiny-reward"}}]))
    given = ["--baseline-answers", files["base"], "--store", files["store"], "--estimate"]
    given = ["evaluate", files["good"], *given, "--judge-reward-model", folder]
    refused = preceptor(*given, "--predicted", predicted)
    assert refused.exit_code == 1
    assert "it would agree with itself" in " ".join(refused.stderr.split())
    allowed = preceptor(*given)
    assert allowed.exit_code == 0, allowed.output
    assert f"by tiny-reward (reward model): {2 * COUNT} requests" in allowed.stderr


def test_a_judge_is_measured_against_ready_annotations(files, tmp_path):
    rows = [
        {
            "instruction": f"Question {n}?",
            "output_1": f"base on {n}",
            "generator_1": "base",
            "output_2": f"good on {n}{' and on' * (n % 2)}",
            "generator_2": "good",
            "preference": 1.9 if n % 3 else 1.1,
        }
        for n in range(COUNT)
    ]
    path = write_rows(tmp_path / "annotations.jsonl", rows)
    with serving(otherwise=prefers("good on", 0.8)) as told:
        given = ["--judge", "served", "--judge-url", told.url, "--store", files["store"]]
        result = preceptor("evaluate", path, "--judge-agreement", *given, "--json", "-")
        shown = preceptor("evaluate", path, "--judge-agreement", *given)
    found = json.loads(result.stdout)
    check("judge", found)
    # The judge always prefers the model: right on two of three, and no better than chance.
    assert found["agreement"]["accuracy"][0] == pytest.approx(2 / 3)
    assert found["agreement"]["kappa"][0] == pytest.approx(0)
    assert found["agreement"]["words"] == "slight"
    assert found["first_place"] == pytest.approx(0.5)
    assert found["longer_wins"]["comparisons"] == COUNT
    assert "the longer answer wins" in shown.stdout and "Landis & Koch" in shown.stdout


def test_both_ages_of_arena_hards_answers_are_read(tmp_path):
    old = {"question_id": "a", "model_id": "m", "choices": [{"turns": [{"content": "x"}]}]}
    new = {
        "uid": "a",
        "model": "m",
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": {"answer": "x"}},
        ],
    }
    plain = {"question_id": "a", "instruction": "q", "output": "x", "generator": "m"}
    for place, row in enumerate((old, new, plain)):
        (found,) = read_files([write_rows(tmp_path / f"{place}.jsonl", [row])]).answers
        assert (found.benchmark, found.model, dict(found.texts)) == ("arena_hard", "m", {"a": "x"})
    empty = write_rows(tmp_path / "none.jsonl", [{**plain, "output": None}])
    assert not read_files([empty]).answers[0].texts
    twice = write_rows(tmp_path / "twice.jsonl", [plain, plain])
    with pytest.raises(DataError, match="answers 'a' twice"):
        read_files([twice])


def test_arena_hard_is_judged_by_games_and_needs_no_questions_where_answers_hold_them(tmp_path):
    rows = [
        {"question_id": f"q{n}", "instruction": f"P{n}", "output": f"m {n}", "generator": "m"}
        for n in range(4)
    ]
    base = [{**row, "output": f"b {n}", "generator": "base"} for n, row in enumerate(rows)]
    given = [write_rows(tmp_path / "m.jsonl", rows)]
    given += ["--baseline-answers", write_rows(tmp_path / "b.jsonl", base)]
    with serving(otherwise=answer("[[A>B]]")) as told:
        given += ["--judge", "served", "--judge-url", told.url, "--store", tmp_path / "store"]
        result = preceptor("evaluate", *given, "--json", "-")
        assert len(told.requests) == 8
    (row,) = json.loads(result.stdout)["results"]
    assert (row["AH"], row["arena_hard_judge"]) == (50.0, "served (preceptor game 1)")


@needs_data
def test_the_shared_files_are_read_as_answers_baselines_and_questions():
    (answers,) = read_files([DATA / "zoo" / "Gemma-2-2b-it.jsonl"]).answers
    assert len(answers.texts) == 250
    local = ArenaHard(arena_questions=DATA / "arena_hard" / "question.jsonl")
    found = local.questions(baseline=answers, answers=[answers])
    assert len(found.instructions) == 250
    baseline = read_baseline(DATA / "alpaca_eval2" / "annotations_claude-2.1.json")
    assert (baseline.model, len(baseline.texts)) == ("gpt4_1106_preview", 805)
    (judged_before,) = read_files([DATA / "zoo_judged" / "claude-2.1.json"]).answers
    assert set(judged_before.texts) <= set(baseline.texts)


def test_a_killed_run_goes_on_where_it_was(files):
    struck = threading.Event()

    def until_struck(handler: Any, request: dict[str, Any]) -> None:
        # The tenth is answered only after the kill, however slowly that comes.
        if len(told.requests) >= 10:
            struck.wait(PATIENCE)
        prefers("good on", 0.9)(handler, request)

    with serving(otherwise=until_struck) as told:
        given = ["evaluate", files["good"], "--baseline-answers", files["base"]]
        given += ["--judge", "served", "--judge-url", told.url, "--store", files["store"]]
        given += ["--judge-concurrency", "1", "--json", "-"]
        running = start(*given)
        while len(told.requests) < 10:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.kill()
        running.communicate()
        struck.set()
        before = [json.dumps(request["messages"]) for request in told.requests]
        result = preceptor(*given)
        assert result.exit_code == 0, result.output
        asked = [json.dumps(request["messages"]) for request in told.requests]
    # Only the one request that was in flight when the process died is asked a second time.
    assert len(set(asked)) == COUNT + 1
    assert len(asked) - len(set(asked)) <= 1
    assert len(asked) > len(before) >= 10
    assert json.loads(result.stdout)["results"][0]["WR"] == pytest.approx(90)
