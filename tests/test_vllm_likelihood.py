"""What vLLM is asked for a student's likelihoods, and that its numbers are the model's."""

import json
import math
import shutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines import vllm_likelihood
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.engines.loading import load_model
from preceptor.engines.models import locate
from preceptor.engines.vllm_likelihood import VllmLikelihood, chunk_tokens
from preceptor.errors import MissingPackage
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import NoteKind
from test_served_likelihood import PAIRS

ROOM = max(len(pair.prompt) + len(pair.response) for pair in PAIRS)


class StandIn:
    """Has the part of `vllm.LLM` that is used, as documented, over the real model."""

    made: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        StandIn.made = settings
        self.model = load_model(locate(settings["model"]), dtype="float32", device="cpu")
        config = SimpleNamespace(max_model_len=settings["max_model_len"])
        self.llm_engine = SimpleNamespace(model_config=config)

    def generate(self, prompts: list[Any], wanted: Any, *, use_tqdm: bool) -> Iterator[Any]:
        import torch

        assert wanted.prompt_logprobs == 0 and wanted.max_tokens == 1
        for prompt in prompts:
            ids = prompt["prompt_token_ids"]
            assert len(ids) < self.llm_engine.model_config.max_model_len
            with torch.no_grad():
                every = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            entries: list[Any] = [None]
            for place, token in enumerate(ids[1:]):
                value = every[place, token]
                rank = int((every[place] >= value).sum())
                entries.append({token: SimpleNamespace(logprob=float(value), rank=rank)})
            yield SimpleNamespace(prompt_logprobs=entries)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = ModuleType("vllm")
    vllm.__spec__ = ModuleSpec("vllm", None)
    vllm.LLM, vllm.SamplingParams = StandIn, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)


def test_vllm_gives_the_numbers_of_the_model_and_notes_what_leaves_no_room(
    model_folder: Path, stand_in: None
):
    student = Student(model=str(model_folder), engine="vllm", dtype="float32", max_length=ROOM)
    located, runtime = locate(student.model), Runtime(device="cpu", gpus=2)
    found, here = (
        {
            one.index: one
            for batch in LIKELIHOOD_ENGINES[engine].load(located, student, runtime).measure(PAIRS)
            for one in batch
        }
        for engine in ("vllm", "transformers")
    )
    longest = len(PAIRS) - 1
    without_room = found.pop(longest)  # vLLM wants room for one more token
    assert np.isnan(without_room.columns["nll"]).all()
    assert NoteKind.of(without_room.note) == NoteKind.NO_ROOM
    for index, one in found.items():
        assert np.allclose(one.columns["nll"], here[index].columns["nll"], atol=1e-4)
        assert one.columns["rank"].tolist() == here[index].columns["rank"].tolist()
    assert StandIn.made["tensor_parallel_size"] == 2
    assert not StandIn.made["enable_prefix_caching"]
    assert StandIn.made["max_num_batched_tokens"] == chunk_tokens(located)


def test_what_is_handed_over_together_is_bounded_in_tokens_too(
    model_folder: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vllm_likelihood, "_TOKENS_AT_ONCE", 20)
    student = Student(model=str(model_folder), engine="vllm", dtype="float32")
    loaded = VllmLikelihood.load(locate(student.model), student, Runtime(device="cpu"))
    batches = [[one.index for one in batch] for batch in loaded.measure(PAIRS)]
    assert [len(pair.prompt) + len(pair.response) for pair in PAIRS] == [3, 5, 8, 10, 13, 15]
    assert batches == [[0, 1, 2], [3], [4], [5]]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_number_that_is_none_never_becomes_a_loss_of_zero(
    model_folder: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch, bad: float
):
    def spoiled(self: StandIn, prompts: list[Any], wanted: Any, *, use_tqdm: bool) -> Iterator[Any]:
        for place, output in enumerate(well(self, prompts, wanted, use_tqdm=use_tqdm)):
            if place == 1:
                next(iter(output.prompt_logprobs[-1].values())).logprob = bad
            yield output

    well = StandIn.generate
    monkeypatch.setattr(StandIn, "generate", spoiled)
    student = Student(model=str(model_folder), engine="vllm", dtype="float32")
    loaded = VllmLikelihood.load(locate(student.model), student, Runtime(device="cpu"))
    found = {one.index: one.columns for batch in loaded.measure(PAIRS) for one in batch}
    assert not np.isfinite(found[1]["nll"][-1])
    assert np.isfinite(found[0]["nll"]).all()


@pytest.mark.parametrize(("vocabulary", "tokens"), [(32_000, 4096), (151_936, 1024), (50, 8192)])
def test_a_chunk_bounds_the_memory_of_log_probabilities_and_plans_say_it(
    model_folder: Path, tmp_path: Path, private_cache: Path, vocabulary: int, tokens: int
):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = vocabulary
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    located = locate(str(folder))
    assert chunk_tokens(located) == tokens
    assert 12 * vocabulary * tokens <= 2e9
    model = StudentModel(Student(model=str(folder), engine="vllm"), Runtime(device="cpu"))
    assert f"of {tokens:,} tokens at a time, up to" in LikelihoodScorer(model).memory_note
    served = StudentModel(Student(model=str(folder), engine="served"), Runtime(device="cpu"))
    said = f"{12e-6 * vocabulary:.1f} MB for each of its --max-num-batched-tokens"
    assert said in LikelihoodScorer(served).memory_note
    assert LikelihoodScorer(served).name == "likelihood"  # as it is known in files


def test_without_vllm_the_error_says_what_to_install(model_folder: Path):
    if find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    student = Student(model=str(model_folder), engine="vllm")
    with pytest.raises(MissingPackage, match=r"'vllm'.*pip install 'preceptor\[vllm\]'"):
        VllmLikelihood.load(locate(student.model), student, Runtime(device="cpu"))
