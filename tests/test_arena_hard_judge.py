"""Arena-Hard with any judge: two games, one retry, verdicts from the text; or a choice of letters."""

import json
from typing import Any

import numpy as np
import pytest

from chat_server import Handler, Told, answer, completion, refuse, serving
from preceptor.benchmarks.arena_hard.benchmark import ArenaHard
from preceptor.benchmarks.arena_hard.score import evaluate_arena_hard
from preceptor.benchmarks.files import read_files
from preceptor.benchmarks.judge_prompts import GAME_AGAIN
from preceptor.benchmarks.observed import observed_ranking
from preceptor.benchmarks.pairwise import ChoiceJudge, local_model, served_model
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.rows import file_name
from preceptor.benchmarks.written_judge import WrittenJudge
from preceptor.config.finetune import ChatJudge
from preceptor.config.runtime import Endpoint
from preceptor.errors import StudyError
from preceptor.store.store import Store
from test_pairwise import prefers

PROMPTS = 6


def arena(count: int = PROMPTS) -> QuestionSet:
    texts = {f"id{place}": f"Prompt {place}" for place in range(count)}
    return QuestionSet.of(
        texts, Answers("arena_hard", "base", {key: f"base {key}" for key in texts})
    )


def answers_of(model: str, count: int = PROMPTS) -> Answers:
    return Answers(
        "arena_hard", model, {f"id{place}": f"{model} says {place}" for place in range(count)}
    )


def endpoint(told: Told) -> Endpoint:
    return Endpoint(url=told.url, timeout_s=5.0, patience_s=0.5, concurrency=1)


def game_judge(told: Told) -> WrittenJudge:
    return WrittenJudge(
        served_model("served", endpoint(told), max_tokens=500, log_probabilities=False)
    )


def much_better(text: str) -> Any:
    """Write that the answer that holds the text is much better."""

    def step(handler: Handler, request: dict[str, Any]) -> None:
        first = text in request["messages"][1]["content"].split("The answer of assistant B")[0]
        handler.send(200, completion(f"Mine: 4. [[{'A>>B' if first else 'B>>A'}]]"), {})

    return step


def test_a_model_that_wins_both_games_of_each_prompt_has_a_full_score(tmp_path):
    with serving(otherwise=much_better("good says")) as told:
        both = [answers_of("good"), answers_of("poor")]
        judged = ArenaHard().judge(both[:1], arena(), game_judge(told), Store(tmp_path))
    (battles,) = judged.verdicts
    assert list(battles.won) == [6.0] * PROMPTS  # two games, three battles each
    assert evaluate_arena_hard(battles, draws=20).measures["AH"].value == 100
    assert len(told.requests) == 2 * PROMPTS
    assert {request["temperature"] for request in told.requests} == {0}


def test_the_first_game_shows_the_baseline_first_and_the_second_swaps(tmp_path):
    with serving(otherwise=answer("[[A>B]]")) as told:
        judged = ArenaHard().judge([answers_of("m")], arena(1), game_judge(told), Store(tmp_path))
    shown = [request["messages"][1]["content"] for request in told.requests]
    # Both games are asked at once, and either may come first.
    firsts = sorted(text.index("m says 0") < text.index("base id0") for text in shown)
    assert firsts == [False, True]
    games = judged.rows[0]["games"]
    assert games[0]["user_prompt"].index("base id0") < games[0]["user_prompt"].index("m says 0")
    (battles,) = judged.verdicts
    assert (battles.won[0], battles.lost[0]) == (1, 1)  # whoever is A wins: one game each


def test_a_judgement_without_a_verdict_is_asked_once_for_it(tmp_path):
    store = Store(tmp_path)
    with serving(answer("I need to think."), otherwise=answer("so: [[A=B]]")) as told:
        judge = game_judge(told)
        judged = ArenaHard().judge([answers_of("m")], arena(1), judge, store)
        assert len(told.requests) == 3
        # Both games are asked at once: the one that came first got no verdict.
        (again,) = (one["messages"] for one in told.requests if len(one["messages"]) > 2)
        assert [turn["role"] for turn in again] == ["system", "user", "assistant", "user"]
        assert (again[2]["content"], again[3]["content"]) == ("I need to think.", GAME_AGAIN)
        ArenaHard().judge([answers_of("m")], arena(1), judge, store)
        assert len(told.requests) == 3  # the retry is stored like any call
    games = sorted(judged.rows[0]["games"], key=lambda game: len(game["judgment"]))
    assert games[1] == {
        "user_prompt": again[1]["content"],
        "judgment": "I need to think.\nso: [[A=B]]",
        "score": "A=B",
    }
    assert games[0]["judgment"] == "so: [[A=B]]"


def test_several_different_verdicts_are_none_and_are_not_asked_again(tmp_path):
    with (
        serving(answer("[[A>B]] no, [[B>A]]"), otherwise=answer("[[A>B]]")) as told,
        pytest.raises(StudyError, match=r"1 of 12 .*1 without one verdict"),
    ):
        ArenaHard().judge([answers_of("m")], arena(), game_judge(told), Store(tmp_path))
    assert len(told.requests) == 2 * PROMPTS


