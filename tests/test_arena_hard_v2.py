"""Arena-Hard v2.0 and MT-Bench: ready judgements, recomputed by the few lines of their own tools."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from preceptor.benchmarks.files import read_files
from preceptor.benchmarks.registry import benchmark_named
from preceptor.errors import DataError, StudyError

POINTS: dict[str, list[float]] = {
    "A>B": [1],
    "A>>B": [1, 1, 1],
    "A=B": [0.5],
    "A<<B": [0, 0, 0],
    "A<B": [0],
    "B>A": [0],
    "B>>A": [0, 0, 0],
    "B=A": [0.5],
    "B<<A": [1, 1, 1],
    "B<A": [1],
}
"""What a label gives answer A, by battle."""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judgement(uid: str, category: str, *scores: str | None, **more: Any) -> dict[str, Any]:
    games = [{"score": score, "judgment": {"answer": "..."}, "prompt": []} for score in scores]
    row = {"uid": uid, "category": category, "judge": "gpt-4.1", "model": "ours", "games": games}
    return row | {"baseline": "o3-mini-2025-01-31"} | more


def judgements(seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    labels = [*POINTS, None]
    return [
        judgement(f"{place:016x}", category, draw.choice(labels), draw.choice(labels), **named)
        for place in range(60)
        for category, named in [
            ("hard_prompt", {})
            if place % 3
            else ("creative_writing", {"baseline": "gemini-2.0-flash-001"})
        ]
    ]


def score_of(rows: list[dict[str, Any]], category: str) -> float:
    """Return the mean over battles, as the benchmark's tool has it."""
    points: list[float] = []
    for row in rows:
        first, second = (game["score"] for game in row["games"])
        if row["category"] == category and first and second:
            points += POINTS[second] + [1 - one for one in POINTS[first]]
    return 100 * sum(points) / len(points)


def result_of(path: Path, name: str) -> Any:
    benchmark = benchmark_named(name)
    (one,) = benchmark.score(read_files([path]).verdicts[name]).results
    return one


def test_both_categories_of_a_file_are_scored_as_the_benchmarks_tool_scores_them(tmp_path: Path):
    rows = judgements()
    path = write(tmp_path / "ours.jsonl", rows)
    hard, creative = (result_of(path, name) for name in ("arena_hard_v2", "arena_hard_v2_creative"))
    assert hard.measures["AH2"].value == pytest.approx(score_of(rows, "hard_prompt"))
    assert creative.measures["AH2_creative"].value == pytest.approx(
        score_of(rows, "creative_writing")
    )
    assert hard.measures["AH2"].low < hard.measures["AH2"].value < hard.measures["AH2"].high
    halves = sum(
        row["category"] == "hard_prompt" and None in [game["score"] for game in row["games"]]
        for row in rows
    )
    assert halves and f"{halves} prompts with a game without a verdict" in " ".join(hard.warnings)
    assert f"{40 - halves} of Arena-Hard v2.0's 500 prompts" in " ".join(hard.warnings)
    assert "baseline" not in " ".join((*hard.warnings, *creative.warnings))
    assert hard.missing == pytest.approx(1 - (40 - halves) / 500)


def test_a_missing_label_is_sought_in_the_judges_answer(tmp_path: Path):
    row = judgement("0" * 16, "hard_prompt", None, "A=B")
    row["games"][0]["judgment"]["answer"] = "My final verdict is: [[B>>A]]"
    assert result_of(write(tmp_path / "j.jsonl", [row]), "arena_hard_v2").measures[
        "AH2"
    ].value == pytest.approx(100 * 3.5 / 4)


def test_another_baseline_than_the_categorys_is_said(tmp_path: Path):
    rows = [judgement("0" * 16, "hard_prompt", "A=B", "A=B", baseline="gpt-4-0314")]
    (warning,) = [
        one
        for one in result_of(write(tmp_path / "j.jsonl", rows), "arena_hard_v2").warnings
        if "baseline" in one
    ]
    assert "is o3-mini-2025-01-31, here it is gpt-4-0314" in warning


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([judgement("a", "hard_prompt", "A=B", "A=B") | {"category": None}], "'category'"),
        ([judgement("a", "hard_prompt", "A=B", "A=B")] * 2, "judged twice"),
        (
            [
                judgement("a", "hard_prompt", "A=B", "A=B"),
                judgement("b", "hard_prompt", "A=B", "A=B", baseline="another"),
            ],
            "different baselines: another, o3-mini",
        ),
        ([judgement("a", "unknown", "A=B", "A=B")], "neither answers nor judgements"),
    ],
)
def test_what_would_count_wrongly_is_refused(tmp_path: Path, rows: list[Any], said: str):
    with pytest.raises(DataError, match=said):
        read_files([write(tmp_path / "j.jsonl", rows)])


