"""On a CUDA device the engines give what they give on a CPU, and survive the want of its memory."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.attention import PackContext, PromptMemory, packed_attention, running
from preceptor.engines.packed.cuda.varlen import usable
from preceptor.engines.packed.head import Head, _device_fold, _Fold, _FoldOnDevice, _sums_in_full
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.engines.packed.packing import Pack, plan
from preceptor.engines.packed.reward import TransformersReward
from small_pairs import PACKED, PLAIN, by_response, random_ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NAMES = [*PACKED, *PLAIN]

MakeModel = Callable[..., Any]


def some_pairs() -> list[TokenizedPair]:
    """Twenty-five pairs that share four prompts of 1 to 150 tokens; responses of 1 to 330."""
    source = random.Random(0)
    prompts = [random_ids(source, length) for length in (5, 40, 1, 150)]
    lengths = [1, 7, 34, 66, 2, 330]
    pairs = [TokenizedPair(prompt, random_ids(source, n)) for prompt in prompts for n in lengths]
    return [*pairs, pairs[2]]


PAIRS = some_pairs()


def on_cuda(
    model: Any, dtype: torch.dtype = torch.float32, **options: Any
) -> TransformersLikelihood:
    return TransformersLikelihood(model.to("cuda", dtype), Runtime(**options))


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_in_float32_are_those_of_the_cpu(name: str, make_model: MakeModel) -> None:
    expected = by_response(TransformersLikelihood(make_model(name)), PAIRS)
    for budget in (1, 300, 10_000):
        engine = on_cuda(make_model(name), max_batch_tokens=budget)
        assert engine.packed == (name in PACKED)
        torch.testing.assert_close(by_response(engine, PAIRS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PACKED)
def test_likelihoods_in_half_precision_are_no_further_from_the_truth_than_the_plain_path(
    name: str, dtype: torch.dtype, make_model: MakeModel
) -> None:
    rounded = make_model(name).to(dtype).float()  # the very weights that are run
    expected = by_response(TransformersLikelihood(rounded), PAIRS)
    plain = by_response(on_cuda(make_model(name), dtype, packed=False), PAIRS)
    engine = on_cuda(make_model(name), dtype, max_batch_tokens=1000)
    assert engine.packed
    assert engine.at_once == usable(torch.device("cuda", 0), dtype)
    found = by_response(engine, PAIRS)
    assert found.isfinite().all()
    # Of a few tokens a mean rank says nothing: one that changes by one decides.
    long = torch.tensor([len(pair.response) >= 30 for pair in PAIRS])
    error, allowed = ((each - expected)[long].pow(2).mean(0).sqrt() for each in (found, plain))
    assert (error <= 1.5 * allowed + 1e-4).all(), (error, allowed)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_budget_changes_little_in_half_precision(name: str, make_model: MakeModel) -> None:
    found = [
        by_response(on_cuda(make_model(name), torch.bfloat16, max_batch_tokens=budget), PAIRS)
        for budget in (50, 10_000)
    ]
    torch.testing.assert_close(found[0][:, 0], found[1][:, 0], rtol=0, atol=0.05)


def test_when_the_memory_of_the_device_runs_out_smaller_packs_are_run(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    expected = by_response(TransformersLikelihood(make_model("llama")), PAIRS)
    engine = on_cuda(make_model("llama"), max_batch_tokens=100_000)
    total = torch.cuda.get_device_properties(0).total_memory
    hoard = 8 * 2**20

    def hold(_module: Any, _args: object, options: dict[str, Any]) -> None:
        """Take memory for every token of the row, so that only a short row leaves enough."""
        torch.empty(options["input_ids"].shape[1] * 2**20, dtype=torch.uint8, device="cuda")

    engine.model.base_model.register_forward_pre_hook(hold, with_kwargs=True)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_allocated() + hoard
    torch.cuda.set_per_process_memory_fraction((used + 500 * 2**20) / total)
    try:
        found = by_response(engine, PAIRS)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: going on with" in caplog.text
    assert 200 < engine.budget < 500
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3"])
def test_rewards_are_those_of_the_cpu(
    name: str, dtype: torch.dtype, limit: float, make_model: MakeModel
) -> None:
    scores = []
    for device in ("cpu", "cuda"):
        model = make_model(name, labels=1).to(dtype)
        # The CPU in full precision: what the very weights that are run amount to.
        engine = TransformersReward(model.float() if device == "cpu" else model.to(device))
        assert engine.packed
        found = [one for batch in engine.score(PAIRS) for one in batch]
        scores.append([one.score for one in sorted(found, key=lambda one: one.index)])
    assert scores[1] == pytest.approx(scores[0], abs=limit)


@pytest.mark.parametrize(
    ("dtype", "at_once"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)],
)
@pytest.mark.parametrize("shape", [(32, 8, 64), (8, 2, 256), (4, 4, 128)])
@pytest.mark.parametrize(("window", "budget"), [(None, 9_000), (None, 60_000), (100, 60_000)])
def test_attention_is_that_of_the_definition_at_every_length(
    dtype: torch.dtype,
    at_once: bool,
    shape: tuple[int, int, int],
    window: int | None,
    budget: int,
) -> None:
    if at_once and not usable(torch.device("cuda", 0), dtype):
        pytest.skip("this PyTorch or device has no variable-length attention")
    *heads, width = shape
    source = random.Random(0)
    short, long = (random_ids(source, length) for length in (40, 121))
    pairs = [TokenizedPair(short, random_ids(source, n)) for n in range(2, 331)]
    pairs += [TokenizedPair(long, random_ids(source, n)) for n in range(2, 331) if n % 32 < 4]
    alone = [TokenizedPair(random_ids(source, n), (5, 6)) for n in range(1, 330, 16)]
    states = torch.Generator("cuda").manual_seed(0)
    errors = []
    for one in plan([*pairs, *alone], range(len(pairs) + len(alone)), budget=budget):
        kept = PromptMemory()
        for pack in (one.pack, *one.resuming):
            query, key, value = (
                torch.randn(
                    1, len(pack.ids), n, width, generator=states, device="cuda", dtype=dtype
                ).transpose(1, 2)
                for n in (heads[0], heads[1], heads[1])
            )
            memory = (None, kept if one.resuming else None) if pack is one.pack else (kept, None)
            context = PackContext(pack, *memory, query.device if at_once else None)
            with running(context), torch.inference_mode():
                out, _ = packed_attention(
                    torch.nn.Module(), query, key, value, sliding_window=window
                )
            for span, keys, values in segments_of(pack, key, value, kept):
                expected = defined(query[:, :, span], keys, values, window)
                errors.append((out[:, span].double() - expected).abs().max())
    assert len(errors) == len(pairs) + 2 + 2 * len(alone)
    assert float(torch.stack(errors).max()) < (1e-5 if dtype == torch.float32 else 0.02)


def segments_of(
    pack: Pack, key: torch.Tensor, value: torch.Tensor, kept: PromptMemory
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield where the queries of each prompt and each response lie, and the keys and values they see."""
    for group in pack.groups:
        span = slice(group.start, group.stop)
        prompt = kept.layers[0] if group.resumed else (key[:, :, span], value[:, :, span])
        if not group.resumed:
            yield span, *prompt
        for branch in group.branches:
            span = slice(branch.start, branch.stop)
            own = (key[:, :, span], value[:, :, span])
            keys, values = (torch.cat(part, dim=2) for part in zip(prompt, own, strict=True))
            yield span, keys, values


