"""Responses picked for a data set are those that scores formed by hand pick, with their numbers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.errors import StudyError
from preceptor.export.writer import Example, Pair
from preceptor.pipeline import select as picking
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.select import Rule, Scored
from small_study import write_rows
from small_teachers import Asked

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

# Texts and rewards of each teacher by instruction; the words are those of the tiny tokenizer.
ALPHA = (
    ("The cat sat on the mat.", 0.9),
    ("The sea is wide.", 0.2),
    ("Two plus two is four.", 0.5),
)
BETA = (
    ("qzx 77 vvv kk", 1.0),
    ("The sea is deep, and the dog lay.", 0.8),
    ("four", 0.5),
)


def write_teachers(folder: Path, **teachers: Any) -> list[str]:
    given = teachers or {"alpha": ALPHA, "beta": BETA}
    return [
        str(
            write_rows(
                folder / f"{name}.jsonl",
                [
                    {"instruction": f"Question {place}?", "output": text, "reward": reward}
                    for place, (text, reward) in enumerate(rows)
                ],
            )
        )
        for name, rows in given.items()
    ]


def study_of(files: list[str], student: Path | None = None, **tables: Any) -> Study:
    students = [{"model": str(student), "chat_template": "plain"}] if student else []
    reward = {"kind": "column", "column": "reward"}
    given = {"data": {"responses": files}, "reward": reward, "students": students, **tables}
    given["no_student"] = student is None
    return checked(Study, given, where="here")


def opened(study: Study, tmp_path: Path) -> tuple[LoadedData, Runtime]:
    runtime = Runtime(store=str(tmp_path / "store"), device="cpu")
    (found,) = Pipeline(study, runtime).load()
    return found, runtime


def scored(study: Study, tmp_path: Path, rule: Rule) -> tuple[LoadedData, Scored]:
    found, runtime = opened(study, tmp_path)
    student = study.students[0] if study.students else None
    picked = picking.scored(Pipeline(study, runtime), found, student, rule)
    return found, picked


def best(study: Study, tmp_path: Path, rule: Rule) -> dict[str, Example]:
    """Return what is picked by question, in the order of the questions."""
    found, of = scored(study, tmp_path, rule)
    examples = picking.examples(found.source, of.table, of.best())
    by_question = sorted(examples, key=lambda example: example.instruction.text)
    return {example.instruction.text: example for example in by_question}


def pairs(study: Study, tmp_path: Path, rule: Rule, margin: float = 0.0) -> dict[str, Pair]:
    found, of = scored(study, tmp_path, rule)
    chosen, rejected = of.pairs(margin=margin)
    made = picking.pairs(found.source, of.table, chosen, rejected)
    return {pair.instruction.text: pair for pair in made}


def losses(folder: Path, rows: Any) -> list[float]:
    """Return the mean -log p of each text's tokens after its instruction, by the model itself."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for place, (text, _) in enumerate(rows):
        prompt = f"Question {place}?\n\n"  # the template `plain`
        encoded = tokenizer(prompt + text, add_special_tokens=False, return_offsets_mapping=True)
        ids = [tokenizer.bos_token_id, *encoded["input_ids"]]
        first = 1 + sum(start < len(prompt) for start, _ in encoded["offset_mapping"])
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        nlls = [-float(logits[at - 1, ids[at]]) for at in range(first, len(ids))]
        found.append(math.fsum(nlls) / len(nlls))
    return found


@pytest.fixture(scope="module")
def by_hand(model_folder: Path) -> list[list[float]]:
    """The losses, (teachers, instructions)."""
    return [losses(model_folder, rows) for rows in (ALPHA, BETA)]


def test_each_by_reward_takes_the_highest_and_of_equal_ones_the_earlier_teachers(tmp_path: Path):
    found = best(study_of(write_teachers(tmp_path)), tmp_path, "reward")
    assert [(e.text, e.teacher, e.numbers["reward"]) for e in found.values()] == [
        (BETA[0][0], "beta", 1.0),
        (BETA[1][0], "beta", 0.8),
        (ALPHA[2][0], "alpha", 0.5),
    ]


