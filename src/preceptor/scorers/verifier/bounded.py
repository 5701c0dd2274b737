"""Checks of untrusted patterns, schemas and formulas, each with a time limit that always holds.

The one idea: such a check runs in a process of its own, which is killed when the time is up. A signal
would only work in the main thread and not on Windows, and neither a signal nor a thread stops a
library that is busy inside one long call (a huge power, a pattern that goes back and forth).
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec

from preceptor.errors import DataError, MissingPackage

CHECK_SECONDS = 5.0
"""The time one check may take."""

START_SECONDS = 120.0
"""The time a new process may take to import what a check needs, on a busy machine."""

_PACKAGES = {"regex": "google-re2", "json_schema": "jsonschema", "math": "math-verify"}
_MODULES = {"regex": "re2", "json_schema": "jsonschema", "math": "math_verify"}


class NotChecked(DataError):
    """A check that did not come to an end, which says nothing about the response."""


def require_package(kind: str) -> None:
    """Make sure that the package behind a kind of check can be imported.

    Raises:
        MissingPackage: It is not installed.
    """
    if find_spec(_MODULES[kind]) is None:
        purpose = f"A reference of kind '{kind}'"
        raise MissingPackage(_PACKAGES[kind], purpose=purpose, extra="verify")


def bounded_check(kind: str, reference: Mapping[str, object], text: str) -> float:
    """Return the reward of a text under a reference of kind `regex`, `json_schema` or `math`.

    Raises:
        DataError: The reference is malformed.
        NotChecked: The check took longer than `CHECK_SECONDS` or too much memory.
    """
    answer = _process(os.getpid()).ask({"kind": kind, "reference": reference, "text": text})
    if "refused" in answer:
        raise DataError(str(answer["refused"]))
    if "failed" in answer:
        raise NotChecked(str(answer["failed"]))
    return float(str(answer["reward"]))


@cache
def _process(pid: int) -> "_CheckingProcess":
    """Return this process's checker; a fork has another pid and must not share the pipes."""
    checker = _CheckingProcess()
    # A fork that ends must leave the process of its parent alone.
    atexit.register(lambda: checker.close() if os.getpid() == pid else None)
    return checker


class _CheckingProcess:
    """A process that answers one check at a time, started at first use and after every kill."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, question: Mapping[str, object]) -> dict[str, object]:
        """Return the answer to one question; a check cut off is an answer that says so."""
        line = json.dumps(question).encode() + b"\n"
        with self._lock:
            if self._running is None or self._running.poll() is not None:
                self._stop()
                self._running = _start()
            running = self._running
            try:
                _send(running, line)
                # The first line says that everything is imported; the second is the answer.
                if _line_within(running, START_SECONDS):
                    answer = _line_within(running, CHECK_SECONDS)
                    if answer:
                        return dict(json.loads(answer))
            except OSError:
                pass
            self._stop()
        return {"failed": f"it took longer than {CHECK_SECONDS:g} s or broke its process."}

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.kill()
            running.communicate()


def _start() -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(entry for entry in sys.path if entry)
    # -P: modules that lie in the current folder must not be imported in place of installed ones.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "preceptor.scorers.verifier.bounded_checks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )


def _send(running: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert running.stdin is not None
    running.stdin.write(line)
    running.stdin.flush()


def _line_within(running: "subprocess.Popen[bytes]", seconds: float) -> bytes:
    """Return the next line, or nothing where the process ended or was killed for being late."""
    assert running.stdout is not None
    late = threading.Event()

    def cut_off() -> None:
        late.set()
        running.kill()

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
    try:
        line = running.stdout.readline()
    finally:
        timer.cancel()
        timer.join()
    # A line that came just before the kill is not believed: the process is gone all the same.
    return b"" if late.is_set() else line
