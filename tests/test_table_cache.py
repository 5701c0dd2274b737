"""The response table of large files is kept, and found again while all that it depends on is the same."""

import json
import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from preceptor.config.data import ReadOptions
from preceptor.data import gather as module
from preceptor.data import table_cache
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.table import Gathered
from preceptor.store.cache import cache_folder
from small_study import rows_of, write_rows

REWARDS = ReadOptions(number_columns=("reward",))
Read = Callable[..., Gathered]


def check_same(one: Gathered, other: Gathered) -> None:
    """Check that every column, count and problem is the same, with its type."""
    assert (one.skipped, list(one.problems)) == (other.skipped, list(other.problems))
    assert (one.alike, one.matched) == (other.alike, other.matched)
    for field in fields(one.table):
        mine, theirs = getattr(one.table, field.name), getattr(other.table, field.name)
        if isinstance(mine, np.ndarray):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field.name
            assert mine.tobytes() == theirs.tobytes(), field.name
        elif field.name == "values":
            assert {n: a.tobytes() for n, a in mine.items()} == {
                n: a.tobytes() for n, a in theirs.items()
            }
        else:
            assert mine == theirs, field.name


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return files in which every column of the table has something to say."""
    bad = [{**row, "category": f"kind {at % 3}"} for at, row in enumerate(rows_of(1, 12))]
    bad[3]["output"], bad[5]["reward"], bad[7]["finish_reason"] = None, None, "length"
    bad[8]["finish_reason"], bad[9]["reference"] = (
        "content_filter",
        {"kind": "exact", "answer": "a"},
    )
    bad[10]["output"] = "<think>\nhm\n</think>\n\nyes"
    found = [write_rows(tmp_path / "alpha.jsonl", rows_of(0, 12))]
    found.append(write_rows(tmp_path / "beta.jsonl", bad))
    with found[1].open("a") as file:
        file.write('{"instruction": \n[]\n')
    return found


@pytest.fixture
def read(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return what gathers files however small they are, and counts how often rows are parsed."""
    parsed = module._gathered

    def counted(*given: object) -> Gathered:
        read.times += 1  # type: ignore[attr-defined]
        return parsed(*given)  # type: ignore[arg-type]

    def read(files: list[Path], options: ReadOptions = REWARDS) -> Gathered:
        return gather(ResponseSource.open(files, options), "reward")

    read.times = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "LARGE_BYTES", 0)
    monkeypatch.setattr(module, "cores", lambda: 1)
    monkeypatch.setattr(module, "_gathered", counted)
    return read


def kept() -> list[Path]:
    return sorted((cache_folder() / "tables").iterdir())


def test_a_kept_table_is_the_one_that_was_read(
    files: list[Path], read: Read, caplog: pytest.LogCaptureFixture
):
    plain = module._gathered(ResponseSource.open(files, REWARDS), "reward", ())
    read.times = 0  # type: ignore[attr-defined]
    first = read(files)
    caplog.clear()
    again = read(files)
    assert read.times == 1  # type: ignore[attr-defined]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"2 problems. The first: {plain.problems[0]}"
    ]
    for one in (first, again):
        check_same(plain, one)
    table = again.table
    assert table.checked_keys is not None and table.answer_keys is not None
    assert table.lost.tolist() and table.categories and table.odd_endings and table.cut["beta"] == 1


def test_small_files_are_not_kept(files: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LARGE_BYTES", sum(file.stat().st_size for file in files) + 1)
    read(files)
    assert not (cache_folder() / "tables").exists()


@pytest.mark.parametrize("change", ["content", "options", "order", "code"])
def test_whatever_could_change_the_table_has_the_files_read_again(
    files: list[Path], read: Read, change: str, monkeypatch: pytest.MonkeyPatch
):
    read(files)
    options = REWARDS
    if change == "content":  # of the same size, under the same name
        files[0].write_text(files[0].read_text().replace('"reward": 0', '"reward": 9', 1))
    elif change == "options":
        options = ReadOptions(number_columns=("reward",), match="user-turns")
    elif change == "order":
        files = files[::-1]
    else:
        monkeypatch.setattr(table_cache, "_code", lambda: "another version")
    found = read(files, options)
    assert read.times == 2  # type: ignore[attr-defined]
    check_same(module._gathered(ResponseSource.open(files, options), "reward", ()), found)


def test_a_damaged_table_is_read_again_and_replaced(
    files: list[Path], read: Read, caplog: pytest.LogCaptureFixture
):
    first = read(files)
    (path,) = kept()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.unlink()  # the first table is mapped from it
    path.write_bytes(raw)
    again = read(files)
    assert read.times == 2  # type: ignore[attr-defined]
    assert "damaged" in caplog.text
    check_same(first, again)
    read(files)
    assert read.times == 2  # type: ignore[attr-defined]


def test_a_table_that_others_can_write_to_is_not_used(files: list[Path], read: Read):
    read(files)
    (path,) = kept()
    path.chmod(0o666)
    read(files)
    assert read.times == 2  # type: ignore[attr-defined]


def test_what_fits_on_no_disk_is_read_every_time(
    files: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch
):
    (cache_folder()).mkdir(parents=True, exist_ok=True)
    (cache_folder() / "tables").write_text("a file stands where the folder would")
    one, other = read(files), read(files)
    assert read.times == 2  # type: ignore[attr-defined]
    check_same(one, other)


def test_the_longest_unused_make_room(
    files: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch
):
    read(files)
    (old,) = kept()
    monkeypatch.setattr(table_cache, "_MOST_BYTES", old.stat().st_size)
    read(files[:1])
    assert old not in kept() and len(kept()) == 1


def test_batch_output_is_not_kept_because_another_file_decides_too(tmp_path: Path, read: Read):
    asked = {"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Why?"}]}}
    said = {"choices": [{"message": {"role": "assistant", "content": "So."}}]}
    output = {"custom_id": "1", "response": {"status_code": 200, "body": said}}
    (tmp_path / "requests.jsonl").write_text(json.dumps(asked) + "\n")
    (tmp_path / "output.jsonl").write_text(json.dumps(output) + "\n")
    options = ReadOptions(requests=str(tmp_path / "requests.jsonl"))
    source = ResponseSource.open([tmp_path / "output.jsonl"], options)
    assert len(list(source)) == 1
    assert table_cache.key_of(source.files, None) is None
