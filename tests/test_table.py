"""The table counts what cannot be compared, and which rows are compared is decided by content alone."""

from pathlib import Path

import numpy as np
import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.selection import Selection, select
from preceptor.data.table import ResponseTable
from preceptor.errors import StudyError
from preceptor.scorers.base import Array
from small_study import Rows, rows_of, write_rows

REWARDS = ReadOptions(number_columns=("reward",))


def table_of(folder: Path, teachers: dict[str, Rows]) -> ResponseTable:
    files = [write_rows(folder / f"{name}.jsonl", rows) for name, rows in teachers.items()]
    return gather(ResponseSource.open(files, REWARDS), "reward").table


def chosen(table: ResponseTable, limit: int | None = None, *, seed: int = 0) -> Selection:
    return select(table, limit, seed=seed, min_coverage=0.0)


def rewards(choice: Selection) -> Array:
    """Return the rewards of the compared rows, averaged, (teachers, instructions)."""
    return choice.averaged(choice.table.values["reward"][choice.rows])


def test_rows_without_output_or_reward_are_counted_by_reason(tmp_path: Path):
    rows = rows_of(0)
    rows[0]["output"], rows[1]["output"], rows[2]["reward"] = None, "  ", None
    table = table_of(tmp_path, {"alpha": rows, "beta": rows_of(1), "gamma": rows_of(2)[:4]})
    assert table.dropped["alpha"] == {"no output": 1, "empty output": 1, "null reward": 1}
    assert table.dropped["beta"] == {}
    assert table.dropped["gamma"] == {"missing": 2}
    assert table.counts().sum(axis=1).tolist() == [3, 6, 4]


def test_responses_cut_by_their_generator_are_counted_and_kept(tmp_path: Path):
    rows = [
        {**row, "finish_reason": "length" if place < 2 else "stop"}
        for place, row in enumerate(rows_of(0))
    ]
    table = table_of(tmp_path, {"alpha": rows, "beta": rows_of(1)})
    assert table.cut == {"alpha": 2, "beta": 0}
    assert len(chosen(table).taken) == 6


def test_only_instructions_of_every_teacher_are_taken(tmp_path: Path):
    choice = chosen(table_of(tmp_path, {"alpha": rows_of(0), "beta": rows_of(1)[2:]}))
    assert len(choice.taken) == 4
    assert len(choice.rows) == 8
    expected = sum(row["reward"] for row in rows_of(0)[2:])
    assert rewards(choice)[0].sum() == pytest.approx(expected)


def test_all_samples_of_a_teacher_count_as_their_mean_within_an_instruction(tmp_path: Path):
    first, again = rows_of(0), [{**row, "reward": 50.0} for row in rows_of(0)]
    teachers = {"alpha": [*first, *again[:3]], "beta": [*rows_of(1), *rows_of(1)[:1]]}
    choice = chosen(table_of(tmp_path, teachers))
    samples = choice.table.instruction[choice.rows]
    assert sorted(np.bincount(samples).tolist()) == [2, 2, 2, 3, 3, 4]
    plain = [row["reward"] for row in first]
    expected = [*((value + 50.0) / 2 for value in plain[:3]), *plain[3:]]
    assert sorted(rewards(choice)[0]) == pytest.approx(sorted(expected))


def test_the_order_of_files_and_rows_changes_no_number(tmp_path: Path):
    teachers = {"alpha": rows_of(0, 30), "beta": rows_of(1, 30)}
    turned = {"beta": rows_of(1, 30)[::-1], "alpha": rows_of(0, 30)[::-1]}
    one = chosen(table_of(tmp_path / "one", teachers), 10)
    other = chosen(table_of(tmp_path / "other", turned), 10)
    assert rewards(one).tolist() == rewards(other)[::-1].tolist()


def test_another_seed_takes_other_instructions(tmp_path: Path):
    table = table_of(tmp_path, {"alpha": rows_of(0, 30), "beta": rows_of(1, 30)})
    taken = [set(chosen(table, 10, seed=seed).taken.tolist()) for seed in (0, 0, 1, -1)]
    assert taken[0] == taken[1]
    assert len({frozenset(one) for one in taken}) == 3


def test_too_little_in_common_is_refused_with_the_worst_first(tmp_path: Path):
    teachers = {"alpha": rows_of(0), "beta": rows_of(1)[:1], "gamma": rows_of(2)[:4]}
    with pytest.raises(StudyError, match="Only 1 of 6") as caught:
        chosen(table_of(tmp_path, teachers))
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert lines[0] == "beta: 1 of 6 instructions, 5 missing"
    assert lines[1] == "gamma: 4 of 6 instructions, 2 missing"


def test_coverage_is_a_share_of_all_instructions(tmp_path: Path):
    table = table_of(tmp_path, {"alpha": rows_of(0), "beta": rows_of(1)[:3]})
    assert len(select(table, None, seed=0, min_coverage=0.5).taken) == 3
    with pytest.raises(StudyError, match="expected at least 2, and 51% of them"):
        select(table, None, seed=0, min_coverage=0.51)


def test_lacking_keys_are_the_distinct_ones_that_are_not_stored(tmp_path: Path):
    choice = chosen(table_of(tmp_path, {"alpha": rows_of(0), "twin": rows_of(0)}))
    assert len(choice.keys) == 12
    assert len(choice.distinct) == 6
    stored = choice.distinct[:2]
    assert set(choice.lacking(stored).tolist()) == set(choice.distinct[2:].tolist())
    assert len(choice.lacking(choice.keys)) == 0
    assert len(choice.lacking(choice.keys[:0])) == 6


def test_of_an_instruction_that_one_failed_the_others_rows_are_taken_and_of_one_without_reward_nobodys(
    tmp_path: Path,
):
    rows = rows_of(0)
    rows[0]["output"], rows[1]["reward"] = "", None
    choice = chosen(table_of(tmp_path, {"alpha": rows, "beta": rows_of(1)}))
    assert (len(choice.taken), choice.complete, len(choice.rows)) == (6, 4, 4 + 5)
    assert choice.lost(failed=True).sum(axis=1).tolist() == [1, 0]
    assert choice.lost(failed=False).sum(axis=1).tolist() == [1, 0]
    assert np.isnan(rewards(choice)).sum(axis=1).tolist() == [2, 1]


def test_notes_are_counted_beside_what_the_data_lack(tmp_path: Path):
    rows = rows_of(1)
    rows[0]["output"] = ""
    choice = chosen(table_of(tmp_path, {"alpha": rows_of(0), "beta": rows}))
    of_beta = int(np.flatnonzero(choice.table.teacher[choice.rows] == 1)[0])
    reasons = choice.reasons({of_beta: "no response tokens"})
    assert reasons == {"alpha": {}, "beta": {"empty output": 1, "no response tokens": 1}}
