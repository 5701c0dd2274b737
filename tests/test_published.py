"""The paper's tables: transcribed to the digit and recomputed to the digit.

Golden numbers are printed in Xu et al., "Stronger Models are Not Always Stronger Teachers for Instruction
Tuning" (NAACL 2025).
"""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from preceptor.errors import StudyError
from preceptor.studies import (
    ERRATA,
    STUDENTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_9,
    Agreement,
    BenchmarkRow,
    Check,
    Correlation,
    average_performance,
    checks,
    families,
    faults,
    metric_correlations,
    table,
)
from preceptor.studies.checks import agreement, as_defined, fits_untied, rounding_rules, shown

D = Decimal

# Every recomputed number that does not simply round to the printed one: table, row, column.
NOT_EQUAL = {
    (2, "Gemma-2-9b-it", "AP"): "half digit",
    (2, "Gemma-2-27b-it", "AP"): "half digit",
    (2, "Llama-3-70b-Instruct", "AP"): "half digit",
    (2, "GPT-4", "AP"): "half digit",
    (3, "Llama-3.1-Minitron-4B, Sampling", "AP"): "half digit",
    (3, "Llama-3.1-Minitron-4B, Greedy", "AP"): "half digit",
    (3, "Qwen2.5-3B-Instruct, Best-of-N", "AP"): "half digit",
    (3, "Qwen2.5-3B-Instruct, Worst-of-N", "AP"): "half digit",
    (3, "Qwen2.5-3B-Instruct, Sampling", "AP"): "half digit",
    (8, "Average", "WR"): "half digit",
    (4, "Average", "IFD-GPT2"): "rounded inputs",
    (6, "Gemma-2-9b-it", "AP"): "rounded inputs",
    (3, "Llama-3.1-Minitron-4B, Greedy", "WR"): "inconsistent",
    (4, "Qwen2-1.5B", "PPL-GPT2"): "inconsistent",
    (4, "Llama-3.1-Minitron-4B", "IFD-Self"): "inconsistent",
    (6, "Gemma-2-27b-it", "AP"): "inconsistent",
}

CELLS = [cell for cell in (*TABLE_4, *TABLE_9) if cell.student]


def place_of(check: Check) -> tuple[int, str, str]:
    return (check.table, check.row, check.column)


def cell_name(cell: Correlation) -> str:
    return f"table {cell.table}, {cell.label}, {cell.heading}"


# The tables themselves.


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


# Numbers recomputed from numbers.


@pytest.mark.parametrize("check", checks(), ids=lambda one: "-".join(map(str, place_of(one))))
def test_a_recomputed_number_is_the_printed_one_to_its_last_digit_or_a_listed_exception(
    check: Check,
):
    half = D((0, (5,), int(check.printed.as_tuple().exponent) - 1))
    gap = abs(check.recomputed - check.printed)
    exception = NOT_EQUAL.get(place_of(check))
    if check.formula in ("as in table 4", "as in table 7") and exception is None:
        assert gap == 0
    assert (gap < half) == (exception is None)
    assert (gap == half) == (exception == "half digit")


def test_the_exceptions_are_those_and_no_others():
    found = {place_of(one): str(one.agreement) for one in checks() if one.agreement != "equal"}
    assert found == NOT_EQUAL
    assert Counter(NOT_EQUAL.values()) == {"half digit": 10, "rounded inputs": 2, "inconsistent": 4}


def test_every_kind_of_number_is_checked():
    counts = Counter(one.table for one in checks())
    # 2, 3, 6: an AP each row, 3 also its 6 greedy scores. 4: 45 cells and 9 averages. 8: 4 rows, 4 means, 4
    # deviations, the caption. 9: 20 cells, 15 of them also in table 4.
    assert counts == {1: 2, 2: 7, 3: 14, 4: 54, 5: 1, 6: 11, 7: 1, 8: 13, 9: 35}


@pytest.mark.parametrize("cell", CELLS, ids=cell_name)
def test_a_rho_times_1140_is_an_even_sum_of_squared_rank_differences(cell: Correlation):
    # n = 19: n (n^2 - 1) / 6 = 1140; four digits of rho fix the sum to within 0.057.
    total = (1 - cell.rho) * 1140
    off = abs(total - 2 * round(total / 2))
    wrong = {"0.1473": D("0.0780"), "0.8555": D("0.7300")}
    assert off == wrong[str(cell.rho)] if str(cell.rho) in wrong else off <= D("0.057")


def test_nineteen_teachers_explain_table_4_and_twenty_do_not():
    rhos = [cell.rho for cell in TABLE_4 if cell.student]
    fitting = {n: sum(fits_untied(rho, n) for rho in rhos) for n in range(15, 24)}
    assert fitting[19] == 43
    assert fitting[20] == 9
    assert max(fits for n, fits in fitting.items() if n != 19) == 9


