"""The closed loop's tasks and teachers: right by the project's own checks, and held out."""

import itertools
from pathlib import Path

import pytest

from checkable.study import Design, write_study
from checkable.tables import wilson
from checkable.tasks import tasks
from checkable.teachers import WAYS, answers, write_teacher
from preceptor.config.finetune import Train
from preceptor.config.recipe import Lora
from preceptor.config.study import StudyFile
from preceptor.data.overlap import EvaluationQuestions
from preceptor.scorers.verifier.verifier import verify
from preceptor.types import Instruction

DRAWN = list(itertools.islice(tasks(0), 700))


@pytest.mark.parametrize("teacher", WAYS)
def test_a_teacher_is_wrong_in_exactly_the_share_that_it_declares(teacher: str):
    asked = DRAWN[300:]
    texts = answers(teacher, asked, seed=0)
    wrong = [verify(text, task.reference) == 0 for text, task in zip(texts, asked, strict=True)]
    assert sum(wrong) == 400 * WAYS[teacher][1]
    assert texts == answers(teacher, asked, seed=0)


def test_no_instruction_is_left_out_for_what_it_shares_with_a_question():
    asked = EvaluationQuestions([Instruction.from_text(one.question) for one in DRAWN[:300]], 8)
    assert not any(asked.overlap(Instruction.from_text(one.question)) for one in DRAWN[300:])


def test_the_study_is_one_that_can_be_read(tmp_path: Path):
    files = [write_teacher(tmp_path, "direct", DRAWN[:2], answers("direct", DRAWN[:2], 0))]
    path = write_study(tmp_path / "study.toml", files, ["one", "two"], race={"start": 20})
    study = StudyFile.read(path).study
    assert [student.model for student in study.students] == ["one", "two"]
    assert (study.by, study.race and study.race.start) == ("car", 20)
    train = Train(**Design(seeds=2).train(equal="tokens"))
    assert (train.rows, train.equal, train.seeds, train.lora) == (400, "tokens", 2, Lora(rank=16))


def test_wilsons_interval_is_the_published_one():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 0 of 20.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
