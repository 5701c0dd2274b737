"""Who computes changes no number: this process, actors of a cluster, some of which die, or shards."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import build_model
from preceptor import api
from preceptor.config.runtime import Runtime
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.selection import select
from preceptor.errors import MissingPackage, ModelError, StoreError, StudyError
from preceptor.pipeline.cluster.connection import Connection
from preceptor.pipeline.cluster.executor import Cluster
from preceptor.pipeline.cluster.portions import Portion, portions_of
from preceptor.pipeline.score import Step, carry_out
from preceptor.pipeline.work import Amount, Silent
from preceptor.ranking.result import Ranking
from preceptor.store.store import Store
from preceptor.types import Instruction, Response
from small_cluster import MortalScorer
from small_study import preceptor, rows_of, shards, write_rows, write_teachers

LOCAL = {"executor": "ray", "address": "local", "device": "cpu", "workers": 2, "worker_cores": 1}
MORTAL = {**LOCAL, "runtime_env": {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A cluster of this machine, which the first test that needs one starts."""
    found = pytest.importorskip("ray", reason="needs the extra ray")
    yield
    found.shutdown()


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: object) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-reward"
    build_model("llama", labels=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def numbers(ranking: Ranking) -> list[tuple[str, float]]:
    return [
        (f"{one['teacher']} {name}", value)
        for one in ranking.to_records()
        for name, value in one.items()
        if isinstance(value, int | float)
    ]


def flat(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by name, those of a list by name and place; None is left out."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in row.items()}
    return {
        f"{name} {place}": one
        for name, values in lists.items()
        for place, one in enumerate(values)
        if one is not None
    }


def rows(store: Path) -> dict[tuple[str, bytes], dict[str, float]]:
    """Return all rows as they lie in the store; a key that is there twice fails."""
    found = [
        ((path.parent.name, row.pop("key")), flat(row))
        for path in shards(store)
        for row in pq.read_table(path).to_pylist()
    ]
    assert max(Counter(key for key, _ in found).values()) == 1
    return dict(found)


def same(one: Path, other: Path) -> None:
    expected, seen = rows(one), rows(other)
    assert expected.keys() == seen.keys()
    for key, row in expected.items():
        assert seen[key] == pytest.approx(row, rel=1e-6, abs=1e-6)


@pytest.mark.usefixtures("ray", "private_cache")
def test_actors_give_the_numbers_of_this_process(
    tmp_path: Path, model_folder: Path, reward_folder: Path
):
    files = write_teachers(tmp_path / "data", instructions=120)
    what = {"student": model_folder, "reward_model": str(reward_folder), "metrics": ["car", "ifd"]}
    here = api.rank(files, **what, device="cpu", store=str(tmp_path / "here"))
    there = api.rank(files, **what, **LOCAL, store=str(tmp_path / "there"))
    assert numbers(there) == [
        (name, pytest.approx(value, rel=1e-6)) for name, value in numbers(here)
    ]
    same(tmp_path / "here", tmp_path / "there")
    assert not list(tmp_path.rglob("claim-*"))


def step_over(folder: Path, texts: list[str]) -> tuple[Step, MortalScorer]:
    row = {"instruction": "Say it.", "output": ""}
    made = [{**row, "instruction": f"Say {i}.", "output": text} for i, text in enumerate(texts)]
    source = ResponseSource.open([write_rows(folder / "alpha.jsonl", made)])
    choice = select(gather(source).table, None, seed=0, min_coverage=0.0)
    scorer = MortalScorer(folder / "log")
    partition = Store(folder / "store").scores(scorer.identity())
    return Step(scorer.name, scorer, partition, source, choice), scorer


class Told(Silent):
    """A progress that counts."""

    def __init__(self) -> None:
        self.done = Amount()

    def advance(self, done: Amount) -> None:
        self.done += done


@pytest.mark.usefixtures("ray")
def test_workers_that_die_lose_nothing_and_what_kills_three_becomes_a_note(tmp_path: Path):
    texts = [f"text number {number}" for number in range(30)]
    texts[7], texts[11], texts[19] = "a deadly text", "a spoiling text", "a stop text"
    step, scorer = step_over(tmp_path, texts)
    told = Told()
    columns = carry_out(step, told, Cluster(Runtime.model_validate(MORTAL)))
    assert Counter(columns["note"].tolist()) == {None: 29, "killed its worker three times": 1}
    assert np.isnan(columns["letters"]).sum() == 1
    assert told.done.responses == len(rows(tmp_path / "store")) == 30
    asked = Counter(scorer.log.read_text().split("\n")[:-1])
    # Of the spoilt and the stopped worker nothing but the response in hand is computed again.
    assert [asked[texts[place]] for place in (11, 19)] == [2, 2]
    assert (
        3 <= asked[texts[7]] <= 5
    )  # alone three times, and in its portion and piece where it came first


@pytest.mark.usefixtures("ray")
def test_workers_that_die_before_they_finish_anything_are_no_fault_of_the_rows(tmp_path: Path):
    step, _ = step_over(tmp_path, ["a deadly text", "another deadly text"])
    with pytest.raises(ModelError, match="3 workers died one after another"):
        carry_out(step, Silent(), Cluster(Runtime.model_validate({**MORTAL, "workers": 1})))
    assert len(step.partition.keys()) == 0


def test_shards_together_score_each_response_once_and_the_run_without_one_ranks(
    tmp_path: Path, model_folder: Path
):
    files = write_teachers(tmp_path / "data", instructions=20)
    words = [*files, "--student", model_folder, "--reward-column", "reward", "--device", "cpu"]
    assert preceptor("rank", *words, "--store", tmp_path / "whole").exit_code == 0
    sizes = []
    for place in (2, 3, 1):
        result = preceptor("rank", *words, "--store", tmp_path / "parts", "--shard", f"{place}/3")
        assert result.exit_code == 0, result.output
        assert "the same command without --shard ranks" in result.stdout
        sizes.append(len(rows(tmp_path / "parts")))
    scored = rows(tmp_path / "parts")
    steps = {step for step, _ in scored}  # what a ranking looks at besides, no shard does
    assert len(steps) == 2
    assert scored.keys() == {key for key in rows(tmp_path / "whole") if key[0] in steps}
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    ranked = preceptor("rank", *words, "--store", tmp_path / "parts")
    assert "likelihood: 40 stored, 0 to compute" in ranked.stderr
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_share_follows_from_content_and_not_from_the_order_of_rows(tmp_path: Path):
    made = rows_of(0, 30)
    keys = []
    for name, given in (("forth", made), ("back", made[::-1])):
        source = ResponseSource.open([write_rows(tmp_path / name / "alpha.jsonl", given)])
        choice = select(gather(source).table, None, seed=0, min_coverage=0.0)
        keys.append([set(choice.share(place, 4).keys.tolist()) for place in range(4)])
    assert keys[0] == keys[1]
    assert sum(map(len, keys[0])) == len(set().union(*keys[0])) == 30


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shard": "5/4"}, "none of 4 shards"),
        ({"shard": "0/4"}, "pattern"),
        ({"executor": "ray", "device": "cuda:1"}, "expected cuda"),
    ],
)
def test_a_wrong_runtime_is_refused(given: dict[str, str], words: str):
    with pytest.raises(StudyError, match=words):
        api.study_of(["any.jsonl"], no_student=True, **given)