def test_a_verdict_within_a_judges_thoughts_is_none(tmp_path):
    said = "<think>Is it [[A>>B]]? No.</think>\n[[A=B]]"
    with serving(otherwise=answer(said)) as told:
        judged = ArenaHard().judge([answers_of("m")], arena(1), game_judge(told), Store(tmp_path))
    assert [game["score"] for game in judged.rows[0]["games"]] == ["A=B", "A=B"]
    assert len(told.requests) == 2


def test_a_game_that_failed_is_asked_again_alone(tmp_path):
    store = Store(tmp_path)
    with serving(
        answer("[[A>B]]"), refuse(400, "content_filter"), otherwise=answer("[[A=B]]")
    ) as told:
        with pytest.raises(StudyError, match="1 unanswered: content filter"):
            ArenaHard().judge([answers_of("m")], arena(), game_judge(told), store)
        asked = len(told.requests)
        ArenaHard().judge([answers_of("m")], arena(), game_judge(told), store)
    assert len(told.requests) == asked + 1


def test_a_model_run_here_cannot_write_judgements(model_folder):
    with pytest.raises(StudyError, match="Use --verdict-by-letter"):
        WrittenJudge(local_model(ChatJudge(model=str(model_folder))))


def test_by_choice_each_game_is_won_by_its_probability_and_the_judge_says_so(tmp_path):
    with serving(otherwise=prefers("m says", 0.8)) as told:
        judge = ChoiceJudge(served_model("served", endpoint(told)))
        judged = ArenaHard().judge([answers_of("m")], arena(), judge, Store(tmp_path))
    (battles,) = judged.verdicts
    assert battles.won == pytest.approx(1.6)
    assert battles.won + battles.lost == pytest.approx(2.0)
    assert battles.judge is not None and battles.judge.endswith("by choice")
    assert evaluate_arena_hard(battles, draws=20).measures["AH"].value == pytest.approx(80)
    assert ArenaHard().write(tmp_path / "files", [], judged) == []


def test_what_is_written_is_read_back_to_the_same_battles(tmp_path):
    with serving(otherwise=much_better("good says")) as told:
        judge = game_judge(told)
        both = [answers_of("good"), answers_of("../poor")]
        judged = ArenaHard().judge(both, arena(), judge, Store(tmp_path / "store"))
    paths = ArenaHard().write(tmp_path / "files", [], judged)
    assert all(path.is_relative_to(tmp_path / "files" / "arena_hard") for path in paths)
    read = {
        one.model: one
        for one in read_files(paths, {"arena_hard": ArenaHard(baseline="base")}).verdicts[
            "arena_hard"
        ]
    }
    for battles in judged.verdicts:
        assert np.array_equal(read[battles.model].won, battles.won)
        assert np.array_equal(read[battles.model].lost, battles.lost)
    (path, _) = ArenaHard().write(tmp_path / "files", both)
    row = json.loads(path.read_text().splitlines()[0])
    assert {"question_id", "answer_id", "model_id", "choices", "tstamp"} == set(row)


def test_a_file_name_never_leaves_its_folder():
    assert file_name("gemma-2b.v1") == "gemma-2b.v1"
    for name in ("../../etc/x", "..", ".hidden", "a/b", "", "\x00", "a" * 500):
        safe = file_name(name)
        assert "/" not in safe and not safe.startswith(".") and 0 < len(safe) < 100
    assert file_name("a/b") != file_name("a_b")


def test_the_cost_counts_two_games_for_each_prompt(tmp_path):
    with serving() as told:
        cost = ArenaHard().cost([answers_of("m")], arena(), game_judge(told), Store(tmp_path))
    assert (cost.requests, cost.answer_tokens, cost.price) == (12, 12 * 500, None)
    assert told.requests == []


def test_observed_students_are_ranked_like_predicted_teachers(tmp_path):
    with serving(otherwise=much_better("good says")) as told:
        both = [answers_of("good"), answers_of("poor")]
        store = Store(tmp_path)
        wins = ArenaHard().judge(both[:1], arena(), game_judge(told), store)
        told.otherwise = answer("[[A>B]]")
        rest = ArenaHard().judge(both[1:], arena(), game_judge(told), store)
    ranking = observed_ranking(
        [*rest.verdicts, *wins.verdicts], student="gemma", names={"good": "Qwen"}
    )
    assert [(one.teacher, one.rank) for one in ranking.teachers] == [("Qwen", 1), ("poor", 2)]
    assert ranking.teachers[0].p_best == 1.0
    # Weighted battles, as the benchmark's own score: 36 of 36, and 6 of 12.
    assert [one.estimates["win_rate"].value for one in ranking.teachers] == [100.0, 50.0]
    assert ranking.settings["judge"] == "served (preceptor game 1)"


def test_verdicts_of_different_judges_are_not_ranked_together(tmp_path):
    with serving(otherwise=answer("[[A>B]]")) as told:
        one = ArenaHard().judge([answers_of("a")], arena(), game_judge(told), Store(tmp_path))
        other = WrittenJudge(served_model("other", endpoint(told), log_probabilities=False))
        two = ArenaHard().judge([answers_of("b")], arena(), other, Store(tmp_path))
    with pytest.raises(StudyError, match="more than one judge"):
        observed_ranking([*one.verdicts, *two.verdicts], student="gemma")
