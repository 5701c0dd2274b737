"""A digest follows the content and nothing else; what is remembered may be lost but never wrong."""

import hashlib
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from preceptor.cli.app import cli
from preceptor.errors import ModelError, StoreError
from preceptor.store import identity as digests
from preceptor.store.cache import cache_folder
from preceptor.store.identity import (
    Identity,
    file_digest,
    folder_digest,
)

# FIPS 180-2, appendix B.1: the SHA-256 of "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.json"


def old_file(path: Path, content: bytes, age: float = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def plant(cache: Path, path: Path, digest: str) -> None:
    """Replace what is remembered of a file, to see whether the memory is used."""
    entries = json.loads(cache.read_text())
    entries[str(path.resolve())][-1] = digest
    cache.write_text(json.dumps(entries))


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    path = old_file(tmp_path / "file", b"abc")
    assert file_digest(path) == file_digest(str(path)) == ABC


def test_an_unchanged_file_is_hashed_once_also_through_a_link(tmp_path: Path, cache: Path) -> None:
    path = old_file(tmp_path / "file", b"abc")
    file_digest(path)
    plant(cache, path, "0" * 64)
    (tmp_path / "link").symlink_to(path)
    assert file_digest(path) == file_digest(tmp_path / "link") == "0" * 64


def test_other_content_under_the_old_size_and_time_is_seen(tmp_path: Path) -> None:
    path = old_file(tmp_path / "weights", b"abc")
    before, status = file_digest(path), path.stat()
    path.write_bytes(b"xyz")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert file_digest(path) == hashlib.sha256(b"xyz").hexdigest() != before


def test_a_file_is_hashed_again_where_it_is_asked_for(tmp_path: Path, cache: Path) -> None:
    path = old_file(tmp_path / "file", b"abc")
    file_digest(path)
    plant(cache, path, "0" * 64)
    assert CliRunner().invoke(cli, ["rank", "--rehash", "no-such-file"]).exit_code == 1
    assert file_digest(path) == ABC


@pytest.mark.parametrize("place", [".", "digests.json"])
def test_a_memory_that_others_may_write_to_is_not_believed(
    tmp_path: Path, cache: Path, place: str
) -> None:
    path = old_file(tmp_path / "file", b"abc")
    file_digest(path)
    plant(cache, path, "0" * 64)
    (cache.parent / place).chmod(0o777)
    assert file_digest(path) == ABC


@pytest.mark.parametrize(("content", "age"), [(b"abcd", 60), (b"abd", 50)])
def test_a_change_of_size_or_time_is_seen(tmp_path: Path, content: bytes, age: float) -> None:
    path = old_file(tmp_path / "file", b"abc")
    file_digest(path)
    old_file(path, content, age)
    assert file_digest(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("age", [0.0, 1.0, -3600.0])
def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path, cache: Path, age: float) -> None:
    file_digest(old_file(tmp_path / "file", b"abc", age))
    assert not cache.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"FILE": 3}', b'{"FILE": [3, "x", "y"]}', b"[" * 10**5]
)
def test_a_damaged_memory_is_ignored_and_replaced(
    tmp_path: Path, cache: Path, content: bytes
) -> None:
    path = old_file(tmp_path / "file", b"abc")
    old_file(cache, content.replace(b"FILE", str(path).encode()))
    assert file_digest(path) == ABC
    assert [entry[-1] for entry in json.loads(cache.read_text()).values()] == [ABC]


def test_a_cache_that_cannot_be_written_changes_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_CACHE", str(old_file(tmp_path / "not a folder", b"")))
    assert file_digest(old_file(tmp_path / "file", b"abc")) == ABC


def test_writers_at_once_leave_a_memory_that_can_be_read(tmp_path: Path, cache: Path) -> None:
    paths = [old_file(tmp_path / str(n), str(n).encode()) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(file_digest, paths)) == [
            hashlib.sha256(str(n).encode()).hexdigest() for n in range(40)
        ]
    assert json.loads(cache.read_text())
    assert [path.name for path in cache.parent.iterdir()] == ["digests.json"]


