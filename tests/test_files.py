"""Whole files: what is written appears whole or not at all, and errors name the file."""

import csv
import io
import json
from pathlib import Path

import pytest

from preceptor.errors import DataError, StoreError
from preceptor.store.files import (
    csv_text,
    read_csv,
    read_json,
    replacing,
    write_atomically,
    write_json,
    write_text,
)


def test_an_atomic_write_replaces_the_whole_file_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "file"
    write_atomically(path, b"long content")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(path.parent.iterdir()) == [path]


def test_an_atomic_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="target"):
        write_atomically(tmp_path / "target", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_or_a_device_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    write_text("/dev/null", "gone")
    assert not Path("/dev/null").is_file()


def test_json_holds_any_text_and_no_number_that_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": "half \ud800"})
    assert "é" in path.read_text(encoding="utf-8")
    assert read_json(path) == {"é": "half \ud800"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))


def test_csv_has_the_columns_of_all_rows_and_nothing_for_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_text(path, csv_text([{"a": None, "b": 'x, "y"'}, {"b": "two\nlines", "c": 3}]))
    rows = [(2, ["a", "b", "c"]), (3, ["", 'x, "y"', ""]), (5, ["", "two\nlines", "3"])]
    assert list(read_csv(path)) == [(line - 1, cells) for line, cells in rows]


def test_errors_name_the_file_and_are_of_the_kind_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Cannot read .*absent\.json': No such file or directory\."
    ):
        read_json(tmp_path / "absent.json")
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff")
    with pytest.raises(StoreError, match=r"Cannot read .*a\.json': it is not UTF-8 text\."):
        read_json(path, StoreError)
    path.write_text(json.dumps({})[:1])
    with pytest.raises(DataError, match=r"a\.json' is not JSON: "):
        read_json(path)


def test_a_text_that_a_spreadsheet_would_carry_out_is_kept_from_it_and_reads_back(tmp_path: Path):
    texts = ["=1+1", "+1", "-1", "@x", "\t=1", "\rx", "'quoted'", "plain"]
    path = tmp_path / "rows.csv"
    write_text(path, csv_text([{"text": text, "number": -1.5} for text in texts]))
    _, *rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    assert all(row[0][0] not in "=+-@\t\r" for row in rows)
    assert [row[1] for row in rows] == ["-1.5"] * len(texts)
    assert [cells[0] for _, cells in read_csv(path)] == ["text", *texts]
