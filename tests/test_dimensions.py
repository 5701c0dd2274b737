"""Several dimensions of one study: each has its own order, and the page shows where orders change."""

import html
import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from json_form import check
from preceptor.agreement.bootstrap import adjusted_p_values, permuted_rhos
from preceptor.agreement.compare import side_by_side
from preceptor.config.base import checked
from preceptor.config.finetune import Evaluate
from preceptor.errors import StudyError
from preceptor.ranking.result import Ranking
from preceptor.report.validation import print_validation
from preceptor.validation.dimensions import Turned, dimension_tables
from preceptor.validation.result import AnswerFigures, ValidationResult, agreement_of
from small_study import preceptor, write_rows
from small_validation import study_of, tables, write_study
from test_validation_result import UP, ranking

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

DIMENSIONS = ("preference", "questions", "ifeval", "safety", "robustness")


def several(folder: Path, model: Path) -> dict[str, Any]:
    """Return the tables of a study of five dimensions, of which one has a judge."""
    given = tables(folder, model)
    sums = [{"instruction": f"What is {n} plus {n}?", "answer": 2 * n} for n in range(3)]
    few = {"max_tokens": 6, "limit": 2}
    given["evaluate"] = [
        {**given["evaluate"], "name": "preference"},
        {
            "questions": str(write_rows(folder / "sums.jsonl", sums)),
            "name": "questions",
            "max_tokens": 6,
        },
        *({"benchmarks": [name], **few} for name in DIMENSIONS[2:]),
    ]
    return given


def test_a_study_of_five_dimensions_goes_through_to_text_page_and_json(
    tmp_path: Path, model_folder: Path
):
    given = several(tmp_path, model_folder)
    study = write_study(tmp_path / "study.toml", given, tmp_path / "store")
    output, page = tmp_path / "all.json", tmp_path / "page.html"
    observed = tmp_path / "observed.csv"
    shown = preceptor("run", study, "--json", output, "--html", page, "--csv", observed)
    assert shown.exit_code == 0, shown.output
    found = json.loads(output.read_text())
    check("validation", found)
    assert [one["settings"]["dimension"] for one in found["observed"]] == list(DIMENSIONS)
    assert [one["by"] for one in found["observed"]] == [
        "win_rate",
        "ACC",
        "IF",
        "SAFE",
        "perturbed",
    ]
    # Three models are fine-tuned, whatever the number of dimensions.
    assert len({one["model"] for one in found["finetuned"]}) == 3
    (table,) = found["dimensions"]
    assert set(table["teachers"]) == {"alpha", "beta", "gamma"}
    cells = found["agreement"]["cells"]
    assert {one["student"] for one in cells} == {f"tiny-llama, {name}" for name in DIMENSIONS}
    assert found["agreement"]["means"] == []
    text = " ".join(shown.stdout.split())
    assert "Teachers by dimension, for tiny-llama" in text and "Observed, safety: " in text
    assert "checked by rules" in text and "written for the project" in text
    drawn = html.unescape(page.read_text(encoding="utf-8"))
    assert "Teachers by dimension, for tiny-llama" in drawn
    assert all(f'<th scope="col" class="number">{name}</th>' in drawn for name in DIMENSIONS)
    assert all(sentence in drawn for sentence in found["verdict"])
    assert 'class="text teacher">car: safety</th>' in drawn
    rows = observed.read_text().splitlines()
    assert "dimension" in rows[0].split(",") and len(rows) == 1 + 3 * len(DIMENSIONS)
    agrees_when_read_back(found, observed, tmp_path)
    again = preceptor("plan", study)
    assert again.exit_code == 0 and "0 requests" in again.stdout, again.output


def agrees_when_read_back(found: dict[str, Any], observed: Path, folder: Path) -> None:
    """Hold the prediction against one dimension of the CSV, and keep that as outcomes of one's own."""
    predicted = folder / "predicted.json"
    predicted.write_text(json.dumps(found["predicted"]))
    refused = preceptor("agreement", predicted, "--observed", observed)
    assert refused.exit_code != 0 and "--dimension NAME" in refused.output
    shown = preceptor(
        *("agreement", predicted, "--observed", observed, "--dimension", "safety", "--json", "-")
    )
    assert shown.exit_code == 0, shown.output
    cells = {(one["column"], one["student"]): one for one in json.loads(shown.stdout)["cells"]}
    own = [one for one in found["agreement"]["cells"] if one["student"].endswith(", safety")]
    both = [(one["rho"], cells[one["column"], "tiny-llama"]["rho"]) for one in own]
    assert len(both) > 3 and all(here == there for here, there in both)
    kept = ("--kind", "chat", "--store", folder / "store")
    added = preceptor("studies", "add", observed, "--dimension", "ifeval", *kept)
    assert added.exit_code == 0 and "3 teachers, 1 student" in added.output, added.output


