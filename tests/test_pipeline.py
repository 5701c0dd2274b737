"""From a study to rankings: what is wrong is found first, what is finished stays, scopes can grow."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from preceptor import api
from preceptor.cli.app import cli
from preceptor.errors import ModelError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.sources import Scope
from preceptor.pipeline.work import Progress, Work, in_process
from preceptor.scorers.judge import Judge, LocalJudge
from preceptor.types import NoteKind
from small_study import write_rows, write_teachers
from small_teachers import Asked, fake, runtime_at, study_with, write_questions


@pytest.fixture
def broken(tmp_path: Path, model_folder: Path) -> Path:
    """A model that is found, and whose weights end too early to be loaded."""
    folder = tmp_path / "broken"
    shutil.copytree(model_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def test_the_command_writes_and_prints_what_was_finished_before_a_later_student_failed(
    tmp_path: Path, model_folder: Path, broken: Path
):
    files, output = write_teachers(tmp_path), tmp_path / "rankings.json"
    words = ["rank", *files, "--student", model_folder, "--student", broken, "--device", "cpu"]
    words += ["--reward-column", "reward", "--store", tmp_path / "store", "--json", output]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code != 0
    assert "P(first)" in done.output
    assert [one["student"] for one in json.loads(output.read_text())] == [model_folder.name]


def test_a_misspelt_student_is_found_before_a_reward_is_computed_to_choose_among_samples(
    tmp_path: Path,
):
    rows = [
        {"instruction": f"Question {n}?", "output": f"text {n} {sample}"}
        for n in range(4)
        for sample in range(2)
    ]
    file = write_rows(tmp_path / "alpha.jsonl", rows)
    worked: list[Work] = []

    def execute(work: Work, progress: Progress) -> None:
        worked.append(work)
        in_process(work, progress)

    study, runtime = api.study_of(
        [file], students=[str(tmp_path / "misspelt")], store=str(tmp_path / "store"), device="cpu"
    )
    tables = {
        "reward": [{"kind": "rule", "rule": {"kind": "contains", "answer": "1"}}],
        "best_of_n": [{"kind": "best", "of": "alpha"}],
    }
    study = type(study).model_validate(study.model_dump() | tables)
    with pytest.raises(ModelError, match="misspelt"):
        Pipeline(study, runtime, execute=execute).rankings()
    assert worked == []


def test_a_growing_scope_pays_only_for_what_is_new(tmp_path: Path):
    questions = write_questions(tmp_path, 8)
    study = study_with(questions, fake("one"), fake("two"), fake("three"))
    runtime = runtime_at(tmp_path / "store")
    paid, taken, before = [], [], frozenset[bytes]()
    for scope in (
        Scope(limit=3),
        Scope(limit=6, teachers=frozenset({"one", "three"})),
        Scope(limit=8, teachers=frozenset({"one", "three"})),
    ):
        shown = Asked()
        pipeline = Pipeline(study, runtime, shown)
        data = pipeline.load(scope)
        (outcome,) = pipeline.outcomes(data)
        selection = data[0].selection
        ids = frozenset(selection.table.instructions[selection.taken].tolist())
        assert before < ids
        before = ids
        taken.append((len(ids), len(outcome.ranking.teachers)))
        paid.append(sum(shown.missing.values()))
    assert taken == [(3, 3), (6, 2), (8, 2)]
    assert paid == [9, 6, 4]


def test_a_judge_here_stores_answers_together_and_a_served_one_each_for_itself():
    assert (LocalJudge.flush, Judge.flush) == ("timed", "each")


@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("no room for the response", NoteKind.NO_ROOM),
        ("non-finite likelihood", NoteKind.NON_FINITE),
        ("no score in the judge's answer", NoteKind.NO_SCORE),
        ("refused request: too long", NoteKind.REFUSED),
        ("empty", NoteKind.OTHER),
    ],
)
def test_the_kind_of_a_stored_note_is_known(note: str, kind: NoteKind):
    assert NoteKind.of(note) is kind
