"""Reading files of every format, re-reading them, and naming what cannot be read."""

import csv
import gzip
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest

from preceptor.config.data import ReadOptions
from preceptor.data.formats import Problem
from preceptor.data.responses import ResponseSource
from preceptor.errors import DataError
from test_house import loaded_after

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is absent")

ROWS = [
    {"instruction": "Name a colour.", "output": "Blue, “sky”\nblue.", "generator": "sky"},
    {"instruction": "Name a prime.", "output": "7", "generator": "sky"},
    {"instruction": "Name a prime.", "output": "", "generator": "sea"},
]
READ = [(r["generator"], r["instruction"], r["output"]) for r in ROWS]


def triples(source):
    return [(r.teacher, r.instruction.text, r.text) for r in source]


def write_lines(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows=ROWS, **options):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], quoting=csv.QUOTE_ALL, **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows=ROWS):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def gzip_of(path):
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_lines),
        ("a.ndjson", write_lines),
        ("a.json", lambda path: path.write_text(json.dumps(ROWS)) and path),
        ("b.json", lambda path: path.write_text(json.dumps({"data": ROWS}, indent=1)) and path),
        ("a.csv", write_csv),
        ("a.tsv", lambda path: write_csv(path, delimiter="\t")),
        ("a.parquet", write_parquet),
    ],
)
def test_every_format_gives_the_same_responses_each_time(tmp_path, name, write):
    source = ResponseSource.open([write(tmp_path / name)])
    assert triples(source) == READ
    assert triples(source) == READ
    assert source.problems == ()
    assert source.files[0].layout == "alpaca-eval"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, name):
    path = tmp_path / name
    if name == "a.csv":
        write_csv(path)
    else:
        text = "\n".join(map(json.dumps, ROWS))
        path.write_text(f"[{text.replace(chr(10), ',')}]" if name == "a.json" else text)
    raw = path.read_bytes().replace(b"\r\n", b"\n").replace(b'"\n', b'"\r\n')
    path.write_bytes(b"\xef\xbb\xbf" + raw.replace(b"}\n", b"}\r\n"))
    assert triples(ResponseSource.open([path])) == READ


def test_describe_says_layout_columns_and_where_the_teacher_comes_from(tmp_path):
    named = write_lines(tmp_path / "Gemma-2-2b-it.jsonl")
    unnamed = write_lines(tmp_path / "gpt-3.5-turbo.jsonl", [{"prompt": "p", "completion": "c"}])
    source = ResponseSource.open([named, unnamed])
    assert [file.describe() for file in source.files] == [
        "Gemma-2-2b-it.jsonl: alpaca-eval layout (instruction, output, teacher from 'generator')",
        "gpt-3.5-turbo.jsonl: prompt-completion layout "
        "(prompt, completion, teacher 'gpt-3.5-turbo' from the file name)",
    ]
    assert list(source)[-1].teacher == "gpt-3.5-turbo"


def test_a_malformed_line_is_skipped_and_named(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(ROWS[0]).encode()
    path.write_bytes(
        b"\n".join([good, b'{"instruction": "x", "out', b"", b'{"a": "\xff"}', b"[1]", good])
    )
    source = ResponseSource.open([path])
    for _ in range(2):
        assert len(list(source)) == 2
        assert [problem.line for problem in source.problems] == [2, 4, 5]
    assert source.problem_counts == {str(path): 3}
    messages = [problem.message for problem in source.problems]
    assert "not valid JSON" in messages[0]
    assert "not valid UTF-8: byte 0xff" in messages[1]
    assert "expected an object" in messages[2]
    assert str(source.problems[0]).startswith(f"{path}, line 2: ")


def test_problems_are_all_counted_and_the_first_twenty_kept(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + "nonsense\n" * 30)
    source = ResponseSource.open([path])
    assert len(list(source)) == 1
    assert (len(source.problems), source.problem_counts) == (20, {str(path): 30})
    assert "30 problems" in caplog.text


def test_numbers_json_lacks_and_lone_surrogates_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"instruction": "a\\ud800b", "output": "\\ud83d\\ude00", "reward": NaN}\n'
        '{"instruction": "c", "output": NaN, "reward": 1e999}\n'
    )
    first, second = ResponseSource.open([path], ReadOptions(number_columns=("reward",)))
    assert (first.instruction.text, first.text) == ("a\ufffdb", "\U0001f600")
    assert (second.text, second.columns) == (None, {"reward": None})


