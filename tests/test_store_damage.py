"""What is damaged, foreign, newer or out of bounds is found before a row is read, and loses nothing else."""

import hashlib
import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzzing.mutate import BREAKS, broken
from preceptor.errors import RowError, StoreError
from preceptor.store.shard_file import encoded
from preceptor.store.shards import Shards
from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.store.writer import StoreWriter
from preceptor.types import Generation, Score

IDENTITY = Identity.of({"scorer": "likelihood", "model": {"id": "student", "dtype": "float32"}})
BATCH = 50


def key(number: int) -> bytes:
    return hashlib.md5(str(number).encode()).digest()


def batch(number: int) -> list[Score]:
    return [Score(key(number * BATCH + n), {"loss": float(n)}) for n in range(BATCH)]


def shards(partition: Shards, root: Path) -> list[Path]:
    return sorted((root / partition.kind / partition.identity.digest).glob("part-*.parquet"))


@pytest.fixture
def partition(tmp_path: Path) -> ScorePartition:
    return Store(tmp_path).scores(IDENTITY)


@pytest.mark.parametrize("how", BREAKS)
def test_a_damaged_shard_is_set_aside_whole_and_its_rows_are_missing(
    partition, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
):
    rng = np.random.default_rng(3)
    for _ in range(4):
        partition.append([Score(rng.bytes(16), {"loss": rng.random()}) for _ in range(500)])
    shard = shards(partition, tmp_path)[1]
    shard.write_bytes(broken(shard.read_bytes(), how, Random(3)))
    data = shard.read_bytes()
    found = Store(tmp_path).scores(IDENTITY).check()
    assert (found.shards, list(found.unfit), found.set_aside) == (4, [shard.name], ())
    later = Store(tmp_path).scores(IDENTITY)  # every run verifies what it opens, once
    with caplog.at_level(logging.WARNING, "preceptor.store.shards"):
        keys = later.keys()
    assert f"Set aside the damaged shard {shard}" in caplog.text
    # Its rows are missing for everyone, so that they are computed or asked for again.
    assert len(keys) == len(later.complete(["loss"])) == 1500
    assert np.isfinite(later.columns(keys, ["loss"])["loss"]).all()
    aside = shard.with_name(f"damaged-{shard.name}")
    later.compact()
    assert aside.read_bytes() == data
    assert len(shards(partition, tmp_path)) == 1
    assert later.check().set_aside == (aside.name,)


def test_a_shard_of_another_partition_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    one, other = (Store(tmp_path).scores(Identity.of({"scorer": name})) for name in "ab")
    one.append(batch(0))
    (shard,) = shards(one, tmp_path)
    other.append(batch(1))
    target = shards(other, tmp_path)[0].with_name(shard.name)
    target.write_bytes(shard.read_bytes())
    assert len(other.keys()) == BATCH
    assert "copied from the partition of another identity" in caplog.text
    assert not target.exists()
    assert target.with_name(f"foreign-{target.name}").exists()


def test_a_newer_format_is_refused_and_an_unknown_column_is_ignored(tmp_path: Path):
    teacher = Store(tmp_path).responses(IDENTITY)
    teacher.append([Generation(bytes(16), 0, "text")])
    (shard,) = shards(teacher, tmp_path)
    table = pq.read_table(shard)
    shard.unlink()
    wider = table.append_column("mood", pa.array(["good"]))
    name, data = encoded(wider, IDENTITY.canonical, stamp="1" * 20)
    shard.with_name(name).write_bytes(data)
    assert [row.text for row in teacher.each()] == ["text"]
    marks = {b"preceptor.format": b"2", b"preceptor.spec": IDENTITY.canonical.encode()}
    pq.write_table(table.replace_schema_metadata(marks), shard.with_name("part-1-2.parquet"))
    with pytest.raises(
        StoreError, match=r"format b'2': this version of Preceptor reads up to 1\. Upgrade"
    ):
        teacher.keys()


def test_a_row_that_cannot_be_stored_takes_no_neighbour_along(tmp_path: Path):
    teacher = Store(tmp_path).responses(IDENTITY)
    rows = [Generation(bytes([n]) * 16, 0, "text", tokens=5) for n in range(5)]
    rows[2] = replace(rows[2], tokens=2**64 - 1)
    writer = StoreWriter(teacher, "timed")
    writer.add(rows)
    writer.flush()
    assert {row.instruction[0]: row.tokens for row in teacher.each()} == {
        0: 5,
        1: 5,
        2: None,
        3: 5,
        4: 5,
    }
    writer.add(
        [replace(rows[0], instruction=b"long" * 4, sample=1), replace(rows[0], sample=2**40)]
    )
    with pytest.raises(RowError):
        writer.flush()
    writer.flush()  # nothing is held: the error does not come again
    assert len(list(teacher.each())) == 6
    scores = Store(tmp_path).scores(IDENTITY)
    with pytest.raises(RowError, match="expected a finite number"):
        scores.append([*batch(0), Score(key(-1), {"loss": math.nan})])
    assert len(scores.keys()) == BATCH


def test_a_store_moved_away_under_a_running_process_is_an_error(tmp_path: Path):
    partition = Store(tmp_path / "here").scores(IDENTITY)
    partition.append(batch(0))
    assert len(partition.keys()) == BATCH
    (tmp_path / "here").rename(tmp_path / "there")
    for act in (partition.keys, lambda: partition.append(batch(1))):
        with pytest.raises(StoreError, match="moved, deleted or replaced while it was in use"):
            act()
    assert not (tmp_path / "here").exists()


def test_a_lost_or_damaged_identity_json_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = Store(tmp_path)
    partition = store.scores(IDENTITY)
    partition.append(batch(0))
    path = tmp_path / "scores" / IDENTITY.digest / "identity.json"
    for data in (b"", b'{"spec": ', b"[1]", b'{"spec": 3}', b"\xff\xfe", b"[" * 9999):
        path.write_bytes(data)
        assert [found.identity for found in store.partitions()] == [IDENTITY]
        assert "identity.json is damaged" in caplog.text
        assert json.loads(path.read_text())["spec"] == IDENTITY.spec
    path.unlink()
    assert [found.identity for found in Store(tmp_path).partitions()] == [IDENTITY]
    assert path.exists()
