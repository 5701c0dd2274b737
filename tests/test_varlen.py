"""The sequences of a pack name each query once, in the order of its row, and the keys that it may see.

PyTorch's one call for all of them runs on CUDA devices only (`test_cuda`); here a function that does what it
does there takes its place, so that the way there and back is run on any machine.
"""

import inspect
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.attention import PackContext
from preceptor.engines.packed.cuda import varlen
from preceptor.engines.packed.cuda.varlen import attend_at_once, fits, segments, sequences, usable
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.packed.packing import Pack, plan
from small_pairs import PACKED, by_response, random_ids


def some_packs(budget: int) -> list[tuple[Pack, tuple[int, ...]]]:
    """Packs of shared and resumed prompts with answers of 1 to 9 tokens; the tokens of what each resumes."""
    source = random.Random(budget)
    prompts = [random_ids(source, length) for length in (4, 1, 17)]
    pairs = [
        TokenizedPair(prompt, random_ids(source, n)) for n in range(1, 10) for prompt in prompts
    ]
    found: list[tuple[Pack, tuple[int, ...]]] = []
    for one in plan(pairs, range(len(pairs)), budget=budget):
        found.append((one.pack, ()))
        found.extend((pack, one.pack.ids) for pack in one.resuming)
    return found


@pytest.mark.parametrize("budget", [1, 10, 40, 10_000])
def test_sequences_are_the_prompts_and_the_prompts_with_each_response(budget: int):
    for pack, resumed in some_packs(budget):
        if not pack.ids:
            continue
        found = segments(pack)
        expected = []
        for group in pack.groups:
            prompt = resumed if group.resumed else pack.ids[group.start : group.stop]
            if not group.resumed:
                expected.append((prompt, prompt))
            for branch in group.branches:
                if own := pack.ids[branch.start : branch.stop]:
                    expected.append((own, prompt + own))
        ids = np.array(resumed + pack.ids)
        assert [
            (pack.ids[first:stop], tuple(ids[found.order[low:high]].tolist()))
            for (first, stop), (low, high) in zip(
                pairwise(found.queries), pairwise(found.keys), strict=True
            )
        ] == expected
        assert found.queries[-1] == len(pack.ids)
        placed = sequences(pack, torch.device("cpu"))
        assert placed.most_queries == max(len(queries) for queries, _ in expected)
        assert placed.most_keys == max(len(keys) for _, keys in expected)
        assert placed.queries.dtype == placed.keys.dtype == torch.int32


def test_one_call_is_not_for_a_processor_or_full_precision():
    assert not usable(torch.device("cpu"), torch.bfloat16)
    assert not usable(torch.device("cuda"), torch.float32)


def stand_in(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    from_the_start: bool = False,
) -> torch.Tensor:
    """Attend as `varlen_attn` does: (tokens, heads, width), queries being the last of the keys.

    With `from_the_start` they are the first, which is what other libraries mean.
    """
    before, after = window_size
    assert after == 0
    outputs = []
    for (first, stop), (low, high) in zip(pairwise(cu_seq_q), pairwise(cu_seq_k), strict=True):
        length, total = int(stop - first), int(high - low)
        assert 0 < length <= max_q
        assert length <= total <= max_k
        at = torch.arange(length).unsqueeze(1) + (0 if from_the_start else total - length)
        seen = (torch.arange(total) <= at) & (
            torch.arange(total) >= at - (before if before >= 0 else total)
        )
        groups = query.shape[1] // key.shape[1]
        keys, values = (x[low:high].repeat_interleave(groups, dim=1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:stop], keys)
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(outputs)


ONLY_BY_SEGMENTS = {"gemma2", "gpt-oss"}
"""Their scores are capped, or have sinks, which the one call does not know."""


