"""Processes that work on one study at once pay for nothing twice, whoever of them dies."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat_server import Handler, Told, answer, serving
from preceptor.benchmarks.cached_chat import Answer, CachedChat
from preceptor.config.runtime import Endpoint
from preceptor.engines.base import ChatRequest
from preceptor.engines.chat.client import OpenAIChat
from preceptor.pipeline.score import carry_out
from preceptor.pipeline.work import Silent
from preceptor.store import claims as module
from preceptor.store.claims import CLAIM, Claims, holders, sweep_claims
from preceptor.store.identity import Identity
from preceptor.store.sharing import SharedRows
from preceptor.store.store import Store
from preceptor.types import Generation, Message
from small_study import preceptor, start
from small_teachers import job, runtime_at, served, study_with, write_questions
from test_score import LetterScorer, partition_of, step_of

ROWS = 40
PATIENCE = 60.0
FOREIGN = "tmp-otherhost-77-5-abc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "partition"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of a temporary file of a process of this machine that has ended."""
    code = "from preceptor.store.files import temporary_name; print(temporary_name())"
    words = [sys.executable, "-c", code]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def claim(folder: Path, owner: str, part: str = "abc") -> Path:
    path = folder / f"{CLAIM}{part}"
    path.write_text(f"{owner} elsewhere")
    return path


def slowly(handler: Handler, request: dict[str, Any]) -> None:
    """Answer once more than one process can have in flight is in flight, however slow the machine is."""
    told: Told = handler.server.told  # type: ignore[attr-defined]
    end = time.monotonic() + PATIENCE
    while told.busiest <= 4 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.01)
    answer("yes")(handler, request)


def generation(folder: Path, told: Told) -> None:
    study = study_with(folder / "questions.jsonl", served())
    job(study, runtime_at(folder / "store", told, concurrency=4)).run(Silent())


def judging(folder: Path, told: Told) -> None:
    endpoint = Endpoint(url=told.url, concurrency=4)
    chat = CachedChat(
        lambda _: OpenAIChat(endpoint, "judge"),
        Identity.of({"judge": "a"}),
        who="The judge",
        where="here",
        flush="each",
    )
    requests = [ChatRequest((Message("user", str(one)),), max_tokens=4) for one in range(ROWS)]
    answers = chat.complete(requests, Store(folder / "store"))
    assert all(isinstance(one, Answer) and one.text == "yes" for one in answers)


@pytest.mark.parametrize("work", [generation, judging])
def test_what_is_asked_for_at_once_is_asked_for_once(
    work: Callable[[Path, Told], None], tmp_path: Path
):
    write_questions(tmp_path, ROWS)
    with serving(otherwise=slowly) as told, ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, tmp_path, told) for _ in range(3)]:
            done.result()
        assert told.busiest > 4, "they did not work side by side"
    asked = [str(request["messages"]) for request in told.requests]
    assert len(asked) == len(set(asked)) == ROWS
    assert not list(tmp_path.rglob(f"{CLAIM}*")) + list(tmp_path.rglob("tmp-*"))


def test_what_is_scored_at_once_is_scored_once(tmp_path: Path):
    scorers = [LetterScorer() for _ in range(3)]
    steps = [step_of(tmp_path, scorer, instructions=200) for scorer in scorers]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda step: carry_out(step, Silent())["letters"].tolist(), steps))
    asked = [one.key for scorer in scorers for one in scorer.asked]
    assert len(asked) == len(set(asked)) == 400
    assert str(found[0]) == str(found[1]) == str(found[2])


def test_what_a_killed_process_had_in_work_is_taken_over_at_once(tmp_path: Path):
    questions = write_questions(tmp_path, ROWS)
    hung = threading.Event()

    def until_killed(handler: Handler, request: dict[str, Any]) -> None:
        if len(told.requests) >= 10 and not hung.wait(PATIENCE):
            return
        answer("yes")(handler, request)

    def begin(name: str) -> "subprocess.Popen[str]":
        words = ["generate", questions, "--teacher", "served", "--url", told.url, "--concurrency"]
        words += ["4", "--store", tmp_path / "store", "--output", tmp_path / f"{name}.jsonl"]
        return start(*words)

    with serving(otherwise=until_killed) as told:
        killed = begin("killed")
        while len(told.requests) < 13:
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        others = [begin("one"), begin("other")]
        while len(told.requests) < 21:  # both have their own in flight
            assert {process.poll() for process in others} == {None}
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
        hung.set()
        said = [process.communicate(timeout=PATIENCE) for process in others]
    assert [process.returncode for process in others] == [0, 0], said
    asked = [str(request["messages"]) for request in told.requests]
    assert len(set(asked)) == ROWS
    assert len(asked) - len(set(asked)) <= 4
    lines = [sorted((tmp_path / f"{n}.jsonl").read_text().split("\n")) for n in ("one", "other")]
    assert lines[0] == lines[1] and len(lines[0]) == ROWS + 1


