"""Numbers looked up a shard at a time are those of all rows put together, whatever the shards hold."""

from pathlib import Path

import numpy as np
import pytest

from preceptor.store.lookup import Wanted
from preceptor.store.shards import as_arrow
from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.types import Score

NAMES = ["loss", "reward", "rank", "unknown"]


def drawn_score(key: bytes, rng: np.random.Generator, *, lists: bool) -> Score:
    if rng.random() < 0.2:
        return Score(key, {}, note=f"note {rng.integers(3)}")
    values: dict[str, object] = {
        name: float(rng.integers(100)) for name in NAMES[:3] if rng.random() < 0.6
    }
    if lists and rng.random() < 0.4:
        values["tokens"] = np.ones(2, np.float32)
    return Score(key, values or {"other": 1.0})


@pytest.mark.parametrize("seed", range(20))
def test_looking_up_by_shards_gives_what_all_rows_together_give(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    pool = [rng.bytes(16) for _ in range(20)]
    pool += [key[:8] + rng.bytes(8) for key in pool[:5]]
    partition: ScorePartition = Store(tmp_path).scores(Identity.of({"seed": seed}))
    for _ in range(int(rng.integers(0, 6))):
        some = rng.permutation(len(pool))[: rng.integers(1, len(pool))]
        partition.append([drawn_score(pool[at], rng, lists=seed % 2 > 0) for at in some])
    keys = [pool[at] for at in rng.integers(0, len(pool), 40)] + [rng.bytes(16)]
    found = partition.columns(keys, NAMES)
    expected = partition._whole_columns(as_arrow(keys), NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
    assert found["note"].tolist() == expected["note"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_distinct_keys_are_counted_where_first_halves_are_alike(seed: int):
    rng = np.random.default_rng(seed)
    halves = [rng.bytes(8) for _ in range(4)]
    keys = [halves[rng.integers(4)] + bytes([rng.integers(3)] * 8) for _ in range(rng.integers(30))]
    assert Wanted(np.frombuffer(b"".join(keys), "V16")).distinct() == len(set(keys))
