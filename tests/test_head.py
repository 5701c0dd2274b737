"""The tiled output layer gives what the whole matrix of logits gives, to rounding.

The reference is computed here in float64 from full logits, straight from the definitions: -log softmax at
the target, one plus the number of strictly likelier tokens, and 1 - 2 p + the sum of p squared.
"""

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from preceptor.engines.packed.head import (
    DeviceFold,
    Head,
    TokenTensors,
    _device_fold,
    _Fold,
    _FoldOnDevice,
    _Likeliest,
    fold_logits,
)

VOCABULARY, WIDTH, TOKENS = 317, 16, 45
TILES = [(1, 1), (7, 10), (16, 100), (64, 317), (1024, 1024)]


class Layer(NamedTuple):
    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    targets: torch.Tensor


def layer(size: float = 1.0) -> Layer:
    """Return random states and an output layer whose logits have about this standard deviation."""
    source = torch.Generator().manual_seed(7)
    return Layer(
        torch.randn(TOKENS, WIDTH, generator=source) * size / WIDTH**0.5,
        torch.randn(VOCABULARY, WIDTH, generator=source),
        torch.randn(VOCABULARY, generator=source),
        torch.randint(VOCABULARY, (TOKENS,), generator=source),
    )


def reference(logits: torch.Tensor, targets: torch.Tensor) -> TokenTensors:
    logs = logits.double().log_softmax(-1)
    nll = -logs.gather(1, targets.unsqueeze(1)).squeeze(1)
    at_target = logits.gather(1, targets.unsqueeze(1))
    rank = 1 + (logits > at_target).sum(-1)
    squares = (2 * logs).exp().sum(-1)
    return TokenTensors(nll, rank, 1 - 2 * (-nll).exp() + squares)


