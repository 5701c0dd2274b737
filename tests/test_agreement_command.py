"""`preceptor agreement` from files to table, JSON and CSV: complete, escaped, readable, quick."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console

from preceptor.agreement.compare import compare
from preceptor.agreement.orders import read_observed, read_predictions
from preceptor.agreement.table import AgreementTable
from preceptor.report.agreement import (
    print_agreement,
    print_calibration,
    print_differences,
    print_families,
    print_notes,
)
from small_study import preceptor, write_teachers
from table_seven import TEACHERS, average_performance

ZOO = Path(__file__).parents[2] / "shared" / "data" / "zoo"
AP = average_performance()


@pytest.fixture
def observed(tmp_path: Path) -> Path:
    path = tmp_path / "observed.csv"
    rows = [f"{teacher},{student},{ap}" for student in AP for teacher, ap in AP[student].items()]
    path.write_text("\n".join(["teacher,student,AP", *rows]), encoding="utf-8")
    return path


def write_predictions(
    path: Path, *, student: str = "any student", names: tuple[str, ...] = TEACHERS
) -> Path:
    """Write a ranking as `preceptor rank --json` does, with rewards that follow table 7's mean."""
    rng = np.random.default_rng(4)
    mean = np.mean([list(row.values()) for row in AP.values()], axis=0)[: len(names)]
    reward = mean + rng.normal(size=len(names))
    loss = 2 - mean / 10 + 0.2 * rng.normal(size=len(names))
    records = [
        {"teacher": name, "rank": 1, "n": 9, "reward": r, "loss": x, "car": r / (1 + 3 * x),
         "car_low": 0.0, "car_high": 9.0, "p_best": 0.1, "entropy": 1.0}
        for name, r, x in zip(names, reward.tolist(), loss.tolist(), strict=True)
    ]  # fmt: skip
    path.write_text(json.dumps([{"student": student, "by": "car", "teachers": records}]))
    return path


def agree(*arguments: object) -> Result:
    result = preceptor("agreement", *arguments)
    assert result.exit_code == 0, result.output
    return result


def words(result: Result) -> str:
    return " ".join(result.stdout.split())


def test_the_table_has_table_4s_layout(tmp_path: Path, observed: Path):
    said = agree(write_predictions(tmp_path / "p.json"), "--observed", observed).stdout.splitlines()
    # Prose has single spaces, and may wrap anywhere.
    table = [line for line in said if "  " in line]
    heading = next(line for line in table if line.startswith("student "))
    assert heading.split() == ["student", "car", "reward", "loss", "size", "prior"]
    rows = [line for line in table if line.startswith((*(f"{name} " for name in AP), "mean "))]
    assert len(rows) == len(AP) + 1
    assert rows[-1].split()[-1] == "0.922"  # the prior's mean; see test_agreement
    assert any("With 19 teachers" in line for line in said)


def test_every_question_is_answered_on_request(tmp_path: Path, observed: Path):
    path = write_predictions(tmp_path / "p.json")
    asked = ("--baseline", "car", "--by-family", "--calibrate", "--n-resamples", "200")
    said = words(agree(path, "--observed", observed, *asked))
    for part in ("Mean rho less that of car", "By family", "Calibration", "student held out"):
        assert part in said
        assert part not in words(agree(path, "--observed", observed, "--n-resamples", "200"))


def test_json_and_csv_hold_every_cell(tmp_path: Path, observed: Path):
    path = write_predictions(tmp_path / "p.json")
    table, whole = tmp_path / "out.csv", tmp_path / "out.json"
    asked = ("--baseline", "prior", "--by-family", "--calibrate", "--n-resamples", "200")
    agree(path, "--observed", observed, *asked, "--json", whole, "--csv", table)
    held = json.loads(whole.read_text())
    assert len(held["cells"]) == 5 * 5
    assert len(held["means"]) == len(held["families"]) == len(held["columns"]) == 5
    assert len(held["differences"]) == 4
    assert {one["name"] for one in held["calibration"]["students"]} == set(AP)
    assert held["teachers"] == list(TEACHERS)
    assert held["settings"]["seed"] == 0
    assert held["left_out"] and held["warnings"] and held["verdict"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows][-5:] == ["mean"] * 5
    assert [float(row["rho"]) for row in rows[:25]] == [cell["rho"] for cell in held["cells"]]


