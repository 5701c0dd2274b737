"""Ids and keys: the same content has the same one, different content never does."""

import pickle
from dataclasses import replace
from itertools import combinations

from preceptor.types import KEY_BYTES, Instruction, Message, Response, response_key


def instruction(*turns):
    return Instruction(tuple(Message(*turn) for turn in turns))


def test_conversations_that_join_to_the_same_text_have_different_ids():
    conversations = [
        instruction(("user", "ab")),
        instruction(("user", "a"), ("b", "")),
        instruction(("user", "a"), ("", "b")),
        instruction(("usera", "b")),
        instruction(("", "userab")),
        instruction(("user", "a4:user1:b")),
        instruction(("user", "a"), ("user", "b")),
        instruction(("user", "b"), ("user", "a")),
        instruction(("user", "")),
        instruction(),
    ]
    for one, other in combinations(conversations, 2):
        assert one.id != other.id


def test_calls_names_tools_and_what_matches_give_ids_of_their_own():
    plain = instruction(("user", "ab"))
    different = [
        plain,
        instruction(("user", "abc0:n1:x")),
        instruction(("user", "ab", "", "x")),
        instruction(("user", "ab", "x", "")),
        instruction(("user", "ab", "[]")),
        replace(plain, tools="[]"),
        replace(plain, tools="x"),
        replace(plain, match=""),
        replace(plain, match="ab"),
    ]
    for one, other in combinations(different, 2):
        assert one.id != other.id
    calling = replace(Response("a", plain, "4"), tool_calls="[]")
    assert calling.key != Response("a", plain, "4").key
    assert calling.key != Response("a", plain, "4[]").key


def test_what_is_matched_by_something_else_is_stored_by_its_content():
    one, two = (Instruction.from_text(text) for text in ("2+2?", "2 + 2?"))
    first, second = (replace(found, match="row 7") for found in (one, two))
    assert first.id == second.id != one.id
    assert (first.given_id, second.given_id) == (one.given_id, two.given_id)
    assert Response("a", first, "4").key == Response("a", one, "4").key


def test_ids_and_keys_of_plain_conversations_stay_what_stores_hold():
    turns = (("system", "Be brief."), ("user", " 2+2?\n"), ("assistant", "4"), ("user", "3+3? 👍"))
    asked = instruction(*turns)
    response = Response("x", asked, "6", reference={"kind": "numeric", "value": "6"})
    assert asked.id.hex() == "15af9f2174c3b6baac2886402a34085e"
    assert asked.given_id.hex() == "6c52b787391c1c9c0c2956f637d3b177"
    assert response.key.hex() == "3084391a7a8c6ff11b25b810180b83e4"
    assert response.checked_key.hex() == "dd70d45c37f0a923ea87a804bf0d37d5"


def test_a_turn_is_written_with_the_fields_that_it_has_alone():
    call = '[{"arguments":{"city":"Bonn"},"name":"weather"}]'
    function = {"name": "weather", "arguments": {"city": "Bonn"}}
    assert Message("user", "Hi").as_dict() == {"role": "user", "content": "Hi"}
    assert Message("assistant", "", call).as_dict() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function}],
    }
    assert Message("tool", "9", name="weather").as_dict()["name"] == "weather"


def test_texts_that_differ_in_surrogates_alone_have_different_ids_and_keys():
    texts = ["\U0001f600", "\ud83d\ude00", "\ud83d", "\ufffd"]
    assert len({Instruction.from_text(text).id for text in texts}) == len(texts)
    assert len({response_key(bytes(KEY_BYTES), text) for text in texts}) == len(texts)


def test_white_space_around_turns_is_passed_over_in_matching_and_counts_for_scores():
    plain, spaced = instruction(("user", "2+2?")), instruction(("user", " 2+2?\n"))
    assert plain.id == plain.given_id == spaced.id != spaced.given_id
    assert Response("a", plain, "4").key != Response("a", spaced, "4").key
    assert Response("a", plain, " 4").key != Response("a", plain, "4").key


def test_ids_and_keys_follow_the_content_alone():
    first = Response("a", Instruction.from_text("2+2?"), "4", sample=1, columns={"reward": 1.0})
    second = Response("b", Instruction.from_text("2+2?"), "4")
    assert first.instruction.id == second.instruction.id
    assert first.key == second.key == response_key(first.instruction.id, "4")
    assert len(first.key) == len(first.instruction.id) == KEY_BYTES
    assert first.key != Response("a", Instruction.from_text("2+3?"), "4").key
    assert first.key != Response("a", first.instruction, "5").key


def test_a_response_without_text_has_the_key_of_an_empty_one():
    question = Instruction.from_text("2+2?")
    assert Response("a", question, None).key == Response("a", question, "").key


def test_a_key_is_computed_once_and_changes_neither_equality_nor_pickling():
    used, fresh = (Response("a", Instruction.from_text("2+2?"), "4") for _ in range(2))
    assert used.key is used.key
    assert used.instruction.id is used.instruction.id
    assert used == fresh
    assert hash(used.instruction) == hash(fresh.instruction)
    assert pickle.loads(pickle.dumps(used)).key == fresh.key
