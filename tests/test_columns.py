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
