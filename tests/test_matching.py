"""Which rows of several teachers answer one instruction, from files to the ranking and its exports."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor import rank
from preceptor.api import export_dataset, run
from preceptor.config.data import ReadOptions
from preceptor.data.instructions import PromptSource, write_prompts
from preceptor.errors import DataError, StudyError
from preceptor.export.layouts import (
    CALLS,
    OTHER_TURNS,
    SHAPES,
    Entry,
    Example,
    Pair,
    example_entry,
    pair_entry,
)
from preceptor.ranking.result import Ranking
from preceptor.types import Instruction

TEACHERS = ("a", "b", "c")
ROWS = 40


def conversation(teacher: str, number: int, hello: str = "I") -> dict[str, Any]:
    """Return a row of two turns, the first answered by the teacher itself."""
    said = [("user", f"Hello {number}."), ("assistant", f"{hello} am {teacher}.")]
    said += [("user", f"Count to {number}."), ("assistant", f"{teacher} counts to {number}.")]
    return {
        "question_id": f"q{number}",
        "messages": [{"role": role, "content": text} for role, text in said],
        "reward": (TEACHERS.index(teacher) + number % 3) / 5,
    }


def files(folder: Path, rows: int = ROWS, hello: str = "I", **changed: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = []
    for teacher in TEACHERS:
        path = folder / f"{teacher}.jsonl"
        held = [conversation(teacher, number, hello) | changed for number in range(rows)]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in held))
        paths.append(str(path))
    return paths


def ranked(folder: Path, paths: list[str], **options: Any) -> Any:
    store = str(folder / "store")
    return rank(paths, no_student=True, reward_column="reward", store=store, **options)


def test_teachers_that_wrote_their_own_earlier_turns_are_refused_with_cause_and_remedy(
    tmp_path: Path,
):
    with pytest.raises(StudyError) as caught:
        ranked(tmp_path, files(tmp_path))
    told = str(caught.value)
    assert "Only 0 of 120 instructions were answered by all 3 teachers" in told
    assert "each teacher wrote its own earlier turns, 40 are common to all" in told
    assert "--match user-turns" in told
    assert "(the column 'question_id'), 40 are common to all: match them so with --match id" in told


@pytest.mark.parametrize("match", ["user-turns", "id"])
def test_they_are_ranked_when_matched_by_what_was_asked(tmp_path: Path, match: str):
    ranking = ranked(tmp_path, files(tmp_path), match=match)
    assert [one.teacher for one in ranking.teachers] == ["c", "b", "a"]
    assert {one.n for one in ranking.teachers} == {ROWS}


def test_conversations_with_one_script_of_the_user_are_samples_of_one_instruction_and_said_to_be(
    tmp_path: Path,
):
    paths = files(tmp_path)
    again = files(tmp_path / "again", hello="Good day")
    for path, other in zip(paths, again, strict=True):
        with Path(path).open("a") as held:
            held.write(Path(other).read_text())
    said = {one.code: one.text for one in ranked(tmp_path, paths, match="user-turns").warnings}
    assert said["matched-samples"].startswith("120 responses follow other earlier turns")
    assert "(--match user-turns)" in said["matched-samples"]
    plain = ranked(tmp_path, files(tmp_path / "plain"), match="user-turns").warnings
    assert "matched-samples" not in {one.code for one in plain}


def study_file(folder: Path, paths: list[str]) -> Path:
    """Write a study that matches by the user's turns, with the better of two samples of a teacher."""
    path = folder / "study.toml"
    path.write_text(
        f"""
        no_student = true
        reward = {{ kind = "column", column = "reward" }}
        data.responses = {json.dumps(paths)}
        data.columns.match = "user-turns"
        runtime.store = {json.dumps(str(folder / "store"))}
        [[best_of_n]]
        kind = "best"
        of = "a"
        label = "better"
        """
    )
    return path


def test_best_of_n_race_and_export_take_teachers_matched_by_the_users_turns(tmp_path: Path):
    paths = files(tmp_path)
    with Path(paths[0]).open("a") as held:
        for number in range(ROWS):
            row = conversation("a", number, hello="Good day") | {"reward": 2.0 * (number % 2)}
            row["messages"][-1]["content"] += " Better."
            held.write(f"{json.dumps(row)}\n")
    study = study_file(tmp_path, paths)
    (ranking,) = run(study)
    first, second = (
        np.array([conversation("a", n)["reward"] for n in range(ROWS)]),
        2.0 * (np.arange(ROWS) % 2),
    )
    assert ranking["better"].estimates["reward"].value == pytest.approx(
        np.maximum(first, second).mean()
    )
    assert ranking["a"].estimates["reward"].value == pytest.approx((first + second).mean() / 2)
    for name, options in {"best": {"each": "reward"}, "own": {"teacher": "better"}}.items():
        written = export_dataset(study, tmp_path / name, **options)
        assert written.rows == ROWS
        rows = [json.loads(line) for line in written.data.read_text().splitlines()]
        for row in rows:
            ours = row["messages"][1]["content"].startswith("Good day")
            assert ours == row["messages"][-1]["content"].endswith(" Better.")
    raced = ranked(tmp_path, paths, match="user-turns", race=True)
    assert raced.leader.teacher == ranking_without(ranking, "better")


def ranking_without(ranking: Ranking, left_out: str) -> str:
    """Return the first teacher that is not left out."""
    return next(one.teacher for one in ranking.teachers if one.teacher != left_out)


def test_ids_that_stand_for_different_questions_are_refused(tmp_path: Path):
    paths = files(tmp_path)
    rows = [json.loads(line) for line in Path(paths[0]).read_text().splitlines()]
    rows[0]["question_id"], rows[1]["question_id"] = "q1", "q0"
    Path(paths[0]).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(DataError, match=r"2 of 40 ids stand for different questions.*--id-column"):
        ranked(tmp_path, paths, match="id")


@pytest.mark.parametrize("match", ["text", "user-turns", "id"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_instructions_written_out_are_matched_and_asked_as_before(
    tmp_path: Path, ending: str, match: Any
):
    call = {"name": "count", "arguments": {"to": 3}}
    row = conversation("a", 3) | {"tools": [{"name": "count"}]}
    row["messages"][1] |= {"tool_calls": [call]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    options, written = ReadOptions(match=match), tmp_path / f"set.{ending}"
    first = list(PromptSource.open([tmp_path / "a.jsonl"], options))
    write_prompts(first, written)
    again = list(PromptSource.open([written], options))
    assert [one.instruction for one in again] == [one.instruction for one in first]


def test_exports_leave_out_calls_and_pairs_with_other_turns_before_them():
    plain = Instruction.from_text("Hi")
    tooled = Instruction(plain.messages, tools='[{"name":"look"}]')
    assert isinstance(example_entry(Example(plain, "Yo", "a"), SHAPES["sharegpt"]), Entry)
    assert example_entry(Example(plain, "Yo", "a", tool_calls="[1]"), SHAPES["messages"]) == CALLS
    for layout in SHAPES.values():
        assert example_entry(Example(tooled, "Yo", "a"), layout) == CALLS
    pair = Pair(plain, "Yo", "No", "a", "b")
    assert isinstance(pair_entry(pair), Entry)
    assert pair_entry(replace(pair, alike=False)) == OTHER_TURNS
    assert pair_entry(replace(pair, instruction=tooled)) == CALLS
