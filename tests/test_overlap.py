"""Overlap with evaluation questions: what is dropped and why, against a plain list of n-grams."""

import json
from pathlib import Path

import numpy as np
import pytest

from preceptor.data.overlap import EvaluationQuestions
from preceptor.types import Instruction, Message
from small_study import preceptor, write_rows

SEA = "Why is the sea salty although rivers that feed it are fresh"


def found(question: str, asked: str, ngram: int = 8) -> str | None:
    questions = EvaluationQuestions([Instruction.from_text(question)], ngram)
    overlap = questions.overlap(Instruction.from_text(asked))
    return None if overlap is None else overlap.shared


@pytest.mark.parametrize(
    ("question", "asked", "shared"),
    [
        (SEA, f"Tell me: WHY is the sea, salty -- although {'x ' * 30}", None),  # seven in a row
        (SEA, f"Tell me: WHY is the sea, salty -- although “rivers” that! {'x ' * 30}", SEA.lower()[:41]),
        (f"{SEA} {'| ' * 9}", f"Mix: {'| ' * 20}", None),
        ("What is 2+2?", "what is 2 + 2", "whatis2+2"),
        ("What is 2+2?", "What is 2+3?", None),
        ("What is 2*2?", "What is 2/2?", None),
        ("What is 2+2?", "First: what is 2+2?", None),  # shorter than n: as a whole alone
        (f"{SEA}?", "Why is the sea salty?", None),
        ("\uff37hy is the co\u00adast ﬁne", "Why is the coast, fine?", "whyisthecoastfine"),
        ("为什么海水是咸的呢", "请问为什么海水是咸的!", "为 什 么 海 水 是 咸 的"),
        ("हिन्दी में लिखो", "हिन्दी में, लिखो!", "हिन्दीमेंलिखो"),
        ("???", "!!!", None),
        ("???", " ??? ", "???"),
    ],
)  # fmt: skip
def test_words_in_a_row_are_shared_but_for_case_punctuation_and_form(question, asked, shared):
    assert found(question, asked) == shared


def test_the_number_of_words_is_a_choice():
    asked = f"{SEA.split(' feed')[0]} it be so"
    assert found(SEA, asked, 8)
    assert found(SEA, asked, 9) is None


def test_every_turn_of_the_user_counts_and_no_other():
    def turns(system: str, first: str, answer: str) -> Instruction:
        told = (("system", system), ("user", first), ("assistant", answer), ("user", "Go on."))
        return Instruction(tuple(Message(*turn) for turn in told))

    questions = EvaluationQuestions([Instruction.from_text(SEA)], 8)
    assert questions.overlap(turns("Hi.", SEA, "Hi."))
    assert not questions.overlap(turns(SEA, "Hi.", SEA))
    # A short later turn is no question.
    assert not EvaluationQuestions([Instruction.from_text("Go on")], 8).overlap(turns("", SEA, ""))
    asked = EvaluationQuestions([turns("", "Name a sea", "Which?")], 8)
    assert not asked.overlap(Instruction.from_text("Go on."))
    assert asked.overlap(Instruction.from_text("name a sea!"))


def test_what_is_dropped_is_what_comparing_all_n_grams_drops():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abc"), size=int(rng.integers(1, 14)))) for _ in range(400)]
    questions, asked = texts[:60], texts[60:]

    def ngrams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[at : at + 8]) for at in range(len(words) - 7)} or {tuple(words)}

    every = set().union(*map(ngrams, questions))
    index = EvaluationQuestions(map(Instruction.from_text, questions), 8)
    dropped = [text for text in asked if index.overlap(Instruction.from_text(text))]
    assert dropped == [text for text in asked if ngrams(text) & every]
    assert 30 < len(dropped) < 300


def test_the_command_counts_what_overlaps_and_shows_with_what(tmp_path: Path):
    asked = [f"{SEA}? Answer {number}." for number in range(5)] + [f"Go {n}" for n in range(4)]
    rows = write_rows(tmp_path / "rows.jsonl", [{"instruction": text} for text in asked])
    exam = tmp_path / "exam.jsonl"
    write_rows(exam, [{"prompt": SEA.upper(), "response": asked[-1]}, {"prompt": "go 1!"}])
    given = ("instructions", rows, "--output", tmp_path / "kept.jsonl", "--exclude", exam)
    result = preceptor(*given)
    assert result.exit_code == 0, result.output
    shared = "why is the sea salty although rivers that"
    assert f'5 share "{shared}" with the question "WHY IS' in " ".join(result.output.split())
    report = json.loads((tmp_path / "kept.jsonl.report.json").read_bytes())
    (tally,) = report["sources"].values()
    assert (tally["kept"], tally["dropped"]) == (3, {"in evaluation questions": 6})
    assert [one["shared"] for one in report["overlaps"]] == [*[shared] * 5, "go1"]
    result = preceptor(*given, "--exclude-ngram", 20, "--overwrite")
    assert "1 share" in result.output and "5 share" not in result.output
