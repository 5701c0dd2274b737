"""The verifier finds a response's final answer and never crashes, stalls or guesses.

Expected values follow from the rules in `preceptor.scorers.verifier.verifier.verify`; the sums in the
examples can be checked by hand.
"""

import pytest

from preceptor.errors import DataError, StudyError
from preceptor.scorers.verifier.verifier import NotChecked, Verifier, verify
from preceptor.types import Instruction, Response, Score
from small_times import soon


def reward(kind: str, answer: object, text: str, **extra: object) -> float:
    return verify(text, {"kind": kind, "answer": answer, **extra})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 1,234.5 in total.", "1234.5"),
        ("She pays $5", 5),
        ("That is 50%", "50%"),
        ("That is 50 %.", 50),
        ("That is half, 50%", 0.5),
        ("0.5", "50%"),
        ("The share is 3/4.", 0.75),
        ("The share is 0.75", "3/4"),
        ("It falls to -7 degrees", -7),
        ("It falls to \u22127 degrees", "-7"),
        ("He owes -$5", -5),
        ("He owes $-5", -5),
        ("About 6.02e23 particles", 6.02e23),
        ("About 6.02 x 10^23", "6.02e23"),
        (r"About $6.02 \times 10^{23}$", 6.02e23),
        ("about 1.5E-3", 0.0015),
        (".5", 0.5),
        ("12 + 30 = 42", 42),
        ("The answer is 42. It is the sum of 30 and 12.", 42),
        ("The answer is $42, not 12.", 42),
        ("Answer: 42\nThank you for question 7!", 42),
        ("**Answer:** 42, see page 9", 42),
        ("**Answer**: 42, see page 9", 42),
        ("3 people eat 14 each\n#### 42\n(3 x 14)", 42),
        (r"Thus \boxed{42} on line 3", 42),
        ("The answer is 41. No, wait: the answer is 42, as 6 times 7 says.", 42),
        ("Answer: 12 + 30 = 42, because 30 + 12 is the same.", 42),
        ("Answer: 12 x $3.50 = $42", 42),
        ("Answer: 84 / 2 = 42", 42),
        ("Answer: 42 - 12 of them children", 42),
        ("The answer is...42", 42),
        ("The area is 77 cm^2", 77),
        (r"The area is 77 cm^{2}", 77),
        ("Produces 42 units of CO2", 42),
        ("from 10-5", 5),
        ("1 000 000", 1000000),
        ("1\u202f234\u00a0567,5 in all", 1234567.5),
        ("1.234.567,5", "1234567.5"),
        ("1.234.567", 1234567),
        ("1,5", 1.5),
        ("0,125", 0.125),
        ("It is 1,5 m", "3/2"),
        ("The roots are 1,5,9", 9),
        ("From 1999 2000", 2000),
    ],
)
def test_numeric_finds_the_number_that_answers(text: str, answer: object) -> None:
    assert reward("numeric", answer, text) == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("no number at all", 42),
        ("42 is what you get, or maybe 43", 42),
        ("The answer is 43. I first thought 42", 42),
        ("from 10-5", -5),
        ("50%", "0.5%"),
        ("1/0", 1),
        ("9" * 5000, 42),
        ("1e999", 1e300),
        ("42.001", 42),
        ("1,2345", 12345),
        ("1.234", 1234),
        ("1,5", 5),
        ("1 000 000", 0),
        ("twelve", 12),
        ("420", 42),
    ],
)
def test_numeric_rejects_other_numbers(text: str, answer: object) -> None:
    assert reward("numeric", answer, text) == 0.0


def test_numeric_tolerance_is_relative_and_one_millionth_unless_stated() -> None:
    assert reward("numeric", 1000, "1000.0009") == 1.0
    assert reward("numeric", 1000, "1000.0011") == 0.0
    assert reward("numeric", 3.14159, "3.14", tolerance=0.01) == 1.0
    assert reward("numeric", 3.14159, "3.2", tolerance=0.01) == 0.0
    assert reward("numeric", 0, "0.0000001") == 1.0
    assert reward("numeric", 0, "0.001") == 0.0


