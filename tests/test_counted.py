"""The output layer is computed for the tokens that count alone, and gives them the same numbers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.runtime import Runtime
from preceptor.engines.base import NOTHING, Extra, Measured, TokenizedPair
from preceptor.engines.packed.head import Head
from preceptor.engines.packed.likelihood import TransformersLikelihood
from small_pairs import random_ids

pytestmark = pytest.mark.usefixtures("one_thread")


def turns(source: random.Random, prompt: tuple[int, ...], *, first: bool = True) -> TokenizedPair:
    """Return a response of several turns, of which every other one counts."""
    lengths = [source.randint(1, 12) for _ in range(6)]
    counted = [(place % 2 == 0) == first for place, n in enumerate(lengths) for _ in range(n)]
    return TokenizedPair(prompt, random_ids(source, sum(lengths)), tuple(counted))


def some_pairs() -> list[TokenizedPair]:
    source = random.Random(4)
    shared, other = random_ids(source, 20), random_ids(source, 3)
    pairs = [turns(source, shared, first=n % 3 > 0) for n in range(6)]
    one = TokenizedPair(other, (9,), (True,))
    return [*pairs, TokenizedPair(shared, random_ids(source, 8)), turns(source, other), one]


PAIRS = some_pairs()


def measured(
    engine: TransformersLikelihood, pairs: Sequence[TokenizedPair], extra: Extra
) -> list[Measured]:
    found = {one.index: one for batch in engine.measure(pairs, extra) for one in batch}
    return [found[index] for index in range(len(pairs))]


@pytest.mark.parametrize("extra", [NOTHING, Extra(frozenset({"brier_50", "similarity"}))])
@pytest.mark.parametrize(("packed", "budget"), [(True, 40), (True, 5000), (False, 40)])
def test_only_what_counts_is_computed_and_it_is_the_same(
    packed: bool,
    budget: int,
    extra: Extra,
    make_model: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = TransformersLikelihood(
        make_model("llama"), Runtime(max_batch_tokens=budget), packed=packed
    )
    assert engine.packed == packed
    expected = measured(engine, [replace(pair, counted=None) for pair in PAIRS], extra)
    given: list[int] = []
    statistics = Head.statistics

    def watched(self: Head, hidden: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
        given.append(len(hidden))
        return statistics(self, hidden, targets, **options)

    monkeypatch.setattr(Head, "statistics", watched)
    found = measured(engine, PAIRS, extra)
    for pair, one, whole in zip(PAIRS, found, expected, strict=True):
        counted = np.array(pair.counted or (True,) * len(pair.response))
        assert one.columns.keys() == whole.columns.keys() and one.values == whole.values
        for name, column in one.columns.items():
            assert len(column) == len(counted)
            np.testing.assert_allclose(column[counted], whole.columns[name][counted], atol=1e-6)
            assert np.isnan(column[~counted]).all()
    if packed and extra is NOTHING:
        assert sum(given) == sum(sum(pair.counted or (1,) * len(pair.response)) for pair in PAIRS)
