"""A row longer than a pack is run in pieces, a long plain pass takes logits in tiles: both change no number.

The reference is the model's own forward pass over the whole sequence, with eager attention and all logits.
"""

import random
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import Extra, TokenizedPair
from preceptor.engines.packed import attention, body, likelihood
from preceptor.engines.packed.likelihood import TransformersLikelihood
from small_pairs import PLAIN, random_ids

pytestmark = pytest.mark.usefixtures("one_thread")

MakeModel = Callable[..., Any]
PIECE = 64
SOURCE = random.Random(5)
PROMPTS = [random_ids(SOURCE, 150), random_ids(SOURCE, 9)]
PAIRS = [
    *(TokenizedPair(PROMPTS[0], random_ids(SOURCE, length)) for length in (300, 65, 1)),
    TokenizedPair(PROMPTS[1], random_ids(SOURCE, 440)),
    TokenizedPair(PROMPTS[1][:3], random_ids(SOURCE, 20)),
]
"""A prompt in pieces that responses resume, one of them in pieces; a long response; a short row."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_SMALLEST_PIECE", PIECE)


def own_losses(model: Any, pair: TokenizedPair) -> Any:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([pair.prompt + pair.response]), use_cache=False)
    logs = logits.logits[0, len(pair.prompt) - 1 : -1].double().log_softmax(-1)
    return -logs.gather(1, torch.tensor(pair.response).unsqueeze(1))[:, 0].numpy()


def assert_own(model: Any, found: list[Any]) -> None:
    model.set_attn_implementation("eager")
    assert sorted(one.index for one in found) == list(range(len(PAIRS)))
    for one in found:
        expected = own_losses(model, PAIRS[one.index])
        assert np.abs(one.columns["nll"] - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3", "gemma2", "gpt-oss", "gpt2"])
def test_pieces_give_every_token_the_loss_of_one_whole_pass(
    name: str, make_model: MakeModel
) -> None:
    model = make_model(name)
    engine = TransformersLikelihood(model, Runtime(max_batch_tokens=PIECE))
    assert engine.packed and engine.in_pieces
    at_once: list[int] = []
    layers = next(part for part in model.base_model.children() if hasattr(part, "append"))
    for part in layers[1].children():  # what a layer does, it does to a piece
        part.register_forward_hook(
            lambda _module, _given, out: at_once.append(
                (out[0] if type(out) is tuple else out).shape[1]
            )
        )
    found = [one for batch in engine.measure(PAIRS) for one in batch]
    assert max(at_once) == PIECE
    assert_own(make_model(name), found)


def test_similarities_are_the_same_in_pieces(make_model: MakeModel) -> None:
    extra = Extra(frozenset({"similarity", "brier_50"}), frozenset(PROMPTS[0][:5]))
    whole, pieces = (
        {
            one.index: [*one.values.values(), *one.columns["brier_50"].tolist()]
            for batch in TransformersLikelihood(
                make_model("gemma3"), Runtime(max_batch_tokens=budget)
            ).measure(PAIRS, extra)
            for one in batch
        }
        for budget in (100_000, PIECE)
    )
    for index, values in whole.items():
        assert pieces[index] == pytest.approx(values, abs=1e-4)
    assert whole[0] != pytest.approx(whole[3][: len(whole[0])], abs=1e-2)


def test_a_layer_that_needs_the_whole_row_is_given_it(make_model: MakeModel) -> None:
    model = make_model("llama")

    def whole_only(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(hidden: Any, *given: Any, **options: Any) -> Any:
            context = attention.current()
            if context is not None and hidden.shape[1] != len(context.pack.ids):
                raise ValueError("a part of the row")
            return forward(hidden, *given, **options)

        return run

    model.model.layers[1].forward = whole_only(model.model.layers[1].forward)
    engine = TransformersLikelihood(model, Runtime(max_batch_tokens=PIECE))
    assert engine.packed and not engine.in_pieces
    assert_own(make_model("llama"), [one for batch in engine.measure(PAIRS) for one in batch])


@pytest.mark.parametrize("name", [*PLAIN, "llama"])
def test_a_long_plain_pass_takes_logits_a_tile_at_a_time(
    name: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_MOST_LOGITS", 2000)
    model = make_model(name)
    engine = TransformersLikelihood(model, packed=False)
    rows: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _given, out: rows.append(out.shape[1])
    )
    found = [one for batch in engine.measure(PAIRS) for one in batch]
    assert max(rows) <= 2
    assert_own(make_model(name), found)


def test_an_output_layer_that_does_more_than_multiply_keeps_its_own_logits(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_MOST_LOGITS", 2000)
    models = [make_model("mamba"), make_model("mamba")]
    for model in models:
        model.get_output_embeddings().register_forward_hook(lambda _module, _given, out: out * 2)
    engine = TransformersLikelihood(models[0], packed=False)
    assert_own(models[1], [one for batch in engine.measure(PAIRS) for one in batch])
