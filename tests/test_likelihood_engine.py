"""The engine gives each architecture's own likelihoods, however the pairs are packed, and survives trouble.

The reference is written here from the definitions: one sequence at a time, full logits of the model's own
forward pass with eager attention, in float32, reduced in float64.
"""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.check import PROBE_BUDGET, probe_pairs
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.packed.packing import plan
from preceptor.scorers.token_measures import sums_of
from small_pairs import NAN_TOKEN, PACKED, PLAIN, random_ids

pytestmark = pytest.mark.usefixtures("one_thread")

MakeModel = Callable[[str], Any]
Sums = dict[str, float]


@pytest.fixture
def two_threads(one_thread: None) -> int:
    """Two threads for PyTorch, so that packs run side by side on any machine."""
    torch.set_num_threads(2)
    return 2


def some_pairs() -> list[TokenizedPair]:
    """Fifteen pairs: prompts of 1 to 40 tokens, responses of 1 to 61, shared prompts, a twin."""
    source = random.Random(0)
    prompts = [random_ids(source, length) for length in (5, 40, 1)]
    lengths = [1, 7, 30, 61, 2, 1, 12]
    pairs = [TokenizedPair(p, random_ids(source, n)) for p in prompts[:2] for n in lengths]
    return [*pairs, TokenizedPair(prompts[2], pairs[3].response), pairs[2]]


PAIRS = some_pairs()


def reference(model: Any, pair: TokenizedPair) -> Sums:
    ids, start = torch.tensor([pair.prompt + pair.response]), len(pair.prompt)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1]
    assert logits.dtype == torch.float32
    targets = torch.tensor(pair.response).unsqueeze(1)
    logs = logits.double().log_softmax(-1)
    nll = -logs.gather(1, targets)
    rank = (1 + (logits > logits.gather(1, targets)).sum(-1)).clamp(max=100)
    brier = (1 - 2 * (-nll).exp()).sum() + (2 * logs).exp().sum()
    sums = {"nll": nll.sum().item(), "rank": rank.sum().item(), "brier": brier.item()}
    return {"tokens": len(targets), **sums}


def references(make_model: MakeModel, name: str) -> list[Sums]:
    model = make_model(name)
    model.set_attn_implementation("eager")
    return [reference(model, pair) for pair in PAIRS]


def measure(engine: TransformersLikelihood, pairs: Sequence[TokenizedPair]) -> list[Sums]:
    """Return the sums over tokens in the pairs' order, each pair having come exactly once."""
    found = [measured for batch in engine.measure(pairs) for measured in batch]
    assert sorted(measured.index for measured in found) == list(range(len(pairs)))
    return [sums_of(one.columns) for one in sorted(found, key=lambda one: one.index)]


def assert_close(found: Sums, expected: Sums) -> None:
    tokens = expected["tokens"]
    assert found["tokens"] == tokens
    for name in ("nll", "rank", "brier"):
        assert found[name] / tokens == pytest.approx(expected[name] / tokens, abs=1e-4, rel=0)


@pytest.mark.parametrize("name", PACKED)
def test_packs_give_the_likelihoods_of_single_sequences_at_any_budget_in_any_order(
    name: str, make_model: MakeModel
) -> None:
    expected = references(make_model, name)
    assert len({round(one["nll"] / one["tokens"], 3) for one in expected}) > 10
    for budget in (1, 50, 10_000):
        order = random.Random(budget).sample(range(len(PAIRS)), len(PAIRS))
        engine = TransformersLikelihood(make_model(name), Runtime(max_batch_tokens=budget))
        assert engine.packed
        torch.set_num_threads(2 if budget == 50 else 1)
        found = measure(engine, [PAIRS[place] for place in order])
        torch.set_num_threads(1)
        for place, statistics in zip(order, found, strict=True):
            assert_close(statistics, expected[place])


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt-oss"])
def test_prompts_and_responses_longer_than_a_block_of_attention_are_right(
    name: str, make_model: MakeModel
) -> None:
    source = random.Random(3)
    long, short = random_ids(source, 150), random_ids(source, 3)
    pairs = [TokenizedPair(long, random_ids(source, length)) for length in (330, 140, 257)]
    pairs.append(TokenizedPair(short, random_ids(source, 400)))
    model = make_model(name)
    model.set_attn_implementation("eager")
    for budget in (300, 10_000):
        engine = TransformersLikelihood(make_model(name), Runtime(max_batch_tokens=budget))
        for pair, statistics in zip(pairs, measure(engine, pairs), strict=True):
            assert_close(statistics, reference(model, pair))


