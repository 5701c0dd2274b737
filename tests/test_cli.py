"""The command line: its outputs, its words, and the options that others script."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest

from preceptor.agreement.orders import read_predictions
from preceptor.cli.output import load_numpy
from preceptor.ranking.metrics import METRICS, TRANSFORMS
from preceptor.ranking.options import METRIC_NAMES, TRANSFORM_NAMES
from small_study import preceptor, ranked, shards, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

# The design names these as fixed, because others script them.
FIXED_OPTIONS = (
    "--student", "--reward-column", "--metric", "--beta", "--limit", "--max-length", "--chat-template",
    "--seed", "--store", "--json", "--csv", "--html",
)  # fmt: skip
FIXED_FIELDS = ("teacher", "rank", "n", "reward", "loss", "car", "car_low", "car_high", "p_best")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_the_options_and_fields_that_others_script_stay(tmp_path: Path, store: Path):
    said = preceptor("rank", "--help").stdout
    for option in FIXED_OPTIONS:
        assert f"{option} " in said
    (ranking,) = ranked(*write_teachers(tmp_path), "--reward-column", "reward", "--store", store)
    assert {"student", "teachers", "settings"} <= set(ranking)
    for record in ranking["teachers"]:
        assert tuple(name for name in record if name in FIXED_FIELDS) == FIXED_FIELDS


def test_the_metrics_of_the_help_are_those_that_exist():
    assert set(METRIC_NAMES) == set(METRICS) and tuple(TRANSFORMS) == TRANSFORM_NAMES


def test_json_csv_and_html_hold_the_same_order(tmp_path: Path, store: Path):
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    words = [word for kind, path in outputs.items() for word in (f"--{kind}", path)]
    given = ("rank", *write_teachers(tmp_path), "--reward-column", "reward", "--store", store)
    result = preceptor(*given, *words)
    assert result.exit_code == 0, result.output
    (ranking,) = json.loads(outputs["json"].read_text())
    with outputs["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    order = [record["teacher"] for record in ranking["teachers"]]
    assert [row["teacher"] for row in rows] == order
    assert [float(row["reward"]) for row in rows] == [r["reward"] for r in ranking["teachers"]]
    assert {row["student"] for row in rows} == {"any student"}
    page = outputs["html"].read_text()
    assert page.index(order[0]) < page.index(f">{order[1]}<")
    assert ranking["verdict"]["text"] in " ".join(result.stdout.split())


def test_json_on_standard_output_stands_alone(tmp_path: Path, store: Path):
    given = ("rank", *write_teachers(tmp_path), "--store", store, "--json", "-")
    result = preceptor(*given)
    assert json.loads(result.stdout)
    assert "alpaca layout" in result.stderr
    assert "length: 0 stored, 12 to compute" in result.stderr


def test_a_pipe_is_as_wide_as_columns_says(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    given = ("rank", *write_teachers(tmp_path), "--reward-column", "reward", "--store", store)
    rules = []
    for columns in (None, "60"):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        else:
            monkeypatch.delenv("COLUMNS", raising=False)
        rules.append(max(map(len, preceptor(*given).stdout.splitlines())))
    assert 60 < rules[0] <= 120 and rules[1] <= 60


def test_csv_or_html_on_standard_output_stands_alone(tmp_path: Path, store: Path):
    given = ("rank", *write_teachers(tmp_path), "--store", store)
    table, page = (preceptor(*given, f"--{kind}", "-").stdout for kind in ("csv", "html"))
    assert table.startswith("student,")
    assert len({len(row) for row in csv.reader(table.splitlines())}) == 1
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")


def test_two_outputs_on_standard_output_are_refused_before_anything_is_computed(
    tmp_path: Path, store: Path
):
    given = ("rank", *write_teachers(tmp_path), "--store", store)
    result = preceptor(*given, "--csv", "-", "--json", "-")
    assert result.exit_code == 2
    assert "Only one of --json, --csv and --html can go to standard output" in result.stderr
    assert not store.exists()


def test_without_rewards_both_files_name_no_source_of_them(tmp_path: Path, store: Path):
    outputs = tmp_path / "out.json", tmp_path / "out.csv"
    given = ("rank", *write_teachers(tmp_path), "--store", store)
    assert preceptor(*given, "--json", outputs[0], "--csv", outputs[1]).exit_code == 0
    assert json.loads(outputs[0].read_text())[0]["settings"]["reward"] is None
    for path in outputs:
        assert [one.rewards for one in read_predictions(path)] == [None]


def test_the_default_store_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ranked(*write_teachers(tmp_path))
    assert shards(tmp_path / ".preceptor")


def test_show_explains_every_identity_and_one_by_the_start_of_its_name(
    tmp_path: Path, store: Path, model_folder: Path
):
    given = (
        "--student",
        model_folder,
        "--chat-template",
        "plain",
        "--store",
        store,
        "--device",
        "cpu",
    )
    ranked(*write_teachers(tmp_path), *given)
    # Length, likelihood, first words, and the signs of noise looked for where there is no reward.
    listed = json.loads(preceptor("store", "list", "--store", store, "--json", "-").stdout)
    assert [(one["kind"], one["rows"]) for one in listed] == [("scores", 12)] * 4
    assert all(one["bytes"] > 100 and 0 <= one["age"] < 600 for one in listed)
    lines = preceptor("store", "list", "--store", store).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [one["identity"][:12] for one in listed]
    told = []
    for one in listed:
        shown = preceptor("store", "show", one["identity"][:12], "--store", store).stdout
        head, _, body = shown.partition("\n")
        assert head == f"scores/{one['identity']}  12 rows"
        told.append(json.loads(body))
    by_scorer = {one["spec"]["scorer"]: one for one in told}
    assert by_scorer["length"]["spec"]["encoding"] == "cl100k_base"
    spec = by_scorer["likelihood"]["spec"]
    assert spec["template"]["name"] == "plain"
    assert "folder_sha256" in spec["model"]
    assert by_scorer["likelihood"]["recorded"]["device"] == "cpu"
    assert str(tmp_path) not in json.dumps(told)


def test_show_says_what_there_is_where_nothing_fits(tmp_path: Path, store: Path):
    assert (
        preceptor("store", "list", "--store", store).stdout
        == f"The store '{store}' holds nothing.\n"
    )
    assert not store.exists()
    ranked(*write_teachers(tmp_path), "--store", store)
    result = preceptor("store", "show", "zzz", "--store", store)
    assert result.exit_code == 1
    assert "start with 'zzz': expected one. It holds " in result.stderr


def test_a_damaged_store_is_found_repaired_by_asking_again_and_pruned(tmp_path: Path, store: Path):
    given = (*write_teachers(tmp_path), "--store", store)
    ranked(*given)
    shard, *others = store.rglob("part-*.parquet")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    checked = preceptor("store", "check", "--store", store)
    assert (checked.exit_code, shard.exists()) == (1, True)
    assert "do not match the checksum" in checked.stdout
    count = 1 + len(others)
    assert f"{count} shards verified: 1 damaged, 0 set aside" in checked.stdout
    repaired = preceptor("store", "check", "--repair", "--store", store)
    assert (repaired.exit_code, shard.exists()) == (0, False)
    assert "12 to compute" in preceptor("rank", *given).stderr
    assert preceptor("store", "check", "--store", store).stdout.startswith(
        f"{count} shards verified: 0 damaged, 1 set aside"
    )
    assert "1 shard set aside" in preceptor("store", "prune", "--store", store).stdout
    assert len(list(store.rglob("damaged-*"))) == 1
    preceptor("store", "prune", "--yes", "--store", store)
    assert not list(store.rglob("damaged-*"))
    assert "12 to compute" not in preceptor("rank", *given).stderr
    preceptor("store", "prune", "--older-than", "0", "--yes", "--store", store)
    assert not list(store.rglob("*.parquet"))


def test_many_files_are_told_of_in_a_few_lines(tmp_path: Path, store: Path):
    (file,) = write_teachers(tmp_path, teachers=1)
    for place in range(20):
        (tmp_path / f"copy-{place:02d}.jsonl").write_text(file.read_text())
    result = preceptor("rank", *sorted(tmp_path.glob("*.jsonl")), "--store", store)
    assert result.stderr.count("alpaca layout") == 12
    assert "... and 9 more files" in result.stderr


def test_columns_can_be_named_where_they_are_not_recognised(tmp_path: Path, store: Path):
    rows = [{"q": f"{n}?", "x": "four " * n, "y": "sea " * (n + 1)} for n in range(1, 5)]
    (tmp_path / "wide.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--instruction-column", "q", "--teacher-columns", "x, y", "--store", store)
    (ranking,) = ranked(tmp_path / "wide.jsonl", *words)
    assert {record["teacher"] for record in ranking["teachers"]} == {"x", "y"}


def test_matrix_products_of_the_command_use_one_thread_and_tell_no_one(
    monkeypatch: pytest.MonkeyPatch,
):
    assert "numpy" in sys.modules
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    load_numpy()
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    load_numpy()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
