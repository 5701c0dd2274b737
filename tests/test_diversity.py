"""Diversity of a teacher's responses: counted here in plain Python, and seen where users look."""

import json
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.api import rank
from preceptor.pipeline.diversity import repeat_themselves
from preceptor.ranking.diversity import Diversity, diversity_of
from preceptor.ranking.result import Ranking
from preceptor.scorers.first_words import FirstWords, words
from preceptor.types import Instruction, Response
from small_study import partition_sizes, ranked, write_rows

DATA = Path(__file__).parents[2] / "shared" / "data"
VOCABULARY = [f"word{number}" for number in range(400)]


def plain(answers: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Return distinct-2 and the share of near duplicates of each teacher, by their definitions."""
    texts = {
        name: [re.findall(r"[^\W]+", text[:3000].lower())[:100] for text in rows]
        for name, rows in answers.items()
    }
    prompts = range(len(next(iter(texts.values()))))
    equal = [min(len(rows[at]) for rows in texts.values()) for at in prompts]
    found = {}
    for name, rows in texts.items():
        counted = [pair for at in prompts for pair in pairwise(rows[at][: equal[at]])]
        sets = [set(pairwise(row)) for row in rows]
        large = [one for one in sets if len(one) >= 10]
        near = [
            any(one is not other and len(one & other) / len(one | other) >= 0.7 for other in large)
            for one in large
        ]
        found[name] = (len(set(counted)) / len(counted), sum(near) / len(near))
    return found


def written(tmp_path: Path, answers: Mapping[str, Sequence[str]]) -> list[Path]:
    return [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [
                {
                    "instruction": f"Prompt number {at}?",
                    "output": text,
                    "reward": (at * 7 + place) % 5,
                }
                for at, text in enumerate(texts)
            ],
        )
        for place, (name, texts) in enumerate(answers.items())
    ]


def varied(rng: random.Random, prompts: int, most: int = 140) -> list[str]:
    return [
        " ".join(rng.choices(VOCABULARY, k=rng.randint(3, most))) + ". Yes, it is!"
        for _ in range(prompts)
    ]


def repeating(rng: random.Random, prompts: int) -> list[str]:
    """Return texts of which about every third is another one with one word changed."""
    texts = varied(rng, prompts, 60)
    for at in range(0, prompts, 3):
        changed = rng.choice(VOCABULARY)
        texts[at] = (
            f"A long {changed} opening that says nothing of what was asked" + " and so on" * 4
        )
    return texts


@pytest.fixture
def answers() -> dict[str, list[str]]:
    rng = random.Random(0)
    return {"varied": varied(rng, 60), "terse": varied(rng, 60, 8), "repeating": repeating(rng, 60)}


def as_written(ranking: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {
        name: (one["distinct_2"], one["near_duplicates"])
        for name, one in ranking["diversity"].items()
    }


def test_a_ranking_holds_what_a_plain_count_gives(tmp_path, answers):
    files = written(tmp_path, answers)
    where = ("--store", tmp_path / "store")
    (ranking,) = ranked(*files, "--reward-column", "reward", *where)
    expected = plain(answers)
    assert as_written(ranking) == expected
    assert expected["repeating"][1] > 0.3 > expected["varied"][1]
    # All are counted over as many words, though one writes far fewer of them.
    assert len({one["bigrams"] for one in ranking["diversity"].values()}) == 1
    (again,) = ranked(*files, "--reward-column", "reward", *where)
    assert again["diversity"] == ranking["diversity"]
    assert partition_sizes(tmp_path / "store")["first words"] == 180
    assert Ranking.from_json(json.dumps(again)).diversity["varied"].bigrams > 0


def test_who_repeats_itself_is_warned_of_and_keeps_its_place(tmp_path, answers):
    files = written(tmp_path, answers)
    (ranking,) = ranked(*files, "--reward-column", "reward", "--store", tmp_path / "store")
    (warning,) = [one for one in ranking["warnings"] if one["code"] == "near-duplicates"]
    assert warning["teachers"] == ["repeating"]
    assert (
        "60 prompts" not in warning["text"] or ranking["diversity"]["repeating"]["responses"] == 60
    )
    assert "near-duplicates" not in [one["code"] for one in ranking["verdict"]["reasons"]]


def test_the_page_shows_it_and_escapes_names(tmp_path, answers, monkeypatch):
    for package in ("altair", "vl_convert"):  # charts, which are slow to draw
        monkeypatch.setitem(sys.modules, package, None)
    files = written(tmp_path, answers)
    options = {"no_student": True, "reward_column": "reward", "store": str(tmp_path / "store")}
    ranking = rank(files, **options)
    odd = replace(
        ranking,
        teachers=(replace(ranking.teachers[0], teacher="<b>x"), *ranking.teachers[1:]),
        diversity={**ranking.diversity, "<b>x": Diversity(0.123, 9876, None, 1)},
    )
    text = odd.to_html()
    assert "<b>x" not in text
    section = text[text.index("How alike a teacher") :]
    assert "&lt;b&gt;x" in section and "0.123" in section and "9,876" in section
    name = ranking.order[1]
    assert f"{plain(answers)[name][1]:.1%}" in section


def test_of_several_samples_the_first_counts(tmp_path, answers):
    rows = [
        {"instruction": f"Prompt number {at}?", "output": text, "reward": 1}
        for at, text in enumerate(answers["varied"])
    ]
    more = [{**row, "output": "It is what it is. " * 9} for row in rows]
    files = [
        write_rows(tmp_path / "one.jsonl", [*rows, *more]),
        write_rows(tmp_path / "two.jsonl", rows),
    ]
    (ranking,) = ranked(*files, "--reward-column", "reward", "--store", tmp_path / "store")
    assert ranking["diversity"]["one"] == ranking["diversity"]["two"]


def test_words_are_those_of_the_answer_without_case_and_signs():
    assert words("**Bold**, it's 3.5\n\u732b\u304c e\u0301") == (
        ["bold", "it", "s", "3", "5", "\u732b", "\u304c", "e"]
    )
    assert len(words("word " * 500)) == 100
    response = Response("A", Instruction.from_text("p"), "", None)
    (batch,) = FirstWords().score([response])
    assert batch[0].values == {"words": []}


def test_too_little_to_count_is_no_number():
    one = np.array([5], np.int64)
    short = diversity_of([[one, one], [one, np.empty(0, np.int64)]])
    assert short == [Diversity(None, 0, None, 0)] * 2
    assert diversity_of([[], []]) == [Diversity(None, 0, None, 0)] * 2


def test_a_share_over_few_responses_is_not_warned_of():
    assert repeat_themselves({"A": Diversity(0.1, 90, 0.9, 19)}) == []
    (warning,) = repeat_themselves(
        {"A": Diversity(0.1, 90, 0.9, 20), "B": Diversity(0.1, 90, 0.5, 20)}
    )
    assert warning.teachers == ("A", "B") and "prompts may be nearly alike" in warning.text


@pytest.mark.skipif(not (DATA / "math_zoo").is_dir(), reason="real answers are not there")
@pytest.mark.parametrize("folder", ["zoo", "math_zoo"])
def test_real_teachers_are_far_from_the_warning(folder):
    found = []
    for path in sorted((DATA / folder).glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()[:200]]
        instruction = Instruction.from_text("p")
        given = [Response("A", instruction, row["output"], None) for row in lines]
        (scores,) = FirstWords().score(given)
        found.append([np.array(one.values["words"], np.int64) for one in scores])
    assert max(one.near_duplicates or 0 for one in diversity_of(found)) <= 0.02


def test_a_handful_of_bigrams_has_no_distinct_2():
    few = [np.arange(5) + 10 * at for at in range(20)]  # 80 bigrams, and 120 with the rest
    more = [np.arange(5) + 10 * at for at in range(20, 30)]
    assert [one.distinct_2 for one in diversity_of([few])] == [None]
    assert [one.distinct_2 for one in diversity_of([few + more])] == [1.0]
