"""What vLLM is asked for is fixed by the request alone; where it is installed, it answers as the model does.

The tests marked by `needs_vllm` run a real vLLM over a tiny model, the others only what leads to it.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from preceptor.config.runtime import Runtime
from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.encoder import Encoder
from preceptor.engines.generation import TransformersChat
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import LocatedModel, locate
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate
from preceptor.engines.vllm import VllmChat, sampling_settings
from preceptor.errors import MissingPackage
from preceptor.teachers.local import LocalTeacher
from preceptor.types import Message

SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": ""}
QUESTIONS = ("What is two plus two?", "Hello", "The dog lay beside the other cat. Why?")
ENDS = frozenset({7, 2})

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")


def asked(text: str = "Hello", **settings: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **{"max_tokens": 12, **settings})


def settings_of(request: ChatRequest, number: int = 0, room: int = 100) -> dict[str, Any]:
    return dict(sampling_settings(request, number, room=room, ends=ENDS))


def test_a_greedy_request_leaves_nothing_to_the_models_own_settings() -> None:
    assert settings_of(asked(seed=None)) == {
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 12,
        "stop": [],
        "stop_token_ids": [2, 7],
        "seed": None,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": False,
    }


def test_the_requests_sampling_is_handed_on() -> None:
    request = asked(temperature=0.7, top_p=0.9, stop=("\n\n", "", "END"), max_tokens=500)
    settings = settings_of(request, room=40)
    assert (settings["temperature"], settings["top_p"]) == (0.7, 0.9)
    assert settings["stop"] == ["\n\n", "END"]
    assert settings["max_tokens"] == 40


def test_seeds_differ_between_conversations_seeds_and_answers() -> None:
    seeds = [
        settings_of(asked(text, seed=seed, temperature=1.0), number)["seed"]
        for text in QUESTIONS
        for seed in (-1, 0, 1, 2**63)
        for number in range(3)
    ]
    assert len(set(seeds)) == 36
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert settings_of(asked(seed=5)) == settings_of(asked(seed=5, count=4))


@pytest.fixture
def located(model_folder: Path, tmp_path: Path, private_cache: Path) -> LocatedModel:
    """A copy of the tiny Llama whose generation config would change every answer."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 3.0, "top_k": 2, "repetition_penalty": 5.0, '
        '"eos_token_id": [2, 321]}'
    )
    return locate(str(folder))


def encoder_for(located: LocatedModel, max_length: int = 128) -> Encoder:
    template = ChatTemplate("chatml", FAMILY_TEMPLATES["chatml"], SPECIAL)
    return Encoder(load_tokenizer(located), template, max_length=max_length)


def test_without_vllm_the_error_says_what_to_install(located: LocatedModel) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    with pytest.raises(MissingPackage, match=r"'vllm'.*pip install 'preceptor\[vllm\]'"):
        VllmChat(located, encoder=encoder_for(located), dtype="float32")


@pytest.mark.parametrize(("gpus", "size"), [(None, 1), (1, 1), (4, 4)])
def test_a_teacher_is_spread_over_the_gpus_of_the_runtime(
    located: LocatedModel, monkeypatch: pytest.MonkeyPatch, gpus: int | None, size: int
) -> None:
    loaded: list[dict[str, Any]] = []
    vllm = ModuleType("vllm")
    vllm.__spec__ = ModuleSpec("vllm", None)
    vllm.LLM = lambda **settings: loaded.append(settings) or SimpleNamespace(llm_engine=None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setenv("VLLM_LOGGING_STREAM", "")
    monkeypatch.delenv("VLLM_LOGGING_STREAM")
    point = TeacherPoint(
        label="x", model=str(located.folder), engine="vllm", chat_template="chatml"
    )
    chat = LocalTeacher(point, Runtime(gpus=gpus, device="cpu")).chat
    assert isinstance(chat, VllmChat)
    assert not loaded
    assert chat._engine is None
    assert [one["tensor_parallel_size"] for one in loaded] == [size]
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"  # stdout is for results


@pytest.fixture
def chat(located: LocatedModel) -> Iterator[VllmChat]:
    made = VllmChat(
        located,
        encoder=encoder_for(located),
        dtype="float32",
        memory_share=0.3,
    )
    yield made
    made.release()


@needs_vllm
def test_the_ends_are_those_of_the_models_files_and_of_the_template(chat: VllmChat) -> None:
    turn = chat.encoder.tokenizer.get_added_vocab()["<|im_end|>"]
    assert {2, 321, turn, chat.encoder.tokenizer.eos_token_id} == chat.ends


@needs_vllm
@pytest.mark.filterwarnings("default")
def test_vllm_answers_as_transformers_does_and_keeps_to_requests(
    chat: VllmChat, located: LocatedModel
) -> None:
    greedy = [asked(text) for text in QUESTIONS]
    own = TransformersChat(load_model(located, dtype="float32", device="cpu"), chat.encoder)
    expected = {f.index: f.outcome for f in own.complete_all(greedy)}
    assert {f.index: f.outcome for f in chat.complete_all(greedy)} == expected

    sampled = chat.complete(asked(temperature=1.0, count=3))
    assert isinstance(sampled, Completion)
    assert len({sampled.text, *(other.text for other in sampled.others)}) == 3

    refused = chat.complete(asked("cat " * 200))
    assert isinstance(refused, Failure)
    assert refused.of_request

    outcomes = chat.complete_all(greedy)
    next(outcomes)
    outcomes.close()
    assert chat.complete(greedy[0]) == expected[0]
