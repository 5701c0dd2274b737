"""Reading AlpacaEval 2: annotations, compact preferences, and what length control needs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from preceptor.benchmarks.alpaca_eval.calibration import read_calibration
from preceptor.benchmarks.comparisons import was_switched
from preceptor.benchmarks.files import read_files
from preceptor.errors import DataError


def annotation(instruction: str, preference: object, **more: object) -> dict:
    return {
        "instruction": instruction,
        "output_1": "The baseline's answer.",
        "generator_1": "base",
        "output_2": "Ours.",
        "generator_2": "ours",
        "annotator": "judge",
        "preference": preference,
    } | more


def completion(**logprobs: float) -> dict:
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return {"logprobs": {"content": [{"token": "m", "top_logprobs": top}]}}


def saved(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_annotations_are_read_and_what_is_no_verdict_is_counted(tmp_path):
    rows = [
        annotation("a", 1.25),
        annotation("b", 0),
        annotation("c", None),
        annotation("d", 7),
        annotation("e", 2.0, output_2=None),
        annotation("f", "2"),
        annotation("g", True),
        annotation("h", math.nan),
    ]
    (ours,) = read_files([saved(tmp_path / "annotations.json", rows)]).verdicts["alpaca_eval"]
    assert (ours.model, ours.judge, ours.baseline) == ("ours", "judge", "base")
    assert ours.instructions == ("a", "b")
    assert ours.wins.tolist() == [0.25, 0.5]
    assert (ours.lengths[0], ours.baseline_lengths[0]) == (5, 22)
    assert ours.dropped == {
        "without a verdict": 4,
        "with a preference outside 1 to 2": 1,
        "without both answers": 1,
    }


def test_a_missing_preference_is_formed_from_the_judges_completion(tmp_path):
    rows = [
        annotation("a", None, raw_completion=completion(m=math.log(0.3), M=math.log(0.1))),
        annotation("b", None, raw_completion=completion(Neither=-0.1)),
        annotation("c", None, raw_completion={"logprobs": {"content": [7]}}),
        annotation("d", None, raw_completion="m"),
    ]
    (ours,) = read_files([saved(tmp_path / "annotations.json", rows)]).verdicts["alpaca_eval"]
    assert ours.wins == pytest.approx([0.75 if was_switched("a") else 0.25])
    assert ours.dropped == {"without a verdict": 3}


def test_lines_and_arrays_and_several_models_are_read_alike(tmp_path):
    rows = [annotation("a\u2028b", 1.5), annotation("a\u2028b", 2, generator_2="theirs")]
    lines = tmp_path / "rows.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    lines.write_text(text + "\n", encoding="utf-8")
    array = saved(tmp_path / "rows.json", rows)
    both = read_files([lines, array]).verdicts["alpaca_eval"]
    assert [one.model for one in both] == ["ours", "theirs"]


def test_compact_preferences_are_read(tmp_path):
    columns = {"idx": [0, 2, 5], "pref": [0, 1.5, None], "len_base": [5] * 3, "len_model": [4] * 3}
    (ours,) = read_files([saved(tmp_path / "p.json", {"ours": columns})]).verdicts["alpaca_eval"]
    assert ours.instructions == (0, 2)
    assert ours.wins.tolist() == [0.5, 0.5]
    assert (ours.judge, ours.dropped) == (None, {"without a verdict": 1})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([annotation("a", 1), annotation("a", 2)], "judged twice on 'a'"),
        ([annotation("a", 1), annotation("b", 2, annotator="k")], "different judges: judge, k"),
        ([annotation("a", 1), annotation("b", 2, generator_1="c")], "mixes the baselines base, c"),
        ([annotation("a", 1, generator_2=3)], "no text in 'generator_2'"),
        ([{"instruction": "a", "answer": "b"}], "first row has the fields instruction, answer"),
        ([annotation("a", 1), 3], "row 2 is a int"),
        ([], "holds no rows"),
        ("text", "holds no rows"),
        ({"m": {"idx": [0], "pref": []}}, "expected the lists idx, pref, len_base, len_model"),
        (
            {"m": {"idx": [-1], "pref": [1], "len_base": [1], "len_model": [1]}},
            "-1 in 'idx' is no position",
        ),
    ],
)
def test_a_file_that_would_be_read_wrongly_is_refused(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        read_files([saved(tmp_path / "rows.json", content)])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1}\n{"b"', "\x00"])
def test_what_is_no_json_is_told_with_its_line(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"line \d is no JSON"):
        read_files([path])


def test_two_files_that_differ_on_a_model_are_refused(tmp_path):
    one = saved(tmp_path / "one.json", [annotation("a", 1)])
    other = saved(tmp_path / "other.json", [annotation("a", 2)])
    with pytest.raises(DataError, match=r"verdicts on 'ours' in .* differ"):
        read_files([one, other])


def gamed_file(path: Path, rows: list[tuple[object, ...]]) -> Path:
    heading = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    body = "".join(f"g,{','.join(map(str, row))},False\n" for row in rows)
    path.write_text(heading + body)
    return path


def test_a_calibration_is_known_by_text_and_by_position(tmp_path):
    listed = saved(tmp_path / "i.json", [{"instruction": "a"}, {"instruction": "b"}])
    gamed = gamed_file(tmp_path / "g.csv", [(0.8, 1, -1.0, 2.5), (0.1, 0, 3.0, -1.0)])
    found = read_calibration(listed, gamed)
    assert found.difficulty == {0: -1.0, 1: 2.5, "a": -1.0, "b": 2.5}
    assert found.terms == pytest.approx(np.array([[-math.tanh(1), 2.5], [math.tanh(3), -1]]))
    assert found.wins.tolist() == [0.8, 0.1]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0.8, 0, 1, 1)], "knows 1 instructions, the list has 2"),
        ([(0.8, 0, 1, 1), (0.8, 1, 1, 1), (0.8, 1, 1, 2)], "instruction 1 two difficulties"),
        ([(0.8, 0, 1, 1), (1.8, 1, 1, 1)], "row 3: expected finite"),
        ([(0.8, 0, 1, 1), (0.8, 0.5, 1, 1)], "a whole index"),
        ([(0.8, 0, 1, "x")], "no number"),
        ([], "no column index"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(tmp_path, rows, said):
    listed = saved(tmp_path / "i.json", [{"instruction": "a"}, {"instruction": "b"}])
    with pytest.raises(DataError, match=said):
        read_calibration(listed, gamed_file(tmp_path / "g.csv", rows))


def test_805_instructions_in_another_order_are_refused(tmp_path):
    listed = saved(tmp_path / "i.json", [{"instruction": f"{place}"} for place in range(805)])
    with pytest.raises(DataError, match="not AlpacaEval's own in their published order"):
        read_calibration(listed, tmp_path / "absent.csv")
