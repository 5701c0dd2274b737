"""The paper's tables: transcribed to the digit and recomputed to the digit.

Golden numbers are printed in Xu et al., "Stronger Models are Not Always Stronger Teachers for Instruction
Tuning" (NAACL 2025).
"""

import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from preceptor.errors import StudyError
from preceptor.studies import (
    STUDENTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    average_performance,
    families,
    metric_correlations,
    table,
)

D = Decimal

ROOT = Path(__file__).parents[1]


def test_every_table_has_the_rows_that_are_printed():
    sizes = {number: len(table(number)) for number in range(1, 10)}
    # 7: 19 teachers by 5 students. 4: 9 metrics by 5 students and an average. 8: 4 runs and 2 summaries.
    assert sizes == {1: 20, 2: 7, 3: 8, 4: 54, 5: 10, 6: 11, 7: 95, 8: 6, 9: 20}
    assert len({(row.student, row.teacher) for row in TABLE_7}) == 95


def test_a_table_the_paper_does_not_have_is_refused():
    with pytest.raises(StudyError, match="tables 1 to 9, and no table 10"):
        table(10)


def test_digits_are_as_printed_with_their_trailing_zeros():
    assert str(TABLE_2[0].alpaca_wr) == "13.70"  # Table 2, Gemma-2-9b-it, WR.
    assert str(TABLE_6[0].arena_hard) == "15.90"  # Table 6, Qwen2.5-3B-Instruct, AH.
    assert str(TABLE_8[1].average) == "13.040"  # Table 8, seed 123.
    assert [cell.rho for cell in TABLE_4 if cell.rho < 0] == [D("-0.0614")]  # PPL-Self, Qwen2.5-3B.


def test_the_students_are_table_7_s_in_its_order():
    assert STUDENTS == (
        "Qwen2-1.5B",
        "Gemma 2-2B",
        "Qwen2.5-3B",
        "Llama-3.2-3B",
        "Llama-3.1-Minitron-4B",
    )


def test_every_teacher_is_one_of_table_1_and_only_gpt_4_is_untested():
    known = {generator.label for generator in TABLE_1}
    used = {row.teacher for row in (*TABLE_2, *TABLE_3, *TABLE_6, *TABLE_7)}
    assert used <= known
    assert known - {row.teacher for row in TABLE_7} == {"GPT-4 & GPT-4 Turbo"}


def test_a_family_goes_from_the_smallest_to_the_largest():
    sizes = {generator.label: generator.size or 0 for generator in TABLE_1}
    assert {family: len(members) for family, members in families().items()} == {
        "Qwen2": 3,
        "Qwen2.5": 5,
        "Llama 3": 2,
        "Llama 3.1": 3,
        "Gemma 2": 3,
        "Phi-3": 3,
    }
    for members in families().values():
        assert [sizes[one] for one in members] == sorted(sizes[one] for one in members)


def test_table_7_is_read_by_its_columns():
    # Column, AE2 WR, AE2 LC and AH of the printed rows: first, middle and last of the columns.
    printed = {
        ("Qwen2-1.5B", "Phi-3 Mini"): ("3.65", "2.85", "1.8"),
        ("Gemma 2-2B", "Gemma 2 2B"): ("16.88", "12.93", "12.9"),
        ("Qwen2.5-3B", "Qwen2 1.5B"): ("2.98", "2.54", "2.1"),
        ("Llama-3.2-3B", "Llama 3.1 405B"): ("6.44", "5.17", "5.3"),
        ("Llama-3.1-Minitron-4B", "Qwen2.5 72B"): ("19.58", "17.77", "12.2"),
    }
    for row in TABLE_7:
        if (row.student, row.label) in printed:
            scores = printed.pop((row.student, row.label))
            assert (str(row.alpaca_wr), str(row.alpaca_lc), str(row.arena_hard)) == scores
    assert not printed


