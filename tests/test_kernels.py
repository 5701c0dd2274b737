"""The compiled steps give what PyTorch's own operations give, to rounding, and can be done without."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from preceptor.engines.packed.attention import PackContext, _attend, _Scoring, running
from preceptor.engines.packed.cpu import kernels as module
from preceptor.engines.packed.cpu.kernels import (
    GELU_TANH,
    SILU,
    SWITCH,
    Kernels,
    attends,
    fits,
    kernels,
    rotates,
)
from preceptor.engines.packed.cpu.memory import _rotates_in_place, normalise_at_once
from preceptor.engines.packed.head import _CompiledFold, _Fold
from preceptor.engines.packed.packing import Pack

SPECIAL = [torch.nan, torch.inf]


@pytest.fixture(params=["own", "AVX2"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """The compiled steps by this processor's best instructions, and by those of one without AVX-512."""
    if request.param == "AVX2":
        if torch.backends.cpu.get_cpu_capability() != "AVX512":
            pytest.skip("the processor's own instructions are no better")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    kernels.cache_clear()
    found = kernels()
    if found is None:
        pytest.skip("no C compiler is here")
    yield found
    kernels.cache_clear()


@pytest.fixture
def afresh() -> Iterator[None]:
    """Forget the compiled steps before and after the test."""
    kernels.cache_clear()
    yield
    kernels.cache_clear()


def folded(
    compiled: Kernels, logits: torch.Tensor, targets: torch.Tensor, columns: int
) -> list[list[torch.Tensor]]:
    """Return the statistics by the compiled fold and by PyTorch's, from the same tiles."""
    thresholds = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    found: list[_CompiledFold | _Fold] = [
        _CompiledFold(compiled.fold, targets, thresholds),
        _Fold(targets, thresholds, columns=columns),
    ]
    for fold in found:
        for first in range(0, logits.shape[1], columns):
            tile = logits[:, first : first + columns].clone()
            fold.add(tile, first)
    return [list(fold.result()) for fold in found]


@pytest.mark.parametrize("columns", [1, 15, 16, 100, 1024])
@pytest.mark.parametrize("size", [0.1, 4.0, 30.0])
def test_a_fold_does_not_depend_on_who_does_it(compiled: Kernels, columns: int, size: float):
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(40, 515, generator=source) * size - 100 * (size > 20)
    targets = torch.randint(515, (40,), generator=source)
    one, other = folded(compiled, logits, targets, columns)
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-5)


def test_a_rising_maximum_does_not_spoil_what_was_folded_before(compiled: Kernels):
    logits = torch.linspace(-300, 300, 96).repeat(3, 1)
    targets = torch.tensor([0, 50, 95])
    one, _ = folded(compiled, logits, targets, 16)
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(one[0].double(), expected, rtol=1e-6, atol=1e-5)
    assert one[1].tolist() == [96.0, 46.0, 1.0]


def test_an_entry_that_cannot_be_taken_weighs_nothing(compiled: Kernels):
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))
    logits[:, 7] = -torch.inf
    one, _ = folded(compiled, logits, torch.tensor([1, 2, 3, 39]), 16)
    logs = logits.double().log_softmax(-1)
    entropy = -torch.special.xlogy(logs.exp(), logs.exp()).sum(-1)
    torch.testing.assert_close(one[2].double(), entropy, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("place", [3, 39])
def test_what_is_not_finite_spoils_its_own_row_alone(compiled: Kernels, special: float, place: int):
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))
    logits[2, place] = special
    one, _ = folded(compiled, logits, torch.tensor([1, 2, 5, 38]), 16)
    assert torch.isfinite(one[0]).tolist() == [True, True, False, True]