def test_deep_nesting_is_a_problem_of_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + "[" * 200_000 + "\n")
    source = ResponseSource.open([path])
    assert len(list(source)) == 1
    assert source.problems == (Problem(str(path), 2, "nested too deeply", "line"),)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"nonsense\n", r"a\.jsonl, line 1: not valid JSON"),
        ("a.jsonl", b"\n\n\xff\xff\n", r"a\.jsonl, line 3: not valid UTF-8"),
        ("a.jsonl", b"", "It is empty"),
        ("a.json", b"[]", "It is empty"),
        ("a.csv", b"", "Empty CSV file"),
        ("a.csv", b"instruction,output\n", "It is empty"),
        ("a.json", b'[\n{"a": 1},\n{"a" 2}]', r"a\.json cannot be read beyond line 3: not valid J"),
        ("a.json", b'[\n{"a": "\xff"}]', r"a\.json cannot be read beyond line 2: not valid UTF-8"),
        ("a.parquet", b"nonsense", r"a\.parquet cannot be read beyond row 0"),
        ("a.txt", b"text", r"a\.txt has no ending that can be read. Known: \.json, \.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_naming_file_and_line(
    tmp_path, name, content, words
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        ResponseSource.open([tmp_path / name])


def test_a_file_whose_rows_all_fail_is_an_error_and_not_an_empty_source(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{**ROWS[0], "output": 3}] * 2)
    source = ResponseSource.open([path])
    with pytest.raises(DataError, match=r"No row of .*a\.jsonl.*line 1: 'output' is 3"):
        list(source)


def test_a_truncated_archive_is_an_error_naming_the_line(tmp_path):
    path = gzip_of(write_lines(tmp_path / "a.jsonl", ROWS * 5000))
    path.write_bytes(path.read_bytes()[:-40])
    source = ResponseSource.open([path])
    with pytest.raises(DataError, match=r"cannot be read beyond line \d{4,}"):
        list(source)


def test_a_missing_file_names_the_nearest_sibling(tmp_path):
    write_lines(tmp_path / "gemma-2-9b.jsonl")
    with pytest.raises(DataError, match=r"does not exist.*Did you mean 'gemma-2-9b\.jsonl'"):
        ResponseSource.open([tmp_path / "gemma-9b.jsonl"])
    with pytest.raises(DataError, match="nor does its folder"):
        ResponseSource.open([tmp_path / "none" / "a.jsonl"])
    with pytest.raises(DataError, match="No files"):
        ResponseSource.open([])


