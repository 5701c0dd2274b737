"""A check has a time limit that holds in any thread and whatever the library is busy with."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from preceptor.errors import DataError, MissingPackage
from preceptor.scorers.verifier import bounded
from preceptor.scorers.verifier.bounded import NotChecked, bounded_check, require_package

PATTERN = {"pattern": "^[0-9]+$", "full": False}
# A power tower: its value could not be written down, and computing it is one uninterruptible call.
TOWER = r"\boxed{9^{9^{9^{9}}}}"


def test_a_check_that_would_never_end_is_cut_off_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bounded_check("math", {"answer": "7"}, '["7"]') == 1.0
    monkeypatch.setattr(bounded, "CHECK_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(NotChecked, match=r"longer than 0\.5 s"):
        bounded_check("math", {"answer": TOWER}, '["7"]')
    assert time.monotonic() - start < 5
    assert bounded_check("regex", PATTERN, "42") == 1.0


def test_a_check_works_and_is_cut_off_outside_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded, "CHECK_SECONDS", 0.5)
    seen: list[object] = []

    def run() -> None:
        seen.append(bounded_check("regex", PATTERN, "42"))
        try:
            bounded_check("math", {"answer": TOWER}, '["7"]')
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
        found = list(threads.map(lambda text: bounded_check("regex", PATTERN, text), texts))
    assert found == [1.0 if text == "42" else 0.0 for text in texts]


def test_what_a_library_raises_is_a_check_without_an_answer() -> None:
    # 1,000 nested lists under a schema that calls itself: deeper than Python's stack.
    nested = "[" * 1000 + "]" * 1000
    with pytest.raises(NotChecked, match="RecursionError"):
        bounded_check("json_schema", {"schema": {"items": {"$ref": "#"}}}, nested)
    assert bounded_check("json_schema", {"schema": {"type": "integer"}}, "1") == 1.0


def test_a_process_that_was_ended_from_outside_is_replaced() -> None:
    assert bounded_check("regex", PATTERN, "42") == 1.0
    process = bounded._process(os.getpid())._running
    assert process is not None
    process.kill()
    process.wait()
    assert bounded_check("regex", PATTERN, "42") == 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_its_own_checks_and_leaves_those_of_its_parent_alone() -> None:
    assert bounded_check("regex", PATTERN, "42") == 1.0
    own = bounded._process(os.getpid())._running
    child = os.fork()
    if child == 0:
        right = bounded_check("regex", PATTERN, "no") == 0.0
        bounded._process(os.getpid()).close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bounded_check("regex", PATTERN, "42") == 1.0
    assert bounded._process(os.getpid())._running is own


def test_a_lone_surrogate_in_a_text_is_no_crash() -> None:
    assert bounded_check("regex", {"pattern": "b$", "full": False}, "a\ud800b") == 1.0


def test_a_bad_reference_is_told_from_a_check_that_did_not_end() -> None:
    with pytest.raises(DataError, match="not one of RE2's") as seen:
        bounded_check("regex", {"pattern": "(", "full": False}, "x")
    assert not isinstance(seen.value, NotChecked)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_package("math")
    assert find_spec("not_there_at_all") is None
    monkeypatch.setitem(bounded._MODULES, "math", "not_there_at_all")
    with pytest.raises(MissingPackage, match=r"'math-verify'.*preceptor\[verify\]"):
        require_package("math")
