"""A store behind S3 has the rows of a local one, whoever writes or is killed, at few requests a look."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from preceptor.errors import StoreError
from preceptor.store import shard_cache
from preceptor.store.remote import RemoteFolder
from preceptor.store.store import ScorePartition, Store
from preceptor.types import Generation, Score
from s3_server import s3_server
from test_store import BATCH, IDENTITY, batch, key

URL = "s3://bucket/prefix"
SHARDS = 300
WRITE = """
import sys
from preceptor.store.store import Store
from test_store import IDENTITY, batch
partition = Store(sys.argv[1]).scores(IDENTITY)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    partition.append(batch(number))
    print(number, flush=True)
    if number % 5 == 4:
        partition.compact()
"""


@pytest.fixture
def asked(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often an S3 server was asked for what, from now on."""
    with s3_server(monkeypatch) as counts:
        yield counts


def opened(url: str = URL) -> ScorePartition:
    return Store(url).scores(IDENTITY)


def writer(first: int, end: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-c", WRITE, URL, str(first), str(end)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_study_stored_there_equals_the_local_one_row_by_row(asked: Counter[str], tmp_path: Path):
    found = []
    for root in (str(tmp_path / "local"), URL):
        scores, responses = Store(root).scores(IDENTITY), Store(root).responses(IDENTITY)
        for number in (0, 1, 1, 2):
            scores.append(batch(number))
            responses.append([Generation(key(number), number, f"text {number}")])
        scores.append([Score(key(-1), {}, note="cut"), Score(key(7), {"tokens": np.ones(3)})])
        scores.compact()
        scores.append([Score(key(-2), {"loss": 0.25})])
        assert Store(root).scores(IDENTITY).forget_notes() == 1
        again = opened(root)
        keys = sorted(again.keys().tolist())
        columns = {name: again.columns(keys, [name])[name].tolist() for name in ("loss", "reward")}
        lists = {one: numbers.tolist() for one, numbers in again.lists(keys, "tokens").items()}
        texts = sorted(str(one) for one in Store(root).responses(IDENTITY).each())
        cards = [(one.kind, one.identity) for one in Store(root).partitions()]
        found.append((keys, repr(columns), lists, texts, cards))
    assert len(found[0][0]) == 3 * BATCH + 1
    assert found[0] == found[1]


def test_one_more_look_costs_no_more_requests_for_many_shards(asked: Counter[str]):
    partition = opened()
    costs = []
    for number in (*range(3), *range(3, SHARDS)):
        partition.append([Score(key(number), {"loss": 1.0})])
        if number in (2, SHARDS - 1):
            partition.compact()
            reader = opened()
            seen: set[str] = set()
            reader.keys(seen)
            asked.clear()
            assert len(reader.keys(seen)) == 0
            costs.append(dict(asked))
    assert costs[0] == costs[1] == {"LIST": 2}
    assert len(partition.keys()) == SHARDS
    # One listing of what is new, and one manifest: no request for each shard that is kept.
    asked.clear()
    assert len(opened().columns([key(1)], ["loss"])["loss"]) == 1
    assert asked == {"LIST": 2, "GET": 2, "HEAD": 1}


def test_shards_are_downloaded_once_and_a_damaged_copy_is_fetched_again(
    asked: Counter[str], private_cache: Path
):
    for number in range(3):
        opened().append(batch(number))
    copies = sorted((private_cache / "shards").iterdir())
    assert len(copies) == 3
    for copy in copies[:2]:
        copy.write_bytes(b"another's")
    for gets in (3, 1):  # the card, and what is not here whole
        asked.clear()
        assert len(opened().keys()) == 3 * BATCH
        assert asked["GET"] == gets


def test_copies_beyond_the_bound_go_and_rows_stay(
    asked: Counter[str], private_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_cache, "_MOST_BYTES", 1)
    monkeypatch.setattr(shard_cache, "_BETWEEN_LOOKS_BYTES", 0)
    partition = opened()
    for number in range(4):
        partition.append(batch(number))
    assert len(list((private_cache / "shards").iterdir())) == 1
    assert len(opened().keys()) == 4 * BATCH


def test_writers_that_compact_at_once_lose_nothing_also_where_one_is_killed(asked: Counter[str]):
    writers = [writer(first, first + 10) for first in (0, 100, 200)]
    victim = writers[2]
    assert victim.stdout is not None
    stored = [int(victim.stdout.readline()) for _ in range(6)]
    victim.send_signal(signal.SIGKILL)
    stored += [int(line) for line in victim.communicate()[0].split()]
    for one in writers[:2]:
        stored += [int(line) for line in one.communicate()[0].split()]
        assert one.returncode == 0
    assert set(stored) >= {*range(10), *range(100, 110), *range(200, 206)}
    partition = opened()
    assert not partition.check().unfit
    expected = {row.key for number in stored for row in batch(number)}
    assert expected <= set(partition.keys().tolist())
    partition.compact()
    numbers = partition.columns([key(n) for n in range(10 * BATCH)], ["loss"])["loss"]
    assert numbers.tolist() == [float(n) for n in range(10 * BATCH)]


def test_a_compaction_that_lost_the_race_for_a_manifest_makes_the_next(
    asked: Counter[str], monkeypatch: pytest.MonkeyPatch
):
    partition, other = opened(), opened()
    for number in range(4):
        partition.append(batch(number))
    create = RemoteFolder.create

    def beaten(self: RemoteFolder, name: str, data: bytes) -> bool:
        monkeypatch.setattr(RemoteFolder, "create", create)
        other.append(batch(9))
        other.compact()
        return create(self, name, data)

    monkeypatch.setattr(RemoteFolder, "create", beaten)
    partition.compact()
    assert len(opened().keys()) == 5 * BATCH


def test_a_part_is_claimed_by_one_process_and_a_partition_in_work_says_so(asked: Counter[str]):
    partition, other = opened(), opened()
    with partition.claims() as mine, other.claims() as theirs:
        assert mine.take("abc") and not theirs.take("abc") and theirs.take("def")
        assert str(os.getpid()) in str(theirs.holder("abc"))
        assert len(other.in_work()) == 2
        mine.release("abc")
        assert theirs.take("abc")
    assert other.in_work() == set()


def test_a_damaged_shard_is_set_aside_and_a_damaged_manifest_loses_nothing(
    asked: Counter[str], private_cache: Path
):
    import s3fs

    partition, files = opened(), s3fs.S3FileSystem()
    for number in range(3):
        partition.append(batch(number))
        if number == 1:
            partition.compact()
    (manifest,) = [one for one in files.find("bucket") if "manifest-00000001" in one]
    files.pipe_file(manifest, b"{")
    assert len(opened().keys()) == 3 * BATCH
    (kept,) = [one for one in files.find("bucket") if "/kept/" in one]
    files.pipe_file(kept, files.cat_file(kept)[:-9])
    for copy in (private_cache / "shards").iterdir():
        copy.unlink()
    again = opened()
    assert len(again.keys()) == BATCH
    assert len(again.set_aside()) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://user:hidden@bucket/prefix", "holds a password"),
        ("s3://bucket/run[1]", "one of"),
        ("s3:/bucket/prefix", "expected s3://bucket/prefix"),  # as a Path of an address reads
    ],
)
def test_an_address_that_is_none_or_holds_credentials_is_refused(url: str, said: str):
    with pytest.raises(StoreError, match=said) as error:
        Store(url)
    assert "hidden" not in str(error.value)


def test_errors_of_the_service_say_where_credentials_come_from_and_show_none(
    asked: Counter[str],
):
    with pytest.raises(StoreError, match="credentials, which come from the environment") as error:
        opened("s3://no-such-bucket/prefix").append(batch(0))
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def test_where_a_service_puts_over_what_is_there_no_manifest_is_made(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def overwrite(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        self.open(path, "wb", data=value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", overwrite)
    partition = opened("memory://test_object_store/plain")
    # As a process leaves it that was killed while it tried.
    partition._folder.put("manifest-00000000.json", b'{"shards": {}}')
    for number in range(3):
        partition.append(batch(number))
    partition.compact()
    assert [one.rpartition(".")[2] for one in partition._folder.names()] == ["json", "parquet"]
    with partition.claims() as mine, partition.claims() as theirs:
        assert mine.take("abc") and theirs.take("abc")
    assert len(opened("memory://test_object_store/plain").keys()) == 3 * BATCH
