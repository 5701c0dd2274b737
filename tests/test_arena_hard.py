"""Arena-Hard: verdicts to battles, battles to scores, and how sure the scores are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from preceptor.benchmarks.arena_hard.score import (
    PromptBattles,
    arena_hard_score,
    battles_of,
    bootstrap_battles,
    bootstrap_prompts,
    evaluate_arena_hard,
)
from preceptor.benchmarks.files import read_files
from preceptor.benchmarks.registry import benchmarks
from preceptor.benchmarks.written_judge import verdict_in
from preceptor.errors import DataError, StudyError
from small_study import write_rows

DATA = Path(__file__).parents[2] / "shared" / "data" / "arena_hard"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")

BASELINE = "gpt-4-0314"


def judgement(prompt: str, *scores: str | None, model: str = "ours", **more: object) -> dict:
    games = [{"score": score, "judgment": "..."} for score in scores]
    return {"question_id": prompt, "model": model, "judge": "j", "games": games} | more


def only(path: Path, **options: str) -> PromptBattles:
    (battles,) = read_files([path], benchmarks(options)).verdicts["arena_hard"]
    return battles


def totals(battles: PromptBattles) -> tuple[float, float, float]:
    return battles.won.sum(), battles.tied.sum(), battles.lost.sum()


counts = st.lists(st.integers(0, 6).map(float), min_size=3, max_size=3)


@given(st.lists(counts.filter(any), min_size=1, max_size=8))
def test_the_score_is_the_maximum_of_the_bradley_terry_likelihood(rows):
    won, tied, lost = np.array(rows).T
    points = won.sum() + tied.sum() / 2
    rest = lost.sum() + tied.sum() / 2
    if not (points and rest):
        assert arena_hard_score(won, tied, lost) == (100 if points else 0)
        return
    # A tie is a win and a loss of half a battle each, as the published fit has it.
    found = minimize(
        lambda rating: points * np.logaddexp(0, -rating[0]) + rest * np.logaddexp(0, rating[0]),
        [0.0],
        tol=1e-12,
    )
    expected = 100 / (1 + np.exp(-found.x[0]))
    assert arena_hard_score(won, tied, lost) == pytest.approx(expected, abs=1e-3)


def test_a_score_of_no_battle_is_not_a_number():
    nothing = np.zeros(3)
    assert np.isnan(arena_hard_score(nothing, nothing, nothing))


@pytest.mark.parametrize(
    ("verdict", "second", "first"),
    [
        ("A>>B", (0, 0, 3), (3, 0, 0)),
        ("A>B", (0, 0, 1), (1, 0, 0)),
        ("A=B", (0, 1, 0), (0, 1, 0)),
        ("B>A", (1, 0, 0), (0, 0, 1)),
        ("B>>A", (3, 0, 0), (0, 0, 3)),
    ],
)
def test_a_verdict_counts_for_whoever_was_shown_there(verdict, second, first):
    assert battles_of(verdict, model_first=False) == second
    assert battles_of(verdict, model_first=True) == first


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("My final verdict is: [[A>>B]]", "A>>B"),
        ("[[A=B]] ... so again [[A=B]].", "A=B"),
        ("[[A>B]] or rather [[B>A]]", None),
        ("A>B", None),
        ("[[C>A]]", None),
        ("", None),
        ("[[" * 100_000, None),
    ],
)
def test_a_judges_text_has_a_verdict_if_it_states_exactly_one(text, verdict):
    assert verdict_in(text) == verdict


def test_games_are_read_with_the_order_swapped_in_the_second(tmp_path):
    rows = [judgement("p1", "A>>B", "A>B"), judgement("p2", "B>A", "A=B")]
    battles = only(write_rows(tmp_path / "j.jsonl", rows))
    assert battles.prompts == ("p1", "p2")
    assert battles.won.tolist() == [1, 1]
    assert battles.tied.tolist() == [0, 1]
    assert battles.lost.tolist() == [3, 0]
    assert (battles.verdicts, battles.judge, battles.dropped) == (4, "j", {})


def test_a_game_without_a_verdict_is_counted_and_gives_no_points(tmp_path):
    rows = [judgement("p1", "B>A", None), judgement("p2", "error", "A>>>B"), judgement("p3", "A=B")]
    battles = only(write_rows(tmp_path / "j.jsonl", rows))
    assert totals(battles) == (1, 1, 0)
    assert battles.prompts == ("p1", "p3")
    assert (battles.verdicts, battles.dropped) == (2, {"games without a verdict": 4})
    result = evaluate_arena_hard(battles)
    assert result.missing == pytest.approx(1 - 2 / 1000)
    assert "4 games without a verdict" in " ".join(result.warnings)


def test_a_missing_score_is_sought_in_the_judges_text(tmp_path):
    row = judgement("p1", None, None)
    row["games"][0]["judgment"] = "I choose [[B>>A]]"
    row["games"][1]["score"] = ["A>B"]  # of another kind: no verdict
    battles = only(write_rows(tmp_path / "j.jsonl", [row]))
    assert totals(battles) == (3, 0, 0)


def test_battles_count_for_the_model_on_either_side(tmp_path):
    def battle(prompt, first, second, winner):
        return {"question_id": prompt, "model_a": first, "model_b": second, "winner": winner}

    rows = [
        battle("p1", BASELINE, "ours", "model_b"),
        battle("p1", "ours", BASELINE, "model_a"),
        battle("p1", "ours", BASELINE, "model_b"),
        battle("p2", BASELINE, "ours", "tie (bothbad)"),
        battle("p2", BASELINE, "ours", None),
    ]
    battles = only(write_rows(tmp_path / "b.jsonl", rows))
    assert totals(battles) == (2, 1, 1)
    assert battles.dropped == {"battles without a winner": 1}
    assert battles.verdicts is None
    assert arena_hard_score(*(getattr(battles, n) for n in ("won", "tied", "lost"))) == 62.5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([judgement("p", "A=B", "A=B")] * 2, "judged twice on the prompt 'p'"),
        ([judgement("p", "A=B"), judgement("q", "A=B", judge="k")], "different judges: j, k"),
        ([judgement("p", *["A=B"] * 3)], "at most 2 games"),
        ([judgement("p") | {"games": None}], "games"),
        ([judgement("p") | {"question_id": 3}], "no text in 'question_id'"),
        (
            [{"question_id": "p", "model_a": BASELINE, "model_b": "m", "winner": "tie"}] * 7,
            "7 battles on the prompt 'p'",
        ),
        (
            [{"question_id": "p", "model_a": "gpt-4-0613", "model_b": "m", "winner": "tie"}],
            "not one model against the baseline 'gpt-4-0314'",
        ),
    ],
)
def test_what_would_count_wrongly_is_refused(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        read_files([write_rows(tmp_path / "rows.jsonl", rows)])


def test_another_baseline_can_be_named(tmp_path):
    rows = [{"question_id": "p", "model_a": "b", "model_b": "m", "winner": "model_b"}]
    found = only(write_rows(tmp_path / "b.jsonl", rows), baseline="b")
    assert found.model == "m"
    said = " ".join(evaluate_arena_hard(found).warnings)
    assert "The baseline of Arena-Hard v0.1 is gpt-4-0314, here it is b" in said


def made(prompts: int, *, seed: int = 5, model: str = "ours") -> PromptBattles:
    rng = np.random.default_rng(seed)
    # The games of a prompt agree more than those of different prompts, as judges' do.
    chance = rng.beta(0.4, 0.6, size=prompts)
    won = rng.binomial(6, chance).astype(float)
    names = tuple(f"p{place:03}" for place in range(prompts))
    return PromptBattles(model, BASELINE, names, won, np.zeros(prompts), 6 - won)


def test_the_interval_over_prompts_is_wider_than_the_published_kind():
    result = evaluate_arena_hard(made(500))
    width = result.measures["AH"].high - result.measures["AH"].low
    assert width > 1.5 * (result.facts["AH_published_high"] - result.facts["AH_published_low"])
    assert result.measures["AH"].low < result.measures["AH"].value < result.measures["AH"].high
    assert (result.n, result.missing, result.warnings) == (500, 0, ())


def test_the_bootstrap_over_prompts_has_the_standard_error_of_a_ratio():
    battles = made(400)
    rng = np.random.default_rng(0)
    draws = bootstrap_prompts(battles.won, battles.tied, battles.lost, draws=4000, rng=rng)
    # With equal battles per prompt the score is a mean over prompts.
    expected = 100 * np.std(battles.won / 6) / 400**0.5
    assert draws.std() == pytest.approx(expected, rel=0.05)


def test_the_bootstrap_over_battles_has_the_binomial_standard_error():
    battles = made(400)
    rng = np.random.default_rng(0)
    draws = bootstrap_battles(battles.won, battles.tied, battles.lost, draws=4000, rng=rng)
    share = battles.won.sum() / 2400
    assert draws.std() == pytest.approx(100 * (share * (1 - share) / 2400) ** 0.5, rel=0.05)


def test_the_order_of_prompts_changes_nothing():
    one = made(50)
    turned = PromptBattles(
        one.model, BASELINE, one.prompts[::-1], one.won[::-1], one.tied[::-1], one.lost[::-1]
    )
    assert np.array_equal(
        evaluate_arena_hard(one).draws["AH"], evaluate_arena_hard(turned).draws["AH"]
    )


def test_a_model_without_a_battle_is_an_error():
    none = PromptBattles("ours", BASELINE, (), *[np.zeros(0)] * 3)
    with pytest.raises(StudyError, match="no battle against 'gpt-4-0314'"):
        evaluate_arena_hard(none)


PUBLISHED = {
    # The benchmark's leaderboard of 2024-07-31.
    "gpt-4-0613": 37.90,
    "gpt-3.5-turbo-0125": 23.34,
    # Published scores of four fine-tuned Llama-3-8B bases.
    "Llama-3-Base-8B-SFT-Ultrachat": 3.16,
    "Llama-3-Base-8B-IPO-UltraFeedback": 9.14,
    "Llama-3-Base-8B-DPO-UltraFeedback": 10.75,
    "Llama-3-Base-8B-TR_DPO-Alpha_0.6-UltraFeedback": 17.37,
}


@needs_data
def test_published_scores_come_out_to_two_decimals():
    files = [DATA / "battles_official.jsonl", DATA / "battles_llama3_base.jsonl"]
    # Both files hold the two official models, which are taken once.
    battles = {
        one.model: one for one in read_files(files, judged_by=["gpt-4-1106"]).verdicts["arena_hard"]
    }
    for model, score in PUBLISHED.items():
        assert round(evaluate_arena_hard(battles[model], draws=2).measures["AH"].value, 2) == score


@needs_data
def test_the_intervals_of_gpt_4_0613_are_those_known():
    judged = read_files([DATA / "battles_official.jsonl"]).verdicts["arena_hard"]
    result = next(evaluate_arena_hard(one) for one in judged if one.model == "gpt-4-0613")
    # Over prompts: [34.0, 41.6], from an independent bootstrap of the same battles.
    assert result.measures["AH"].low == pytest.approx(34.0, abs=0.5)
    assert result.measures["AH"].high == pytest.approx(41.6, abs=0.5)
    # The leaderboard of 2024-07-31, from 100 resamples of battles: [35.60, 40.36].
    assert result.facts["AH_published_low"] == pytest.approx(35.60, abs=0.5)
    assert result.facts["AH_published_high"] == pytest.approx(40.36, abs=0.5)
