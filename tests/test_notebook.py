"""The notebook of the examples runs from top to bottom, and shows what it says it shows.

Cells are run as Python, the last expression of each shown as a notebook would: no kernel is needed for that.
"""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def cells(kind: str) -> list[str]:
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    return ["".join(one["source"]) for one in whole["cells"] if one["cell_type"] == kind]


def run(source: str, names: dict[str, Any]) -> object:
    """Run a cell; return the value of its last expression, None where it ends otherwise."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    pytest.importorskip("altair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        names: dict[str, Any] = {}
        return [run(source, names) for source in cells("code")]


def test_the_ranking_shows_itself_as_a_table(shown: list[Any]):
    ranking = next(one for one in shown if hasattr(one, "verdict"))
    html = ranking._repr_html_()
    assert html.count("<tr") >= 7
    assert "written-explainer" in html
    assert ranking.verdict().claim == "no_clear_winner"
    assert {one.teacher for one in ranking if one.rank == 1} == {
        "written-explainer",
        "written-terse",
    }


def test_the_chart_and_the_frame_are_what_a_notebook_can_show(shown: list[Any]):
    chart = next(one for one in shown if hasattr(one, "to_dict") and hasattr(one, "save"))
    assert chart.to_dict()["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    frame = next(one for one in shown if hasattr(one, "columns"))
    assert len(frame) == 6
    assert frame["reward"].is_monotonic_decreasing


def test_the_notebook_is_stored_without_outputs_and_its_links_lead_somewhere():
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not one["outputs"] for one in whole["cells"] if one["cell_type"] == "code")
    assert (NOTEBOOK.parent / "../docs/tutorial/index.md").resolve().is_file()
    assert "../docs/tutorial/index.md" in cells("markdown")[-1]
