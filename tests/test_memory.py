"""Feed-forward layers that reuse their memory give what they gave before, or are left alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from preceptor.engines.packed.memory import gate_in_place, keep_freed_memory

MakeModel = Callable[[str], Any]


@pytest.mark.parametrize(
    ("name", "layers"), [("llama", 2), ("gemma3", 2), ("qwen3", 2), ("gpt2", 0), ("phi3", 0)]
)
def test_gated_layers_give_the_same_output(make_model: MakeModel, name: str, layers: int) -> None:
    model, ids = make_model(name), torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        assert gate_in_place(model) >= layers
        assert bool(gate_in_place(model)) == bool(layers)
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-5, atol=1e-5)


class Doubled(torch.nn.Module):
    """A layer with the parts of a gated one that computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = torch.nn.Linear(8, 16), torch.nn.Linear(8, 16)
        self.down_proj, self.act_fn = torch.nn.Linear(16, 8), torch.nn.SiLU()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate = self.act_fn(self.gate_proj(hidden))
        return 2 * self.down_proj(gate * self.up_proj(hidden))


def test_a_layer_that_computes_something_else_is_left_alone() -> None:
    layer = Doubled()
    hidden = torch.randn(1, 3, 8)
    before = layer(hidden)
    assert gate_in_place(layer) == 0
    torch.testing.assert_close(layer(hidden), before)


def test_layers_of_half_precision_are_left_alone(make_model: MakeModel) -> None:
    assert gate_in_place(make_model("llama").to(torch.bfloat16)) == 0


def test_keeping_freed_memory_can_be_asked_for_anywhere() -> None:
    keep_freed_memory()
    assert torch.zeros(1 << 20).sum() == 0
