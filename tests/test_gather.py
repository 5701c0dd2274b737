"""Several processes gather the same response table as one, and give the same warnings of bad rows."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preceptor.config.data import ReadOptions
from preceptor.data import gather as module
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.table import Gathered, ResponseTable
from preceptor.errors import DataError
from preceptor.types import Instruction
from small_study import Rows, rows_of, write_rows

REWARDS = ReadOptions(number_columns=("reward",))
Both = Callable[[list[Path]], tuple[Gathered, Gathered]]


@pytest.fixture
def many(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes even small data be read by three processes."""

    def allow() -> None:
        monkeypatch.setattr(module, "LARGE_BYTES", 0)
        monkeypatch.setattr(module, "cores", lambda: 3)

    return allow


@pytest.fixture
def both(many: Callable[[], None]) -> Both:
    """Gather in this process, then in three."""

    def run(files: list[Path]) -> tuple[Gathered, Gathered]:
        source, column = ResponseSource.open(files, REWARDS), "reward"
        alone = gather(source, column)
        assert module._side_by_side(source, column) is None
        many()
        assert module._side_by_side(source, column) is not None
        return alone, gather(source, column)

    return run


def check_alike(one: ResponseTable, other: ResponseTable) -> None:
    """Check that the tables hold the same rows; those of one teacher may stand closer together."""
    assert one.teachers == other.teachers
    assert one.instructions.tolist() == other.instructions.tolist()
    assert one.dropped == other.dropped
    assert one.cut == other.cut
    assert rows(one) == rows(other)


def rows(table: ResponseTable) -> list[tuple[object, ...]]:
    columns = (table.teacher, table.instruction, table.sample, table.keys)
    return sorted(zip(*(c.tolist() for c in columns), table.values["reward"].tolist(), strict=True))


def three_teachers() -> dict[str, Rows]:
    bad = rows_of(1, 40)
    bad[3]["output"], bad[5]["reward"], bad[7]["finish_reason"] = None, None, "length"
    return {"alpha": rows_of(0, 30), "beta": bad, "gamma": rows_of(2, 40)[10:]}


def test_processes_change_no_table(tmp_path: Path, both: Both):
    files = [write_rows(tmp_path / f"{n}.jsonl", rows) for n, rows in three_teachers().items()]
    alone, together = both(files)
    check_alike(alone.table, together.table)
    assert alone.table.dropped["beta"] == {"no output": 1, "null reward": 1}
    assert alone.table.cut["beta"] == 1


def test_shards_of_one_teacher_keep_the_numbers_of_its_samples(tmp_path: Path, both: Both):
    for name, all_rows in three_teachers().items():
        write_rows(tmp_path / name / "part-1.jsonl", all_rows[:25])
        write_rows(tmp_path / name / "part-2.jsonl", [*all_rows[20:], *all_rows[:2]])
    alone, together = both([tmp_path / name for name in three_teachers()])
    check_alike(alone.table, together.table)
    assert alone.table.sample.max() == 1


def test_samples_of_one_teacher_in_files_that_name_it_by_row_are_numbered_as_in_one(
    tmp_path: Path, both: Both
):
    named = [{**row, "generator": "alpha"} for row in rows_of(0)]
    more = [{**row, "generator": name} for name in ("alpha", "beta") for row in rows_of(1)]
    files = [write_rows(tmp_path / "1.jsonl", named), write_rows(tmp_path / "2.jsonl", more)]
    alone, together = both(files)
    check_alike(alone.table, together.table)
    assert np.bincount(alone.table.sample).tolist() == [12, 6]


def test_problems_are_told_as_by_one_process(
    tmp_path: Path, both: Both, caplog: pytest.LogCaptureFixture
):
    files = [write_rows(tmp_path / f"{n}.jsonl", rows) for n, rows in three_teachers().items()]
    with files[1].open("a") as file:
        file.write('{"instruction": \n[]\n')
    with caplog.at_level(logging.WARNING):
        alone, together = both(files)
    assert alone.skipped == together.skipped == {str(files[1]): 2}
    assert list(alone.problems) == list(together.problems)
    said = {r.getMessage() for r in caplog.records if "problems" in r.getMessage()}
    assert len(said) == 1
    assert f"2 problems. The first: {files[1]}, line 41" in said.pop()


