"""Constraints count what `docs/reference/verifiers.md` says they count, and their fields are looked over.

Expected values follow from the table there; the counts can be made by hand. The examples marked IFEval
are those its instructions give (Zhou et al. 2023, arXiv 2311.07911, table 4).
"""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preceptor.engines.reasoning import is_unfinished
from preceptor.errors import DataError
from preceptor.scorers.verifier import text_counts
from preceptor.scorers.verifier.constraints import _CONSTRAINTS
from preceptor.scorers.verifier.verifier import NotChecked, verify
from small_times import soon

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "verifiers.md"


def kept(text: str, name: str, /, **fields: object) -> bool:
    return verify(text, {"kind": "constraints", "constraints": [{"name": name, **fields}]}) == 1.0


@pytest.mark.parametrize(
    ("name", "fields", "text", "expected"),
    [
        ("first_word", {"word": "However"}, "\n\n'however, it is", True),
        ("first_word", {"word": "however", "paragraph": 2}, "One.\n\nHowever, two.", True),
        ("first_word", {"word": "however", "paragraph": 2}, "However.\nNo paragraph.", False),
        ("first_word", {"word": "how"}, "However", False),
        ("keywords", {"words": ["sea", "Salt"]}, "A SALTY sea", True),
        ("keywords", {"words": ["sea", "salt"]}, "A sea", False),
        ("forbidden", {"words": ["sea"]}, "A seal", True),
        ("forbidden", {"words": ["Sea", "x"]}, "The seal at sea.", False),
        ("forbidden", {"words": ["a.b"]}, "axb", True),
        ("upper_case", {}, "ALL OF 3!", True),
        ("upper_case", {}, "ALL of 3!", False),
        ("lower_case", {}, "all of 3!", True),
        ("lower_case", {}, "All", False),
        ("upper_case", {}, "123", False),
        ("no_commas", {}, "one; two", True),
        ("no_commas", {}, "one, two", False),
        ("starts_with", {"text": "Dear Sir"}, "\n dear sir, yes", True),
        ("starts_with", {"text": "Dear Sir"}, "My dear sir", False),
        ("ends_with", {"text": "Any other questions?"}, 'Yes. "Any other questions?"\n', True),
        ("ends_with", {"text": "Any other questions?"}, "Any other questions? No.", False),
        ("quoted", {}, ' "all of it" ', True),
        ("quoted", {}, '"', False),
        ("quoted", {}, '"part" of it', False),
        ("one_of", {"texts": ["My answer is yes.", "My answer is no."]}, "my answer is no.", True),
        ("one_of", {"texts": ["My answer is yes.", "My answer is no."]}, "No.", False),
        ("title", {}, "<<poem of joy>>\nla", True),  # IFEval
        ("title", {}, "<< >> or <<a\nb>> or <a>", False),
        ("json", {}, '{"a": [1]}', True),
        ("json", {}, '```json\n{"a": [1]}\n```', True),
        ("json", {}, 'Here:\n```json\n{"a": [1]}\n```', False),
        ("json", {}, "{'a': 1}", False),
        ("postscript", {}, "Yours\n\nP.S. I know", True),
        ("postscript", {}, "Yours\n**p. s. I know**", True),
        ("postscript", {"marker": "P.P.S"}, "P.S. I know", False),
        ("postscript", {}, "Chips.", False),
        ("two_responses", {}, "one\n******\ntwo", True),
        ("two_responses", {}, "******\none\n******\ntwo\n******\n", True),
        ("two_responses", {}, "one\n******\none", False),
        ("two_responses", {}, "one", False),
        ("two_responses", {}, "one******two******three", False),
        ("two_responses", {}, "one************two", False),
    ],
)
def test_a_constraint_is_kept_or_not(
    name: str, fields: dict[str, object], text: str, expected: bool
) -> None:
    assert kept(text, name, **fields) is expected


@pytest.mark.parametrize(
    ("name", "fields", "text", "count"),
    [
        ("words", {}, "One two, three-four.", 4),
        ("words", {}, "don't", 2),
        ("words", {}, "...", 0),
        ("sentences", {}, "One. Two! Three? Four", 4),
        ("sentences", {}, 'He said "Yes." Then he left...', 2),
        ("sentences", {}, "Dr. A. Smith has 3.5 apples, e.g. red ones.", 1),
        ("sentences", {}, "1. Wash it.\n2. Eat it.", 2),
        ("sentences", {}, "\u4e00\u3002\u4e8c\u3002", 2),
        ("sentences", {}, "?! ...", 0),
        ("paragraphs", {}, "One\ntwo\n\nthree\n \n\nfour\n\n", 3),
        ("paragraphs", {"divider": "***"}, "One\n\ntwo\n***\nthree\n***\n", 2),
        ("keyword_count", {"word": "sea"}, "Sea, seas and SEA", 3),
        ("letter_count", {"letter": "Q"}, "Quick quiz", 2),
        ("capital_words", {}, "NASA is IN the US, I say A1", 5),
        ("bullets", {}, "* one\n  - two\n+ three\n\u2022 four\n*five*\n---\n- \n", 4),
        ("placeholders", {}, "[name], [address] and [] or [a\nb]", 2),
        ("highlights", {}, "*one* and **two** and * * and *no\nne*", 2),
        ("highlights", {}, "* *one*\n* two\n", 1),
        ("sections", {}, "Section 1\na\nSection 2: b\nSection three", 2),
        ("sections", {"marker": "SECTION"}, "Section 1 SECTION 1", 1),
    ],
)
def test_a_count_is_bounded_on_both_sides(
    name: str, fields: dict[str, object], text: str, count: int
) -> None:
    assert kept(text, name, **fields, at_least=count, at_most=count)
    assert not kept(text, name, **fields, at_least=count + 1)
    assert count == 0 or not kept(text, name, **fields, at_most=count - 1)