def test_samples_are_numbered_across_files_by_occurrence(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", [ROWS[1], ROWS[1], ROWS[2]])
    second = write_lines(tmp_path / "b.jsonl", [ROWS[1]])
    source = ResponseSource.open([first, second])
    for _ in range(2):
        assert [(r.teacher, r.sample) for r in source] == [
            ("sky", 0),
            ("sky", 1),
            ("sea", 0),
            ("sky", 2),
        ]


def test_a_stated_sample_index_is_kept_and_counting_goes_on_after_it(tmp_path):
    rows = [{**ROWS[1], "sample": 3}, ROWS[1], {**ROWS[1], "sample": 0}, ROWS[1]]
    source = ResponseSource.open([write_lines(tmp_path / "a.jsonl", rows)])
    assert [r.sample for r in source] == [3, 4, 0, 5]


def test_a_file_given_twice_is_read_once_with_a_warning(tmp_path, caplog):
    path = write_lines(tmp_path / "a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(path)
    given = [path, str(path), tmp_path / "." / "a.jsonl", tmp_path / "link.jsonl", tmp_path]
    assert triples(ResponseSource.open(given)) == READ
    assert caplog.text.count("given more than once") == 5


def test_files_of_one_name_that_name_no_teacher_are_warned_of(tmp_path, caplog):
    paths = [tmp_path / folder / "out.jsonl" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        write_lines(path, [{"prompt": "p", "completion": "c"}])
    ResponseSource.open(paths)
    assert "2 files count as one teacher" in caplog.text


def test_a_folder_is_read_with_its_name_as_the_teacher(tmp_path):
    folder = tmp_path / "phi-3"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# About")
    write_parquet(folder / "data" / "train-0.parquet", [{"prompt": "p", "completion": "a"}])
    write_lines(folder / "data" / "train-1.jsonl", [{"prompt": "q", "completion": "b"}])
    write_lines(folder / "data" / "test-0.jsonl", [{"prompt": "r", "completion": "c"}])
    assert triples(ResponseSource.open([folder])) == [("phi-3", "p", "a"), ("phi-3", "q", "b")]
    test = ResponseSource.open([folder], ReadOptions(split="test"))
    assert triples(test) == [("phi-3", "r", "c")]
    with pytest.raises(DataError, match="no file of the split 'dev'"):
        ResponseSource.open([folder], ReadOptions(split="dev"))


def test_a_folder_without_readable_files_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no file that can be read"):
        ResponseSource.open([tmp_path])


def test_a_saved_data_set_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list([{**row, "extra": [0.0]} for row in ROWS])
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"test": saved}).save_to_disk(str(tmp_path / "many"))
    source = ResponseSource.open([tmp_path / "one"])
    assert triples(source) == READ
    assert source.files[0].describe().startswith("one: alpaca-eval layout")
    many = ResponseSource.open([tmp_path / "many"], ReadOptions(split="test"))
    assert triples(many) == READ
    with pytest.raises(DataError, match=r"no split 'train'\. Its splits: test"):
        ResponseSource.open([tmp_path / "many"])


def test_a_hub_data_set_is_streamed_under_its_name(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, **options):
        asked.append((name, options))
        rows = [{"prompt": "p", "completion": "c"}]
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options = ReadOptions(split="validation")
    for given in ("owner/name", "hf://datasets/owner/name", Path("hf://datasets/owner/name")):
        source = ResponseSource.open([given], options)
        assert triples(source) == [("name", "p", "c")]
        assert source.files[0].path == "hf://datasets/owner/name"
    assert set(map(repr, asked)) == {
        repr(("owner/name", {"split": "validation", "streaming": True}))
    }


def test_a_hub_data_set_out_of_reach_is_an_error_without_a_traceback():
    script = (
        "from preceptor.errors import DataError\n"
        "from preceptor.data.responses import ResponseSource\n"
        "try: ResponseSource.open(['owner/name'])\n"
        "except DataError as error: print(error)"
    )
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": source}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "'owner/name' is neither a path here nor a data set that can be reached" in run.stdout
    assert "Check the name, the network" in run.stdout and "Repair" not in run.stdout
    assert "Retrying" not in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("given", ["hf://datasets/name", "hf://datasets/owner/name/part"])
def test_a_name_that_is_no_hub_data_set_says_what_is(given):
    with pytest.raises(DataError, match="expected hf://datasets/owner/name"):
        ResponseSource.open([given])


def test_a_mistyped_path_in_an_existing_folder_is_not_taken_for_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "gemma.jsonl")
    (tmp_path / "answers").mkdir()
    for given in ("answers/gemma", "elsewhere/gemma.jsonl"):
        with pytest.raises(DataError, match="does not exist"):
            ResponseSource.open([given])


def test_csv_tells_null_from_empty_and_passes_over_unfit_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'instruction,output,generator,reward\n1,"a\n\nb",007,0.5\n2\n3,,007,\n\n4,"",007,NA\n'
        b"5,\xff,007,1\n6,x,007,1,2\n7,NA,007,1\n"
    )
    source = ResponseSource.open([path], ReadOptions(number_columns=("reward",)))
    read = [(r.instruction.text, r.text, r.columns["reward"]) for r in source]
    assert read == [("1", "a\n\nb", 0.5), ("3", None, None), ("4", "", ANY), ("7", "NA", 1.0)]
    assert math.isnan(read[2][2])
    assert {r.teacher for r in source} == {"007"}
    messages = {problem.line: problem.message for problem in source.problems}
    assert "fields, expected 4" in messages[3]
    assert "'reward' is 'NA'" in messages[5]
    assert "not valid UTF-8" in messages[6]
    assert "5 fields, expected 4" in messages[7]


def test_references_survive_csv_and_parquet(tmp_path):
    reference = {"kind": "exact", "answer": "7"}
    text = [{**ROWS[1], "reference": json.dumps(reference)}]
    parquet = write_parquet(tmp_path / "a.parquet", [{**ROWS[1], "reference": reference}, ROWS[0]])
    source = ResponseSource.open([write_csv(tmp_path / "a.csv", text), parquet])
    assert [r.reference for r in source] == [reference, reference, None]