@pytest.mark.parametrize(
    "text",
    ["B", "(B)", "B.", "b", "**B**", "B) Paris", "(b) Paris", "B: Paris", "The answer is B",
     "The answer is (B) Paris.", "the answer is **B**", "The correct answer is: B) Paris",
     "Answer: B", "Answer: option B", r"$\boxed{B}$", r"\boxed{\text{B}}", "#### B",
     "I think the right one is B because it is the capital.", "Option B fits best.",
     "A) London is not it, and D) Rome neither.\nThe answer is B.",
     "A capital is a seat of government. I choose (B)."],
)  # fmt: skip
def test_choice_recognises_the_usual_ways_to_name_a_letter(text: str) -> None:
    assert reward("choice", "B", text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["A", "C", "Paris", "B or C", "The answer is B or C.", "The answer is A, B", "B) or C)",
     "B and C", "A) London\nB) Paris\nC) Rome\nD) Bern",
     "Bern", "Because of that.", "Vitamin B-12", ""],
)  # fmt: skip
def test_choice_is_wrong_for_other_or_ambiguous_letters(text: str) -> None:
    assert reward("choice", "B", text) == 0.0


@pytest.mark.parametrize(
    "text",
    ["A capital city is Paris.", "The answer is a city on the Seine.", "It is a city",
     "The answer is A city on the Seine.", "A"[:0], "a an the"],
)  # fmt: skip
def test_the_article_a_is_not_a_choice(text: str) -> None:
    assert reward("choice", "A", text) == 0.0


@pytest.mark.parametrize(
    "text",
    ["A", "a", "A.", "(A)", "The answer is A", "The answer is A.", "The answer is A because it is"],
)
def test_the_letter_a_can_be_chosen(text: str) -> None:
    assert reward("choice", "A", text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["new york", "  New   York!  ", "NEW YORK.", "The answer is New York.", "**New York**",
     "The answer is New York. It lies on the Hudson.", "I looked it up.\nAnswer: New York",
     "Let me think.\nNew York", r"\boxed{New York} it is", "Answer:\nNew York\nGoodbye"],
)  # fmt: skip
def test_exact_ignores_case_spacing_and_punctuation(text: str) -> None:
    assert reward("exact", "New York", text) == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("New York City", "New York"),
        ("I live in New York", "New York"),
        ("York New", "New York"),
        ("35", "3.5"),
        ("5", "-5"),
        ("...", "New York"),
    ],
)
def test_exact_rejects_everything_else(text: str, answer: str) -> None:
    assert reward("exact", answer, text) == 0.0


def test_exact_compares_accented_letters_however_they_are_encoded() -> None:
    assert reward("exact", "caf\u00e9", "cafe\u0301") == 1.0


def test_contains_matches_whole_words_only() -> None:
    assert reward("contains", "ice", "Frozen water is ICE.") == 1.0
    assert reward("contains", "ice", "Frozen water is nice.") == 0.0
    assert reward("contains", "Red Sea", "It ends at the red  sea.") == 1.0
    assert reward("contains", "5", "It is 5.5 or 5,000") == 0.0
    assert reward("contains", "1000", "It is 1,000 m") == 1.0
    assert reward("contains", "5", "It is -5") == 0.0
    assert reward("contains", "5", "from 10-5") == 1.0
    assert reward("contains", "-5", "It is \u22125.") == 1.0
    assert reward("contains", "a.*b", "axxb") == 0.0


