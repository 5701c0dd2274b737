"""Checks run side by side, each in bounded time and memory, whatever a library is busy with."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preceptor.errors import DataError, MissingPackage
from preceptor.scorers.verifier import pool, verifier
from preceptor.scorers.verifier.library_checks import require_package
from preceptor.scorers.verifier.pool import CheckPool, Verdict
from preceptor.scorers.verifier.verifier import NotChecked, verify

PATTERN = {"kind": "regex", "pattern": "^[0-9]+$"}
SEVEN = {"kind": "math", "answer": "7"}
# A power tower: its value could not be written down, and computing it is one uninterruptible call.
TOWER = {"kind": "math", "answer": r"9^{9^{9^{9}}}"}


def verdicts(of: CheckPool, checks: list[pool.Checked]) -> list[Verdict]:
    """Return the verdict of each check, in their order."""
    found = dict(one for some in of.check(checks) for one in some)
    return [found[place] for place in range(len(checks))]


def running(of: CheckPool) -> list[int]:
    """Return the ids of the pool's processes."""
    return [worker._running.pid for worker in of._workers if worker._running is not None]


def test_a_check_that_would_never_end_is_cut_off_and_the_others_get_their_verdicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.5)
    checks = [(SEVEN, "7"), (TOWER, "7"), (PATTERN, "42"), (SEVEN, "8"), (PATTERN, "no")]
    found = verdicts(CheckPool(2), checks)
    assert [one.reward for one in found] == [1.0, None, 1.0, 0.0, 0.0]
    assert found[1].failed == "it takes more than 1 s or 4 GiB of memory"


def test_a_check_that_runs_out_of_time_beside_others_is_tried_alone_with_twice_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_at_first", lambda: pool.Limit(1e-6, 4 << 30))
    # A microsecond is less than any formula takes, so both are checked once more.
    assert [one.reward for one in verdicts(CheckPool(2), [(SEVEN, "x = 7"), (SEVEN, "8")])] == [
        1,
        0,
    ]


def test_a_check_that_runs_out_of_memory_beside_others_is_tried_alone_with_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So little that not even what is imported already leaves any room.
    monkeypatch.setattr(pool, "_at_first", lambda: pool.Limit(5, 1 << 20))
    text = "12 + 30 = 42 " * 100_000
    found = verdicts(CheckPool(1), [({"kind": "numeric", "answer": 42}, text)])
    assert [one.reward for one in found] == [1.0]


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="this system does not count processor time")
def test_a_stopped_machine_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 0.1)
    monkeypatch.setattr(pool, "CHECK_SECONDS", 5.0)
    assert verdicts(CheckPool(1), [(TOWER, "7")]) == [Verdict()]


def test_second_tries_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two are tried again at once: were they tried one after the other, the second would wait for ever.
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(pool, "_PATIENCE", 200)
    both = threading.Barrier(2, timeout=60)
    tried = pool._Worker.verdicts

    def meeting(worker: object, checks: object, limit: pool.Limit) -> object:
        if limit.memory > 1 << 30:
            both.wait()
        return tried(worker, checks, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(pool._Worker, "verdicts", meeting)
    found = verdicts(CheckPool(2), [(TOWER, "7")] * 2)
    assert [one.failed for one in found] == ["it takes more than 0.6 s or 4 GiB of memory"] * 2


def test_a_check_is_cut_off_outside_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.5)
    seen: list[object] = []

    def run() -> None:
        seen.append(verify("42", PATTERN))
        try:
            verify("7", TOWER)
        except NotChecked as error:
            seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen[0] == 1.0
    assert isinstance(seen[1], NotChecked)


def test_many_threads_get_their_own_answers() -> None:
    texts = ["42" if place % 3 else "no" for place in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: verify(text, PATTERN), texts))
    assert found == [1.0 if text == "42" else 0.0 for text in texts]


def test_what_a_library_raises_is_a_check_without_an_answer() -> None:
    # 1,000 nested lists under a schema that calls itself: deeper than Python's stack.
    nested = "[" * 1000 + "]" * 1000
    with pytest.raises(NotChecked, match="RecursionError"):
        verify(nested, {"kind": "json_schema", "schema": {"items": {"$ref": "#"}}})
    assert verify("1", {"kind": "json_schema", "schema": {"type": "integer"}}) == 1.0


def test_a_process_that_was_ended_from_outside_is_replaced() -> None:
    own = CheckPool(1)
    assert verdicts(own, [(PATTERN, "42")]) == [Verdict(1.0)]
    (before,) = running(own)
    os.kill(before, signal.SIGTERM)
    assert verdicts(own, [(PATTERN, "42")] * 3) == [Verdict(1.0)] * 3
    assert running(own) != [before]


def test_a_caller_that_leaves_ends_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 600.0)
    start = time.monotonic()
    for _ in range(8):  # now and then a process is just being started
        own = CheckPool(2)
        checks = own.check([(PATTERN, "42")] * 16 + [(TOWER, "7")] * 16)
        next(checks)
        checks.close()
        assert running(own) == []
    assert time.monotonic() - start < 60


def test_a_process_whose_answers_were_not_all_read_is_not_asked_again() -> None:
    own = CheckPool(1)
    (worker,) = own._workers
    answers = worker.verdicts([(PATTERN, "42"), (PATTERN, "no")], pool.Limit(5, 1 << 30))
    assert next(answers) == Verdict(1.0)
    answers.close()
    assert running(own) == []
    assert verdicts(own, [(PATTERN, "42")]) == [Verdict(1.0)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_its_own_checks_and_leaves_those_of_its_parent_alone() -> None:
    assert verify("42", PATTERN) == 1.0
    own = running(verifier._own_pool(os.getpid()))
    child = os.fork()
    if child == 0:
        right = verify("no", PATTERN) == 0.0
        verifier._own_pool(os.getpid()).close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert verify("42", PATTERN) == 1.0
    assert running(verifier._own_pool(os.getpid())) == own


def test_a_lone_surrogate_in_a_text_is_no_crash() -> None:
    assert verify("a\ud800b", {"kind": "regex", "pattern": "b$"}) == 1.0


def test_a_bad_reference_is_told_from_a_check_that_did_not_end() -> None:
    with pytest.raises(DataError, match="not one of RE2's") as seen:
        verify("x", {"kind": "regex", "pattern": "("})
    assert not isinstance(seen.value, NotChecked)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_package("math")
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(MissingPackage, match=r"'math-verify'.*preceptor\[verify\]"):
        require_package("math")


def test_a_process_that_cannot_be_started_is_said_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        DataError, match=r"did not start \(No such file.*'/nowhere/python'.* memory"
    ):
        verdicts(CheckPool(2), [(PATTERN, "42"), (PATTERN, "no")])


@pytest.mark.parametrize(("quota", "most"), [("50000 100000", 1), ("max 100000", None), ("", None)])
def test_a_container_is_given_no_more_processes_than_its_quota(
    tmp_path: Path, quota: str, most: int | None
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert pool.cores(file) == (most or pool.cores(tmp_path / "none"))
