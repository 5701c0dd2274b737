"""AlpacaEval 2: verdicts to win rates, with and without length control."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preceptor.benchmarks.alpaca_eval.calibration import read_calibration
from preceptor.benchmarks.alpaca_eval.length_control import (
    Calibration,
    JudgedLengths,
    LengthWeights,
    controlled_rate,
    fit_control,
    length_terms,
)
from preceptor.benchmarks.alpaca_eval.logistic import fit_logistic, sigmoid
from preceptor.benchmarks.alpaca_eval.score import (
    Preferences,
    evaluate_alpaca_eval,
    judged_win,
    win_of,
    win_rate,
    win_rate_error,
)
from preceptor.benchmarks.comparisons import was_switched
from preceptor.benchmarks.files import read_files
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means

DATA = Path(__file__).parents[2] / "shared" / "data" / "alpaca_eval2"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")


def test_a_win_is_the_share_of_the_models_label():
    switched = next(text for text in map(str, range(100)) if was_switched(text))
    kept = next(text for text in map(str, range(100)) if not was_switched(text))
    logprobs = {"m": math.log(0.2), "M": math.log(0.6), "The": math.log(0.2)}
    assert judged_win(kept, logprobs) == pytest.approx(0.75)
    assert judged_win(switched, logprobs) == pytest.approx(0.25)
    assert judged_win(kept, {"M": -0.5}) == 1
    assert judged_win(kept, {"m": -0.5}) == 0


def test_a_judge_who_names_neither_answer_gives_no_verdict():
    assert judged_win("x", {"Both": -0.1}) is None
    assert judged_win("x", {}) is None
    assert judged_win("x", {"m": -5000.0}) is None


def test_the_order_can_be_drawn_for_any_text():
    # A lone surrogate cannot be encoded as UTF-8.
    assert was_switched("\ud800") in (True, False)


@pytest.mark.parametrize(
    ("stored", "win"),
    [(0, 0.5), (1, 0), (1.5, 0.5), (2, 1), (2.5, None), (-1, None), (0.5, None), (math.nan, None)],
)
def test_only_a_preference_from_1_to_2_or_a_tie_is_a_verdict(stored, win):
    assert win_of(stored) == win


def test_the_win_rate_and_its_standard_error():
    wins = np.array([1.0, 0.0, 0.5, 0.5])
    assert win_rate(wins) == 50
    assert win_rate_error(wins) == pytest.approx(100 * math.sqrt(1 / 6) / 2)
    assert math.isnan(win_rate_error(wins[:1]))


def test_the_length_term_is_positive_where_the_baseline_is_longer():
    terms = length_terms(np.array([10.0, 30.0, 20.0]), np.array([20.0, 20.0, 20.0]))
    assert terms == pytest.approx([math.tanh(1), math.tanh(-1), 0])
    assert not length_terms(np.ones(3), np.ones(3)).any()


def test_counts_stand_for_repeated_rows():
    model, baseline = np.array([10.0, 30.0, 25.0]), np.full(3, 20.0)
    counts = np.array([2, 1, 0])
    repeated = length_terms(np.repeat(model, counts), np.repeat(baseline, counts))
    assert length_terms(model, baseline, counts)[:2] == pytest.approx(repeated[1:])


def test_lengths_without_spread_are_refused():
    with pytest.raises(StudyError, match="by the same 5 characters"):
        length_terms(np.full(3, 10.0), np.full(3, 15.0))


def made(
    n: int = 300, *, quality: float = -0.8, length: float = -1.5, seed: int = 8
) -> tuple[Preferences, Calibration]:
    """Verdicts drawn from the regression itself, and a calibration in accord with it."""
    rng = np.random.default_rng(seed)
    gamma = rng.normal(size=n)
    lengths, baseline = rng.gamma(3, 200, size=n).round(), rng.gamma(4, 400, size=n).round()
    terms = length_terms(lengths, baseline)
    chances = sigmoid(length * terms + 0.9 * gamma + quality)
    wins = rng.beta(8 * chances, 8 * (1 - chances))
    gamed_terms = np.column_stack([np.tanh(rng.normal(size=2 * n)), np.tile(gamma, 2)])
    gamed_wins = sigmoid(gamed_terms @ [length, 0.9])
    names = tuple(f"instruction {place:04}" for place in range(n))
    known = dict(enumerate(gamma)) | dict(zip(names, gamma, strict=True))
    return Preferences("ours", names, wins, lengths, baseline), Calibration(
        known, gamed_terms, gamed_wins
    )


def rows_of(preferences: Preferences, calibration: Calibration) -> JudgedLengths:
    gamma = np.array([calibration.difficulty[one] for one in preferences.instructions])
    return JudgedLengths(preferences.wins, preferences.lengths, preferences.baseline_lengths, gamma)


def test_the_weights_that_made_the_verdicts_are_found_again():
    preferences, calibration = made(2000)
    control = fit_control(rows_of(preferences, calibration), calibration)
    assert control.weights == pytest.approx((-1.5, 0.9, -0.8), abs=0.1)
    gamma = rows_of(preferences, calibration).difficulty
    true = 100 * sigmoid(0.9 * gamma - 0.8).mean()
    assert control.rate == pytest.approx(true, abs=1)


def test_short_answers_win_more_under_length_control_and_long_ones_less():
    preferences, calibration = made()
    result = evaluate_alpaca_eval(preferences, calibration, draws=2)
    assert result.measures["LC"].value > result.measures["WR"].value + 5
    assert any("Length control moves the win rate" in said for said in result.warnings)
    swapped = Preferences(
        "baseline",
        preferences.instructions,
        1 - preferences.wins,
        preferences.baseline_lengths,
        preferences.lengths,
    )
    result = evaluate_alpaca_eval(swapped, calibration, draws=2)
    assert result.measures["LC"].value < result.measures["WR"].value


def test_the_controlled_rate_is_the_mean_over_instructions():
    gamma = np.array([0.0, 1.0])
    weights = LengthWeights(length=9.0, difficulty=2.0, model=-1.0)
    expected = 100 * (1 / (1 + math.e) + math.e / (1 + math.e)) / 2
    assert controlled_rate(weights, gamma) == pytest.approx(expected)
    assert controlled_rate(weights, gamma, np.array([3, 0])) == pytest.approx(100 / (1 + math.e))


def test_difficulty_goes_by_the_instruction_and_not_by_its_row():
    preferences, calibration = made(100)
    mixed = np.random.default_rng(0).permutation(100)
    other = Preferences(
        "ours",
        tuple(preferences.instructions[place] for place in mixed),
        preferences.wins[mixed],
        preferences.lengths[mixed],
        preferences.baseline_lengths[mixed],
    )
    one, two = (evaluate_alpaca_eval(p, calibration, draws=5) for p in (preferences, other))
    assert one.measures["LC"] == two.measures["LC"]
    assert np.array_equal(one.draws["WR"], two.draws["WR"])


def test_both_kinds_of_draws_come_from_the_same_resamples():
    preferences, calibration = made(60)
    result = evaluate_alpaca_eval(preferences, calibration, draws=4, seed=11)
    rng = np.random.default_rng(11)
    picks = [rng.integers(60, size=60) for _ in range(4)]
    assert result.draws["WR"] == pytest.approx([100 * preferences.wins[p].mean() for p in picks])
    alone = bootstrap_means(preferences.wins[None], draws=4, rng=np.random.default_rng(11))
    assert np.array_equal(result.draws["WR"], 100 * alone[:, 0])
    # The first draw by hand, at the strength chosen on all rows.
    rows = rows_of(preferences, calibration)
    control = fit_control(rows, calibration)
    drawn = JudgedLengths(*(column[picks[0]] for column in vars(rows).values()))
    terms = length_terms(drawn.lengths, drawn.baseline_lengths)
    own = np.column_stack([terms, drawn.difficulty, np.ones(60)])
    gamed = np.column_stack([calibration.terms, np.zeros(120)])
    found = fit_logistic(
        np.vstack([gamed, own]),
        np.concatenate([calibration.wins, drawn.wins]),
        weights=np.repeat([0.1, 1.0], [120, 60]),
        strength=control.strength,
    )
    expected = controlled_rate(LengthWeights(*found), drawn.difficulty)
    assert result.draws["LC"][0] == pytest.approx(expected, abs=1e-6)


def test_the_intervals_hold_the_values():
    result = evaluate_alpaca_eval(*made(), draws=200)
    for estimate in result.measures.values():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 300
    width = result.measures["WR"].high - result.measures["WR"].low
    assert width == pytest.approx(2 * 1.96 * result.facts["WR_standard_error"], rel=0.2)


def test_the_baseline_against_itself_is_at_50_by_construction():
    preferences, calibration = made(20)
    lengths = preferences.baseline_lengths
    itself = Preferences("b", preferences.instructions, np.full(20, 0.5), lengths, lengths)
    result = evaluate_alpaca_eval(itself, calibration, draws=3)
    assert result.measures["LC"] == result.measures["WR"]
    assert result.measures["LC"].value == 50


def test_without_a_calibration_there_is_no_controlled_rate():
    preferences, _ = made(20)
    result = evaluate_alpaca_eval(preferences, None, draws=3)
    assert "LC" not in result.measures and "LC" not in result.draws
    assert "20 of AlpacaEval 2's 805 instructions have a verdict." in result.warnings
    assert result.missing == pytest.approx(1 - 20 / 805)


def test_length_control_needs_twenty_verdicts():
    preferences, calibration = made(19)
    result = evaluate_alpaca_eval(preferences, calibration, draws=3)
    assert "LC" not in result.measures
    assert "No length control: it needs at least 20 verdicts, there are 19." in result.warnings


def test_another_baseline_is_told_of():
    preferences, calibration = made(20)
    other = replace(preferences, baseline="text_davinci_003")
    assert any(
        "here it is text_davinci_003" in said
        for said in evaluate_alpaca_eval(other, calibration, draws=2).warnings
    )
    usual = replace(preferences, baseline="gpt4_1106_preview")
    assert not any(
        "baseline" in said for said in evaluate_alpaca_eval(usual, calibration, draws=2).warnings
    )


def test_instructions_of_another_set_are_refused():
    preferences, calibration = made(20)
    strange = Preferences("m", ("other?", *preferences.instructions[1:]), *[preferences.wins] * 3)
    with pytest.raises(StudyError, match="1 of 20 instructions judged for 'm' are not among"):
        evaluate_alpaca_eval(strange, calibration)


def test_a_model_without_a_verdict_is_an_error():
    nothing = Preferences("m", (), *[np.zeros(0)] * 3, dropped={"without a verdict": 3})
    with pytest.raises(StudyError, match="left out 3 without a verdict"):
        evaluate_alpaca_eval(nothing, None)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return read_calibration(DATA / "instructions.json", DATA / "gamed_rebuilt.csv")


@pytest.fixture(scope="module")
def published() -> dict:
    columns = json.loads((DATA / "preferences.json").read_text())
    # One model has no published result.
    return {model: row["published"] for model, row in columns.items() if row["published"]}


@pytest.fixture(scope="module")
def judged() -> dict[str, Preferences]:
    return {
        one.model: one for one in read_files([DATA / "preferences.json"]).verdicts["alpaca_eval"]
    }


@needs_data
def test_published_win_rates_and_standard_errors_come_out(judged, published):
    # The benchmark's leaderboard: win_rate and standard_error.
    assert (len(judged), len(published)) == (34, 33)
    for model in published:
        preferences = judged[model]
        assert win_rate(preferences.wins) == pytest.approx(published[model]["win_rate"], abs=1e-9)
        error = win_rate_error(preferences.wins)
        assert error == pytest.approx(published[model]["standard_error"], abs=1e-9)


@needs_data
def test_published_controlled_rates_follow_from_published_weights(judged, published, calibration):
    # The benchmark's own coefficients and its leaderboard's length_controlled_winrate.
    whole = [model for model in published if len(judged[model].wins) == 805]
    assert len(whole) == 27
    for model in whole:
        gamma = np.array([calibration.difficulty[one] for one in judged[model].instructions])
        rate = controlled_rate(LengthWeights(*published[model]["weights"]), gamma)
        assert rate == pytest.approx(published[model]["length_controlled_winrate"], abs=1e-6)


@needs_data
def test_published_controlled_rates_come_out_by_fitting_again(judged, published, calibration):
    # The leaderboard's length_controlled_winrate; the gamed rows are rebuilt, not the originals.
    whole = [model for model in published if len(judged[model].wins) == 805]
    apart = [abs(refitted(judged[m], calibration) - controlled(published, m)) for m in whole]
    assert max(apart) < 0.16
    assert np.mean(apart) < 0.03


@needs_data
def test_models_with_fewer_rows_were_published_with_the_difficulties_of_others(
    judged, published, calibration
):
    # The leaderboard gave the n-th row the n-th difficulty; by instruction the rate is another.
    short = [model for model in published if len(judged[model].wins) < 805]
    by_position = {m: renumbered(judged[m]) for m in short}
    apart = [abs(refitted(by_position[m], calibration) - controlled(published, m)) for m in short]
    assert max(apart) < 0.16
    right = [abs(refitted(judged[m], calibration) - controlled(published, m)) for m in short]
    assert max(right) > 2


def refitted(preferences: Preferences, calibration: Calibration) -> float:
    return evaluate_alpaca_eval(preferences, calibration, draws=1).measures["LC"].value


def controlled(published: dict, model: str) -> float:
    return published[model]["length_controlled_winrate"]


def renumbered(preferences: Preferences) -> Preferences:
    return replace(preferences, instructions=tuple(range(len(preferences.wins))))


@needs_data
def test_stored_preferences_follow_from_raw_log_probabilities():
    rows = json.loads((DATA / "annotations_claude-2.1.json").read_text())
    asked = [row for row in rows if row["output_1"] != row["output_2"]]
    assert (len(rows), len(asked)) == (805, 803)
    for row in asked:
        top = row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
        formed = judged_win(row["instruction"], {t["token"]: t["logprob"] for t in top})
        assert 1 + formed == pytest.approx(row["preference"], abs=1e-9)
    # Identical answers were not put before the judge.
    assert [row["preference"] for row in rows if row not in asked] == [1.5, 1.5]


@needs_data
def test_annotations_and_compact_preferences_of_a_model_agree(judged, calibration):
    (full,) = read_files([DATA / "annotations_claude-2.1.json"]).verdicts["alpaca_eval"]
    compact = judged["claude-2.1"]
    assert full.wins == pytest.approx(compact.wins, abs=1e-9)
    assert np.array_equal(full.lengths, compact.lengths)
    assert np.array_equal(full.baseline_lengths, compact.baseline_lengths)


@needs_data
def test_the_bootstrap_spread_is_about_twice_the_published_standard_error(judged, calibration):
    # Length control's lc_standard_error on the leaderboard: half of what resampling prompts gives.
    with (DATA / "leaderboard.csv").open() as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    model = "FuseChat-Gemma-2-9B-Instruct"
    result = evaluate_alpaca_eval(judged[model], calibration, draws=200)
    ratio = result.draws["LC"].std(ddof=1) / float(rows[model]["lc_standard_error"])
    assert 1.8 < ratio < 2.8
