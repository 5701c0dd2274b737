"""The pages of the reference that are made of the code are current, and say what is so."""

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
import render_json
import render_reference

import preceptor
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import AverageReward, CompatibilityAdjustedReward
from preceptor.ranking.rank import rank
from preceptor.types import Code

PAGES = render_reference.pages()
CURRENT = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@CURRENT
def test_a_generated_page_is_what_the_code_gives(path: Path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: python docs/render_help.py"


def test_a_generated_page_is_the_same_every_time():
    assert render_reference.pages() == PAGES


def test_every_field_of_every_table_stands_on_the_page_of_the_study_file():
    page = render_reference.study_page()
    schema = preceptor.study_schema()
    for name, table in schema["$defs"].items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        fields = re.findall(r"^\| \**`(\w+)`", section, re.M)
        assert fields == list(table["properties"])
        for field, one in table["properties"].items():
            # What a table is about stands under its own heading.
            assert one.get("description") or "const" in one or "$ref" in one, f"{name}.{field}"
    top = page.split("\n## At the top\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| \**`(\w+)`", top, re.M) == list(schema["properties"])


def test_the_page_of_the_study_file_has_bounds_choices_and_defaults():
    page = render_reference.study_page()
    assert '| `kind` | `"auto"`, `"chat"`, `"reasoning"`, `"agent"` | `"auto"` |' in page
    assert "| `start` | whole number ≥ 20 | `50` |" in page
    assert re.search(r"\| \*\*`url`\*\* \| text \|  \|", page)
    assert "Stands in `[runtime.endpoints.NAME]`." in page
    assert "`[[teachers]]`" in page


def test_every_metric_stands_on_its_page_with_direction_and_measures():
    page = render_reference.metrics_page()
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| (.*)$", page, re.M))
    from preceptor.ranking.metrics import METRICS

    assert list(rows) == list(METRICS)
    for kind, metric in METRICS.items():
        cells = rows[kind].split(" | ")
        assert re.findall(r"`(\w+)`", cells[1]) == list(metric.needs)
        assert cells[2] == ("high" if metric.higher_is_better else "low")


def test_every_code_of_a_warning_is_explained_once():
    texts = Path(render_reference.__file__).with_name("warnings.toml").read_text("utf-8")
    known = tomllib.loads(texts)
    assert set(known) == set(get_args(Code))
    for code, one in known.items():
        assert set(one) == {"seen", "do"}, code
        assert one["seen"].endswith(".") and one["do"].endswith("."), code


def test_every_public_name_stands_on_the_page_of_the_python_api():
    page = PAGES[render_reference.FOLDER / "python.md"]
    for name in preceptor.__all__:
        entry = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        assert len(entry.split()) > 3, name
    assert " at 0x" not in page


def small_ranking() -> preceptor.Ranking:
    drawn = np.random.default_rng(0)
    values = {
        "reward": drawn.normal(0.5, 0.2, (3, 40)),
        "loss": drawn.uniform(1, 2, (3, 40)),
    }
    values["reward"][0, 0] = np.nan
    return rank(
        Measurements(("a", "b", "c"), 40, values),
        student="a-student",
        metrics=(CompatibilityAdjustedReward(), AverageReward()),
    )


def test_the_schema_takes_a_ranking_and_refuses_a_broken_one():
    schema = json.loads((render_reference.FOLDER / "ranking.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    whole: dict[str, Any] = json.loads(small_ranking().to_json())
    check.validate(whole)
    assert set(schema["properties"]) == set(whole)
    for breaking in (
        lambda one: one.pop("verdict"),
        lambda one: one["verdict"].update(claim="surely"),
        lambda one: one["teachers"][0].pop("p_best"),
        lambda one: one["teachers"][0].update(car="high"),
        lambda one: one["warnings"].append({"code": "unheard-of", "text": "x", "teachers": []}),
    ):
        broken = copy.deepcopy(whole)
        breaking(broken)
        assert not check.is_valid(broken)


def test_every_field_of_json_stands_on_its_page():
    page, schema = render_json.page(), render_json.schema()
    for name in schema["properties"]:
        assert f"| `{name}` |" in page
