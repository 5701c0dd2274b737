"""Exit codes for scripts: 0 is an answer, and never that there was nothing to compare."""

import json
from pathlib import Path

import pytest

from chat_server import answer, serving
from small_study import preceptor, rows_of, start, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

COLUMN = ("--no-student", "--reward-column", "reward")
STUDY = """
no_student = true
[data]
responses = ["alpha.jsonl"]
[[reward]]
kind = "column"
column = "reward"
"""


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two teachers' files in the working directory, and the store beside them."""
    write_teachers(tmp_path)
    monkeypatch.chdir(tmp_path)


def ended(*words: object) -> tuple[int, str, str]:
    """Run the program; return its exit code, and what it said on both streams."""
    result = preceptor(*words)
    return result.exit_code, result.stdout, result.stderr


def of_process(*words: object) -> tuple[int, str, str]:
    """Run the program in a process of its own."""
    process = start(*words)
    out, said = process.communicate(timeout=300)
    assert "Traceback" not in said
    return process.returncode, out, said


def test_two_teachers_are_an_answer(tmp_path: Path):
    code, out, said = of_process("rank", "alpha.jsonl", "beta.jsonl", *COLUMN)
    assert code == 0 and "P(first)" in out and "alpha" in out and "Error" not in said


@pytest.mark.parametrize("race", [(), ("--race",)], ids=["ranked", "raced"])
def test_an_only_teacher_is_printed_and_written_and_is_no_answer(
    tmp_path: Path, race: tuple[str, ...]
):
    code, out, said = ended("rank", "alpha.jsonl", *COLUMN, *race, "--json", "o.json")
    assert code == 1
    assert "alpha" in out and json.loads((tmp_path / "o.json").read_text())
    assert "Error: Nothing to compare" in said and "Nothing to compare" not in out


def test_a_teacher_whose_rivals_hold_no_answer_is_no_answer(tmp_path: Path):
    write_rows(tmp_path / "beta.jsonl", [row | {"output": ""} for row in rows_of(1)])
    code, out, said = ended("rank", "alpha.jsonl", "beta.jsonl", *COLUMN)
    assert code == 1 and "Left out: 'beta'" in out
    assert "Error: Nothing to compare" in said


def test_a_study_of_one_teacher_is_no_answer_whether_it_is_run_or_reported(tmp_path: Path):
    (tmp_path / "study.toml").write_text(STUDY)
    for verb in ("run", "report"):
        code, _, said = ended(verb, "study.toml", "--html", f"{verb}.html")
        assert code == 1 and "Error: Nothing to compare" in said
        assert "alpha" in (tmp_path / f"{verb}.html").read_text()


def test_teachers_of_different_instructions_are_no_answer(tmp_path: Path):
    apart = [row | {"instruction": f"Else: {row['instruction']}"} for row in rows_of(1)]
    write_rows(tmp_path / "beta.jsonl", apart)
    code, out, said = ended("rank", "alpha.jsonl", "beta.jsonl", *COLUMN)
    assert (code, out) == (1, "") and "Only 0 of 12 instructions" in said


def test_rewards_of_nobody_are_no_answer(tmp_path: Path):
    for teacher, name in enumerate(("alpha", "beta")):
        rows = [row | {"reward": None} for row in rows_of(teacher)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    code, out, said = ended("rank", "alpha.jsonl", "beta.jsonl", *COLUMN)
    assert (code, out) == (1, "") and "gives no response a reward" in said


def test_outcomes_that_say_nothing_are_no_answer(tmp_path: Path):
    (tmp_path / "own.csv").write_text("teacher,student,AP\nalpha,base,1\n")
    result = preceptor("studies", "show", tmp_path / "own.csv", "--store", tmp_path / "store")
    assert result.exit_code == 1 and "Nothing to compare" in result.stderr


def test_predictions_and_outcomes_that_share_no_teacher_are_no_answer(tmp_path: Path):
    files = write_teachers(tmp_path, teachers=3)
    written = tmp_path / "ranking.json"
    given = ("--reward-column", "reward", "--store", tmp_path / "store", "--json", written)
    assert preceptor("rank", *files, *given).exit_code == 0
    (tmp_path / "own.csv").write_text("teacher,student,AP\nanother,base,1\n")
    result = preceptor("agreement", written, "--observed", tmp_path / "own.csv")
    assert result.exit_code == 1 and "both predicted and observed" in result.stderr


def test_a_teacher_that_answers_nothing_is_no_answer(tmp_path: Path):
    file = write_rows(tmp_path / "questions.jsonl", [{"instruction": f"{n}?"} for n in range(2)])
    with serving(otherwise=answer(None, reason="content_filter")) as told:
        result = preceptor(
            *("generate", file, "--teacher", "silent", "--url", told.url),
            *("--store", tmp_path / "store", "--output", tmp_path / "out.jsonl"),
        )
    assert result.exit_code == 1, result.output


def test_nothing_said_on_either_stream_changes_the_code(tmp_path: Path):
    code, out, said = of_process("--quiet", "rank", "alpha.jsonl", *COLUMN, "--csv", "-")
    assert code == 1 and out.startswith("student,") and said.startswith("Error: ")
