"""The fake chat model answers at once, the same everywhere, and keeps to what a request asks for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from preceptor.engines.base import ChatRequest, Completion
from preceptor.engines.fake import FEWEST_WORDS, MOST_WORDS, FakeChat
from preceptor.types import Message

QUESTIONS = [f"What is number {number} good for?" for number in range(200)]


def asked(text: str = "Why is the sea deep?", **settings: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **{"max_tokens": 100, **settings})


def answer(request: ChatRequest, name: str = "fake") -> Completion:
    outcome = FakeChat(name).complete(request)
    assert isinstance(outcome, Completion)
    return outcome


def test_an_answer_is_the_same_in_every_process() -> None:
    code = (
        "from preceptor.engines.base import ChatRequest\n"
        "from preceptor.engines.fake import FakeChat\n"
        "from preceptor.types import Message\n"
        "asked = ChatRequest((Message('user', 'Why is the sea deep?'),), 100, temperature=0.5)\n"
        "print(FakeChat().complete(asked).text)\n"
        "import sys; print(*{'numpy', 'torch', 'transformers', 'pydantic'} & set(sys.modules))\n"
    )
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": source, "PYTHONHASHSEED": "5"},
    )
    text, heavy = done.stdout.splitlines()
    assert text == answer(asked(temperature=0.5)).text
    assert text.startswith("Another familiar reason supports another choice.")
    assert heavy == ""


def test_answers_keep_between_five_and_sixty_words_and_end_with_a_full_stop() -> None:
    for name in ("fake", "one", "two", "three", "four"):
        texts = [answer(asked(question), name).text for question in QUESTIONS]
        assert len(set(texts)) > 190
        counts = [len(text.split()) for text in texts]
        assert FEWEST_WORDS <= min(counts) < max(counts) <= MOST_WORDS
        assert all(text[0].isupper() and text.endswith(".") for text in texts)


def test_names_differ_in_their_texts_and_in_how_much_they_say() -> None:
    names = ["anna", "bert", "cleo", "dora"]
    texts = {name: [answer(asked(question), name).text for question in QUESTIONS] for name in names}
    assert len({tuple(one) for one in texts.values()}) == 4
    lengths = sorted(mean(len(text.split()) for text in one) for one in texts.values())
    assert lengths[-1] > 1.5 * lengths[0]


def test_seed_and_temperature_matter_only_where_the_answer_is_sampled() -> None:
    greedy = {answer(asked(seed=seed, top_p=p)).text for seed in (0, 1, None) for p in (0.5, 1.0)}
    assert len(greedy) == 1
    warm = [asked(seed=seed, temperature=t) for seed in (0, 1, None) for t in (0.5, 1.0)]
    assert len({answer(request).text for request in warm} | greedy) == 7
    assert answer(warm[0]) == answer(warm[0])


def test_every_turn_of_the_conversation_matters() -> None:
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    request = replace(asked(), messages=turns)
    others = [
        replace(request, messages=(Message("system", "Be long."), turns[1])),
        replace(request, messages=(Message("user", "Be brief."), turns[1])),
        replace(request, messages=turns[1:]),
    ]
    assert len({answer(one).text for one in (request, *others)}) == 4
    assert answer(request).prompt_tokens == 3


def test_max_tokens_cut_an_answer_by_words() -> None:
    whole = answer(asked())
    assert (whole.finish_reason, whole.tokens) == ("stop", len(whole.text.split()))
    assert whole.tokens is not None
    exact = answer(asked(max_tokens=whole.tokens))
    assert exact == whole
    cut = answer(asked(max_tokens=whole.tokens - 1))
    assert (cut.finish_reason, cut.tokens) == ("length", whole.tokens - 1)
    assert whole.text.startswith(cut.text)


def test_a_stop_text_ends_the_answer_where_it_first_occurs() -> None:
    whole = answer(asked())
    third = whole.text.split()[2]
    found = answer(asked(stop=("", "\n", third, whole.text.split()[4])))
    assert found.text == " ".join(whole.text.split()[:2]) + " "
    assert (found.finish_reason, found.tokens) == ("stop", 2)
    assert answer(asked(stop=("\n",))) == whole
    # What the cut leaves out cannot stop the answer.
    assert answer(asked(stop=(third,), max_tokens=2)).finish_reason == "length"


@pytest.mark.parametrize(("temperature", "different"), [(0.0, 1), (0.8, 4)])
def test_several_answers_differ_where_they_are_sampled(temperature: float, different: int) -> None:
    found = answer(asked(temperature=temperature, count=4))
    assert len(found.others) == 3
    assert len({found.text, *(other.text for other in found.others)}) == different
    assert answer(asked(temperature=temperature)).text == found.text


def test_every_request_gets_its_outcome() -> None:
    requests = [asked(question) for question in QUESTIONS]
    found = list(FakeChat().complete_all(requests))
    assert [finished.index for finished in found] == list(range(200))
    assert [finished.outcome for finished in found] == [answer(request) for request in requests]