def test_answers_are_told_apart_by_the_ids_of_their_prompts(tmp_path: Path):
    def answer(uid: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": "q"}]
        turns.append({"role": "assistant", "content": {"answer": "a"}})  # type: ignore[dict-item]
        return {"uid": uid, "model": "ours", "messages": turns}

    old = read_files([write(tmp_path / "old.jsonl", [answer("0" * 32)])]).answers
    new = read_files([write(tmp_path / "new.jsonl", [answer("0" * 16)])]).answers
    assert [one.benchmark for one in old] == ["arena_hard"]
    assert [one.benchmark for one in new] == ["arena_hard_v2", "arena_hard_v2_creative"]


def mark(question: int, turn: int, score: float, **more: Any) -> dict[str, Any]:
    prompt = "single-math-v1" if question % 4 == 0 else "single-v1"
    row = {"question_id": question, "model": "ours", "judge": ["gpt-4", prompt], "judgment": "..."}
    return row | {"user_prompt": "...", "score": score, "turn": turn, "tstamp": 0.0} | more


def marks(seed: int = 1) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        mark(question, turn, draw.choice([-1, *range(1, 11), 7.5]))
        for question in range(81, 161)
        for turn in (1, 2)
    ]


def test_marks_are_averaged_as_the_benchmarks_tool_averages_them(tmp_path: Path):
    rows = marks()
    result = result_of(write(tmp_path / "gpt-4_single.jsonl", rows), "mt_bench")
    for name, turns in {"MT": (1, 2), "MT_1": (1,), "MT_2": (2,)}.items():
        kept = [row["score"] for row in rows if row["score"] != -1 and row["turn"] in turns]
        assert result.measures[name].value == pytest.approx(sum(kept) / len(kept))
        assert result.measures[name].low < result.measures[name].value < result.measures[name].high
    lost = sum(row["score"] == -1 for row in rows)
    assert result.judge == "gpt-4" and lost
    assert result.missing == pytest.approx(lost / 160)
    assert f"{lost} answers without a mark" in " ".join(result.warnings)


def test_the_interval_of_marks_is_that_of_questions_not_of_single_marks(tmp_path: Path):
    # Both turns of a question have one mark: over questions the error is that of 80 values, not of 160.
    draw = random.Random(2)
    given = {question: draw.randint(1, 10) for question in range(81, 161)}
    rows = [mark(question, turn, score) for question, score in given.items() for turn in (1, 2)]
    found = result_of(write(tmp_path / "m.jsonl", rows), "mt_bench").measures["MT"]
    mean = sum(given.values()) / 80
    error = (sum((score - mean) ** 2 for score in given.values()) / 80 / 80) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([mark(81, 1, 5), mark(81, 1, 6)], "marked twice on question 81, turn 1"),
        ([mark(81, 1, -1), mark(81, 1, 6)], "marked twice on question 81, turn 1"),
        ([mark(81, 3, 5)], "turn 3"),
        ([mark(81, 1, 11)], "mark 11"),
        ([mark(81, 1, 5) | {"score": "9"}], "mark '9'"),
        ([mark(81, 1, 5, question_id=None)], "'question_id'"),
        ([mark(81, 1, 5), mark(81, 2, 5, judge=["gpt-4o", "single-v1"])], "different judges"),
    ],
)
def test_marks_that_cannot_be_are_refused(tmp_path: Path, rows: list[Any], said: str):
    with pytest.raises(DataError, match=said):
        read_files([write(tmp_path / "m.jsonl", rows)])


def test_a_model_without_a_mark_and_a_judge_of_two_turns_are_refused(tmp_path: Path):
    path = write(tmp_path / "m.jsonl", [mark(81, 1, -1)])
    with pytest.raises(StudyError, match="no mark"):
        result_of(path, "mt_bench")
    with pytest.raises(StudyError, match="two turns"):
        benchmark_named("mt_bench").questions()