@pytest.mark.parametrize("name", PLAIN)
def test_a_model_that_cannot_be_packed_is_run_plainly_with_a_warning(
    name: str, make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "preceptor"):
        engine = TransformersLikelihood(make_model(name))
    assert not engine.packed
    assert "cannot be packed" in caplog.text
    model = make_model(name)
    for pair, statistics in zip(PAIRS, measure(engine, PAIRS), strict=True):
        assert_close(statistics, reference(model, pair))


def test_an_attention_function_that_is_told_less_than_the_model_knows_is_found_out(
    make_model: MakeModel,
) -> None:
    model = make_model("gemma3")
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None  # the mask, which only the plain path uses, keeps it
    engine = TransformersLikelihood(model)
    assert not engine.packed
    for expected, found in zip(
        references(make_model, "gemma3"), measure(engine, PAIRS), strict=True
    ):
        assert_close(found, expected)


def test_the_plain_path_can_be_asked_for_without_a_warning(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "preceptor"):
        engine = TransformersLikelihood(make_model("gemma2"), packed=False)
    assert not caplog.records
    expected = references(make_model, "gemma2")
    for one, other in zip(measure(engine, PAIRS), expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-oss"])
def test_a_prompt_is_resumed_over_many_packs(name: str, make_model: MakeModel) -> None:
    source = random.Random(1)
    prompt, other = random_ids(source, 45), random_ids(source, 4)
    pairs = [TokenizedPair(prompt, random_ids(source, 1 + n % 9)) for n in range(40)]
    pairs.insert(20, TokenizedPair(other, random_ids(source, 5)))
    model = make_model(name)
    rows: list[int] = []
    engine = TransformersLikelihood(make_model(name), Runtime(max_batch_tokens=30))
    engine.model.base_model.register_forward_pre_hook(
        lambda _module, _args, options: rows.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    found = measure(engine, pairs)
    assert sum(rows) == 45 + 4 + sum(len(pair.response) - 1 for pair in pairs)
    assert len(rows) > 4
    for pair, statistics in zip(pairs, found, strict=True):
        assert_close(statistics, reference(model, pair))


@pytest.mark.parametrize("budget", [1, 3, 64])
def test_one_token_responses_cost_nothing_beyond_their_prompts(
    budget: int, make_model: MakeModel
) -> None:
    pairs = [TokenizedPair(prompt, (n,)) for prompt in ((5, 6), (7,)) for n in range(3, 9)]
    model = make_model("llama")
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=budget))
    for pair, statistics in zip(pairs, measure(engine, pairs), strict=True):
        assert_close(statistics, reference(model, pair))


def test_identical_pairs_get_identical_numbers(make_model: MakeModel) -> None:
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=100))
    first, *others = measure(engine, [PAIRS[2]] * 7)
    for other in others:
        assert_close(other, first)


def test_no_pairs_give_no_batches(make_model: MakeModel) -> None:
    assert list(TransformersLikelihood(make_model("llama")).measure([])) == []


def threads_of_a_new_thread() -> int:
    """Return how many threads PyTorch would use in a thread begun now."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_the_probe_meets_every_shape_of_a_pack() -> None:
    pairs = probe_pairs(1000)
    first, second = plan(pairs, range(len(pairs)), budget=PROBE_BUDGET)
    assert [[len(g.branches) for g in pack.groups] for pack in first.resuming] == [[2], [2]]
    assert not second.resuming
    assert [(g.resumed, len(g.branches)) for g in second.pack.groups] == [(False, 2), (False, 1)]


def limit_memory(engine: TransformersLikelihood, tokens: int) -> None:
    """Make the engine's model run out of memory on rows longer than `tokens`."""

    def refuse(_module: Any, args: tuple[torch.Tensor, ...], options: dict[str, Any]) -> None:
        ids = args[0] if args else options["input_ids"]
        if ids.shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine.model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize("limit", [101, 130])
def test_running_out_of_memory_halves_the_budget_and_loses_nothing(
    limit: int, make_model: MakeModel, caplog: pytest.LogCaptureFixture, two_threads: int
) -> None:
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=10_000))
    limit_memory(engine, limit)
    with caplog.at_level(logging.WARNING, "preceptor"):
        found = measure(engine, PAIRS)
    assert 25 <= engine.budget <= limit
    assert f"going on with {engine.budget} tokens" in caplog.text
    for expected, statistics in zip(references(make_model, "llama"), found, strict=True):
        assert_close(statistics, expected)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_response_that_never_fits_is_left_out_and_the_others_are_right(
    name: str, make_model: MakeModel
) -> None:
    source = random.Random(2)
    lengths = [3, 90, 20, 56, 57, 5]
    pairs = [TokenizedPair(random_ids(source, 5), random_ids(source, n)) for n in lengths]
    engine = TransformersLikelihood(make_model(name), Runtime(max_batch_tokens=200))
    limit_memory(engine, 60)
    model = make_model(name)
    found = {m.index: sums_of(m.columns) for batch in engine.measure(pairs) for m in batch}
    fitting = [i for i, pair in enumerate(pairs) if len(pair.prompt + pair.response) - 1 <= 60]
    assert sorted(found) == fitting
    for index in fitting:
        assert_close(found[index], reference(model, pairs[index]))


