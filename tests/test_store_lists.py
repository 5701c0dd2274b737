"""A few lists are read out of a large partition without holding the others."""

from pathlib import Path

import numpy as np
import pytest

from preceptor.store import store as module
from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.types import Score


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def partition(tmp_path: Path) -> ScorePartition:
    return Store(tmp_path).scores(Identity.of({"scorer": "likelihood"}))


def test_lists_are_those_of_the_keys_that_have_one(
    partition: ScorePartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LIST_ROWS", 3)
    partition.append([Score(key(n), {"nll": 1.0, "token_nll": [n, n + 0.5]}) for n in range(10)])
    partition.append([Score(key(n), {"nll": 1.0}) for n in range(8, 14)])
    partition.append([Score(key(20), {}, "no room")])
    found = partition.lists([key(n) for n in (9, 2, 12, 20, 99)], "token_nll")
    assert {one: values.tolist() for one, values in found.items()} == {
        key(2): [2.0, 2.5],
        key(9): [9.0, 9.5],
    }
    assert found[key(2)].dtype == np.float32


def test_a_partition_without_the_column_has_no_lists(partition: ScorePartition) -> None:
    assert partition.lists([key(1)], "token_nll") == {}
    partition.append([Score(key(1), {"nll": 1.0})])
    assert partition.lists([key(1)], "token_nll") == {}


def test_the_earlier_of_two_lists_is_read_as_columns_does(partition: ScorePartition) -> None:
    for first in (1.0, 2.0):
        partition.append([Score(key(1), {"token_nll": [first]})])
    whole = partition.columns([key(1)], ["token_nll"])["token_nll"]
    assert partition.lists([key(1)], "token_nll")[key(1)].tolist() == whole[0].tolist() == [1.0]