def test_the_odd_ifd_of_minitron_would_fit_eighteen_teachers():
    # 1 - 6 x 140 / (18 x 323) = 0.85552.
    assert [n for n in range(15, 24) if fits_untied(D("0.8555"), n)] == [18]
    assert [n for n in range(15, 24) if fits_untied(D("0.1473"), n)] == []


@pytest.mark.parametrize("row", [*TABLE_6, *TABLE_8], ids=lambda row: row.name)
def test_no_average_of_tables_6_and_8_is_the_ap_that_section_3_2_defines(row: BenchmarkRow):
    assert as_defined(row) is Agreement.DIFFERENT


@pytest.mark.parametrize("row", [*TABLE_2, *TABLE_3], ids=lambda row: row.name)
def test_every_average_of_tables_2_and_3_is(row: BenchmarkRow):
    assert as_defined(row) in (Agreement.EQUAL, Agreement.HALF)


def test_a_row_without_a_printed_average_agrees_with_nothing():
    assert as_defined(TABLE_7[0]) is None


def test_no_rule_of_rounding_explains_all_half_digits():
    assert rounding_rules(checks()) == {"up": 4, "to even": 6, "down": 6}
    # Table 3 rounds down throughout, tables 2 and 8 mostly up.
    assert rounding_rules([one for one in checks() if one.table == 3])["down"] == 5


@pytest.mark.parametrize(
    ("printed", "recomputed", "slack", "expected"),
    [
        ("1.00", "1.0049", "0", "equal"),
        ("1.00", "1.005", "0", "half digit"),
        ("1.00", "0.995", "0", "half digit"),
        ("1.00", "1.0051", "0", "inconsistent"),
        ("1.00", "1.0099", "0.005", "rounded inputs"),
        ("1.00", "1.0101", "0.005", "inconsistent"),
        ("1.0", "1.04", "0", "equal"),
    ],
)
def test_agreement_is_judged_by_the_last_printed_digit(
    printed: str, recomputed: str, slack: str, expected: str
):
    assert agreement(D(printed), D(recomputed), slack=D(slack)) == expected


# Errata.


def test_the_tables_and_the_errata_agree():
    assert faults(checks()) == ()


@pytest.mark.parametrize("lost", [one for one in ERRATA if one.kind in set(Agreement)])
def test_a_disagreement_without_its_erratum_is_a_fault(lost):
    (fault,) = faults(checks(), [one for one in ERRATA if one is not lost])
    assert fault.startswith(f"No erratum explains this. Table {lost.table}, {lost.row}")
    assert lost.printed in fault and lost.recomputed in fault


def test_an_erratum_of_what_is_not_there_is_a_fault():
    invented = replace(ERRATA[0], row="Qwen2.5-3B-Instruct, Greedy")
    (fault,) = faults(checks(), [*ERRATA, invented])
    assert fault.startswith("An erratum tells of what is not there. Table 3, Qwen2.5-3B-Instruct")


def test_a_number_that_ceases_to_agree_is_a_fault():
    found = [
        replace(one, recomputed=one.printed + 1, agreement=Agreement.DIFFERENT)
        if place_of(one) == (4, "Average", "CAR")
        else one
        for one in checks()
    ]
    (fault,) = faults(found)
    assert "Table 4, Average, CAR: inconsistent, printed 0.8888, recomputed 1.8888" in fault


def test_the_known_errata_are_told():
    told = {(one.table, one.kind, one.recomputed) for one in ERRATA}
    assert {
        (4, "definition", "n = 19"),
        (6, "definition", "mean of LC, WR and AH"),
        (8, "definition", "mean of LC, WR and AH"),
        (8, "definition", "a coefficient of variation of 2.89%"),
        (3, "wording", "Qwen2.5-3B"),
    } <= told
    assert all(one.explanation.endswith(".") for one in ERRATA)
    assert {one.kind for one in ERRATA} - set(Agreement) == {"definition", "wording"}


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


def test_recomputed_numbers_are_shown_with_at_most_three_digits_more():
    told = {place_of(one): shown(one) for one in checks()}
    assert told[3, "Llama-3.1-Minitron-4B, Greedy", "WR"] == "14.50"
    assert told[6, "Gemma-2-9b-it", "AP"] == "24.00667"
    assert told[5, "Effective Batch Size", "Value"] == "32"


def test_the_tables_load_nothing_heavy():
    code = "import preceptor.studies, sys; print(*sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root / "src"), "PATH": ""},
    )
    assert {"numpy", "pydantic", "rich", "torch", "pyarrow"}.isdisjoint(done.stdout.split())
