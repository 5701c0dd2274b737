"""Stored responses: each paid for once, whatever happens between."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from preceptor.errors import StoreError
from preceptor.store.store import Identity, ResponsePartition, Store
from preceptor.types import Generation, Instruction

TEACHER = Identity.of({"model": "gemma-2-9b-it", "temperature": 0.8})
ASKED = [Instruction.from_text(f"question {n}").id for n in range(4)]


def given(
    place: int, text: str | None = "an answer", sample: int = 0, **more: object
) -> Generation:
    return Generation(ASKED[place], sample, text, **more)  # type: ignore[arg-type]


@pytest.fixture
def partition(tmp_path: Path) -> ResponsePartition:
    return Store(tmp_path).responses(TEACHER)


def test_responses_come_back_as_they_were_given(partition: ResponsePartition) -> None:
    full = given(0, "text\n", finish_reason="length", tokens=3, prompt_tokens=9, seconds=0.5)
    partition.append([full, given(0, "", sample=1)])
    partition.append([given(1, None, note="content filter: no")])
    assert list(partition.each()) == [full, given(0, "", sample=1)]
    assert partition.notes() == {given(1).key: "content filter: no"}
    assert {bytes(key) for key in partition.keys().tolist()} == {
        full.key,
        given(0, sample=1).key,
        given(1).key,
    }


def test_the_first_answer_stays_and_a_text_beats_a_note(partition: ResponsePartition) -> None:
    partition.append([given(0, "first"), given(1, None, note="refused")])
    partition.append([given(0, "second"), given(1, "at last")])
    assert [row.text for row in partition.each()] == ["first", "at last"]
    assert partition.notes() == {}
    partition.compact()
    assert [row.text for row in partition.each()] == ["first", "at last"]


def test_only_what_is_wanted_is_yielded(partition: ResponsePartition) -> None:
    partition.append([given(n, sample=s) for n in range(4) for s in range(2)])
    wanted = {given(2, sample=1).key, given(3).key}
    assert {row.key for row in partition.each(wanted)} == wanted


def test_a_sample_and_an_instruction_make_a_key_of_their_own() -> None:
    keys = {given(n, sample=s).key for n in range(4) for s in range(50)}
    assert len(keys) == 200


def test_costs_are_means_over_what_was_counted(partition: ResponsePartition) -> None:
    assert partition.costs().responses == 0
    assert math.isnan(partition.costs().tokens)
    partition.append(
        [
            given(0, tokens=30, prompt_tokens=10, seconds=1.0),
            given(1, tokens=10, prompt_tokens=20, seconds=3.0),
            given(2, seconds=4.0),
            given(3, None, note="refused"),
        ]
    )
    costs = partition.costs()
    assert costs.responses == 3
    np.testing.assert_allclose(costs[1:], [20.0, 15.0, 10.0])


def test_half_a_surrogate_pair_does_not_kill_the_row(partition: ResponsePartition) -> None:
    partition.append([given(0, "half \ud800")])
    assert [row.text for row in partition.each()] == ["half ?"]


@pytest.mark.parametrize("row", [given(0, None), given(0, "text", note="and a note")])
def test_a_row_needs_a_text_or_a_note(partition: ResponsePartition, row: Generation) -> None:
    with pytest.raises(StoreError, match="needs a text or a note"):
        partition.append([row])


def test_the_store_lists_responses_beside_scores(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.responses(TEACHER, recorded={"device": "cpu"}).append([given(0)])
    (found,) = store.partitions()
    assert isinstance(found, ResponsePartition)
    assert (found.kind, found.identity, dict(found.recorded)) == (
        "responses",
        TEACHER,
        {"device": "cpu"},
    )


def test_notes_can_be_forgotten_and_nothing_else_is(partition: ResponsePartition) -> None:
    partition.append([given(0), given(1, None, note="refused")])
    partition.append([given(2, None, note="refused")])
    partition.append([given(3)])
    assert partition.forget_notes() == 2
    assert partition.notes() == {}
    assert {bytes(key) for key in partition.keys().tolist()} == {given(0).key, given(3).key}
    assert [row.instruction for row in partition.each()] == [ASKED[0], ASKED[3]]
    assert partition.forget_notes() == 0


def test_notes_stay_forgotten_when_a_compaction_runs_at_the_same_time(tmp_path: Path) -> None:
    for trial in range(4):
        partition = Store(tmp_path / str(trial)).responses(TEACHER)
        for sample in range(20):
            partition.append([given(0, sample=sample), given(1, None, sample, note="refused")])
        with ThreadPoolExecutor() as threads:
            compactions = [threads.submit(partition.compact) for _ in range(3)]
            forgotten = partition.forget_notes()
        assert all(one.exception() is None for one in compactions)
        assert (forgotten, partition.notes()) == (20, {})
        assert len(partition.keys()) == 20


def test_a_response_is_never_put_together_from_two(partition: ResponsePartition) -> None:
    partition.append([given(0, "first")])
    partition.append([given(0, "second", finish_reason="length", tokens=2048)])
    assert list(partition.each()) == [given(0, "first")]
    partition.compact()
    assert list(partition.each()) == [given(0, "first")]
    assert partition.costs().responses == 1