def defined(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Return causal attention in float64, the queries being the last of the keys."""
    length, total = query.shape[2], key.shape[2]
    key, value = (
        part.double().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        for part in (key, value)
    )
    scores = query.double() @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    at = torch.arange(total - length, total, device="cuda").unsqueeze(1)
    keys_at = torch.arange(total, device="cuda")
    seen = (keys_at <= at) & (keys_at > at - (window or total))
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("columns", [50, 1024, 5003])
@pytest.mark.parametrize("size", [0.1, 4.0, 30.0, 200.0])
def test_the_fold_of_the_device_is_that_of_pytorch(columns: int, size: float) -> None:
    source = torch.Generator("cuda").manual_seed(3)
    logits = torch.randn(65, 5003, generator=source, device="cuda") * size
    logits[3] = 7.0
    logits[5, 100] = torch.nan
    logits[6, 5002] = torch.inf
    logits[7, ::2] = -torch.inf
    logits[8, 77] = -torch.inf
    targets = torch.randint(5003, (65,), generator=source, device="cuda")
    targets[7], targets[8] = 4001, 77
    fold = _device_fold(logits.device)
    if fold is None:
        pytest.skip("this PyTorch has no Triton that can be used")
    thresholds = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    folds = [
        _FoldOnDevice(fold, targets, thresholds),
        _Fold(targets, thresholds, columns=columns),
    ]
    for first in range(0, 5003, columns):
        for one in folds:
            one.add(logits[:, first : first + columns].clone(), first)
    found, expected = (one.result() for one in folds)
    assert found.nll[5:7].isnan().all()
    others = [row for row in range(65) if row not in (5, 6, 7, 8)]
    tolerance = {"rtol": 1e-5, "atol": 1e-5 + 1e-6 * size}
    for mine, theirs in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(mine[others], theirs[others], **tolerance)
    # What is impossible has no share in anything: row 7 is one of half the vocabulary.
    logs = logits[7, 1::2].double().log_softmax(-1)
    brier = 1 - 2 * logs[2000].exp() + (2 * logs).exp().sum()
    torch.testing.assert_close(found.brier[7].double(), brier, **tolerance)
    torch.testing.assert_close(found.nll[7].double(), -logs[2000], **tolerance)
    assert found.nll[8] == torch.inf


def test_logits_in_half_precision_are_not_rounded() -> None:
    if not _sums_in_full(torch.device("cuda", 0), torch.bfloat16):
        pytest.skip("this PyTorch has no product of half precision in float32")
    source = torch.Generator("cuda").manual_seed(3)
    hidden, weight = (
        torch.randn(n, 512, generator=source, device="cuda").bfloat16() for n in (70, 3001)
    )
    targets = torch.randint(3001, (70,), generator=source, device="cuda")
    logits = hidden.double() @ weight.double().T
    expected = logits.log_softmax(-1)
    found = Head(weight, rows=32, columns=1000).statistics(hidden, targets)
    nll = -expected.gather(1, targets.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found.nll.double(), nll, rtol=1e-4, atol=1e-3)
    ranks = 1 + (logits > logits.gather(1, targets.unsqueeze(1))).sum(-1)
    assert (found.rank == ranks.clamp(max=100)).all()
