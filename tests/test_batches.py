"""Provider batches: half the price, resumable, nothing paid for twice; on a loopback stand-in of the API."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_server import Provider, echo, providing, text_of
from chat_server import completion, refuse
from preceptor.benchmarks.judge_prompts import Pair
from preceptor.benchmarks.judges import judge_of
from preceptor.config.base import checked
from preceptor.config.finetune import ChatJudge
from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Runtime
from preceptor.engines.base import ChatRequest
from preceptor.engines.chat.batch import LEAST, _id_of
from preceptor.errors import ModelError
from preceptor.pipeline.estimate import estimate_generation
from preceptor.pipeline.generate import GenerationJob
from preceptor.pipeline.work import Silent
from preceptor.scorers.judge import Judge
from preceptor.store.store import Store
from preceptor.types import Instruction, Message, Response
from small_teachers import job, runtime_at, served, study_with, texts_in, write_questions

ROWS = 24


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preceptor.engines.chat.batch_api._FIRST_DELAY_S", 0.02)
    monkeypatch.setattr("preceptor.engines.chat.batch._FIRST_POLL_S", 0.01)


def job_at(folder: Path, provider: Provider, rows: int = ROWS, **teacher: Any) -> GenerationJob:
    study = study_with(write_questions(folder, rows), served(max_tokens=32, **teacher))
    return job(study, runtime_at(folder / "store", provider.told, batch_api=True))


def paid(provider: Provider) -> Counter[str]:
    """Return how often each question was asked, in batches and at once."""
    singly = [text_of(asked) for asked in provider.told.requests]
    return Counter([*provider.asked, *singly])


def require_all_once(folder: Path, provider: Provider, rows: int = ROWS) -> None:
    questions = [f"What is number {number} good for?" for number in range(rows)]
    assert paid(provider) == Counter(questions)
    assert sorted(texts_in(folder / "store").values(), key=str) == sorted(
        f"Answer to: {question}" for question in questions
    )


def test_a_teacher_is_asked_by_a_batch_and_one_request_that_tries_the_settings(tmp_path: Path):
    with providing(polls=3, busy=2) as provider:
        one = job_at(tmp_path, provider)
        one.run(Silent())
        require_all_once(tmp_path, provider)
        assert len(provider.batches) == 1
        assert len(provider.told.requests) == 1
        (line, *_) = provider.lines(provider.batches["batch_0"])
        assert line["url"] == "/v1/chat/completions" and line["method"] == "POST"
        assert line["body"] | {"messages": []} == provider.told.requests[0] | {"messages": []}
        before = len(provider.seen)
        job_at(tmp_path, provider).run(Silent())
        assert len(provider.seen) == before, "a second run asks nothing"


def test_a_handful_is_asked_at_once(tmp_path: Path):
    with providing() as provider:
        job_at(tmp_path, provider, rows=LEAST - 1).run(Silent())
        require_all_once(tmp_path, provider, LEAST - 1)
        assert provider.batches == {} and provider.seen == []


def test_a_batch_whose_name_never_came_back_is_found_by_its_token(tmp_path: Path):
    with providing(vanish=1) as provider:
        job_at(tmp_path, provider).run(Silent())
        require_all_once(tmp_path, provider)
        assert len(provider.batches) == 1


def test_large_sets_go_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("preceptor.engines.chat.batch.MOST_REQUESTS", 8)
    with providing() as provider:
        job_at(tmp_path, provider).run(Silent())
        require_all_once(tmp_path, provider)
        sizes = [len(provider.lines(one)) for one in provider.batches.values()]
    assert sizes == [8, 8, 7]


def test_what_a_batch_did_not_answer_is_asked_again_and_what_it_refused_is_noted(tmp_path: Path):
    # By the order of the lines: which request tries the settings at once, before the batch, follows the keys.
    fates: list[int | str] = [500, 429, "expired", "lost", 400, "filtered"]
    first: dict[str, int | str] = {}

    def fate(body: dict[str, Any]) -> bytes | int | str:
        text = text_of(body)
        if fates and text not in first:
            first[text] = fates.pop(0)
            if first[text] != "filtered":
                return first[text]
        return (
            completion(None, reason="content_filter")
            if first.get(text) == "filtered"
            else echo(body)
        )

    with providing(fate=fate) as provider:
        one = job_at(tmp_path, provider)
        one.run(Silent())
        assert {text: count for text, count in paid(provider).items() if count > 1} == {
            text: 2 for text, what in first.items() if what not in (400, "filtered")
        }
        assert Counter(note.partition(":")[0] for note in one.notes()) == {
            "refused request": 1,
            "content filter": 1,
        }
        assert len(texts_in(tmp_path / "store")) == ROWS - 2


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_a_batch_that_ends_early_brings_what_it_has(tmp_path: Path, end: str):
    with providing(
        end=end, fate=lambda body: echo(body) if "1" in text_of(body) else "expired"
    ) as provider:
        provider.told.otherwise = refuse(503, "no")
        one = job_at(tmp_path, provider)
        with pytest.raises(ModelError, match="has not answered 5 requests in a row"):
            one.run(Silent())
    with_one = sum("1" in str(number) for number in range(ROWS))
    assert len(texts_in(tmp_path / "store")) >= with_one - 1


def test_a_batch_that_is_refused_ends_the_run_with_the_providers_words(tmp_path: Path):
    with providing(end="failed") as provider:
        one = job_at(tmp_path, provider)
        with pytest.raises(ModelError, match=r"was refused \(Enqueued token limit reached\)"):
            one.run(Silent())
        assert one.partition.batches().known() == []
        provider.end = "completed"
        one.run(Silent())
        assert len(texts_in(tmp_path / "store")) == ROWS


def test_settings_that_are_refused_are_found_out_before_a_batch_is_made(tmp_path: Path):
    with providing() as provider:
        provider.told.otherwise = refuse(401, "Incorrect API key")
        with pytest.raises(ModelError, match="Incorrect API key"):
            job_at(tmp_path, provider).run(Silent())
        assert provider.batches == {} and len(provider.told.requests) == 1


def test_an_endpoint_without_a_batch_api_says_so(tmp_path: Path):
    with providing() as provider:
        provider.upload = lambda *_: {}  # type: ignore[method-assign]
        with pytest.raises(ModelError, match="Leave out batch_api"):
            job_at(tmp_path, provider).run(Silent())


def test_a_batch_that_is_gone_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with providing() as provider:

        def forget() -> None:
            provider.on_poll = lambda: None
            del provider.batches["batch_0"]

        provider.on_poll = forget
        job_at(tmp_path, provider).run(Silent())
        require_all_once(tmp_path, provider)
    assert "batch batch_0 is gone: what it held is asked again" in caplog.text


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_wait_leaves_the_batch_running_and_says_how_to_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with providing(polls=100) as provider:
        provider.on_poll = stop
        with pytest.raises(KeyboardInterrupt):
            job_at(tmp_path, provider).run(Silent())
        told = [record.getMessage() for record in caplog.records]
        assert any(
            "batch batch_0 goes on at the provider. The same command collects it" in one
            for one in told
        )
        provider.on_poll = lambda: None
        provider.polls = provider.batches["batch_0"]["left"] = 2
        job_at(tmp_path, provider).run(Silent())
        require_all_once(tmp_path, provider)
        assert len(provider.batches) == 1


def test_a_batch_at_another_address_is_named_and_its_requests_are_asked_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with providing(polls=100) as provider:
        provider.on_poll = stop
        with pytest.raises(KeyboardInterrupt):
            job_at(tmp_path, provider).run(Silent())
        provider.on_poll, provider.polls = lambda: None, 1
        study = study_with(tmp_path / "questions.jsonl", served(max_tokens=32))
        url = provider.told.url.replace("127.0.0.1", "localhost")
        job(study, runtime_at(tmp_path / "store", provider.told, batch_api=True, url=url)).run(
            Silent()
        )
        assert len(texts_in(tmp_path / "store")) == ROWS
    assert (
        "holds 23 of these requests, which are asked again at Endpoint(http://localhost"
        in caplog.text
    )


KILLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import preceptor.engines.chat.batch as batch, preceptor.engines.chat.batch_api as api
batch._FIRST_POLL_S = api._FIRST_DELAY_S = 0.01
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.pipeline.work import Silent
from small_teachers import job, served, study_with
study = study_with(Path({questions!r}), served(max_tokens=32))
runtime = checked(Runtime, {runtime!r}, where="here")
print("begun", flush=True)
job(study, runtime).run(Silent())
"""


