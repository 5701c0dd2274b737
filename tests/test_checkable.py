"""The closed loop's tasks and teachers: right by the project's own checks, and held out."""

import csv
import itertools
from pathlib import Path

import pytest
from scipy.stats import spearmanr

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


REPOSITORY = Path(__file__).parents[1]
STUDENTS = ("SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf")
LOWER_IS_BETTER = ("loss", "rsr", "brier", "scas")


def written(name: str) -> list[dict[str, str]]:
    with (REPOSITORY / "bench/checkable/outcomes" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def printed(first: str) -> dict[str, list[str]]:
    """Return the cells of the page's table that begins with this heading, by their first."""
    page = (REPOSITORY / "docs/explanation/closed-loop.md").read_text(encoding="utf-8")
    table = page[page.rindex(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    return {
        row[0].strip("`"): row[1:]
        for row in ([*map(str.strip, line.split("|")[1:-1])] for line in table)
    }


@pytest.mark.parametrize("at", [0, 1])
def test_what_the_page_says_of_metrics_follows_from_the_outcomes(at: int):
    scores = {
        r["teacher"]: float(r["score"])
        for r in written("equal-rows.csv")
        if r["student"] == STUDENTS[at]
    }
    means = {r["teacher"]: r for r in written("metrics.csv") if r["student"] == STUDENTS[at]}
    assert scores.keys() == means.keys() and len(scores) == 10
    for metric, cells in printed(f"metric for {('SmolLM2', 'Gemma')[at]}").items():
        if metric == "prior":
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        values = [sign * float(means[teacher][metric]) for teacher in scores]
        rho, regret = cells[0].split()[0], float(cells[3])
        assert spearmanr(values, list(scores.values())).statistic == pytest.approx(
            float(rho), abs=0.0051
        )
        first = [
            s for value, s in zip(values, scores.values(), strict=True) if value == max(values)
        ]
        assert max(scores.values()) - sum(first) / len(first) == pytest.approx(regret, abs=0.051)


def test_the_intervals_of_outcomes_are_those_of_counts():
    rows = written("equal-rows.csv") + written("equal-tokens.csv")
    assert len(rows) == 25
    for row in rows:
        share, n = float(row["score"]) / 100, int(row["n"])
        assert share * n == pytest.approx(round(share * n), abs=0.01)
        assert [100 * end for end in wilson(share, n)] == pytest.approx(
            [float(row["low"]), float(row["high"])], abs=0.01
        )