def test_each_by_car_takes_the_reward_discounted_by_the_students_loss(
    tmp_path: Path, model_folder: Path, by_hand: list[list[float]]
):
    # Xu et al. 2025, eq. 3, with single values for means and beta = 3.
    study = study_of(write_teachers(tmp_path), model_folder)
    found = best(study, tmp_path, "car")
    for place, example in enumerate(found.values()):
        cars = [
            rows[place][1] / (1 + 3 * loss[place])
            for rows, loss in zip((ALPHA, BETA), by_hand, strict=True)
        ]
        better = cars.index(max(cars))
        assert example.teacher == ("alpha", "beta")[better]
        assert example.numbers["car"] == pytest.approx(cars[better], rel=1e-5)
        assert example.numbers["loss"] == pytest.approx(by_hand[better][place], rel=1e-5)
        assert example.numbers["reward"] == (ALPHA, BETA)[better][place][1]
    lower = study_of(write_teachers(tmp_path), model_folder, beta=0.5)
    numbers = best(lower, tmp_path, "car")["Question 1?"].numbers
    assert numbers["car"] == pytest.approx(
        float(numbers["reward"] or 0) / (1 + 0.5 * float(numbers["loss"] or 0))
    )


def test_each_by_persyn_weighs_quality_and_learnability_within_the_instruction(
    tmp_path: Path, model_folder: Path, by_hand: list[list[float]]
):
    # arXiv 2510.10925: 0.6 of quality and 0.4 of learnability, each scaled to 0..1 over the responses.
    found = best(study_of(write_teachers(tmp_path), model_folder), tmp_path, "persyn")
    for place, example in enumerate(found.values()):
        alpha, beta = ALPHA[place][1], BETA[place][1]
        easier = by_hand[0][place] < by_hand[1][place]
        quality = (0.5, 0.5) if alpha == beta else (float(alpha > beta), float(beta > alpha))
        scores = [
            0.6 * quality[0] + 0.4 * float(easier),
            0.6 * quality[1] + 0.4 * float(not easier),
        ]
        assert example.numbers["persyn"] == pytest.approx(max(scores))
        assert example.teacher == ("alpha", "beta")[scores.index(max(scores))]


def test_every_sample_of_every_teacher_can_be_picked(tmp_path: Path):
    rows = [*ALPHA, *((f"further {place}", 2.0 + place) for place in range(3))]
    files = [
        str(
            write_rows(
                tmp_path / "alpha.jsonl",
                [
                    {"instruction": f"Question {place % 3}?", "output": text, "reward": reward}
                    for place, (text, reward) in enumerate(rows)
                ],
            )
        ),
        *write_teachers(tmp_path, beta=BETA),
    ]
    found = best(study_of(files), tmp_path, "reward")
    assert [(e.teacher, e.sample, e.text) for e in found.values()] == [
        ("alpha", 1, f"further {place}") for place in range(3)
    ]


def test_pairs_hold_the_best_and_the_worst_further_apart_than_the_margin(tmp_path: Path):
    files = write_teachers(tmp_path, alpha=ALPHA, beta=BETA, gamma=[("gamma", 0.95)] * 3)
    found = pairs(study_of(files), tmp_path, "reward")
    assert {q: (p.chosen, p.rejected) for q, p in found.items()} == {
        "Question 0?": (BETA[0][0], ALPHA[0][0]),
        "Question 1?": ("gamma", ALPHA[1][0]),
        "Question 2?": ("gamma", ALPHA[2][0]),
    }
    first = found["Question 0?"]
    assert (first.chosen_teacher, first.rejected_teacher) == ("beta", "alpha")
    assert (first.numbers["chosen_reward"], first.numbers["rejected_reward"]) == (1.0, 0.9)
    assert list(pairs(study_of(files), tmp_path, "reward", 0.2)) == ["Question 1?", "Question 2?"]
    assert list(pairs(study_of(files), tmp_path, "reward", 0.75)) == []
    # 0.95 - 0.5 and 0.95 - 0.2 by hand: the margin itself is not enough.
    assert list(pairs(study_of(files), tmp_path, "reward", 0.46)) == ["Question 1?"]


def test_equal_scores_make_no_pair(tmp_path: Path):
    assert "Question 2?" not in pairs(study_of(write_teachers(tmp_path)), tmp_path, "reward")


