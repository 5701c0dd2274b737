"""Whole studies that ask their teachers: from instructions to a ranking, killed, resumed, run again."""

import json
from pathlib import Path
from typing import Any

import pytest

import chat_server as chat
from chat_server import answer, refuse, serving
from preceptor.engines.base import ChatRequest, Completion
from preceptor.engines.encoder import Encoder
from preceptor.engines.generation import TransformersChat
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import locate
from preceptor.engines.templates import choose_template
from preceptor.pipeline.pipeline import Pipeline
from preceptor.types import Message
from small_study import by_teacher, preceptor, shards
from small_teachers import (
    GRADED,
    THRESHOLDS,
    asked_in,
    drawn,
    fake,
    generations,
    graded,
    partitions,
    runtime_at,
    served,
    study_with,
    texts_in,
    write_questions,
)

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


def study_file(tmp_path: Path, store: Path, *tables: str, instructions: int = 8) -> Path:
    """Write a study of two fake teachers and a derived one, whose reward is the number of words."""
    limits = ", ".join(f'{{ name = "words", at_least = {number} }}' for number in THRESHOLDS)
    file = tmp_path / f"{store.name}.toml"
    file.write_text(
        f"""
        no_student = {str(not any("[[students]]" in one for one in tables)).lower()}
        data.instructions = ["{write_questions(tmp_path, instructions)}"]
        [[reward]]
        kind = "rule"
        rule = {{ kind = "constraints", partial = true, constraints = [{limits}] }}
        [[teachers]]
        model = "one"
        engine = "fake"
        temperature = 0.8
        samples = 5
        [[teachers]]
        model = "two"
        engine = "fake"
        [[best_of_n]]
        kind = "best"
        of = "one"
        """
        + "\n".join(tables)
        + f"""
        [runtime]
        store = "{store}"
        device = "cpu"
        """
    )
    return file


def result_of(file: Path, result: Path) -> str:
    """Run a study file by the command; return what it says while it works."""
    said = preceptor("run", file, "--json", result)
    assert said.exit_code == 0, said.output
    return said.output


def test_a_study_on_the_fake_engine_runs_and_runs_again_with_nothing_asked(
    tmp_path: Path, model_folder: Path
):
    student = f'[[students]]\nmodel = "{model_folder}"\nchat_template = "plain"\n'
    file = study_file(tmp_path, tmp_path / "store", student)
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    result_of(file, first)
    before = shards(tmp_path / "store")
    output = result_of(file, again)
    assert shards(tmp_path / "store") == before
    assert "40 stored, 0" in " ".join(output.split())
    assert again.read_bytes() == first.read_bytes()
    (ranking,) = json.loads(first.read_text())
    found = by_teacher(ranking)
    assert found.keys() == {"one", "two", "one best-of-all"}
    for record in found.values():
        assert record["n"] == 8
        assert record["car"] == pytest.approx(record["reward"] / (1 + 3 * record["loss"]))
    texts: dict[str, list[str]] = {}
    for partition in partitions(tmp_path / "store"):
        model = str(partition.identity.spec["model"])
        texts[model] = [one.text or "" for one in partition.each()]
    for model, of in texts.items():
        assert len(of) % 8 == 0  # as many samples of each of eight instructions
        mean = sum(map(graded, of)) / len(of)
        assert found[model]["reward"] == pytest.approx(mean)
    assert "chosen-by-own-reward" in {one["code"] for one in ranking["warnings"]}