def of_dimension(values: list[float], dimension: str) -> Ranking:
    found = ranking(values, measure="win")
    return replace(
        found, settings={**found.settings, "dimension": dimension, "benchmark": dimension}
    )


def test_p_is_adjusted_over_metrics_and_dimensions_at_once_and_nothing_is_averaged():
    predicted = ranking(UP)
    observed = [of_dimension(UP, "one"), of_dimension([0.3, 0.1, 0.2, 0.5, 0.4, 0.7, 0.6], "two")]
    table = agreement_of([predicted], observed, draws=200, seed=0)
    assert table is not None and not table.comparison.averaged
    assert table.comparison.students == ("s, one", "s, two")
    rhos = [row[0].rho for row in table.cells]
    alone = [agreement_of([predicted], [one], draws=200, seed=0) for one in observed]
    assert rhos == pytest.approx([one.cells[0][0].rho for one in alone if one is not None])
    (column,) = (one for one in table.comparison.columns if not one.baseline)
    chance = permuted_rhos(
        column.predicted, table.comparison.observed, draws=200, rng=np.random.default_rng([0, 1])
    )
    expected = adjusted_p_values(np.array(rhos), chance, teachers=7)
    assert [row[0].permutation.adjusted for row in table.cells] == pytest.approx(expected.tolist())
    assert expected[1] >= alone[1].cells[0][0].permutation.adjusted  # type: ignore[union-attr]
    assert {one.student for one in table.summary} == {"s, one", "s, two"}


def test_one_dimension_is_the_comparison_itself():
    alone = agreement_of([ranking(UP)], [ranking(UP, measure="win")], draws=200, seed=0)
    assert alone is not None and alone.comparison.averaged
    assert side_by_side({"": alone.comparison}) is alone.comparison


def test_an_order_turns_only_where_intervals_lie_apart_in_both_dimensions():
    # a and c change places by far; a and b by less than their intervals are wide.
    named = ("one", "two")
    observed = [
        of_dimension(values, name)
        for values, name in zip(([0.9, 0.899, 0.1], [0.1, 0.101, 0.9]), named, strict=True)
    ]
    (table,) = dimension_tables(observed, named)
    assert set(table.turned) == {Turned("a", "c", "one", "two"), Turned("b", "c", "one", "two")}
    assert (table.disagreeing, table.pairs) == (3, 3)
    said = table.sentences()
    assert said[0].startswith("s: a is ahead of c in one, and behind it in two")
    assert "3 comparisons of two teachers in two dimensions 1 more come out" in said[-1]
    assert table.places["a"]["two"].rank == 3
    assert dimension_tables(observed[:1], named[:1]) == ()


def test_an_untuned_student_is_shown_in_the_dimension_that_it_answered_in_alone():
    observed = [of_dimension(UP, name) for name in ("one", "two")]
    observed = [
        replace(one, settings={**one.settings, "judge": "j", "baseline": "b"}) for one in observed
    ]
    untuned = {"s, one": AnswerFigures(40, 1.0, 12.0, 321.0)}
    console = Console(file=StringIO(), width=200)
    found = ValidationResult((ranking(UP),), tuple(observed), (), untuned=untuned)
    print_validation(console, found)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("321") == 1
    assert said.index("321") < said.index("Observed, two")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "give benchmarks or questions"),
        ({"benchmarks": ["ifeval", "safety"]}, "an [[evaluate]] of its own"),
        (
            {"benchmarks": ["ifeval"], "baseline": "student"},
            "a baseline is compared with by a judge",
        ),
    ],
)
def test_a_table_without_a_judge_says_what_it_lacks(table: Mapping[str, Any], said: str):
    with pytest.raises(StudyError) as caught:
        checked(Evaluate, table, where="here")
    assert said in str(caught.value)


def test_two_dimensions_of_one_name_are_refused(tmp_path: Path, model_folder: Path):
    given = tables(tmp_path, model_folder, evaluate=[{"benchmarks": ["ifeval"]}] * 2)
    with pytest.raises(StudyError, match="two \\[\\[evaluate\\]\\] are called 'ifeval'"):
        study_of(given)


def test_a_judge_where_rules_check_and_none_where_one_is_needed_are_refused(
    tmp_path: Path, model_folder: Path
):
    from preceptor.benchmarks.judges import judge_of
    from preceptor.config.runtime import Runtime

    judge: Any = SimpleNamespace(kind="chat")
    for table, kinds, said in ((None, ("letter",), "give"), (judge, ("rules",), "leave")):
        with pytest.raises(StudyError, match=f"{said} \\[evaluate.judge\\]"):
            judge_of(table, Runtime(), kinds)
