"""G-norm and GRACE equal short computations of their own, over autograd in plain transformers."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import preceptor
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import TokenizedPair
from preceptor.engines.gradients import projected, projected_gradients
from preceptor.errors import ModelError
from preceptor.ranking.later_metrics import LATER_METRICS, grace
from preceptor.scorers import gradient
from preceptor.scorers.gradient import GradientScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import Instruction, Response
from small_pairs import random_ids

pytestmark = pytest.mark.usefixtures("one_thread")


def dense(size: int) -> Any:
    """Return the whole projection as signs, (parameters, 512): a parameter's sign times its bucket's."""
    drawn = b"".join(
        np.random.Generator(np.random.SFC64([0, block])).bytes(2 * 2**20)
        for block in range(size // 2**20 + 1)
    )
    numbers = np.frombuffer(drawn, "<u2")[:size]
    bits = np.unpackbits(
        np.frombuffer(np.random.Generator(np.random.SFC64(1)).bytes(8192 * 64), np.uint8)
    )
    buckets = bits.reshape(8192, 512) * 2.0 - 1
    return np.where(numbers & 8192, 1.0, -1.0)[:, None] * buckets[numbers & 8191]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_projected_gradients_are_those_of_the_models_own_loss(
    name: str, make_model: Callable[[str], Any]
) -> None:
    source = random.Random(1)
    pairs = [TokenizedPair(random_ids(source, 5), random_ids(source, n)) for n in (1, 7, 30)]
    counted = [[n < 20 for n in range(len(pair.response))] for pair in pairs]
    found = np.stack(list(projected_gradients(make_model(name), pairs, counted)))
    model = make_model(name)
    size = sum(one.numel() for one in model.parameters())
    signs = dense(size)
    assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.mean()) < 0.01
    for pair, vector in zip(pairs, found, strict=True):
        ids = torch.tensor([pair.prompt + pair.response])
        labels = torch.tensor([(-100,) * len(pair.prompt) + pair.response])
        labels[0, len(pair.prompt) + 20 :] = -100
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        flat = torch.cat([one.grad.reshape(-1) for one in model.parameters()]).double().numpy()
        expected = flat @ signs / 512**0.5
        assert vector == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())


def test_products_of_gradients_are_kept_up_to_the_error_of_512_signs() -> None:
    rng = np.random.default_rng(2)
    size = 3 * 2**20 + 7
    spread = rng.normal(size=(2, size)).astype(np.float32)
    # All in one column of matrices that are 576 wide, as where one feature of the states is an outlier.
    narrow = np.zeros((2, size), np.float32)
    narrow[:, 5::576] = rng.normal(size=(2, len(range(5, size, 576))))
    for one, other in (spread, narrow):
        both = one + other
        vectors = [projected(row / np.linalg.norm(row)) for row in (one, other, both)]
        assert all(
            vector @ vector == pytest.approx(1, abs=4 * (2 / 512) ** 0.5) for vector in vectors
        )
        expected = one @ both / np.linalg.norm(one) / np.linalg.norm(both)
        assert vectors[0] @ vectors[2] == pytest.approx(expected, abs=4 * (2 / 512) ** 0.5)


def test_grace_is_the_mean_trace_over_parts_of_the_prompts() -> None:
    rng = np.random.default_rng(3)
    gradients, prompts = rng.normal(size=(40, 8)) * 3, np.repeat(np.arange(20), 2)
    traces = []
    for part in np.array_split(np.random.default_rng(0).permutation(20), 10):
        test = np.isin(prompts, part)
        train = gradients[~test] / np.linalg.norm(gradients[~test], axis=1, keepdims=True)
        w, v = np.linalg.eigh(train.T @ train / len(train))
        inverse = (v / (w + 1e-3 / 8)) @ v.T
        traces.append(np.trace(inverse @ (gradients[test].T @ gradients[test] / test.sum())))
    assert grace(gradients, prompts).mean() == pytest.approx(np.mean(traces), rel=1e-9)
    assert np.isnan(grace(gradients[:1], prompts[:1])).all()


def test_a_response_is_scored_and_a_large_student_refused(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = StudentModel(Student(model=str(model_folder)), Runtime(device="cpu"))
    scorer = GradientScorer(LikelihoodScorer(student))
    question = Instruction.from_text("What is 2 + 2?")
    (batch,) = scorer.score([Response("a", question, "It is four."), Response("a", question, "")])
    none, one = batch
    assert none.note == "no response tokens"
    vector = np.array(one.values["gradient"])
    assert vector.shape == (512,) and one.values["g_norm"] == pytest.approx((vector**2).sum())
    monkeypatch.setattr(gradient, "MOST_PARAMETERS", 10)
    with pytest.raises(ModelError, match="expected at most 10"):
        scorer.preflight()


def test_every_later_metric_ranks_from_what_is_stored(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for teacher, end in (("a", "It is so. I am sure."), ("b", "No!")):
        rows = [{"instruction": f"Is {n} odd?", "output": f"{n}: {end}"} for n in range(12)]
        files.append(tmp_path / f"{teacher}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = [metric.kind for metric in LATER_METRICS]
    settings = {"student": str(model_folder), "store": str(tmp_path / "store"), "device": "cpu"}
    first = preceptor.rank(files, metrics=kinds, **settings)
    assert first.order and all(np.isfinite(first.best.estimates[kind].value) for kind in kinds)
    monkeypatch.setattr(GradientScorer, "score", lambda *_: pytest.fail("scored twice"))
    monkeypatch.setattr(LikelihoodScorer, "score", lambda *_: pytest.fail("scored twice"))
    again = preceptor.rank(files, metrics=kinds, **settings)
    assert again.best.estimates == first.best.estimates