def test_an_error_in_a_process_is_the_error_of_the_run(tmp_path: Path, many: Callable[[], None]):
    many()
    files = [write_rows(tmp_path / f"{n}.jsonl", rows) for n, rows in three_teachers().items()]
    source = ResponseSource.open(files, ReadOptions())
    for file in files:
        file.write_text("nothing that is JSON\n")
    with pytest.raises(DataError, match=r"No row of .*alpha.jsonl can be read"):
        gather(source)


def test_a_text_is_told_apart_by_the_reference_of_its_own_row(tmp_path: Path):
    same = {"instruction": "What is two plus two?", "output": "four"}
    answers = [{**same, "reference": {"kind": "exact", "answer": a}} for a in ("four", "five")]
    source = ResponseSource.open([write_rows(tmp_path / "alpha.jsonl", [*answers, same])])
    table = gather(source).table
    assert table.checked_keys is not None
    assert len(set(table.keys.tolist())) == 1
    assert len(set(table.checked_keys.tolist())) == 3
    with_references = table.with_references()
    assert len(with_references.keys) == 2
    assert with_references.dropped["alpha"] == {"no reference": 1}


def test_no_responses_at_all_are_refused(tmp_path: Path):
    path = write_rows(tmp_path / "alpha.jsonl", rows_of(0))
    source = ResponseSource.open([path])
    path.write_text("")
    with pytest.raises(DataError, match="The data hold no responses"):
        gather(source)


def categorised(names: dict[int, object], place: int) -> Rows:
    rows = rows_of(place, 6)
    return [{**row, "category": names.get(at)} for at, row in enumerate(rows)]


def category_by_text(table: ResponseTable, texts: Rows) -> list[str | None]:
    ids = [Instruction.from_text(str(row["instruction"])).id for row in texts]
    known = table.instructions.tolist()
    return table.category_of(np.array([known.index(one) for one in ids]))


def test_an_instruction_has_the_category_that_any_row_of_it_states(tmp_path: Path, both: Both):
    # Where rows disagree the order of files must not matter: the first by alphabet is taken.
    given = ({0: "sums", 1: " word\nplay ", 2: 7, 3: ""}, {0: "letters", 4: "x" * 99})
    files = [
        write_rows(tmp_path / f"{name}.jsonl", categorised(names, place))
        for place, (name, names) in enumerate(zip(("alpha", "beta"), given, strict=True))
    ]
    for found in both(files):
        seen = category_by_text(found.table, rows_of(0, 6))
        assert seen == ["letters", "word play", None, None, "x" * 60, None]


def test_another_column_of_texts_or_numbers_says_of_what_kind_an_instruction_is(tmp_path: Path):
    kinds = ["sums", 3.0, 2.5, True, None, float("inf")]
    rows = [
        {**row, "category": "unread", "meta": {"kind": kind}}
        for row, kind in zip(rows_of(0, 6), kinds, strict=True)
    ]
    path = write_rows(tmp_path / "one.jsonl", rows)
    table = gather(ResponseSource.open([path], ReadOptions(by_column="meta.kind"))).table
    assert category_by_text(table, rows) == ["sums", "3", "2.5", "true", None, None]
    with pytest.raises(DataError, match=r"no column 'meta\.kinds'.*Did you mean 'meta\.kind'"):
        ResponseSource.open([path], ReadOptions(by_column="meta.kinds"))


def test_without_the_column_no_instruction_has_a_category(tmp_path: Path):
    table = gather(ResponseSource.open([write_rows(tmp_path / "one.jsonl", rows_of(0, 4))])).table
    assert table.categories == ()
    assert category_by_text(table, rows_of(0, 4)) == [None] * 4


def test_prompts_in_two_unicode_forms_are_counted_and_never_matched(tmp_path: Path, both: Both):
    # Composed and decomposed; two decomposed forms of one letter; one form throughout.
    forms = {
        "alpha": ["Caf\u00e9?", "\u0323\u0307q?", "nai\u0308ve?", "plain?", "more?"],
        "beta": ["Cafe\u0301?", "\u0307\u0323q?", "nai\u0308ve?", "plain?", "more?"],
    }
    files = [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [{"instruction": one, "output": "Yes, it is.", "reward": 1.0} for one in prompts],
        )
        for name, prompts in forms.items()
    ]
    for gathered in both(files):
        assert (gathered.alike, len(gathered.table.instructions)) == (2, 7)
        assert gathered.table.dropped["alpha"] == {"missing": 2}