def test_the_memory_forgets_the_oldest_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_REMEMBERED_FILES", 2)
    for name in "abc":
        file_digest(old_file(tmp_path / name, b"x"))
    assert [Path(path).name for path in json.loads(cache.read_text())] == ["b", "c"]


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ModelError, match=f"Cannot read {path}"):
            file_digest(path)


def test_the_cache_folder_is_the_users_own_unless_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("PRECEPTOR_CACHE", "")
    assert cache_folder().name == "preceptor"
    assert cache_folder().is_absolute()


def model(folder: Path) -> Path:
    old_file(folder / "config.json", b"{}")
    old_file(folder / "weights" / "a.safetensors", b"weights")
    old_file(folder / "README.md", b"words")
    return folder


PATTERNS = ["*.json", "**/*.safetensors", "c*"]


def test_a_folder_is_known_by_matching_names_and_contents_alone(tmp_path: Path) -> None:
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    old_file(two / "README.md", b"other words", age=5)
    assert folder_digest(one, PATTERNS) == folder_digest(two, PATTERNS[::-1])
    assert len(folder_digest(one, PATTERNS)) == 64


@pytest.mark.parametrize("change", ["content", "name", "more", "swap"])
def test_a_folder_digest_follows_every_change(tmp_path: Path, change: str) -> None:
    folder = model(tmp_path / "model")
    before = folder_digest(folder, PATTERNS)
    if change == "content":
        old_file(folder / "config.json", b"[]", age=30)
    elif change == "name":
        (folder / "weights" / "a.safetensors").rename(folder / "weights" / "b.safetensors")
    elif change == "more":
        old_file(folder / "tokenizer.json", b"")
    else:
        old_file(folder / "config.json", b"weights")
        old_file(folder / "weights" / "a.safetensors", b"{}")
    assert folder_digest(folder, PATTERNS) != before


def test_a_folder_without_matches_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\*\.gguf; it holds README\.md, config\.json, weights"):
        folder_digest(model(tmp_path / "model"), ["*.gguf"])
    with pytest.raises(ModelError, match="nothing that can be listed"):
        folder_digest(tmp_path / "absent", ["*.gguf"])


def test_an_identity_follows_content_not_order_or_container() -> None:
    one = Identity.of({"a": [1, 2.5, None, True], "b": {"c": "é\ud800"}})
    two = Identity.of({"b": {"c": "é\ud800"}, "a": (1, 2.5, None, True)})
    assert one == two and hash(one) == hash(two) and one.digest == two.digest
    assert Identity.of(one.spec) == one
    assert len(one.digest) == 32 and set(one.digest) <= set("0123456789abcdef")


def test_the_digest_of_a_spec_never_changes_between_versions() -> None:
    # Computed once with b2sum --length 128 over the canonical JSON; a change would orphan all scores.
    identity = Identity.of({"b": 1, "a": [3.0]})
    assert identity.canonical == '{"a":[3.0],"b":1}'
    assert identity.digest == "d93144dcbfc12b0bfe3f0c538bad6c5b"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": 1}, {"a": 1.5}),
    ],
)
def test_different_specs_have_different_digests(
    one: dict[str, object], two: dict[str, object]
) -> None:
    assert Identity.of(one).digest != Identity.of(two).digest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": [0, math.nan]}, r"spec\.a\[1\] is nan"),
        ({"a": {"b": -math.inf}}, r"spec\.a\.b is -inf"),
        ({"a": {1: 2}}, "spec.a has the key 1"),
        ({"a": Path("x")}, "spec.a is a Posix|spec.a is a Windows"),
        ({"a": {1, 2}}, "spec.a is a set"),
        ({"a": b"x"}, "spec.a is a bytes"),
    ],
)
def test_a_spec_that_json_would_bend_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Identity.of(spec)


def test_an_identity_does_not_follow_later_changes_of_its_spec() -> None:
    inner = {"beta": 3}
    identity = Identity.of({"metric": inner})
    inner["beta"] = 4
    identity.spec["metric"] = None
    assert identity.spec == {"metric": {"beta": 3}}