@pytest.mark.parametrize("name", PACKED)
def test_likelihoods_are_the_same_in_one_call(
    name: str,
    make_model: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
):
    source = random.Random(0)
    prompts = [random_ids(source, length) for length in (5, 40, 1)]
    pairs = [TokenizedPair(p, random_ids(source, n)) for p in prompts for n in (1, 7, 30, 2)]
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return stand_in(*arguments, **options)

    by_segments = measured(make_model(name), pairs, budget=10_000)
    monkeypatch.setattr(varlen, "usable", lambda *_: True)
    monkeypatch.setattr(varlen, "_attention", lambda: counted)
    for budget in (1, 45, 10_000):
        calls.clear()
        found = measured(make_model(name), pairs, budget=budget)
        assert bool(calls) == (name not in ONLY_BY_SEGMENTS)
        torch.testing.assert_close(found, by_segments, rtol=0, atol=1e-4)


def without_window(*arguments: Any, **options: Any) -> torch.Tensor:
    return stand_in(*arguments, **options | {"window_size": (-1, 0)})


@pytest.mark.parametrize(
    ("attention", "right"),
    [(stand_in, True), (partial(stand_in, from_the_start=True), False), (without_window, False)],
)
def test_a_call_that_means_something_else_is_found_out(
    attention: Callable[..., torch.Tensor], right: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(varlen, "_attention", lambda: attention)
    assert varlen._is_right(torch.device("cpu"), torch.float32) == right


def test_pytorch_takes_the_call_as_it_is_made(monkeypatch: pytest.MonkeyPatch):
    attention = varlen._attention()
    if attention is None:
        pytest.skip("this PyTorch has no variable-length attention with windows")

    def bound(*arguments: Any, **options: Any) -> torch.Tensor:
        inspect.signature(attention).bind(*arguments, **options)
        return arguments[0]

    monkeypatch.setattr(varlen, "_attention", lambda: bound)
    (pack, _), *_ = some_packs(10_000)
    states = torch.zeros(1, 2, len(pack.ids), 8)
    placed = sequences(pack, torch.device("cpu"))
    out = attend_at_once(states, states, states, placed, scale=None, window=None)
    assert out.shape == (1, len(pack.ids), 2, 8)


def test_keys_are_not_gathered_where_a_long_prompt_would_be_repeated_too_often():
    prompt = tuple(range(5000))
    for answers, expected in ((20, True), (60, False)):
        pairs = [TokenizedPair(prompt, (1, 2, n)) for n in range(answers)]
        (one,) = plan(pairs, range(answers), budget=16_384)
        assert fits(one.pack) == expected
        assert (
            PackContext(one.pack, None, None, torch.device("cpu")).sequences is None
        ) != expected


def measured(model: Any, pairs: list[TokenizedPair], *, budget: int) -> torch.Tensor:
    engine = TransformersLikelihood(model, Runtime(max_batch_tokens=budget))
    assert engine.packed
    return by_response(engine, pairs)


def test_where_the_one_call_fails_segments_are_attended_to_one_by_one(
    make_model: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_arguments: Any, **_options: Any) -> torch.Tensor:
        raise RuntimeError("FlashAttention only supports head dimensions that are multiples of 8")

    monkeypatch.setattr(varlen, "usable", lambda *_: True)
    monkeypatch.setattr(varlen, "_attention", lambda: refuse)
    engine = TransformersLikelihood(make_model("llama"))
    assert engine.packed
    assert not engine.at_once
    pairs = [TokenizedPair((5, 6), (7, 8, 9))]
    assert [len(batch) for batch in engine.measure(pairs)] == [1]


@pytest.mark.parametrize("error", [RuntimeError("no kernel image"), TypeError("no such option")])
def test_a_call_that_fails_is_not_relied_on(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object) -> bool:
        raise error

    monkeypatch.setattr(varlen, "_attention", lambda: stand_in)
    monkeypatch.setattr(varlen, "_is_right", fail)
    assert not usable.__wrapped__(torch.device("cuda", 0), torch.bfloat16)


def test_want_of_memory_is_not_taken_for_a_call_that_fails(monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(varlen, "_attention", lambda: stand_in)
    monkeypatch.setattr(varlen, "_is_right", full)
    with pytest.raises(torch.OutOfMemoryError):
        usable.__wrapped__(torch.device("cuda", 0), torch.bfloat16)