@pytest.mark.parametrize("at", ["POST files", "POST batches", "content"])
def test_a_run_that_is_killed_finds_its_batch_again_and_pays_for_nothing_twice(
    tmp_path: Path, at: str
):
    with providing(polls=2) as provider:
        runtime = runtime_at(tmp_path / "store", provider.told, batch_api=True)
        script = KILLED.format(
            paths=[str(Path(__file__).parent)],
            questions=str(write_questions(tmp_path, ROWS)),
            runtime=runtime.model_dump(),
        )
        process = subprocess.Popen([sys.executable, "-c", script])
        provider.seen = _KillingList(process, at)
        assert process.wait(60) == -signal.SIGKILL
        provider.seen = list(provider.seen)
        before = len(provider.told.requests)
        job_at(tmp_path, provider).run(Silent())
        assert len(texts_in(tmp_path / "store")) == ROWS
        assert len(provider.batches) == 1
        assert Counter(provider.asked).most_common(1)[0][1] == 1
        assert before == 1 and len(provider.told.requests) <= 2


class _KillingList(list[str]):
    """Kills a process when a request that ends or begins so is seen, after it was carried out."""

    def __init__(self, process: "subprocess.Popen[bytes]", at: str) -> None:
        super().__init__()
        self.process, self.at = process, at

    def append(self, one: str) -> None:
        super().append(one)
        if one.startswith(self.at) or one.endswith(self.at):
            self.process.kill()
            self.process.wait()