def assert_equal(found: TokenTensors, expected: TokenTensors, tolerance: float = 1e-5) -> None:
    for one, other in zip(found[:3], expected[:3], strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(
            one.double(), other.double(), rtol=1e-6, atol=tolerance, equal_nan=True
        )


@pytest.mark.parametrize(("rows", "columns"), TILES)
def test_statistics_do_not_depend_on_the_tile(rows: int, columns: int) -> None:
    hidden, weight, _, targets = layer(3.0)
    found = Head(weight, rows=rows, columns=columns).statistics(hidden, targets)
    assert_equal(found, reference(hidden @ weight.T, targets))


@pytest.mark.parametrize(("rows", "columns"), TILES)
def test_bias_scale_and_cap_enter_in_that_order(rows: int, columns: int) -> None:
    hidden, weight, bias, targets = layer(3.0)
    head = Head(weight, bias, scale=1.7, softcap=4.0, rows=rows, columns=columns)
    logits = torch.tanh((hidden @ weight.T + bias) * 1.7 / 4.0) * 4.0
    assert_equal(head.statistics(hidden, targets), reference(logits, targets))


@pytest.mark.parametrize(("rows", "columns"), TILES)
def test_the_brier_score_among_the_likeliest_is_that_of_fifty_scaled_to_one(
    rows: int, columns: int
) -> None:
    hidden, weight, _, targets = layer(3.0)
    logits = (hidden @ weight.T).double()
    best, places = logits.topk(50)
    shares = best.softmax(-1)
    own = (shares * (places == targets.unsqueeze(1))).sum(-1)
    assert 0 < (own == 0).sum() < TOKENS
    found = Head(weight, rows=rows, columns=columns).statistics(hidden, targets, top=True).brier_50
    assert found is not None
    expected = 1 - 2 * own + (shares**2).sum(-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", [30.0, 150.0, 1000.0])
@pytest.mark.parametrize("columns", [10, 1024])
def test_huge_logits_neither_overflow_nor_lose_precision(size: float, columns: int) -> None:
    hidden, weight, _, targets = layer(size)
    logits = hidden @ weight.T
    assert logits.abs().max() > 2 * size
    found = Head(weight, rows=16, columns=columns).statistics(hidden, targets)
    assert_equal(found, reference(logits, targets), tolerance=1e-6 * size)


@pytest.mark.parametrize("offset", [-1000.0, -80.0, 80.0, 1000.0])
def test_a_constant_added_to_all_logits_changes_nothing(offset: float) -> None:
    hidden, weight, _, targets = layer(2.0)
    found = Head(weight, torch.full((VOCABULARY,), offset), columns=50).statistics(hidden, targets)
    plain = Head(weight, columns=50).statistics(hidden, targets)
    assert_equal(found, plain, tolerance=5e-4)


def test_the_likeliest_token_has_rank_one_and_the_least_likely_the_last() -> None:
    hidden, weight, _, _ = layer()
    order = (hidden @ weight.T).argsort(-1, descending=True)
    head = Head(weight, columns=100)
    for place in (0, 1, 98, 100, VOCABULARY - 1):
        assert set(head.statistics(hidden, order[:, place]).rank.tolist()) == {place + 1}


def test_tokens_that_tie_with_the_target_do_not_count_as_likelier() -> None:
    weight = torch.zeros(40, 4)
    weight[[3, 17, 30], 0] = 2.0
    weight[5, 0] = 3.0
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(4, 4)
    targets = torch.tensor([5, 3, 17, 0])
    for columns in (4, 16, 40):
        found = Head(weight, columns=columns).statistics(hidden, targets)
        assert found.rank.tolist() == [1, 2, 2, 5]


def test_even_odds_give_the_brier_score_of_the_vocabulary() -> None:
    found = Head(torch.zeros(50, 3), columns=7).statistics(torch.ones(2, 3), torch.tensor([0, 49]))
    log_50 = torch.full((2,), 50.0).log()
    torch.testing.assert_close(found.nll, log_50)
    torch.testing.assert_close(found.brier, torch.full((2,), 1 - 2 / 50 + 1 / 50))


@pytest.mark.parametrize("size", [1.0, 150.0])
def test_a_state_that_is_no_number_spoils_its_own_token_only(size: float) -> None:
    hidden, weight, _, targets = layer(size)
    head = Head(weight, rows=16, columns=50)
    clean = head.statistics(hidden, targets)
    hidden = hidden.clone()
    hidden[4, 2] = torch.nan
    found = head.statistics(hidden, targets)
    others = torch.arange(TOKENS) != 4
    assert found.nll[4].isnan()
    assert_equal(
        TokenTensors(*(column[others] for column in found[:3])),
        TokenTensors(*(column[others] for column in clean[:3])),
        tolerance=1e-5 * size,
    )


@pytest.mark.parametrize("size", [3.0, 150.0])
def test_ready_logits_fold_to_the_same_statistics(size: float) -> None:
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(300, VOCABULARY, generator=source) * size
    targets = torch.randint(VOCABULARY, (300,), generator=source)
    expected = reference(logits, targets)
    assert_equal(fold_logits(logits.clone(), targets), expected, tolerance=1e-6 * size)


@pytest.mark.parametrize("columns", [1, 15, 16, 100, 1024])
@pytest.mark.parametrize("size", [0.1, 4.0, 30.0])
def test_the_fold_of_a_device_keeps_the_statistics_by_its_contract(
    columns: int, size: float
) -> None:
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(40, 515, generator=source) * size - 100 * (size > 20)
    targets = torch.randint(515, (40,), generator=source)
    assert_equal(folded(right, logits, targets, columns), folded(None, logits, targets, columns))


@pytest.mark.parametrize("by_device", [False, True])
def test_a_rising_maximum_does_not_spoil_what_was_folded_before(by_device: bool) -> None:
    logits = torch.linspace(-300, 300, 96).repeat(3, 1)
    targets = torch.tensor([0, 50, 95])
    found = folded(right if by_device else None, logits, targets, 16)
    assert_equal(found, reference(logits, targets), tolerance=3e-5)  # a float32 of 300 is no nearer
    assert found.rank.tolist() == [96.0, 46.0, 1.0]


@pytest.mark.parametrize("by_device", [False, True])
@pytest.mark.parametrize("size", [1.0, 150.0])
@pytest.mark.parametrize("impossible", [slice(7, 8), slice(16, 33)])
def test_an_entry_that_cannot_be_taken_weighs_nothing(
    impossible: slice, size: float, by_device: bool
) -> None:
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(1)) * size
    logits[:, impossible] = -torch.inf
    targets = torch.tensor([1, 2, 3, 39])
    found = folded(right if by_device else None, logits, targets, 16)
    assert_equal(found, reference(logits, targets), tolerance=1e-5 * size)


@pytest.mark.parametrize("special", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [3, 39])
def test_a_logit_that_is_no_number_spoils_its_own_row_alone(special: float, place: int) -> None:
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))
    logits[2, place] = special
    found = folded(None, logits, torch.tensor([1, 2, 5, 38]), 16)
    assert torch.isfinite(found.nll).tolist() == [True, True, False, True]
    assert torch.isfinite(found.brier).tolist() == [True, True, False, True]


