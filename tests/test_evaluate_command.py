"""The command `evaluate`: what it prints, what it writes, and what it refuses."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from json_form import check
from small_study import preceptor, write_rows

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")

INSTRUCTIONS = 40
SCORES = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


def annotations(model: str, *, share: float, count: int = INSTRUCTIONS) -> list[dict]:
    rng = np.random.default_rng(len(model))
    return [
        {
            "instruction": f"Question {place}?",
            "output_1": "x" * int(rng.integers(100, 900)),
            "generator_1": "gpt4_1106_preview",
            "output_2": "y" * int(rng.integers(50, 500)),
            "generator_2": model,
            "annotator": "judge",
            "preference": 1 + float(rng.beta(8 * share, 8 * (1 - share))),
        }
        for place in range(count)
    ]


def judgements(model: str, *, count: int = 30) -> list[dict]:
    rng = np.random.default_rng(len(model))
    return [
        {
            "question_id": f"q{place}",
            "model": model,
            "judge": "judge",
            "games": [{"score": SCORES[pick]} for pick in rng.integers(5, size=2)],
        }
        for place in range(count)
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    gamed = ["preference,index,std_delta_len,instruction_difficulty"]
    for place in range(2 * INSTRUCTIONS):
        index = place % INSTRUCTIONS
        gamed.append(f"{rng.random():.3f},{index},{rng.normal():.3f},{index / 20 - 1:.3f}")
    (tmp_path / "gamed.csv").write_text("\n".join(gamed) + "\n")
    listed = [{"instruction": f"Question {place}?"} for place in range(INSTRUCTIONS)]
    both = [*annotations("run-a", share=0.3), *annotations("run-bb", share=0.6)]
    return {
        "alpaca": write_rows(tmp_path / "annotations.jsonl", both),
        "arena": write_rows(tmp_path / "arena.jsonl", judgements("run-a")),
        "instructions": write_rows(tmp_path / "instructions.jsonl", listed),
        "gamed": tmp_path / "gamed.csv",
    }


def calibrated(files: dict[str, Path]) -> list[object]:
    return ["--instructions", files["instructions"], "--gamed", files["gamed"]]


def test_one_table_holds_both_benchmarks(files):
    result = preceptor("evaluate", files["alpaca"], files["arena"], *calibrated(files))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    heading = next(line for line in lines if "model" in line)
    assert all(name in heading for name in ("LC [95% interval]", "WR", "AH [95% interval]"))
    assert "AP [" not in heading
    better, worse = (next(line for line in lines if name in line) for name in ("run-bb", "run-a "))
    assert lines.index(better) < lines.index(worse)
    said = " ".join(result.stdout.split())
    assert "run-a: 30 of Arena-Hard v0.1's 500 prompts have a verdict." in said
    assert "run-a: No AP: 95.0% of AlpacaEval 2's verdicts are missing" in said


def test_json_holds_every_number_and_its_cautions(files):
    given = ["evaluate", files["alpaca"], files["arena"], *calibrated(files), "--json", "-"]
    one, again, other = (preceptor(*given, "--seed", seed).stdout for seed in (0, 0, 1))
    assert one == again != other
    found = json.loads(one)
    check("evaluation", found)
    better, worse = found["results"]
    assert (better["model"], worse["model"]) == ("run-bb", "run-a")
    assert (better["AH"], better["AP"], worse["AP"]) == (None, None, None)
    for field in ("LC", "WR"):
        assert worse[f"{field}_low"] < worse[field] < worse[f"{field}_high"]
    rows = annotations("run-a", share=0.3)
    expected = 100 * np.mean([row["preference"] - 1 for row in rows])
    assert worse["WR"] == pytest.approx(expected)
    assert (worse["alpaca_eval_judge"], worse["alpaca_eval_n"]) == ("judge", INSTRUCTIONS)
    assert len(worse["warnings"]) >= 3
    assert found["warnings"] == []


@pytest.fixture
def whole(tmp_path: Path) -> list[object]:
    """Arguments for one student that answered all of both benchmarks."""
    # Compact rows with positions need no texts; the list may hold 804 of the 805 instructions.
    rng = np.random.default_rng(4)
    count = 804
    gamed = "".join(
        f"{rng.random():.3f},{place % count},{rng.normal():.3f},{place % count / 400 - 1:.4f}\n"
        for place in range(2 * count)
    )
    (tmp_path / "gamed.csv").write_text(
        "preference,index,std_delta_len,instruction_difficulty\n" + gamed
    )
    columns = {
        "idx": list(range(count)),
        "pref": (1 + rng.beta(2, 5, size=count)).tolist(),
        "len_base": rng.integers(100, 900, size=count).tolist(),
        "len_model": rng.integers(100, 900, size=count).tolist(),
    }
    (tmp_path / "preferences.json").write_text(json.dumps({"ae-run": columns}))
    listed = write_rows(
        tmp_path / "i.jsonl", [{"instruction": f"Q{place}"} for place in range(count)]
    )
    arena = write_rows(tmp_path / "arena.jsonl", judgements("ah-run", count=500))
    few = write_rows(tmp_path / "few.jsonl", judgements("few-run", count=20))
    return [
        "evaluate",
        *[tmp_path / "preferences.json", arena, few],
        *["--instructions", listed, "--gamed", tmp_path / "gamed.csv"],
    ]


def test_csv_is_an_observed_order_where_the_names_are_given(whole):
    names = ["--teacher", "ae-run=Qwen", "--teacher", "ah-run=Qwen", "--student", "gemma"]
    result = preceptor(*whole, *names, "--csv", "-")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["teacher"], row["student"]) == ("Qwen", "gemma")
    assert float(row["AP"]) == pytest.approx((float(row["LC"]) + float(row["AH"])) / 2)
    assert float(row["AP_low"]) < float(row["AP"]) < float(row["AP_high"])
    assert "1 without an AP is not in the CSV: nothing observed." in result.stderr


def test_csv_without_names_keeps_every_model(whole):
    rows = list(csv.DictReader(io.StringIO(preceptor(*whole, "--csv", "-").stdout)))
    assert {row["model"] for row in rows} == {"ah-run", "few-run", "ae-run"}
    assert all(row["AP"] == "" for row in rows)


def test_names_from_files_cannot_drive_the_terminal(tmp_path):
    file = write_rows(tmp_path / "arena.jsonl", judgements("\x1b[31m[bold]m"))
    shown = preceptor("evaluate", file).stdout
    assert "\x1b" not in shown
    assert "\\x1b[31m[bold]m" in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--teacher", "run-a"], "expected MODEL=TEACHER"),
        (["--teacher", "x=y"], "No judgement is of the model 'x'"),
        (["--gamed", "absent.csv", "--instructions", "absent.json"], "Cannot read 'absent.json'"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(files, given, said):
    result = preceptor("evaluate", files["alpaca"], *calibrated(files), *given)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_model_name_may_hold_an_equals_sign(tmp_path):
    file = write_rows(tmp_path / "arena.jsonl", judgements("lr=2e-5"))
    found = json.loads(preceptor("evaluate", file, "--teacher", "lr=2e-5=T", "--json", "-").stdout)
    assert found["results"][0]["teacher"] == "T"


def test_without_network_or_files_the_win_rate_remains_and_the_reason_is_told(files, tmp_path):
    code = "import sys; from preceptor.cli.app import main; sys.argv[0] = 'preceptor'; main()"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", files["alpaca"], "--json", "-"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["LC"] for row in found["results"]] == [None, None]
    assert all(row["WR"] > 0 for row in found["results"])
    assert "give --instructions and --gamed" in found["warnings"][0]


def test_arena_hard_alone_asks_for_no_calibration(files):
    result = preceptor("evaluate", files["arena"], "--json", "-")
    assert json.loads(result.stdout)["warnings"] == []


@needs_data
def test_published_numbers_come_out_of_the_command():
    alpaca, arena = DATA / "alpaca_eval2", DATA / "arena_hard"
    result = preceptor(
        "evaluate",
        *[alpaca / "annotations_claude-2.1.json", arena / "battles_official.jsonl"],
        *["--instructions", alpaca / "instructions.json", "--gamed", alpaca / "gamed_rebuilt.csv"],
        *["--json", "-"],
    )
    rows = {row["model"]: row for row in json.loads(result.stdout)["results"]}
    # The leaderboards: claude-2.1 of AlpacaEval 2, gpt-4-0613 of Arena-Hard v0.1 (2024-07-31).
    assert rows["claude-2.1"]["WR"] == pytest.approx(15.733506736409938, abs=1e-9)
    assert rows["claude-2.1"]["WR_standard_error"] == pytest.approx(1.120315865445773, abs=1e-9)
    assert rows["claude-2.1"]["LC"] == pytest.approx(25.251943886133027, abs=0.16)
    assert rows["gpt-4-0613"]["AH"] == pytest.approx(37.90, abs=0.005)


def battles(model: str) -> list[dict]:
    """Return battles as published, which name no judge."""
    row = {"model_a": "gpt-4-0314", "model_b": model, "winner": "tie"}
    return [{"question_id": f"q{place}", **row} for place in range(5)]


def compact(model: str) -> dict:
    """Return compact preferences, which name no judge."""
    many = {"len_base": [10] * 5, "len_model": [20] * 5}
    return {model: {"idx": list(range(5)), "pref": [1.5] * 5, **many}}


@pytest.mark.parametrize("kind", ["arena_hard", "alpaca_eval"])
def test_verdicts_that_name_no_judge_are_never_mixed_with_others(tmp_path, kind):
    def file(model: str) -> Path:
        rows = battles(model) if kind == "arena_hard" else [compact(model)]
        return write_rows(tmp_path / f"{model}.json", rows)

    one, other = file("one"), file("other")
    named = judgements("third") if kind == "arena_hard" else annotations("third", share=0.5)
    judged = write_rows(tmp_path / "judged.jsonl", named)
    assert preceptor("evaluate", one).exit_code == 0
    for files, said in (((one, other), "do not say who"), ((one, judged), "does not say who")):
        refused = preceptor("evaluate", *files)
        assert refused.exit_code == 1
        assert said in refused.stderr and "--judged-by FILE=JUDGE" in refused.stderr
    given = ("evaluate", one, other, "--json", "-")
    found = json.loads(preceptor(*given, "--judged-by", "j").stdout)
    assert {row[f"{kind}_judge"] for row in found["results"]} == {"j"}
    assert not any("different judges" in text for text in found["warnings"])
    apart = ("--judged-by", f"{one}=a=b", "--judged-by", f"{other}=c")
    found = json.loads(preceptor(*given, *apart).stdout)
    assert [row[f"{kind}_judge"] for row in found["results"]] == ["a=b", "c"]
    assert any("different judges: a=b, c" in text for text in found["warnings"])


def test_who_judged_is_said_once_and_not_against_the_file(tmp_path):
    judged = write_rows(tmp_path / "judged.jsonl", judgements("m"))
    against = preceptor("evaluate", judged, "--judged-by", f"{judged}=another")
    assert "was judged by 'judge', as it says itself" in against.stderr
    twice = preceptor("evaluate", judged, "--judged-by", "a", "--judged-by", "b")
    assert "names two judges of the same files" in twice.stderr
    assert "expected JUDGE" in preceptor("evaluate", judged, "--judged-by", f"{judged}=").stderr