def test_progress_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with providing(polls=2) as provider, caplog.at_level(logging.INFO):
        job_at(tmp_path, provider).run(Silent())
    told = [record.getMessage() for record in caplog.records]
    assert any("23 requests are in batch batch_0, which may take a day" in one for one in told)
    assert any("batch batch_0 is in_progress, 0 of 23 requests are done" in one for one in told)


def test_a_judge_of_rewards_is_asked_by_a_batch(tmp_path: Path):
    responses = [Response("t", Instruction.from_text(f"Q {n}?"), f"Fine {n}.") for n in range(ROWS)]
    with providing(fate=lambda body: completion("7")) as provider:
        provider.told.otherwise = lambda handler, _: handler.send(200, completion("7"), {})
        runtime = runtime_at(tmp_path / "store", provider.told, batch_api=True)
        judge = Judge(
            JudgeReward(model="served", logprobs=False), runtime.endpoint("served"), runtime.store
        )
        assert judge.part > ROWS
        scores = [score for batch in judge.score(responses) for score in batch]
        assert {score.key for score in scores} == {one.key for one in responses}
        assert all(score.values["score"] == 7 for score in scores)
        assert (len(provider.batches), len(provider.told.requests)) == (1, 1)


def test_a_judge_of_pairs_is_asked_by_a_batch(tmp_path: Path):
    pairs = [Pair(f"Q {n}?", "Yes.", "No.") for n in range(ROWS)]
    with providing(fate=lambda body: completion("m")) as provider:
        provider.told.otherwise = lambda handler, _: handler.send(200, completion("m"), {})
        runtime = runtime_at(tmp_path / "store", provider.told, batch_api=True)
        table = ChatJudge(model="served", engine="openai", logprobs=False)
        compared = judge_of(table, runtime, ("letter",)).compare(pairs, Store(runtime.store))
        assert [one.share for one in compared] == [1.0] * ROWS
        assert len(provider.batches) == 1
        assert (
            len(provider.told.requests) == 2
        )  # the easy question, and one that tries the settings


@pytest.mark.parametrize(("discount", "share"), [(None, 0.5), (0.2, 0.8), (0.0, 1.0)])
def test_a_plan_shows_the_price_of_a_batch(tmp_path: Path, discount: float | None, share: float):
    study = study_with(write_questions(tmp_path, 4), served(price_in=1.0, price_out=4.0))

    def planned(**endpoint: Any) -> Any:
        at = {"served": {"url": "http://127.0.0.1:1/v1", **endpoint}}
        runtime = checked(Runtime, {"store": str(tmp_path / "s"), "endpoints": at}, where="here")
        (found,) = estimate_generation([job(study, runtime)], runtime)
        return found

    options = {} if discount is None else {"batch_discount": discount}
    whole, batch = planned(), planned(batch_api=True, **options)
    assert batch.money == pytest.approx(share * whole.money)
    assert batch.seconds is None
    assert f"by batches, within a day, at {share:.0%} of the price" in batch.basis


def test_neither_key_nor_text_is_written_down_with_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BATCH_KEY", "sk-planted-0123456789abcdef")
    with providing(polls=100) as provider:
        provider.on_poll = stop
        study = study_with(write_questions(tmp_path, ROWS), served(max_tokens=32))
        at = {"batch_api": True, "api_key_env": "BATCH_KEY"}
        one = job(study, runtime_at(tmp_path / "store", provider.told, **at))
        with pytest.raises(KeyboardInterrupt):
            one.run(Silent())
    (batch,) = one.partition.batches().known()
    assert batch.id == "batch_0" and len(batch.requests) == ROWS - 1
    kept = [file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert not any(b"planted" in content for content in kept)
    assert json.loads(json.dumps(batch.requests)) == list(batch.requests)


def test_requests_of_plain_conversations_are_found_again_by_what_named_them_before_tools():
    turns = (Message("system", "Be brief."), Message("user", "Why?"))
    plain = ChatRequest(turns, 100, temperature=0.5)
    assert _id_of(plain) == "ca93d58129db674451b7ca8592d043ad"
    assert _id_of(replace(plain, tools="[]")) != _id_of(plain)
    called, empty = (Message("assistant", "", calls) for calls in ("[]", ""))
    ids = {_id_of(replace(plain, messages=(*turns, last))) for last in (called, empty)}
    assert len(ids) == 2
