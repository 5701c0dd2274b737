"""Patterns, schemas and mathematical answers are checked as stated, and hostile ones cost nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.errors import DataError
from preceptor.scorers.verifier import pool
from preceptor.scorers.verifier.checks import NOT_JSON, fenced_block, parsed_json
from preceptor.scorers.verifier.verifier import NotChecked, verify

LONG = 200_000


def reward(kind: str, text: str, **fields: object) -> float:
    return verify(text, {"kind": kind, **fields})


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"\d{4}", "in 1984 or so", 1.0),
        (r"\d{4}", "in 198 or so", 0.0),
        (r"^It", "So it is.\nIt was.", 0.0),
        (r"(?m)^It", "So it is.\nIt was.", 1.0),
        (r"(?i)paris", "PARIS", 1.0),
        ("caf\u00e9", "Un caf\u00e9.", 1.0),
    ],
)
def test_a_pattern_can_occur_anywhere(pattern: str, text: str, expected: float) -> None:
    assert reward("regex", text, pattern=pattern) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05", 1.0),
        ("The answer is 2024-05.", 1.0),
        ("The answer is **2024-05**.", 1.0),
        ("I looked it up.\n`2024-05`", 1.0),
        (r"So \boxed{2024-05} it is", 1.0),
        ("The answer is 2024-05 or so", 0.0),
        ("It was 2024-05", 0.0),
    ],
)
def test_a_full_pattern_spans_the_final_answer(text: str, expected: float) -> None:
    assert reward("regex", text, pattern=r"\d{4}-\d\d", full=True) == expected


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$x", r"(a|aa)+$x", r"(?:a?){100}a{100}b", r"([a-z]+)*\d", r".*.*.*.*.*=$"]
)
@pytest.mark.parametrize("full", [False, True])
def test_a_pattern_that_blows_up_elsewhere_is_linear(
    pattern: str, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pool, "CHECK_SECONDS", 2.0
    )  # of the processor, beyond which there is no verdict
    assert reward("regex", "a" * LONG, pattern=pattern, full=full) == 0.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pattern": "("}, "not one of RE2's"),
        ({"pattern": "(?<=a)b"}, "neither look-around"),
        ({"pattern": r"(a)\1"}, "back-references"),
        ({"pattern": "((a{500}){500}){500}"}, "not one of RE2's"),
        ({"pattern": ""}, "not empty"),
        ({"pattern": 5}, "a text"),
        ({"pattern": "a", "full": "yes"}, "true or false"),
        ({}, "has no pattern"),
        ({"pattern": "a", "ful": True}, "Did you mean 'full'"),
    ],
)
def test_an_unusable_pattern_says_why(fields: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        reward("regex", "text", **fields)


PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada", "age": 36}', 1.0),
        (' {"name": "Ada"}\n', 1.0),
        ('Here you are:\n```json\n{"name": "Ada"}\n```\nBye!', 1.0),
        ('```\n{"name": "Ada"}\n```', 1.0),
        ('{"name": 5}', 0.0),
        ('{"age": 36}', 0.0),
        ('{"name": "Ada", "age": 36.5}', 0.0),
        ('{"name": "Ada", "more": 1}', 0.0),
        ('{"name": "Ada"', 0.0),
        ('The JSON is {"name": "Ada"}', 0.0),
        ('```json\n{"name": "Ada"}\n```\nor\n```json\n{"name": "Bob"}\n```', 0.0),
        ("no JSON", 0.0),
        ("null", 0.0),
        ("NaN", 0.0),
    ],
)
def test_a_response_is_valid_json_under_the_schema(text: str, expected: float) -> None:
    assert reward("json_schema", text, schema=PERSON) == expected
    assert reward("json_schema", text, schema=json.dumps(PERSON)) == expected


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "sting"}, "'sting'"),
        ({"$ref": "https://example.org/schema.json"}, "nothing is fetched"),
        ({"properties": {"a": {"items": [{"$ref": "file:///etc/x"}]}}}, "nothing is fetched"),
        ({"$ref": "#/$defs/gone"}, "does not hold"),
        ("{", "a table or the JSON text"),
        ([1], "a table or the JSON text"),
        ({"a": {1, 2}}, "is not JSON"),
        ({"pattern": "("}, "not a 'regex'"),
    ],
)
def test_an_unusable_schema_says_why(schema: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        reward("json_schema", "1", schema=schema)


def test_references_within_a_schema_work() -> None:
    schema = {"$defs": {"whole": {"type": "integer"}}, "items": {"$ref": "#/$defs/whole"}}
    assert reward("json_schema", "[1, 2]", schema=schema) == 1.0
    assert reward("json_schema", '["1"]', schema=schema) == 0.0


def test_a_schema_that_takes_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.5)
    with pytest.raises(NotChecked):
        reward("json_schema", json.dumps("a" * 60 + "b"), schema={"pattern": "^(a+)+$"})
    # Each definition asks twice for the next: 2 to the power of 40 visits.
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    doubling = {"$defs": {**steps, "d40": {}}, "$ref": "#/$defs/d0"}
    with pytest.raises(NotChecked):
        reward("json_schema", "1", schema=doubling)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_every_json_value_is_read_back_from_its_text(value: object) -> None:
    assert parsed_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "NaN", "1 2", "[" * LONG, '"\ud800"'])
def test_what_is_no_json_is_told_from_null(text: str) -> None:
    assert parsed_json(text) is NOT_JSON
    assert parsed_json("null") is None


def test_the_only_fenced_block_is_found() -> None:
    assert fenced_block("a\n```python\nb\nc\n```\nd") == "\nb\nc\n"
    assert fenced_block("a ```b``` c") is None
    assert fenced_block("```\na") is None


@pytest.mark.parametrize(
    "text",
    [
        *("0.5", "1/2", "50%", "$1/2$", r"\frac{1}{2}", "I think it is 0.5", "#### 0.5\n(3 x 14)"),
        *(r"The answer is $\frac12$.", r"so \boxed{\frac{2}{4}} it is", r"thus $x = \frac{1}{2}$"),
        *(r"\boxed{7}, no, \boxed{\dfrac{1}{2}}", "Answer: 0.50", "I see:\n$\\frac12$"),
    ],
)
def test_equal_mathematical_answers_are_right(text: str) -> None:
    assert reward("math", text, answer=r"\frac{1}{2}") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("2", "no idea", "0.51", r"\boxed{\frac{1}{3}}, not \frac{1}{2}", r"\boxed{", "$", "\\"),
        *("The answer is 5. It is the half of 10 and 1/2 of all", "(" * 900, r"\frac{1}{", "{}}}"),
    ],
)
def test_other_answers_and_garbage_are_wrong_without_a_crash(text: str) -> None:
    assert reward("math", text, answer=r"\frac{1}{2}") == 0.0


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("(x+1)^2", "$x^2 + 2x + 1$"),
        ("(x+1)^2", "The answer is x^2 + 2x + 1."),
        (r"\{1, 2\}", r"\boxed{\{2, 1\}}"),
        ("(1, 2)", r"\boxed{(1, 2)}"),
        (r"\sqrt{8}", r"\boxed{2\sqrt{2}}"),
        ("$7$", "7"),
        (7, "7.0"),
    ],
)
def test_answers_are_compared_as_mathematics(answer: object, text: str) -> None:
    assert reward("math", text, answer=answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        *((True, "a text or a number"), ([1], "a text or a number"), (" ", "1 to 2000")),
        *(("9" * 3000, "1 to 2000"), ("}{", "cannot be read")),
    ],
)
def test_an_unusable_mathematical_answer_says_why(answer: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        reward("math", "7", answer=answer)


def test_an_integer_too_long_to_be_spelt_is_an_unusable_answer() -> None:
    with pytest.raises(DataError, match="1 to 2000"):
        reward("math", "7", answer=10**5000)


def test_a_huge_factorial_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.5)
    with pytest.raises(NotChecked):
        reward("math", r"\boxed{1000000!!}", answer="7")


@pytest.mark.parametrize(
    "unit", ["a", "1 ", "$", "{", "(", "\\frac", "\\boxed{", "answer is ", "`"]
)
def test_a_long_response_is_no_slower_than_its_end(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 5.0)
    text = (unit * LONG)[:LONG]
    assert reward("math", text, answer="7") == reward("json_schema", text, schema=PERSON) == 0.0
