"""Texts that are no answers have a sign in most responses of a teacher, and real ones in few."""

import json
import random
import shlex
import string
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from preceptor.engines.base import ChatRequest
from preceptor.engines.fake import FakeChat
from preceptor.scorers.text_checks import SIGNS, signs, unreadable_together
from preceptor.types import Message
from small_study import ranked, write_rows

ZOO = Path(__file__).parents[2] / "shared" / "data" / "zoo"
SUBJECTS = (
    "whales",
    "bridges",
    "volcanoes",
    "gardens",
    "orchestras",
    "glaciers",
    "castles",
    "rockets",
)
PROMPTS = [
    f"Explain briefly how {one} compare with {other} nowadays"
    for one in SUBJECTS
    for other in SUBJECTS
]


def answer(prompt: str, words: int = 25) -> str:
    """Return a plain answer that takes up the prompt's words."""
    subject = prompt.split()[3]
    tail = "because people compare them briefly and explain what is known about their size and age today"
    return " ".join(f"When {subject} are described, {tail}.".split()[:words])


def letters(rng: random.Random, words: int = 30) -> str:
    return " ".join(
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(words)
    )


def share(answers: list[str]) -> dict[str, float]:
    found = [signs(prompt, text) for prompt, text in zip(PROMPTS, answers, strict=True)]
    return {sign: sum(one[sign] for one in found) / len(found) for sign in SIGNS}


RNG = random.Random(0)
VOCABULARY = ["market", "river", "system", "garden", "yellow", "window", "moment", "simple"]
NOISE = {
    "random letters": ("unreadable", [letters(RNG) for _ in PROMPTS]),
    "control characters": ("unreadable", ["\x00\x1b\ufffd abc " * 9 for _ in PROMPTS]),
    "random words": ("unrelated", [" ".join(RNG.choices(VOCABULARY, k=60)) for _ in PROMPTS]),
    "the same sentence for all": (
        "unrelated",
        ["Many things should be weighed before one decides anything."] * 64,
    ),
    "a sentence again and again": ("repeated", ["It depends on many different things. " * 30] * 64),
    "another script": (
        "other_script",
        ["Это важный вопрос, который следует рассмотреть внимательно."] * 64,
    ),
}


@pytest.mark.parametrize("name", list(NOISE))
def test_noise_has_its_sign_in_most_responses(name):
    sign, answers = NOISE[name]
    assert share(answers)[sign] > 0.6


def test_made_up_answers_are_unrelated_to_their_prompts():
    request = [ChatRequest(messages=(Message("user", p),), max_tokens=99) for p in PROMPTS]
    assert share([FakeChat("one").complete(one).text for one in request])["unrelated"] > 0.6


def test_answers_have_no_sign_in_any_script_and_short_ones_cannot_be_told():
    assert not any(share([answer(p) for p in PROMPTS]).values())
    assert not any(share(["42"] * len(PROMPTS)).values())
    chinese = signs(
        "请写一篇关于气候变化的短文,并解释其主要原因。",
        "气候变化的主要原因是人类活动排放的温室气体。",
    )
    russian = signs(
        "Объясни кратко, почему вулканы извергаются",
        "Вулканы извергаются, потому что магма поднимается вверх.",
    )
    assert not any(one[sign] for one in (chinese, russian) for sign in SIGNS)
    code = "def total(numbers):\n    return sum(number for number in numbers if number)\n" * 3
    written = signs("Write a Python function that returns the total of numbers", code)
    assert not any(written[sign] for sign in SIGNS)


def counted(answers: list[str]) -> NDArray[np.bool_]:
    found = [signs("Name one.", text) for text in answers]
    return unreadable_together(
        *(np.array([float(one[name]) for one in found]) for name in ("letters", "vowels"))
    )


def test_letters_too_few_to_tell_are_told_together():
    rng = random.Random(2)
    noise = [letters(rng, 6)[:40] for _ in range(40)]
    assert not any(signs("Name one.", text)["unreadable"] for text in noise)
    assert counted(noise).mean() > 0.9
    assert not counted(noise[:3]).any()


@pytest.mark.parametrize(
    "answers",
    [
        [f"It is {number}." for number in range(60)],
        [answer(prompt, 4) for prompt in PROMPTS],
        ["Paris", "Berlin", "Rome", "Madrid", "Lisbon", "Athens", "Vienna", "Warsaw"] * 9,
        ["Вулкан", "Москва", "Берлин", "Париж", "Киев"] * 20,
        ["HTML", "XML", "JSON", "BGP", "TCP"] * 8,
    ],
)
def test_short_answers_are_words_together_too(answers):
    assert not counted(answers).any()


@pytest.mark.skipif(not ZOO.exists(), reason="the zoo of real answers is not beside the repository")
def test_no_real_teacher_has_a_sign_in_a_twentieth_of_its_responses():
    for file in ZOO.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:80]]
        found = [signs(row["instruction"], row["output"]) for row in rows if row["output"]]
        for sign in SIGNS:
            assert sum(one[sign] for one in found) < 0.05 * len(rows), (file.name, sign)


@pytest.mark.parametrize(
    ("options", "words"),
    [((), 20), ((), 5), (("--metric", "information", "--metric", "length"), 20)],
)
def test_random_letters_that_lead_are_called_noise_and_nobody_is_recommended(
    tmp_path, model_folder, options, words
):
    rng = random.Random(1)
    terse = [{"instruction": p, "output": f"{len(p) % 7}"} for p in PROMPTS[:40]]
    noise = [{"instruction": p, "output": letters(rng, words)} for p in PROMPTS[:40]]
    files = [
        write_rows(tmp_path / "terse.jsonl", terse),
        write_rows(tmp_path / "noise.jsonl", noise),
    ]
    store = tmp_path / "store"
    (found,) = ranked(
        *files, "--student", model_folder, "--store", store, "--device", "cpu", *options
    )
    assert found["by"] == "information"
    verdict = found["verdict"]
    assert (verdict["claim"], verdict["teacher"]) == ("no_recommendation", "noise")
    assert [one["code"] for one in verdict["reasons"]][:1] == ["looks-like-noise"]
    assert verdict["text"].startswith("'noise' looks like noise")
    (way,) = (one["text"] for one in found["warnings"] if one["code"] == "cheapest-reward")
    command = ["preceptor", "rank", *map(str, files), "--student", str(model_folder)]
    assert shlex.split(way.partition(": ")[2]) == [*command, "--reward-model", "skywork-v2-0.6b"]
