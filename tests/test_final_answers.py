"""The passage that holds a final answer is found and is short, whatever surrounds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.scorers.verifier.final_answers import (
    final_number,
    final_parts,
    math_passages,
    parsed_number,
)


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        (r"So \boxed{7} and \boxed{\frac{1}{2}}. The answer is 5", [r"\boxed{\frac{1}{2}}"]),
        (r"\boxed{a", [r"\boxed{a"]),
        ("The answer is x^2.\nBye", ["Answer: x^2.", "$x^2$"]),
        ("#### $7$\nBye", ["Answer: $7$"]),
        ("Answer: seven", ["Answer: seven"]),
        ("First.\nx + 1", ["First.\nx + 1", "$x + 1$"]),
        ("I wonder", ["I wonder"]),
    ],
)
def test_the_mathematical_answer_is_in_the_box_after_the_marker_or_at_the_end(
    text: str, passages: list[str]
) -> None:
    assert math_passages(text) == passages


@given(st.text())
def test_passages_stay_short_and_parts_are_always_there(text: str) -> None:
    assert all(len(passage) <= 1_010 for passage in math_passages(text * 100))
    assert list(final_parts(text))


def test_a_text_is_a_number_or_none() -> None:
    assert parsed_number(" 1,000.5 ") == (1000.5, False)
    assert parsed_number("50%") == (50.0, True)
    assert parsed_number("50 apples") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = 13.\nThe final answer is infinitely many.", None),
        ("x = 13.\nThe final answer is .", None),
        (r"So \boxed{42}. This answer is correct.", 42.0),
        ("Of 13, Answer: " + "we think " * 30 + "and find 42.", 42.0),
        ("It is 13, no, 42.", 42.0),
    ],
)
def test_no_number_of_the_working_is_the_answer_where_words_alone_follow_the_marker(
    text: str, value: float | None
) -> None:
    number = final_number(text)
    assert (number and number.value) == value
