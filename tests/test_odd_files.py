"""Files as they come: encodings, separators, packing, odd columns; read, or refused in one clear sentence."""

import datetime
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preceptor.data import formats, json_text, streams
from preceptor.data.responses import ResponseSource
from preceptor.errors import DataError
from preceptor.types import Response
from small_study import by_teacher, preceptor, ranked, rows_of, write_rows, write_teachers

ROWS = [
    {"instruction": f"Nåme {n}?", "output": f"é{n}", "generator": g} for n in (1, 2) for g in "ab"
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
TABLE = "\n".join(["instruction,output,generator", *(",".join(row.values()) for row in ROWS)])


def read(path: Path) -> list[Response]:
    return list(ResponseSource.open([path]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", LINES), ("a.csv", TABLE), ("a.json", LINES)]
)
def test_every_encoding_that_shows_itself_is_read(tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert [one.text for one in read(tmp_path / name)] == ["é1", "é1", "é2", "é2"]


@pytest.mark.parametrize("sign", [";", "|", "\t"])
def test_columns_are_parted_by_what_the_header_has_most_of(tmp_path, sign):
    (tmp_path / "a.csv").write_text(TABLE.replace(",", sign) + '\n"x, y"' + sign + "z" + sign + "a")
    assert [one.instruction.text for one in read(tmp_path / "a.csv")][-1] == "x, y"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_long_fields_and_nul_bytes_are_read_as_they_stand(tmp_path, name):
    text = LINES if name == "a.jsonl" else TABLE
    long = "la " * 50_000
    (tmp_path / name).write_text(
        text.replace("é1", long, 1).replace("é2", "\\u0000" if name == "a.jsonl" else "\0")
    )
    found = [one.text for one in read(tmp_path / name)]
    assert (found[0], found[2]) == (long, "\0")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            TABLE.replace("generator", "output", 1),
            "row 1: two columns are called 'output'",
        ),
        ("a.csv", b"instruction,outp\xfft\n1,2", r"row 1: the column 'outp\?t' is not UTF-8"),
        ("a.csv", '"' + "x" * 200_000 + '",b\n1,2', "field larger than field limit"),
        ("a.jsonl.zst", b"nonsense", "cannot be read beyond line 0"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        read(path)


@pytest.mark.parametrize("ending", ["json.gz", "jsonl.gz", "csv.gz", "jsonl.zst", "csv.zst"])
def test_packed_files_are_read_and_bombs_refused(tmp_path, monkeypatch, ending):
    text = (TABLE if "csv" in ending else LINES).encode()
    pack = gzip.compress if ending.endswith("gz") else pa.Codec("zstd").compress
    (tmp_path / f"a.{ending}").write_bytes(bytes(pack(text)))
    assert len(read(tmp_path / f"a.{ending}")) == 4
    monkeypatch.setattr(streams, "_FREELY", 1 << 10)
    (tmp_path / f"b.{ending}").write_bytes(bytes(pack(text + b"\n" * 95_000)))
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        read(tmp_path / f"b.{ending}")


def test_a_line_or_a_document_that_is_too_long_is_refused_and_the_other_lines_are_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "LONGEST_LINE", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text(LINES.replace("é1", "la" * 2000, 1))
    source = ResponseSource.open([path])
    assert [one.text for one in source] == ["é1", "é2", "é2"]
    assert "line 1: the line is longer than" in str(source.problems[0])
    monkeypatch.setattr(formats, "LARGEST_DOCUMENT", 100)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with pytest.raises(DataError, match="a document of more than"):
        read(tmp_path / "a.json")


def test_columns_that_nobody_asked_for_do_no_harm_and_a_reward_in_them_is_refused_by_its_type(
    tmp_path,
):
    columns = {name: pa.array([row[name] for row in ROWS]) for name in ROWS[0]}
    columns["far"] = pa.array([2**30] * 4, pa.int32()).cast(pa.date32())
    columns["long"] = pa.array([2**62] * 4, pa.int64()).cast(pa.duration("s"))
    columns["where"] = pa.array(
        [datetime.datetime(2026, 1, 1)] * 4, pa.timestamp("us", "Moon/Mare")
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    assert len(read(path)) == 4
    said = preceptor("rank", path, "--reward-column", "long").stderr
    assert "gives no response a reward" in said and "duration[s]" in said
    pq.write_table(pa.Table.from_arrays([columns["output"]] * 2, names=["output", "output"]), path)
    with pytest.raises(DataError, match="two columns are called 'output'"):
        read(path)


def test_sample_indices_beyond_reach_state_nothing_and_the_rows_are_numbered(tmp_path):
    rows = [{**ROWS[0], "sample": value} for value in (2**64, 10**30, "9" * 5000, -1, 1.5, 2**31)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert [one.sample for one in read(path)] == [0, 1, 2, 3, 4, 5]


def test_a_file_name_that_is_not_utf8_is_shown_with_escapes(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    write_rows(path, [{"instruction": f"{n}?", "output": "word"} for n in range(2)])
    (ranking,) = ranked(path, "--store", tmp_path / "store", "--html", tmp_path / "page.html")
    assert by_teacher(ranking).keys() == {"caf\\xe9"}


def test_of_a_folder_only_what_holds_responses_is_read_and_the_rest_is_named(tmp_path, caplog):
    write_teachers(tmp_path)
    (tmp_path / "report.json").write_text('{"kept": 3}')
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.jsonl").write_text("")
    write_rows(tmp_path / ".hidden" / "c.jsonl", rows_of(2))
    source = ResponseSource.open([tmp_path])
    assert [Path(file.path).name for file in source.files] == ["alpha.jsonl", "beta.jsonl"]
    (line,) = (one for one in caplog.messages if "are not read" in one)
    assert line.startswith("3 files") and "report.json" in line and "numbers.csv" in line
    with pytest.raises(DataError, match="no layout known here"):
        ResponseSource.open([tmp_path / "numbers.csv"])
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(LINES.encode())[:-20])
    with pytest.raises(DataError, match=r"bad\.jsonl\.gz cannot be read"):
        ResponseSource.open([tmp_path])


@pytest.mark.parametrize("spelling", ["length", "FinishReason.MAX_TOKENS"])
def test_cut_responses_are_counted_alike_however_that_is_spelt(tmp_path, spelling):
    rows = [row | {"finish_reason": spelling} for row in rows_of(0)]
    files = [
        write_rows(tmp_path / "cut.jsonl", rows),
        write_rows(tmp_path / "whole.jsonl", rows_of(1)),
    ]
    (ranking,) = ranked(*files, "--reward-column", "reward", "--store", tmp_path / "store")
    assert ranking["settings"]["cut_by_generator"] == {"cut": 6}
    (warning,) = (one for one in ranking["warnings"] if one["code"] == "cut-off")
    assert warning["text"] == "6 of 6 responses of 'cut' were cut off by their generator."


def test_an_ending_that_is_not_known_is_kept_and_counted(tmp_path):
    rows = [row | {"stop_reason": "ran_dry"} for row in rows_of(0)]
    files = [
        write_rows(tmp_path / "odd.jsonl", rows),
        write_rows(tmp_path / "whole.jsonl", rows_of(1)),
    ]
    assert {one.finish_reason for one in read(files[0])} == {"ran_dry"}
    (ranking,) = ranked(*files, "--reward-column", "reward", "--store", tmp_path / "store")
    (warning,) = (one for one in ranking["warnings"] if one["code"] == "odd-ending")
    assert "'odd'" in warning["text"] and "'ran_dry' (6)" in warning["text"]


def test_names_that_look_alike_are_warned_of_and_never_merged(tmp_path):
    names = (
        "Qwen",
        "qwen",
        "qwen ",
        "caf\u00e9",
        "cafe\u0301",
        "gpt",
        "g\u0440t",
        "a\u200b",
        "plain",
    )
    rows = [row | {"generator": name} for name in names for row in rows_of(1)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    (ranking,) = ranked(path, "--reward-column", "reward", "--store", tmp_path / "store")
    assert by_teacher(ranking).keys() == set(names)
    warned = [set(one["teachers"]) for one in ranking["warnings"] if one["code"] == "names-alike"]
    assert warned == [set(names[:3]), set(names[3:5]), set(names[5:7]), {names[7]}]


def test_a_reward_column_without_a_number_says_what_was_seen(tmp_path):
    rows = [
        row | {"label": "good", "mixed": row["reward"] if n else "1_000"}
        for n, row in enumerate(rows_of(1))
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    said = preceptor("rank", path, "--reward-column", "label", "--store", tmp_path / "store").stderr
    assert "gives no response a reward (6 reward is no number)" in " ".join(said.split())
    assert "line 1: 'label' is 'good' (str), expected a number" in " ".join(said.split())
    (ranking,) = ranked(path, "--reward-column", "mixed", "--store", tmp_path / "store")
    assert by_teacher(ranking)["a"]["dropped"] == {"reward is no number": 1}


def test_one_instruction_is_not_checked_in_two_ways_for_two_teachers(tmp_path):
    for name, odd in (("alpha", "5"), ("beta", "five")):
        rows = [
            {"instruction": f"{n}?", "output": "5", "answer": odd if n < 100 else "5"}
            for n in range(120)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    files = sorted(tmp_path.glob("*.jsonl"))
    said = preceptor("rank", *files, "--store", tmp_path / "store").stderr
    assert "checked as 'exact' in one row and as 'numeric' in another" in " ".join(said.split())
    (ranking,) = ranked(*files, "--reference-kind", "exact", "--store", tmp_path / "store")
    assert by_teacher(ranking)["alpha"]["reward"] == 1.0


@pytest.mark.parametrize(
    ("name", "start", "block", "end", "said"),
    [
        ("a.json", b"[", b"[],", b"1]", "values in one; at most"),
        ("a.jsonl", b"", b"\n", b"", "lines before it hold no row"),
        ("a.jsonl", b"[", b"1,", b"1]", "No row .* can be read. .* values in one; at most"),
    ],
)
def test_what_is_small_on_disk_and_large_in_memory_is_refused(
    tmp_path, monkeypatch, name, start, block, end, said
):
    monkeypatch.setattr(json_text, "_FEW_BYTES", 1000)
    monkeypatch.setattr(json_text, "MOST_VALUES", 1000)
    (tmp_path / name).write_bytes(start + block * 200_000 + end)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name)


def test_signs_within_texts_are_not_counted_as_values(tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "_FEW_BYTES", 1000)
    monkeypatch.setattr(json_text, "MOST_VALUES", 1000)
    rows = [row | {"output": '[{"a": 1},\\' * 3000} for row in ROWS]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [one.text for one in read(tmp_path / "a.json")] == [row["output"] for row in rows]


def test_a_cell_of_parquet_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_FREELY", 1000)
    table = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
    table = table.set_column(1, "output", pa.array(["la " * 500_000] * 4))
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    with pytest.raises(DataError, match="'output' unpacks to more than 200 times its size"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", [b"jsonl", b"jsonl.zst", b"csv.gz", b"parquet"])
def test_a_file_name_that_is_not_utf8_is_read_in_every_format(tmp_path, ending):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + ending))
    text = (TABLE if b"csv" in ending else LINES).encode()
    if ending == b"parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
        text = (tmp_path / "a.parquet").read_bytes()
    packed = {b"gz": gzip.compress, b"st": pa.Codec("zstd").compress}.get(ending[-2:], bytes)(text)
    path.write_bytes(bytes(packed))
    assert len(read(path)) == 4


def test_rows_that_are_no_objects_are_not_called_an_empty_file(tmp_path):
    (tmp_path / "a.json").write_text("[[], 1]")
    with pytest.raises(DataError, match=r"The first is \[\] \(list\), expected an object"):
        read(tmp_path / "a.json")