def test_a_prompt_that_never_fits_takes_only_its_own_responses_with_it(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture, two_threads: int
) -> None:
    source = random.Random(2)
    prompts = [random_ids(source, n) for n in (5, 70)]
    pairs = [TokenizedPair(prompts[n % 2], random_ids(source, 20)) for n in range(12)]
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=50))
    limit_memory(engine, 60)
    with caplog.at_level(logging.WARNING, "preceptor"):
        found = {m.index: sums_of(m.columns) for batch in engine.measure(pairs) for m in batch}
    assert sorted(found) == list(range(0, 12, 2))
    assert "70 tokens in one row do not fit in memory and 6 responses are left out" in caplog.text
    assert engine.budget == 50
    for index, statistics in found.items():
        assert_close(statistics, reference(make_model("llama"), pairs[index]))


def test_what_does_not_fit_beside_other_packs_is_run_alone(
    make_model: MakeModel, two_threads: int
) -> None:
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=1))

    def refuse(_module: Any, _args: object, _options: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine.model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = measure(engine, PAIRS[:5])
    for expected, statistics in zip(references(make_model, "llama"), found, strict=False):
        assert_close(statistics, expected)


def test_memory_that_never_suffices_gives_nothing_and_ends(make_model: MakeModel) -> None:
    pairs = [TokenizedPair(p, (n,)) for p in ((5,), (6, 7, 8)) for n in range(3, 9)]
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=8))
    limit_memory(engine, 0)
    assert list(engine.measure(pairs)) == []


def test_weights_that_are_no_numbers_spoil_only_the_rows_that_meet_them(
    make_model: MakeModel,
) -> None:
    broken = make_model("llama")
    broken.get_input_embeddings().weight.data[NAN_TOKEN] = torch.nan
    pairs = list(PAIRS)
    pairs[4] = TokenizedPair(PAIRS[4].prompt, (NAN_TOKEN, *PAIRS[4].response))
    pairs[6] = TokenizedPair((*PAIRS[6].prompt, NAN_TOKEN), PAIRS[6].response)
    model = make_model("llama")
    for budget in (50, 10_000):
        engine = TransformersLikelihood(broken, Runtime(max_batch_tokens=budget))
        assert engine.packed
        for place, statistics in enumerate(measure(engine, pairs)):
            if place in (4, 6):
                assert statistics["nll"] != statistics["nll"]
            else:
                assert_close(statistics, reference(model, pairs[place]))


def test_an_error_of_a_worker_reaches_the_caller_and_all_threads_end(
    make_model: MakeModel, two_threads: int
) -> None:
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=1))
    passes = iter(range(100))

    def fail(*_arguments: object) -> None:
        if next(passes) == 4:
            raise ValueError("this layer is broken")

    engine.model.base_model.register_forward_pre_hook(fail)
    before = threading.active_count()
    with pytest.raises(ValueError, match="this layer is broken"):
        list(engine.measure([TokenizedPair((number,), (4, 5)) for number in range(3, 30)]))
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads_of_a_new_thread() == two_threads


def test_a_consumer_that_stops_early_leaves_no_threads_running(
    make_model: MakeModel, two_threads: int
) -> None:
    engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=1))
    passes: list[None] = []
    engine.model.base_model.register_forward_pre_hook(lambda *_arguments: passes.append(None))
    pairs = [TokenizedPair((number,), (4, 5)) for number in range(3, 60)]
    before = threading.active_count()
    batches = engine.measure(pairs)
    next(batches)
    assert threading.active_count() == before + two_threads
    batches.close()
    assert threading.active_count() == before
    assert len(passes) < len(pairs) / 2
    assert torch.get_num_threads() == threads_of_a_new_thread() == two_threads
    assert len(measure(engine, pairs)) == len(pairs)


def test_nothing_of_inference_mode_leaks_to_a_consumer_between_batches(
    make_model: MakeModel,
) -> None:
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        engine = TransformersLikelihood(make_model("llama"), Runtime(max_batch_tokens=1))
        batches = engine.measure(PAIRS[:3])
        next(batches)
        assert not torch.is_inference_mode_enabled()
        batches.close()
        torch.set_num_threads(before)