def test_the_reward_is_all_or_nothing_unless_partial() -> None:
    constraints = [
        {"name": "words", "at_most": 3},
        {"name": "no_commas"},
        {"name": "quoted"},
        {"name": "title"},
    ]
    reference = {"kind": "constraints", "constraints": constraints}
    assert verify("Short and sweet", reference) == 0.0
    assert verify("Short and sweet", {**reference, "partial": True}) == 0.5
    assert verify("Short, I say so", {**reference, "partial": True}) == 0.0
    assert verify("Short and sweet", {**reference, "constraints": constraints[:2]}) == 1.0


def test_null_fields_and_whole_floats_of_column_formats_are_understood() -> None:
    assert kept("One two", "words", at_least=2.0, at_most=None, words=None)
    assert not kept("One two", "words", at_least=3.0, letter=None)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("words", "a table with a name"),
        ({}, "name is None"),
        ({"name": "wrods", "at_least": 1}, "Did you mean 'words'"),
        ({"name": "words"}, "needs 'at_least'"),
        ({"name": "words", "at_last": 1}, "Did you mean 'at_least'"),
        ({"name": "words", "at_least": 2, "at_most": 1}, "exchange them"),
        ({"name": "words", "at_least": -1}, "whole number from 0"),
        ({"name": "words", "at_least": "5"}, "whole number"),
        ({"name": "words", "at_least": True}, "whole number"),
        ({"name": "words", "at_least": 1.5}, "whole number"),
        ({"name": "first_word", "word": "a", "paragraph": 0}, "whole number from 1"),
        ({"name": "keywords"}, "has no words: give it one"),
        ({"name": "keywords", "words": []}, "a list with some text"),
        ({"name": "keywords", "words": "sea"}, "a list with some text"),
        ({"name": "keywords", "words": [" "]}, "not blank"),
        ({"name": "letter_count", "letter": "ab", "at_least": 1}, "one character"),
        ({"name": "title", "text": "a"}, "its fields are none"),
    ],
)
def test_a_malformed_constraint_says_what_to_give(constraint: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        verify("text", {"kind": "constraints", "constraints": [constraint]})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "has no constraints"),
        ({"constraints": []}, "a list with some entry"),
        ({"constraints": {"name": "title"}}, "a list with some entry"),
        ({"constraints": [{"name": "title"}], "partial": 1}, "true or false"),
    ],
)
def test_a_malformed_list_says_what_to_give(fields: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        verify("text", {"kind": "constraints", **fields})


def test_the_page_names_every_constraint_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Constraints")[2]
    named = set(re.findall(r'\{"name": "(\w+)"', page))
    assert named == set(_CONSTRAINTS)


WORDS = st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_words_and_paragraphs_are_as_many_as_were_joined(listed: list[str]) -> None:
    assert text_counts.words(" ".join(listed)) == len(listed)
    assert text_counts.paragraphs("\n \n".join(listed)) == listed
    assert text_counts.bullets("".join(f"- {word}\n" for word in listed)) == len(listed)
    assert text_counts.sentences(" ".join(f"So {word}y." for word in listed)) == len(listed)


ALL_FIELDS = {
    "text": "a a",
    "texts": ["a a", "b"],
    "words": ["aaaaaaaab"],
    "word": "aaaaaaaab",
    "letter": "a",
    "at_least": 1,
    "marker": "a a",
}


def every_constraint() -> list[dict[str, object]]:
    return [
        {"name": name}
        | {key: value for key, value in ALL_FIELDS.items() if key in (*needs, *options)}
        for name, (_, needs, options) in _CONSTRAINTS.items()
    ]


@settings(max_examples=200, deadline=None)
@example("[THINK]")
@example("<think>a a</think>")
@given(st.text())
def test_every_text_but_a_trace_without_an_answer_gets_one_of_two_verdicts(text: str) -> None:
    for constraint in every_constraint():
        reference = {"kind": "constraints", "constraints": [constraint]}
        if is_unfinished(text):
            with pytest.raises(NotChecked, match="never ends"):
                verify(text, reference)
        else:
            assert verify(text, reference) in (0.0, 1.0)


LONG = 200_000
HOSTILE = [
    *(
        "a",
        "A ",
        " ",
        "\n",
        "\n ",
        " \n",
        "\t",
        ".",
        ". ",
        "a. ",
        "!?",
        '."',
        "*",
        "* ",
        "**",
        "*a",
    ),
    *(
        "\n*",
        "\n- ",
        "- ",
        "[",
        "[a",
        "]",
        "<<",
        "<<a",
        "<",
        ">>",
        "`",
        "```\n",
        "******",
        '"',
        "{",
    ),
    *("Section 1", "a a", "aaaaaaaa", "p.s.", "\np . s . ", "***", "\u3002", "Dr. ", "1. "),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_response_of_200_000_characters_is_checked_in_linear_time(unit: str) -> None:
    text = ("a" + unit * LONG)[:LONG]
    for constraint in every_constraint():
        reference = {"kind": "constraints", "constraints": [constraint]}
        assert soon(0.5, verify, text, reference), constraint
