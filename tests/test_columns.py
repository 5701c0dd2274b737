"""Measures under a reference model, and measures relative to the other teachers, are what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_study import by_teacher, ranked, rows_of, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def reference(tmp_path: Path, make_model: Callable[[str], Any], tokenizer: Any) -> Path:
    """A tiny GPT-2 to refer to."""
    folder = tmp_path / "tiny-gpt2"
    make_model("gpt2").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_measures_of_the_reference_are_those_it_would_have_as_a_student(
    tmp_path: Path, model_folder: Path, reference: Path
) -> None:
    files, store = write_teachers(tmp_path / "data"), ["--store", tmp_path / "store"]
    asked = ["--metric", "ppl_gpt2", "--metric", "ifd_gpt2", "--metric", "perplexity"]
    (found,) = ranked(
        *files, "--student", model_folder, "--reference-model", reference, *asked, *store
    )
    own = ["--metric", "perplexity", "--metric", "ifd"]
    (expected,) = ranked(*files, "--student", reference, *own, *store)
    assert found["settings"]["reference"] == "tiny-gpt2"
    for teacher, record in by_teacher(expected).items():
        other = by_teacher(found)[teacher]
        assert other["ppl_gpt2"] == record["perplexity"] != other["perplexity"]
        assert other["ifd_gpt2"] == record["ifd"]


def test_the_reference_needs_no_student(tmp_path: Path, reference: Path) -> None:
    files = write_teachers(tmp_path / "data")
    options = [
        "--metric",
        "ppl_gpt2",
        "--reference-model",
        reference,
        "--store",
        tmp_path / "store",
    ]
    (found,) = ranked(*files, *options)
    assert found["by"] == "ppl_gpt2"
    assert found["teachers"][0]["ppl_gpt2"] < found["teachers"][1]["ppl_gpt2"]


def test_responses_cut_for_the_reference_are_told_of_apart(
    tmp_path: Path, model_folder: Path, reference: Path
) -> None:
    rows = rows_of(0, 6)
    rows[1]["output"] = "The cat sat. " * 300
    files = [
        write_rows(tmp_path / "alpha.jsonl", rows),
        write_rows(tmp_path / "beta.jsonl", rows_of(1, 6)),
    ]
    asked = ["--metric", "ppl_gpt2", "--metric", "length", "--by", "length"]
    (found,) = ranked(*files, "--reference-model", reference, *asked, "--store", tmp_path / "store")
    assert any(
        "1 response was longer than its maximum length" in t["text"] for t in found["warnings"]
    )


def test_shares_compare_teachers_within_each_instruction(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = [rows_of(place, 6) for place in range(3)]
    for number, rewards in enumerate(
        [(1, 2, 3), (3, 2, 1), (5, 5, 5), (0, -4, 4), (1, 1, 3), (2, 0, 1)]
    ):
        for place, reward in enumerate(rewards):
            rows[place][number]["reward"] = reward
    files = [write_rows(tmp_path / f"{place}.jsonl", rows[place]) for place in range(3)]
    asked = ["--metric", "persyn", "--reward-column", "reward", "--store", tmp_path / "store"]
    (found,) = ranked(*files, "--student", model_folder, *asked)
    shares = [by_teacher(found)[str(place)]["reward_share"] for place in range(3)]
    # By hand: (value - lowest) / (highest - lowest) of each instruction, 0.5 where all are alike.
    assert shares == pytest.approx(
        [
            (0 + 1 + 0.5 + 0.5 + 0 + 1) / 6,
            (0.5 + 0.5 + 0.5 + 0 + 0 + 0) / 6,
            (1 + 0 + 0.5 + 1 + 1 + 0.5) / 6,
        ]
    )
    for record in found["teachers"]:
        expected = 0.6 * record["reward_share"] + 0.4 * record["likelihood_share"]
        assert record["persyn"] == pytest.approx(expected)
    assert sum(r["likelihood_share"] for r in found["teachers"]) == pytest.approx(1.5, abs=0.5)


@pytest.mark.parametrize("most", [1, 30])
def test_teachers_taken_a_few_at_a_time_get_the_same_ranking(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    rows = [rows_of(place, 8) for place in range(4)]
    rows[1][2]["output"], rows[2][3]["reward"] = None, None
    rows[3] += [{**row, "output": f"{row['output']} Again.", "reward": 1.5} for row in rows[3][:5]]
    rows[0][4]["output"] = "The cat sat. " * 300  # longer than the student's maximum
    for place in range(4):
        rows[place] = [{**row, "category": f"kind {at % 2}"} for at, row in enumerate(rows[place])]
    files = [write_rows(tmp_path / f"{place}.jsonl", rows[place]) for place in range(4)]
    asked = ["--metric", "car", "--metric", "persyn", "--metric", "ifd", "--metric", "length"]
    asked += ["--reward-column", "reward", "--reduction", "corpus-token-mean"]
    asked += ["--min-coverage", "0.5", "--store", str(tmp_path / "store")]
    whole = ranked(*files, "--student", model_folder, *asked)
    monkeypatch.setattr("preceptor.data.selection.MOST_ROWS", most)
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    assert ranked(*files, "--student", model_folder, *asked) == whole
    assert any(record["truncated"] for record in whole[0]["teachers"])
    # From scores that are not there yet: all are computed in one go, and the same.
    asked[-1] = str(tmp_path / "another store")
    assert ranked(*files, "--student", model_folder, *asked) == whole