def test_parquet_reads_nested_and_dotted_columns(tmp_path):
    row = {
        "conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}],
        "gen_response_configs.output_generator": "phi",
        "scores": {"reward": 0.25, "other": 1},
    }
    path = write_parquet(tmp_path / "a.parquet", [row] * 1000)
    source = ResponseSource.open([path], ReadOptions(number_columns=("scores.reward",)))
    responses = list(source)
    assert [r.sample for r in responses] == list(range(1000))
    assert {(r.teacher, r.text, r.columns["scores.reward"]) for r in responses} == {
        ("phi", "c", 0.25)
    }


def test_parquet_names_rows_that_are_not_utf8_and_fetches_no_column_it_does_not_need(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def text(bad_row):
        raw = [b"\xff" if row == bad_row else b"text %d" % row for row in range(1, 1001)]
        return pa.array(raw, pa.binary()).cast(pa.string(), safe=False)

    table = pa.table({"prompt": text(0), "completion": text(600), "notes": text(700)})
    pq.write_table(table, tmp_path / "a.parquet")
    source = ResponseSource.open([tmp_path / "a.parquet"])
    assert len(list(source)) == 999
    ((line, unit),) = [(problem.line, problem.unit) for problem in source.problems]
    assert (line, unit) == (600, "row")


def test_a_number_column_may_be_missing_from_some_files_but_not_from_all(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", [{**ROWS[0], "reward": "0.7"}])
    second = write_lines(tmp_path / "b.jsonl", [ROWS[1]])
    source = ResponseSource.open([first, second], ReadOptions(number_columns=("reward",)))
    assert [r.columns for r in source] == [{"reward": 0.7}, {"reward": None}]
    with pytest.raises(DataError, match=r"No file has a column 'rewrad'.*Did you mean 'reward'"):
        ResponseSource.open([first, second], ReadOptions(number_columns=("rewrad",)))


def test_one_number_per_row_is_refused_for_several_responses_per_row(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "a": "1", "b": "2", "reward": 1}])
    with pytest.raises(DataError, match="reward belongs to none of them"):
        ResponseSource.open([path], ReadOptions(number_columns=("reward",)))


def test_an_unknown_column_or_layout_names_the_file(tmp_path):
    path = write_lines(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'model'"):
        ResponseSource.open([path], ReadOptions(teacher_column="model"))
    with pytest.raises(DataError, match=r"x\.jsonl has the columns text, which is no layout"):
        ResponseSource.open([write_lines(tmp_path / "x.jsonl", [{"text": "t"}])])


def test_iteration_holds_one_row_at_a_time(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS * 2000)
    source = ResponseSource.open([path])
    responses = iter(source)
    assert next(responses).text == ROWS[0]["output"]
    path.write_text("")  # what is buffered is at most a few rows beyond the first
    assert len(list(responses)) < 1000


def test_reading_json_lines_imports_nothing_heavy(tmp_path):
    path = str(write_lines(tmp_path / "a.jsonl"))
    code = f"from preceptor.data.responses import ResponseSource\nlist(ResponseSource.open([{path!r}]))"
    heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow"}
    assert heavy.isdisjoint(loaded_after(code))


@needs_data
def test_zoo_files_hold_250_answers_each_of_ten_teachers(caplog):
    caplog.set_level(logging.WARNING)
    source = ResponseSource.open(sorted((DATA / "zoo").glob("*.jsonl")))
    by_teacher = {}
    for response in source:
        by_teacher.setdefault(response.teacher, set()).add(response.instruction.id)
    assert len(by_teacher) == 10
    assert {len(ids) for ids in by_teacher.values()} == {250}
    assert len(set.union(*by_teacher.values())) == 250
    assert (source.problems, caplog.text) == ((), "")


@needs_data
def test_judged_files_carry_a_reward_for_each_of_805_answers():
    source = ResponseSource.open([DATA / "zoo_judged"], ReadOptions(number_columns=("reward",)))
    rewards = {}
    for response in source:
        rewards.setdefault(response.teacher, []).append(response.columns["reward"])
    assert {len(values) for values in rewards.values()} == {805}
    assert len(rewards) == 12
    assert all(0 <= value <= 1 for values in rewards.values() for value in values)