def test_a_shard_ranks_nothing(tmp_path: Path):
    files = write_teachers(tmp_path)
    with pytest.raises(StudyError, match="shard 1/2 scores a part"):
        api.rank(files, no_student=True, reward_column="reward", shard="1/2")


def test_without_ray_its_executor_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    step, _ = step_over(tmp_path, ["a text", "b text"])
    with pytest.raises(MissingPackage, match=r"preceptor\[ray\]"):
        carry_out(step, Silent(), Cluster(Runtime.model_validate(LOCAL)))


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("no-address", ValueError("Invalid address format: no-address")),
        ("ray://host:10001", ImportError("Ray Client requires ray[client]")),
        ("host:6379", RuntimeError("Version mismatch")),
        ("host:6379", ConnectionError("Failed to connect")),
        ("auto", RuntimeError("Version mismatch")),
    ],
)
def test_an_address_that_ray_cannot_use_is_said_in_a_sentence(address: str, error: Exception):
    def init(**_given: object) -> None:
        raise error

    connection = Connection(Runtime.model_validate({**LOCAL, "address": address}))
    with pytest.raises(StudyError, match=rf"at {address} \({re.escape(str(error))}\)\. Start one"):
        connection._connect(SimpleNamespace(init=init))


def test_without_a_cluster_of_this_machine_auto_starts_one():
    asked: list[object] = []

    def init(address: str, **_given: object) -> None:
        asked.append(address)
        if address == "auto":
            raise ConnectionError("Could not find any running Ray instance")

    Connection(Runtime.model_validate({**LOCAL, "address": "auto"}))._connect(
        SimpleNamespace(init=init)
    )
    assert asked == ["auto", "local"]


def test_a_machine_without_the_store_is_told_so(tmp_path: Path):
    step, _ = step_over(tmp_path, ["a text", "b text"])
    with pytest.raises(StoreError, match="does not see the store"):
        step.task.require_same()


def responses(sizes: list[int]) -> list[list[Response]]:
    asked = [Instruction.from_text(f"Say {number:03}.") for number in range(len(sizes))]
    return [
        [Response(teacher, one, teacher[0] * size) for teacher in ("alpha", "beta")]
        for one, size in zip(asked, sizes, strict=True)
    ]


def test_portions_are_whole_instructions_of_an_equal_budget_the_longest_first():
    groups = responses([int(size) for size in np.random.default_rng(0).integers(50, 5_000, 400)])
    found = portions_of([groups[:64], groups[64:]], workers=4)
    assert sorted(len(one.text or "") for part in found for one in part.responses) == sorted(
        len(one.text or "") for group in groups for one in group
    )
    assert all(len(group) == 2 for one in found for group in one.part)
    sizes = [
        sum(len("Say 000.") + 2 * len(group[0].text or "") for group in one.part) for one in found
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(found) == pytest.approx(64, abs=12) and max(sizes) < 1.2 * np.mean(sizes)


def test_a_portion_comes_back_in_pieces_without_what_is_stored_unless_its_node_was_lost():
    groups = responses([10] * 50)
    portion = Portion(groups)
    stored = {one.key for one in groups[0]}
    (again,) = portion.after_death(stored, lambda one: one.key, blamed=False)
    assert (again.part, again.deaths) == (groups[1:], 0)
    pieces = portion.after_death(stored, lambda one: one.key, blamed=True)
    assert [len(one.responses) for one in pieces] == [10] * 9 + [8]
    alone = pieces[0].after_death((), lambda one: one.key, blamed=True)
    assert [(len(one.responses), one.deaths) for one in alone] == [(1, 0)] * 10
    last = alone[0]
    for deaths in (1, 2, 3):
        (last,) = last.after_death((), lambda one: one.key, blamed=True)
        assert (last.deaths, last.is_lost) == (deaths, deaths == 3)
    assert (
        portion.after_death(
            {one.key for one in portion.responses}, lambda one: one.key, blamed=True
        )
        == []
    )