def folded(
    fold: DeviceFold | None, logits: torch.Tensor, targets: torch.Tensor, columns: int
) -> TokenTensors:
    """Return the statistics by a device's fold, or by PyTorch's operations, from tiles of this width."""
    thresholds = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    running = (
        _Fold(targets, thresholds, columns=columns)
        if fold is None
        else _FoldOnDevice(fold, targets, thresholds)
    )
    for first in range(0, logits.shape[1], columns):
        running.add(logits[:, first : first + columns].clone(), first)
    return running.result()


def right(
    logits: torch.Tensor,
    first: int,
    targets: torch.Tensor,
    thresholds: torch.Tensor,
    found: torch.Tensor,
    top: torch.Tensor,
    total: torch.Tensor,
    squares: torch.Tensor,
    above: torch.Tensor,
) -> None:
    """What a device's fold must do (see `triton_fold.fold`), in float64 and in PyTorch's operations."""
    powers = logits.double() / math.log(2)
    risen = torch.maximum(top.double(), powers.amax(-1))
    lift = top - risen
    gaps = powers - risen.unsqueeze(-1)
    weights = gaps.exp2()
    squares.copy_(squares * (2 * lift).exp2() + (weights**2).sum(-1))
    total.copy_(total * lift.exp2() + weights.sum(-1))
    top.copy_(risen)
    here = targets.unsqueeze(1) == torch.arange(first, first + logits.shape[1])
    likelier = logits > thresholds.unsqueeze(1)
    above += (likelier & ~here).sum(-1)
    inside = here.any(-1)
    found[inside] = logits[here]


def wrong(logits: torch.Tensor, first: int, *state: torch.Tensor) -> None:
    """Leave the statistics as they are."""


def broken(logits: torch.Tensor, first: int, *state: torch.Tensor) -> None:
    raise SyntaxError("this compiler knows no such processor")


def full(logits: torch.Tensor, first: int, *state: torch.Tensor) -> None:
    raise RuntimeError("Triton Error [CUDA]: out of memory")


@pytest.fixture
def triton_fold(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module in the place of Triton's fold, which needs a CUDA device; nothing is remembered of it."""
    module = ModuleType("preceptor.engines.packed.cuda.triton_fold")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    _device_fold.cache_clear()
    yield module
    _device_fold.cache_clear()


def test_a_fold_of_the_device_is_used_only_where_it_is_right(triton_fold: ModuleType) -> None:
    for fold, used in ((right, True), (wrong, False), (broken, False)):
        triton_fold.fold = fold  # type: ignore[attr-defined]
        _device_fold.cache_clear()
        assert _device_fold(torch.device("cpu")) == (fold if used else None)


def test_want_of_memory_does_not_rule_out_the_fold_of_a_device(triton_fold: ModuleType) -> None:
    triton_fold.fold = full  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            _device_fold(torch.device("cpu"))


@pytest.mark.parametrize("columns", [50, 1024])
def test_half_precision_ranks_are_those_of_its_own_logits(columns: int) -> None:
    hidden, weight, _, targets = (part.bfloat16() for part in layer(3.0))
    targets = targets.long()
    logits = (hidden @ weight.T).float()
    found = Head(weight, columns=columns).statistics(hidden, targets)
    expected = reference(logits, targets)
    assert_equal(found, expected)


def drawn_logits() -> torch.Tensor:
    return torch.randn(40, 3000, generator=torch.Generator().manual_seed(3)) * 3


LOGITS = {
    "in no order": drawn_logits(),
    "rising, so that every tile exceeds all before": drawn_logits().sort(1).values,
    "falling": drawn_logits().sort(1, descending=True).values,
    "with ties at every place": drawn_logits().round(),
    "all equal": torch.zeros(40, 3000),
    "nearly all impossible": drawn_logits().masked_fill(torch.arange(3000) % 97 > 0, -torch.inf),
}


@pytest.mark.parametrize("name", list(LOGITS))
@pytest.mark.parametrize("columns", [20, 64, 100, 512, 4096])
def test_the_likeliest_over_tiles_are_those_of_the_whole_row(name: str, columns: int) -> None:
    logits = LOGITS[name]
    likeliest = _Likeliest()
    for tile in logits.split(columns, dim=1):
        memory = tile.clone(memory_format=torch.contiguous_format)
        likeliest.add(memory)
        memory.fill_(99)  # as the next tile overwrites it
    likeliest._merge()
    assert likeliest.logits is not None
    assert torch.equal(likeliest.logits, logits.topk(50).values)