def test_a_withheld_prompt_is_counted_told_and_never_a_zero(tmp_path: Path):
    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        said = asked["messages"][-1]["content"]
        if "number 1 " in said:
            answer(None, reason="content_filter")(handler, asked)
        elif "number 2 " in said:
            refuse(400, "not this one")(handler, asked)
        else:
            answer("word " * 30)(handler, asked)

    study = study_with(write_questions(tmp_path, 8), served(), fake("two"), reward=GRADED)
    with serving(otherwise=step) as told:
        runtime = runtime_at(tmp_path / "store", told, concurrency=1)
        (ranking,) = Pipeline(study, runtime).rankings()
        (again,) = Pipeline(study, runtime).rankings()
        prompts = [str(one["messages"]) for one in told.requests]
    assert again.to_records() == ranking.to_records()
    assert sum("number 1 " in prompt for prompt in prompts) == 1
    assert sum("number 2 " in prompt for prompt in prompts) == 1
    found = {record["teacher"]: record for record in ranking.to_records()}
    # Of eight instructions the six that both answered, at the reward of thirty words.
    assert found["served"]["n"] == found["two"]["n"] == 6
    assert found["served"]["reward"] == pytest.approx(graded("word " * 30))
    said = " ".join(map(str, ranking.warnings))
    assert (
        "'served' gave no response to 1 request: content filter: the answer was withheld." in said
    )
    assert "'served' gave no response to 1 request: refused request: status 400: not this" in said


def test_a_study_whose_endpoint_is_down_keeps_what_the_others_gave(tmp_path: Path):
    from preceptor.errors import ModelError

    study = study_with(write_questions(tmp_path, 8), drawn(), served(), reward=GRADED)
    with serving(otherwise=refuse(503, "down")) as told:
        runtime = runtime_at(tmp_path / "store", told, concurrency=1, patience_s=0.1)
        with pytest.raises(ModelError, match="has not answered 5 requests in a row"):
            Pipeline(study, runtime).rankings()
    assert len(texts_in(tmp_path / "store")) == 24
    with serving() as told:
        assert asked_in(study, runtime_at(tmp_path / "store", told)) == {"one": 0, "served": 8}


def answering_with(engine: TransformersChat) -> chat.Step:
    """Serve a model that runs in this process, one request at a time."""

    def step(handler: chat.Handler, asked: dict[str, Any]) -> None:
        request = ChatRequest(
            tuple(Message(turn["role"], turn["content"]) for turn in asked["messages"]),
            max_tokens=asked["max_tokens"],
            temperature=asked["temperature"],
            seed=asked.get("seed"),
            top_p=asked.get("top_p", 1.0),
            stop=tuple(asked.get("stop", ())),
        )
        with handler.server.told.lock:  # type: ignore[attr-defined]
            outcome = engine.complete(request)
        assert isinstance(outcome, Completion)
        answer(outcome.text, reason=outcome.finish_reason or "stop")(handler, asked)

    return step


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> TransformersChat:
    located = locate(str(model_folder))
    template = choose_template("chatml", located.folder)
    encoder = Encoder(load_tokenizer(located), template, max_length=512)
    return TransformersChat(load_model(located, dtype="float32", device="cpu"), encoder, batch=4)


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.9, "top_p": 0.8, "samples": 2, "seed": 3}]
)
def test_a_model_gives_the_same_texts_in_process_and_over_http(
    tmp_path: Path, model_folder: Path, engine: TransformersChat, sampling: dict[str, Any]
):
    questions = write_questions(tmp_path, 6)
    shared = {"max_tokens": 20, "system": "Be brief.", "stop": ["zz"], **sampling}
    local = {"model": str(model_folder), "chat_template": "chatml", "dtype": "float32", **shared}
    here, there = tmp_path / "here", tmp_path / "there"
    asked_in(study_with(questions, local), runtime_at(here))
    with serving(otherwise=answering_with(engine)) as told:
        remote = study_with(questions, served(**shared))
        asked_in(remote, runtime_at(there, told, timeout_s=60.0, patience_s=60.0))

    def by_key(store: Path) -> dict[bytes, tuple[str | None, str | None]]:
        return {one.key: (one.text, one.finish_reason) for _, one in generations(store)}

    assert by_key(here) == by_key(there)
    texts = {text for text, _ in by_key(here).values()}
    assert len(texts) > len(by_key(here)) / 2
    (one,), (other,) = partitions(here), partitions(there)
    assert one.identity != other.identity  # how a server renders and rounds is not known