def test_the_claim_of_a_dead_process_holds_nobody_up(folder: Path, dead: str):
    claim(folder, dead)
    with Claims(folder) as claims:
        assert claims.take("abc") and claims.take("abd")
        with Claims(folder) as others:
            assert not others.take("abc")
            assert str(os.getpid()) in str(others.holder("abc"))
            claims.release("abc")
            assert others.take("abc")
    assert not folder.exists()


def test_a_folder_named_like_a_claim_holds_nobody_up(folder: Path):
    (folder / f"{CLAIM}abc").mkdir()
    with Claims(folder) as claims:
        assert claims.take("abc")
        assert claims.holder("abc") is None
    sweep_claims(folder)
    assert not holders(folder)


def test_a_claim_of_another_machine_holds_while_it_is_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    path = claim(folder, FOREIGN)
    with Claims(folder) as claims:
        for touch in range(6):
            assert not claims.take("abc")
            clock[0] += 0.9 * module.LIFE_S
            os.utime(path, (touch, touch))
        assert str(claims.holder("abc")) == "process 77 on elsewhere"
        clock[0] += 1.1 * module.LIFE_S
        assert claims.take("abc")


def test_a_claim_is_touched_while_its_process_lives(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BEAT_S", 0.02)
    with Claims(folder) as claims:
        claims.take("abc")
        path = folder / f"{CLAIM}abc"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + PATIENCE
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_was_taken_over_meanwhile_is_left_to_its_new_holder(folder: Path, dead: str):
    old = claim(folder, dead).stat().st_ino
    with Claims(folder) as claims:
        assert claims.take("abc")
        module._remove(folder / f"{CLAIM}abc", old)  # by one that had looked before
        with Claims(folder) as late:
            assert not late.take("abc")
        # A process that stood still and lost its claim gives back nothing.
        (folder / f"{CLAIM}abc").unlink()
        theirs = claim(folder, FOREIGN)
        claims.release("abc")
        assert theirs.exists()


def shared(folder: Path, rows: Sequence[bytes], look: Callable[[], list[bytes]]) -> Any:
    return SharedRows(Claims(folder), {row: [row] for row in rows}, lambda row: row, look)


def test_rows_of_others_are_waited_for_with_a_word_and_taken_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "LIFE_S", 0.3)
    path = claim(folder, FOREIGN)
    mine, stored_there, lost_there = b"\x11" * 16, b"\xab\xc1" * 8, b"\xab\xc2" * 8
    looks = iter([[], []])
    with shared(
        folder, [mine, stored_there, lost_there], lambda: next(looks, [stored_there])
    ) as rows:
        assert rows.more() and list(rows.each()) == [[mine]]
        rows.stored([mine])
        assert [one.name for one in folder.glob(f"{CLAIM}*")] == [path.name]
        assert rows.more() and list(rows.each()) == [[lost_there]]
        assert not rows.more()
    assert "waiting for 2 rows that others have in work: process 77 on elsewhere" in caplog.text


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EROFS])
def test_where_no_links_can_be_made_all_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_paths: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    scorer = LetterScorer()
    carry_out(step_of(tmp_path, scorer), Silent())
    assert len(scorer.asked) == 20


def test_an_interrupt_gives_claims_back(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        carry_out(step_of(tmp_path, LetterScorer(stop_after=0)), Silent())
    assert not (tmp_path / "store" / "scores").exists() or not list(
        (tmp_path / "store" / "scores").iterdir()
    )
    assert not partition_of(tmp_path).in_work()


def test_the_commands_for_stores_know_claims(tmp_path: Path, dead: str):
    store = tmp_path / "store"
    partition = Store(store).responses(Identity.of({"engine": "any"}))
    partition.append([Generation(b"a" * 16, 0, "text")])
    (place,) = store.glob("responses/*")
    claim(place, dead, "00a")
    here = ("--store", store)
    with partition.claims() as claims:
        claims.take("00b")
        listed = preceptor("store", "list", *here, "--json", "-").stdout
        assert f'"in_work": [\n      "process {os.getpid()} on' in listed
        pruned = preceptor("store", "prune", partition.identity.digest[:8], "--yes", *here)
        assert "is in use by process" in pruned.output and len(partition.keys()) == 1
        assert preceptor("store", "check", "--repair", *here).exit_code == 0
        assert [one.name for one in place.glob(f"{CLAIM}*")] == [f"{CLAIM}00b"]
        assert place.joinpath(claims._own.name).exists()  # type: ignore[union-attr]
    assert preceptor("store", "prune", partition.identity.digest[:8], "--yes", *here).exit_code == 0
    assert not place.exists()