@pytest.mark.parametrize("place", [3, 39])
def test_every_nan_stays_nan(compiled: Kernels, place: int):
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    logits.view(torch.int32)[0, place] = 0x7FC00001  # others lose their low bits in a shift
    one, _ = folded(compiled, logits, torch.tensor([1]), 16)
    assert torch.isnan(one[0]).all()


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_gates_are_those_of_pytorch(compiled: Kernels, count: int):
    source = torch.Generator().manual_seed(5)
    gate, up = (torch.randn(count, generator=source) * 8 for _ in range(2))
    gate[0] = 200.0
    silu = torch.nn.functional.silu(gate) * up
    gelu = torch.nn.functional.gelu(gate, approximate="tanh") * up
    for (slope, cube), expected in ((SILU, silu), (GELU_TANH, gelu)):
        found = compiled.gate(gate.clone(), up, slope=slope, cube=cube)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert compiled.gate(torch.tensor([torch.nan]), up[:1], slope=1.0, cube=0.0).isnan().all()
    negative = compiled.gate(torch.tensor([-300.0]), torch.ones(1), slope=1.0, cube=0.0)
    assert abs(float(negative)) < 1e-30


@pytest.mark.parametrize("width", [1, 16, 50, 640])
def test_norms_are_those_of_the_definition(compiled: Kernels, width: int):
    source = torch.Generator().manual_seed(5)
    values, weight = torch.randn(3, 2, width, generator=source), torch.rand(width, generator=source)
    found = compiled.root_mean_square(values, weight, epsilon=1e-6, offset=1.0)
    expected = values * (values.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * (1 + weight)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [2, 6, 32, 80, 256])
