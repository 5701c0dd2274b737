"""Stored responses: each paid for once, whatever happens between."""

import math
from pathlib import Path

import numpy as np
import pytest

from preceptor.errors import StoreError
from preceptor.store.store import Identity, ResponseShelf, Store
from preceptor.types import Generation, Instruction

TEACHER = Identity.of({"model": "gemma-2-9b-it", "temperature": 0.8})
ASKED = [Instruction.from_text(f"question {n}").id for n in range(4)]


def given(
    place: int, text: str | None = "an answer", sample: int = 0, **more: object
) -> Generation:
    return Generation(ASKED[place], sample, text, **more)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path) -> ResponseShelf:
    return Store(tmp_path).responses(TEACHER)


def test_responses_come_back_as_they_were_given(shelf: ResponseShelf) -> None:
    full = given(0, "text\n", finish_reason="length", tokens=3, prompt_tokens=9, seconds=0.5)
    shelf.append([full, given(0, "", sample=1)])
    shelf.append([given(1, None, note="content filter: no")])
    assert list(shelf.each()) == [full, given(0, "", sample=1)]
    assert shelf.notes() == {given(1).key: "content filter: no"}
    assert {bytes(key) for key in shelf.keys().tolist()} == {
        full.key,
        given(0, sample=1).key,
        given(1).key,
    }


def test_the_first_answer_stays_and_a_text_beats_a_note(shelf: ResponseShelf) -> None:
    shelf.append([given(0, "first"), given(1, None, note="refused")])
    shelf.append([given(0, "second"), given(1, "at last")])
    assert [row.text for row in shelf.each()] == ["first", "at last"]
    assert shelf.notes() == {}
    shelf.compact()
    assert [row.text for row in shelf.each()] == ["first", "at last"]


def test_only_what_is_wanted_is_yielded(shelf: ResponseShelf) -> None:
    shelf.append([given(n, sample=s) for n in range(4) for s in range(2)])
    wanted = {given(2, sample=1).key, given(3).key}
    assert {row.key for row in shelf.each(wanted)} == wanted


def test_a_sample_and_an_instruction_make_a_key_of_their_own() -> None:
    keys = {given(n, sample=s).key for n in range(4) for s in range(50)}
    assert len(keys) == 200


def test_costs_are_means_over_what_was_counted(shelf: ResponseShelf) -> None:
    assert shelf.costs().responses == 0
    assert math.isnan(shelf.costs().tokens)
    shelf.append(
        [
            given(0, tokens=30, prompt_tokens=10, seconds=1.0),
            given(1, tokens=10, prompt_tokens=20, seconds=3.0),
            given(2, seconds=4.0),
            given(3, None, note="refused"),
        ]
    )
    costs = shelf.costs()
    assert costs.responses == 3
    np.testing.assert_allclose(costs[1:], [20.0, 15.0, 10.0])


def test_half_a_surrogate_pair_does_not_kill_the_row(shelf: ResponseShelf) -> None:
    shelf.append([given(0, "half \ud800")])
    assert [row.text for row in shelf.each()] == ["half ?"]


@pytest.mark.parametrize("row", [given(0, None), given(0, "text", note="and a note")])
def test_a_row_needs_a_text_or_a_note(shelf: ResponseShelf, row: Generation) -> None:
    with pytest.raises(StoreError, match="needs a text or a note"):
        shelf.append([row])


def test_the_store_lists_responses_beside_scores(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.responses(TEACHER, recorded={"device": "cpu"}).append([given(0)])
    (found,) = store.shelves()
    assert isinstance(found, ResponseShelf)
    assert (found.kind, found.identity, dict(found.recorded)) == (
        "responses",
        TEACHER,
        {"device": "cpu"},
    )


def test_notes_can_be_forgotten_and_nothing_else_is(shelf: ResponseShelf) -> None:
    shelf.append([given(0), given(1, None, note="refused")])
    shelf.append([given(2, None, note="refused")])
    shelf.append([given(3)])
    assert shelf.forget_notes() == 2
    assert shelf.notes() == {}
    assert {bytes(key) for key in shelf.keys().tolist()} == {given(0).key, given(3).key}
    assert [row.instruction for row in shelf.each()] == [ASKED[0], ASKED[3]]
    assert shelf.forget_notes() == 0


def test_a_response_is_never_put_together_from_two(shelf: ResponseShelf) -> None:
    shelf.append([given(0, "first")])
    shelf.append([given(0, "second", finish_reason="length", tokens=2048)])
    assert list(shelf.each()) == [given(0, "first")]
    shelf.compact()
    assert list(shelf.each()) == [given(0, "first")]
    assert shelf.costs().responses == 1
