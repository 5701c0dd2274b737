"""A study written as TOML and read again is the same study."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor import api
from preceptor.config.base import checked
from preceptor.config.data import ReadOptions
from preceptor.config.study import Study, StudyFile
from preceptor.config.toml import study_text
from preceptor.errors import StudyError

STUDIES: list[dict[str, Any]] = [
    {"data": {"responses": ["one.jsonl", 'a "quoted" \\ name\n\x7f\x00 é 😀.jsonl']}},
    {
        "data": {"responses": ["a"], "limit": 7, "columns": {"number_columns": ["scores.reward"]}},
        "students": [{"model": "one"}, {"model": "two", "dtype": "bfloat16", "max_length": 512}],
        "reward": [
            {"kind": "column", "column": "reward"},
            {"kind": "reference"},
            {"kind": "model", "model": "some/model", "trust_remote_code": True},
            {"kind": "judge", "model": "judge", "rubric": "Two\nlines.", "scale": [1, 5]},
            {
                "kind": "rule",
                "rule": {
                    "kind": "constraints",
                    "constraints": [{"name": "words", "at_least": 3}, {"name": "lower_case"}],
                },
            },
        ],
        "metrics": [{"kind": "car", "beta": 0.25}, {"kind": "reward"}, {"kind": "persyn"}],
        "by": "reward",
        "reading": {"reduction": "sequence-sum"},
        "ranking": {"seed": 2**63 - 1, "min_coverage": 1e-05, "transform": "minmax"},
        "reference_model": {"model": "another"},
    },
    {
        "data": {"instructions": "questions.jsonl"},
        "teachers": [
            {"model": "a", "engine": "fake", "temperature": [0.5, 1], "samples": 3},
            {"model": "b", "engine": "openai", "stop": ["\t"], "label": "the b"},
        ],
        "best_of_n": [
            {"kind": "best", "of": "the b", "n": 2, "reward": {"kind": "column", "column": "r"}}
        ],
        "beta": 2,
    },
]


def read_back(text: str, folder: Path) -> Study:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return StudyFile.read(path).study


@pytest.mark.parametrize("tables", STUDIES)
def test_the_text_of_a_study_is_read_as_an_equal_study(tables: dict[str, Any], tmp_path: Path):
    study = checked(Study, tables, where="here")
    assert read_back(study_text(study), tmp_path) == study


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=100)
@given(
    text=TEXTS.filter(bool),
    number=st.floats(0, allow_nan=False, allow_infinity=False),
    rule=st.dictionaries(
        TEXTS.filter(bool),
        st.recursive(
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
            max_leaves=5,
        ),
        max_size=3,
    ),
)
def test_any_text_number_and_nesting_survives(text: str, number: float, rule: dict[str, Any]):
    study = checked(Study, {"data": {"responses": [text]}, "beta": number}, where="here")
    # Of rules only what checks know is read as a study, so shapes that none has yet are read as TOML.
    tables = tomllib.loads(study_text(study_with_rule(study, rule)))
    assert tables.pop("reward") == [{"kind": "rule", "rule": rule}]
    assert checked(Study, tables, where="there") == study


def study_with_rule(study: Study, rule: dict[str, Any]) -> Study:
    """Return the study with a rule that no check has seen, to try shapes that none has today."""
    from preceptor.config.rewards import RuleReward

    return study.model_copy(update={"reward": (RuleReward.model_construct(rule=rule),)})


def test_defaults_are_left_out_but_the_kind_of_a_table_is_not():
    study, _ = api.study_of(["a.jsonl"], students=["base"], reward_column="reward")
    assert study_text(study) == (
        '[data]\nresponses = ["a.jsonl"]\n\n[[students]]\nmodel = "base"\n\n'
        '[[reward]]\nkind = "column"\ncolumn = "reward"\n'
    )


def test_options_of_the_command_line_come_back(tmp_path: Path):
    study, _ = api.study_of(
        ["a.jsonl"],
        students=["base"],
        metrics=["car", "rsr"],
        beta=1.5,
        limit=10,
        judge="judge",
        columns=ReadOptions(layout="alpaca", response_column="output"),
    )
    assert read_back(study_text(study), tmp_path) == study


def test_a_null_in_a_list_is_refused():
    study = checked(Study, {"data": {"responses": ["a"]}}, where="here")
    with pytest.raises(StudyError, match="'given' holds None"):
        study_text(study_with_rule(study, {"kind": "exact", "given": [None]}))
