"""A look at a few instructions' texts takes those kept from reading, and never a part of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from preceptor.data import first_texts
from preceptor.data.first_texts import FirstTexts
from preceptor.data.responses import ResponseSource
from preceptor.types import Instruction, Response
from small_study import ranked, rows_of, write_rows


def drawn_responses(rng: np.random.Generator) -> list[Response]:
    words = [f"Say {number}." for number in range(int(rng.integers(1, 40)))]
    return [
        Response("t", Instruction.from_text(words[at]), "x" * int(rng.integers(0, 30)))
        for at in rng.integers(0, len(words), 80).tolist()
    ]


@pytest.mark.parametrize("seed", range(30))
def test_what_is_held_is_whole_whatever_came_when(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(first_texts, "MOST_INSTRUCTIONS", int(rng.integers(0, 12)))
    monkeypatch.setattr(first_texts, "MOST_CHARACTERS", int(rng.integers(20, 2000)))
    parts = [FirstTexts() for _ in range(3)]
    offered = drawn_responses(rng)
    for response in offered:
        parts[rng.integers(3)].offer(response)
    held = parts[0]
    held.extend(parts[1])
    held.extend(parts[2])
    ids = sorted({response.instruction.id for response in offered})
    most = 2 * first_texts.MOST_INSTRUCTIONS
    assert len({response.instruction.id for response in held}) <= most
    for count in range(len(ids) + 1):
        if held.holds(ids[:count]):
            wanted = sorted(r.text or "" for r in offered if r.instruction.id in ids[:count])
            assert wanted == sorted(r.text or "" for r in held if r.instruction.id in ids[:count])
    # All of few are held, and what is held is said to be.
    assert held.holds(ids) == (len(list(held)) == len(offered))


def test_files_are_read_once_where_the_texts_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_rows(tmp_path / f"{at}.jsonl", rows_of(at, 30)) for at in range(3)]
    passes, whole = [], ResponseSource.__iter__

    def counted(source: ResponseSource) -> Iterator[Response]:
        passes.append(source)
        return whole(source)

    monkeypatch.setattr(ResponseSource, "__iter__", counted)
    (found,) = ranked(*files, "--metric", "length", "--store", tmp_path / "store")
    # Once for the table and once for the lengths; the words and letters of some responses are at hand.
    assert len(passes) == 2
    monkeypatch.setattr(first_texts, "MOST_INSTRUCTIONS", 0)
    (again,) = ranked(*files, "--metric", "length", "--store", tmp_path / "another store")
    assert len(passes) == 2 + 4
    assert found["diversity"] == again["diversity"] and found["warnings"] == again["warnings"]
