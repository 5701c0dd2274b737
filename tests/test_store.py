"""No row that append() returned for is lost, whoever kills, appends or compacts meanwhile."""

import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from preceptor.errors import StoreError
from preceptor.store.files import temporary_name
from preceptor.store.store import Identity, ScorePartition, Store
from preceptor.types import Score

IDENTITY = Identity.of({"scorer": "likelihood", "model": {"id": "student", "dtype": "float32"}})
BATCH = 50


def key(number: int) -> bytes:
    return hashlib.md5(str(number).encode()).digest()


def batch(number: int) -> list[Score]:
    numbers = range(number * BATCH, (number + 1) * BATCH)
    return [Score(key(n), {"loss": float(n), "reward": -float(n)}) for n in numbers]


def write(root: Path, first: int, end: int, log: Path) -> None:
    """Append batches, and log the number of each when append has returned."""
    partition = Store(root).scores(IDENTITY)
    with log.open("a") as handle:
        for number in range(first, end):
            partition.append(batch(number))
            print(number, file=handle, flush=True)


def compact_forever(root: Path) -> None:
    partition = Store(root).scores(IDENTITY)
    while True:
        partition.compact()
        time.sleep(0.005)


def append_to_a_full_disk(root: Path, log: Path) -> None:
    """Append with a limit on the size of files, which fails like a full disk: in mid-write."""
    partition = Store(root).scores(IDENTITY)
    partition.append(batch(0))
    with log.open("a") as handle:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        try:
            partition.append(batch(1))
        except StoreError as error:
            handle.write(str(error))


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., BaseProcess]]:
    """Start real processes that can be killed, cheaply: forked from one that has the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "preceptor.store.store"])
    started: list[BaseProcess] = []

    def start_one(target: Callable[..., None], *arguments: object) -> BaseProcess:
        started.append(context.Process(target=target, args=arguments))
        started[-1].start()
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.join()


def shards(partition: ScorePartition, root: Path) -> list[Path]:
    return sorted((root / partition.kind / partition.identity.digest).glob("part-*.parquet"))


@pytest.fixture
def partition(tmp_path: Path) -> ScorePartition:
    return Store(tmp_path).scores(IDENTITY)


def test_rows_come_back_aligned_with_the_keys_asked_for(partition):
    partition.append([Score(key(1), {"loss": 1.5, "reward": 2}), Score(key(2), {"loss": 0.1})])
    partition.append([Score(key(3), {}, note="broken \ud800")])
    asked = [key(2), key(9), key(1), key(3), key(2)]
    columns = partition.columns(asked, ["loss", "reward", "ifd"])
    np.testing.assert_array_equal(columns["loss"], [0.1, np.nan, 1.5, np.nan, 0.1])
    np.testing.assert_array_equal(columns["reward"], [np.nan, np.nan, 2.0, np.nan, np.nan])
    assert np.isnan(columns["ifd"]).all()
    assert columns["note"].tolist() == [None, None, None, "broken ?", None]
    assert columns["loss"].dtype == columns["ifd"].dtype == np.float64


def test_keys_are_distinct_and_can_be_passed_back(partition):
    partition.append(batch(0))
    partition.append(batch(0)[:10] + batch(1))
    keys = partition.keys()
    assert keys.dtype == "V16"
    assert sorted(keys.tolist()) == sorted(key(n) for n in range(2 * BATCH))
    loss = partition.columns(keys, ["loss"])["loss"]
    assert {key(int(n)) for n in loss} == set(keys.tolist())


def test_keys_that_look_like_text_or_zero_keep_all_their_bytes(partition):
    odd = [bytes(16), b"a" + bytes(15), bytes(15) + b"a", b" " * 16]
    partition.append([Score(k, {"loss": float(n)}) for n, k in enumerate(odd)])
    assert set(partition.keys().tolist()) == set(odd)
    assert partition.columns(np.array(odd, "V16"), ["loss"])["loss"].tolist() == [0, 1, 2, 3]


def test_an_absent_partition_is_empty_and_reading_creates_nothing(tmp_path: Path):
    store = Store(tmp_path / "new")
    partition = store.scores(IDENTITY)
    partition.append([])
    partition.compact()
    assert len(partition.keys()) == len(partition.complete((), listed="nll")) == 0
    assert np.isnan(partition.columns([key(1)], ["loss"])["loss"]).all()
    assert partition.columns([], ["loss"])["loss"].shape == (0,)
    assert list(store.partitions()) == []
    assert not (tmp_path / "new").exists()


def test_one_append_is_one_zstd_shard_with_the_promised_types(partition, tmp_path: Path):
    partition.append(
        [Score(key(1), {"loss": 1.0, "nll": [0.5, 1.5]}), Score(key(2), {}, note="cut")]
    )
    (shard,) = shards(partition, tmp_path)
    types = [f"{field.name}: {field.type}" for field in pq.read_schema(shard)]
    assert sorted(types) == [
        "key: fixed_size_binary[16]",
        "loss: double",
        "nll: list<element: float>",
        "note: string",
    ]
    assert pq.ParquetFile(shard).metadata.row_group(0).column(0).compression == "ZSTD"
    assert not list(shard.parent.glob("tmp-*"))


def test_values_beat_a_note_in_either_order_and_after_compaction(partition):
    noted, valued = Score(key(1), {}, note="timed out"), Score(key(1), {"loss": 1.0})
    partition.append([noted])
    partition.append([valued])
    partition.append([noted])
    for _ in range(2):
        columns = partition.columns([key(1)], ["loss"])
        assert (columns["loss"][0], columns["note"][0]) == (1.0, None)
        partition.compact()


def test_a_row_with_lists_beats_one_without_row_by_row(partition, tmp_path: Path):
    partition.append([Score(key(1), {"loss": 1.0}), Score(key(2), {"loss": 2.0, "nll": [2.0]})])
    partition.append(
        [Score(key(1), {"loss": 9.0, "nll": [9.0, 9.5]}), Score(key(2), {"loss": 8.0})]
    )
    for _ in range(2):
        columns = partition.columns([key(1), key(2), key(3)], ["loss", "nll"])
        np.testing.assert_array_equal(columns["loss"], [9.0, 2.0, np.nan])
        assert [list(n) if n is not None else n for n in columns["nll"]] == [[9, 9.5], [2], None]
        partition.compact()
    assert len(shards(partition, tmp_path)) == 1


def test_equal_rows_keep_the_earliest_number_also_when_others_compact(partition):
    for loss in (1.0, 2.0):
        partition.append([Score(key(1), {"loss": loss}), Score(key(1), {"loss": 7.0})])
    partition.compact()
    partition.append([Score(key(1), {"loss": 3.0})])
    assert partition.columns([key(1)], ["loss"])["loss"].tolist() == [1.0]


def test_columns_added_by_a_later_row_are_joined_to_the_earlier_ones(partition):
    partition.append([Score(key(1), {"loss": 1.0})])
    partition.append([Score(key(1), {"loss_unconditional": 3.0})])
    for _ in range(2):
        columns = partition.columns([key(1)], ["loss", "loss_unconditional"])
        assert (columns["loss"][0], columns["loss_unconditional"][0]) == (1.0, 3.0)
        partition.compact()


def test_complete_rows_have_every_wanted_number_and_list_or_a_note(partition):
    partition.append([Score(key(1), {"loss": 1.0, "nll": []}), Score(key(2), {"loss": 1.0})])
    partition.append([Score(key(3), {}, note="empty"), Score(key(4), {}, note="timed out")])
    partition.append([Score(key(4), {"loss": 1.0, "token_ranks": [1.0]})])
    for _ in range(2):
        assert set(partition.complete((), listed="nll").tolist()) == {key(1), key(3)}
        assert set(partition.complete(["loss"], listed="token_ranks").tolist()) == {key(3), key(4)}
        assert set(partition.complete(["loss", "tokens"]).tolist()) == {key(3)}
        assert len(partition.keys()) == 4
        partition.compact()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
def test_a_number_that_is_not_finite_is_refused_by_name(partition, tmp_path: Path, value: float):
    with pytest.raises(StoreError, match=f"{key(2).hex()} has reward = .*note"):
        partition.append(
            [Score(key(1), {"loss": 1.0}), Score(key(2), {"loss": 1.0, "reward": value})]
        )
    assert partition.keys().tolist() == [key(1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Score(b"short", {"loss": 1.0}), "5 bytes: expected 16"),
        (Score(key(1), {}), "neither values nor a note"),
        (Score(key(1), {"loss": 1.0}, note="cut"), "both values and a note"),
        (Score(key(1), {"note": 1.0}), "cannot name a stored column"),
        (Score(key(1), {"a.b": 1.0}), "cannot name a stored column"),
        (Score(key(1), {"loss": "high"}), "neither a number nor a list"),  # type: ignore[dict-item]
        (Score(key(1), {"loss": [[1.0]]}), "neither a number nor a list"),  # type: ignore[list-item]
    ],
)
def test_a_row_that_cannot_be_stored_faithfully_is_refused(partition, row: Score, message: str):
    with pytest.raises(StoreError, match=message):
        partition.append([row])
    assert len(partition.keys()) == 0


def test_shards_that_disagree_on_a_column_are_an_error_that_names_it(partition):
    partition.append([Score(key(1), {"loss": 1.0})])
    partition.append([Score(key(2), {"loss": [1.0]})])
    with pytest.raises(StoreError, match="loss"):
        partition.columns([key(1)], ["loss"])
    with pytest.raises(StoreError, match="loss"):
        partition.compact()
    assert len(partition.keys()) == 2


def test_keys_asked_for_must_be_sixteen_bytes(partition):
    for wrong in ([b"short"], np.zeros(3), np.zeros(2, "V8")):
        with pytest.raises(StoreError, match="16 bytes"):
            partition.columns(wrong, ["loss"])


def test_a_killed_writer_loses_no_row_that_append_returned_for(
    tmp_path: Path, start: Callable[..., BaseProcess]
):
    partition = Store(tmp_path / "store").scores(IDENTITY)
    log = tmp_path / "log"
    log.touch()
    for attempt, delay in enumerate(np.random.default_rng(7).uniform(0, 0.15, size=5)):
        before = log.stat().st_size
        writer = start(write, tmp_path / "store", attempt * 10_000, (attempt + 1) * 10_000, log)
        while log.stat().st_size == before:
            assert writer.is_alive()
            time.sleep(0.001)
        time.sleep(delay)
        writer.kill()
        writer.join()
        for shard in shards(partition, tmp_path / "store"):
            assert pq.read_metadata(shard).num_rows == BATCH
        returned = [int(line) for line in log.read_text().split("\n")[:-1]]
        seen = set(partition.keys().tolist())
        assert len(seen) % BATCH == 0
        assert {key(number * BATCH + n) for number in returned for n in range(BATCH)} <= seen
    assert len(returned) > 10


def test_concurrent_writers_readers_and_compactors_lose_and_double_nothing(
    tmp_path: Path, start: Callable[..., BaseProcess]
):
    root, log = tmp_path / "store", tmp_path / "log"
    partition = Store(root).scores(IDENTITY)
    compactors = [start(compact_forever, root) for _ in range(2)]
    # Neighbours write half of the same batches.
    writers = [start(write, root, first, first + 40, log) for first in (0, 20, 40, 60)]
    seen = 0
    while any(writer.is_alive() for writer in writers):
        keys = partition.keys().tolist()
        assert len(keys) == len(set(keys)) and len(keys) % BATCH == 0
        assert len(keys) >= seen, "a reader missed rows that an earlier one had seen"
        seen = len(keys)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert all(compactor.is_alive() for compactor in compactors), "a compactor died"
    for compactor in compactors:
        compactor.kill()
        compactor.join()
    partition.compact()
    wanted = [key(n) for n in range(100 * BATCH)]
    assert sorted(partition.keys().tolist()) == sorted(wanted)
    assert partition.columns(wanted, ["loss"])["loss"].tolist() == list(range(100 * BATCH))
    (shard,) = shards(partition, root)
    assert pq.read_metadata(shard).num_rows == len(wanted)


class CompactingFiles(MemoryFileSystem):
    """A memory file system where someone appends and compacts while a listing runs or just after."""

    protocol = "compacting"
    cachable = False
    compactions = 0
    straddled = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("compacting:/"))

    def ls(self, path: str, detail: bool = True, **options: object) -> list[str]:
        before = super().ls(path, detail=detail, **options)
        if type(self).compactions == 0:
            return before
        type(self).compactions -= 1
        other = Store("memory://test_store/raced").scores(IDENTITY)
        other.append(batch(0))
        other.compact()
        after = super().ls(path, detail=detail, **options)
        return [name for name in before if name in after] if self.straddled else before


@pytest.mark.parametrize("straddled", [False, True])
def test_a_reader_that_loses_shards_under_its_feet_looks_again(
    monkeypatch: pytest.MonkeyPatch, straddled: bool
):
    fsspec.register_implementation("compacting", CompactingFiles, clobber=True)
    Store("memory://test_store/raced").scores(IDENTITY).append(batch(0) + batch(1))
    partition = Store("compacting://test_store/raced").scores(IDENTITY)
    monkeypatch.setattr(CompactingFiles, "straddled", straddled)
    # A listing that misses a shard and its successor twice running is beyond what a reader can see.
    monkeypatch.setattr(CompactingFiles, "compactions", 1 if straddled else 3)
    assert len(partition.keys()) == 2 * BATCH
    assert CompactingFiles.compactions == 0


def test_compaction_merges_small_shards_once(partition, tmp_path: Path):
    for number in range(5):
        partition.append(batch(number // 2))
    partition.compact()
    (merged,) = shards(partition, tmp_path)
    assert pq.read_metadata(merged).num_rows == 3 * BATCH
    partition.compact()
    assert shards(partition, tmp_path) == [merged]


def test_compaction_removes_only_temporary_files_of_no_living_writer(partition, tmp_path: Path):
    partition.append(batch(0))
    folder = shards(partition, tmp_path)[0].parent
    named = "from preceptor.store.files import temporary_name; print(temporary_name())"
    dead = subprocess.run([sys.executable, "-c", named], check=True, capture_output=True, text=True)
    day = 86_400
    ages = {dead.stdout.strip(): 0, temporary_name(): 9 * day, "notes.txt": 9 * day}
    ages |= {"tmp-elsewhere-1-2-old": day + 60, "tmp-elsewhere-1-2-young": day - 60}
    for name, age in ages.items():
        (folder / name).write_bytes(b"half a shard")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert len(partition.keys()) == BATCH
    partition.compact()
    left = {path.name for path in folder.iterdir()}
    assert ages.keys() - left == {dead.stdout.strip(), "tmp-elsewhere-1-2-old"}


def test_a_dangling_shard_does_not_hang_the_reader(partition, tmp_path: Path):
    partition.append(batch(0))
    folder = shards(partition, tmp_path)[0].parent
    (folder / "part-0-gone.parquet").symlink_to(folder / "nowhere")
    assert len(partition.keys()) == BATCH
    partition.compact()


def test_the_memory_file_system_serves_a_whole_store():
    store = Store("memory://test_store/whole")
    partition = store.scores(IDENTITY)
    for number in range(4):
        partition.append([*batch(number), Score(key(-1), {}, note="empty")])
    assert len(partition.keys()) == 4 * BATCH + 1
    partition.compact()
    assert partition.columns([key(7), key(-1)], ["loss"])["loss"][0] == 7.0
    (again,) = Store("memory://test_store/whole").partitions()
    assert (again.kind, again.identity) == ("scores", IDENTITY)
    assert sorted(again.keys().tolist()) == sorted(partition.keys().tolist())


def test_identity_json_says_what_made_the_rows(tmp_path: Path):
    store = Store(tmp_path)
    partition = store.scores(IDENTITY, recorded={"torch": "2.8", "batch": 8})
    partition.append(batch(0))
    store.scores(IDENTITY, recorded={"torch": "3.0"}).append(batch(1))
    card = json.loads((tmp_path / "scores" / IDENTITY.digest / "identity.json").read_text())
    assert (card["kind"], card["identity"]) == ("scores", IDENTITY.digest)
    assert (card["spec"], card["recorded"]) == (IDENTITY.spec, {"torch": "2.8", "batch": 8})
    (found,) = store.partitions()
    assert (found.kind, found.identity, found.recorded) == ("scores", IDENTITY, card["recorded"])


def test_another_spec_under_the_same_digest_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    store.scores(IDENTITY).append(batch(0))
    path = tmp_path / "scores" / IDENTITY.digest / "identity.json"
    path.write_text(path.read_text().replace("float32", "float16"))
    with pytest.raises(StoreError, match=r"identity\.json holds another spec"):
        store.scores(IDENTITY)


def test_foreign_files_in_the_root_are_ignored(tmp_path: Path):
    store = Store(tmp_path)
    store.scores(IDENTITY).append(batch(0))
    (tmp_path / "scores" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "scores" / ("0" * 32)).mkdir()
    (tmp_path / "notes").mkdir()
    assert [partition.identity for partition in store.partitions()] == [IDENTITY]


def test_a_root_that_is_a_file_says_what_to_do(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"is a file.*--store"):
        Store(tmp_path / "file")
    with pytest.raises(StoreError, match="--store"):
        Store(tmp_path / "file" / "below").scores(IDENTITY).append(batch(0))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's unwritable /sys")
def test_a_root_without_permission_says_what_to_do():
    partition = Store("/sys/kernel/preceptor").scores(IDENTITY)
    assert len(partition.keys()) == 0
    with pytest.raises(StoreError, match=r"Cannot write .*permissions.*--store"):
        partition.append(batch(0))


def test_a_full_disk_leaves_nothing_half_written_and_says_what_to_do(
    tmp_path: Path, start: Callable[..., BaseProcess]
):
    root, log = tmp_path / "store", tmp_path / "log"
    start(append_to_a_full_disk, root, log).join()
    assert "Cannot write" in log.read_text() and "Free space" in log.read_text()
    partition = Store(root).scores(IDENTITY)
    assert len(partition.keys()) == BATCH
    (shard,) = shards(partition, root)
    assert {path.name for path in shard.parent.iterdir()} == {"identity.json", shard.name}


@pytest.mark.parametrize("root", ["s4://bucket/x", "memry://x"])
def test_an_unknown_protocol_is_a_store_error(root: str):
    with pytest.raises(StoreError, match="Cannot open the store"):
        Store(root)


def test_the_default_root_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Store().scores(IDENTITY).append(batch(0))
    assert (tmp_path / ".preceptor" / "scores" / IDENTITY.digest).is_dir()
