"""JSON Lines under the ending `.json`, and the texts of Arrow columns."""

import gzip
import json

import pytest

from preceptor.data.formats import READERS, Journal, Problem
from preceptor.errors import DataError

ROWS = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": None}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path, ending=None):
    """Return the rows of a file and the journal that was kept of them."""
    journal = Journal(str(path))
    return list(READERS[ending or path.suffix](path, journal, None)), journal


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        b"\xef\xbb\xbf" + LINES,
        b"\n \r\n" + LINES.replace(b"\n", b"\r\n\r\n"),
        LINES.rstrip(),
    ],
    ids=["plain", "byte order mark", "blank lines", "no last line end"],
)
def test_json_lines_under_the_ending_of_one_document_are_read(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert read(path)[0] == ROWS


def test_compressed_json_lines_under_the_ending_of_one_document_are_read(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(LINES))
    assert read(path, ".json.gz")[0] == ROWS


def test_json_lines_that_begin_with_a_number_json_lacks_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"prompt": "p", "reward": NaN}\n{"prompt": "q", "reward": 1}\n')
    assert [row["reward"] for row in read(path)[0]] == [None, 1]


def test_a_bad_line_of_json_lines_is_a_problem_of_that_line_under_any_ending(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(LINES + b"nonsense\n" + LINES)
    rows, journal = read(path)
    assert rows == ROWS * 2
    assert [(problem.line, problem.unit) for problem in journal.problems] == [(3, "line")]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"data": ROWS}),
        json.dumps({"data": ROWS}) + "\n\n",
        json.dumps({"data": ROWS}, indent=1),
        json.dumps(ROWS),
        "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]",
    ],
)
def test_one_document_stays_one_document(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    rows, journal = read(path)
    assert (rows, journal.unit) == (ROWS, "row")


@pytest.mark.parametrize("content", ['{\n"a" 2}', '{"a": 1},\n{"a": 2}', '[1]\n{"a": 2}'])
def test_a_document_that_is_broken_is_not_taken_for_json_lines(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not valid JSON"):
        read(path)


def test_parquet_texts_nulls_and_numbers_come_back_as_python_values(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {
        "text": pa.array(["a", None, ""]),
        "large": pa.array(["\U0001f600", None, "b"], pa.large_string()),
        "count": pa.array([1, None, 3]),
        "nested": pa.array([{"a": [1]}, None, {"a": None}]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows, _ = read(tmp_path / "a.parquet")
    assert rows == [
        {"text": "a", "large": "\U0001f600", "count": 1, "nested": {"a": [1]}},
        {"text": None, "large": None, "count": None, "nested": None},
        {"text": "", "large": "b", "count": 3, "nested": {"a": None}},
    ]
    assert [type(row["count"]) for row in rows] == [int, type(None), int]


def test_a_problem_reads_as_path_place_and_reason():
    assert str(Problem("a.csv", 3, "why")) == "a.csv, row 3: why"