def test_contains_takes_a_list_of_answers_and_a_list_of_barred_words() -> None:
    answers = ["United Kingdom", "UK"]
    assert reward("contains", answers, "in the UK") == 1.0
    assert reward("contains", answers, "in France") == 0.0
    assert reward("contains", "yes", "Yes, it is", not_contains=["no"]) == 1.0
    assert reward("contains", "yes", "Yes and no", not_contains=["no"]) == 0.0


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({}, "kind is None"),
        ({"kind": "numric", "answer": 1}, "Did you mean 'numeric'"),
        ({"kind": ["exact"], "answer": "x"}, "the kinds are"),
        ({"kind": "exact"}, "has no answer"),
        ({"kind": "exact", "answer": None}, "has no answer"),
        ({"kind": "exact", "answer": "!!"}, "letters or digits"),
        ({"kind": "exact", "answer": 5}, "letters or digits"),
        ({"kind": "numeric", "answer": "five"}, "finite number"),
        ({"kind": "numeric", "answer": "1_000"}, "finite number"),
        ({"kind": "numeric", "answer": "1,5,9"}, "finite number"),
        ({"kind": "numeric", "answer": "\u0661\u0662"}, "finite number"),
        ({"kind": "numeric", "answer": True}, "finite number"),
        ({"kind": "numeric", "answer": "1/0"}, "finite number"),
        ({"kind": "numeric", "answer": float("nan")}, "finite number"),
        ({"kind": "numeric", "answer": 10**400}, "finite number"),
        ({"kind": "numeric", "answer": [4]}, "finite number"),
        ({"kind": "numeric", "answer": 1, "tolerance": -1}, "tolerance"),
        ({"kind": "numeric", "answer": 1, "tolerance": "0.1"}, "tolerance"),
        ({"kind": "numeric", "answer": 1, "tolerence": 0.1}, "Did you mean 'tolerance'"),
        ({"kind": "choice", "answer": "F"}, "A to E"),
        ({"kind": "choice", "answer": "AB"}, "A to E"),
        ({"kind": "choice", "answer": ""}, "A to E"),
        ({"kind": "contains", "answer": []}, "empty list"),
        ({"kind": "contains", "answer": "x", "not_contains": [1]}, "letters or digits"),
        ("exact", "a table"),
    ],
)
def test_a_malformed_reference_is_an_error_that_says_what_to_give(
    reference: object, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        verify("text", reference)  # type: ignore[arg-type]


def test_null_fields_of_a_reference_count_as_absent() -> None:
    reference = {"kind": "exact", "answer": "x", "tolerance": None, "not_contains": None}
    assert verify("x", reference) == 1.0


def scores_of(verifier: Verifier, responses: list[Response]) -> list[Score]:
    """Return a score for each response, in their order."""
    found = {score.key: score for scores in verifier.score(responses) for score in scores}
    verifier.release()
    keyed = [one.checked_key if verifier.reads_reference else one.key for one in responses]
    return [found[key] for key in keyed]


def response(text: str | None, reference: dict[str, object] | None) -> Response:
    return Response("t", Instruction.from_text("q"), text, reference=reference)


def test_the_scorer_gives_a_number_or_a_note_for_every_response_in_order() -> None:
    right = {"kind": "numeric", "answer": 4}
    responses = [
        response("4", right),
        response("5", right),
        response("4", None),
        response(None, right),
        response(" \n", right),
        response("4", {"kind": "vibes", "answer": 4}),
        response("4", {"kind": "numeric", "answer": "four"}),
    ]
    scores = scores_of(Verifier(), responses)
    assert [dict(score.values) for score in scores[:2]] == [{"reward": 1.0}, {"reward": 0.0}]
    assert [score.note for score in scores[:5]] == [None, None, "no reference", "empty", "empty"]
    assert "vibes" in (scores[5].note or "")
    assert "four" in (scores[6].note or "")
    assert all(score.values == {} for score in scores[2:])
    assert Verifier.measures == ("reward",)


def test_a_rule_checks_every_response_whatever_its_reference() -> None:
    rule = {"kind": "constraints", "constraints": [{"name": "json"}]}
    responses = [
        response("[4]", None),
        response("four", None),
        response("four", {"kind": "exact", "answer": "four"}),
        response("", None),
        response("4", {"kind": "vibes"}),
    ]
    scores = scores_of(Verifier(rule), responses)
    assert [score.values.get("reward") for score in scores] == [1.0, 0.0, 0.0, None, 1.0]
    assert scores[3].note == "empty"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "kind is None"),
        ({"kind": "regx", "pattern": "a"}, "Did you mean 'regex'"),
        ({"kind": "regex", "pattern": "("}, "not one of RE2's"),
        ({"kind": "json_schema", "schema": {"type": "sting"}}, "'sting'"),
        ({"kind": "math", "answer": "}{"}, "cannot be read"),
        ({"kind": "constraints", "constraints": [{"name": "words"}]}, "at_least"),
    ],
)
def test_a_malformed_rule_is_an_error_before_anything_is_scored(
    rule: dict[str, object], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        Verifier(rule)


def test_a_check_cut_off_is_a_note_and_the_others_are_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("preceptor.scorers.verifier.pool.CHECK_SECONDS", 0.5)
    seven = {"kind": "math", "answer": "7"}
    texts = ("7", "9**9**9**9", "8")
    scores = scores_of(Verifier(), [response(text, seven) for text in texts])
    assert [score.values.get("reward") for score in scores] == [1.0, None, 0.0]
    assert (scores[1].note or "").startswith("not checked: it takes more than")


LONG = 200_000
HOSTILE = [
    *(
        "a",
        " ",
        "\n",
        "9",
        "1 ",
        "1,",
        "1,111,",
        "1 111 ",
        "1.111.",
        ",",
        ".",
        "1.",
        "-",
        "-1",
        "$",
        "B ",
        "B\n",
    ),
    *("B or ", "(", "*", "A b ", "answer ", "answer is ", "Answer: 1 ", "Answer: B\n", "####"),
    *("\\boxed{", "1/", "1 + ", "1 = ", "1 x 10^", "^{2}", "x\u0301", "\u00df", "1e5 "),
    *("Paris ", "Answer: Paris\n"),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_response_of_200_000_characters_is_checked_in_linear_time(unit: str) -> None:
    references: list[dict[str, object]] = [
        {"kind": "exact", "answer": "Paris"},
        {"kind": "numeric", "answer": 42},
        {"kind": "choice", "answer": "B"},
        {"kind": "contains", "answer": "Paris"},
    ]
    text = ("Answer: " + unit * LONG)[:LONG]
    for reference in references:
        assert soon(0.05, verify, text, reference), reference["kind"]


def test_a_score_is_kept_under_the_text_and_its_reference_but_under_the_text_alone_for_a_rule():
    four, five = ({"kind": "numeric", "answer": answer} for answer in (4, 5))
    same = [response("4", four), response("4", five), response("4", dict(reversed(four.items())))]
    found = [score for batch in Verifier().score(same) for score in batch]
    assert {score.key: score.values["reward"] for score in found} == {
        same[0].checked_key: 1.0,
        same[1].checked_key: 0.0,
    }
    assert same[0].checked_key == same[2].checked_key != same[0].key
    (scores,) = filter(None, Verifier(four).score(same[1:2]))
    assert scores == [Score(same[1].key, {"reward": 1.0})]


def test_the_identity_holds_the_rule_and_the_version_of_the_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = {"kind": "contains", "answer": "Paris"}
    assert Verifier().identity() == Verifier(processes=1).identity()
    others = [Verifier(rule), Verifier({**rule, "answer": "Rome"}), Verifier()]
    assert len({one.identity() for one in others}) == 3
    before = Verifier().identity()
    monkeypatch.setattr("preceptor.scorers.verifier.verifier.CHECKS_VERSION", 99)
    assert Verifier().identity() != before


def test_the_answer_after_a_reasoning_trace_is_checked() -> None:
    four = {"kind": "numeric", "answer": 4}
    texts = ["<think>5? No: 4.</think>5", "<think>5?</think> 4", "5?\n</think>\n4", "4"]
    scores = scores_of(Verifier(), [response(text, four) for text in texts])
    assert [score.values["reward"] for score in scores] == [0, 1, 1, 1]
    unanswered = [response("<think>4", four), response("<think>4</think> \n", four)]
    scores = scores_of(Verifier(), unanswered)
    assert [score.note for score in scores] == ["unfinished reasoning", "empty"]
    with pytest.raises(NotChecked, match="never ends"):
        verify("<think>4", four)


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ({"kind": "exact", "answer": "Paris"}, "Paris", "Rome"),
        ({"kind": "numeric", "answer": 42}, "42", "41"),
        ({"kind": "choice", "answer": "B"}, "(B)", "(A)"),
        ({"kind": "contains", "answer": "Paris"}, "In Paris.", "In Rome."),
        ({"kind": "regex", "pattern": "[0-9]{4}", "full": True}, "1969", "69"),
        ({"kind": "json_schema", "schema": {"type": "object"}}, '{"a": 1}', "[1]"),
        ({"kind": "math", "answer": "1/2"}, r"\boxed{0.5}", r"\boxed{0.6}"),
        (
            {"kind": "constraints", "constraints": [{"name": "words", "at_most": 3}]},
            "Yes.",
            "a " * 9,
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_every_check_gives_an_answer_the_same_reward_with_and_without_a_trace(
    reference: dict[str, object], right: str, wrong: str
) -> None:
    for text, expected in ((right, 1.0), (wrong, 0.0)):
        other = wrong if text is right else right
        for trace in (
            f"<think>{other}</think>\n\n",
            f"[THINK]{other}[/THINK]",
            f"{other}\n</think>\n",
        ):
            assert verify(trace + text, reference) == verify(text, reference) == expected


def test_a_check_held_up_by_the_machine_has_no_score_and_is_left_for_another_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # By the clock nothing may take any time, as on a machine that does nothing else but other work.
    monkeypatch.setattr("preceptor.scorers.verifier.pool._PATIENCE", 0)
    seven = {"kind": "math", "answer": "7"}
    late = [response("9**9**9**9", seven)]
    assert [score for batch in Verifier(processes=1).score(late) for score in batch] == []
