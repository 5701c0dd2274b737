"""The engine's numbers are those of a plain pass for every architecture, packed or refused, in both types.

The architectures are data of `bench/architectures.py`; the reference, the noise and what counts as a
difference are those of `bench/right.py`: one sequence at a time, log-softmax in float64, nothing of the
engine. There bfloat16 is measured for all; here every third architecture has its turn.
"""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed import check
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.packed.reward import TransformersReward

BENCH = Path(__file__).parents[1] / "bench"


def from_bench(name: str) -> Any:
    """Return a module of bench, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


architectures = from_bench("architectures")
right = from_bench("right")

NAMES = list(architectures.ARCHITECTURES)
CASES = [
    *((name, "float32") for name in NAMES),
    *((name, "bfloat16") for name in NAMES[::3]),
]
STATEFUL = {
    "qwen3_next": "linear_attention",
    "lfm2": "conv",
    "granitemoehybrid": "linear_attention",
    "jamba": "hold a state",
    "falcon_h1": "hold a state",
    "rwkv": "hold a state",
    "bloom": "ALiBi",
    "falcon, alibi": "ALiBi",
    "gpt_neo": "interface",
    "llama4, chunked": "chunked_attention",
}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # transformers' own, of tiny configs
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_architecture_has_the_numbers_of_its_plain_pass_within_its_noise(
    name: str, kind: str
) -> None:
    found = right.compare(name, kind)
    assert not found["silent"], found
    assert found["packed"] == (found["refused"] is None)


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma3, sliding and global", "gpt_oss", "deepseek_v3"]
)
@pytest.mark.parametrize("kind", right.DTYPES)
def test_what_can_be_packed_is_not_refused(name: str, kind: str) -> None:
    model = architectures.build(name).to(getattr(torch, kind))
    assert TransformersLikelihood(model).refusal is None


@pytest.mark.parametrize("name", STATEFUL)
def test_a_refusal_says_why_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "preceptor"):
        engine = TransformersLikelihood(architectures.build(name))
        for _ in engine.measure(right.PAIRS):
            pass
    (record,) = [one for one in caplog.records if one.name.startswith("preceptor")]
    assert STATEFUL[name] in record.message
    assert "scored one by one" in record.message


@pytest.mark.parametrize("kind", right.DTYPES)
@pytest.mark.parametrize("name", ["falcon_h1", "diffllama"])
def test_a_layer_of_an_unknown_kind_is_found_by_the_numbers(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "refused_by_structure", lambda _model: None)
    engine = TransformersLikelihood(architectures.build(name).to(getattr(torch, kind)))
    assert engine.refusal is not None
    assert "packed and plain numbers differ" in engine.refusal


@pytest.mark.parametrize("kind", right.DTYPES)
def test_a_window_longer_than_the_probe_is_crossed_all_the_same(kind: str) -> None:
    model = architectures.build("gemma3, sliding and global").to(getattr(torch, kind))
    for layer in model.model.layers:
        if layer.self_attn.sliding_window:
            # The mask, which only the plain pass uses, keeps it.
            layer.self_attn.sliding_window = None
    model.config.sliding_window = 4096
    assert "differ" in (TransformersLikelihood(model).refusal or "")
    assert model.config.sliding_window == 4096


LENGTHS = [35, 34, 33, 10, 60, 9, 50, 33]
"""With a prompt of 6 tokens: on both sides of 40, where the position encodings of these models change."""


@pytest.mark.parametrize("name", ["llama, dynamic rope", "phi3, longrope", "phimoe, longrope"])
def test_positions_that_depend_on_a_length_are_those_of_the_sequence_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = tuple(range(3, 9))
    ids = tuple(range(20, 120))
    pairs = [TokenizedPair(prompt, ids[at : at + n]) for at, n in enumerate(LENGTHS)]
    engine = TransformersLikelihood(architectures.build(name), Runtime(max_batch_tokens=70))
    assert engine.packed
    with caplog.at_level(logging.WARNING, "preceptor"):
        found = {one.index: one.columns for batch in engine.measure(pairs) for one in batch}
    assert "3 of 8 responses are scored one by one" in caplog.text
    for index, pair in enumerate(pairs):
        model = architectures.build(name)  # knows no other sequence
        with torch.no_grad():
            row = torch.tensor([pair.prompt + pair.response])
            logs = model(input_ids=row).logits[0, 5:-1].double().log_softmax(-1)
        expected = -logs.gather(1, torch.tensor(pair.response).unsqueeze(1)).squeeze(1)
        assert found[index]["nll"] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "phi3, longrope", "bloom", "jamba", "diffllama"])
@pytest.mark.parametrize(("kind", "limit"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_rewards_go_through_the_same_check(name: str, kind: str, limit: float) -> None:
    model = architectures.build(name, labels=1).to(getattr(torch, kind))
    engine = TransformersReward(model, Runtime(max_batch_tokens=80))
    assert engine.packed == (name in ("llama", "phi3, longrope"))
    found = {one.index: one.score for batch in engine.score(right.PAIRS) for one in batch}
    plain = architectures.build(name, labels=1).to(getattr(torch, kind))
    for index, pair in enumerate(right.PAIRS):
        with torch.no_grad():
            score = plain(input_ids=torch.tensor([pair.prompt + pair.response])).logits.item()
        assert found[index] == pytest.approx(score, abs=limit)
