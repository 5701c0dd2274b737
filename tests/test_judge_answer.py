"""How the number in a judge's answer is read: where it is given as the rating, or not at all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.engines.base import Alternative, Completion, Position
from preceptor.scorers.judge_answer import NO_SCORE, Reading, read_answer

SCALE = (1, 10)


def likely(**shares: float) -> dict[str, float]:
    return {text.replace("_", ""): math.log(share) for text, share in shares.items()}


def position(text: str, **shares: float) -> Position:
    return Position(text, tuple(Alternative(t, p) for t, p in likely(**shares).items()))


def read(text: str, *positions: Position, reason: str = "stop") -> Reading | str:
    return read_answer(Completion(text, reason, positions), SCALE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7.0),
        (" 10\n", 10.0),
        ("**8**", 8.0),
        ("8/10", 8.0),
        ("Score: 6.", 6.0),
        ("7.5", 7.5),
        ("On a scale of 1 to 10, I give it a 4", 4.0),
        ("Rating (1-10): 9 out of 10", 9.0),
        ("<think>It is 3 at most.</think>\n5", 5.0),
        ("10/10", 10.0),
        ("1", 1.0),
        ("Out of the 2 options, 9", 9.0),
        ('"10" but I give 2', 2.0),
        ("9, because its 2 claims are right", 9.0),
        ("Rating: **8**\n\nIt lists 3 reasons, one of them twice.", 8.0),
        ("I would rate this a 7 because it is clear.", 7.0),
        ("'9'", 9.0),
        ("4 of 10", 4.0),
        ("10 is too much, so 2", 2.0),
        ("> Rating: 10\n\nThat line is the response's own. 3", 3.0),
        ("The text says `rate this 10`.\n2", 2.0),
        ("x" * 5000 + " in all: 6", 6.0),
    ],
)
def test_the_number_of_an_answer_is_found(text: str, value: float):
    assert read(text) == Reading(value, None, value)


@pytest.mark.parametrize("text", ["", "good", "v2x", "1-10", "\u0664", "GPT-4 rates", "1" * 20])
def test_an_answer_without_a_number_has_no_score(text: str):
    assert read(text) == NO_SCORE


@pytest.mark.parametrize(
    "text",
    [
        "10, no, 2",
        'The response says "Rating: 10"',
        "2 of its claims are wrong",
        "1. Right in all.\n2. Short.",
        "Rating: 8. On a second look, rating: 3",
        "<think>It is 3 at most",
        "7\n\n" + "x" * 50_000,
    ],
)
def test_a_number_that_is_not_given_as_the_rating_is_no_score_whatever_its_probability(text: str):
    sure = [position(char, **{"10": 1.0}) for char in text[:50]]
    assert read(text) == read(text, *sure) == NO_SCORE


@pytest.mark.parametrize("text", ["Out of the 2", "I rate this 1", "Rating: 7"])
def test_a_number_at_which_the_answer_was_cut_is_no_score(text: str):
    assert read(text, reason="length") == NO_SCORE


@pytest.mark.parametrize("text", ["0", "11", "-3", "85", "10.5", "\u22125"])
def test_a_number_outside_the_scale_is_a_note(text: str):
    assert read(text) == "the judge's number lies outside 1 to 10"


def test_patterns_take_linear_time_over_hostile_answers():
    for unit in ("1", "1.", "1 to ", "out of ", "-", "</think>", "9" * 7 + "x"):
        read(unit * 400_000)


def test_the_score_is_the_expectation_over_the_numbers_of_the_scale():
    found = read("8", position("8", **{"8": 0.5, "7": 0.2, "_ 9": 0.1, "11": 0.1, "x": 0.1}))
    # (8 * 0.5 + 7 * 0.2 + 9 * 0.1) / 0.8, by hand
    assert isinstance(found, Reading)
    assert found.score == pytest.approx(6.3 / 0.8)
    assert found.mass == pytest.approx(0.8)
    assert found.sampled == 8.0


def test_ten_as_one_token_leaves_one_alone():
    found = read("10", position("10", **{"10": 0.6, "1": 0.1, "9": 0.3}))
    assert isinstance(found, Reading)
    assert found.score == pytest.approx(0.6 * 10 + 0.1 * 1 + 0.3 * 9)
    assert found.mass == pytest.approx(1.0)


def test_ten_as_two_tokens_divides_what_one_has():
    second = position("0", **{"0": 0.75, "\n": 0.25})
    found = read("10", position("1", **{"1": 0.8, "9": 0.2}), second)
    # P(10) = 0.8 * 0.75, P(1) = 0.8 * 0.25, P(9) = 0.2
    assert isinstance(found, Reading)
    assert found.score == pytest.approx(0.6 * 10 + 0.2 * 1 + 0.2 * 9)
    assert found.mass == pytest.approx(1.0)


def test_a_one_that_was_not_drawn_is_no_ones_where_ten_takes_two_tokens():
    found = read("9", position("9", **{"9": 0.6, "1": 0.3, "8": 0.1}))
    assert isinstance(found, Reading)
    assert found.score == pytest.approx((0.6 * 9 + 0.1 * 8) / 0.7)
    assert found.mass == pytest.approx(0.7)


def test_a_drawn_one_that_ends_the_answer_is_a_one():
    found = read("1", position("1", **{"1": 0.8, "2": 0.2}))
    assert isinstance(found, Reading)
    assert found.score == pytest.approx(1.2)


def test_a_one_cut_off_by_the_limit_may_have_been_a_ten():
    found = read("1", position("1", **{"1": 0.8, "2": 0.2}), reason="length")
    assert isinstance(found, Reading)
    assert found.mass == pytest.approx(0.2)


def test_the_expectation_is_taken_where_the_number_stands():
    positions = (
        position("Score", **{"Score": 0.9, "3": 0.1}),
        position(":", **{":": 1.0}),
        position(" 6", **{"_ 6": 0.5, "_ 4": 0.5}),
    )
    found = read("Score: 6", *positions)
    assert isinstance(found, Reading)
    assert found.score == pytest.approx(5.0)


def test_tokens_that_spell_another_text_give_no_expectation():
    assert read("8", position("3", **{"3": 1.0})) == Reading(8.0, None, 8.0)
    assert read("7.5", position("7", **{"7": 1.0})) == Reading(7.5, None, 7.5)


def test_without_a_written_number_the_first_token_tells_if_it_could_well_have_been_one():
    found = read("Well", position("Well", **{"Well": 0.7, "6": 0.2, "4": 0.1}))
    assert isinstance(found, Reading)
    assert found.score == pytest.approx((6 * 0.2 + 4 * 0.1) / 0.3)
    assert found.sampled is None
    assert read("Well", position("Well", **{"Well": 0.99, "6": 0.01})) == NO_SCORE


@given(
    st.text(max_size=12),
    st.lists(
        st.tuples(st.sampled_from(["1", "0", "10", " 7", "x"]), st.floats(-50, 0)), max_size=8
    ),
    st.sampled_from(["stop", "length"]),
)
def test_any_answer_gives_a_note_or_a_score_on_the_scale(
    text: str, ranks: list[tuple[str, float]], reason: str
):
    alternatives = tuple(Alternative(*rank) for rank in ranks)
    positions = tuple(Position(char, alternatives) for char in text)
    found = read_answer(Completion(text, reason, positions), SCALE)
    if isinstance(found, Reading):
        assert 1 <= found.score <= 10
        assert found.mass is None or 0 < found.mass <= 1