def test_teachers_by_hub_id_short_name_and_label_are_the_same(tmp_path: Path, observed: Path):
    names = ("google/gemma-2-2b-it", "gemma-2-9b-it", "Gemma-2-27b-it", "someone/else")
    path = write_predictions(tmp_path / "p.json", names=names)
    held = json.loads(agree(path, "--observed", observed, "--json", "-").stdout)
    assert held["teachers"] == ["Gemma-2-2b-it", "Gemma-2-9b-it", "Gemma-2-27b-it"]
    assert "Left out, predicted but not observed: someone/else." in held["left_out"]


def test_a_benchmark_without_students_is_one_more_baseline(tmp_path: Path, observed: Path):
    scores = tmp_path / "benchmark.csv"
    scores.write_text("teacher,lc\n" + "".join(f"{name},{k}\n" for k, name in enumerate(TEACHERS)))
    path = write_predictions(tmp_path / "p.json")
    given = (path, scores, "--observed", observed, "--n-resamples", "200")
    assert "not judged: entropy, lc." in words(agree(*given))
    held = json.loads(agree(*given, "--higher-is-better", "lc", "--json", "-").stdout)
    assert "lc" in [column["title"] for column in held["columns"]]


def test_rows_and_columns_can_be_restricted(tmp_path: Path, observed: Path):
    path = write_predictions(tmp_path / "p.json")
    asked = ("--metric", "car", "--student", "Qwen/Qwen2.5-3B", "--json", "-")
    held = json.loads(agree(path, "--observed", observed, *asked).stdout)
    assert held["students"] == ["Qwen2.5-3B"]
    assert [column["title"] for column in held["columns"]] == ["car", "size", "prior"]
    assert "teachers, 1 student Observed:" in words(agree(path, "--observed", observed, *asked[:4]))


