"""Lengths are counts of OpenAI's cl100k_base encoding, without the network.

The golden counts were computed with tiktoken 0.14.0 over the published cl100k_base file (SHA-256
223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7), special tokens taken as plain text.
"""

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiktoken_ext import openai_public

from preceptor.engines import cl100k
from preceptor.engines.cl100k import count_tokens
from preceptor.scorers.length import LengthScorer
from preceptor.types import Instruction, Response, Score

GOLDEN = [
    ("", 0),
    ("Hello, world!", 4),
    ("tiktoken is great!", 6),
    ("The quick brown fox jumps over the lazy dog.", 10),
    ("人工智能正在改变世界。", 12),
    ("👩‍👩‍👧‍👦 family 🎉", 22),
    ("<|endoftext|>", 7),
    ("<|im_start|>user\nHi<|im_end|>", 15),
    ("def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n", 26),
    ("1234567890 + 3.14159 = ?", 12),
    ("  \n\n\t  trailing space   ", 5),
    ("Größenwahn naïve café", 8),
    ("Привет, как дела?", 8),
    ("\\int_0^1 x^2\\,dx = \\frac{1}{3}", 20),
    ("don't I'LL we'Ve", 8),
    ("a" * 1000, 125),
]


def scores_of(texts: Sequence[str | None]) -> list[Score]:
    instruction = Instruction.from_text("Write.")
    responses = [Response("teacher", instruction, text) for text in texts]
    scores = [score for batch in LengthScorer().score(responses) for score in batch]
    assert [score.key for score in scores] == [response.key for response in responses]
    return scores


@pytest.mark.parametrize(("text", "count"), GOLDEN)
def test_tokens_are_counted_as_tiktoken_does(text: str, count: int) -> None:
    (score,) = scores_of([text])
    assert score.values == {"length": count, "characters": len(text)}
    assert score.note is None


def test_characters_are_code_points() -> None:
    (score,) = scores_of(["🎉é"])
    assert score.values["characters"] == 2


def test_the_encoding_is_the_one_that_tiktoken_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}

    def published(_: str, expected_hash: str) -> dict[bytes, int]:
        asked["hash"] = expected_hash
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", published)
    packed = Path(cl100k.__file__).with_name("cl100k_base.tiktoken.gz").read_bytes()
    pattern = openai_public.cl100k_base()["pat_str"]
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == asked["hash"]
    assert pattern == cl100k._PATTERN


@pytest.mark.parametrize("unit", ["a", " "])
def test_a_text_of_a_million_characters_is_counted_soon(unit: str) -> None:
    # What a model repeats to its end; another reader of the encoding refused it.
    assert count_tokens((unit * 1_000_000)[:1_000_000]) > 0


def test_many_responses_come_in_batches_and_in_order() -> None:
    scores = scores_of([f"{'a ' * (number % 7)}" for number in range(5000)])
    assert [score.values["characters"] for score in scores] == [2 * (n % 7) for n in range(5000)]


def test_every_declared_column_and_measure_is_given() -> None:
    scorer = LengthScorer()
    (score,) = scores_of(["Hello, world!"])
    assert set(score.values) == set(scorer.columns)
    derived = scorer.derive({name: np.array([score.values[name]]) for name in scorer.columns})
    assert set(derived) == set(scorer.measures)
    assert derived["length"].tolist() == [4]
