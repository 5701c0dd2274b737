"""Identities name stored numbers: they stay what they are, whatever happens to the tables behind them."""

import json
from pathlib import Path

import pytest

from preceptor.benchmarks.judges import judge_of
from preceptor.config.base import checked
from preceptor.config.finetune import ChatJudge, RewardJudge
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.finetuning.dataset import Conversations
from preceptor.pipeline.plan import for_student
from preceptor.pipeline.sources import jobs_of
from preceptor.types import Instruction, Message
from preceptor.validation.finetune_job import FinetuneJob, setup_of

RUNTIME = Runtime(
    device="cpu",
    endpoints={"served": {"url": "http://127.0.0.1:1/v1"}, "base": {"url": "http://127.0.0.1:1"}},
)
GOLDEN = {
    "length": "7e8f630e96df1115810047777241e54f",
    "reward by tiny": "7177174bed3d739cb633fb08d5f8c216",
    "likelihood": "2170ea47bf4b0dcbb658df521d8c1d14",
    "likelihood without instruction": "800b0a18a9df79f23389f8112170b6ec",
    "judge served": "ec1838c83b2f1535b0db3d728fb24a4c",
    "judge tiny": "9d72420b42b449d43f97af2a1892877c",
    "one": "9a02880e2d470b649a97e70ec0b2225c",
    "tiny T=0": "0b7b899b995ac5dcb19832420e23ed9a",
    "tiny T=0.8": "d23b784516713485f64168c4c7cebc7f",
    "served": "341ed9f155cabe474729315014c7676b",
    "base": "9d91aa9910f4e27f650e0b79fed434af",
    "untuned": "89fe5e5fdfd71a906f59b86aca24ebff",
    "fine-tuning": "32dc85bc5cb214dd4868bbb82198668a",
    "fine-tuned": "6aaecf464b202abeb2935bc4a69411da",
    "pair judge": "eec6caccf42fbe6378947e2d4c299bdd",
    "game judge": "0015d89ec348fdd6251e65df8ae43e9b",
    "local pair judge": "c285786739b246c24900400f8f57398d",
    "reward judge": "50b5bc08c26735d78816ab4e7f4c14e9",
}
"""As they were when the store's rows were first written (2026-11-28; likelihoods 2026-11-29)."""


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder that can be found and not loaded: only its content and config count here."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def study_of(model: str) -> Study:
    rewards = [
        {"kind": "model", "model": model, "chat_template": "llama3", "trust_remote_code": True},
        {"kind": "judge", "model": "served", "rubric": "Good?", "scale": [0, 5], "seed": 7},
        {"kind": "judge", "model": model, "engine": "transformers", "chat_template": "plain"},
    ]
    teachers = [
        {"model": "one", "engine": "fake", "system": " Be kind. ", "samples": 3, "temperature": 1},
        {
            "model": model,
            "chat_template": "chatml",
            "temperature": [0, 0.8],
            "top_p": [0.9],
            "seed": 3,
        },
        {"model": "served", "engine": "openai", "revision": "june", "stop": "\n\n"},
        {"model": "base", "engine": "openai", "api": "completions", "chat_template": "phi3"},
    ]
    tables = {
        "data": {"instructions": "questions.jsonl"},
        "teachers": teachers,
        "students": [{"model": model, "chat_template": "gemma", "max_length": 3000}],
        "reading": {"include_end_of_turn": True},
        "reward": rewards,
        "metrics": [{"kind": kind} for kind in ("car", "ifd")],
        "train": {"chat_template": "gemma"},
        "evaluate": {
            "benchmarks": ["alpaca_eval"],
            "temperature": 0.5,
            "max_tokens": 99,
            "judge": {"kind": "chat", "engine": "openai", "model": "served"},
        },
    }
    return checked(Study, tables, where="here")


def test_no_identity_of_a_scorer_teacher_or_judge_changes(model: str):
    study = study_of(model)
    found = {}
    for reward in study.reward:
        for scorer in for_student(study, RUNTIME, study.students[0], reward=reward).scorers:
            name = reward.name if scorer.name == "judge" else scorer.name
            found[name] = scorer.identity().digest
    for job in jobs_of(study, RUNTIME, [Instruction.from_text("Why?")]):
        found[job.name] = job.backend.identity().digest
    assert study.train is not None
    (evaluate,) = study.evaluate
    setup = setup_of(study.students[0], study.train, evaluate, runtime=RUNTIME)
    found["untuned"] = setup.untuned.identity().digest
    turns = (Message("user", "Why?"), Message("assistant", "Because."))
    job = FinetuneJob(setup, "one", Conversations((turns,)), RUNTIME)
    found["fine-tuning"] = job.identity.digest
    found["fine-tuned"] = job.backend().identity().digest
    asked = evaluate.judge
    local = ChatJudge(model=model, chat_template="plain", max_length=700)
    scored = RewardJudge(model=model, chat_template="chatml")
    judges = {"pair judge": (asked, ("letter",)), "game judge": (asked, ("written",))}
    judges |= {"local pair judge": (local, ("letter",)), "reward judge": (scored, ("letter",))}
    for name, (table, kinds) in judges.items():
        found[name] = judge_of(table, RUNTIME, kinds).identity().digest
    assert found == GOLDEN