def test_what_rank_writes_is_what_agree_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    outputs = {kind: tmp_path / f"ranking.{kind}" for kind in ("json", "csv")}
    files = [word for kind, path in outputs.items() for word in (f"--{kind}", path)]
    given = (
        *write_teachers(tmp_path / "data", 4),
        "--reward-column",
        "reward",
        "--metric",
        "reward",
    )
    ranked = preceptor("rank", *given, "--store", tmp_path / "store", *files)
    assert ranked.exit_code == 0, ranked.output
    outcomes = tmp_path / "observed.csv"
    names = ("alpha", "beta", "gamma", "delta")
    outcomes.write_text(
        "teacher,student,AP\n" + "".join(f"{n},s,{k}\n" for k, n in enumerate(names))
    )
    seen = [
        json.loads(
            agree(path, "--observed", outcomes, "--json", "-", "--n-resamples", "200").stdout
        )
        for path in outputs.values()
    ]
    assert seen[0]["means"] == seen[1]["means"]
    assert "reward" in [column["metric"] for column in seen[0]["columns"]]
    # An order observed by rank itself agrees perfectly with its own prediction.
    itself = agree(
        outputs["json"], "--observed", outputs["json"], "--json", "-", "--n-resamples", "200"
    )
    assert json.loads(itself.stdout)["means"][0]["rho"] == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--metric", "cra"), "Did you mean 'car'"),
        (("--baseline", "priro"), "Did you mean 'prior'"),
        (("--higher-is-better", "loss"), "by declaration"),
        (
            ("--higher-is-better", "x", "--lower-is-better", "x"),
            "to both --higher-is-better and",
        ),
        (("--n-resamples", "5"), "100 or more"),
    ],
)
def test_mistakes_are_worded_and_not_traced(
    tmp_path: Path, observed: Path, arguments: tuple[str, ...], said: str
):
    path = write_predictions(tmp_path / "p.json")
    result = preceptor("agreement", path, "--observed", observed, *arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_the_outcomes_of_xu2024_are_table_7(tmp_path: Path):
    path = write_predictions(tmp_path / "p.json")
    result = preceptor("agreement", path, "--observed", "xu2024", "--json", "-")
    held = json.loads(result.stdout)
    assert held["teachers"] == list(TEACHERS)
    (prior,) = [one for one in held["means"] if one["column"] == "prior"]
    assert prior["rho"] == pytest.approx(0.922466, abs=1e-6)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut_or_folded_at_any_width(tmp_path: Path, observed: Path, width: int):
    paths = [write_predictions(tmp_path / f"{name}.json", student=name) for name in ("one", "two")]
    found = compare(
        [read_predictions(str(path))[0] for path in paths], read_observed(str(observed))
    )
    table = AgreementTable(found, draws=200)
    # The two files hold the same numbers, so their columns are one.
    assert [column.title for column in found.columns][:3] == ["car", "reward", "loss"]
    screen = Console(width=width, file=io.StringIO())
    print_agreement(screen, table, source="a file")
    lines = screen.file.getvalue().splitlines()
    headings = [line.split() for line in lines if line.startswith("student ")]
    assert [name for names in headings for name in names[1:]] == [c.title for c in found.columns]
    for student in AP:
        assert sum(line.startswith(f"{student} ") for line in lines) == len(headings)
    print_differences(screen, table, table.differences("car"))
    print_families(screen, table.by_family())
    print_calibration(screen, table.calibration())
    print_notes(screen, found.left_out, table.warnings())
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        for cell in (*table.means, *(cell for row in table.cells for cell in row)):
            assert f"{cell.rho:.3f}" in text
        for line in text.splitlines():
            assert line.count("[") == line.count("]")


def test_labels_cannot_drive_the_terminal(tmp_path: Path):
    names = [f"\x1b[31m[bold]model {k}" for k in range(4)]
    path = write_predictions(tmp_path / "p.json", names=tuple(names))
    outcomes = tmp_path / "o.csv"
    with outcomes.open("w", newline="") as file:
        rows = [[name, f"s\x1b[2J{s}", k * s] for s in (1, -1) for k, name in enumerate(names)]
        csv.writer(file).writerows([["teacher", "student", "AP"], *rows])
    asked = ("--baseline", "car", "--by-family", "--calibrate", "--n-resamples", "200")
    said = agree(path, "--observed", outcomes, *asked).stdout
    assert "\x1b" not in said
    assert "\\x1b[31m[bold]model 3" in said


def test_real_responses_of_the_papers_teachers_meet_table_7(
    tmp_path: Path, observed: Path, monkeypatch: pytest.MonkeyPatch
):
    files = sorted(ZOO.glob("*.jsonl"))
    if not files:
        pytest.skip("the shared responses of the paper's teachers are not here")
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "ranking.json"
    given = ("--metric", "length", "--limit", "40", "--store", tmp_path / "store", "--json", out)
    assert preceptor("rank", *files, *given).exit_code == 0
    held = json.loads(agree(out, "--observed", observed, "--json", "-").stdout)
    assert len(held["teachers"]) == 9
    assert "Left out, predicted but not observed: Phi-3-medium-4k-instruct." in held["left_out"]


@pytest.mark.parametrize(("option", "value"), [("--seed", "-1"), ("--n-resamples", "0")])
def test_a_number_out_of_range_is_refused_by_name(option: str, value: str):
    shown = preceptor("agreement", "case.json", "--observed", "xu2024", option, value)
    assert shown.exit_code == 2
    assert option in shown.output and value in shown.output