def test_a_response_without_reward_is_neither_best_nor_worst(tmp_path: Path):
    rows: Any = [("none", None), *BETA[1:]]
    files = write_teachers(tmp_path, alpha=ALPHA, beta=[("low", 0.1), *BETA[1:]], gamma=rows)
    study = study_of(files, ranking={"min_coverage": 0.1})
    found = best(study, tmp_path, "reward")
    # Of the first question gamma has nothing to compare, so that nobody is picked for it.
    assert list(found) == ["Question 1?", "Question 2?"]


def test_car_of_negative_rewards_is_refused_and_a_transform_makes_it_possible(
    tmp_path: Path, model_folder: Path
):
    beta = [*BETA[:2], ("four", -0.25)]
    files = write_teachers(tmp_path, alpha=ALPHA, beta=beta)
    with pytest.raises(StudyError, match=r"rewards are negative \(the lowest is -0.25\)"):
        scored(study_of(files, model_folder), tmp_path, "car")
    shifted = study_of(files, model_folder, ranking={"transform": "shift-min"})
    numbers = best(shifted, tmp_path, "car")["Question 1?"].numbers
    reward, loss = float(numbers["reward"] or 0), float(numbers["loss"] or 0)
    assert numbers["car"] == pytest.approx((reward + 0.25) / (1 + 3 * loss))
    assert best(study_of(files, model_folder), tmp_path, "persyn")


def test_without_rewards_or_a_student_nothing_is_picked_by_them(tmp_path: Path, model_folder: Path):
    files = write_teachers(tmp_path)
    with pytest.raises(StudyError, match="cannot be picked by reward without rewards"):
        scored(study_of(files, reward=[]), tmp_path, "reward")
    for rule in ("car", "persyn"):
        with pytest.raises(StudyError, match=f"cannot be picked by {rule} without a student"):
            scored(study_of(files), tmp_path, rule)


def test_a_derived_teachers_rows_add_no_example_and_its_origin_is_named(tmp_path: Path):
    rows = [
        {"instruction": f"Question {n}?", "output": f"text {n} {s}", "reward": s}
        for n in range(3)
        for s in range(2)
    ]
    file = str(write_rows(tmp_path / "alpha.jsonl", rows))
    derived = [{"kind": "best", "of": "alpha", "label": "chosen"}]
    study = study_of([file], best_of_n=derived)
    found = best(study, tmp_path, "reward")
    assert [(e.teacher, e.text) for e in found.values()] == [
        ("alpha", f"text {n} 1") for n in range(3)
    ]
    data, _ = opened(study, tmp_path)
    table = data.selection.table
    named = picking.examples(data.source, table, picking.of_teacher(table, "chosen"))
    assert [(e.teacher, e.text) for e in named] == [("chosen", f"text {n} 1") for n in range(3)]


def test_one_teachers_responses_are_the_first_samples_unless_all_are_wanted(tmp_path: Path):
    rows = [
        {"instruction": f"Question {n}?", "output": f"text {n} {s}", "reward": s}
        for n in range(3)
        for s in range(2)
    ]
    study = study_of([str(write_rows(tmp_path / "alpha.jsonl", rows))])
    data, _ = opened(study, tmp_path)
    table = data.selection.table
    first = list(picking.examples(data.source, table, picking.of_teacher(table, "alpha")))
    assert [(e.text, e.sample, e.numbers) for e in first] == [
        (f"text {n} 0", 0, {"reward": 0.0}) for n in range(3)
    ]
    picked = picking.of_teacher(table, "alpha", every_sample=True)
    every = list(picking.examples(data.source, table, picked))
    assert [e.text for e in every] == [f"text {n} {s}" for n in range(3) for s in range(2)]
    with pytest.raises(StudyError, match=r"No teacher 'alhpa'. Known: 'alpha'. Did you mean"):
        picking.of_teacher(table, "alhpa")


def test_what_is_scored_already_costs_nothing_when_picking(tmp_path: Path, model_folder: Path):
    study = study_of(write_teachers(tmp_path), model_folder)
    found, runtime = opened(study, tmp_path)
    counts = []
    for _ in range(2):
        told = Asked()
        picking.scored(Pipeline(study, runtime, told), found, study.students[0], "car")
        counts.append(told.scored)
    assert counts == [12, 0]  # length and likelihood of six texts
