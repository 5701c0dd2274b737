"""A writer stores what was paid for at once, what is quick together, and all of it when it is interrupted."""

import time
from pathlib import Path

import pytest

from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.store.writer import StoreWriter
from preceptor.types import Score
from small_study import shards


def score(number: int) -> Score:
    return Score(number.to_bytes(16, "little"), {"letters": float(number)})


@pytest.fixture
def partition(tmp_path: Path) -> ScorePartition:
    return Store(tmp_path / "store").scores(Identity.of({"scorer": "letters"}))


def test_each_row_is_soon_in_the_store_also_when_no_other_comes(partition: ScorePartition):
    with StoreWriter[Score](partition, "each") as writer:
        for number in range(5):
            writer.add([score(number)])
        deadline = time.monotonic() + 10
        while len(partition.keys()) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(partition.keys()) == 5


def test_each_row_is_on_disk_when_it_was_taken_and_soon_in_one_shard_with_others(
    partition: ScorePartition, tmp_path: Path
):
    with StoreWriter[Score](partition, "each") as writer:
        for number in range(20):
            writer.add([score(number)])
            writer.add([])  # the next is waited for
        assert len(partition.keys()) == 20
        deadline = time.monotonic() + 10
        while len(shards(tmp_path)) > 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(shards(tmp_path)) <= 10
        assert len(partition.keys()) == 20


def test_timed_rows_go_together(
    partition: ScorePartition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("preceptor.store.writer._EVERY_S", 600.0)
    stored: list[int] = []
    with StoreWriter[Score](partition, "timed", lambda rows: stored.append(len(rows))) as writer:
        for number in range(500):
            writer.add([score(number)])
    assert stored == [500]
    assert len(shards(tmp_path)) == 1


def test_what_was_given_before_an_interrupt_is_kept(partition: ScorePartition):
    with pytest.raises(KeyboardInterrupt), StoreWriter[Score](partition, "timed") as writer:
        writer.add([score(1)])
        raise KeyboardInterrupt
    assert len(partition.keys()) == 1