def test_the_recipe_is_table_5_s():
    recipe = {setting.name: setting.value for setting in TABLE_5}
    assert (recipe["Learning Rate"], recipe["Warmup Steps"]) == ("2e-5", "100")
    assert recipe["Max Sequence Length"] == "4096"


def test_ap_is_the_mean_of_lc_and_arena_hard_by_student_and_model_id():
    performance = average_performance()
    assert tuple(performance) == STUDENTS
    assert {len(values) for values in performance.values()} == {19}
    # Table 7: (12.93 + 12.9) / 2, (14.79 + 24.8) / 2, (2.18 + 1.2) / 2.
    assert performance["Gemma 2-2B"]["Gemma-2-2b-it"] == 12.915
    assert performance["Qwen2.5-3B"]["Qwen2.5-3B-Instruct"] == 19.795
    assert performance["Qwen2-1.5B"]["Phi-3-medium-128k-instruct"] == 1.69


def test_ap_has_no_ties_so_that_ranks_are_whole_numbers():
    for values in average_performance().values():
        assert len(set(values.values())) == 19


def test_correlations_are_table_4_s_under_our_names():
    correlations = metric_correlations()
    assert tuple(correlations) == (
        "reward_armorm",
        "reward_skywork_8b",
        "reward_skywork_27b",
        "ifd_gpt2",
        "ifd",
        "ppl_gpt2",
        "perplexity",
        "length",
        "car",
    )
    assert all(tuple(values) == STUDENTS for values in correlations.values())
    # Table 4, row Llama 3.2-3B and row Llama-3.1-Minitron-4B.
    assert correlations["car"]["Llama-3.2-3B"] == 0.9053
    assert correlations["length"]["Llama-3.1-Minitron-4B"] == 0.5807


def test_the_instruct_model_of_table_3_is_the_base_model_of_table_7():
    greedy = next(row for row in TABLE_3 if row.name == "Qwen2.5-3B-Instruct, Greedy")
    same = next(
        row for row in TABLE_7 if (row.student, row.teacher) == ("Qwen2.5-3B", "Gemma-2-9b-it")
    )
    assert (greedy.alpaca_lc, greedy.alpaca_wr, greedy.arena_hard) == (
        same.alpaca_lc,
        same.alpaca_wr,
        same.arena_hard,
    )


def audit(package: Path) -> subprocess.CompletedProcess[str]:
    """Run the audit over the tables of a package."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "paper" / "audit.py")],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(package), "PATH": ""},
    )


def test_whatever_does_not_agree_is_an_erratum_and_every_erratum_is_there():
    done = audit(ROOT / "src")
    assert done.returncode == 0, done.stdout
    assert "138 printed numbers" in done.stdout and done.stdout.endswith("Passed.\n")
    for erratum in (
        "in fact n = 19",
        "in fact mean of LC, WR and AH",
        "in fact a coefficient of variation of 2.89%",
        "in fact Qwen2.5-3B",
        "6, Gemma-2-9b-it, AP: 24.00; recomputed 24.00667",
    ):
        assert erratum in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("16.15]", "16.16]", "No erratum explains this. Table 2, Qwen2.5-72B-Instruct, AP"),
        ("0.5877, 0.9053]", "0.5877, 0.9054]", "Table 4, Llama 3.2-3B, CAR"),
        ("25.00]", "25.03]", "An erratum tells of what is not there. Table 6, Gemma-2-27b-it"),
    ],
)
def test_the_audit_fails_where_a_number_is_off(tmp_path: Path, before: str, after: str, fault: str):
    package = tmp_path / "preceptor"
    shutil.copytree(ROOT / "src" / "preceptor", package, ignore=shutil.ignore_patterns("*.pyc"))
    data = package / "studies" / "tables.toml"
    text = data.read_text(encoding="utf-8")
    assert before in text
    data.write_text(text.replace(before, after), encoding="utf-8")
    done = audit(tmp_path)
    assert done.returncode == 1
    assert fault in done.stdout and "Passed" not in done.stdout