def test_positions_are_embedded_as_by_the_definition(compiled: Kernels, width: int):
    source = torch.Generator().manual_seed(5)
    states = torch.randn(7, 3, width, generator=source).transpose(0, 1)
    cosine, sine = (torch.rand(7, width, generator=source) for _ in range(2))
    low, high = states.chunk(2, dim=-1)
    expected = states * cosine + torch.cat((-high, low), dim=-1) * sine
    found = compiled.rotate(states, cosine, sine)
    assert found is states
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_only_one_row_with_angles_for_its_whole_width_rotates():
    states, angles = torch.zeros(1, 2, 5, 8), torch.zeros(1, 5, 8)
    assert rotates(states, states[:, :1], angles, angles)
    assert rotates(torch.zeros(1, 5, 2, 8).transpose(1, 2), states, angles, angles)
    assert not rotates(states, states, angles[..., :4], angles[..., :4])
    assert not rotates(states.expand(3, 2, 5, 8), states, angles, angles)
    assert not rotates(states, states.half(), angles, angles)


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of transformers whose rotation is put back after the test."""
    from transformers.models.llama import modeling_llama

    found = modeling_llama.apply_rotary_pos_emb
    # An engine of an earlier test of the same process has changed it already.
    plain = found.__wrapped__ if hasattr(found, "in_place") else found
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", plain)
    return modeling_llama


def test_queries_and_keys_are_rotated_in_place_only_while_a_pack_is_run(
    compiled: Kernels, architecture: ModuleType
):
    plain = architecture.apply_rotary_pos_emb
    assert _rotates_in_place(architecture)
    assert _rotates_in_place(architecture)  # not twice
    rotate = architecture.apply_rotary_pos_emb
    assert rotate.__wrapped__ is plain
    source = torch.Generator().manual_seed(5)
    query, key = (torch.randn(1, heads, 6, 64, generator=source) for heads in (4, 2))
    angles = torch.rand(1, 6, 64, generator=source)
    expected = plain(query, key, angles.cos(), angles.sin())
    untouched = rotate(query, key, angles.cos(), angles.sin())
    assert all(map(torch.equal, untouched, expected))
    pack = Pack((1,), (0,), ())
    with running(PackContext(pack, None, None)):
        other = rotate(query, key, angles.cos(), angles.sin(), unsqueeze_dim=1)
        assert all(map(torch.equal, other, expected))
        found = rotate(query, key, angles.cos(), angles.sin())
    assert found[0] is query
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_rotation_that_means_something_else_is_left_as_it_is(
    compiled: Kernels, architecture: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def halves(query: torch.Tensor, key: torch.Tensor, *angles: torch.Tensor):
        return query / 2, key / 2

    def three(query: torch.Tensor, key: torch.Tensor, frequencies: torch.Tensor):
        return query, key

    for other in (halves, three):
        monkeypatch.setattr(architecture, "apply_rotary_pos_emb", other)
        assert not _rotates_in_place(architecture)
        assert architecture.apply_rotary_pos_emb is other
    assert not _rotates_in_place(module)


@pytest.mark.parametrize("heads", [(9, 3, 64, 64), (4, 1, 128, 128), (2, 2, 32, 96)])
@pytest.mark.parametrize(("shared", "own"), [(0, 1), (0, 33), (7, 100), (64, 31), (40, 64)])
@pytest.mark.parametrize("window", [None, 1, 5, 40, 64, 1000])
def test_attention_is_that_of_pytorch(
    compiled: Kernels,
    heads: tuple[int, int, int, int],
    shared: int,
    own: int,
    window: int | None,
):
    count, key_heads, width, value_width = heads
    source = torch.Generator().manual_seed(11)

    def states(tokens: int, many: int, size: int) -> torch.Tensor:
        return torch.randn(1, tokens, many, size, generator=source).transpose(1, 2)

    query = states(own, count, width)
    keys, values = (
        states(shared + own, key_heads, width),
        states(shared + own, key_heads, value_width),
    )
    scoring = _Scoring(0.2, window, None, None, 128, {})
    expected = _attend(query.double(), keys.double(), values.double(), scoring)[0].float()
    found = compiled.attend(
        query[0],
        (keys[0, :, :shared], values[0, :, :shared]),
        (keys[0, :, shared:].clone(), values[0, :, shared:]),
        torch.empty(own, count, value_width),
        scale=0.2,
        window=window,
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_spoiled_key_spoils_only_those_who_see_it(compiled: Kernels):
    source = torch.Generator().manual_seed(2)
    query, keys, values = (torch.randn(2, 50, 32, generator=source) for _ in range(3))
    keys[:, 20] = torch.nan
    nothing = (keys[:, :0], values[:, :0])
    out = torch.empty(50, 2, 32)
    compiled.attend(query, nothing, (keys, values), out, scale=0.2, window=10)
    spoiled = out.isnan().any(-1).any(-1)
    assert spoiled.nonzero().squeeze(-1).tolist() == list(range(20, 30))


def test_attention_leaves_odd_widths_and_other_numbers_alone():
    assert attends(torch.zeros(1, 2, 5, 64))
    assert attends(torch.zeros(1, 5, 2, 64).transpose(1, 2))
    assert not attends(torch.zeros(1, 2, 5, 80))
    assert not attends(torch.zeros(1, 2, 64, 64).transpose(2, 3))
    assert not attends(torch.zeros(1, 2, 5, 64, dtype=torch.bfloat16))


class OddRMSNorm(torch.nn.Module):
    """A norm that multiplies by twice its weight, which no compiled step does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(width) + 0.5)
        self.eps = 1e-6

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scaled = hidden * (hidden.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()
        return 2 * self.weight * scaled


def test_a_norm_that_means_something_else_is_left_as_it_is(compiled: Kernels):
    odd = OddRMSNorm(8)
    hidden = torch.rand(1, 3, 8)
    expected = odd(hidden)
    assert normalise_at_once(odd) == 0
    assert "forward" not in vars(odd)
    assert torch.equal(odd(hidden), expected)


def test_only_whole_rows_of_float32_on_the_cpu_fit():
    whole = torch.zeros(4, 6)
    assert fits(whole)
    assert not fits(whole.t())
    assert not fits(whole, whole.half())
    assert not fits(whole.to("meta"))


def test_the_switch_turns_them_off(afresh: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWITCH, "off")
    assert kernels() is None


def test_without_a_compiler_there_are_none(
    afresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernels() is None


def test_a_compiler_that_fails_is_done_without(
    afresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernels() is None
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_they_are_built_once(
    compiled: Kernels, afresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels() is not None
    (library,) = tmp_path.rglob("*.so")
    built = library.stat().st_mtime_ns
    kernels.cache_clear()
    assert kernels() is not None
    assert [one.stat().st_mtime_ns for one in tmp_path.rglob("*.so")] == [built]
    assert module._SOURCE.is_file()
